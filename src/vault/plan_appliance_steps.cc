// Steps of recovery plans that run on appliances, and the vault's end of what it says to them about
// those. docs/design/plans.md, "Scripts on appliances".
#include <fmt/core.h>

#include <algorithm>

#include "meta/appliance_scripts.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "vault/plan_steps.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr size_t kMaxDocumentBytes = 1u << 20;
constexpr size_t kMaxScriptOrderBytes = 32u << 10;
// Behind a step's limit, until its appliance has said how the script ended.
constexpr int64_t kEndPatienceUs = 60'000'000;

std::string encode_word(const ScriptWord& word) {
    return script_word_json(word).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

// ---- what is said to an appliance

// By a node that leads or does not: all of it is in the database.
Status Vault::Impl::tell_scripts(const std::string& appliance, const ApplianceStatus& status,
                                 ApplianceOrders& orders) {
    FS_ASSIGN(auto wanted, scripts_of_appliance(*database, appliance, kMaxScriptOrders));
    for (ApplianceScriptRecord& record : wanted) {
        const auto word = std::ranges::find(status.scripts, record.handle, &ScriptWord::handle);
        const bool said = word != status.scripts.end();
        const bool over = said && word->state >= ScriptState::kEnded;
        if (record.outcome.empty() && (over || (said && !record.taken))) {
            auto changed = change_appliance_script(*database, record.handle,
                                                   [&](ApplianceScriptRecord& now) -> Status {
                                                       now.taken = true;
                                                       if (over && now.outcome.empty())
                                                           now.outcome = encode_word(*word);
                                                       return {};
                                                   });
            if (!changed && changed.error().code() == Code::kNotFound) continue;
            if (!changed) return tl::unexpected(changed.error());
            record = std::move(*changed);
        }
        const auto document =
            parse_json(record.document, "an appliance's script", kMaxDocumentBytes);
        auto order = document ? script_order_of(*document) : tl::unexpected(document.error());
        if (!order) {
            // Its step is told when its time is over; the others go on.
            log::debug("vault", "the script {} of appliance '{}': {}", record.handle, appliance,
                       order.error().to_string());
            continue;
        }
        // With both it is to end; that it was to begin tells one that has forgotten it from one
        // that never knew it.
        order->go = record.taken;
        // How it was ended matters to nobody once there is an outcome; it is to be over.
        order->end = record.ending || !record.outcome.empty();
        orders.scripts.push_back(std::move(*order));
    }
    return {};
}

// ---- the step

Status PlanSteps::begin_appliance_script(const PlanRun& run, const PlanStep& step) {
    ScriptOrder order;
    order.handle = step.handle;
    order.program = step.action.program;
    order.arguments = step.action.arguments;
    order.environment = step_environment(run, step);
    order.limit_s = step.action.limits.limit_s;
    const Json document = script_order_json(order);
    FS_TRY(script_order_of(document));
    std::string text = dump_json(document);
    // All orders together must fit into one answer.
    if (text.size() > kMaxScriptOrderBytes)
        return fail(Code::kTooLarge,
                    fmt::format("step '{}' has more than {} bytes of arguments", step.action.name,
                                kMaxScriptOrderBytes),
                    "put them into a file of the appliance's machine");
    return add_appliance_script(
        options_.vault->database(),
        {.handle = step.handle, .appliance = step.action.appliance, .document = std::move(text)});
}

std::optional<StepOutcome> PlanSteps::look_appliance_script(const PlanRun& run,
                                                            const PlanStep& step) {
    Database& database = options_.vault->database();
    const std::string& appliance = step.action.appliance;
    auto known = get_appliance_script(database, step.handle);
    if (!known) {
        if (known.error().code() != Code::kNotFound) return {};  // the database is asked again
        if (step.overdue) return too_late(step, "the script did not begin");
        begin(run, step);
        return {};
    }
    if (known->outcome.empty()) {
        if (!step.overdue) return {};
        if (!known->taken) {
            // From here on it cannot be: what is ending is never begun.
            known = change_appliance_script(database, step.handle,
                                            [](ApplianceScriptRecord& now) -> Status {
                                                now.ending = true;
                                                return {};
                                            });
            if (!known) return {};
            if (!known->taken)
                return too_late(step,
                                fmt::format("appliance '{}' has not taken the script", appliance));
        }
        const int64_t until_us = step.attempt_started.us +
                                 int64_t{step.action.limits.limit_s} * 1'000'000 + kEndPatienceUs;
        if (options_.vault->clock().now().us < until_us) return {};
        StepOutcome outcome = too_late(
            step, fmt::format("appliance '{}' has not said that the script ended", appliance));
        outcome.unknown = true;
        return outcome;
    }
    const auto document = parse_json(known->outcome, "how a script ended", kMaxDocumentBytes);
    const auto word = document ? script_word_of(*document) : tl::unexpected(document.error());
    if (!word) return failed_outcome(word.error());
    return script_outcome(step, word->error, word->code,
                          word->output.substr(0, kMaxStepOutputBytes));
}

void PlanSteps::end_appliance_script(const PlanStep& step) {
    // It is asked for in each round until the step is over.
    const auto known = get_appliance_script(options_.vault->database(), step.handle);
    if (known && known->ending) return;
    // Its document stays; whether it was begun is seen when it is looked at.
    auto ended = change_appliance_script(options_.vault->database(), step.handle,
                                         [](ApplianceScriptRecord& now) -> Status {
                                             now.ending = true;
                                             return {};
                                         });
    if (!ended && ended.error().code() != Code::kNotFound)
        log::warn("vault", "a script is to end: {}", ended.error().to_string());
}

void PlanSteps::forget_appliance_script(const PlanStep& step) {
    if (auto gone = drop_appliance_script(options_.vault->database(), step.handle); !gone)
        log::warn("vault", "a script on an appliance: {}", gone.error().to_string());
}

}  // namespace farshore
