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
#include "os/tcp_probe.h"
#include "os/waiting.h"
#include "recovery/remove_directory.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr const char* kJob = "drill";
constexpr int64_t kLookUs = 250'000;      // at a machine that is starting
constexpr int64_t kLineLookUs = 500'000;  // whether it is one's turn
constexpr int kAgentTimeoutMs = 300, kCheckAgentTimeoutMs = 5000;
constexpr int kPortTimeoutMs = 200;
constexpr uint32_t kMaxAttempts = 3;  // of one drill, by vaults that were killed meanwhile
// After one that could not be done; twice as long after each further one, so many times.
constexpr int64_t kAgainUs = 300'000'000;
constexpr uint64_t kMaxAgainDoublings = 6;
constexpr int64_t kPolicyLookUs = 10'000'000;  // for new consistent points
constexpr size_t kMaxDocumentBytes = 1u << 20;
constexpr const char* kBudgetSetting = "drill_budget";

// A file that something else appends to.
Result<Bytes> read_from(FileSystem& files, const std::string& path, uint64_t from, size_t limit) {
    FS_ASSIGN(const auto file, files.open(path, OpenMode::kRead));
    Bytes bytes(limit);
    FS_ASSIGN(const size_t n, file->read_at(from, bytes));
    bytes.resize(n);
    return bytes;
}

uint64_t drill_of_job(const JobRecord& job) {
    return std::strtoull(job.input.c_str(), nullptr, 10);
}

// The consistent point that a drill was made for; 0: it was for none.
TimePoint made_of(const DrillRecord& drill) {
    const auto json = parse_json(drill.document, "the drill", kMaxDocumentBytes);
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

// Text of a program that may be anything, for a document.
std::string clean(std::string text) {
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') c = '?';
    return text;
}

}  // namespace

struct DrillDesk::Evidence {
    Json checks = Json::array();
    std::string why, remedy;
    std::optional<uint16_t> port;  // of this host, that leads to the policy's
    int64_t first_read_ms = -1, ready_ms = -1;
    bool screen = false, serial = false;
    std::string accelerator;
};

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
        const std::lock_guard hold(mutex_);
        known_[record.item].policy = *policy;
        known_[record.item].policy_set = record.created;
    }
    return {};
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
    const std::lock_guard hold(mutex_);
    known_[item.id].policy = policy;
    known_[item.id].policy_set = kept.created;
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

// ---- one drill

// Also in a job that was cancelled, whose pause() is over at once.
static void wait_again(JobRun& run) {
    if (!run.pause(2'000'000) && !run.vault_ends()) pause_ms(1000);
}

Result<std::string> DrillDesk::run_job(JobRun& run, uint64_t id) {
    FS_ASSIGN(DrillRecord drill, get_drill(vault_.database(), id));
    if (drill.verdict != "open") return fmt::format("{{\"drill\":{}}}", id);
    FS_ASSIGN(Json document, parse_json(drill.document, "the drill", kMaxDocumentBytes));
    const std::string point = document.value("point", std::string("latest"));
    Evidence evidence;
    // The machine first, and all of it whatever cannot be removed.
    const auto clean_up = [&]() -> Status {
        Status all = recovery_.clean_up_test(drill.recovery);
        for (size_t i = 0; i < kMaxDrillChecks; ++i)
            if (Status gone = scripts_.forget(fmt::format("{}-{}", drill.recovery, i));
                !gone && all)
                all = gone;
        return all;
    };
    const auto work = [&]() -> Result<DrillVerdict> {
        // Whatever an earlier vault was at when it was killed.
        FS_TRY(clean_up());
        const uint32_t attempts = document.value("attempts", 0u) + 1;
        document["attempts"] = attempts;
        drill.document = dump_json(document);
        FS_TRY(save_drill(vault_.database(), drill));
        if (attempts > kMaxAttempts)
            return fail(Code::kCancelled,
                        fmt::format("the vault ended {} times in the middle of it", kMaxAttempts));
        const auto wanted = policy(drill.item);
        if (!wanted) return fail(Code::kCancelled, "the item has no drill policy any more");
        FS_ASSIGN(RecoveryRequest request, recovery_.test_request(drill.item, point));
        FS_TRY(wait_in_line(run, id, request.machine));
        // It may have waited for long.
        FS_ASSIGN(request, recovery_.test_request(drill.item, point));
        request.id = drill.recovery;
        request.kind = RecoveryKind::kTest;
        request.network = NetworkChoice::kIsolated;
        request.note = fmt::format("drill {}", id);
        drill.sequence = request.sequence;
        drill.point_time = request.point_time;
        FS_TRY(save_drill(vault_.database(), drill));
        FS_TRY(run.report(0.1,
                          fmt::format("booting the point of {}", to_rfc3339(request.point_time))));
        const auto started = recovery_.recoveries().start(request);
        if (!started) {
            // That this machine cannot be started, or its point not be read, is what a drill is to
            // find; that there is no room, no store or no QEMU just now is not.
            // An object that is missing is of the point as well, and QEMU that ended at once.
            static constexpr std::array kOfThePoint{
                Code::kUnsupported,   Code::kInvalidArgument, Code::kCorrupt,
                Code::kTruncated,     Code::kMalformed,       Code::kNotFound,
                Code::kPointNotFound, Code::kWrongKey,        Code::kGuestFailed};
            if (std::ranges::find(kOfThePoint, started.error().code()) == kOfThePoint.end())
                return tl::unexpected(started.error());
            evidence.why = "it does not start: " + started.error().what();
            evidence.remedy = started.error().remedy();
            return DrillVerdict::kBad;
        }
        evidence.first_read_ms = started->timings.first_read_ms;
        evidence.accelerator = started->accelerator_words;
        DrillVerdict verdict = watch(run, *wanted, drill, evidence);
        if (verdict == DrillVerdict::kGood) verdict = check(run, *wanted, drill, evidence);
        if (run.vault_ends()) return fail(Code::kCancelled, "the vault ends");
        if (verdict == DrillVerdict::kOpen)
            return fail(Code::kCancelled, "somebody cancelled it, or ended its machine");
        keep_evidence(drill, evidence);
        return verdict;
    };
    auto verdict = work();
    leave_line(id);
    // Machines are never left to whoever comes next, when there is time to end them.
    Status cleaned = clean_up();
    if (run.vault_ends() && !verdict) return tl::unexpected(verdict.error());
    while (!cleaned) {
        log::warn("vault", about(cleaned.error()), "drill {}: {}", id, cleaned.error().to_string());
        (void)run.report(0.95, "what it left cannot be removed: " + cleaned.error().what());
        wait_again(run);
        if (run.vault_ends()) return tl::unexpected(cleaned.error());
        cleaned = clean_up();
    }
    if (!verdict) {
        evidence.why = verdict.error().what();
        evidence.remedy = verdict.error().remedy();
    }
    const DrillVerdict judged = verdict.value_or(DrillVerdict::kNone);
    drill.verdict = std::string(drill_verdict_name(judged));
    drill.ended = vault_.clock().now();
    document["why"] = clean(evidence.why);
    document["remedy"] = clean(evidence.remedy);
    document["checks"] = evidence.checks;
    document["screenshot"] = evidence.screen;
    document["serial"] = evidence.serial;
    document["accelerator"] = evidence.accelerator;
    if (evidence.first_read_ms >= 0) document["first_read_ms"] = evidence.first_read_ms;
    if (evidence.ready_ms >= 0) document["ready_ms"] = evidence.ready_ms;
    drill.document = dump_json(document);
    // The disk may be full just now; the verdict is worth waiting for.
    while (true) {
        const Status saved = save_drill(vault_.database(), drill);
        if (saved) break;
        if (saved.error().retry() == Retry::kNever) return tl::unexpected(saved.error());
        wait_again(run);
        if (run.vault_ends()) return tl::unexpected(saved.error());
    }
    learn(drill);
    if (const auto old = forget_old_drills(vault_.database(), drill.item))
        for (const uint64_t gone : *old) (void)remove_directory(files_, directory(gone));
    const auto item = get_item(vault_.database(), drill.item);
    const ItemRecord* whose = item ? &*item : nullptr;
    if (judged == DrillVerdict::kGood)
        vault_.event(Severity::kInformation, "drill-good", whose,
                     fmt::format("drill {} has shown a good machine at {}", id,
                                 to_rfc3339(drill.point_time)));
    else if (judged == DrillVerdict::kBad)
        vault_.event(Severity::kCritical, "drill-bad", whose,
                     fmt::format("drill {} has shown that the point of {} is not good: {}", id,
                                 to_rfc3339(drill.point_time), clean(evidence.why)),
                     fmt::format("`farshore drill show {}` has its screen and serial line", id));
    else if (is_news(drill.item, evidence.why))
        vault_.event(Severity::kWarning, "drill-not-done", whose,
                     fmt::format("drill {} could not be done: {}", id, clean(evidence.why)),
                     evidence.remedy);
    if (!verdict) return tl::unexpected(verdict.error());
    return dump_json({{"drill", id}, {"verdict", drill.verdict}});
}

// Each cause is told once until a drill is judged again; numbers in it make no other one.
bool DrillDesk::is_news(const ItemId& item, const std::string& why) {
    std::string cause;
    for (const char c : why)
        if (c < '0' || c > '9') cause += c;
    const std::lock_guard hold(mutex_);
    Known& known = known_[item];
    if (known.said == cause) return false;
    known.said = cause;
    return true;
}

DrillVerdict DrillDesk::watch(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                              Evidence& evidence) {
    DrillWatch watch(policy);
    TextFinder finder(policy.serial);
    const auto access = recovery_.recoveries().access(drill.recovery);
    if (!access) return DrillVerdict::kOpen;
    uint64_t heard = 0;
    const int64_t from_us = vault_.clock().steady_us();
    while (true) {
        const auto state = recovery_.recoveries().get(drill.recovery);
        if (!state) return DrillVerdict::kOpen;  // somebody has cleaned it up
        DrillSample sample;
        sample.age_us = vault_.clock().steady_us() - from_us;
        if (state->stage == RecoveryStage::kStopped) sample.machine = MachineState::kStopped;
        if (state->stage == RecoveryStage::kFailed) sample.machine = MachineState::kFailed;
        if (sample.machine == MachineState::kRunning)
            (void)recovery_.recoveries().with_machine(
                drill.recovery, [&](QemuMachine& machine) -> Status {
                    FS_ASSIGN(sample.machine, machine.state());
                    if (!watch.wants_port()) return {};
                    auto port = machine.forward_port(policy.port);
                    if (port) evidence.port = *port;
                    return {};
                });
        if (watch.wants_serial()) {
            // It was started again, and says everything anew.
            if (file_size_or_zero(access->serial_log) < heard) {
                heard = 0;
                finder = TextFinder(policy.serial);
            }
            // Only what is new; a line that says much is read in pieces.
            while (const auto bytes = read_from(files_, access->serial_log, heard, 65536)) {
                if (bytes->empty()) break;
                heard += bytes->size();
                sample.serial = finder.feed(as_text(*bytes)) || sample.serial;
            }
        }
        if (watch.wants_agent() && sample.machine == MachineState::kRunning)
            sample.agent = GuestAgent::connect(access->agent_socket, kAgentTimeoutMs).has_value();
        if (watch.wants_port() && evidence.port) {
            // QEMU takes the connection itself; whether the guest did, its monitor says.
            const TcpProbe probe(*evidence.port, kPortTimeoutMs);
            if (probe.connected() && probe.stays_open(kPortTimeoutMs))
                (void)recovery_.recoveries().with_machine(
                    drill.recovery, [&](QemuMachine& machine) -> Status {
                        FS_ASSIGN(const size_t taken, machine.taken_connections(policy.port));
                        sample.port = taken > 0;
                        return {};
                    });
        }
        const DrillVerdict verdict = watch.feed(sample);
        evidence.why = watch.why();
        if (verdict == DrillVerdict::kGood) evidence.ready_ms = sample.age_us / 1000;
        if (verdict != DrillVerdict::kOpen) return verdict;
        (void)run.report(
            0.2 + 0.5 * std::min(1.0, static_cast<double>(sample.age_us) / (policy.limit_s * 1e6)),
            "waits until the machine is up");
        if (!run.pause(kLookUs)) return DrillVerdict::kOpen;
    }
}

DrillVerdict DrillDesk::check(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                              Evidence& evidence) {
    for (size_t i = 0; i < policy.checks.size(); ++i) {
        (void)run.report(
            0.7 + 0.2 * static_cast<double>(i) / static_cast<double>(policy.checks.size()),
            fmt::format("check {}: {}", i + 1, policy.checks[i].program));
        const auto good = run_check(run, policy.checks[i], i, drill, evidence);
        if (!good) return DrillVerdict::kOpen;
        if (!*good) return DrillVerdict::kBad;
    }
    return DrillVerdict::kGood;
}

Result<bool> DrillDesk::run_check(JobRun& run, const DrillCheck& check, size_t number,
                                  const DrillRecord& drill, Evidence& evidence) {
    FS_ASSIGN(const RecoveryAccess access, recovery_.recoveries().access(drill.recovery));
    const int64_t from_us = vault_.clock().steady_us();
    const auto over = [&] {
        return vault_.clock().steady_us() - from_us > int64_t{check.limit_s} * 1'000'000;
    };
    const auto ended = [&](const std::string& bad, const std::string& output) {
        evidence.checks.push_back({{"program", check.program},
                                   {"kind", check.inside ? "guest-script" : "script"},
                                   {"good", bad.empty()},
                                   {"duration_ms", (vault_.clock().steady_us() - from_us) / 1000},
                                   {"output", clean(output)}});
        if (!bad.empty())
            evidence.why = fmt::format("check {} ({}): {}", number + 1, check.program, bad);
        return bad.empty();
    };
    if (check.inside) {
        auto agent = GuestAgent::connect(access.agent_socket, kCheckAgentTimeoutMs);
        if (!agent) return ended(agent.error().what(), "");
        const auto pid =
            agent->start_program(check.program, check.arguments, {}, kCheckAgentTimeoutMs);
        if (!pid) return ended(pid.error().what(), "");
        while (true) {
            const auto exit = agent->program_exit(*pid, kMaxDrillOutputBytes, kCheckAgentTimeoutMs);
            if (!exit) return ended(exit.error().what(), "");
            if (*exit)
                return ended((*exit)->code == 0
                                 ? ""
                                 : fmt::format("it exited with {}", (*exit)->code.value_or(-1)),
                             (*exit)->output);
            if (over())
                return ended(fmt::format("it has not ended within {} s", check.limit_s), "");
            FS_TRY(run.pause(kLookUs));
        }
    }
    const std::string handle = fmt::format("{}-{}", drill.recovery, number);
    ScriptRequest request;
    request.program = scripts_directory_ + "/" + check.program;
    request.arguments = check.arguments;
    request.environment = {{"FARSHORE_ITEM", drill.item_name},
                           {"FARSHORE_DRILL", std::to_string(drill.id)},
                           {"FARSHORE_POINT_TIME", to_rfc3339(drill.point_time)},
                           {"FARSHORE_SEQUENCE", std::to_string(drill.sequence.v)},
                           {"FARSHORE_SERIAL_LOG", access.serial_log},
                           {"FARSHORE_NBD_SOCKET", access.nbd_socket},
                           {"FARSHORE_AGENT_SOCKET", access.agent_socket},
                           {"FARSHORE_PORT", evidence.port ? std::to_string(*evidence.port) : ""}};
    if (const auto begun = scripts_.begin(handle, request); !begun)
        return ended(begun.error().what(), "");
    while (true) {
        const auto result = scripts_.look(handle);
        // Our own files may be out of reach just now; the script runs on.
        if (!result && (result.error().retry() == Retry::kNever || over()))
            return ended(over() ? fmt::format("it has not ended within {} s", check.limit_s)
                                : result.error().what(),
                         "");
        if (result && *result) {
            const ScriptResult& done = **result;
            return ended(!done.code ? fmt::format("it has not ended within {} s", check.limit_s)
                         : *done.code == 0 ? ""
                                           : fmt::format("it exited with {}", *done.code),
                         done.output);
        }
        // When that fails it is ended again.
        if (over()) (void)scripts_.end(handle);
        FS_TRY(run.pause(kLookUs));
    }
}

void DrillDesk::keep_evidence(const DrillRecord& drill, Evidence& evidence) {
    const auto kept = [&]() -> Status {
        FS_ASSIGN(const RecoveryAccess access, recovery_.recoveries().access(drill.recovery));
        FS_TRY(files_.make_directories(directory(drill.id)));
        const std::string screen =
            access.serial_log.substr(0, access.serial_log.rfind('/')) + "/screen.png";
        const Status shot = recovery_.recoveries().with_machine(
            drill.recovery, [&](QemuMachine& machine) { return machine.screenshot(screen); });
        if (shot) {
            FS_ASSIGN(const Bytes png, read_whole_file(files_, screen, kMaxScreenBytes));
            FS_TRY(write_file_durably(files_, directory(drill.id) + "/screen.png", png));
            evidence.screen = true;
        }
        const uint64_t size = file_size_or_zero(access.serial_log);
        FS_ASSIGN(const Bytes said,
                  read_from(files_, access.serial_log,
                            size - std::min<uint64_t>(size, kMaxSerialBytes), kMaxSerialBytes));
        FS_TRY(write_file_durably(files_, directory(drill.id) + "/serial.log", said));
        evidence.serial = true;
        return {};
    }();
    // The verdict counts without it.
    if (!kept)
        log::warn("vault", about(kept.error()), "what drill {} has seen is not kept: {}", drill.id,
                  kept.error().to_string());
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
