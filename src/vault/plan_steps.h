// Does the steps of one run of a recovery plan: machines through the recovery desk, scripts,
// webhooks, and the answers of people. recovery/plan_driver.h says what is promised.
//
// One thread, the run's job; webhooks are told from a thread of their own. Borrows what Options
// names.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "os/script_runs.h"
#include "recovery/plan_driver.h"

namespace farshore {

class RecoveryDesk;
class Vault;

// The id of the machine that an attempt of an item's step starts.
std::string recovery_of_step(const std::string& handle);
// What shows that an answer to an attempt comes from whoever got its webhook. Made from the
// webhook's secret, so that it need not be kept and is the same when it is told again.
std::string callback_token(const class Secret& secret, const std::string& handle);

// What a script of a step is told of it.
std::vector<std::pair<std::string, std::string>> step_environment(const PlanRun& run,
                                                                  const PlanStep& step);
StepOutcome failed_outcome(const Error& error);
StepOutcome too_late(const PlanStep& step, const std::string& what);
// Of a script that has ended: `code` none when it was ended, `error` when it could not be run.
StepOutcome script_outcome(const PlanStep& step, const std::optional<Error>& error,
                           std::optional<int> code, std::string output);

class PlanSteps final : public StepRunner {
  public:
    struct Options {
        Vault* vault = nullptr;
        RecoveryDesk* recovery = nullptr;
        FileSystem* files = nullptr;
        ScriptRuns* scripts = nullptr;
        std::string scripts_directory;
        std::function<std::string()> callback_url;        // before the handle; empty: not yet
        const std::atomic<uint64_t>* answered = nullptr;  // grows with each answer that is kept
        // An answer to the attempt may come from outside, or no more.
        std::function<void(const std::string& handle, bool expected)> expect;
        std::string node;  // of several, ours
        // Handles of steps that an earlier vault had begun, or was about to.
        std::set<std::string> taken_up;
    };
    explicit PlanSteps(Options options);
    ~PlanSteps() override;

    void begin(const PlanRun& run, const PlanStep& step) override;
    std::optional<StepOutcome> look(const PlanRun& run, const PlanStep& step,
                                    std::string& reference) override;
    void end(const PlanRun& run, const PlanStep& step) override;
    void forget(const PlanRun& run, const PlanStep& step) override;

  private:
    struct Delivery;
    Status begin_item(const PlanRun& run, const PlanStep& step);
    Status begin_script(const PlanRun& run, const PlanStep& step);
    Status begin_guest_script(const PlanRun& run, const PlanStep& step);
    // plan_appliance_steps.cc
    Status begin_appliance_script(const PlanRun& run, const PlanStep& step);
    std::optional<StepOutcome> look_appliance_script(const PlanRun& run, const PlanStep& step);
    void end_appliance_script(const PlanStep& step);
    void forget_appliance_script(const PlanStep& step);
    std::optional<StepOutcome> start_guest_script(const std::string& recovery, const PlanRun& run,
                                                  const PlanStep& step, std::string& reference);
    void deliver(const PlanRun& run, const PlanStep& step);
    std::optional<StepOutcome> look_item(const PlanRun& run, const PlanStep& step,
                                         std::string& reference);
    std::optional<StepOutcome> look_script(const PlanRun& run, const PlanStep& step);
    std::optional<StepOutcome> look_guest_script(const PlanRun& run, const PlanStep& step,
                                                 std::string& reference);
    std::optional<StepOutcome> look_answer(const PlanStep& step);

    Options options_;
    std::map<std::string, Error> refused_;     // by handle: why it could not be begun
    std::map<std::string, int64_t> again_us_;  // by handle: when it is begun again, steady
    std::set<std::string> noted_;              // handles of which `starting` was noted here
    std::set<std::string> not_started_;        // handles of which no job that is there has a thread
    std::map<std::string, std::string> references_;  // by handle
    std::map<std::string, uint64_t> seen_;           // by handle: `answered` when it was asked last
    std::shared_ptr<Delivery> delivery_;             // of the webhook that is told, the newest
};

}  // namespace farshore
