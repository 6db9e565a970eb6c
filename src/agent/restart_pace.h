// How soon what has ended is started again: at once when it had lived for a while, later and later
// when it ends as soon as it is started. One thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>

namespace farshore {

class RestartPace {
  public:
    static constexpr int64_t kYoungUs = 2'000'000;
    static constexpr int64_t kFirstUs = 200'000;
    static constexpr int64_t kMostUs = 5'000'000;

    // It is found to have ended, by the steady clock, perhaps not for the first time: whether it is
    // to be started now. True means that it is.
    bool start_now(int64_t now_us) {
        if (!waiting_) {
            waiting_ = true;
            const bool young = started_us_ != 0 && now_us - started_us_ < kYoungUs;
            delay_us_ = young ? std::clamp(2 * delay_us_, kFirstUs, kMostUs) : 0;
            due_us_ = now_us + delay_us_;
        }
        if (now_us < due_us_) return false;
        waiting_ = false;
        started_us_ = now_us;
        return true;
    }

  private:
    bool waiting_ = false;
    int64_t started_us_ = 0;
    int64_t delay_us_ = 0;
    int64_t due_us_ = 0;
};

}  // namespace farshore
