// What decides about comparisons that can wait, and whether one that runs gets anywhere: pure
// functions of what is planned, what the agent said and what time it is. docs/design/resync.md §8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/weekly_windows.h"
#include "meta/records.h"

namespace farshore {

inline constexpr uint32_t kMinVerifyIntervalS = 3600;
inline constexpr uint32_t kMaxVerifyIntervalS = 31'536'000;
// A comparison that neither waits nor got on for so long, with all its retries, is failing.
inline constexpr int64_t kResyncStuckUs = 60'000'000;

struct ResyncInputs {
    ResyncPlan plan;
    uint32_t verify_interval_s = 0;
    bool window_open = false;
    // Protected, and its agent captures without a gap.
    bool healthy = false;
    std::optional<ResyncState> agent;  // what it compares; none: it is not heard
    std::string agent_begun;           // the request that it began last
    bool request_pending = false;      // it was told, and has not said that it began
    TimePoint created, now;
};
enum class ResyncStep : uint8_t {
    kWait,
    kPlan,    // by the policy, a comparison is due: it waits for its window from here on
    kAsk,     // the agent is to begin
    kBegun,   // it has
    kFinish,  // it came to its end
};
ResyncStep next_resync_step(const ResyncInputs& inputs);

// What the agent is told of comparisons that run. What somebody asked for at once never waits;
// what the item needs to be protected again only where its policy says so.
ResyncHold resync_hold(const ResyncPlan& plan, bool window_open, bool windows_for_all);

// Watches whether a comparison gets on. Not thread-safe.
class ResyncWatch {
  public:
    struct Sight {
        bool due = false;       // something is compared or asked for, and does not wait
        uint64_t progress = 0;  // whatever changes while it gets on
        uint64_t read_errors = 0;
        int64_t steady_us = 0;
    };
    void look(const Sight& sight);
    bool failing(int64_t steady_us) const {
        return due_ && steady_us - since_us_ >= kResyncStuckUs;
    }
    // Of the source, since it got on last.
    bool cannot_read() const { return read_errors_ != read_errors_before_; }

  private:
    bool due_ = false;
    uint64_t progress_ = 0;
    uint64_t read_errors_ = 0, read_errors_before_ = 0;
    int64_t since_us_ = 0;
};

}  // namespace farshore
