// Works off a run of a plan: PlanMachine decides, the run is saved, StepRunner does it. In rounds,
// so that whoever owns the thread decides how long it waits between them.
//
// The order in a round makes a crash at any place harmless: what begins is saved as running before
// it is begun, and a driver that is made anew from the saved run begins all that is running once
// more, which takes it up. One thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "recovery/plan_run.h"

namespace farshore {

// Does steps. Calls return soon (a second or two); what lasts goes on behind them.
class StepRunner {
  public:
    virtual ~StepRunner() = default;
    // Begins the newest attempt of the step, or takes it up when something with that handle was
    // begun before: never twice. Errors come out of look(), too.
    virtual void begin(const PlanRun& run, const PlanStep& step) = 0;
    // Its outcome, once there is one. `reference`: set what the next vault should know; at the next
    // look it is saved.
    virtual std::optional<StepOutcome> look(const PlanRun& run, const PlanStep& step,
                                            std::string& reference) = 0;
    // Its time has passed: it ends soon, which look() says. Asked in each round until then.
    virtual void end(const PlanRun& run, const PlanStep& step) = 0;
    // Nobody wants to know of it any more: forgets it.
    virtual void forget(const PlanRun& run, const PlanStep& step) = 0;
};

class PlanDriver {
  public:
    struct Options {
        StepRunner* runner = nullptr;
        std::function<Status(const PlanRun&)> save;  // durable when it returns
        std::function<std::string()> draw_handle;
        std::string node;
    };
    // Of a run as it was saved last.
    PlanDriver(PlanRun run, Options options);

    const PlanRun& run() const { return machine_.run(); }
    // One round; true when something has changed. Errors of save(): nothing was begun, and the next
    // round begins with saving again.
    Result<bool> round(TimePoint now);
    // A wish of a person, as PlanMachine has them; saved in the next round.
    Status apply(const std::function<Status(PlanMachine&)>& wish);

  private:
    Status save();

    PlanMachine machine_;
    Options options_;
    std::vector<size_t> to_begin_;     // running, not begun yet by this driver
    bool fresh_ = false;               // nor by an earlier one
    std::vector<PlanStep> to_forget_;  // as they were, once it is saved that they are over
    bool dirty_ = false;
};

}  // namespace farshore
