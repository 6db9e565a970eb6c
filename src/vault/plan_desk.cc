#include "vault/plan_desk.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "compute/nbd_server.h"
#include "meta/appliance_scripts.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "os/host_capacity.h"
#include "os/load_meter.h"
#include "os/log.h"
#include "os/program_files.h"
#include "recovery/plan_driver.h"
#include "vault/api.h"
#include "vault/log_about.h"
#include "vault/plan_steps.h"
#include "vault/recovery_desk.h"
#include "vault/webhook.h"

namespace farshore {
namespace {

constexpr const char* kRunJob = "recovery-plan";
constexpr const char* kCleanUpJob = "plan-cleanup";
// How often a run looks at what its steps do.
constexpr int64_t kRoundUs = 50'000;
// After an error of the database.
constexpr int64_t kAgainUs = 1'000'000;

bool works(PlanRunState state) {
    return state == PlanRunState::kRunning || state == PlanRunState::kStopping;
}

void put(PlanRunRecord& record, const PlanRun& run) {
    record.state = std::string(plan_run_state_name(run.state));
    record.over = run.over();
    record.document = encode_plan_run(run);
}

std::string result_of(const PlanRun& run) {
    return dump_json({{"run", run.id},
                      {"plan", run.plan},
                      {"state", std::string(plan_run_state_name(run.state))}});
}

uint64_t run_of_job(const JobRecord& job) { return std::strtoull(job.input.c_str(), nullptr, 10); }

// Whether an answer from outside is for the step: now, or when the run goes on.
bool waits(const PlanStep& step) {
    return step.state == StepState::kRunning ||
           (step.state == StepState::kWaiting && step.withdrawn);
}

// Of the step that it does, and how many there are.
std::string progress_words(const PlanRun& run) {
    std::string words;
    for (const PlanStep& step : run.steps)
        if (step.state == StepState::kRunning)
            words += fmt::format("{}{} ({})", words.empty() ? "" : ", ", step.id, step.action.name);
    if (words.size() > 500) words = words.substr(0, 500) + " ...";
    return words;
}

double progress(const PlanRun& run) {
    size_t over = 0;
    for (const PlanStep& step : run.steps) over += step.over() ? 1 : 0;
    return static_cast<double>(over) / static_cast<double>(std::max<size_t>(run.steps.size(), 1));
}

}  // namespace

PlanDesk::PlanDesk(Vault& vault, RecoveryDesk* recovery, FileSystem& files, Random& random,
                   std::string node)
    : vault_(vault),
      recovery_(recovery),
      files_(files),
      random_(random),
      node_(std::move(node)),
      scripts_directory_(vault.directory() + "/scripts"),
      scripts_(files, vault.directory() + "/script-runs", kMaxStepOutputBytes) {
    vault_.set_resumer(kRunJob, [this](const JobRecord& job) { return work(run_of_job(job)); });
    vault_.set_resumer(kCleanUpJob, [this](const JobRecord& job) -> JobWork {
        return [this, id = run_of_job(job)](JobRun& run) { return run_clean_up(run, id); };
    });
    // Before anybody can call.
    if (auto known = learn_callbacks(); !known)
        log::warn("vault", about(known.error()), "runs of recovery plans: {}",
                  known.error().to_string());
}

PlanDesk::~PlanDesk() { vault_.end_jobs(); }

void PlanDesk::set_address(const std::string& url) {
    const std::lock_guard hold(mutex_);
    callback_url_ = url + "/v1/plan-callbacks/";
}

// Of steps that an earlier vault has begun.
Status PlanDesk::learn_callbacks() {
    FS_ASSIGN(const auto runs, open_plan_runs(vault_.database()));
    const std::lock_guard hold(mutex_);
    for (const PlanRunRecord& record : runs) {
        const auto run = decode_plan_run(record.document);
        if (!run) continue;  // nothing of it goes on
        for (const PlanStep& step : run->steps)
            if (step.action.kind == StepKind::kWebhook && waits(step))
                callbacks_[step.handle] = record.id;
    }
    callbacks_known_ = true;
    return {};
}

Status PlanDesk::resume() {
    released_ = true;
    const bool known = [&] {
        const std::lock_guard hold(mutex_);
        return callbacks_known_;
    }();
    if (!known) FS_TRY(learn_callbacks());
    FS_ASSIGN(const auto runs, open_plan_runs(vault_.database()));
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    Status all = forget_old_scripts();
    for (const PlanRunRecord& record : runs) {
        const auto state = plan_run_state_from_name(record.state);
        if (!state || !works(*state)) continue;
        const bool has_job = std::ranges::any_of(jobs, [&](const JobRecord& job) {
            return job.kind == kRunJob && run_of_job(job) == record.id;
        });
        if (has_job) continue;
        if (const auto launched = launch(record); !launched && all)
            all = tl::unexpected(launched.error());
    }
    return all;
}

// What appliances are told to have run for steps that are over: a vault that was killed between the
// end of a step and that, or a database that was away, leaves it.
Status PlanDesk::forget_old_scripts() {
    Database& database = vault_.database();
    // First the scripts: a step is saved as running before it has one.
    FS_ASSIGN(const auto handles, appliance_script_handles(database));
    if (handles.empty()) return {};
    std::set<std::string> wanted;
    FS_ASSIGN(const auto runs, open_plan_runs(database));
    for (const PlanRunRecord& record : runs) {
        FS_ASSIGN(const PlanRun run, decode_plan_run(record.document));
        for (const PlanStep& step : run.steps)
            if (step.state == StepState::kRunning) wanted.insert(step.handle);
    }
    for (const std::string& handle : handles)
        if (!wanted.contains(handle)) FS_TRY(drop_appliance_script(database, handle));
    return {};
}

// ---- plans

Result<PlanRecord> PlanDesk::add(const RecoveryPlan& plan) {
    PlanRecord record;
    record.name = plan.name;
    record.document = dump_json(plan_json(plan));
    if (record.document.size() > kMaxPlanBytes)
        return fail(Code::kTooLarge, fmt::format("a plan has at most {} bytes", kMaxPlanBytes));
    return add_plan(vault_.database(), record);
}

Result<PlanRecord> PlanDesk::change(const std::string& name, const RecoveryPlan& plan) {
    if (plan.name != name)
        return fail(Code::kInvalidArgument,
                    fmt::format("plan.name is '{}', not '{}'", plan.name, name.substr(0, 64)),
                    "a plan keeps its name; make another one");
    const std::string document = dump_json(plan_json(plan));
    if (document.size() > kMaxPlanBytes)
        return fail(Code::kTooLarge, fmt::format("a plan has at most {} bytes", kMaxPlanBytes));
    return change_plan(vault_.database(), name, document);
}

// ---- runs

static Result<RecoveryPlan> plan_of(const PlanRecord& record) {
    FS_ASSIGN(const Json json, parse_json(record.document, "the plan", kMaxPlanBytes));
    return plan_from_json(json);
}

Result<std::vector<PlanFinding>> PlanDesk::check(const std::string& name, PlanMode mode,
                                                 const std::string& point) {
    FS_ASSIGN(const PlanRecord record, get_plan(vault_.database(), name));
    FS_ASSIGN(const RecoveryPlan plan, plan_of(record));
    PlanRun run = make_plan_run(plan, mode);
    run.point = point;
    std::vector<PlanFinding> findings;
    Needs needs;
    for (const PlanStep& step : run.steps) {
        const Status good = check_step(run, step, needs);
        if (good) continue;
        PlanFinding finding;
        finding.severity = step.action.limits.on_failure == OnFailure::kSkip ? Severity::kWarning
                                                                             : Severity::kCritical;
        finding.step = step.id;
        finding.what = fmt::format("{}: {}", step.action.name, good.error().what());
        finding.remedy = good.error().remedy();
        findings.push_back(std::move(finding));
    }
    if (mode == PlanMode::kFailback) return findings;  // the machines run at home
    if (auto plugin = find_plugin(); !plugin)
        findings.push_back(
            {Severity::kCritical, {}, plugin.error().what(), plugin.error().remedy()});
    for (const auto& [compute, need] : needs) check_room(run, compute, need, findings);
    check_disk(needs, findings);
    if (needs.size() > 1 && (run.mode == PlanMode::kTest || run.network))
        findings.push_back({Severity::kWarning,
                            {},
                            fmt::format("the machines run on {} hosts: on a closed segment they "
                                        "reach only those on their own",
                                        needs.size()),
                            "let them run on one host, or give their cards a network of the "
                            "hosts'"});
    return findings;
}

// What the machines write is kept here, wherever they run.
void PlanDesk::check_disk(const Needs& needs, std::vector<PlanFinding>& findings) {
    constexpr uint64_t kLeastBytes = 256u << 20;  // a guest writes so much while it boots
    constexpr uint64_t kUsualPart = 10;           // of its disks a machine changes a tenth, roughly
    uint64_t machines = 0, bytes = 0;
    for (const auto& [compute, need] : needs) {
        machines += need.machines;
        bytes += need.disk_bytes;
    }
    const auto disk = disk_space(vault_.directory());
    if (machines == 0 || !disk) return;
    const bool too_little = disk->free_bytes < machines * kLeastBytes;
    if (!too_little && disk->free_bytes >= bytes / kUsualPart) return;
    findings.push_back(
        {too_little ? Severity::kCritical : Severity::kWarning,
         {},
         fmt::format("{} MiB are free in the vault's directory for what {} machines write to their "
                     "{} MiB of disks",
                     disk->free_bytes >> 20, machines, bytes >> 20),
         "make room there: a machine whose changes cannot be kept stops"});
}

void PlanDesk::check_room(const PlanRun& run, const std::string& compute, const Need& need,
                          std::vector<PlanFinding>& findings) {
    const auto mib = [](uint64_t bytes) { return bytes >> 20; };
    const std::string where =
        compute.empty() ? std::string("here") : fmt::format("on compute host '{}'", compute);
    const auto look = [&]() -> Status {
        FS_ASSIGN(const auto there, recovery_->recoveries().compute_named(compute));
        // What the plan says of all of them.
        if (run.network) FS_TRY(there->check(describe_plain_machine({}, {}), {*run.network}));
        FS_ASSIGN(const HostCapacity host, there->room());
        if (host.memory_bytes != 0 && need.memory_bytes > host.available_bytes)
            findings.push_back(
                {need.memory_bytes > host.memory_bytes ? Severity::kCritical : Severity::kWarning,
                 {},
                 fmt::format("the machines want {} MiB of memory, {} MiB are free {} of {} MiB",
                             mib(need.memory_bytes), mib(host.available_bytes), where,
                             mib(host.memory_bytes)),
                 "make room, or run part of the plan elsewhere"});
        if (need.largest_cpus > host.cpus)
            findings.push_back({Severity::kWarning,
                                {},
                                fmt::format("'{}' has {} processors, there are {} {}", need.largest,
                                            need.largest_cpus, host.cpus, where),
                                "it runs, but slower"});
        return {};
    };
    if (const Status looked = look(); !looked)
        findings.push_back(
            {Severity::kCritical, {}, looked.error().what(), looked.error().remedy()});
}

Status PlanDesk::check_step(const PlanRun& run, const PlanStep& step, Needs& needs) {
    switch (step.action.kind) {
        case StepKind::kItem: {
            FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), step.action.name));
            if (recovery_ == nullptr)
                return fail(Code::kUnsupported, "this vault has no recovery of its own");
            if (run.mode == PlanMode::kFailback)
                return check_action(item.state, ItemAction::kFailback);
            FS_TRY(check_action(item.state, run.mode == PlanMode::kTest ? ItemAction::kTestFailover
                                                                        : ItemAction::kFailover));
            FS_ASSIGN(RecoveryRequest request, recovery_->test_request(item.id, run.point));
            request.kind =
                run.mode == PlanMode::kTest ? RecoveryKind::kTest : RecoveryKind::kFailover;
            // What the plan says of all of them is said once, not of each.
            if (!run.network) {
                FS_TRY(recovery_->plug_in(request, {}, usual_network_of(run)));
                FS_TRY(recovery_->check_place(request));
            }
            Need& need = needs[request.compute];
            need.memory_bytes += request.machine.memory_bytes;
            ++need.machines;
            for (const DesiredDisk& disk : item.disks)
                if (!disk.removed) need.disk_bytes += disk.size_bytes;
            if (request.machine.cpus > need.largest_cpus) {
                need.largest_cpus = request.machine.cpus;
                need.largest = item.name;
            }
            return {};
        }
        case StepKind::kScript:
            return check_program_file(scripts_directory_ + "/" + step.action.program);
        case StepKind::kApplianceScript:
            return vault_.check_appliance_script(step.action.appliance, step.action.program);
        case StepKind::kWebhook:
            FS_TRY(read_webhook_settings(files_, step.action.settings_file));
            return {};
        case StepKind::kGuestScript:
        case StepKind::kManual:
            break;
    }
    return {};
}

Result<PlanRun> PlanDesk::start(const std::string& name, const StartPlan& how) {
    FS_ASSIGN(const PlanRecord plan_record, get_plan(vault_.database(), name));
    FS_ASSIGN(const RecoveryPlan plan, plan_of(plan_record));
    if (!how.unchecked) {
        FS_ASSIGN(const auto findings, check(name, how.mode, how.point));
        for (const PlanFinding& finding : findings)
            if (finding.severity == Severity::kCritical)
                return fail(Code::kWrongState,
                            finding.step.empty()
                                ? fmt::format("it would fail: {}", finding.what)
                                : fmt::format("step {} would fail: {}", finding.step, finding.what),
                            finding.remedy + (finding.remedy.empty() ? "" : "; ") +
                                "`farshore recovery-plan check` shows all that would; --unchecked "
                                "begins all the same");
    }
    PlanRun run = make_plan_run(plan, how.mode);
    run.plan_version = plan_record.version;
    run.point = how.point;
    run.note = how.note;
    run.by = how.by;
    PlanRunRecord record;
    record.plan = plan.name;
    record.mode = std::string(plan_mode_name(how.mode));
    FS_ASSIGN(record, add_plan_run(vault_.database(), std::move(record),
                                   how.mode != PlanMode::kTest, [&](PlanRunRecord& added) {
                                       run.id = added.id;
                                       run.created = added.created;
                                       put(added, run);
                                   }));
    vault_.event(Severity::kInformation, "plan-started", nullptr,
                 fmt::format("run {} of plan '{}' ({}) begins", run.id, run.plan, record.mode));
    return launch(record);
}

Result<PlanRun> PlanDesk::launch(const PlanRunRecord& record) {
    FS_ASSIGN(PlanRun run, decode_plan_run(record.document));
    auto job =
        vault_.start_job(kRunJob, std::nullopt, false, std::to_string(record.id), work(record.id));
    if (!job) {
        // Whoever asked may ask again: one of which nothing runs is stopped, any other one waits
        // for a job as it is.
        FS_TRY(change_plan_run(vault_.database(), record.id, [&](PlanRunRecord& now) -> Status {
            FS_ASSIGN(PlanRun kept, decode_plan_run(now.document));
            if (!works(kept.state) || std::ranges::find(kept.steps, StepState::kRunning,
                                                        &PlanStep::state) != kept.steps.end())
                return {};
            kept.state = PlanRunState::kStopped;
            kept.why = job.error().what();
            put(now, kept);
            return {};
        }));
        return tl::unexpected(job.error());
    }
    run.job = job->id;
    return run;
}

Result<PlanRun> PlanDesk::run(uint64_t id) {
    FS_ASSIGN(const PlanRunRecord record, get_plan_run(vault_.database(), id));
    return decode_plan_run(record.document);
}

JobWork PlanDesk::work(uint64_t id) {
    return [this, id](JobRun& run) { return run_job(run, id); };
}

Result<std::string> PlanDesk::run_job(JobRun& job, uint64_t id) {
    // Two would begin every step twice: one that was stopped a moment ago leaves first.
    const auto is_ours = [&] {
        const std::lock_guard hold(mutex_);
        return working_.insert(id).second;
    };
    while (!is_ours()) {
        FS_TRY(job.report(0, "waits for the job that works on the run"));
        FS_TRY(job.pause(kRoundUs));
    }
    auto done = work_off(job, id);
    if (auto forgotten = forget_old_scripts(); !forgotten)
        log::warn("vault", "scripts of appliances: {}", forgotten.error().to_string());
    const std::lock_guard hold(mutex_);
    working_.erase(id);
    return done;
}

Result<std::string> PlanDesk::work_off(JobRun& job, uint64_t id) {
    // An item may be in a state that is put back first.
    while (!released_) FS_TRY(job.pause(kRoundUs));
    FS_ASSIGN(const PlanRunRecord record, get_plan_run(vault_.database(), id));
    FS_ASSIGN(PlanRun begun, decode_plan_run(record.document));
    if (!works(begun.state)) return result_of(begun);  // a job before this one came to its end
    begun.job = job.job().id;
    PlanSteps::Options steps_options;
    steps_options.vault = &vault_;
    steps_options.recovery = recovery_;
    steps_options.files = &files_;
    steps_options.scripts = &scripts_;
    steps_options.scripts_directory = scripts_directory_;
    steps_options.callback_url = [this] {
        const std::lock_guard hold(mutex_);
        return callback_url_;
    };
    steps_options.expect = [this, id](const std::string& handle, bool expected) {
        const std::lock_guard hold(mutex_);
        if (expected)
            callbacks_[handle] = id;
        else
            callbacks_.erase(handle);
    };
    steps_options.answered = &answered_;
    steps_options.node = node_;
    for (const PlanStep& step : begun.steps)
        if (step.state == StepState::kRunning) steps_options.taken_up.insert(step.handle);
    PlanSteps steps(steps_options);
    PlanDriver::Options options;
    options.runner = &steps;
    options.node = node_;
    options.draw_handle = [this] {
        uint8_t raw[12];
        random_.fill(raw);
        return to_hex(raw);
    };
    options.save = [this, id](const PlanRun& now) -> Status {
        const auto saved =
            change_plan_run(vault_.database(), id, [&](PlanRunRecord& kept) -> Status {
                put(kept, now);
                // What nobody could read again is not kept in the place of what can be.
                FS_TRY(decode_plan_run(kept.document));
                if (now.state != PlanRunState::kRunning) kept.wish.clear();
                return {};
            });
        return saved ? Status() : tl::unexpected(saved.error());
    };
    PlanDriver driver(std::move(begun), options);
    std::optional<uint64_t> wished;
    while (works(driver.run().state)) {
        int64_t pause_us = kRoundUs;
        const auto round = [&]() -> Status {
            if (const uint64_t now = wished_.load(); now != wished) {
                FS_ASSIGN(const PlanRunRecord kept, get_plan_run(vault_.database(), id));
                if (!kept.wish.empty())
                    FS_TRY(driver.apply([&](PlanMachine& machine) -> Status {
                        (void)machine.stop(kept.wish);  // it may have ended just now
                        return {};
                    }));
                wished = now;
            }
            FS_ASSIGN(const bool changed, driver.round(vault_.clock().now()));
            if (changed) (void)job.report(progress(driver.run()), progress_words(driver.run()));
            return {};
        };
        if (const Status done = round(); !done) {
            // What is fenced, or cannot be read, is another's. Everything else passes.
            if (done.error().retry() == Retry::kNever) return tl::unexpected(done.error());
            log::warn("vault", about(done.error()), "run {} of plan '{}': {}", id,
                      driver.run().plan, done.error().to_string());
            pause_us = kAgainUs;
        }
        if (works(driver.run().state)) FS_TRY(job.pause(pause_us));
    }
    const PlanRun& run = driver.run();
    const std::string state(plan_run_state_name(run.state));
    if (run.state == PlanRunState::kStopped) {
        vault_.event(Severity::kWarning, "plan-stopped", nullptr,
                     fmt::format("run {} of plan '{}' has stopped: {}", run.id, run.plan, run.why),
                     "`farshore recovery-plan run resume` goes on from there");
        return fail(Code::kWrongState, run.why,
                    fmt::format("look at `farshore recovery-plan run show {0}`; `farshore "
                                "recovery-plan run resume {0}` goes on from there",
                                run.id));
    }
    vault_.event(
        run.state == PlanRunState::kSucceeded ? Severity::kInformation : Severity::kWarning,
        "plan-ended", nullptr, fmt::format("run {} of plan '{}' is {}", run.id, run.plan, state));
    return result_of(run);
}

// ---- wishes

// In one transaction, by what it is then; put() keeps what `change` has done to the run.
static Result<PlanRunRecord> change_kept(
    Database& database, uint64_t id,
    const std::function<Status(PlanMachine&, PlanRunRecord&)>& change) {
    return change_plan_run(database, id, [&](PlanRunRecord& record) -> Status {
        FS_ASSIGN(PlanRun run, decode_plan_run(record.document));
        PlanMachine machine(std::move(run));
        return change(machine, record);
    });
}

Result<PlanRun> PlanDesk::stop(uint64_t id, const std::string& by) {
    FS_ASSIGN(
        const PlanRunRecord record,
        change_kept(vault_.database(), id, [&](PlanMachine& machine, PlanRunRecord& now) -> Status {
            FS_TRY(machine.stop(by));  // whether it can; its job does it
            if (now.state == plan_run_state_name(PlanRunState::kRunning)) now.wish = by;
            return {};
        }));
    ++wished_;
    return decode_plan_run(record.document);
}

Result<PlanRun> PlanDesk::go_on(uint64_t id, const std::vector<std::string>& skip,
                                const std::string& by) {
    FS_ASSIGN(const PlanRun before, this->run(id));
    if (works(before.state) && skip.empty()) {
        // Its job failed (the database could not be written) and left it as it was, or it never
        // had one. A job that was added and has not begun may have no thread.
        FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
        const bool has_job = std::ranges::any_of(jobs, [&](const JobRecord& job) {
            return job.kind == kRunJob && run_of_job(job) == id && job.state == JobState::kRunning;
        });
        const std::lock_guard hold(mutex_);
        if (!has_job && !working_.contains(id)) {
            FS_ASSIGN(const PlanRunRecord kept, get_plan_run(vault_.database(), id));
            return launch(kept);
        }
    }
    FS_ASSIGN(
        const PlanRunRecord record,
        change_kept(vault_.database(), id, [&](PlanMachine& machine, PlanRunRecord& now) -> Status {
            FS_TRY(machine.resume(skip, by, vault_.clock().now()));
            put(now, machine.run());
            now.wish.clear();
            return {};
        }));
    FS_ASSIGN(PlanRun run, decode_plan_run(record.document));
    if (!works(run.state)) return run;
    return launch(record);
}

Result<PlanRun> PlanDesk::cancel(uint64_t id, const std::string& by) {
    FS_ASSIGN(
        const PlanRunRecord record,
        change_kept(vault_.database(), id, [&](PlanMachine& machine, PlanRunRecord& now) -> Status {
            FS_TRY(machine.cancel(by, vault_.clock().now()));
            put(now, machine.run());
            return {};
        }));
    const std::lock_guard hold(mutex_);
    std::erase_if(callbacks_, [&](const auto& entry) { return entry.second == id; });
    return decode_plan_run(record.document);
}

Result<PlanRun> PlanDesk::answer(uint64_t id, const std::string& step_id, bool good,
                                 const std::string& note, const std::string& by) {
    FS_ASSIGN(const PlanRun now, run(id));
    const PlanStep* step = find_step(now, step_id);
    if (step == nullptr)
        return fail(Code::kNotFound,
                    fmt::format("run {} has no step '{}'", id, step_id.substr(0, 64)),
                    "`farshore recovery-plan run show` lists them");
    if (step->action.kind != StepKind::kManual)
        return fail(Code::kWrongState, fmt::format("step {} is a {}: it waits for nobody's answer",
                                                   step->id, step_kind_name(step->action.kind)));
    if (step->state != StepState::kRunning)
        return fail(Code::kWrongState, fmt::format("step {} is {}: it does not wait for an answer",
                                                   step->id, step_state_name(step->state)));
    FS_TRY(add_step_answer(vault_.database(), {step->handle, id, good, note, by, {}}));
    ++answered_;
    return now;
}

Status PlanDesk::callback(const std::string& handle, const std::string& token, bool good,
                          const std::string& note) {
    const auto none = [] {
        return fail(Code::kNotFound, "no step waits for that answer, or the token is not its own");
    };
    // Anybody may ask: without a handle that was given out nothing is looked for.
    uint64_t id = 0;
    {
        const std::lock_guard hold(mutex_);
        const auto at = callbacks_.find(handle);
        if (at == callbacks_.end() && !callbacks_known_)
            return fail(Code::kUnavailable, "the runs of recovery plans are not read yet",
                        "call again in a few seconds");
        if (at == callbacks_.end()) return none();
        id = at->second;
    }
    FS_ASSIGN(const PlanRun run, this->run(id));
    const auto step = std::ranges::find(run.steps, handle, &PlanStep::handle);
    if (step == run.steps.end() || !waits(*step)) return none();
    FS_ASSIGN(const WebhookSettings settings,
              read_webhook_settings(files_, step->action.settings_file));
    if (!same_secret(as_bytes(callback_token(settings.secret, handle)), as_bytes(token)))
        return none();
    FS_TRY(add_step_answer(vault_.database(), {handle, id, good, note, "the webhook", {}}));
    ++answered_;
    return {};
}

// ---- the end of a test

static Error not_here(const PlanStep& step) {
    return Error(Code::kWrongState,
                 fmt::format("the machine of '{}' was started by the vault node '{}', and is there",
                             step.action.name, step.node),
                 "clean up when that node leads");
}

// A node that was given another name has its machines all the same.
bool PlanDesk::is_elsewhere(const PlanStep& step) const {
    return step.node != node_ &&
           !(recovery_ != nullptr && recovery_->recoveries().get(recovery_of_step(step.handle)));
}

Result<JobRecord> PlanDesk::clean_up(uint64_t id) {
    FS_ASSIGN(const PlanRun now, run(id));
    if (now.mode != PlanMode::kTest)
        return fail(Code::kWrongState, fmt::format("run {} is a {}: only a test is cleaned up", id,
                                                   plan_mode_name(now.mode)));
    if (works(now.state))
        return fail(Code::kWrongState,
                    fmt::format("run {} is {}", id, plan_run_state_name(now.state)),
                    "wait for its end, or stop it");
    const auto machines = [](const PlanStep& step) {
        return step.action.kind == StepKind::kItem && !step.handle.empty();
    };
    const auto one = std::ranges::find_if(now.steps, machines);
    if (one != now.steps.end() && std::ranges::all_of(now.steps, [&](const PlanStep& step) {
            return !machines(step) || is_elsewhere(step);
        }))
        return fail(not_here(*one));
    // Without its machines it cannot go on.
    if (!now.over()) FS_TRY(cancel(id, "its clean-up"));
    return vault_.start_job(kCleanUpJob, std::nullopt, false, std::to_string(id),
                            [this, id](JobRun& job) { return run_clean_up(job, id); });
}

Result<std::string> PlanDesk::run_clean_up(JobRun& job, uint64_t id) {
    FS_ASSIGN(const PlanRun now, run(id));
    size_t done = 0;
    Status all;
    for (const PlanStep& step : now.steps) {
        if (step.action.kind != StepKind::kItem || step.handle.empty() || recovery_ == nullptr)
            continue;
        FS_TRY(job.report(static_cast<double>(done) / static_cast<double>(now.steps.size()),
                          fmt::format("ending the test of '{}'", step.action.name)));
        // One that cannot be ended keeps none of the others.
        const Status ended = is_elsewhere(step)
                                 ? Status(fail(not_here(step)))
                                 : recovery_->clean_up_test(recovery_of_step(step.handle));
        if (ended)
            ++done;
        else if (all)
            all = ended;
    }
    FS_TRY(all);
    return fmt::format("{{\"cleaned_up\":{}}}", done);
}

}  // namespace farshore
