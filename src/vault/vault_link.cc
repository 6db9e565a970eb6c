// The vault as appliances and agents see it: log leases, registrations, idle marks, the agents'
// conversation.
#include <fmt/core.h>

#include "base/party_names.h"
#include "replica/item_object.h"
#include "vault/group_desk.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// How long the item object waits for the machine's description before it is written without.
constexpr int64_t kDescriptionPatienceUs = 20'000'000;
// Another instance of one agent is refused while the known one was heard of this recently.
constexpr int64_t kInstanceHoldUs = 3'000'000;

}  // namespace

Status Vault::Impl::check_not_fenced(const Status& status) {
    // The fence is about the store, a stale log lease only about one item: told apart by asking.
    if (!status && status.error().code() == Code::kFenced && fence) {
        auto mine = fence->still_mine();
        if (!mine && mine.error().code() == Code::kFenced && !fenced.exchange(true))
            log::error("vault", about(mine.error()), "another vault has taken over the store: {}",
                       mine.error().to_string());
    }
    return status;
}

// The object that lets a reader with nothing but the store and the key open the item. Written once,
// before the first log lease is given out, so no segment is ever without it.
Status Vault::Impl::ensure_item_object(ItemRuntime& item, const ItemRecord& record) {
    {
        const std::lock_guard hold(item.mutex);
        if (item.item_object_there) return {};
    }
    const std::lock_guard work(key_work);
    FS_ASSIGN(const bool there, is_described(record.id));
    if (!there) {
        bool sizes_known = !record.disks.empty();
        for (const DesiredDisk& disk : record.disks)
            sizes_known = sizes_known && disk.size_bytes != 0;
        const bool waits = clock.now().us - record.created.us < kDescriptionPatienceUs;
        if ((!sizes_known || record.machine.empty()) && waits)
            return fail(Code::kUnavailable, "the agent has not described the machine yet");
        ItemObject object;
        object.item = record.id;
        object.name = record.name;
        object.created = record.created;
        // As it is now: a rotation may have wrapped it anew since `record` was read.
        FS_ASSIGN(const ItemRecord now, get_item(*database, record.id));
        FS_ASSIGN(const OpenedItemKey opened, open_for_item(now.id, now.wrapped_key, keks()));
        object.key_id = opened.key_id;
        object.wrapped_key = now.wrapped_key;
        for (const DesiredDisk& disk : record.disks)
            object.disks.push_back({disk.index, disk.path, disk.size_bytes});
        object.machine_json = record.machine;
        FS_ASSIGN(const Bytes bytes, encode_item_object(object));
        FS_TRY(put_idempotent(*store, item_object_name(record.id), bytes));
    }
    const std::lock_guard hold(item.mutex);
    item.item_object_there = true;
    return {};
}

Result<LogLease> Vault::acquire_log(const ItemId& id, const std::string& appliance) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    const std::lock_guard handing(item->handing_mutex);
    FS_ASSIGN(const ItemRecord record, get_item(*impl_->database, id));
    const auto may_replicate = [&](ItemState state) -> Status {
        {
            // Of a source that gives its machine up, what it still has is stored until the log is
            // fenced.
            const std::lock_guard hold(item->mutex);
            if (state == ItemState::kFailingOver && item->draining) return {};
        }
        return check_action(state, ItemAction::kReplicate);
    };
    FS_TRY(may_replicate(record.state));
    FS_TRY(impl_->ensure_item_object(*item, record));
    FS_TRY(impl_->let_take(record, appliance, *this));
    auto lease = item->replica->acquire_log(appliance);
    if (!lease) {
        FS_TRY(impl_->check_not_fenced(tl::unexpected(lease.error())));
        return lease;
    }
    // Whoever ends the log says so in the state, and fences after that. If that came between the
    // look at the state and this lease, the lease is the newer one: it is not handed out.
    FS_ASSIGN(const ItemRecord now, get_item(*impl_->database, id));
    if (const Status still = may_replicate(now.state); !still) {
        FS_TRY(impl_->check_not_fenced(item->replica->fence_log("given out too late")));
        return tl::unexpected(still.error());
    }
    {
        const std::lock_guard hold(item->mutex);
        item->status_stale = true;  // whose it is
    }
    lease->agent = record.agent;
    lease->bandwidth = record.policy.bandwidth;
    lease->time_zone = impl_->options.time_zone;
    log::About whose = about(record);
    whose.appliance = appliance;
    whose.agent = record.agent;
    log::info("vault", whose, "appliance '{}' has the log of '{}', epoch {}", appliance,
              record.name, lease->epoch.v);
    return lease;
}

Status Vault::register_segment(const SegmentRegistration& registration) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(registration.item));
    FS_TRY(impl_->check_not_fenced(item->replica->register_segment(registration)));
    {
        const std::lock_guard hold(item->mutex);
        // The age that the replica had just before is the worst since the last one.
        if (item->status.newest && !item->status.gap_open)
            item->worst.sample(
                impl_->clock.steady_us(),
                std::max<int64_t>(
                    impl_->clock.now().us + item->clock_ahead_us -
                        std::max(item->status.current_until, item->status.newest_time).us,
                    0));
        item->status_stale = true;
    }
    impl_->notify();
    return {};
}

Status Vault::mark_idle(const ItemId& id, Epoch epoch, Sequence sequence, TimePoint time) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    FS_TRY(impl_->check_not_fenced(item->replica->mark_idle(epoch, sequence, time)));
    const std::lock_guard hold(item->mutex);
    item->status_stale = true;
    return {};
}

Status Vault::report_trouble(const ItemId& id, const std::string& appliance,
                             const std::optional<Error>& trouble) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    bool fresh = false;
    Trouble told;
    {
        const std::lock_guard hold(item->mutex);
        const bool had = item->intake_trouble.has_value();
        item->intake_trouble.reset();
        if (trouble) {
            told = trouble_of(*trouble, fmt::format("appliance '{}'", appliance));
            item->intake_trouble = told;
            item->intake_trouble_us = impl_->clock.steady_us();
            fresh = !had;
        }
    }
    if (fresh) {
        // When it is the database that is full, the event can't be kept; the report stays.
        if (auto record = get_item(*impl_->database, id))
            event(told.severity, told.code, &*record, told.cause, told.remedy);
    }
    impl_->notify();
    return {};
}

// Known before it is dropped, so that whoever waits for it never finds neither.
Status Vault::Impl::take_failed_bookmark(Vault& vault, const ItemRecord& item,
                                         const BookmarkRecord& bookmark,
                                         const AgentItemError& error) {
    FS_ASSIGN(const ConsistentState consistent, get_consistent_state(*database, item.id));
    if (consistent.request == bookmark.id) {
        FS_TRY(consistent_point_failed(vault, item, {error.code, error.what, error.remedy}));
        return drop_bookmark(*database, bookmark.id);
    }
    constexpr size_t kKept = 256;
    const std::string what =
        fmt::format("the point \"{}\" was not made: {}", bookmark.label, error.what);
    {
        const std::lock_guard hold(mutex);
        failed_bookmarks.emplace_back(bookmark.id, Error(error.code, what, error.remedy));
        if (failed_bookmarks.size() > kKept) failed_bookmarks.pop_front();
    }
    FS_TRY(drop_bookmark(*database, bookmark.id));
    vault.event(Severity::kWarning, std::string(code_name(error.code)), &item, what, error.remedy);
    notify();
    return {};
}

std::optional<Error> Vault::Impl::failed_bookmark(const std::string& id) {
    const std::lock_guard hold(mutex);
    for (const auto& [failed, error] : failed_bookmarks)
        if (failed == id) return error;
    return std::nullopt;
}

Result<bool> Vault::Impl::take_status(Vault& vault, ItemRecord record,
                                      const AgentItemStatus& status, int64_t clock_ahead_us) {
    bool written = false;
    if (why_set_aside(record.id)) return false;
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(status.item));
    bool resynced = false;
    {
        const std::lock_guard hold(item->mutex);
        resynced = item->agent && item->agent->resync.state != ResyncState::kDone &&
                   status.resync.state == ResyncState::kDone;
        item->agent = status;
        item->agent->machine_description.clear();  // kept in the database
        item->agent_heard_us = clock.steady_us();
        if (!status.appliance.empty() || status.send_trouble.empty())
            item->unsent_us.reset();
        else if (!item->unsent_us)
            item->unsent_us = clock.steady_us();
        item->clock_ahead_us = clock_ahead_us;
        item->agent_heard = clock.now();
    }
    watch_split(vault, record, *item, status);
    if (resynced)
        vault.event(
            Severity::kInformation, "resynchronised", &record,
            fmt::format("{} bytes of source and replica were compared, {} differed, {} were "
                        "sent",
                        status.resync.compared, status.resync.differing, status.resync.sent));
    FS_TRY(take_cancel_answer(vault, *item, record, status));
    written = !status.bookmarks.empty() || !status.resync_cancel_done_id.empty();
    for (const BookmarkDone& done : status.bookmarks) {
        auto known = get_bookmark(*database, done.request_id);
        if (!known || known->sequence.v != 0 || known->item != status.item) continue;
        if (done.error)
            FS_TRY(take_failed_bookmark(vault, record, *known, *done.error));
        else
            FS_TRY(finish_bookmark(*database, done.request_id, done.sequence, done.time));
    }
    // The database is written only when something changed: status comes five times a second.
    const auto changes = [&](ItemRecord& to) {
        bool changed = false;
        const auto set = [&](auto& field, const auto& value) {
            if (field == value) return;
            field = value;
            changed = true;
        };
        if (!status.nbd_socket.empty()) set(to.nbd_socket, status.nbd_socket);
        if (!status.machine_description.empty()) set(to.machine, status.machine_description);
        if (!to.resync_request.empty() && to.resync_request == status.resync_done_id)
            set(to.resync_request, std::string());
        for (const AgentDisk& disk : status.disks) {
            if (disk.index > to.disks.size()) continue;
            if (disk.index == to.disks.size()) {
                // A mirrored machine says itself what it has; and a vault whose database was lost
                // learns of disks that were added or removed.
                to.disks.push_back({disk.index, disk.path, disk.size_bytes, disk.size_bytes == 0});
                changed = true;
                continue;
            }
            DesiredDisk& known = to.disks[disk.index];
            if (known.removed) continue;
            if (disk.size_bytes == 0) set(known.removed, true);
            if (disk.size_bytes != 0) set(known.size_bytes, disk.size_bytes);
            // The id by which one was added is how the agent finds it.
            if (to.mode == CaptureMode::kMirror && !disk.path.empty() && known.path.empty())
                set(known.path, disk.path);
        }
        const bool same_error = to.error.has_value() == status.error.has_value() &&
                                (!to.error || (to.error->code == status.error->code &&
                                               to.error->what == status.error->what));
        if (!same_error) {
            to.error.reset();
            if (status.error)
                to.error = ItemError{status.error->code, status.error->what, status.error->remedy};
            changed = true;
        }
        return changed;
    };
    ItemRecord wanted = record;
    if (changes(wanted)) {
        FS_ASSIGN(const ItemRecord changed,
                  change_item(*database, record.id, [&](ItemRecord& to) -> Status {
                      changes(to);
                      return {};
                  }));
        if (changed.error && !record.error)
            vault.event(Severity::kCritical, std::string(code_name(changed.error->code)), &changed,
                        changed.error->what, changed.error->remedy);
        record = changed;
        written = true;
    }
    // Begun at once, not at the next round: somebody waits for it at the command line.
    if (record.state == ItemState::kEnabling) {
        DriveInputs inputs;
        inputs.state = record.state;
        inputs.agent = status.state;
        const ItemState next = next_item_state(inputs);
        if (next != record.state) {
            FS_TRY(vault.change_state(record.id, next, {}));
            written = true;
        }
    }
    return written;
}

Result<std::vector<BookmarkRecord>> Vault::Impl::bookmarks_to_make(ItemRuntime& item) {
    uint64_t asked = 0;
    {
        const std::lock_guard hold(item.mutex);
        asked = item.bookmarks_asked;
        if (item.bookmarks_made == asked) return std::vector<BookmarkRecord>{};
    }
    FS_ASSIGN(auto pending, pending_bookmarks(*database, item.id));
    const std::lock_guard hold(item.mutex);
    if (pending.empty()) item.bookmarks_made = asked;
    return pending;
}

void Vault::Impl::bookmark_asked(const ItemId& id) {
    auto item = runtime(id);
    if (!item) return;
    const std::lock_guard hold((*item)->mutex);
    ++(*item)->bookmarks_asked;
}

Result<std::string> Vault::sync_agent(const std::string& agent, const std::string& status_json) {
    FS_TRY(check_party(agent));
    FS_ASSIGN(const AgentStatus status, decode_status(status_json));
    const int64_t steady_us = impl_->clock.steady_us();
    bool save = false;
    {
        const std::lock_guard hold(impl_->mutex);
        AgentContact& contact = impl_->contacts[agent];
        if (!contact.instance.empty() && contact.instance != status.instance &&
            steady_us - contact.heard_us < kInstanceHoldUs)
            return fail(Code::kDuplicateIdentity,
                        fmt::format("two agents call themselves '{}'", agent),
                        "give each host an agent of its own: enrol one of them anew");
        save = contact.instance != status.instance || contact.version != status.version;
        contact.instance = status.instance;
        contact.version = status.version;
        contact.heard_us = steady_us;
        contact.clock_ahead_us = status.clock_ahead_us;
        contact.load = status.load;
    }
    if (save) FS_TRY(party_seen(*impl_->database, agent, status.instance, status.version, ""));
    FS_ASSIGN(auto records, remembered_items_of_agent(*impl_->database, agent));
    std::map<ItemId, const ItemRecord*> own;
    for (const ItemRecord& record : records)
        if (record.agent == agent) own[record.id] = &record;
    bool written = false;
    for (const AgentItemStatus& item : status.items) {
        // Gone, or another's by now: it is told to leave it alone.
        const auto record = own.find(item.item);
        if (record == own.end()) {
            (void)impl_->take_home_status(agent, item);
            continue;
        }
        auto taken =
            impl_->take_status(*this, *record->second, item, status.clock_ahead_us.value_or(0));
        // An item that is gone here: left out of the instructions below.
        if (!taken && taken.error().code() != Code::kItemNotFound)
            return tl::unexpected(taken.error());
        written = written || !taken || *taken;
    }
    if (written) {
        FS_ASSIGN(records, remembered_items_of_agent(*impl_->database, agent));
    }
    impl_->notify();

    AgentInstructions instructions;
    instructions.vault_time = impl_->clock.now();
    const auto told = impl_->appliances_to_tell();
    instructions.appliances_id = told->id;
    if (status.appliances_id != told->id) instructions.appliances = told->appliances;
    instructions.sync_interval_us = impl_->sync_interval_us();
    FS_ASSIGN(instructions.grouped, impl_->groups->has_member(records));
    for (ItemRecord record : records) {
        if (record.state != ItemState::kEnabling && record.state != ItemState::kDisabling &&
            record.state != ItemState::kFailedBack && record.state != ItemState::kCommittedHome &&
            !is_replicating(record.state) && !is_returning(record.state))
            continue;
        // An agent leaves alone what it is not told of: what it holds, waits in its log.
        if (record.state != ItemState::kDisabling && impl_->why_set_aside(record.id)) continue;
        if (record.agent.empty() && agent == kRecoveryAgent) continue;
        if (record.agent.empty()) {
            // A mirror or a disk without an agent's name is taken by the first that asks.
            if (record.state == ItemState::kDisabling) continue;
            FS_ASSIGN(record,
                      change_item(*impl_->database, record.id, [&](ItemRecord& item) -> Status {
                          if (item.agent.empty()) item.agent = agent;
                          return {};
                      }));
            if (record.agent != agent) continue;
        }
        DesiredItem item;
        item.item = record.id;
        item.name = record.name;
        item.mode = record.mode;
        item.qmp_socket = record.qmp_socket;
        item.disks = record.disks;
        item.desired = record.state == ItemState::kDisabling ? Desired::kRemove : Desired::kProtect;
        item.crash_point_interval_s = record.policy.crash_point_interval_s;
        item.copy_throttle_bytes_per_s = record.policy.copy_throttle_bytes_per_s;
        item.resync_request_id = record.resync_request;
        FS_TRY(impl_->seed_orders(record, item));
        if (record.policy.newest_first) item.newest_first_after_s = record.policy.rpo_threshold_s;
        if (auto runtime = impl_->runtime(record.id)) {
            item.resync_hold = impl_->hold_of(**runtime, record);
            if (auto plan = impl_->resync_plan(**runtime)) item.resync_cancel_id = plan->cancel;
            FS_ASSIGN(const ItemAppliance has, impl_->appliance_of(**runtime));
            item.appliance = impl_->address_of(has.now);
            item.next_appliance = impl_->address_of(has.next);
        }
        if (auto runtime = impl_->runtime(record.id)) {
            FS_ASSIGN(const auto bookmarks, impl_->bookmarks_to_make(**runtime));
            for (const BookmarkRecord& bookmark : bookmarks)
                item.bookmarks.push_back({bookmark.id, bookmark.label, bookmark.kind});
        }
        if (auto runtime = impl_->runtime(record.id))
            if (auto replica = impl_->replica_status(**runtime)) item.stored = replica->stored;
        instructions.items.push_back(std::move(item));
    }
    FS_ASSIGN(auto beside, impl_->orders_beside(agent, status, records));
    for (DesiredItem& item : beside) instructions.items.push_back(std::move(item));
    return encode_instructions(instructions);
}

}  // namespace farshore
