// The way home: an item that runs at the recovery site is captured there by the vault's own agent,
// and its home's agent writes what that one sends. docs/design/return.md.
#include <fmt/core.h>

#include <algorithm>

#include "base/party_names.h"
#include "meta/appliances.h"
#include "replica/replica_compare.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kLeaseUs = 3'600'000'000, kRenewUs = 600'000'000;
// How soon a home that has one state is told of the next.
constexpr int64_t kRoundUs = 5'000'000;
// A reader that compares with a home is closed when nobody asked for so long.
constexpr int64_t kReaderIdleUs = 120'000'000;
constexpr size_t kReaderCacheBytes = 16u << 20;
constexpr int64_t kHomeSilentUs = 60'000'000;

bool stands(ItemState state) {
    return state == ItemState::kFailingOver || state == ItemState::kFailedOver ||
           state == ItemState::kCommitted;
}

}  // namespace

// Behind what is stored there are marks of time alone.
bool has_all(const ReplicaStatus& replica, const AgentItemStatus& source) {
    return source.state == AgentItemState::kStandingBy && !source.gap_open && !replica.gap_open &&
           source.last.v != 0 &&
           (replica.stored >= source.last || replica.current_until >= source.last_time);
}

Status Vault::Impl::load_returns() {
    FS_ASSIGN(auto known, list_returns(*database));
    const std::lock_guard hold(mutex);
    returns.clear();
    for (ReturnRecord& record : known) returns[record.item] = std::move(record);
    return {};
}

std::optional<ReturnRecord> Vault::Impl::way_home(const ItemId& id) {
    const std::lock_guard hold(mutex);
    const auto found = returns.find(id);
    if (found == returns.end()) return std::nullopt;
    return found->second;
}

Result<ReturnRecord> Vault::Impl::change_return(const ItemId& id,
                                                const std::function<void(ReturnRecord&)>& change) {
    auto way = way_home(id);
    if (!way) return fail(Code::kNotFound, "the item is on no way home");
    change(*way);
    FS_TRY(put_return(*database, *way));
    const std::lock_guard hold(mutex);
    returns[id] = *way;
    return *way;
}

void Vault::Impl::forget_return(const ItemId& id) {
    const auto way = way_home(id);
    if (!way) return;
    if (auto dropped = drop_return(*database, id); !dropped) {
        log::warn("vault", about(dropped.error()), "a way home that has ended: {}",
                  dropped.error().to_string());
        return;
    }
    if (auto item = runtime(id)) {
        // Those that cannot be given back expire.
        for (const uint64_t lease : {way->lease, way->base_lease})
            if (lease != 0) (void)(*item)->replica->release(lease);
        const std::lock_guard reading((*item)->compare_mutex);
        (*item)->home_reader.reset();
    }
    const std::lock_guard hold(mutex);
    returns.erase(id);
}

Status Vault::Impl::move_to(const ItemId& id, const std::string& appliance) {
    FS_ASSIGN(const ItemAppliance now, farshore::move_item(*database, id, appliance, true));
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(id));
    const std::lock_guard hold(item->mutex);
    item->appliance = now;
    return {};
}

// ---- from state to state -----------------------------------------------------------------------

Result<ItemRecord> Vault::begin_return(const ItemId& id, const std::string& recovery,
                                       const ReturnRequest& request) {
    const std::lock_guard one(impl_->return_mutex);
    FS_ASSIGN(const ItemRecord item, get_item(*impl_->database, id));
    const bool again = item.state == ItemState::kFailedBack;
    if (!again) FS_TRY(check_action(item.state, ItemAction::kReprotect));
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> runtime, impl_->runtime(id));
    FS_ASSIGN(const ItemAppliance has, get_item_appliance(*impl_->database, id));
    ReturnRecord way;
    uint8_t raw[16];
    impl_->random.fill(raw);
    way.id = to_hex(raw);
    way.item = id;
    way.recovery = recovery;
    way.agent = item.agent;
    way.mode = item.mode;
    way.qmp_socket = item.qmp_socket;
    way.disks = item.disks;
    way.appliance = request.appliance.empty() ? has.now : request.appliance;
    way.accept = request.accept;
    way.begun = impl_->clock.now();
    if (!request.disks.empty()) {
        const auto there = std::ranges::count_if(
            item.disks, [](const DesiredDisk& disk) { return !disk.removed; });
        if (static_cast<size_t>(there) != request.disks.size())
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' has {} disks, {} were named", item.name, there,
                                    request.disks.size()),
                        "name a path for each, in their order");
        auto path = request.disks.begin();
        for (DesiredDisk& disk : way.disks) {
            disk.joining = false;
            if (disk.removed) continue;
            if (path->empty() || path->front() != '/' || path->size() > kMaxPathBytes)
                return fail(Code::kInvalidArgument,
                            fmt::format("'{}' is not an absolute path", path->substr(0, 200)));
            disk.path = *path++;
        }
        way.mode = CaptureMode::kInPath;
        way.qmp_socket.clear();
        way.original = false;
        if (!request.agent.empty()) way.agent = request.agent;
    } else if (!request.agent.empty() && request.agent != item.agent) {
        return fail(Code::kInvalidArgument, "another agent needs disks of its own to write",
                    "name them: --disk PATH, for each disk of the item");
    }
    if (way.agent.empty() || !check_party(way.agent))
        return fail(Code::kNotFound, fmt::format("there is no agent '{}'", way.agent),
                    "enrol one there, and name it with --to-agent");
    if (way.original && way.mode == CaptureMode::kDevice)
        return fail(Code::kUnsupported,
                    "the machine was captured from inside: nobody can write its disks while it "
                    "runs from them",
                    "name another agent and disks there: --to-agent AGENT --disk PATH");
    if (way.original && way.mode == CaptureMode::kMirror)
        for (const DesiredDisk& disk : way.disks)
            if (!disk.removed && (disk.path.empty() || disk.path[0] != '/'))
                return fail(Code::kUnsupported,
                            fmt::format("nobody knows the path of disk {} at home", disk.index),
                            "name the disks: --disk PATH, for each disk of the item");
    // Whoever still sends for the home gets nothing registered any more: what comes behind this is
    // the recovery site's machine's.
    FS_TRY(runtime->replica->fence_log("reprotect"));
    FS_ASSIGN(const ReplicaStatus status, runtime->replica->status());
    way.after = status.stored;
    for (DesiredDisk& disk : way.disks)
        for (const DiskSize& known : status.disks)
            if (known.disk == disk.index) disk.size_bytes = known.size_bytes;
    // In this order: a way without its state is none, and is written again.
    if (impl_->way_home(id)) impl_->forget_return(id);
    FS_TRY(put_return(*impl_->database, way));
    {
        const std::lock_guard hold(impl_->mutex);
        impl_->returns[id] = way;
    }
    {
        const std::lock_guard hold(runtime->mutex);
        runtime->home.reset();
        runtime->stand_by.reset();
        runtime->agent.reset();
        runtime->return_renewed_us = impl_->clock.steady_us();
    }
    FS_ASSIGN(const ItemRecord changed,
              change_item(*impl_->database, id, [&](ItemRecord& to) -> Status {
                  to.agent = kRecoveryAgent;
                  to.mode = CaptureMode::kRecovery;
                  to.qmp_socket.clear();
                  to.nbd_socket.clear();
                  to.error.reset();
                  to.resync_request.clear();
                  for (DesiredDisk& disk : to.disks) disk.path.clear();
                  to.state = ItemState::kReprotecting;
                  return {};
              }));
    FS_TRY(impl_->move_to(id, kRecoveryAppliance));
    event(Severity::kInformation, "item-state-changed", &changed,
          fmt::format("{} -> {}: it returns to agent '{}'", item_state_name(item.state),
                      item_state_name(changed.state), way.agent));
    impl_->notify();
    return changed;
}

// The item is captured at home again, in `state`.
static Status take_home(ItemRecord& to, const ReturnRecord& way, ItemState state) {
    to.agent = way.agent;
    to.mode = way.mode;
    to.qmp_socket = way.qmp_socket;
    to.nbd_socket.clear();
    to.error.reset();
    to.disks = way.disks;
    to.state = state;
    return {};
}

Result<ItemRecord> Vault::end_return(const ItemId& id, const std::string& why) {
    const std::lock_guard one(impl_->return_mutex);
    FS_ASSIGN(const ItemRecord item, get_item(*impl_->database, id));
    FS_TRY(check_action(item.state, ItemAction::kCancelReprotect));
    const auto way = impl_->way_home(id);
    if (!way) return fail(Code::kNotFound, "the item is on no way home");
    FS_ASSIGN(const ItemRecord changed, change_item(*impl_->database, id, [&](ItemRecord& to) {
                  return take_home(to, *way, ItemState::kCommitted);
              }));
    FS_TRY(impl_->move_to(id, way->appliance));
    impl_->forget_return(id);
    event(Severity::kInformation, "item-state-changed", &changed,
          fmt::format("{} -> {}: {}", item_state_name(item.state), item_state_name(changed.state),
                      why));
    impl_->notify();
    return changed;
}

Status Vault::choose_return(const ItemId& id, Sequence to) {
    const std::lock_guard one(impl_->return_mutex);
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    FS_ASSIGN(const LeaseRow lease, item->replica->lease(to, "return", kLeaseUs));
    uint64_t old = 0;
    FS_TRY(impl_->change_return(id, [&](ReturnRecord& way) {
        old = way.lease;
        way.to = to;
        way.to_time = impl_->clock.now();
        way.chosen = impl_->clock.now();
        way.lease = lease.id;
        way.final = true;
    }));
    // The home may be on its way to the one before: what it has written until then, it writes
    // again.
    if (old != 0) (void)item->replica->release(old);
    impl_->notify();
    return {};
}

Status Vault::accept_return(const ItemId& id) {
    const std::lock_guard one(impl_->return_mutex);
    FS_TRY(impl_->change_return(id, [](ReturnRecord& way) { way.accept = true; }));
    return {};
}

Status Vault::reopen_return(const ItemId& id) {
    const std::lock_guard one(impl_->return_mutex);
    FS_TRY(impl_->change_return(id, [](ReturnRecord& way) { way.final = false; }));
    return {};
}

Result<ItemRecord> Vault::finish_return(const ItemId& id) {
    const std::lock_guard one(impl_->return_mutex);
    FS_ASSIGN(const ItemRecord item, get_item(*impl_->database, id));
    if (item.state == ItemState::kFailedBack) return item;  // an earlier vault did it
    const auto way = impl_->way_home(id);
    if (!way) return fail(Code::kNotFound, "the item is on no way home");
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> runtime, impl_->runtime(id));
    {
        const std::lock_guard hold(runtime->mutex);
        if (!way->final || !runtime->home || runtime->home->way_home.id != way->id ||
            runtime->home->way_home.have != way->to)
            return fail(Code::kWrongState, "the home does not have the last state yet");
        runtime->agent.reset();
    }
    // From here on the machine at the recovery site has no say.
    FS_TRY(runtime->replica->fence_log("failback"));
    FS_ASSIGN(const ItemRecord changed, change_item(*impl_->database, id, [&](ItemRecord& to) {
                  return take_home(to, *way, ItemState::kFailedBack);
              }));
    FS_TRY(impl_->move_to(id, way->appliance));
    event(Severity::kInformation, "item-state-changed", &changed,
          fmt::format("{} -> {}: agent '{}' has state {}", item_state_name(item.state),
                      item_state_name(changed.state), way->agent, way->to.v));
    impl_->notify();
    return changed;
}

Result<ItemRecord> Vault::commit_return(const ItemId& id) {
    {
        const std::lock_guard one(impl_->return_mutex);
        FS_ASSIGN(const ItemRecord item, get_item(*impl_->database, id));
        if (item.state == ItemState::kFailedBack) {
            FS_TRY(change_state(id, ItemState::kCommittedHome, {}));
        } else if (item.state != ItemState::kCommittedHome) {
            return item;
        }
        impl_->forget_return(id);
    }
    return change_state(id, ItemState::kCatchingUp, "it is protected at home again");
}

void Vault::set_stand_by(const ItemId& id, std::optional<bool> power_off) {
    auto item = impl_->runtime(id);
    if (!item) return;
    const std::lock_guard hold((*item)->mutex);
    (*item)->stand_by = power_off;
}

void Vault::set_draining(const ItemId& id, bool draining) {
    auto item = impl_->runtime(id);
    if (!item) return;
    const std::lock_guard hold((*item)->mutex);
    (*item)->draining = draining;
}

// ---- what agents are told, and say -------------------------------------------------------------

// True when the item is on its way to that agent.
bool Vault::Impl::take_home_status(const std::string& agent, const AgentItemStatus& status) {
    const auto way = way_home(status.item);
    if (!way || way->agent != agent) return false;
    auto item = runtime(status.item);
    if (!item) return false;
    const std::lock_guard hold((*item)->mutex);
    (*item)->home = status;
    (*item)->home->machine_description.clear();
    (*item)->home_heard_us = clock.steady_us();
    return true;
}

// Orders about items that the agent does not protect.
Result<std::vector<DesiredItem>> Vault::Impl::orders_beside(const std::string& agent,
                                                            const AgentStatus& status,
                                                            const std::vector<ItemRecord>& own) {
    std::vector<DesiredItem> orders;
    std::vector<ReturnRecord> ways;
    {
        const std::lock_guard hold(mutex);
        for (const auto& [id, way] : returns)
            if (way.agent == agent) ways.push_back(way);
    }
    for (const ReturnRecord& way : ways) {
        auto record = get_item(*database, way.item);
        if (!record || record->agent == agent) continue;
        const bool leaves = record->state == ItemState::kDisabling;
        if (!leaves && !is_returning(record->state)) continue;
        DesiredItem order;
        order.item = way.item;
        order.name = record->name;
        order.mode = way.mode;
        order.qmp_socket = way.qmp_socket;
        order.disks = way.disks;
        order.desired = leaves ? Desired::kRemove : Desired::kReturn;
        order.way_home = {way.id, way.to, way.original, way.accept};
        order.appliance = address_of(way.appliance);
        orders.push_back(std::move(order));
    }
    for (const AgentItemStatus& item : status.items) {
        const auto record = std::ranges::find(own, item.item, &ItemRecord::id);
        const bool its_own = record != own.end() && record->agent == agent;
        if (agent == kRecoveryAgent) {
            // The vault's own agent lets go of what it does not capture any more.
            if (its_own && (is_returning(record->state) || record->state == ItemState::kDisabling))
                continue;
            DesiredItem order;
            order.item = item.item;
            order.mode = CaptureMode::kRecovery;
            order.desired = Desired::kRemove;
            orders.push_back(std::move(order));
        } else if (its_own && stands(record->state)) {
            FS_ASSIGN(auto order, stand_by_order(*record, item));
            if (order) orders.push_back(std::move(*order));
        }
    }
    return orders;
}

// What a source is told whose machine was failed over; none: nothing.
Result<std::optional<DesiredItem>> Vault::Impl::stand_by_order(const ItemRecord& record,
                                                               const AgentItemStatus& source) {
    const auto item = runtime(record.id);
    if (!item) return std::optional<DesiredItem>();
    std::optional<bool> power_off;
    {
        const std::lock_guard hold((*item)->mutex);
        power_off = (*item)->stand_by;
    }
    // One whose way home was given up lets go of the disks.
    if (!power_off && source.state == AgentItemState::kReturning) power_off = false;
    if (!power_off) return std::optional<DesiredItem>();
    DesiredItem order;
    order.item = record.id;
    order.name = record.name;
    order.mode = record.mode;
    order.qmp_socket = record.qmp_socket;
    order.disks = record.disks;
    order.desired = Desired::kStandBy;
    order.power_off = *power_off;
    FS_ASSIGN(const ItemAppliance has, appliance_of(**item));
    order.appliance = address_of(has.now);
    if (auto replica = replica_status(**item)) {
        order.stored = replica->stored;
        order.all_stored = has_all(*replica, source);
    }
    return std::optional<DesiredItem>(std::move(order));
}

Result<ReturnGrant> Vault::open_return(const std::string& appliance, const std::string& agent,
                                       const ItemId& id, Sequence to) {
    FS_ASSIGN(const ItemRecord record, get_item(*impl_->database, id));
    const auto way = impl_->way_home(id);
    if (!way || way->agent != agent || !is_returning(record.state) || way->to != to || to.v == 0 ||
        (!way->appliance.empty() && way->appliance != appliance))
        return fail(Code::kForbidden,
                    fmt::format("'{}' does not return to agent '{}' through appliance '{}' with "
                                "state {}",
                                record.name, agent, appliance, to.v));
    if (way->appliance.empty()) {
        const std::lock_guard one(impl_->return_mutex);
        FS_TRY(impl_->change_return(id,
                                    [&](ReturnRecord& changed) { changed.appliance = appliance; }));
    }
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    FS_ASSIGN(const ReplicaStatus status, item->replica->status());
    return ReturnGrant{item->key, status.segments};
}

Result<CompareAnswer> Vault::Impl::compare_for_home(ItemRuntime& item, const ReturnRecord& way,
                                                    const CompareQuestion& question) {
    if (question.at_least != way.to || way.to.v == 0)
        return fail(Code::kForbidden, "the disks are to have another state by now");
    std::shared_ptr<ReplicaReader> reader;
    {
        const std::lock_guard hold(item.compare_mutex);
        item.home_used_us = clock.steady_us();
        if (!item.home_reader || item.home_reader->sequence() != way.to) {
            ReplicaReaderOptions reading;
            reading.cache_bytes = kReaderCacheBytes;
            FS_ASSIGN(item.home_reader,
                      ReplicaReader::open(*store, item.id, item.key, way.to, std::move(reading)));
        }
        reader = item.home_reader;
    }
    return compare_replica(*reader, question);
}

// ---- background --------------------------------------------------------------------------------

// What a crash between two steps has left.
Status Vault::Impl::mend_return(ItemRuntime& item, const ItemId& id, const ReturnRecord& way) {
    FS_ASSIGN(const ItemRecord record, get_item(*database, id));
    FS_ASSIGN(const ItemAppliance has, appliance_of(item));
    const bool here = has.now == kRecoveryAppliance;
    if (is_returning(record.state) && !here) return move_to(id, kRecoveryAppliance);
    const bool home = record.state == ItemState::kFailedBack ||
                      record.state == ItemState::kCommitted ||
                      record.state == ItemState::kCommittedHome;
    if (home && here) FS_TRY(move_to(id, way.appliance));
    // A way that was given up, or never begun.
    if (record.state == ItemState::kCommitted) forget_return(id);
    return {};
}

void Vault::Impl::tend_return(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                              const ReplicaStatus& status) {
    {
        const std::lock_guard hold(item.compare_mutex);
        if (item.home_reader && clock.steady_us() - item.home_used_us > kReaderIdleUs)
            item.home_reader.reset();
    }
    // Most items are on none; and what begins or ends one may hold the mutex for a while.
    if (fenced || !way_home(record.id)) return;
    const std::lock_guard one(return_mutex);
    const auto way = way_home(record.id);
    if (!way) return;
    if (auto mended = mend_return(item, record.id, *way); !mended)
        log::warn("vault", about(record, mended.error()), "the way home of '{}': {}", record.name,
                  mended.error().to_string());
    if (!is_returning(record.state)) return;
    Sequence have;
    {
        const std::lock_guard hold(item.mutex);
        if (item.home && item.home->way_home.id == way->id) have = item.home->way_home.have;
    }
    const auto tend = [&]() -> Status {
        if (clock.steady_us() - item.return_renewed_us > kRenewUs) {
            item.return_renewed_us = clock.steady_us();
            for (const uint64_t lease : {way->lease, way->base_lease})
                if (lease != 0)
                    if (auto renewed = item.replica->renew(lease, kLeaseUs);
                        !renewed && renewed.error().code() != Code::kNotFound)
                        return renewed;
        }
        if (way->final) return {};
        const bool points = status.newest && *status.newest > way->after && !status.gap_open;
        const bool arrived = way->to.v != 0 && have == way->to;
        // The home follows when it has one state of the machine that runs here.
        if (record.state == ItemState::kReprotecting && arrived)
            FS_TRY(vault.change_state(record.id, ItemState::kReverseProtected, {}));
        if (!points || (way->to.v != 0 && !arrived)) return {};
        if (*status.newest == way->to || clock.now().us - way->chosen.us < kRoundUs) return {};
        FS_ASSIGN(const LeaseRow lease, item.replica->lease(*status.newest, "return", kLeaseUs));
        uint64_t old = 0;
        FS_TRY(change_return(record.id, [&](ReturnRecord& to) {
            old = to.base_lease;
            to.base = to.to;
            to.base_lease = to.lease;
            to.to = *status.newest;
            to.to_time = status.newest_time;
            to.chosen = clock.now();
            to.lease = lease.id;
        }));
        if (old != 0) (void)item.replica->release(old);
        return {};
    };
    if (auto tended = tend(); !tended)
        log::warn("vault", about(record, tended.error()), "the way home of '{}': {}", record.name,
                  tended.error().to_string());
}

// Of a source whose machine was failed over: it writes all the same.
void Vault::Impl::watch_split(Vault& vault, const ItemRecord& record, ItemRuntime& item,
                              const AgentItemStatus& source) {
    const bool left =
        record.state == ItemState::kFailedOver || record.state == ItemState::kCommitted;
    bool fresh = false;
    {
        const std::lock_guard hold(item.mutex);
        if (!left) {
            item.left_bytes = source.machine_bytes;
            item.split_bytes = 0;
            return;
        }
        // A log that was made anew counts from its beginning.
        if (!item.left_bytes || source.machine_bytes < *item.left_bytes)
            item.left_bytes = source.machine_bytes;
        const uint64_t bytes = source.machine_bytes - *item.left_bytes;
        fresh = bytes != 0 && item.split_bytes == 0;
        item.split_bytes = bytes;
    }
    if (fresh)
        vault.event(Severity::kCritical, "split-brain", &record,
                    fmt::format("the machine writes to its disks at agent '{}', while it runs at "
                                "the recovery site",
                                record.agent),
                    "shut one of them down; what the source writes is not replicated");
}

void Vault::Impl::report_return(ItemRuntime& item, const ItemRecord& record, ItemReport& report) {
    {
        const std::lock_guard hold(item.mutex);
        if (item.split_bytes != 0)
            report.troubles.push_back(
                {Severity::kCritical, "split-brain",
                 fmt::format("the machine has written {} bytes to its disks at agent '{}' since it "
                             "runs at the recovery site",
                             item.split_bytes, record.agent),
                 "shut one of them down; what the source writes is not replicated"});
    }
    const auto way = way_home(record.id);
    if (!way || (!is_returning(record.state) && record.state != ItemState::kFailedBack)) return;
    report.way_home.emplace();
    report.way_home->record = *way;
    const std::lock_guard hold(item.mutex);
    if (item.home) {
        report.way_home->home = item.home;
        report.way_home->silent_us = clock.steady_us() - item.home_heard_us;
    }
    if (!is_returning(record.state)) return;
    if (item.home && item.home->error)
        report.troubles.push_back(
            {Severity::kCritical, std::string(code_name(item.home->error->code)),
             fmt::format("agent '{}': {}", way->agent, item.home->error->what),
             item.home->error->remedy});
    if (item.home && item.home->way_home.held)
        report.troubles.push_back(
            {Severity::kWarning, "return-held",
             fmt::format("most of what is on the disks of agent '{}' is something else",
                         way->agent),
             "look whether they are the right ones; `farshore reprotect NAME --accept` overwrites "
             "them"});
    const bool silent = item.home ? clock.steady_us() - item.home_heard_us > kHomeSilentUs
                                  : clock.now().us - way->begun.us > kHomeSilentUs;
    if (silent)
        report.troubles.push_back(
            {Severity::kWarning, "home-silent",
             fmt::format("agent '{}', to which it returns, is not heard of", way->agent),
             "start it, or name another home: `farshore reprotect NAME --cancel`, and again"});
}

}  // namespace farshore
