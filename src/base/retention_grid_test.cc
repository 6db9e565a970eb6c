#include "base/retention_grid.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace farshore {
namespace {

constexpr int64_t kMinute = 60'000'000, kHour = 60 * kMinute, kDay = 24 * kHour;

RetentionGrid grid_of(std::string_view text) {
    auto grid = RetentionGrid::parse(text);
    EXPECT_TRUE(grid) << grid.error().to_string();
    return *grid;
}

// Broken if what a person wrote meant something else after it was stored and read again.
TEST(RetentionGrid, ReadsAndWritesSteps) {
    const RetentionGrid grid = grid_of(" 1h:1d,2h : 7d, 4h:15d,1d:1y");
    ASSERT_EQ(grid.steps().size(), 4u);
    EXPECT_EQ(grid.steps()[0], (GridStep{kHour, kDay}));
    EXPECT_EQ(grid.steps()[3], (GridStep{kDay, 365 * kDay}));
    EXPECT_EQ(grid.text(), "1h:1d, 2h:1w, 4h:15d, 1d:1y");
    EXPECT_EQ(grid_of(grid.text()).steps(), grid.steps());
    EXPECT_TRUE(grid_of("").empty());
    EXPECT_EQ(grid_of("90m:36h").text(), "90m:36h");
}

// Broken if nonsense were taken, or its error did not say what is wrong.
TEST(RetentionGrid, RefusesWhatIsNoGrid) {
    for (const char* text :
         {"1h", "1h:", ":1d", "1h:1d,", ",", "1h:1d 2h:7d", "1x:1d", "-1h:1d", "0h:1d", "1h:30m",
          "30s:1d", "2h:1d,1h:7d", "1h:7d,2h:1d", "1h:1d,1h:7d", "1h:99999999999999999999y",
          "1h:200y", "h:d", "1 h:1d"}) {
        const auto grid = RetentionGrid::parse(text);
        ASSERT_FALSE(grid) << text;
        EXPECT_EQ(grid.error().code(), Code::kInvalidArgument) << text;
        EXPECT_FALSE(grid.error().remedy().empty());
    }
    EXPECT_FALSE(RetentionGrid::parse(std::string(300, ' ')));
}

// Broken if a consistent point gave way to a plain one, or a slot kept two.
TEST(RetentionGrid, OfASlotTheBestStays) {
    const RetentionGrid grid = grid_of("1h:1d");
    const TimePoint now{100 * kHour};
    const std::vector<RetentionGrid::Point> points{
        {{90 * kHour + 1}, 0},        {{90 * kHour + 10}, 2}, {{90 * kHour + 20}, 2},
        {{90 * kHour + 30}, 1},       {{90 * kHour + 40}, 0}, {{91 * kHour + 1}, 0},
        {{91 * kHour + 2}, 0},        {{92 * kHour}, 1},      {{92 * kHour + 5}, 1},
        {{100 * kHour - kDay - 1}, 2}};
    EXPECT_EQ(grid.choose(points, now), (std::vector<bool>{false, true, false, false, false, false,
                                                           true, true, false, false}));
}

// Broken if thinning step by step, whenever it runs, left a slot that had points without one; kept
// more than the grid says; or kept what is too old.
TEST(RetentionGrid, ThinningByAndByLeavesNoHole) {
    std::mt19937_64 random(7);
    for (int round = 0; round < 20; ++round) {
        const RetentionGrid grid = grid_of("1h:1d, 2h:7d, 4h:15d, 1d:60d");
        std::vector<RetentionGrid::Point> kept;
        int64_t now = 1'000 * kDay;
        const int64_t begin = now;
        while (now < begin + 90 * kDay) {
            const int64_t step = static_cast<int64_t>(random() % (3 * kHour));
            for (int64_t at = now; at < now + step; at += 20 * kMinute)
                kept.push_back({{at}, random() % 12 == 0 ? 2 : 0});
            now += step;
            const std::vector<bool> stays = grid.choose(kept, {now});
            std::vector<RetentionGrid::Point> left;
            for (size_t i = 0; i < kept.size(); ++i)
                if (stays[i]) left.push_back(kept[i]);
            kept = left;
        }
        for (const GridStep& step : grid.steps()) {
            std::set<int64_t> slots;
            for (const auto& point : kept) slots.insert(point.time.us / step.every_us);
            // Each whole slot within the age has one.
            for (int64_t slot = (now - step.until_us) / step.every_us + 1;
                 slot < (now - 3 * kHour) / step.every_us; ++slot)
                ASSERT_TRUE(slots.contains(slot)) << "slot of " << step.every_us / kHour << " h";
        }
        EXPECT_LE(kept.size(), grid.slots(0, now - begin) + 2 * grid.steps().size());
        EXPECT_GE(kept.front().time.us, now - 60 * kDay);
    }
}

}  // namespace
}  // namespace farshore
