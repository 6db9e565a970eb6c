// Who decides about one shared point (docs/design/groups.md): lets all members come to one step
// before any goes on to the next, and gives the point up when one cannot, or is too slow. Pure: no
// I/O, no locks, time is an argument (steady, microseconds). Owned by the vault; what appliances
// report goes in, what they shall do comes out.
//
// That a point that was made is right needs one thing of this class: the first kMark is given only
// when every member has said kHold. No clock is part of it; times only bound how long it takes.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "replicate/shared_point.h"

namespace farshore {

struct BarrierLimits {
    int64_t ready_us = 6'000'000;     // agents are found: appliances ask each second
    int64_t prepare_us = 1'000'000;   // without scripts
    int64_t quiesce_us = 40'000'000;  // with scripts
    int64_t freeze_us = 8'000'000;
    int64_t hold_us = 1'000'000;   // longer than any hold lasts
    int64_t mark_us = 15'000'000;  // file systems are thawed in it
    // A bug that the simulation must find: the first answer is taken for all.
    bool planted_does_not_wait = false;
};

class Barrier {
  public:
    enum class State : uint8_t { kRunning, kMade, kVoid };

    // `members` is not empty and has no item twice.
    Barrier(BarrierOrder first, int64_t now_us, const BarrierLimits& limits = {});

    // What an appliance says of members. Of several words about one member the best counts: an
    // agent that came by another way may stand in two appliances' books.
    void report(const BarrierReport& report, int64_t now_us);
    // Gives it up when the time of the step is over.
    void tick(int64_t now_us);
    // For the vault's own end.
    void give_up(const Error& error);
    // When tick() is due.
    int64_t deadline_us() const { return deadline_us_; }

    State state() const { return state_; }
    // What is to be done now by who has done `done` last; none: wait. kAbandon once it is void.
    std::optional<BarrierStep> next(BarrierStep done) const;
    const BarrierOrder& order() const { return order_; }  // its step: the one that all are to do
    // Of each member, in the order given: its POINT, or why there is none.
    const std::vector<MemberOutcome>& outcomes() const { return outcomes_; }
    // Why it is void.
    const std::optional<Error>& error() const { return error_; }
    // From the order to hold until the last word about a point; for whoever measures. 0: not yet.
    int64_t barrier_us() const { return barrier_us_; }

  private:
    void advance(int64_t now_us);
    void fail_member(size_t index, const Error& error);
    int64_t limit_us() const;

    const BarrierLimits limits_;
    BarrierOrder order_;
    State state_ = State::kRunning;
    int64_t deadline_us_ = 0;
    int64_t held_us_ = 0, barrier_us_ = 0;
    std::map<ItemId, size_t> index_;
    // By member: the newest step that it has done; none: not heard of.
    std::vector<std::optional<BarrierStep>> done_;
    std::vector<MemberOutcome> outcomes_;
    std::optional<Error> error_;
};

}  // namespace farshore
