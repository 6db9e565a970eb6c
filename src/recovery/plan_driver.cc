#include "recovery/plan_driver.h"

#include <utility>

namespace farshore {

PlanDriver::PlanDriver(PlanRun run, Options options)
    : machine_(std::move(run)), options_(std::move(options)) {
    // What an earlier vault has begun, or was about to.
    for (size_t i = 0; i < machine_.run().steps.size(); ++i)
        if (machine_.run().steps[i].state == StepState::kRunning) to_begin_.push_back(i);
}

Status PlanDriver::save() {
    if (!dirty_) return {};
    FS_TRY(options_.save(machine_.run()));
    dirty_ = false;
    return {};
}

Status PlanDriver::apply(const std::function<Status(PlanMachine&)>& wish) {
    FS_TRY(wish(machine_));
    dirty_ = true;
    return {};
}

Result<bool> PlanDriver::round(TimePoint now) {
    bool changed = dirty_;
    const auto settled = [&]() -> Status {
        // What could not be saved for long has not lost its time by that.
        if (fresh_ && dirty_)
            for (const size_t i : to_begin_) machine_.restamp(i, now);
        FS_TRY(save());
        fresh_ = false;
        for (const PlanStep& step : std::exchange(to_forget_, {}))
            options_.runner->forget(machine_.run(), step);
        for (const size_t i : std::exchange(to_begin_, {}))
            options_.runner->begin(machine_.run(), machine_.run().steps[i]);
        return {};
    };
    FS_TRY(settled());
    for (size_t i = 0; i < machine_.run().steps.size(); ++i) {
        const PlanStep& step = machine_.run().steps[i];
        if (step.state != StepState::kRunning) continue;
        std::string reference = step.reference;
        const auto outcome = options_.runner->look(machine_.run(), step, reference);
        if (reference != step.reference) {
            machine_.refer(i, reference);
            dirty_ = changed = true;
        }
        if (!outcome) continue;
        to_forget_.push_back(step);
        machine_.ended(i, *outcome, now);
        dirty_ = changed = true;
    }
    if (!machine_.overdue(now).empty()) dirty_ = changed = true;
    for (const PlanStep& step : machine_.run().steps)
        if (step.state == StepState::kRunning && step.overdue)
            options_.runner->end(machine_.run(), step);
    if (!machine_.withdraw().empty()) dirty_ = changed = true;
    const PlanRunState before = machine_.run().state;
    to_begin_ = machine_.begin(now, options_.draw_handle, options_.node);
    fresh_ = !to_begin_.empty();
    if (!to_begin_.empty() || machine_.run().state != before) dirty_ = changed = true;
    FS_TRY(settled());
    return changed;
}

}  // namespace farshore
