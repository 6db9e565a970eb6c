#include "vault/item_drive.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if a state were entered that the table does not know, whatever the agent says.
TEST(ItemDrive, NeverLeavesTheTable) {
    for (int s = 0; s < kItemStates; ++s)
        for (int agent = -1; agent < 6; ++agent)
            for (int bits = 0; bits < 8; ++bits)
                for (int64_t rpo_us : {int64_t{0}, kCaughtUpBelowUs + 1, kCatchingUpAfterUs + 1}) {
                    DriveInputs in;
                    in.state = static_cast<ItemState>(s);
                    if (agent >= 0) in.agent = static_cast<AgentItemState>(agent);
                    in.agent_gap = bits & 1;
                    in.has_point = bits & 2;
                    in.replica_gap = bits & 4;
                    in.rpo_us = rpo_us;
                    const ItemState next = next_item_state(in);
                    EXPECT_TRUE(check_transition(in.state, next))
                        << item_state_name(in.state) << " -> " << item_state_name(next);
                    if (next == ItemState::kProtected && in.state != ItemState::kProtected) {
                        EXPECT_TRUE(in.has_point && !in.replica_gap);
                    }
                }
}

// Broken if a wall clock that is set back stopped consistent points for good.
TEST(ItemDrive, ConsistentPointsSurviveTheClock) {
    ConsistentInputs in;
    in.interval_s = 3600;
    in.ready = true;
    in.now.us = 1'000'000'000'000;
    in.asked.us = in.now.us + 1'000'000;
    EXPECT_EQ(next_consistent_step(in), ConsistentStep::kWait);
    in.asked.us = in.now.us + 3'601'000'000;
    EXPECT_EQ(next_consistent_step(in), ConsistentStep::kAsk);
    in.interval_s = 0;
    EXPECT_EQ(next_consistent_step(in), ConsistentStep::kWait);
}

TEST(ItemDrive, WorstOfHourForgetsAfterAnHour) {
    WorstOfHour worst;
    EXPECT_FALSE(worst.worst(0));
    worst.sample(0, 7);
    for (int64_t minute = 1; minute <= 60; ++minute) worst.sample(minute * 60'000'000, 2);
    EXPECT_EQ(worst.worst(60 * 60'000'000ll), 7);
    worst.sample(61 * 60'000'000ll, 3);
    EXPECT_EQ(worst.worst(61 * 60'000'000ll), 3);
    EXPECT_FALSE(worst.worst(200 * 60'000'000ll));
}

}  // namespace
}  // namespace farshore
