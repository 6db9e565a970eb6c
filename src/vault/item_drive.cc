#include "vault/item_drive.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000;
constexpr int64_t kEnablingPatienceUs = 30'000'000;
constexpr int64_t kClockSkewUs = 2'000'000;
constexpr int64_t kNoPointUs = int64_t{3600} * 1'000'000;

bool captures(const std::optional<AgentItemState>& agent) {
    return agent == AgentItemState::kCopying || agent == AgentItemState::kLive ||
           agent == AgentItemState::kGap;
}

std::string seconds(int64_t us) { return fmt::format("{:.0f} s", static_cast<double>(us) / 1e6); }

}  // namespace

ItemState next_item_state(const DriveInputs& in) {
    switch (in.state) {
        case ItemState::kEnabling:
            return captures(in.agent) ? ItemState::kInitialReplication : in.state;
        case ItemState::kInitialReplication:
            return in.has_point && !in.replica_gap ? ItemState::kProtected : in.state;
        case ItemState::kProtected:
        case ItemState::kCatchingUp:
        case ItemState::kResynchronising: {
            if (in.replica_gap || in.agent_gap || in.agent == AgentItemState::kGap)
                return ItemState::kResynchronising;
            const int64_t limit_us =
                in.state == ItemState::kCatchingUp ? kCaughtUpBelowUs : kCatchingUpAfterUs;
            return !in.has_point || in.rpo_us > limit_us ? ItemState::kCatchingUp
                                                         : ItemState::kProtected;
        }
        default:
            return in.state;
    }
}

ConsistentStep next_consistent_step(const ConsistentInputs& in) {
    if (in.interval_s == 0) return ConsistentStep::kWait;
    if (in.stored) return ConsistentStep::kDone;
    if (!in.ready) return ConsistentStep::kWait;
    // A wall clock that was set back by more than an interval must not stop them.
    const int64_t since_us = in.now.us - std::max(in.asked, in.made).us;
    const int64_t interval_us = int64_t{in.interval_s} * 1'000'000;
    const bool due = since_us >= interval_us || since_us < -interval_us;
    if (!due) return ConsistentStep::kWait;
    if (!in.pending) return ConsistentStep::kAsk;
    return in.ready_us >= kConsistentPatienceUs ? ConsistentStep::kGiveUp : ConsistentStep::kWait;
}

Trouble trouble_of(const Error& error, std::string_view who) {
    std::string remedy = error.remedy();
    if (remedy.empty() && error.code() == Code::kNoSpace)
        remedy = "free space there, or give it more; what waits for it goes on by itself";
    return {Severity::kCritical, std::string(code_name(error.code())),
            fmt::format("{}: {}", who, error.what()), std::move(remedy)};
}

std::vector<Trouble> item_troubles(const HealthInputs& in) {
    std::vector<Trouble> troubles;
    if (in.fenced)
        troubles.push_back(
            {Severity::kCritical, "fenced", "another vault has taken over the store",
             "end this vault; to take the store back, end the other one and start this "
             "one with --take-over"});
    if (in.error)
        troubles.push_back({Severity::kCritical, std::string(code_name(in.error->code)),
                            in.error->what, in.error->remedy});
    if (is_replicating(in.state) || in.state == ItemState::kEnabling) {
        if (in.agent.empty()) {
            if (in.in_state_us > kEnablingPatienceUs)
                troubles.push_back({Severity::kWarning, "no-agent", "no agent captures this item",
                                    "start an agent on its host; `farshore agents` lists them"});
        } else if (in.agent_silent_us > kAgentLostUs) {
            troubles.push_back(
                {Severity::kCritical, "agent-lost",
                 in.agent_heard ? fmt::format("agent '{}' has not been heard of for {}", in.agent,
                                              seconds(in.agent_silent_us))
                                : fmt::format("agent '{}' has not been heard of since this vault "
                                              "started",
                                              in.agent),
                 "look at the agent, its host, and the line; if the site is lost, fail over"});
        }
    }
    if (is_replicating(in.state) && in.rpo_us && *in.rpo_us > in.rpo_threshold_us)
        troubles.push_back(
            {*in.rpo_us / kRpoCriticalTimes > in.rpo_threshold_us ? Severity::kCritical
                                                                  : Severity::kWarning,
             "rpo-high", fmt::format("the newest point is {} old", seconds(*in.rpo_us)),
             "`farshore item` shows the lag; the line or the store may be too slow"});
    if (is_replicating(in.state) && in.rpo_us && *in.rpo_us > kNoPointUs)
        troubles.push_back({Severity::kCritical, "no-crash-point",
                            fmt::format("there has been no new point for {:.1f} h",
                                        static_cast<double>(*in.rpo_us) / 3.6e9),
                            "see the other troubles of this item; if the site is lost, fail over"});
    // Two in a row are missing: one may only be late.
    if (is_replicating(in.state) && in.consistent_interval_us != 0) {
        const int64_t age_us = in.consistent_age_us.value_or(in.in_state_us);
        if (age_us > 2 * in.consistent_interval_us + kConsistentPatienceUs)
            troubles.push_back(
                {Severity::kWarning, "no-application-point",
                 fmt::format(
                     "the newest point with frozen file systems is {:.1f} h old; the policy "
                     "wants one every {:.1f} h",
                     static_cast<double>(age_us) / 3.6e9,
                     static_cast<double>(in.consistent_interval_us) / 3.6e9),
                 "see why it cannot be made: `farshore events --item NAME`"});
    }
    if (std::abs(in.clock_ahead_us) > kClockSkewUs)
        troubles.push_back(
            {Severity::kWarning, "clock-skew",
             fmt::format("the source's clock is {} {} the vault's; the RPO is shown without that, "
                         "times of recovery points are the source's",
                         seconds(std::abs(in.clock_ahead_us)),
                         in.clock_ahead_us > 0 ? "ahead of" : "behind"),
             "let both hosts follow one time server"});
    if (in.state == ItemState::kResynchronising)
        troubles.push_back({Severity::kWarning, "resynchronising",
                            "the order of writes was lost; there are no new points until the "
                            "difference was sent again",
                            "wait; a larger spill keeps the order longer"});
    if (in.resync_failing)
        troubles.push_back(
            {in.state == ItemState::kProtected ? Severity::kWarning : Severity::kCritical,
             "resync-failing", in.resync_failing->what, in.resync_failing->remedy});
    if (in.consistent_error)
        troubles.push_back({Severity::kWarning, "consistent-point-failed",
                            in.consistent_error->what, in.consistent_error->remedy});
    return troubles;
}

std::string_view health_name(const std::vector<Trouble>& troubles) {
    Severity worst = Severity::kInformation;
    for (const Trouble& trouble : troubles) worst = std::max(worst, trouble.severity);
    switch (worst) {
        case Severity::kCritical:
            return "critical";
        case Severity::kWarning:
            return "warning";
        default:
            return "normal";
    }
}

void WorstOfHour::sample(int64_t steady_us, int64_t value) {
    const int64_t minute = steady_us / kMinuteUs;
    if (minutes_.empty() || minutes_.back().minute != minute)
        minutes_.push_back({minute, value});
    else
        minutes_.back().worst = std::max(minutes_.back().worst, value);
    while (minutes_.front().minute + 60 < minute) minutes_.pop_front();
}

std::optional<int64_t> WorstOfHour::worst(int64_t steady_us) const {
    std::optional<int64_t> worst;
    for (const Minute& entry : minutes_)
        if (entry.minute + 60 >= steady_us / kMinuteUs)
            worst = std::max(worst.value_or(entry.worst), entry.worst);
    return worst;
}

}  // namespace farshore
