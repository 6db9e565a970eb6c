// Where a tap lets its machine's writes wait for a moment, so that several machines have a common
// point (docs/design/groups.md). Closed by a hold, which ends by its point, by being let go, or by
// itself: the writes that wait look at the time themselves, so no other thread of the tap can make
// them wait longer than kMaxHoldUs.
//
// Owned by the tap; borrows the clock (its steady side). Any thread may call anything. A write that
// passed before the gate closed is not waited for: why that is right is in groups.md.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

// Shorter than what a mirror's watchdog takes for a hung tap (500 ms).
inline constexpr int64_t kMaxHoldUs = 300'000;

class WriteGate {
  public:
    explicit WriteGate(const Clock& clock) : clock_(clock) {}

    // Before a write is begun. Waits while the gate is closed: for the hold that was there when it
    // came. A hold that begins while it waits is not for it: it was issued before.
    void pass();
    // The same without waiting: whether the write may be begun now. `arrival` is 0 when it comes,
    // and the write's own until it passes.
    bool may_pass(uint64_t& arrival);

    // Closes the gate until `until_us` (steady), at most for kMaxHoldUs. When it returns ok, no
    // write that comes later is begun before the hold ends. The same hold again is ok and is not
    // longer for that. kWrongState: another hold is under way; kTimeout: it is later already.
    Status hold(uint64_t hold, int64_t until_us);
    // Runs `mark` if no write was let through since hold(), then opens the gate, whatever `mark`
    // said; no write is begun while it runs. kTimeout: the hold is over, or never was.
    Status mark(uint64_t hold, const std::function<Status()>& mark);
    // Opens the gate if this is what holds it.
    void let_go(uint64_t hold);

  private:
    // With mutex_ held.
    void open();
    bool waits(uint64_t arrival) const { return closed_ && closings_ == arrival; }

    const Clock& clock_;
    std::atomic<bool> closed_{false};  // changes with mutex_ held
    std::mutex mutex_;                 // everything below
    std::condition_variable opened_;
    uint64_t hold_ = 0;
    uint64_t closings_ = 0;  // how often it was closed
    int64_t until_us_ = 0;
};

}  // namespace farshore
