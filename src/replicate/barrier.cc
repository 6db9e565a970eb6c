#include "replicate/barrier.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

Barrier::Barrier(BarrierOrder first, int64_t now_us, const BarrierLimits& limits)
    : limits_(limits), order_(std::move(first)), done_(order_.members.size()) {
    order_.step = BarrierStep::kReady;
    for (const BarrierMember& member : order_.members) {
        index_.emplace(member.item, outcomes_.size());
        outcomes_.push_back({member.item, {}, {}, {}});
    }
    deadline_us_ = now_us + limit_us();
}

int64_t Barrier::limit_us() const {
    switch (order_.step) {
        case BarrierStep::kReady:
            return limits_.ready_us;
        case BarrierStep::kPrepare:
            return order_.kind == PointKind::kApplication ? limits_.quiesce_us : limits_.prepare_us;
        case BarrierStep::kFreeze:
            return limits_.freeze_us;
        case BarrierStep::kHold:
            return limits_.hold_us;
        default:
            return limits_.mark_us;
    }
}

void Barrier::fail_member(size_t index, const Error& error) {
    outcomes_[index].error = error;
    if (state_ != State::kRunning) return;
    state_ = State::kVoid;
    error_ = error;
}

void Barrier::report(const BarrierReport& report, int64_t now_us) {
    if (state_ == State::kMade || report.step > BarrierStep::kMark) return;
    for (const MemberOutcome& one : report.members) {
        const auto found = index_.find(one.item);
        // What is said of a step that nobody was told to do, is not believed.
        if (found == index_.end() || report.step > order_.step) continue;
        const size_t at = found->second;
        if (one.error) {
            // An appliance that has lost the agent says so of every step; one that has it knows
            // better.
            if (done_[at] && *done_[at] >= report.step) continue;
            fail_member(at, *one.error);
            continue;
        }
        if (report.step == BarrierStep::kMark) {
            if (one.sequence.v == 0) continue;
            outcomes_[at].sequence = one.sequence;
            outcomes_[at].time = one.time;
        }
        done_[at] = std::max(done_[at].value_or(report.step), report.step);
    }
    advance(now_us);
}

void Barrier::advance(int64_t now_us) {
    if (state_ != State::kRunning) return;
    const auto reached = [&](const std::optional<BarrierStep>& done) {
        return done && *done >= order_.step;
    };
    const bool all = limits_.planted_does_not_wait && order_.step == BarrierStep::kHold
                         ? std::ranges::any_of(done_, reached)
                         : std::ranges::all_of(done_, reached);
    if (!all) return;
    if (order_.step == BarrierStep::kMark) {
        state_ = State::kMade;
        barrier_us_ = std::max<int64_t>(now_us - held_us_, 1);
        return;
    }
    order_.step = static_cast<BarrierStep>(static_cast<uint8_t>(order_.step) + 1);
    if (order_.step == BarrierStep::kFreeze && order_.kind != PointKind::kApplication)
        order_.step = BarrierStep::kHold;
    if (order_.step == BarrierStep::kHold) held_us_ = now_us;
    deadline_us_ = now_us + limit_us();
}

void Barrier::tick(int64_t now_us) {
    if (state_ != State::kRunning || now_us < deadline_us_) return;
    for (size_t i = 0; i < done_.size(); ++i) {
        if (done_[i] && *done_[i] >= order_.step) continue;
        const std::string& agent = order_.members[i].agent;
        fail_member(i, Error(Code::kTimeout,
                             order_.step == BarrierStep::kReady
                                 ? fmt::format("agent '{}' cannot be reached", agent)
                                 : fmt::format("agent '{}' did not answer in time ({})", agent,
                                               barrier_step_name(order_.step)),
                             "look at the agent, its appliance and the line between; the next "
                             "point is tried when it is due"));
    }
}

void Barrier::give_up(const Error& error) {
    if (state_ != State::kRunning) return;
    state_ = State::kVoid;
    error_ = error;
}

std::optional<BarrierStep> Barrier::next(BarrierStep done) const {
    if (state_ == State::kVoid) return BarrierStep::kAbandon;
    if (done < order_.step) return order_.step;
    return std::nullopt;
}

}  // namespace farshore
