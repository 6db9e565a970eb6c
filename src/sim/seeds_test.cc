#include "sim/seeds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>

namespace farshore {
namespace {

using testing::HasSubstr;

// Broken: seeds left out or run twice, failures lost, or a report that cannot be acted on.
TEST(Seeds, AllRunOnceAndFailuresAreReported) {
    if (std::getenv("FARSHORE_SEED") != nullptr || std::getenv("FARSHORE_SEEDS") != nullptr)
        GTEST_SKIP() << "the environment picks the seeds";
    std::atomic<uint64_t> sum{0};
    const SeedReport good =
        run_seeds("good", {.first = 5, .count = 100, .threads = 3}, [&](uint64_t seed) {
            sum += seed;
            return std::string();
        });
    EXPECT_TRUE(good.ok());
    EXPECT_EQ(good.runs, 100u);
    EXPECT_EQ(sum, 100u * (5 + 104) / 2);
    const SeedReport bad = run_seeds("bad", {.count = 1000, .stop_after = 2}, [](uint64_t seed) {
        return seed % 10 == 0 ? std::string("it broke") : std::string();
    });
    EXPECT_GE(bad.failures.size(), 2u);
    EXPECT_LT(bad.runs, 100u);
    EXPECT_THAT(bad.text(), HasSubstr("bad seed 10 (repeat with FARSHORE_SEED=10): it broke"));
    EXPECT_EQ(first_failing_seed(1, 1000, [](uint64_t s) { return s >= 77 ? "x" : ""; }), 77u);
    EXPECT_EQ(first_failing_seed(1, 50, [](uint64_t) { return std::string(); }), 0u);
}

// Broken: seeds that once failed are not run again.
TEST(Seeds, RegressionsComeFirst) {
    if (std::getenv("FARSHORE_SEED") != nullptr) GTEST_SKIP() << "the environment picks the seed";
    const std::string text = "# comment\nmine 4711 # found a lost GAP\nother 1\nmine 12\n";
    std::vector<uint64_t> seen;
    (void)run_seeds("mine", {.count = 1, .threads = 1, .regressions = text}, [&](uint64_t seed) {
        seen.push_back(seed);
        return std::string();
    });
    ASSERT_GE(seen.size(), 3u);
    EXPECT_EQ(seen[0], 4711u);
    EXPECT_EQ(seen[1], 12u);
    EXPECT_EQ(seen[2], 1u);
}

// Broken: a hunt in portions runs the same seeds again and again.
TEST(Seeds, TheEnvironmentSaysWhereToBegin) {
    if (std::getenv("FARSHORE_SEED") != nullptr) GTEST_SKIP() << "the environment picks the seed";
    setenv("FARSHORE_FIRST_SEED", "2001", 1);
    uint64_t seen = 0;
    (void)run_seeds("mine", {.count = 1, .threads = 1}, [&](uint64_t seed) {
        if (seen == 0) seen = seed;
        return std::string();
    });
    unsetenv("FARSHORE_FIRST_SEED");
    EXPECT_EQ(seen, 2001u);
}

// Broken: a check that ends the program does not say for which seed.
TEST(SeedsDeathTest, AnAbortNamesItsSeed) {
    if (std::getenv("FARSHORE_SEED") != nullptr) GTEST_SKIP() << "the environment picks the seed";
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH((void)run_seeds("aborts", {.first = 31, .count = 1},
                                 [](uint64_t) -> std::string { std::abort(); }),
                 "seed 31");
}

}  // namespace
}  // namespace farshore
