// Time that a fuzz target moves: executor and clock in one, on one thread.
#pragma once

#include <algorithm>
#include <deque>
#include <map>

#include "base/seams.h"

namespace farshore {

class ManualTime final : public Executor, public Clock {
  public:
    TimePoint now() const override { return {1'700'000'000'000'000 + now_us_}; }
    int64_t steady_us() const override { return now_us_; }
    void post(Task task) override { tasks_.push_back(std::move(task)); }
    TimerId post_after_us(int64_t delay_us, Task task) override {
        timers_.emplace(std::pair(now_us_ + std::max<int64_t>(delay_us, 0), ++last_),
                        std::move(task));
        return last_;
    }
    void cancel(TimerId timer) override {
        std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer; });
    }
    // Runs what is due. Bounded, so that what posts itself again ends.
    void advance(int64_t by_us) {
        const int64_t end_us = now_us_ + by_us;
        for (int steps = 0; steps < 100'000; ++steps) {
            while (!tasks_.empty()) {
                const Task task = std::move(tasks_.front());
                tasks_.pop_front();
                task();
            }
            if (timers_.empty() || timers_.begin()->first.first > end_us) break;
            auto timer = timers_.extract(timers_.begin());
            now_us_ = std::max(now_us_, timer.key().first);
            timer.mapped()();
        }
        now_us_ = end_us;
    }

  private:
    int64_t now_us_ = 1;
    uint64_t last_ = 0;
    std::deque<Task> tasks_;
    std::map<std::pair<int64_t, uint64_t>, Task> timers_;
};

}  // namespace farshore
