#include "vault/drill_desk.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "compute/guest_agent.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "meta/recovery_plans.h"
#include "os/host_capacity.h"
#include "os/log.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/remove_directory.h"
#include "os/tcp_probe.h"
#include "os/waiting.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr const char* kJob = "drill";
constexpr int64_t kLineLookUs = 500'000;  // whether it is one's turn
// After one that could not be done; twice as long after each further one, so many times.
constexpr int64_t kAgainUs = 300'000'000;
constexpr uint64_t kMaxAgainDoublings = 6;
constexpr int64_t kPolicyLookUs = 10'000'000;  // for new consistent points
constexpr const char* kBudgetSetting = "drill_budget";

uint64_t drill_of_job(const JobRecord& job) {
    return std::strtoull(job.input.c_str(), nullptr, 10);
}

// The consistent point that a drill was made for; 0: it was for none.
TimePoint made_of(const DrillRecord& drill) {
    const auto json = parse_json(drill.document, "the drill", kMaxDrillDocumentBytes);
    if (!json || !json->is_object()) return {};
    const auto at = json->find("made_us");
    return at != json->end() && at->is_number_integer() ? TimePoint{at->get<int64_t>()}
                                                        : TimePoint{};
}

std::string ago(int64_t us) {
    const int64_t s = us / 1'000'000;
    return s < 7200      ? fmt::format("{} min", s / 60)
           : s < 172'800 ? fmt::format("{} h", s / 3600)
                         : fmt::format("{} days", s / 86'400);
}

}  // namespace

DrillDesk::DrillDesk(Vault& vault, RecoveryDesk& recovery, FileSystem& files, Random& random,
                     const Options& options)
    : vault_(vault),
      recovery_(recovery),
      files_(files),
      random_(random),
      tick_interval_us_(options.tick_interval_us),
      root_(vault.directory() + "/drills"),
      scripts_directory_(vault.directory() + "/scripts"),
      scripts_(files, vault.directory() + "/drill-scripts", kMaxDrillOutputBytes) {
    const HostCapacity host = host_capacity();
    budget_ = {host.cpus, host.memory_bytes / 2};
    if (const auto kept = get_setting(vault_.database(), kBudgetSetting); kept && !kept->empty())
        if (const auto json = parse_json(*kept, "the drills' budget", 4096))
            if (const auto fields = JsonFields::of(*json, "budget"))
                budget_ = {
                    static_cast<uint32_t>(
                        fields->u64("cpus", budget_.cpus, UINT32_MAX).value_or(budget_.cpus)),
                    fields->u64("memory_bytes", budget_.memory_bytes)
                        .value_or(budget_.memory_bytes)};
    vault_.set_resumer(kJob, [this](const JobRecord& job) -> JobWork {
        return [this, id = drill_of_job(job)](JobRun& run) { return run_job(run, id); };
    });
    if (auto loaded = load(); !loaded)
        log::error("vault", about(loaded.error()), "drills and their policies: {}",
                   loaded.error().to_string());
    vault_.set_drill_badges([this](const ItemRecord& item) { return badge(item); });
}

DrillDesk::~DrillDesk() {
    vault_.set_drill_badges({});
    if (ticker_) ticker_->stop();
    vault_.end_jobs();
}

std::string DrillDesk::directory(uint64_t drill) const {
    return fmt::format("{}/{}", root_, drill);
}

void DrillDesk::learn(const DrillRecord& drill) {
    const std::lock_guard hold(mutex_);
    Known& known = known_[drill.item];
    if (drill.id >= known.newest.id) known.newest = drill;
    if (drill.verdict == "good" || drill.verdict == "bad") {
        if (drill.id >= known.judged.id) known.judged = drill;
        known.made = std::max(known.made, made_of(drill));
        known.undone = 0;
        known.said.clear();
    }
    if (drill.verdict == "none" && drill.id > known.newest_undone.id) {
        known.newest_undone = drill;
        ++known.undone;
    }
    if (drill.verdict == "good" && drill.id >= known.good.id) known.good = drill;
}

Status DrillDesk::load() {
    FS_ASSIGN(const auto newest, newest_drills(vault_.database()));
    for (const DrillRecord& drill : newest) learn(drill);
    FS_ASSIGN(const auto policies, list_drill_policies(vault_.database()));
    for (const DrillPolicyRecord& record : policies) {
        const auto json = parse_json(record.document, "a drill policy", kMaxDrillPolicyBytes);
        const auto policy = json ? drill_policy_from_json(*json)
                                 : Result<DrillPolicy>(tl::unexpected(json.error()));
        if (!policy) {
            log::warn("vault", about(policy.error()), "a drill policy is left alone: {}",
                      policy.error().to_string());
            continue;
        }
        know_policy(record.item, *policy, record.created);
    }
    return {};
}

void DrillDesk::know_policy(const ItemId& item, const DrillPolicy& policy, TimePoint set) {
    const std::lock_guard hold(mutex_);
    Known& known = known_[item];
    known.policy = policy;
    known.policy_set = set;
    known.windows.reset();
    // They were checked when they were set; a zone that is gone since opens them all.
    if (!policy.windows.empty())
        if (auto windows = WeeklyWindows::parse(policy.windows, vault_.info().time_zone))
            known.windows = std::move(*windows);
}

Status DrillDesk::resume() {
    // One that lost its job (the vault was killed before it began) gets another.
    FS_ASSIGN(const auto open, open_drills(vault_.database()));
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    Status all;
    for (const DrillRecord& drill : open) {
        const bool has_job = std::ranges::any_of(jobs, [&](const JobRecord& job) {
            return job.kind == kJob && drill_of_job(job) == drill.id;
        });
        if (has_job) continue;
        const auto item = get_item(vault_.database(), drill.item);
        const auto job = vault_.start_job(
            kJob, item ? std::optional(*item) : std::nullopt, true, std::to_string(drill.id),
            [this, id = drill.id](JobRun& run) { return run_job(run, id); });
        if (!job && all) all = tl::unexpected(job.error());
    }
    // Of drills that are over, or went on at another vault node: nothing stays.
    for (const RecoveryState& state : recovery_.recoveries().list()) {
        const bool wanted = std::ranges::any_of(
            open, [&](const DrillRecord& drill) { return drill.recovery == state.id; });
        if (!state.id.starts_with(kDrillRecoveryPrefix) || wanted) continue;
        if (auto gone = recovery_.clean_up_test(state.id); !gone)
            log::warn("vault", about(gone.error()), "what the drill {} left: {}", state.id,
                      gone.error().to_string());
    }
    if (tick_interval_us_ == 0) return all;
    ticker_ = std::make_unique<ThreadExecutor>("fs-drill");
    auto round = std::make_shared<std::function<void()>>();
    *round = [this, weak = std::weak_ptr(round)] {
        tick();
        if (auto again = weak.lock())
            ticker_->post_after_us(tick_interval_us_, [again] { (*again)(); });
    };
    ticker_->post_after_us(tick_interval_us_, [round] { (*round)(); });
    return all;
}

// ---- policies

std::optional<DrillPolicy> DrillDesk::policy(const ItemId& item) {
    const std::lock_guard hold(mutex_);
    const auto at = known_.find(item);
    return at == known_.end() ? std::nullopt : at->second.policy;
}

Status DrillDesk::set_policy(const ItemRecord& item, const DrillPolicy& policy) {
    FS_ASSIGN(const DrillPolicyRecord kept,
              set_drill_policy(vault_.database(), item.id, dump_json(drill_policy_json(policy))));
    know_policy(item.id, policy, kept.created);
    return {};
}

Status DrillDesk::remove_policy(const ItemId& item) {
    FS_TRY(remove_drill_policy(vault_.database(), item));
    const std::lock_guard hold(mutex_);
    known_[item].policy.reset();
    return {};
}

DrillBudget DrillDesk::budget() {
    const std::lock_guard hold(mutex_);
    return budget_;
}

Status DrillDesk::set_budget(const DrillBudget& budget) {
    if (budget.cpus == 0 || budget.memory_bytes < (uint64_t{16} << 20))
        return fail(Code::kInvalidArgument, "no machine would fit into that budget",
                    "at least one processor and 16 MiB");
    FS_TRY(set_setting(vault_.database(), kBudgetSetting,
                       dump_json({{"cpus", budget.cpus}, {"memory_bytes", budget.memory_bytes}})));
    const std::lock_guard hold(mutex_);
    budget_ = budget;
    return {};
}

std::optional<DrillBadge> DrillDesk::badge(const ItemRecord& item) {
    const std::lock_guard hold(mutex_);
    const auto at = known_.find(item.id);
    if (at == known_.end()) return {};
    const Known& known = at->second;
    if (!known.policy && known.judged.id == 0) return {};
    DrillBadge badge;
    badge.verdict = known.judged.id == 0 ? "" : known.judged.verdict;
    badge.last = known.judged.ended;
    if (known.good.id != 0) {
        badge.good = known.good.ended;
        badge.good_age_us = std::max<int64_t>(vault_.clock().now().us - known.good.ended.us, 0);
        badge.drill = known.good.id;
    }
    if (!known.policy || known.policy->overdue_us() == 0) return badge;
    const TimePoint since = std::max(known.policy_set, known.good.ended);
    const int64_t age_us = vault_.clock().now().us - since.us;
    if (age_us > known.policy->overdue_us())
        badge.trouble = Trouble{
            Severity::kWarning, "drill-overdue",
            known.good.id == 0
                ? fmt::format("no drill has shown a good machine since they were set up {} ago",
                              ago(age_us))
                : fmt::format("the last good drill was {} ago", ago(age_us)),
            known.newest.id != 0 && known.newest.verdict != "open"
                ? fmt::format("`farshore drill show {}` says why the newest one was not good",
                              known.newest.id)
                : "`farshore drill list` shows what they wait for"};
    return badge;
}

// ---- when

bool DrillDesk::is_due(const Known& known, TimePoint made, std::string& point,
                       std::string& why) const {
    if (!known.policy) return false;
    const DrillPolicy& policy = *known.policy;
    const TimePoint now = vault_.clock().now();
    if (known.newest.id != 0 && known.newest.verdict == "open") return false;
    if (known.windows && !known.windows->contains(now)) return false;
    // What could not be done is tried again after a while, not at once.
    const uint64_t doublings =
        std::min(std::max<uint64_t>(known.undone, 1) - 1, kMaxAgainDoublings);
    if (known.newest.verdict == "none" && now.us - known.newest.ended.us < kAgainUs << doublings)
        return false;
    // What is booted may be an earlier point than the one that was made: each is tried once.
    if (policy.after_consistent && made > known.made &&
        (known.judged.id == 0 || known.judged.point_time < made)) {
        point = to_rfc3339(made);
        why = "a consistent point was made";
        return true;
    }
    if (policy.interval_s == 0) return false;
    if (known.judged.id != 0 &&
        now.us - known.judged.created.us < int64_t{policy.interval_s} * 1'000'000)
        return false;
    point = "latest";
    why = "by its interval";
    return true;
}

// While something is recovered for real, the room is for that.
Status DrillDesk::check_quiet() {
    FS_ASSIGN(const auto runs, open_plan_runs(vault_.database()));
    for (const PlanRunRecord& run : runs)
        if (run.mode != plan_mode_name(PlanMode::kTest))
            return fail(Code::kInProgress,
                        fmt::format("run {} of plan '{}' is {}", run.id, run.plan, run.state));
    for (std::string after;;) {
        FS_ASSIGN(const auto page, list_items(vault_.database(), after, 500));
        if (page.empty()) return {};
        after = page.back().name;
        for (const ItemRecord& item : page)
            if (item.state == ItemState::kFailingOver)
                return fail(Code::kInProgress, fmt::format("'{}' fails over", item.name));
    }
}

void DrillDesk::tick() {
    std::vector<std::pair<ItemId, Known>> all;
    size_t open = 0;
    {
        const std::lock_guard hold(mutex_);
        for (const auto& [item, known] : known_) {
            open += known.newest.id != 0 && known.newest.verdict == "open" ? 1 : 0;
            if (known.policy) all.emplace_back(item, known);
        }
    }
    const int64_t now_us = vault_.clock().steady_us();
    const bool look = looked_us_ == 0 || now_us - looked_us_ >= kPolicyLookUs;
    if (look) looked_us_ = now_us;
    if (now_us < quiet_from_us_) return;
    // Whoever waits for longest is first, so that everybody has his turn.
    std::ranges::stable_sort(all, {}, [](const auto& entry) {
        const Known& known = entry.second;
        return known.judged.created.us + int64_t{known.policy->interval_s} * 1'000'000;
    });
    bool quiet = false;
    for (const auto& [id, known] : all) {
        if (open >= kMaxOpenDrills) return;
        TimePoint made;
        if (known.policy->after_consistent && look)
            if (const auto state = get_consistent_state(vault_.database(), id)) made = state->made;
        std::string point, why;
        if (!is_due(known, made, point, why)) continue;
        const auto item = get_item(vault_.database(), id);
        if (!item && item.error().code() == Code::kItemNotFound) {
            const std::lock_guard hold(mutex_);
            known_.erase(id);
        }
        if (!item || !check_action(item->state, ItemAction::kTestFailover)) continue;
        const auto replica = vault_.replica(id);
        if (!replica || !(*replica)->resolve(PointSpec::parse(point))) continue;  // no point yet
        if (!quiet) {
            if (const Status now = check_quiet(); !now) {
                log::info("vault", "drills wait: {}", now.error().what());
                quiet_from_us_ = now_us + kPolicyLookUs;
                return;
            }
            quiet = true;
        }
        if (const auto begun = launch(*item, point, why, point == "latest" ? TimePoint{} : made))
            ++open;
        else
            log::warn("vault", about(*item, begun.error()), "a drill of '{}' did not begin: {}",
                      item->name, begun.error().to_string());
    }
}

Result<JobRecord> DrillDesk::start(const ItemRecord& item, const std::string& point) {
    if (!policy(item.id))
        return fail(Code::kWrongState,
                    fmt::format("'{}' has no drill policy: nobody knows by what a good machine is "
                                "known",
                                item.name),
                    "`farshore drill set` says that");
    FS_TRY(check_action(item.state, ItemAction::kTestFailover));
    FS_ASSIGN(const auto replica, vault_.replica(item.id));
    FS_TRY(replica->resolve(PointSpec::parse(point)));
    FS_ASSIGN(const auto open, open_drills(vault_.database()));
    if (open.size() >= kMaxOpenDrills)
        return fail(Code::kLimitReached, fmt::format("{} drills are under way", open.size()),
                    "wait for the end of some");
    return launch(item, point, "asked for");
}

Result<JobRecord> DrillDesk::launch(const ItemRecord& item, const std::string& point,
                                    const std::string& why, TimePoint made) {
    uint8_t raw[12];
    random_.fill(raw);
    DrillRecord drill;
    drill.item = item.id;
    drill.item_name = item.name;
    drill.recovery = kDrillRecoveryPrefix + to_hex(raw);
    Json document{{"point", point}, {"asked", why}};
    if (made.us != 0) document["made_us"] = made.us;
    drill.document = dump_json(document);
    FS_ASSIGN(drill, add_drill(vault_.database(), drill));
    learn(drill);
    auto job = vault_.start_job(kJob, item, true, std::to_string(drill.id),
                                [this, id = drill.id](JobRun& run) { return run_job(run, id); });
    if (job) return job;
    drill.verdict = "none";
    drill.ended = vault_.clock().now();
    document["why"] = job.error().what();
    drill.document = dump_json(document);
    FS_TRY(save_drill(vault_.database(), drill));
    learn(drill);
    return job;
}

// ---- in line

Status DrillDesk::wait_in_line(JobRun& run, uint64_t id, const MachineDescription& machine) {
    {
        const std::lock_guard hold(mutex_);
        line_[id] = {machine.cpus, machine.memory_bytes, false};
    }
    while (true) {
        {
            const std::lock_guard hold(mutex_);
            if (machine.cpus > budget_.cpus || machine.memory_bytes > budget_.memory_bytes)
                return fail(Code::kLimitReached,
                            fmt::format("the machine wants {} processors and {} MiB, all drills "
                                        "together may have {} and {} MiB",
                                        machine.cpus, machine.memory_bytes >> 20, budget_.cpus,
                                        budget_.memory_bytes >> 20),
                            "`farshore drill budget` gives them more");
            uint64_t cpus = machine.cpus, memory_bytes = machine.memory_bytes;
            bool first = true;
            for (const auto& [other, place] : line_) {
                if (place.runs) {
                    cpus += place.cpus;
                    memory_bytes += place.memory_bytes;
                } else if (other < id) {
                    first = false;  // nobody is overtaken, so that everybody has his turn
                }
            }
            if (first && cpus <= budget_.cpus && memory_bytes <= budget_.memory_bytes) {
                line_[id].runs = true;
                return {};
            }
        }
        FS_TRY(run.report(0.05, "waits for its turn: other drills have the budget"));
        FS_TRY(run.pause(kLineLookUs));
    }
}

void DrillDesk::leave_line(uint64_t id) {
    const std::lock_guard hold(mutex_);
    line_.erase(id);
}

// ---- what is kept

static Result<Bytes> kept_file(FileSystem& files, const std::string& path, uint64_t drill,
                               size_t limit) {
    auto bytes = read_whole_file(files, path, limit);
    if (!bytes && bytes.error().code() == Code::kNotFound)
        return fail(Code::kNotFound, fmt::format("drill {} has kept no such thing here", drill),
                    "it may have ended before, or on another vault node");
    return bytes;
}

Result<Bytes> DrillDesk::screenshot(uint64_t drill) {
    FS_TRY(get_drill(vault_.database(), drill));
    return kept_file(files_, directory(drill) + "/screen.png", drill, kMaxScreenBytes);
}

Result<Bytes> DrillDesk::serial_log(uint64_t drill) {
    FS_TRY(get_drill(vault_.database(), drill));
    return kept_file(files_, directory(drill) + "/serial.log", drill, kMaxSerialBytes);
}

}  // namespace farshore
