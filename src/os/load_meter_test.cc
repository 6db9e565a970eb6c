#include "os/load_meter.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if waiting for a disk counted as work, or guests' time twice.
TEST(LoadMeter, ReadsWhatTheKernelSays) {
    const auto ticks = parse_cpu_ticks("cpu  10 20 30 400 500 6 7 8 10 20\ncpu0 1 2 3 4\n");
    ASSERT_TRUE(ticks);
    EXPECT_EQ(ticks->busy, 10u + 20 + 30 + 6 + 7 + 8);
    EXPECT_EQ(ticks->all, ticks->busy + 900);
    EXPECT_FALSE(parse_cpu_ticks("intr 5\n"));
    EXPECT_FALSE(parse_cpu_ticks(""));
    EXPECT_EQ(parse_memory_permille("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   250 kB\n"),
              750);
    EXPECT_FALSE(parse_memory_permille("MemTotal: 0 kB\nMemAvailable: 0 kB\n"));
    EXPECT_FALSE(parse_memory_permille("MemTotal: 10 kB\n"));
}

// Broken if a machine with work to do looked idle or the second look was not of the time between.
TEST(LoadMeter, LooksAtThisMachine) {
    LoadMeter meter;
    EXPECT_EQ(meter.look().cpu_permille, -1);
    volatile uint64_t work = 0;
    MachineLoad load;
    while ((load = meter.look()).cpu_permille <= 0)
        for (int i = 0; i < 50'000'000; ++i) work = work + 1;
    EXPECT_LE(load.cpu_permille, 1000);
    EXPECT_GT(load.memory_permille, 0);
    EXPECT_LT(load.memory_permille, 1000);
    EXPECT_GT(load.process_bytes, 1u << 20);
}

TEST(LoadMeter, KnowsWhatADiskHasLeft) {
    const auto space = disk_space("/");
    ASSERT_TRUE(space);
    EXPECT_GT(space->bytes, 0u);
    EXPECT_LE(space->free_bytes, space->bytes);
    EXPECT_FALSE(disk_space("/there/is/none"));
}

}  // namespace
}  // namespace farshore
