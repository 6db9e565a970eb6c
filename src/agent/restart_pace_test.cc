#include "agent/restart_pace.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if a tap that ends at once were started several times a second for as long as it does, or
// if one that had lived were waited for while a guest's writes do.
TEST(RestartPace, WhatEndsAtOnceIsStartedLaterAndLater) {
    RestartPace pace;
    int64_t now_us = 1'000'000;
    EXPECT_TRUE(pace.start_now(now_us));
    int starts = 0;
    for (const int64_t end_us = now_us + 60'000'000; now_us < end_us; now_us += 200'000)
        if (pace.start_now(now_us)) ++starts;
    EXPECT_GE(starts, 10) << "it is not given up";
    EXPECT_LE(starts, 20);
    now_us += RestartPace::kMostUs;
    ASSERT_TRUE(pace.start_now(now_us));
    now_us += RestartPace::kYoungUs;
    EXPECT_TRUE(pace.start_now(now_us)) << "it had lived";
    EXPECT_FALSE(pace.start_now(now_us + 100'000));
    EXPECT_TRUE(pace.start_now(now_us + 100'000 + RestartPace::kFirstUs));
}

}  // namespace
}  // namespace farshore
