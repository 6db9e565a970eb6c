#include "vault/group_desk.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "meta/database.h"
#include "meta/items.h"
#include "os/log.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// Calls of appliances that are held: each has a thread of the HTTP server.
constexpr size_t kMaxHeld = 16;
constexpr int64_t kHeldUs = 500'000, kHeldShortlyUs = 20'000, kHeldForBarrierUs = 1'200'000;
constexpr int64_t kForgetUs = 60'000'000;
constexpr size_t kVoidKept = 100, kForgottenAtOnce = 100;
constexpr size_t kLooked = 200;
// Of one group, that wait for their turn.
constexpr size_t kMaxAsked = 16;

Status check_intervals(const GroupRecord& group) {
    for (const uint32_t interval : {group.crash_interval_s, group.application_interval_s})
        if (interval != 0 && (interval < kMinSharedIntervalS || interval > kMaxSharedIntervalS))
            return fail(
                Code::kInvalidArgument, fmt::format("{} s between shared points", interval),
                fmt::format("0 (none), or {} to {} s", kMinSharedIntervalS, kMaxSharedIntervalS));
    return {};
}

ItemError item_error(const Error& error) { return {error.code(), error.what(), error.remedy()}; }

}  // namespace

GroupDesk::GroupDesk(Vault& vault) : vault_(vault) {}

// ---- groups

Result<GroupRecord> GroupDesk::create(const GroupRecord& group) {
    FS_TRY(check_intervals(group));
    FS_ASSIGN(GroupRecord made, create_group(vault_.database(), group));
    vault_.event(Severity::kInformation, "group-created", nullptr,
                 fmt::format("the replication group '{}' was created", made.name));
    return made;
}

Result<GroupRecord> GroupDesk::change(const std::string& name,
                                      std::optional<uint32_t> crash_interval_s,
                                      std::optional<uint32_t> application_interval_s) {
    return change_group(vault_.database(), name, [&](GroupRecord& group) {
        group.crash_interval_s = crash_interval_s.value_or(group.crash_interval_s);
        group.application_interval_s =
            application_interval_s.value_or(group.application_interval_s);
        return check_intervals(group);
    });
}

Status GroupDesk::remove(const std::string& name) {
    {
        const std::lock_guard hold(mutex_);
        for (auto& [id, running] : running_)
            if (running->record.group == name)
                running->barrier.give_up(Error(Code::kCancelled, "the group was removed"));
        told_.erase(name);
    }
    changed_.notify_all();
    FS_TRY(remove_group(vault_.database(), name));
    forget_members();
    vault_.event(Severity::kInformation, "group-removed", nullptr,
                 fmt::format("the replication group '{}' was removed; its points are points of its "
                             "items",
                             name));
    return {};
}

Result<GroupRecord> GroupDesk::join(const std::string& name,
                                    const std::vector<std::string>& items) {
    FS_ASSIGN(const GroupRecord group, get_group(vault_.database(), name));
    std::vector<ItemId> ids;
    std::vector<ItemRecord> records;
    for (const std::string& item : items) {
        FS_ASSIGN(ItemRecord record, find_item(vault_.database(), item));
        const bool member = std::ranges::any_of(
            group.members, [&](const GroupMember& one) { return one.item == record.id; });
        if (member) continue;
        ids.push_back(record.id);
        records.push_back(std::move(record));
    }
    FS_ASSIGN(GroupRecord joined, join_group(vault_.database(), name, ids));
    forget_members();
    for (const ItemRecord& record : records)
        vault_.event(Severity::kInformation, "group-joined", &record,
                     fmt::format("it is in the replication group '{}', from its next shared point "
                                 "on",
                                 name));
    return joined;
}

Result<GroupRecord> GroupDesk::leave(const std::string& name, const std::string& item) {
    FS_ASSIGN(const ItemRecord record, find_item(vault_.database(), item));
    FS_ASSIGN(GroupRecord left, leave_group(vault_.database(), name, record.id));
    forget_members();
    vault_.event(Severity::kInformation, "group-left", &record,
                 fmt::format("it is no more in the replication group '{}'", name));
    return left;
}

void GroupDesk::forget_members() {
    const std::lock_guard hold(mutex_);
    grouped_.reset();
    ++grouped_changes_;
}

// Asked for each agent five times a second: from memory.
Result<bool> GroupDesk::has_member(const std::vector<ItemRecord>& items) {
    uint64_t changes = 0;
    {
        const std::lock_guard hold(mutex_);
        if (grouped_)
            return std::ranges::any_of(
                items, [&](const ItemRecord& item) { return grouped_->contains(item.id); });
        changes = grouped_changes_;
    }
    std::set<ItemId> grouped;
    FS_ASSIGN(const auto members, all_group_members(vault_.database()));
    grouped.insert(members.begin(), members.end());
    const std::lock_guard hold(mutex_);
    const bool has = std::ranges::any_of(
        items, [&](const ItemRecord& item) { return grouped.contains(item.id); });
    if (changes == grouped_changes_) grouped_ = std::move(grouped);
    return has;
}

// ---- points that people see

Result<SharedPointRecord> GroupDesk::ask(const AskSharedPoint& wanted) {
    if (wanted.label.size() > kMaxLabelBytes)
        return fail(Code::kInvalidArgument, fmt::format("a label of {} bytes; at most {}",
                                                        wanted.label.size(), kMaxLabelBytes));
    {
        const std::lock_guard one_at_a_time(begin_mutex_);
        FS_TRY(note_what_was_asked());
    }
    FS_ASSIGN(const auto waiting,
              shared_points_in(vault_.database(), SharedPointState::kAsked, kLooked));
    if (waiting.size() >= kLooked ||
        std::ranges::count(waiting, wanted.group, &SharedPointRecord::group) >=
            static_cast<std::ptrdiff_t>(kMaxAsked))
        return fail(
            Code::kLimitReached,
            fmt::format("{} shared points of '{}' wait to be made", kMaxAsked, wanted.group),
            "wait until they are");
    SharedPointId id;
    vault_.random().fill(id.raw);
    SharedPointRecord record;
    record.id = id.to_string();
    record.group = wanted.group;
    record.kind = wanted.application ? PointKind::kApplication : PointKind::kBookmark;
    record.label = wanted.label.empty()
                       ? fmt::format("{}/{}", wanted.group, record.id.substr(0, 12))
                       : wanted.label;
    record.by_policy = wanted.by_policy;
    FS_ASSIGN(SharedPointRecord asked, add_shared_point(vault_.database(), std::move(record)));
    begin_what_is_asked();
    return asked;
}

Result<SharedPointRecord> GroupDesk::point(const std::string& id, int64_t timeout_us) {
    const int64_t until_us = vault_.clock().steady_us() + timeout_us;
    while (true) {
        FS_ASSIGN(SharedPointRecord record, get_shared_point(vault_.database(), id));
        const bool over =
            record.state == SharedPointState::kStored || record.state == SharedPointState::kVoid;
        const int64_t left_us = until_us - vault_.clock().steady_us();
        if (over || left_us <= 0) return record;
        {
            std::unique_lock hold(mutex_);
            if (stopping_) return record;
            changed_.wait_for(hold, std::chrono::microseconds(std::min(left_us, kHeldUs)));
        }
        look_what_is_stored();
    }
}

Result<std::optional<ItemError>> GroupDesk::trouble(const GroupRecord& group) {
    for (const PointKind kind : {PointKind::kBookmark, PointKind::kApplication}) {
        const uint32_t interval =
            kind == PointKind::kBookmark ? group.crash_interval_s : group.application_interval_s;
        if (interval == 0) continue;
        FS_ASSIGN(const auto newest, newest_shared_point(vault_.database(), group.name, kind));
        if (newest && newest->state == SharedPointState::kVoid) return newest->error;
    }
    return std::optional<ItemError>{};
}

// ---- the conversation

std::vector<BarrierOrder> GroupDesk::offered() {
    const std::lock_guard hold(mutex_);
    std::vector<BarrierOrder> orders;
    for (const auto& [id, running] : running_)
        if (running->barrier.state() == Barrier::State::kRunning)
            orders.push_back(running->barrier.order());
    return orders;
}

Result<BarrierOrder> GroupDesk::step(const BarrierReport& report) {
    Clock& clock = vault_.clock();
    std::unique_lock hold(mutex_);
    const auto found = running_.find(report.point);
    if (found == running_.end())
        return fail(Code::kNotFound, "nobody makes that shared point any more");
    const std::shared_ptr<Running> running = found->second;
    Barrier& barrier = running->barrier;
    barrier.report(report, clock.steady_us());
    changed_.notify_all();
    ++held_;
    int64_t held_us = report.step == BarrierStep::kHold ? kHeldForBarrierUs : kHeldUs;
    if (held_ > kMaxHeld) held_us = kHeldShortlyUs;
    const int64_t until_us = clock.steady_us() + held_us;
    std::optional<BarrierStep> next;
    while (true) {
        const int64_t now_us = clock.steady_us();
        barrier.tick(now_us);
        next = barrier.next(report.step);
        if (next || barrier.state() != Barrier::State::kRunning || stopping_ || now_us >= until_us)
            break;
        const int64_t wake_us = std::min(until_us, barrier.deadline_us());
        changed_.wait_for(hold, std::chrono::microseconds(std::max<int64_t>(wake_us - now_us, 1)));
    }
    --held_;
    BarrierOrder order = barrier.order();
    order.step = next.value_or(report.step);
    const bool over = barrier.state() != Barrier::State::kRunning;
    hold.unlock();
    if (over) finish(report.point, running);
    return order;
}

// Whoever is first here writes it down; a waiter finds it in the database afterwards.
void GroupDesk::finish(const SharedPointId& id, const std::shared_ptr<Running>& running) {
    SharedPointRecord record;
    std::optional<Error> error;
    {
        const std::lock_guard hold(mutex_);
        if (std::exchange(running->finishing, true)) return;
        const Barrier& barrier = running->barrier;
        record = running->record;
        for (SharedPointMember& member : record.members)
            for (const MemberOutcome& outcome : barrier.outcomes())
                if (outcome.item == member.item) {
                    member.sequence = outcome.sequence;
                    member.time = outcome.time;
                }
        record.barrier_us = barrier.barrier_us();
        if (barrier.state() == Barrier::State::kVoid)
            error = barrier.error().value_or(Error(Code::kInternal, "no reason is known"));
    }
    Status saved;
    if (error) {
        saved = give_up(std::move(record), SharedPointState::kAsked, *error);
    } else {
        record.state = SharedPointState::kMade;
        record.made = vault_.clock().now();
        if (auto written = save(record, SharedPointState::kAsked); !written)
            saved = fail(written.error());
        const std::lock_guard hold(mutex_);
        told_.erase(record.group);
    }
    {
        const std::lock_guard hold(mutex_);
        // What could not be written down is written down in a later round; members are not asked
        // again.
        if (!saved)
            running->finishing = false;
        else
            running_.erase(id);
    }
    if (!saved) {
        log::warn("vault", about(saved.error()), "a shared point could not be written down: {}",
                  saved.error().to_string());
        return;
    }
    changed_.notify_all();
    begin_what_is_asked();
}

Result<bool> GroupDesk::save(const SharedPointRecord& record, SharedPointState before) {
    auto saved = save_shared_point(vault_.database(), record, before);
    changed_.notify_all();
    return saved;
}

Status GroupDesk::give_up(SharedPointRecord record, SharedPointState before, const Error& error) {
    record.state = SharedPointState::kVoid;
    record.error = item_error(error);
    FS_ASSIGN(const bool written, save(record, before));
    if (!written) return {};
    {
        // A policy that fails at each interval is told once.
        const std::lock_guard hold(mutex_);
        if (record.by_policy && !told_.insert(record.group).second) return {};
    }
    vault_.event(Severity::kWarning, "shared-point-failed", nullptr,
                 fmt::format("a shared point of the group '{}' was not made: {} ({}); its members' "
                             "own points are as ever",
                             record.group, error.what(), code_name(error.code())),
                 error.remedy());
    return {};
}

// With who captures each member now; an error is why it cannot be made.
Result<BarrierOrder> GroupDesk::first_order(const SharedPointRecord& record) {
    BarrierOrder order;
    FS_ASSIGN(order.point, SharedPointId::parse(record.id));
    order.kind = record.kind;
    order.label = record.label;
    for (const SharedPointMember& member : record.members) {
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), member.item));
        // Also where it runs at the recovery site: there the vault's own agent captures it.
        if (item.state != ItemState::kProtected && item.state != ItemState::kCatchingUp &&
            item.state != ItemState::kReverseProtected)
            return fail(
                Code::kWrongState,
                fmt::format("'{}' is {}, not protected", item.name, item_state_name(item.state)),
                "wait until it is, or take it out: `farshore group leave`");
        if (item.agent.empty())
            return fail(Code::kWrongState, fmt::format("nobody captures '{}' yet", item.name));
        if (item.mode == CaptureMode::kDevice && record.kind != PointKind::kApplication)
            return fail(Code::kUnsupported,
                        fmt::format("'{}' is captured inside the machine, where its writes can be "
                                    "held only by freezing its file systems",
                                    item.name),
                        "make application-consistent shared points (--consistent, "
                        "--application-interval), or take it out of the group");
        order.members.push_back({member.item, item.agent});
    }
    return order;
}

// With begin_mutex_ held.
Status GroupDesk::note_what_was_asked() {
    if (from_before_) return {};
    std::set<std::string> ids;
    while (true) {
        FS_ASSIGN(const auto asked,
                  shared_points_in(vault_.database(), SharedPointState::kAsked, kLooked));
        for (const SharedPointRecord& record : asked) ids.insert(record.id);
        if (asked.size() < kLooked) break;
        // More than anybody may ask for.
        for (const SharedPointRecord& record : asked)
            FS_TRY(give_up(record, SharedPointState::kAsked,
                           Error(Code::kCancelled, "the vault was restarted meanwhile")));
    }
    from_before_ = std::move(ids);
    return {};
}

void GroupDesk::begin_what_is_asked() {
    const std::lock_guard one_at_a_time(begin_mutex_);
    if (auto noted = note_what_was_asked(); !noted) {
        log::warn("vault", about(noted.error()), "shared points: {}", noted.error().to_string());
        return;
    }
    auto asked = shared_points_in(vault_.database(), SharedPointState::kAsked, kLooked);
    if (!asked) {
        log::warn("vault", about(asked.error()), "shared points: {}", asked.error().to_string());
        return;
    }
    for (SharedPointRecord& record : *asked) {
        const auto id = SharedPointId::parse(record.id);
        if (!id) continue;
        {
            const std::lock_guard hold(mutex_);
            if (stopping_ || running_.size() >= kMaxSharedPointsAtOnce) return;
            if (running_.contains(*id)) continue;
            // An item is in one group, and a group makes one point at a time.
            if (std::ranges::any_of(running_, [&](const auto& one) {
                    return one.second->record.group == record.group;
                }))
                continue;
        }
        auto order =
            from_before_->contains(record.id)
                ? Result<BarrierOrder>(fail(Code::kCancelled, "the vault was restarted meanwhile"))
                : first_order(record);
        if (!order) {
            from_before_->erase(record.id);
            if (auto told = give_up(record, SharedPointState::kAsked, order.error()); !told)
                log::warn("vault", about(told.error()), "{}", told.error().to_string());
            continue;
        }
        // It may have come to its end since it was read: that is written down before it leaves
        // `running_`.
        const auto now = get_shared_point(vault_.database(), record.id);
        if (!now || now->state != SharedPointState::kAsked) continue;
        const std::lock_guard hold(mutex_);
        running_.emplace(
            *id, std::make_shared<Running>(Running{
                     Barrier(std::move(*order), vault_.clock().steady_us()), record, false}));
    }
}

// ---- rounds

void GroupDesk::ask_what_is_due() {
    const auto look = [&]() -> Status {
        std::string after;
        while (true) {
            FS_ASSIGN(const auto groups, list_groups(vault_.database(), after, 200));
            if (groups.empty()) return {};
            after = groups.back().name;
            for (const GroupRecord& group : groups) {
                if (group.members.empty()) continue;
                for (const bool application : {true, false}) {
                    const uint32_t interval_s =
                        application ? group.application_interval_s : group.crash_interval_s;
                    if (interval_s == 0) continue;
                    FS_ASSIGN(const auto newest,
                              newest_shared_point(
                                  vault_.database(), group.name,
                                  application ? PointKind::kApplication : PointKind::kBookmark));
                    if (newest && newest->state == SharedPointState::kAsked) continue;
                    const int64_t since_us =
                        vault_.clock().now().us - (newest ? newest->asked : group.created).us;
                    // A clock that was set back must not stop them.
                    if (since_us >= 0 && since_us < int64_t{interval_s} * 1'000'000) continue;
                    FS_TRY(ask({group.name, application, {}, true}));
                }
            }
        }
    };
    if (auto looked = look(); !looked)
        log::warn("vault", about(looked.error()), "shared points that are due: {}",
                  looked.error().to_string());
}

void GroupDesk::look_what_is_stored() {
    auto made = shared_points_in(vault_.database(), SharedPointState::kMade, kLooked);
    if (!made) return;
    for (SharedPointRecord& record : *made) {
        bool stored = true;
        std::optional<Error> lost;
        for (const SharedPointMember& member : record.members) {
            auto replica = vault_.replica(member.item);
            if (!replica) {
                if (replica.error().code() == Code::kItemNotFound) lost = replica.error();
                stored = false;
                continue;
            }
            auto status = (*replica)->status();
            if (!status || status->stored < member.sequence) {
                stored = false;
                continue;
            }
            auto there = (*replica)->is_there(member.sequence);
            if (there) continue;
            // A log that was dropped takes its points with it. What retention has let go of
            // already was stored.
            if (there.error().code() == Code::kPointInGap)
                lost = there.error();
            else if (there.error().code() != Code::kPointOutsideWindow)
                stored = false;
        }
        if (lost) {
            (void)give_up(std::move(record), SharedPointState::kMade, *lost);
        } else if (stored) {
            record.state = SharedPointState::kStored;
            (void)save(record, SharedPointState::kMade);
        }
    }
}

void GroupDesk::forget_old() {
    const int64_t now_us = vault_.clock().steady_us();
    if (forgot_us_ != 0 && now_us - forgot_us_ < kForgetUs) return;
    forgot_us_ = now_us;
    const auto is_left = [&](const SharedPointRecord& record) {
        return std::ranges::any_of(record.members, [&](const SharedPointMember& member) {
            auto replica = vault_.replica(member.item);
            if (!replica) return replica.error().code() != Code::kItemNotFound;
            const Status there = (*replica)->is_there(member.sequence);
            return there || there.error().code() != Code::kPointOutsideWindow;
        });
    };
    const auto look = [&]() -> Status {
        std::string after;
        while (true) {
            FS_ASSIGN(const auto groups, list_groups(vault_.database(), after, 200));
            if (groups.empty()) return {};
            after = groups.back().name;
            for (const GroupRecord& group : groups) {
                FS_TRY(forget_void_points(vault_.database(), group.name, kVoidKept));
                // Also behind one that is kept for years.
                for (uint64_t behind = 0;;) {
                    FS_ASSIGN(const auto some, stored_shared_points(vault_.database(), group.name,
                                                                    behind, kForgottenAtOnce));
                    if (some.empty()) break;
                    behind = some.back().number;
                    std::vector<std::string> gone;
                    for (const SharedPointRecord& record : some)
                        if (!is_left(record)) gone.push_back(record.id);
                    if (!gone.empty()) FS_TRY(drop_shared_points(vault_.database(), gone));
                }
            }
        }
    };
    if (auto looked = look(); !looked)
        log::warn("vault", about(looked.error()), "old shared points: {}",
                  looked.error().to_string());
}

void GroupDesk::tend() {
    std::vector<std::pair<SharedPointId, std::shared_ptr<Running>>> over;
    {
        const std::lock_guard hold(mutex_);
        if (stopping_) return;
        for (const auto& [id, running] : running_) {
            running->barrier.tick(vault_.clock().steady_us());
            if (running->barrier.state() != Barrier::State::kRunning)
                over.emplace_back(id, running);
        }
    }
    for (const auto& [id, running] : over) finish(id, running);
    ask_what_is_due();
    begin_what_is_asked();
    look_what_is_stored();
    forget_old();
}

void GroupDesk::stop() {
    {
        const std::lock_guard hold(mutex_);
        stopping_ = true;
        for (auto& [id, running] : running_)
            running->barrier.give_up(Error(Code::kCancelled, "the vault ends"));
    }
    changed_.notify_all();
}

// ---- the vault's own

GroupDesk& Vault::groups() { return *impl_->groups; }

Result<BarrierOrder> Vault::shared_point_step(const std::string& /*appliance*/,
                                              const BarrierReport& report) {
    return impl_->groups->step(report);
}

}  // namespace farshore
