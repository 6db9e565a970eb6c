#include "replica/retention_cost.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr int64_t kHour = 3'600'000'000, kDay = 24 * kHour;

// Broken if what a longer slot needs came out less than a shorter one's, more than the whole state,
// or was not what was seen.
TEST(RetentionCost, FreshBytesFollowWhatWasSeen) {
    ChangeSeen seen;
    seen.live_bytes = 1000;
    seen.fresh = {{kHour, 100}, {2 * kHour, 150}, {kHour, 80}};
    EXPECT_EQ(fresh_bytes(seen, kHour), 100u);
    EXPECT_EQ(fresh_bytes(seen, 2 * kHour), 150u);
    EXPECT_EQ(fresh_bytes(seen, kHour / 2), 50u);
    EXPECT_EQ(fresh_bytes(seen, kHour + kHour / 2), 125u);
    // It grew 1.5 times where the span doubled, and goes on so.
    EXPECT_NEAR(double(fresh_bytes(seen, 4 * kHour)), 225, 2);
    EXPECT_EQ(fresh_bytes(seen, 100'000 * kDay), 1000u);
    EXPECT_EQ(fresh_bytes(seen, 0), 0u);
    uint64_t last = 0;
    for (int64_t span = 0; span < 100 * kDay; span += 1'234'567'890) {
        const uint64_t bytes = fresh_bytes(seen, span);
        EXPECT_GE(bytes, last);
        last = bytes;
    }
}

// Broken if an item that was not watched yet seemed to cost nothing.
TEST(RetentionCost, WithoutComparisonsEachWriteCounts) {
    ChangeSeen seen;
    seen.live_bytes = 1'000'000;
    seen.written_bytes = 3600;
    seen.written_us = kHour;
    EXPECT_EQ(fresh_bytes(seen, 2 * kHour), 7200u);
    EXPECT_EQ(fresh_bytes({}, kHour), 0u);
}

TEST(RetentionCost, AddsUpWindowAndSteps) {
    ChangeSeen seen;
    seen.live_bytes = 1000;
    seen.map_bytes = 10;
    seen.written_bytes = 7200;
    seen.written_us = 2 * kHour;
    seen.stored_per_written = 0.5;
    seen.fresh = {{kHour, 100}, {kDay, 100}};
    const RetentionCost cost =
        retention_cost(seen, 2 * kHour, *RetentionGrid::parse("1h:1d, 1d:30d"));
    EXPECT_EQ(cost.newest_bytes, 510u);
    EXPECT_EQ(cost.window_bytes, 3600u);
    ASSERT_EQ(cost.steps.size(), 2u);
    EXPECT_EQ(cost.steps[0].points, 22u);
    EXPECT_EQ(cost.steps[0].bytes, 22u * 51);
    EXPECT_EQ(cost.steps[1].points, 29u);
    EXPECT_EQ(cost.total_bytes, 510u + 3600 + 51 * 51);
}

}  // namespace
}  // namespace farshore
