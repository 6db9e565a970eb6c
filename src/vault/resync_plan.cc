#include "vault/resync_plan.h"

namespace farshore {

ResyncStep next_resync_step(const ResyncInputs& in) {
    switch (in.plan.stage) {
        case ResyncStage::kNone: {
            if (in.verify_interval_s == 0 || !in.healthy) return ResyncStep::kWait;
            // The first copy was compared with nothing, but it is young.
            const int64_t since_us = in.now.us - std::max(in.plan.finished, in.created).us;
            const int64_t interval_us = int64_t{in.verify_interval_s} * 1'000'000;
            // A wall clock that was set back by more than an interval must not stop them.
            const bool due = since_us >= interval_us || since_us < -interval_us;
            return due ? ResyncStep::kPlan : ResyncStep::kWait;
        }
        case ResyncStage::kWaiting:
            return in.healthy && in.window_open ? ResyncStep::kAsk : ResyncStep::kWait;
        case ResyncStage::kAsked:
            return in.request_pending ? ResyncStep::kWait : ResyncStep::kBegun;
        case ResyncStage::kRunning:
            if (!in.agent) return ResyncStep::kWait;
            return *in.agent == ResyncState::kDone || *in.agent == ResyncState::kNone
                       ? ResyncStep::kFinish
                       : ResyncStep::kWait;
    }
    return ResyncStep::kWait;
}

ResyncHold resync_hold(const ResyncPlan& plan, bool window_open, bool windows_for_all) {
    const bool at_once = plan.kind == ResyncKind::kNow && plan.stage != ResyncStage::kNone;
    if (window_open || at_once) return ResyncHold::kNone;
    return windows_for_all ? ResyncHold::kAlways : ResyncHold::kWithoutGap;
}

void ResyncWatch::look(const Sight& sight) {
    if (!sight.due || !due_ || sight.progress != progress_) {
        since_us_ = sight.steady_us;
        read_errors_before_ = sight.read_errors;
    }
    due_ = sight.due;
    progress_ = sight.progress;
    read_errors_ = sight.read_errors;
}

}  // namespace farshore
