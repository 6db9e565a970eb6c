#include "capture/write_gate.h"

#include <algorithm>
#include <chrono>

namespace farshore {

void WriteGate::open() {
    closed_ = false;
    hold_ = 0;
    opened_.notify_all();
}

bool WriteGate::may_pass(uint64_t& arrival) {
    if (!closed_) return true;
    const std::lock_guard guard(mutex_);
    if (arrival == 0) arrival = closings_;
    // Who waited long enough opens it for all: from here on mark() refuses the point.
    if (closed_ && clock_.steady_us() >= until_us_) open();
    return !waits(arrival);
}

void WriteGate::pass() {
    if (!closed_) return;
    std::unique_lock guard(mutex_);
    const uint64_t arrival = closings_;
    while (waits(arrival)) {
        const int64_t left_us = until_us_ - clock_.steady_us();
        if (left_us <= 0) {
            open();
            return;
        }
        opened_.wait_for(guard, std::chrono::microseconds(std::min(left_us, kMaxHoldUs)));
    }
}

Status WriteGate::hold(uint64_t hold, int64_t until_us) {
    const std::lock_guard guard(mutex_);
    const int64_t now_us = clock_.steady_us();
    if (closed_ && now_us >= until_us_) open();
    if (closed_ && hold_ == hold) return {};
    if (closed_) return fail(Code::kWrongState, "writes are held for another point");
    if (now_us >= until_us) return fail(Code::kTimeout, "the order to hold writes came too late");
    hold_ = hold;
    until_us_ = std::min(until_us, now_us + kMaxHoldUs);
    ++closings_;
    closed_ = true;
    return {};
}

Status WriteGate::mark(uint64_t hold, const std::function<Status()>& mark) {
    const std::lock_guard guard(mutex_);
    if (!closed_ || hold_ != hold)
        return fail(Code::kTimeout, "the writes were let go before the point was made");
    const Status marked = mark();
    open();
    return marked;
}

void WriteGate::let_go(uint64_t hold) {
    const std::lock_guard guard(mutex_);
    if (closed_ && hold_ == hold) open();
}

}  // namespace farshore
