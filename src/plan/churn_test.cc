#include "plan/churn.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000, kDayUs = 86'400'000'000;

ChangeRow row(int64_t grain_s, int64_t start_us, uint64_t bytes, DiskIndex disk = 0) {
    ChangeRow row;
    row.grain_s = grain_s;
    row.start_us = start_us;
    row.disk = disk;
    row.written_bytes = bytes;
    return row;
}

// Broken if minutes in which nothing was written were left out (a night would count for nothing),
// or one that is not over counted as a quiet one.
TEST(Churn, EverySlotThatIsOverIsThere) {
    ChurnOf churn;
    const int64_t start = 100 * kDayUs;
    churn.add({row(60, start, 5), row(60, start, 6, 1), row(60, start + 3 * kMinuteUs, 7),
               row(60, start + 5 * kMinuteUs, 9)},
              {start - 90 * 1'000'000});
    churn.add({row(60, start + 3 * kMinuteUs, 100)}, {start + 2 * kMinuteUs});
    const auto series = churn.series({start + 5 * kMinuteUs + 1});
    ASSERT_EQ(series.size(), 1u) << "no hour is over";
    EXPECT_EQ(series[0].interval_us, kMinuteUs);
    // From the first whole minute of the item that was there first.
    EXPECT_EQ(series[0].bytes, (std::vector<uint64_t>{0, 11, 0, 0, 107, 0}));
}

// Broken if what is kept no more counted as nothing written.
TEST(Churn, BothGrainsReachAsFarAsTheyAreKept) {
    ChurnOf churn;
    const int64_t now = 200 * kDayUs;
    churn.add({row(3600, now - 3'600'000'000, 42), row(60, now - kMinuteUs, 42)}, {0});
    const auto series = churn.series({now});
    ASSERT_EQ(series.size(), 2u);
    EXPECT_EQ(series[0].seen_us(), 2 * kDayUs);
    EXPECT_EQ(series[0].bytes.back(), 42u);
    EXPECT_EQ(series[1].seen_us(), 60 * kDayUs);
    EXPECT_EQ(series[1].bytes.back(), 42u);
    EXPECT_TRUE(ChurnOf().series({now}).empty());
}

// Broken if the first minute of an item had no plan, or one by zero.
TEST(Churn, BeforeTheFirstMinuteAllIsOneSlot) {
    ChurnOf churn;
    const int64_t start = 100 * kDayUs;
    churn.add({row(60, start, 500)}, {start + 5'000'000});
    const auto series = churn.series({start + 25'000'000});
    ASSERT_EQ(series.size(), 1u);
    EXPECT_EQ(series[0].interval_us, 20'000'000);
    EXPECT_EQ(series[0].bytes, std::vector<uint64_t>{500});
    EXPECT_EQ(churn.series({start}).at(0).interval_us, 1'000'000);
}

}  // namespace
}  // namespace farshore
