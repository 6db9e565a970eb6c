#include "vault/plan_steps.h"

#include <fmt/core.h>

#include <mutex>

#include "codec/hash.h"
#include "compute/guest_agent.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/recovery_plans.h"
#include "os/log.h"
#include "os/real.h"
#include "vault/recovery_desk.h"
#include "vault/webhook.h"

namespace farshore {
namespace {

constexpr int64_t kPostTimeoutUs = 15'000'000;
constexpr int64_t kBeginAgainUs = 2'000'000;  // what had no room
constexpr int64_t kPostAgainUs = 3'000'000;
constexpr int kAgentTimeoutMs = 1000;
// Inside of a machine that has just booted from a distant store a program begins slowly.
constexpr int kExecTimeoutMs = 10'000;
// References of a guest's program that is about to be started, and of a webhook that was heard.
constexpr const char* kStarting = "starting";
constexpr const char* kTold = "told";
constexpr size_t kLookedAtJobs = 50;  // newest ones of an item

RecoveryError described(const Error& error) { return {error.code(), error.what(), error.remedy()}; }

// "runs at 2026-..., first read after 412 ms" of what a failover's job has given.
std::string started_words(const std::string& result) {
    const auto json = parse_json(result, "a job's result", 1u << 20);
    if (!json || !json->is_object()) return {};
    std::string words = "runs";
    if (const auto point = json->find("point"); point != json->end() && point->is_object())
        words += fmt::format(" at {}", point->value("time", std::string("?")));
    if (const auto timings = json->find("timings");
        timings != json->end() && timings->is_object() && timings->contains("first_read_ms"))
        words += fmt::format(", first read after {} ms", timings->value("first_read_ms", 0));
    return words;
}

}  // namespace

StepOutcome failed_outcome(const Error& error) {
    StepOutcome outcome;
    outcome.error = described(error);
    outcome.unknown = error.code() == Code::kOutcomeUnknown;
    return outcome;
}

StepOutcome too_late(const PlanStep& step, const std::string& what) {
    return failed_outcome(Error(Code::kTimeout,
                                fmt::format("{} within {} s", what, step.action.limits.limit_s),
                                "give the step a longer limit_s when it needs one"));
}

StepOutcome script_outcome(const PlanStep& step, const std::optional<Error>& error,
                           std::optional<int> code, std::string output) {
    StepOutcome outcome;
    if (error)
        outcome = failed_outcome(*error);
    else if (!code)
        outcome = too_late(step, "the script has not ended");
    else if (*code != 0)
        outcome = failed_outcome(
            Error(Code::kGuestFailed, fmt::format("the script exited with {}", *code)));
    outcome.output = std::move(output);
    return outcome;
}

std::vector<std::pair<std::string, std::string>> step_environment(const PlanRun& run,
                                                                  const PlanStep& step) {
    return {{"FARSHORE_PLAN", run.plan},
            {"FARSHORE_RUN", std::to_string(run.id)},
            {"FARSHORE_MODE", std::string(plan_mode_name(run.mode))},
            {"FARSHORE_POINT", run.point},
            {"FARSHORE_STEP", step.id},
            {"FARSHORE_ATTEMPT", std::to_string(step.attempts)}};
}

std::string recovery_of_step(const std::string& handle) { return "plan-" + handle; }

std::string callback_token(const Secret& secret, const std::string& handle) {
    return to_hex(hmac_sha256(secret.reveal(), as_bytes("callback." + handle)));
}

// One webhook that is told, perhaps several times until it listens. Lives as long as its thread
// needs it.
struct PlanSteps::Delivery {
    std::string handle;
    std::mutex mutex;
    // guarded by mutex:
    bool busy = false, delivered = false, ending = false;
    std::optional<Error> error;  // of the newest attempt
    HttpClient* client = nullptr;
    std::unique_ptr<ThreadExecutor> thread = std::make_unique<ThreadExecutor>("fs-webhook");

    ~Delivery() {
        {
            const std::lock_guard hold(mutex);
            ending = true;
            if (client != nullptr) client->cancel();
        }
        thread->stop();
    }
};

PlanSteps::PlanSteps(Options options) : options_(std::move(options)) {}
PlanSteps::~PlanSteps() = default;

void PlanSteps::begin(const PlanRun& run, const PlanStep& step) {
    refused_.erase(step.handle);
    Status begun;
    switch (step.action.kind) {
        case StepKind::kItem:
            begun = begin_item(run, step);
            break;
        case StepKind::kScript:
            begun = begin_script(run, step);
            break;
        case StepKind::kApplianceScript:
            begun = begin_appliance_script(run, step);
            break;
        case StepKind::kGuestScript:
            begun = begin_guest_script(run, step);
            break;
        case StepKind::kWebhook:
            deliver(run, step);
            break;
        case StepKind::kManual:
            if (!options_.taken_up.contains(step.handle))
                options_.vault->event(
                    Severity::kWarning, "plan-waits", nullptr,
                    fmt::format("step {} ({}) of run {} of plan '{}' waits for an answer", step.id,
                                step.action.name, run.id, run.plan),
                    fmt::format("`farshore recovery-plan run answer {} {}`", run.id, step.id));
            break;
    }
    if (begun) return;
    refused_.emplace(step.handle, begun.error());
    again_us_[step.handle] = options_.vault->clock().steady_us() + kBeginAgainUs;
}

std::optional<StepOutcome> PlanSteps::look(const PlanRun& run, const PlanStep& step,
                                           std::string& reference) {
    if (const auto at = refused_.find(step.handle); at != refused_.end()) {
        // What has no room now, or met a hiccup, begins when that is over, within the step's time.
        // Behind it an earlier vault may have begun the script all the same: whoever runs it knows.
        const bool asks =
            step.action.kind == StepKind::kScript || step.action.kind == StepKind::kApplianceScript;
        if (at->second.retry() != Retry::kNever && step.overdue && asks)
            return step.action.kind == StepKind::kScript ? look_script(run, step)
                                                         : look_appliance_script(run, step);
        if (at->second.retry() == Retry::kNever || step.overdue) return failed_outcome(at->second);
        if (options_.vault->clock().steady_us() >= again_us_[step.handle]) begin(run, step);
        return {};
    }
    switch (step.action.kind) {
        case StepKind::kItem:
            return look_item(run, step, reference);
        case StepKind::kScript:
            return look_script(run, step);
        case StepKind::kApplianceScript:
            return look_appliance_script(run, step);
        case StepKind::kGuestScript:
            return look_guest_script(run, step, reference);
        case StepKind::kWebhook:
        case StepKind::kManual:
            break;
    }
    if (auto outcome = look_answer(step)) return outcome;
    if (step.action.kind == StepKind::kManual) {
        if (step.overdue) return too_late(step, "nobody has answered");
        return {};
    }
    std::optional<Error> error;
    bool delivered = false, busy = false;
    if (delivery_ && delivery_->handle == step.handle) {
        const std::lock_guard hold(delivery_->mutex);
        error = delivery_->error;
        delivered = delivery_->delivered;
        busy = delivery_->busy;
    }
    if (delivered) reference = kTold;
    delivered = delivered || step.reference == kTold;
    if (delivered && !step.action.wait_for_callback) return StepOutcome{};
    if (error && error->retry() == Retry::kNever) return failed_outcome(*error);
    if (step.overdue)
        return error ? failed_outcome(error->with_context("the webhook was not told"))
                     : too_late(step, "the webhook has not called back");
    if (!delivered && !busy) deliver(run, step);
    return {};
}

void PlanSteps::end(const PlanRun& run, const PlanStep& step) {
    if (step.action.kind == StepKind::kScript) (void)options_.scripts->end(step.handle);
    if (step.action.kind == StepKind::kApplianceScript) end_appliance_script(step);
    // A machine that comes home goes on where it is; one that is being started may be there any
    // moment, and is left. A guest's program has its own word about it; nobody has to end an answer
    // that does not come.
    if (step.action.kind != StepKind::kItem || run.mode != PlanMode::kFailback) return;
    const auto known = references_.find(step.handle);
    const std::string& job = known == references_.end() ? step.reference : known->second;
    if (!job.empty()) (void)options_.vault->cancel_job(std::strtoull(job.c_str(), nullptr, 10));
}

void PlanSteps::forget(const PlanRun&, const PlanStep& step) {
    if (step.action.kind == StepKind::kScript)
        if (auto gone = options_.scripts->forget(step.handle); !gone)
            log::warn("vault", "what a script left: {}", gone.error().to_string());
    if (step.action.kind == StepKind::kApplianceScript) forget_appliance_script(step);
    refused_.erase(step.handle);
    again_us_.erase(step.handle);
    noted_.erase(step.handle);
    not_started_.erase(step.handle);
    references_.erase(step.handle);
    seen_.erase(step.handle);
    if (step.action.kind == StepKind::kWebhook) options_.expect(step.handle, false);
    if (delivery_ && delivery_->handle == step.handle) delivery_.reset();
}

// ---- machines

Status PlanSteps::begin_item(const PlanRun& run, const PlanStep& step) {
    if (!step.reference.empty()) return {};  // its job is known
    if (options_.recovery == nullptr)
        return fail(Code::kUnsupported, "this vault has no recovery of its own");
    const std::string id = recovery_of_step(step.handle);
    FS_ASSIGN(const ItemRecord item, find_item(options_.vault->database(), step.action.name));
    if (run.mode == PlanMode::kFailover && step.source == PlanSource::kPlanned &&
        item.state == ItemState::kCatchingUp)
        return fail(Code::kUnavailable,
                    fmt::format("'{}' is catching up: a planned failover loses nothing", item.name),
                    "wait until it is protected");
    // The vault may have been killed between the job's begin and its note in the run. A way home
    // has no id of ours; of an item there is one at a time.
    const auto is_ours = [&](const JobRecord& job) {
        if (run.mode == PlanMode::kFailback)
            return job.kind == "failback" && job.created >= step.attempt_started;
        return job.input.find(id) != std::string::npos;
    };
    FS_ASSIGN(const auto jobs, list_jobs(options_.vault->database(), 0, kLookedAtJobs, item.id));
    for (const JobRecord& job : jobs) {
        if (!is_ours(job)) continue;
        if (job.state == JobState::kQueued && not_started_.contains(step.handle)) {
            // It was added though its begin failed: nobody works on it.
            FS_TRY(end_job(options_.vault->database(), job.id, JobState::kCancelled, "",
                           ItemError{Code::kCancelled, "it did not begin", ""}));
            continue;
        }
        if (job.state == JobState::kCancelled && not_started_.contains(step.handle)) continue;
        references_[step.handle] = std::to_string(job.id);
        return {};
    }
    const auto job =
        options_.recovery->start_as(id, item.name, run, step.source, step.action.limits.limit_s,
                                    fmt::format("run {} of plan {}", run.id, run.plan));
    if (!job) {
        not_started_.insert(step.handle);
        return fail(job.error());
    }
    references_[step.handle] = std::to_string(job->id);
    return {};
}

std::optional<StepOutcome> PlanSteps::look_item(const PlanRun& run, const PlanStep& step,
                                                std::string& reference) {
    if (const auto at = references_.find(step.handle); at != references_.end())
        reference = at->second;
    const auto job =
        get_job(options_.vault->database(), std::strtoull(reference.c_str(), nullptr, 10));
    // Nobody knows what comes of it: it may be the machine of the next minute.
    const auto late = [&](const std::string& what) {
        StepOutcome outcome = too_late(step, what);
        outcome.unknown = true;
        outcome.error->remedy =
            fmt::format("`farshore job {}` and `farshore failover list` show what comes of it",
                        reference.empty() ? "ID" : reference);
        return outcome;
    };
    if (!job) {
        if (job.error().code() != Code::kNotFound) {  // the database is asked again
            if (step.overdue) return late("the machine was not seen to run");
            return {};
        }
        return failed_outcome(Error(Code::kOutcomeUnknown,
                                    "the job that started the machine is forgotten",
                                    "look whether it runs: `farshore failover list`"));
    }
    if (!job->over()) {
        if (step.overdue)
            return late(run.mode == PlanMode::kFailback ? "the machine has not come home"
                                                        : "the machine has not started");
        return {};
    }
    StepOutcome outcome;
    if (job->state == JobState::kSucceeded)
        outcome.output = started_words(job->result);
    else if (job->error)
        outcome.error = RecoveryError{job->error->code, job->error->what, job->error->remedy};
    else
        outcome.error = RecoveryError{Code::kInternal, "its job failed", ""};
    return outcome;
}

// ---- scripts

Status PlanSteps::begin_script(const PlanRun& run, const PlanStep& step) {
    if (step.node != options_.node)
        return fail(Code::kOutcomeUnknown,
                    fmt::format("the vault node '{}' had begun it, and only that one knows how far "
                                "it came",
                                step.node),
                    "look what it has done");
    ScriptRequest request;
    request.program = options_.scripts_directory + "/" + step.action.program;
    request.arguments = step.action.arguments;
    request.environment = step_environment(run, step);
    return options_.scripts->begin(step.handle, request);
}

std::optional<StepOutcome> PlanSteps::look_script(const PlanRun& run, const PlanStep& step) {
    auto looked = options_.scripts->look(step.handle);
    if (!looked) {
        if (looked.error().code() == Code::kNotFound) {
            if (step.overdue) return too_late(step, "the script did not begin");
            begin(run, step);
            return {};
        }
        // Our own files cannot be read just now; the script runs on.
        if (looked.error().retry() != Retry::kNever && !step.overdue) return {};
        StepOutcome outcome = failed_outcome(looked.error());
        outcome.unknown = true;
        return outcome;
    }
    if (!*looked) return {};
    ScriptResult& result = **looked;
    return script_outcome(step, {}, result.code, std::move(result.output));
}

// ---- programs inside of machines

namespace {

// The recovery whose machine this run has started of the item.
Result<std::string> started_of(RecoveryDesk* recovery, const PlanRun& run,
                               const std::string& item) {
    for (const PlanStep& step : run.steps) {
        if (step.action.kind != StepKind::kItem || step.action.name != item) continue;
        if (recovery == nullptr || step.handle.empty()) break;
        std::string id = recovery_of_step(step.handle);
        FS_TRY(recovery->recoveries().get(id));
        return id;
    }
    return fail(Code::kNotFound, fmt::format("this run has started no machine of '{}'", item));
}

}  // namespace

// What is begun inside is noted before, in the run: begin() finds only what an earlier vault left.
Status PlanSteps::begin_guest_script(const PlanRun&, const PlanStep& step) {
    if (step.reference.empty()) return {};  // nothing was started so far; look() does it
    if (step.node != options_.node)
        return fail(Code::kOutcomeUnknown,
                    fmt::format("the vault node '{}' had started it, and only that one reaches the "
                                "machine",
                                step.node),
                    "look what it has done");
    if (step.reference != kStarting) return {};  // it runs
    return fail(Code::kOutcomeUnknown,
                "the vault ended just when the program was to be started inside of the machine",
                "look whether it ran");
}

std::optional<StepOutcome> PlanSteps::start_guest_script(const std::string& recovery,
                                                         const PlanRun& run, const PlanStep& step,
                                                         std::string& reference) {
    auto agent = options_.recovery->recoveries().guest_agent(recovery, kAgentTimeoutMs);
    if (!agent) {
        // The machine may still be starting.
        if (step.overdue) return failed_outcome(agent.error());
        return {};
    }
    if (!noted_.contains(step.handle)) {
        noted_.insert(step.handle);
        reference = kStarting;  // saved before the next look
        return {};
    }
    const auto pid = agent->start_program(
        step.action.program, step.action.arguments,
        {"FARSHORE_PLAN=" + run.plan, "FARSHORE_RUN=" + std::to_string(run.id),
         "FARSHORE_MODE=" + std::string(plan_mode_name(run.mode)), "FARSHORE_STEP=" + step.id},
        kExecTimeoutMs);
    if (pid) {
        reference = std::to_string(*pid);
        return {};
    }
    const Code code = pid.error().code();
    if (code == Code::kUnsupported || code == Code::kGuestFailed)
        return failed_outcome(pid.error());
    return failed_outcome(
        Error(Code::kOutcomeUnknown,
              fmt::format("nobody knows whether the program was started: {}", pid.error().what()),
              "look whether it ran"));
}

std::optional<StepOutcome> PlanSteps::look_guest_script(const PlanRun& run, const PlanStep& step,
                                                        std::string& reference) {
    const auto recovery = started_of(options_.recovery, run, step.action.item);
    const bool started = !step.reference.empty() && step.reference != kStarting;
    if (!recovery) {
        StepOutcome outcome = failed_outcome(recovery.error());
        outcome.unknown = outcome.unknown || started;
        return outcome;
    }
    if (!started) return start_guest_script(*recovery, run, step, reference);
    const auto looked = [&]() -> Result<std::optional<GuestExit>> {
        FS_ASSIGN(GuestAgent agent,
                  options_.recovery->recoveries().guest_agent(*recovery, kAgentTimeoutMs));
        return agent.program_exit(std::strtoll(reference.c_str(), nullptr, 10), kMaxStepOutputBytes,
                                  kAgentTimeoutMs);
    }();
    if (looked && *looked) {
        StepOutcome outcome;
        const GuestExit& ended = **looked;
        if (ended.signal)
            outcome = failed_outcome(Error(
                Code::kGuestFailed, fmt::format("signal {} ended the program", *ended.signal)));
        else if (ended.code != 0)
            outcome =
                failed_outcome(Error(Code::kGuestFailed, fmt::format("the program exited with {}",
                                                                     ended.code.value_or(-1))));
        outcome.output = ended.output;
        return outcome;
    }
    if (!looked && looked.error().code() == Code::kGuestFailed) {
        StepOutcome outcome = failed_outcome(looked.error());
        outcome.unknown = true;
        return outcome;
    }
    if (!step.overdue) return {};
    // Nobody can end it from here: it may go on, so it is not tried again.
    StepOutcome outcome = looked ? too_late(step, "the program inside has not ended")
                                 : failed_outcome(looked.error());
    outcome.unknown = true;
    return outcome;
}

// ---- webhooks and people

void PlanSteps::deliver(const PlanRun& run, const PlanStep& step) {
    if (!delivery_ || delivery_->handle != step.handle) {
        delivery_ = std::make_shared<Delivery>();
        delivery_->handle = step.handle;
    }
    if (step.action.wait_for_callback) options_.expect(step.handle, true);
    if (step.reference == kTold) return;
    Json body{{"vault_id", options_.vault->info().vault_id},
              {"plan", run.plan},
              {"run", run.id},
              {"mode", std::string(plan_mode_name(run.mode))},
              {"point", run.point},
              {"step", step.id},
              {"name", step.action.name},
              {"attempt", step.handle},
              {"limit_s", step.action.limits.limit_s}};
    const std::lock_guard hold(delivery_->mutex);
    const bool again = delivery_->error.has_value();
    delivery_->busy = true;
    const auto post = [this, delivery = delivery_.get(), body = std::move(body),
                       action = step.action]() mutable {
        const auto told = [&]() -> Status {
            FS_ASSIGN(const WebhookSettings settings,
                      read_webhook_settings(*options_.files, action.settings_file));
            const std::string back = options_.callback_url();
            if (back.empty()) return fail(Code::kUnavailable, "the vault does not serve yet");
            if (action.wait_for_callback)
                body["callback"] = {{"url", back + delivery->handle},
                                    {"token", callback_token(settings.secret, delivery->handle)}};
            HttpClientOptions options;
            options.authority_pem = settings.authority_pem;
            options.timeout_us = kPostTimeoutUs;
            options.max_body_bytes = 64u << 10;
            HttpClient client(options);
            {
                const std::lock_guard hold_client(delivery->mutex);
                if (delivery->ending) return fail(Code::kCancelled, "the run ends");
                delivery->client = &client;
            }
            const Status posted = post_webhook(client, settings.secret, action.url, dump_json(body),
                                               options_.vault->clock().now());
            const std::lock_guard hold_client(delivery->mutex);
            delivery->client = nullptr;
            return posted;
        };
        const Status done = told();
        const std::lock_guard hold_done(delivery->mutex);
        delivery->busy = false;
        delivery->delivered = done.has_value();
        delivery->error.reset();
        if (!done) delivery->error = done.error();
    };
    if (again)
        delivery_->thread->post_after_us(kPostAgainUs, post);
    else
        delivery_->thread->post(post);
}

std::optional<StepOutcome> PlanSteps::look_answer(const PlanStep& step) {
    const uint64_t now = options_.answered->load();
    const auto [at, first] = seen_.emplace(step.handle, now);
    if (!first && at->second == now && !step.overdue) return {};
    const auto answer = get_step_answer(options_.vault->database(), step.handle);
    if (!answer) {
        seen_.erase(at);  // the database is asked again
        return {};
    }
    at->second = now;
    if (!*answer) return {};
    StepOutcome outcome;
    if (!(*answer)->good)
        outcome.error = RecoveryError{Code::kCancelled,
                                      fmt::format("{} says that it failed", (*answer)->who), ""};
    outcome.note = (*answer)->note;
    outcome.by = (*answer)->who;
    return outcome;
}

}  // namespace farshore
