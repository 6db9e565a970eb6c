// What decides about an item's state and health: pure functions of what the agent said, what the
// ledger holds and what time it is. The vault does what they say.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

// A newest point older than this makes an item catching-up; younger than the other, protected
// again.
inline constexpr int64_t kCatchingUpAfterUs = 30'000'000;
inline constexpr int64_t kCaughtUpBelowUs = 10'000'000;
// An agent that was not heard of for so long is lost.
inline constexpr int64_t kAgentLostUs = 15'000'000;
// So many times over its threshold (ItemPolicy::rpo_threshold_s) an RPO is critical.
inline constexpr int64_t kRpoCriticalTimes = 5;

struct DriveInputs {
    ItemState state = ItemState::kEnabling;
    std::optional<AgentItemState>
        agent;  // what it said last; none: nothing since the vault started
    bool agent_gap = false;
    bool has_point = false;  // the replica offers at least one
    bool replica_gap = false;
    int64_t rpo_us = 0;  // of the newest point; only looked at with has_point
};

// The state that the item should have now: `state` itself unless it is one that replication drives.
ItemState next_item_state(const DriveInputs& inputs);

// Consistent points by policy: at most one is under way, and a failed one is tried again when the
// next is due.
inline constexpr uint32_t kMinConsistentIntervalS = 300;
inline constexpr uint32_t kMaxConsistentIntervalS = 43'200;
// An agent that came back has this long to answer what it was asked before.
inline constexpr int64_t kConsistentPatienceUs = 60'000'000;

struct ConsistentInputs {
    uint32_t interval_s = 0;  // 0: none are wanted
    // Protected, and its agent captures without a gap; and for how long it has been so.
    bool ready = false;
    int64_t ready_us = 0;
    bool pending = false;   // one was asked for, and neither failed nor is known to be stored
    bool stored = false;    // the pending one is
    TimePoint asked, made;  // as in ConsistentState
    TimePoint now;
};
enum class ConsistentStep : uint8_t { kWait, kAsk, kDone, kGiveUp };
ConsistentStep next_consistent_step(const ConsistentInputs& inputs);

struct Trouble {
    Severity severity = Severity::kWarning;
    std::string code;
    std::string cause;
    std::string remedy;
};

struct HealthInputs {
    ItemState state = ItemState::kEnabling;
    int64_t in_state_us = 0;
    std::string agent;            // empty: none captures it
    bool agent_heard = false;     // since the vault started
    int64_t agent_silent_us = 0;  // since it was heard; else since it could have been
    std::optional<ItemError> error;
    std::optional<int64_t> rpo_us;
    int64_t rpo_threshold_us = 60'000'000;
    std::optional<ItemError> resync_failing;    // why the comparison that runs stands still
    std::optional<ItemError> consistent_error;  // of the newest consistent point of the policy
    int64_t consistent_interval_us = 0;         // 0: none are wanted
    std::optional<int64_t> consistent_age_us;   // of the newest one; none: there is none
    int64_t clock_ahead_us = 0;                 // the source's clock minus ours
    bool fenced = false;
};
// A part's own error as a trouble of the item: `who` is the part.
Trouble trouble_of(const Error& error, std::string_view who);

std::vector<Trouble> item_troubles(const HealthInputs& inputs);
// "normal", "warning" or "critical": the worst of them.
std::string_view health_name(const std::vector<Trouble>& troubles);

// The worst of what was sampled within the last hour, in minutes' grains: 61 numbers, whatever the
// rate.
class WorstOfHour {
  public:
    void sample(int64_t steady_us, int64_t value);
    // None when nothing was sampled in the last hour.
    std::optional<int64_t> worst(int64_t steady_us) const;

  private:
    struct Minute {
        int64_t minute = 0;
        int64_t worst = 0;
    };
    std::deque<Minute> minutes_;
};

}  // namespace farshore
