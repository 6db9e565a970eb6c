// Comparisons of source and replica: asked for, in their windows, by policy; cancelled; watched.
#include <fmt/core.h>

#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

std::string new_request(Random& random) {
    uint8_t raw[8];
    random.fill(raw);
    return to_hex(raw);
}

bool runs(const std::optional<AgentItemStatus>& agent) {
    return agent && (agent->resync.state == ResyncState::kComparing ||
                     agent->resync.state == ResyncState::kVerifying);
}

std::string when(const std::optional<TimePoint>& time) {
    return time ? "that opens at " + to_rfc3339(*time).substr(0, 19) + "Z" : "that is open";
}

constexpr const char* kNeeded =
    "order was lost, or a difference was found: the item needs this comparison to be protected "
    "again";
constexpr const char* kNeededRemedy =
    "wait for its end; `farshore set --resync-windows-for all` lets those wait for their window, "
    "too";

}  // namespace

Result<WeeklyWindows> Vault::Impl::resync_windows(const ItemRecord& record) {
    const std::string& text = record.policy.resync_windows;
    return WeeklyWindows::parse(text.empty() ? kDefaultResyncWindows : std::string_view(text),
                                options.time_zone);
}

Result<ResyncPlan> Vault::Impl::resync_plan(ItemRuntime& item) {
    uint64_t seen = 0;
    {
        const std::lock_guard hold(item.mutex);
        if (item.resync) return *item.resync;
        seen = item.resync_changes;
    }
    FS_ASSIGN(ResyncPlan plan, get_resync_plan(*database, item.id));
    const std::lock_guard hold(item.mutex);
    if (seen == item.resync_changes) item.resync = plan;
    return plan;
}

Result<ResyncPlan> Vault::Impl::change_resync(
    ItemRuntime& item, const std::function<Status(ItemRecord&, ResyncPlan&)>& change) {
    auto changed = change_resync_plan(*database, item.id, change);
    const std::lock_guard hold(item.mutex);
    // Read again: another thread may have written after us, or read before.
    item.resync.reset();
    ++item.resync_changes;
    return changed;
}

ResyncHold Vault::Impl::hold_of(ItemRuntime& item, const ItemRecord& record) {
    const auto windows = resync_windows(record);
    const auto plan = resync_plan(item);
    if (!windows || !plan) return ResyncHold::kNone;
    // Before its first point an item has nothing to fall back to.
    const bool first =
        record.state == ItemState::kEnabling || record.state == ItemState::kInitialReplication;
    return resync_hold(*plan, windows->contains(clock.now()),
                       record.policy.resync_windows_for_all && !first);
}

void Vault::Impl::report_resync(ItemRuntime& item, const ItemRecord& record, ItemReport& report) {
    if (auto plan = resync_plan(item)) report.resync = *plan;
    const auto windows = resync_windows(record);
    if (!windows) {
        // It was checked when it was set; the system has lost that zone since.
        report.troubles.push_back(
            {Severity::kWarning, std::string(code_name(windows.error().code())),
             "the windows of comparisons cannot be read, nothing waits for them: " +
                 windows.error().what(),
             windows.error().remedy()});
        return;
    }
    const std::string& text = record.policy.resync_windows;
    report.resync_windows = text.empty() ? std::string(kDefaultResyncWindows) : text;
    if (!report.resync_windows.ends_with(windows->zone()))
        report.resync_windows += " " + windows->zone();
    report.resync_window_open = windows->contains(clock.now());
    report.resync_window_change = windows->next_change(clock.now());
}

Result<ItemReport> Vault::resynchronise(const std::string& name_or_id, bool in_window) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(record.id));
    FS_ASSIGN(const WeeklyWindows windows, impl_->resync_windows(record));
    bool fresh = false;
    const auto change = [&](ItemRecord& to, ResyncPlan& plan) -> Status {
        FS_TRY(check_action(to.state, ItemAction::kResynchronise));
        fresh = plan.stage == ResyncStage::kNone;
        if (fresh) {
            plan.request = new_request(impl_->random);
            plan.asked = impl_->clock.now();
            plan.kind = in_window ? ResyncKind::kInWindow : ResyncKind::kNow;
        }
        plan.cancel.clear();
        if (in_window) {
            if (fresh) plan.stage = ResyncStage::kWaiting;
            return {};
        }
        // What waits, or is held, waits no more.
        plan.kind = ResyncKind::kNow;
        // One that its agent has begun may have passed what is in question now: it compares anew.
        const bool begun = plan.stage == ResyncStage::kRunning ||
                           (plan.stage == ResyncStage::kAsked && to.resync_request.empty());
        if (begun) plan.request = new_request(impl_->random);
        to.resync_request = plan.request;
        plan.stage = ResyncStage::kAsked;
        return {};
    };
    FS_TRY(impl_->change_resync(*item, change));
    const TimePoint now = impl_->clock.now();
    event(Severity::kInformation, "resynchronisation-requested", &record,
          in_window && fresh
              ? fmt::format("source and replica will be compared in the window {}",
                            when(windows.contains(now) ? std::nullopt : windows.next_opening(now)))
              : "source and replica will be compared, and what differs is sent");
    impl_->notify();
    return this->item(record.id.to_string());
}

Result<ItemReport> Vault::cancel_resync(const std::string& name_or_id, int64_t timeout_us) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(record.id));
    bool running = false, gap = false;
    {
        const std::lock_guard hold(item->mutex);
        running = runs(item->agent);
        gap = item->agent && item->agent->gap_open;
    }
    const std::string id = new_request(impl_->random);
    bool over = false;
    FS_TRY(impl_->change_resync(*item, [&](ItemRecord& to, ResyncPlan& plan) -> Status {
        over = plan.stage == ResyncStage::kWaiting;
        if (over) {
            plan.stage = ResyncStage::kNone;
            plan.finished = impl_->clock.now();
            return {};
        }
        if (gap || to.state == ItemState::kResynchronising ||
            to.state == ItemState::kInitialReplication)
            return fail(Code::kWrongState, kNeeded, kNeededRemedy);
        if (!running && plan.stage == ResyncStage::kNone)
            return fail(Code::kWrongState,
                        fmt::format("nothing of '{}' is compared now, and nothing waits for it",
                                    record.name),
                        "`farshore item` shows comparisons");
        to.resync_request.clear();
        plan.cancel = id;
        return {};
    }));
    const auto tell = [&]() -> Result<ItemReport> {
        impl_->notify();
        return this->item(record.id.to_string());
    };
    if (over) {
        event(Severity::kInformation, "resynchronisation-cancelled", &record,
              "the comparison that waited for its window was cancelled");
        return tell();
    }
    const int64_t until_us = impl_->clock.steady_us() + timeout_us;
    while (true) {
        const uint64_t seen = impl_->change_count();
        {
            const std::lock_guard hold(item->mutex);
            if (item->cancel_answered == id) {
                if (item->cancel_error)
                    return fail(Error(item->cancel_error->code, item->cancel_error->what,
                                      item->cancel_error->remedy));
                break;
            }
        }
        if (!impl_->wait_change(seen, until_us))
            return fail(Code::kTimeout,
                        fmt::format("agent '{}' has not answered yet; it is told again until it "
                                    "does",
                                    record.agent),
                        "`farshore item` shows whether it is still compared");
    }
    return tell();
}

Status Vault::Impl::take_cancel_answer(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                                       const AgentItemStatus& status) {
    FS_ASSIGN(const ResyncPlan plan, resync_plan(item));
    if (plan.cancel.empty() || plan.cancel != status.resync_cancel_done_id) return {};
    std::optional<ItemError> error;
    if (const auto& told = status.resync_cancel_error)
        error = ItemError{told->code, told->what, told->remedy};
    FS_TRY(change_resync(item, [&](ItemRecord&, ResyncPlan& to) -> Status {
        if (to.cancel != plan.cancel) return {};
        to.cancel.clear();
        if (error) return {};
        to.stage = ResyncStage::kNone;
        // A check by the policy is due again after its interval, not at once.
        to.finished = clock.now();
        return {};
    }));
    {
        const std::lock_guard hold(item.mutex);
        item.cancel_answered = plan.cancel;
        item.cancel_error = error;
    }
    if (!error)
        vault.event(Severity::kInformation, "resynchronisation-cancelled", &record,
                    "the comparison of source and replica was cancelled; no point is lost");
    notify();
    return {};
}

void Vault::Impl::tend_resync(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                              bool healthy) {
    watch_resync(vault, item, record);
    if (fenced || !is_replicating(record.state)) return;
    const auto tend = [&]() -> Status {
        ResyncInputs inputs;
        FS_ASSIGN(inputs.plan, resync_plan(item));
        const auto windows = resync_windows(record);
        inputs.verify_interval_s = record.policy.verify_interval_s;
        inputs.window_open = !windows || windows->contains(clock.now());
        inputs.healthy = healthy;
        inputs.request_pending = !record.resync_request.empty();
        inputs.created = record.created;
        inputs.now = clock.now();
        {
            const std::lock_guard hold(item.mutex);
            // One that is being started has not looked yet.
            if (item.agent && clock.steady_us() - item.agent_heard_us < kAgentLostUs &&
                (item.agent->state == AgentItemState::kLive ||
                 item.agent->state == AgentItemState::kCopying ||
                 item.agent->state == AgentItemState::kGap))
                inputs.agent = item.agent->resync.state;
        }
        const ResyncPlan seen = inputs.plan;
        const ResyncStep step = next_resync_step(inputs);
        if (step == ResyncStep::kWait) return {};
        const auto change = [&](ItemRecord& to, ResyncPlan& plan) -> Status {
            // Somebody asked for something else meanwhile.
            if (plan.stage != seen.stage || plan.request != seen.request) return {};
            switch (step) {
                case ResyncStep::kPlan:
                    plan.stage = ResyncStage::kWaiting;
                    plan.kind = ResyncKind::kVerify;
                    plan.request = new_request(random);
                    plan.asked = clock.now();
                    break;
                case ResyncStep::kAsk:
                    FS_TRY(check_action(to.state, ItemAction::kResynchronise));
                    plan.stage = ResyncStage::kAsked;
                    to.resync_request = plan.request;
                    break;
                case ResyncStep::kBegun:
                    plan.stage = ResyncStage::kRunning;
                    break;
                case ResyncStep::kFinish:
                    plan.stage = ResyncStage::kNone;
                    plan.finished = clock.now();
                    break;
                case ResyncStep::kWait:
                    break;
            }
            return {};
        };
        FS_TRY(change_resync(item, change));
        if (step == ResyncStep::kPlan)
            vault.event(Severity::kInformation, "resynchronisation-requested", &record,
                        fmt::format("by the policy, every {} s; it is compared in the window {}",
                                    record.policy.verify_interval_s,
                                    when(inputs.window_open ? std::nullopt
                                                            : windows->next_opening(inputs.now))));
        notify();
        return {};
    };
    if (auto tended = tend(); !tended)
        log::warn("vault", about(record, tended.error()), "the comparison of '{}': {}", record.name,
                  tended.error().to_string());
}

// A comparison goes on by itself, with back-off, whatever fails; that it stands still must be seen.
void Vault::Impl::watch_resync(Vault& vault, ItemRuntime& item, const ItemRecord& record) {
    std::optional<ItemError> failing;
    bool fresh = false, mended = false;
    {
        const std::lock_guard hold(item.mutex);
        const int64_t now_us = clock.steady_us();
        const bool heard = item.agent && now_us - item.agent_heard_us < kAgentLostUs;
        ResyncWatch::Sight sight;
        sight.steady_us = now_us;
        if (heard) {
            const ResyncStatus& resync = item.agent->resync;
            sight.due = is_replicating(record.state) && !resync.held &&
                        (runs(item.agent) || !record.resync_request.empty());
            sight.progress = resync.compared + resync.verified + resync.sent + resync.differing +
                             item.agent->copied_bytes + static_cast<uint64_t>(resync.state);
            sight.read_errors = resync.read_errors;
        }
        item.resync_watch.look(sight);
        if (item.resync_watch.failing(now_us)) {
            if (item.resync_watch.cannot_read())
                failing = {
                    Code::kIo, "disks of the source cannot be read",
                    "look at the source's disks and the log of its kernel; it is tried again "
                    "every second"};
            else if (item.compare_error)
                failing = {
                    item.compare_error->code(),
                    fmt::format("the replica cannot be read: {}", item.compare_error->what()),
                    item.compare_error->remedy().empty()
                        ? "look at the object store; it is tried again every few seconds"
                        : item.compare_error->remedy()};
            else if (!record.resync_request.empty())
                failing = {
                    Code::kTimeout,
                    fmt::format("agent '{}' was told to compare, and has not begun", record.agent),
                    "look at the agent's log; is the machine's tap running?"};
            else
                failing = {Code::kTimeout, "no answers reach the agent",
                           "look at the line between agent, appliance and vault; it is tried again "
                           "every few seconds"};
            failing->what = fmt::format(
                "the comparison of source and replica has not got on for {} "
                "s: {}",
                kResyncStuckUs / 1'000'000, failing->what);
        }
        fresh = failing && !item.resync_failing;
        mended = !failing && item.resync_failing;
        item.resync_failing = failing;
    }
    if (fresh)
        vault.event(
            record.state == ItemState::kProtected ? Severity::kWarning : Severity::kCritical,
            "resync-failing", &record, failing->what, failing->remedy);
    if (mended)
        vault.event(Severity::kInformation, "resync-goes-on", &record,
                    "the comparison of source and replica got on, or is not needed any more");
    if (fresh || mended) notify();
}

}  // namespace farshore
