// Items: protecting, reporting, states, background rounds, bookmarks.
#include <fmt/core.h>

#include "base/party_names.h"
#include "meta/groups.h"
#include "os/certificate_keeper.h"
#include "os/log.h"
#include "replica/item_object.h"
#include "replica/manifest.h"
#include "replicate/limits.h"
#include "vault/group_desk.h"
#include "vault/policy.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// A reader that nobody compares with any more is closed.
constexpr int64_t kCompareIdleUs = 30'000'000;
constexpr int64_t kJobReportUs = 1'000'000;
// A report's health counts for so long, or for two rounds of the tender if that is longer.
constexpr int64_t kHealthKnownUs = 60'000'000;
constexpr size_t kLeastReports = 100;

}  // namespace

// ---- runtimes
// --------------------------------------------------------------------------------------

Result<std::shared_ptr<ItemRuntime>> Vault::Impl::open_runtime(const ItemRecord& record) {
    if (const auto error = why_set_aside(record.id)) return fail(*error);
    auto made = std::make_shared<ItemRuntime>();
    made->id = record.id;
    made->opened_us = clock.steady_us();
    FS_ASSIGN(OpenedItemKey opened, open_for_item(record.id, record.wrapped_key, keks()));
    made->key = std::move(opened.key);
    made->ledger = std::make_unique<DatabaseLedger>(*database, record.id);
    ItemReplicaOptions replica_options;
    replica_options.fence = &*fence;
    replica_options.shared_points = [this, id = record.id] { return shared_points_of_item(id); };
    FS_ASSIGN(made->replica, ItemReplica::open(*store, *made->ledger, clock, random, record.id,
                                               made->key, replica_options));
    const std::lock_guard hold(mutex);
    return runtimes.emplace(record.id, std::move(made)).first->second;
}

Result<std::vector<SharedPointOfItem>> Vault::Impl::shared_points_of_item(const ItemId& id) {
    constexpr size_t kMost = 10'000;
    FS_ASSIGN(const auto rows, stored_points_of(*database, id, kMost));
    std::vector<SharedPointOfItem> points;
    for (const ItemSharedPoint& row : rows) points.push_back({row.id, row.kind, row.sequence});
    return points;
}

Result<std::shared_ptr<ItemRuntime>> Vault::Impl::runtime(const ItemId& id) {
    {
        const std::lock_guard hold(mutex);
        const auto at = runtimes.find(id);
        if (at != runtimes.end()) return at->second;
    }
    FS_ASSIGN(const ItemRecord record, get_item(*database, id));
    return open_runtime(record);
}

Result<std::shared_ptr<ItemRuntime>> Vault::Impl::runtime_to_delete(const ItemRecord& record) {
    // Without a key: it was set aside before its description was read, and half deleted since.
    if (why_set_aside(record.id) || record.wrapped_key.empty()) return nullptr;
    return runtime(record.id);
}

void Vault::Impl::forget_runtime(const ItemId& id) {
    {
        const std::lock_guard hold(mutex);
        runtimes.erase(id);
        set_aside.erase(id);
    }
    const std::lock_guard hold(health_mutex);
    known_health.erase(id);
}

Result<ReplicaStatus> Vault::Impl::replica_status(ItemRuntime& item) {
    {
        const std::lock_guard hold(item.mutex);
        if (!item.status_stale) return item.status;
        item.status_stale = false;  // what changes from here on makes it stale again
    }
    auto status = item.replica->status();
    const std::lock_guard hold(item.mutex);
    if (!status)
        item.status_stale = true;
    else
        item.status = *status;
    return status;
}

Result<std::shared_ptr<ItemReplica>> Vault::replica(const ItemId& id) {
    return impl_->replica_in({}, id);
}

Result<Secret> Vault::item_key(const ItemId& id) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    return item->key;
}

std::optional<Error> Vault::why_set_aside(const ItemId& id) { return impl_->why_set_aside(id); }

// ---- reports
// ---------------------------------------------------------------------------------------

namespace {

// How old the newest point is; `now` by the source's clock. While a gap is open, idle marks say
// nothing about points.
std::optional<int64_t> rpo_of(const ReplicaStatus& status, TimePoint now) {
    if (!status.newest) return {};
    const TimePoint mark =
        status.gap_open ? status.newest_time : std::max(status.current_until, status.newest_time);
    return std::max<int64_t>(now.us - mark.us, 0);  // clocks may differ a little
}

}  // namespace

TimePoint Vault::Impl::source_now(ItemRuntime& item) {
    const std::lock_guard hold(item.mutex);
    return {clock.now().us + item.clock_ahead_us};
}

ItemReport Vault::Impl::report(const ItemRecord& record) {
    ItemReport report;
    report.record = record;
    HealthInputs health;
    health.state = record.state;
    health.in_state_us = clock.now().us - record.state_since.us;
    health.agent = record.agent;
    health.error = record.error;
    health.fenced = fenced;
    health.rpo_threshold_us = int64_t{record.policy.rpo_threshold_s} * 1'000'000;
    if (const auto trouble = database->trouble())
        report.troubles.push_back(trouble_of(*trouble, "vault"));
    if (record.policy.consistent_interval_s != 0)
        if (auto consistent = get_consistent_state(*database, record.id)) {
            report.consistent = *consistent;
            health.consistent_error = consistent->error;
            health.consistent_interval_us =
                int64_t{record.policy.consistent_interval_s} * 1'000'000;
            if (consistent->made.us != 0)
                health.consistent_age_us = clock.now().us - consistent->made.us;
        }
    if (auto seed = seed_of(record.id); seed && seed->state != SeedState::kNone) {
        report.seed = *seed;
        if (seed->error)
            report.troubles.push_back(
                {Severity::kWarning, "seed-failed", seed->error->what, seed->error->remedy});
        if (seed->state == SeedState::kHeld)
            report.troubles.push_back(
                {Severity::kWarning, "seed-differs",
                 fmt::format("{} of {} sampled bytes of the seed differ from the machine",
                             seed->differing_bytes, seed->sampled_bytes),
                 "look whether it is the right image; `farshore seed accept` sends what differs"});
    }
    if (auto item = runtime(record.id)) {
        if (auto status = replica_status(**item)) {
            report.replica = *status;
            if (is_replicating(record.state)) report.rpo_us = rpo_of(*status, source_now(**item));
        } else {
            report.troubles.push_back({Severity::kCritical,
                                       std::string(code_name(status.error().code())),
                                       status.error().what(), status.error().remedy()});
        }
        report_resync(**item, record, report);
        report_upload(**item, record, report);
        report_appliance(**item, record, report);
        report_return(**item, record, report);
        report_copies(record, report);
        if (auto rows = damage(**item)) {
            const auto hurt = std::ranges::find_if(*rows, &DamageRecord::newest);
            if (hurt != rows->end())
                report.troubles.push_back(
                    {Severity::kCritical, "replica-damaged",
                     fmt::format("the newest point cannot be read wholly: {}", hurt->what),
                     hurt->asked.us != 0
                         ? "the source compares, and sends what was lost again; wait"
                         : "`farshore resync` has the source send what was lost again"});
        }
        const std::lock_guard hold((*item)->mutex);
        health.resync_failing = (*item)->resync_failing;
        if ((*item)->intake_trouble &&
            clock.steady_us() - (*item)->intake_trouble_us < kTroubleForgottenUs)
            report.troubles.push_back(*(*item)->intake_trouble);
        for (const auto* trouble : {&(*item)->checkpoint_trouble, &(*item)->retention_trouble})
            if (*trouble) report.troubles.push_back(**trouble);
        report.agent = (*item)->agent;
        if ((*item)->agent) report.clock_ahead_us = health.clock_ahead_us = (*item)->clock_ahead_us;
        health.agent_heard = (*item)->agent.has_value();
        health.agent_silent_us =
            clock.steady_us() - (health.agent_heard ? (*item)->agent_heard_us : (*item)->opened_us);
        if (health.agent_heard) report.agent_seen = (*item)->agent_heard;
        if (report.rpo_us)
            report.rpo_worst_us =
                std::max((*item)->worst.worst(clock.steady_us()).value_or(0), *report.rpo_us);
    } else {
        report.troubles.push_back({Severity::kCritical, std::string(code_name(item.error().code())),
                                   item.error().what(), item.error().remedy()});
    }
    {
        const std::shared_lock hold(drill_mutex);
        if (drill_badges) report.drill = drill_badges(record);
    }
    if (report.drill && report.drill->trouble) report.troubles.push_back(*report.drill->trouble);
    health.rpo_us = report.rpo_us;
    for (Trouble& trouble : item_troubles(health)) report.troubles.push_back(std::move(trouble));
    {
        const std::lock_guard hold(health_mutex);
        known_health[record.id] = {health_name(report.troubles), clock.steady_us()};
    }
    return report;
}

void Vault::set_drill_badges(std::function<std::optional<DrillBadge>(const ItemRecord&)> badges) {
    const std::unique_lock hold(impl_->drill_mutex);
    impl_->drill_badges = std::move(badges);
}

// What the newest report said: an item that nobody has looked at for long may have any health.
bool Vault::Impl::may_have_health(const ItemId& id, const std::string& health) {
    const int64_t since_us =
        clock.steady_us() - std::max(kHealthKnownUs, 2 * tend_period_us.load());
    const std::lock_guard hold(health_mutex);
    const auto known = known_health.find(id);
    return known == known_health.end() || known->second.since_us <= since_us ||
           known->second.name == health;
}

Result<ItemReport> Vault::item(const std::string& name_or_id) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    return impl_->report(record);
}

Result<std::vector<ItemReport>> Vault::items(const std::string& after, size_t limit) {
    return items(ItemQuery{}, {}, after, limit);
}

Result<std::vector<ItemReport>> Vault::items(const ItemQuery& query, const std::string& health,
                                             const std::string& after, size_t limit) {
    // Nobody makes ten thousand reports for the few that are wanted; and who sees few of those that
    // come asks again for each page of them, however small.
    const bool any = health.empty();
    FS_ASSIGN(const auto records,
              remembered_items(
                  *impl_->database, query, after, any ? limit : std::max(limit, kLeastReports),
                  any ? std::function<bool(const ItemId&)>()
                      : [&](const ItemId& id) { return impl_->may_have_health(id, health); }));
    std::vector<ItemReport> reports;
    reports.reserve(records.size());
    for (const ItemRecord& record : records) reports.push_back(impl_->report(record));
    return reports;
}

Result<ItemReport> Vault::wait_for_item(const ItemId& id, int64_t timeout_us,
                                        const std::function<bool(const ItemReport&)>& done) {
    const int64_t until_us = impl_->clock.steady_us() + timeout_us;
    while (true) {
        const uint64_t seen = impl_->change_count();
        FS_ASSIGN(const ItemRecord record, get_item(*impl_->database, id));
        ItemReport report = impl_->report(record);
        if (done(report) || !impl_->wait_change(seen, until_us)) return report;
    }
}

// ---- protecting
// ------------------------------------------------------------------------------------

// A device is some agent's own: with several, somebody must say whose. Empty: none has spoken yet,
// the first one that does is meant.
Result<std::string> Vault::Impl::only_agent() {
    const std::lock_guard hold(mutex);
    const int64_t now_us = clock.steady_us();
    std::string only;
    for (const auto& [name, contact] : contacts) {
        if (now_us - contact.heard_us >= kAgentLostUs || name == kRecoveryAgent) continue;
        if (!only.empty())
            return fail(Code::kInvalidArgument,
                        fmt::format("there are several agents ('{}', '{}', ...)", only, name),
                        "say with --agent which machine's devices are meant");
        only = name;
    }
    return only;
}

Result<ItemReport> Vault::protect(const ProtectRequest& request) {
    FS_TRY(check_item_name(request.name));
    if (int{!request.qmp_socket.empty()} + int{!request.disks.empty()} +
            int{!request.devices.empty()} !=
        1)
        return fail(Code::kInvalidArgument, "name a QMP socket, or disks to serve, or devices",
                    "a running QEMU is protected with qmp_socket, the agent's own machine with "
                    "devices, anything else with disks");
    const auto& paths = request.devices.empty() ? request.disks : request.devices;
    if (paths.size() > kMaxDisks)
        return fail(Code::kInvalidArgument, fmt::format("an item has at most {} disks", kMaxDisks));
    ItemRecord record;
    impl_->random.fill(record.id.raw);
    record.name = request.name;
    record.agent = request.agent;
    record.qmp_socket = request.qmp_socket;
    record.mode = !request.devices.empty() ? CaptureMode::kDevice
                  : request.disks.empty()  ? CaptureMode::kMirror
                                           : CaptureMode::kInPath;
    record.policy = request.policy;
    record.policy_name = request.policy_name;
    FS_TRY(check_seeds(request.seeds, paths.size()));
    FS_TRY(check_policy(record.policy, impl_->options.time_zone));
    if (record.mode == CaptureMode::kDevice && record.agent.empty()) {
        FS_ASSIGN(record.agent, impl_->only_agent());
    }
    for (const std::string& path : paths) {
        if (path.empty() || path[0] != '/' || path.size() > kMaxPathBytes)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is not an absolute path", path.substr(0, 200)));
        record.disks.push_back({static_cast<DiskIndex>(record.disks.size()), path, 0});
    }
    if (!request.qmp_socket.empty() &&
        (request.qmp_socket[0] != '/' || request.qmp_socket.size() > kMaxPathBytes))
        return fail(Code::kInvalidArgument, "the QMP socket must be an absolute path");
    const auto create = [&]() -> Result<ItemRecord> {
        const std::lock_guard work(impl_->key_work);
        FS_ASSIGN(record.wrapped_key,
                  wrap_for_item(record.id, make_key(impl_->random), impl_->kek(), impl_->random));
        return create_item(*impl_->database, record);
    };
    FS_ASSIGN(const ItemRecord created, create());
    if (!request.seeds.empty()) {
        auto kept = impl_->change_seed(created.id, [&](SeedRecord& seed) -> Status {
            seed.sources = request.seeds;
            seed.state = SeedState::kWaiting;
            return {};
        });
        if (!kept) {
            // Without its seed it would be another wish.
            (void)delete_item(*impl_->database, created.id);
            return fail(kept.error());
        }
    }
    event(Severity::kInformation, "item-created", &created,
          created.mode == CaptureMode::kInPath ? "protection in the path begins"
                                               : "protection of a running machine begins");
    impl_->notify();
    return impl_->report(created);
}

Result<ItemRecord> Vault::change_state(const ItemId& id, ItemState state, const std::string& why) {
    ItemState before = state;
    FS_ASSIGN(const ItemRecord changed,
              change_item(*impl_->database, id, [&](ItemRecord& item) -> Status {
                  before = item.state;
                  item.state = state;
                  return {};
              }));
    if (before != state) {
        const bool bad = state == ItemState::kCatchingUp || state == ItemState::kResynchronising;
        event(bad ? Severity::kWarning : Severity::kInformation, "item-state-changed", &changed,
              fmt::format("{} -> {}{}{}", item_state_name(before), item_state_name(state),
                          why.empty() ? "" : ": ", why));
        impl_->notify();
    }
    return changed;
}

// ---- background
// ------------------------------------------------------------------------------------

void Vault::Impl::tend_item(Vault& vault, const ItemRecord& record) {
    if (why_set_aside(record.id)) return;
    auto item = runtime(record.id);
    if (!item) {
        log::warn("vault", "item '{}' cannot be opened: {}", record.name, item.error().to_string());
        return;
    }
    auto status = replica_status(**item);
    if (!status) {
        log::warn("vault", "item '{}': {}", record.name, status.error().to_string());
        return;
    }
    forget_compare_reader(**item, kCompareIdleUs);
    tend_return(vault, **item, record, *status);
    if (auto told = tend_seed(vault, **item, record); !told)
        log::warn("vault", "the seed of '{}': {}", record.name, told.error().to_string());
    if (auto told = tend_disks(vault, record, status->disks); !told)
        log::warn("vault", "item '{}': {}", record.name, told.error().to_string());
    const int64_t steady_us = clock.steady_us();
    DriveInputs inputs;
    inputs.state = record.state;
    inputs.has_point = status->newest.has_value();
    inputs.replica_gap = status->gap_open;
    const auto rpo_us = rpo_of(*status, source_now(**item));
    inputs.rpo_us = rpo_us.value_or(0);
    uint64_t copy_job = 0;
    uint64_t copied = 0, total = 0, rate = 0;
    {
        const std::lock_guard hold((*item)->mutex);
        if (rpo_us && is_replicating(record.state)) (*item)->worst.sample(steady_us, *rpo_us);
        if ((*item)->agent && steady_us - (*item)->agent_heard_us < kAgentLostUs) {
            inputs.agent = (*item)->agent->state;
            inputs.agent_gap = (*item)->agent->gap_open;
        }
        if ((*item)->agent) {
            copied = (*item)->agent->copied_bytes;
            total = (*item)->agent->copy_total_bytes;
            rate = (*item)->agent->copy_rate_bytes_per_s;
        }
        if (steady_us - (*item)->job_report_us >= kJobReportUs) {
            (*item)->job_report_us = steady_us;
            copy_job = (*item)->copy_job;
        }
    }
    const ItemState wanted = next_item_state(inputs);
    ItemRecord now = record;
    if (wanted != record.state) {
        auto changed = vault.change_state(record.id, wanted, {});
        if (changed) now = *changed;
    }
    const bool healthy = now.state == ItemState::kProtected &&
                         inputs.agent == AgentItemState::kLive && !inputs.agent_gap && !now.error;
    tend_consistent_points(vault, **item, now, status->stored, healthy);
    tend_resync(vault, **item, now, healthy);
    // The first copy is shown as a job; the vault only watches it.
    if (now.state == ItemState::kInitialReplication) {
        bool start = false;
        {
            const std::lock_guard hold((*item)->mutex);
            start = (*item)->copy_job == 0;
        }
        if (start) {
            JobRecord job;
            job.kind = "initial-replication";
            job.item = record.id;
            job.item_name = record.name;
            // A vault that was restarted goes on with the job that is there.
            if (auto open = list_jobs(*database, 0, 20, record.id))
                for (const JobRecord& known : *open)
                    if (known.kind == job.kind && !known.over()) job.id = known.id;
            if (job.id == 0)
                if (auto added = add_job(*database, job)) job.id = added->id;
            if (job.id != 0 && farshore::start_job(*database, job.id)) {
                const std::lock_guard hold((*item)->mutex);
                (*item)->copy_job = job.id;
            }
        } else if (copy_job != 0 && total != 0) {
            const auto done = static_cast<uint32_t>(std::min(copied, total) * 1.0 /
                                                    static_cast<double>(total) * 1000);
            const int64_t eta_s =
                rate == 0 ? -1 : static_cast<int64_t>((total - std::min(copied, total)) / rate);
            if (auto told = report_job(*database, copy_job, done, eta_s, "copying the disks");
                !told)
                log::debug("vault", "{}", told.error().to_string());
        }
    } else {
        uint64_t ended = 0;
        {
            const std::lock_guard hold((*item)->mutex);
            std::swap(ended, (*item)->copy_job);
        }
        if (ended != 0) {
            const bool good = is_replicating(now.state);
            if (auto told = end_job(*database, ended,
                                    good ? JobState::kSucceeded : JobState::kCancelled, "", {});
                !told)
                log::debug("vault", "{}", told.error().to_string());
            notify();
        }
    }
    tend_scrub(vault, **item, now);
    tend_changes(vault, **item, now, status->stored);
    run_upkeep(**item, now);
}

void Vault::Impl::run_upkeep(ItemRuntime& item, const ItemRecord& record) {
    const std::lock_guard upkeep(item.upkeep_mutex);
    if (fenced || item.deleting || record.state == ItemState::kDisabling) return;
    const auto told = [&](std::optional<Trouble>& known, const Error& error) {
        if (error.code() == Code::kFenced) {
            if (!fenced.exchange(true))
                log::error("vault", "another vault has taken over the store: {}",
                           error.to_string());
            return;
        }
        bool fresh = false;
        {
            const std::lock_guard hold(item.mutex);
            Trouble trouble = trouble_of(error, "upkeep");
            fresh = !known || known->cause != trouble.cause;
            known = std::move(trouble);
        }
        // It is tried again each second.
        if (fresh) log::warn("vault", "upkeep of '{}': {}", record.name, error.to_string());
    };
    const auto mended = [&](std::optional<Trouble>& known) {
        const std::lock_guard hold(item.mutex);
        known.reset();
    };
    if (auto done = item.replica->maybe_checkpoint(); !done)
        told(item.checkpoint_trouble, done.error());
    else
        mended(item.checkpoint_trouble);
    // A short window (trials) wants a floor that moves often; a long one only costs manifests then.
    const int64_t window_us = int64_t{record.policy.window_s} * 1'000'000;
    const int64_t interval_us = retention_interval_us(record.policy);
    if (clock.steady_us() - item.retention_us < interval_us) return;
    item.retention_us = clock.steady_us();
    RetentionPolicy policy;
    policy.window_us = window_us;
    // It was checked when it was set: a database that says otherwise keeps all there is.
    auto grid = RetentionGrid::parse(record.policy.keep);
    if (!grid) {
        told(item.retention_trouble, grid.error());
        return;
    }
    policy.grid = std::move(*grid);
    policy.min_advance_us = interval_us / 2;
    policy.grace_us = int64_t{record.policy.grace_s} * 1'000'000;
    policy.followed = [this, id = record.id] { return followed(id); };
    auto report = item.replica->run_retention(policy);
    if (!report) {
        told(item.retention_trouble, report.error());
        return;
    }
    mended(item.retention_trouble);
    if (report->floor_moved || report->removed != 0) {
        const std::lock_guard hold(item.mutex);
        item.status_stale = true;
    }
    if (report->removed != 0)
        log::info("vault", "retention of '{}': floor {}, {} objects removed ({} bytes), {} wait",
                  record.name, report->floor.v, report->removed, report->removed_bytes,
                  report->waiting);
}

void Vault::tend() {
    impl_->tend_keys(*this);
    if (impl_->certificates_looked_us == 0 ||
        impl_->clock.steady_us() - impl_->certificates_looked_us >= kCertificateLookUs) {
        impl_->certificates_looked_us = impl_->clock.steady_us();
        if (auto looked = warn_of_certificates(); !looked)
            log::warn("vault", "certificates that end: {}", looked.error().to_string());
    }
    impl_->tend_components(*this);
    impl_->tend_contacts();
    impl_->tend_deleted_items();
    impl_->end_lost_jobs();
    impl_->groups->tend();
    std::string after;
    while (!impl_->ending) {
        auto records = list_items(*impl_->database, after, 500);
        if (!records) {
            log::warn("vault", "items cannot be listed: {}", records.error().to_string());
            return;
        }
        if (records->empty()) return;
        after = records->back().name;
        for (const ItemRecord& record : *records) {
            if (impl_->ending) return;
            impl_->tend_item(*this, record);
            impl_->tend_alarms(*this, record);
        }
    }
}

// ---- bookmarks
// -------------------------------------------------------------------------------------

Result<BookmarkReport> Vault::create_bookmark(const std::string& name_or_id,
                                              const std::string& label, PointKind kind) {
    if (label.empty() || label.size() > kMaxLabelBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a label has 1 to {} bytes", kMaxLabelBytes));
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    FS_TRY(check_action(record.state, ItemAction::kBookmark));
    BookmarkReport report;
    uint8_t raw[16];
    impl_->random.fill(raw);
    report.record.id = to_hex(raw);
    report.record.item = record.id;
    report.record.label = label;
    report.record.kind = kind;
    report.record.requested = impl_->clock.now();
    FS_TRY(add_bookmark(*impl_->database, report.record));
    impl_->bookmark_asked(record.id);
    return report;
}

Result<BookmarkReport> Vault::bookmark(const std::string& id, int64_t timeout_us) {
    const int64_t until_us = impl_->clock.steady_us() + timeout_us;
    while (true) {
        const uint64_t seen = impl_->change_count();
        BookmarkReport report;
        if (const auto failed = impl_->failed_bookmark(id)) return fail(*failed);
        FS_ASSIGN(report.record, get_bookmark(*impl_->database, id));
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(report.record.item));
        FS_ASSIGN(const ReplicaStatus status, impl_->replica_status(*item));
        report.stored = report.record.sequence.v != 0 && status.stored >= report.record.sequence;
        if (report.stored || !impl_->wait_change(seen, until_us)) return report;
    }
}

}  // namespace farshore
