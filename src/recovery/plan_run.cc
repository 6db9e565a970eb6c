#include "recovery/plan_run.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr uint64_t kVersion = 1;
constexpr std::array<std::string_view, 5> kStepNames{"waiting", "running", "succeeded", "failed",
                                                     "skipped"};
constexpr std::array<std::string_view, 6> kRunNames{"running",   "stopping",   "stopped",
                                                    "succeeded", "incomplete", "cancelled"};

template <size_t N>
Result<size_t> index_of(const std::array<std::string_view, N>& names, std::string_view name) {
    for (size_t i = 0; i < N; ++i)
        if (names[i] == name) return i;
    return fail(Code::kMalformed,
                fmt::format("'{}' is no state of a plan's run", name.substr(0, 64)));
}

int64_t limit_us(const PlanStep& step) { return int64_t{step.action.limits.limit_s} * 1'000'000; }

// Nobody but the outside world does anything for these: they are withdrawn by forgetting them.
bool only_waits(const PlanStep& step) {
    return step.action.kind == StepKind::kManual || step.action.kind == StepKind::kWebhook;
}

Json step_json(const PlanStep& step) {
    Json json{{"id", step.id},
              {"stage", step.stage},
              {"group", step.group},
              {"action", plan_action_json(step.action)},
              {"source", std::string(plan_source_name(step.source))},
              {"state", std::string(step_state_name(step.state))},
              {"attempts", step.attempts},
              {"handle", step.handle},
              {"node", step.node},
              {"reference", step.reference},
              {"overdue", step.overdue},
              {"withdrawn", step.withdrawn},
              {"begin_after_us", step.begin_after.us},
              {"started_us", step.started.us},
              {"attempt_started_us", step.attempt_started.us},
              {"ended_us", step.ended.us},
              {"output", step.output},
              {"note", step.note},
              {"by", step.by}};
    if (step.error)
        json["error"] = {{"code", std::string(code_name(step.error->code))},
                         {"what", step.error->what},
                         {"remedy", step.error->remedy}};
    return json;
}

Result<PlanStep> step_from_json(const Json& json, const std::string& path) {
    constexpr size_t kText = 64u << 10;
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, path));
    PlanStep step;
    FS_ASSIGN(step.id, fields.required_text("id", 64));
    FS_ASSIGN(const uint64_t stage, fields.u64("stage", 0, UINT32_MAX));
    step.stage = static_cast<uint32_t>(stage);
    FS_ASSIGN(step.group, fields.text("group", kText));
    const Json* action = fields.find("action");
    if (action == nullptr || !action->is_object()) return fields.wrong("action", "is missing");
    if (const auto kind = action->find("kind");
        kind != action->end() && kind->is_string() && *kind == "item") {
        // As an action that says nothing but its limits.
        Json plain = *action;
        plain["kind"] = "manual";
        plain["instructions"] = "-";
        plain["for"] = Json::array({"test"});
        FS_ASSIGN(step.action, plan_action_from_json(plain, path + ".action"));
        step.action.kind = StepKind::kItem;
        step.action.instructions.clear();
        std::ranges::fill(step.action.modes, false);
    } else {
        FS_ASSIGN(step.action, plan_action_from_json(*action, path + ".action"));
    }
    FS_ASSIGN(const std::string source, fields.text("source", 32, "leave"));
    FS_ASSIGN(step.source, plan_source_from_name(source));
    FS_ASSIGN(const std::string state, fields.text("state", 32));
    FS_ASSIGN(const size_t at, index_of(kStepNames, state));
    step.state = static_cast<StepState>(at);
    FS_ASSIGN(const uint64_t attempts, fields.u64("attempts", 0, UINT32_MAX));
    step.attempts = static_cast<uint32_t>(attempts);
    FS_ASSIGN(step.handle, fields.text("handle", 64));
    FS_ASSIGN(step.node, fields.text("node", 256));
    FS_ASSIGN(step.reference, fields.text("reference", 4096));
    FS_ASSIGN(step.overdue, fields.boolean("overdue"));
    FS_ASSIGN(step.withdrawn, fields.boolean("withdrawn"));
    FS_ASSIGN(step.begin_after.us, fields.i64("begin_after_us"));
    FS_ASSIGN(step.started.us, fields.i64("started_us"));
    FS_ASSIGN(step.attempt_started.us, fields.i64("attempt_started_us"));
    FS_ASSIGN(step.ended.us, fields.i64("ended_us"));
    FS_ASSIGN(step.output, fields.text("output", kText));
    FS_ASSIGN(step.note, fields.text("note", kText));
    FS_ASSIGN(step.by, fields.text("by", 256));
    if (const Json* error = fields.find("error"); error != nullptr) {
        FS_ASSIGN(const JsonFields of_error, JsonFields::of(*error, path + ".error"));
        FS_ASSIGN(const std::string code, of_error.text("code", 64));
        step.error = RecoveryError{code_from_name(code), {}, {}};
        FS_ASSIGN(step.error->what, of_error.text("what", kText));
        FS_ASSIGN(step.error->remedy, of_error.text("remedy", kText));
    }
    return step;
}

}  // namespace

std::string_view step_state_name(StepState state) {
    return kStepNames.at(static_cast<size_t>(state));
}
std::string_view plan_run_state_name(PlanRunState state) {
    return kRunNames.at(static_cast<size_t>(state));
}
Result<PlanRunState> plan_run_state_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, index_of(kRunNames, name));
    return static_cast<PlanRunState>(at);
}

PlanRun make_plan_run(const RecoveryPlan& plan, PlanMode mode) {
    PlanRun run;
    run.plan = plan.name;
    run.mode = mode;
    if (mode == PlanMode::kTest) run.network = plan.test_network;
    if (mode == PlanMode::kFailover) run.network = plan.network;
    uint32_t stage = 0;
    const auto add_actions = [&](const std::vector<PlanAction>& actions, const std::string& group,
                                 const std::string& id) {
        for (size_t i = 0; i < actions.size(); ++i) {
            if (!actions[i].modes[static_cast<size_t>(mode)]) continue;
            PlanStep step;
            step.id = fmt::format("{}-{}", id, i + 1);
            step.stage = stage++;
            step.group = group;
            step.action = actions[i];
            run.steps.push_back(std::move(step));
        }
    };
    // A test leaves the machines at home alone, whatever the plan says of its steps.
    if (mode != PlanMode::kTest) add_actions(plan.shutdown, "shutdown", "shutdown");
    for (size_t g = 0; g < plan.groups.size(); ++g) {
        const PlanGroup& group = plan.groups[g];
        add_actions(group.before, group.name, fmt::format("g{}-before", g + 1));
        for (size_t i = 0; i < group.items.size(); ++i) {
            PlanStep step;
            step.id = fmt::format("g{}-item-{}", g + 1, i + 1);
            step.stage = stage;
            step.group = group.name;
            step.action.kind = StepKind::kItem;
            step.action.name = group.items[i].name;
            step.action.limits = group.items[i].limits;
            step.source = group.items[i].source;
            run.steps.push_back(std::move(step));
        }
        if (!group.items.empty()) ++stage;
        add_actions(group.after, group.name, fmt::format("g{}-after", g + 1));
    }
    return run;
}

bool PlanMachine::any(StepState state) const {
    return std::ranges::any_of(run_.steps,
                               [&](const PlanStep& step) { return step.state == state; });
}

// Moves the run on when nothing of it runs any more.
void PlanMachine::settle(TimePoint now) {
    if (run_.state != PlanRunState::kRunning && run_.state != PlanRunState::kStopping) return;
    if (any(StepState::kRunning)) return;
    if (run_.state == PlanRunState::kStopping) {
        run_.state = PlanRunState::kStopped;
        return;
    }
    if (any(StepState::kWaiting)) return;
    const bool all = std::ranges::all_of(
        run_.steps, [](const PlanStep& step) { return step.state == StepState::kSucceeded; });
    run_.state = all ? PlanRunState::kSucceeded : PlanRunState::kIncomplete;
    run_.ended = now;
}

std::vector<size_t> PlanMachine::begin(TimePoint now, const std::function<std::string()>& draw,
                                       const std::string& node) {
    std::vector<size_t> begun;
    if (run_.state == PlanRunState::kRunning) {
        // The first stage that is not over; a step of it that failed without stopping the run is.
        uint32_t stage = UINT32_MAX;
        size_t running = 0;
        for (const PlanStep& step : run_.steps) {
            if (!step.over()) stage = std::min(stage, step.stage);
            running += step.state == StepState::kRunning ? 1 : 0;
        }
        for (size_t i = 0; i < run_.steps.size(); ++i) {
            PlanStep& step = run_.steps[i];
            if (step.stage != stage || step.state != StepState::kWaiting) continue;
            if (running >= kMaxParallelSteps || now < step.begin_after) continue;
            step.state = StepState::kRunning;
            if (!step.withdrawn) {
                step.handle = draw();
                step.reference.clear();
            }
            step.withdrawn = false;
            step.node = node;
            step.overdue = false;
            step.output.clear();
            step.error.reset();
            ++step.attempts;
            step.attempt_started = now;
            if (step.started.us == 0) step.started = now;
            step.ended = {};
            ++running;
            begun.push_back(i);
        }
    }
    settle(now);
    return begun;
}

std::vector<size_t> PlanMachine::overdue(TimePoint now) {
    std::vector<size_t> late;
    for (size_t i = 0; i < run_.steps.size(); ++i) {
        PlanStep& step = run_.steps[i];
        if (step.state != StepState::kRunning || step.overdue) continue;
        if (now.us - step.attempt_started.us < limit_us(step)) continue;
        step.overdue = true;
        late.push_back(i);
    }
    return late;
}

std::vector<size_t> PlanMachine::withdraw() {
    std::vector<size_t> withdrawn;
    if (run_.state != PlanRunState::kStopping) return withdrawn;
    for (size_t i = 0; i < run_.steps.size(); ++i) {
        PlanStep& step = run_.steps[i];
        if (step.state != StepState::kRunning || !only_waits(step)) continue;
        step.state = StepState::kWaiting;
        step.withdrawn = true;
        --step.attempts;
        withdrawn.push_back(i);
    }
    return withdrawn;
}

void PlanMachine::restamp(size_t index, TimePoint now) {
    PlanStep& step = run_.steps.at(index);
    if (step.started == step.attempt_started) step.started = now;
    step.attempt_started = now;
}

void PlanMachine::refer(size_t step, const std::string& reference) {
    run_.steps.at(step).reference = reference;
}

void PlanMachine::ended(size_t index, const StepOutcome& outcome, TimePoint now) {
    PlanStep& step = run_.steps.at(index);
    if (step.state != StepState::kRunning) return;
    // What programs print may be anything.
    const auto cut = [](const std::string& text, size_t limit) {
        std::string kept = text.substr(0, limit);
        for (char& c : kept)
            if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') c = '?';
        return kept;
    };
    step.ended = now;
    step.output = cut(outcome.output, kMaxStepOutputBytes);
    step.note = cut(outcome.note, kMaxStepNoteBytes);
    step.by = outcome.by;
    step.error = outcome.error;
    if (step.error) {
        step.error->what = cut(step.error->what, kMaxStepOutputBytes);
        step.error->remedy = cut(step.error->remedy, kMaxStepOutputBytes);
    }
    if (!outcome.error) {
        step.state = StepState::kSucceeded;
    } else if (step.attempts <= step.action.limits.retries && !outcome.unknown) {
        step.state = StepState::kWaiting;
        step.begin_after = {now.us + int64_t{step.action.limits.retry_pause_s} * 1'000'000};
    } else {
        step.state = StepState::kFailed;
        if (step.action.limits.on_failure == OnFailure::kStop &&
            (run_.state == PlanRunState::kRunning || run_.state == PlanRunState::kStopping)) {
            run_.state = PlanRunState::kStopping;
            run_.why =
                fmt::format("step {} ({}) failed: {}", step.id, step.action.name, step.error->what);
        }
    }
    settle(now);
}

Status PlanMachine::stop(const std::string& by) {
    if (run_.state == PlanRunState::kStopping || run_.state == PlanRunState::kStopped) return {};
    if (run_.state != PlanRunState::kRunning)
        return fail(Code::kWrongState, fmt::format("the run is {}: it cannot be stopped",
                                                   plan_run_state_name(run_.state)));
    run_.state = PlanRunState::kStopping;
    run_.why = fmt::format("stopped by {}", by);
    return {};
}

Status PlanMachine::resume(const std::vector<std::string>& skip, const std::string& by,
                           TimePoint now) {
    if (run_.state != PlanRunState::kStopped)
        return fail(Code::kWrongState,
                    fmt::format("the run is {}: only one that is stopped goes on",
                                plan_run_state_name(run_.state)));
    for (const std::string& id : skip) {
        const PlanStep* step = find_step(run_, id);
        if (step == nullptr)
            return fail(Code::kNotFound, fmt::format("the run has no step '{}'", id.substr(0, 64)),
                        "`farshore recovery-plan run show` lists them");
        if (step->state == StepState::kSucceeded)
            return fail(Code::kWrongState,
                        fmt::format("step {} has succeeded: there is nothing to skip", id));
    }
    for (PlanStep& step : run_.steps) {
        if (step.state == StepState::kSucceeded || step.state == StepState::kSkipped) continue;
        step.begin_after = {};
        step.attempts = 0;
        if (std::ranges::find(skip, step.id) != skip.end()) {
            step.state = StepState::kSkipped;
            step.withdrawn = false;
            step.by = by;
            step.ended = now;
        } else if (step.state == StepState::kFailed &&
                   step.action.limits.on_failure == OnFailure::kStop) {
            step.state = StepState::kWaiting;
        }
    }
    run_.state = PlanRunState::kRunning;
    run_.why.clear();
    settle(now);
    return {};
}

Status PlanMachine::cancel(const std::string& by, TimePoint now) {
    if (run_.state != PlanRunState::kStopped)
        return fail(Code::kWrongState,
                    fmt::format("the run is {}: only one that is stopped is cancelled",
                                plan_run_state_name(run_.state)),
                    "stop it first");
    run_.state = PlanRunState::kCancelled;
    run_.why = fmt::format("cancelled by {}; {}", by, run_.why);
    run_.ended = now;
    return {};
}

std::optional<TimePoint> PlanMachine::next_time() const {
    std::optional<TimePoint> next;
    const auto take = [&](TimePoint time) { next = next ? std::min(*next, time) : time; };
    for (const PlanStep& step : run_.steps) {
        if (step.state == StepState::kRunning && !step.overdue)
            take({step.attempt_started.us + limit_us(step)});
        if (step.state == StepState::kWaiting && step.begin_after.us != 0) take(step.begin_after);
    }
    return next;
}

std::optional<NetworkChoice> usual_network_of(const PlanRun& run) {
    if (run.mode != PlanMode::kTest) return {};
    return NetworkChoice{NetworkKind::kSegment, fmt::format("run-{}", run.id)};
}

const PlanStep* find_step(const PlanRun& run, std::string_view id) {
    const auto at =
        std::ranges::find_if(run.steps, [&](const PlanStep& step) { return step.id == id; });
    return at == run.steps.end() ? nullptr : &*at;
}

std::string encode_plan_run(const PlanRun& run) {
    Json steps = Json::array();
    for (const PlanStep& step : run.steps) steps.push_back(step_json(step));
    return dump_json({{"version", kVersion},
                      {"id", run.id},
                      {"plan", run.plan},
                      {"plan_version", run.plan_version},
                      {"mode", std::string(plan_mode_name(run.mode))},
                      {"point", run.point},
                      {"network", run.network ? network_word(*run.network) : ""},
                      {"note", run.note},
                      {"by", run.by},
                      {"state", std::string(plan_run_state_name(run.state))},
                      {"why", run.why},
                      {"created_us", run.created.us},
                      {"ended_us", run.ended.us},
                      {"job", run.job},
                      {"steps", std::move(steps)}});
}

Result<PlanRun> decode_plan_run(std::string_view text) {
    FS_ASSIGN(const Json json, parse_json(text, "the run of a plan", kMaxPlanRunBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "run"));
    FS_ASSIGN(const uint64_t version, fields.u64("version"));
    if (version != kVersion)
        return fail(version > kVersion ? Code::kNewerVersion : Code::kMalformed,
                    fmt::format("a run of version {}, this Farshore knows {}", version, kVersion));
    PlanRun run;
    FS_ASSIGN(run.id, fields.u64("id"));
    FS_ASSIGN(run.plan, fields.text("plan", kMaxPlanNameBytes));
    FS_ASSIGN(run.plan_version, fields.u64("plan_version"));
    FS_ASSIGN(const std::string mode, fields.required_text("mode", 32));
    FS_ASSIGN(run.mode, plan_mode_from_name(mode));
    FS_ASSIGN(run.point, fields.text("point", 4096));
    // Written since runs have networks.
    FS_ASSIGN(const std::string network, fields.text("network", kMaxNetworkWordBytes));
    if (!network.empty()) {
        FS_ASSIGN(run.network, network_from_word(network));
    }
    FS_ASSIGN(run.note, fields.text("note", kMaxStepNoteBytes));
    FS_ASSIGN(run.by, fields.text("by", 256));
    FS_ASSIGN(const std::string state, fields.required_text("state", 32));
    FS_ASSIGN(run.state, plan_run_state_from_name(state));
    FS_ASSIGN(run.why, fields.text("why", 64u << 10));
    FS_ASSIGN(run.created.us, fields.i64("created_us"));
    FS_ASSIGN(run.ended.us, fields.i64("ended_us"));
    FS_ASSIGN(run.job, fields.u64("job"));
    FS_ASSIGN(const Json* steps, fields.array("steps", kMaxPlanItems + kMaxPlanActions));
    for (size_t i = 0; steps != nullptr && i < steps->size(); ++i) {
        FS_ASSIGN(PlanStep step, step_from_json((*steps)[i], fmt::format("run.steps[{}]", i)));
        run.steps.push_back(std::move(step));
    }
    return run;
}

}  // namespace farshore
