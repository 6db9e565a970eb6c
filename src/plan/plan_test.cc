#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace farshore {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000, kMinute = 60 * kSecond, kHour = 60 * kMinute;
constexpr uint64_t kMb = 1'000'000;

ChurnSeries series(int64_t interval_us, std::vector<uint64_t> bytes) {
    return {interval_us, std::move(bytes)};
}
std::vector<uint64_t> constant(size_t slots, uint64_t bytes) {
    return std::vector<uint64_t>(slots, bytes);
}

// Of a machine that writes `bytes` each minute for a day, which compress by two.
PlanInput steady(uint64_t bytes) {
    PlanInput input;
    input.churn = {series(kMinute, constant(1440, bytes))};
    PlannedItem item;
    item.name = "web";
    item.window_us = 2 * kHour;
    item.seen.live_bytes = 1000 * kMb;
    item.seen.written_bytes = 1440 * bytes;
    item.seen.written_us = 24 * kHour;
    item.seen.stored_per_written = 0.5;
    item.object_bytes = 8 * kMb;
    input.items = {item};
    return input;
}

// Broken if the line were planned for less than is written, or for more than is sent.
TEST(Plan, ASteadyWriterNeedsItsRateCompressed) {
    PlanQuestion question;
    question.rpo_us = 62 * kSecond;  // a minute behind the two seconds of a segment
    const auto plan = make_plan(steady(600 * kMb), question);
    ASSERT_TRUE(plan) << plan.error().to_string();
    EXPECT_DOUBLE_EQ(plan->written_mean, 10e6);
    EXPECT_DOUBLE_EQ(plan->written_p95, 10e6);
    EXPECT_DOUBLE_EQ(plan->written_peak, 10e6);
    // 5 MB/s are sent; a line that is a little slower falls behind by a minute only at the day's
    // end.
    EXPECT_NEAR(double(plan->bandwidth_peak), 5e6, 5e3);
    EXPECT_LE(plan->bandwidth_p95, plan->bandwidth_peak);
    EXPECT_EQ(plan->spool_peak, 4 * 60 * 600 * kMb) << "four hours, as they are written";
    EXPECT_EQ(plan->spool_p95, plan->spool_peak);
    EXPECT_EQ(plan->storage_bytes, 500 * kMb + 7200 * 5 * kMb) << "newest state, two hours";
    EXPECT_EQ(plan->upload_bytes, uint64_t{2'592'000} * 5 * kMb);
    EXPECT_EQ(plan->puts, plan->upload_bytes / (8 * kMb));
    EXPECT_EQ(plan->lists, plan->puts + 259'200) << "one each ten seconds, written or not";
}

// Broken if a burst were planned for as if it went on, or not at all.
TEST(Plan, ABurstMayWaitAsLongAsTheRpo) {
    // A minute of 6 GB, then nothing for 9: 100 MB/s, and the line may take 10 minutes for it.
    ChurnSeries churn = series(kMinute, constant(1000, 0));
    for (size_t i = 0; i < churn.bytes.size(); i += 10) churn.bytes[i] = 6000 * kMb;
    EXPECT_NEAR(double(bandwidth_for(churn, 1, 0, 1)), 100e6, 10) << "nothing may wait";
    // At rate r the end of the minute has 6000 - 60 r waiting, for (6000 - 60 r) / r seconds.
    EXPECT_NEAR(double(bandwidth_for(churn, 1, 60 * kSecond, 1)), 50e6, 10);
    EXPECT_NEAR(double(bandwidth_for(churn, 0.5, 60 * kSecond, 1)), 25e6, 10);
    // Never below what is written on average, however long it may wait.
    EXPECT_NEAR(double(bandwidth_for(churn, 1, 3600 * kSecond, 1)), 10e6, 1);
    // In 80 % of the slots: the burst and the slot behind it may be late.
    EXPECT_LT(bandwidth_for(churn, 1, 60 * kSecond, 0.8), 50 * kMb - 1000);
    EXPECT_EQ(bandwidth_for(series(kMinute, constant(10, 0)), 1, kSecond, 1), 0u);
}

// Broken if a line were called good enough that is not, by the other way of asking.
TEST(Plan, ALineThatWasPlannedHoldsItsRpo) {
    PlanInput input = steady(0);
    input.churn.front().bytes = constant(1440, 0);
    uint64_t seed = 7;
    for (uint64_t& bytes : input.churn.front().bytes) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        bytes = (seed >> 33) % (600 * kMb);
    }
    input.items.front().seen.written_bytes = input.churn.front().total();
    for (const int64_t rpo_s : {5, 30, 120, 900}) {
        PlanQuestion question;
        question.rpo_us = rpo_s * kSecond;
        Plan plan = *make_plan(input, question);
        question.bandwidth = plan.bandwidth_peak;
        const PlanLink enough = *make_plan(input, question)->link;
        EXPECT_EQ(enough.within_rpo, 1.0) << rpo_s;
        EXPECT_LE(enough.worst_delay_us, question.rpo_us + 1000) << rpo_s;
        question.bandwidth = plan.bandwidth_p95;
        const PlanLink mostly = *make_plan(input, question)->link;
        EXPECT_GE(mostly.within_rpo, kPlanShare) << rpo_s;
        EXPECT_LE(mostly.delay_us, question.rpo_us + 1000) << rpo_s;
        question.bandwidth = plan.bandwidth_peak * 9 / 10;
        EXPECT_LT(make_plan(input, question)->link->within_rpo, 1.0) << rpo_s;
    }
}

// Broken if a line that is too slow for ever were given a time to catch up in.
TEST(Plan, ASlowLineNeverCatchesUp) {
    PlanQuestion question;
    question.bandwidth = 4 * kMb;
    const PlanLink slow = *make_plan(steady(600 * kMb), question)->link;
    EXPECT_EQ(slow.worst_delay_us, INT64_MAX);
    EXPECT_FALSE(slow.catch_up_us);
    // A day of 1 MB/s too little, as it is written.
    EXPECT_NEAR(double(slow.backlog_bytes), 86'400 * 2e6, 1e6);
    question.bandwidth = 10 * kMb;
    const PlanLink fast = *make_plan(steady(600 * kMb), question)->link;
    EXPECT_EQ(fast.backlog_bytes, 0u);
    // 144 GB of the outage are sent at 10 MB/s, of which 5 are taken by what is written meanwhile.
    EXPECT_EQ(*fast.catch_up_us, 14'400 * kSecond);
}

// Broken if growth were added where it multiplies, or left the stored state as it is.
TEST(Plan, GrowthIsCompounded) {
    PlanQuestion question;
    question.growth_percent = 10;
    question.months = 24;
    const Plan now = *make_plan(steady(600 * kMb), {}),
               then = *make_plan(steady(600 * kMb), question);
    EXPECT_NEAR(then.factor, 1.21, 1e-9);
    EXPECT_NEAR(then.written_peak, now.written_peak * 1.21, 1);
    EXPECT_NEAR(double(then.bandwidth_peak), double(now.bandwidth_peak) * 1.21, 10);
    EXPECT_NEAR(double(then.spool_peak), double(now.spool_peak) * 1.21, 1e3);
    EXPECT_NEAR(double(then.storage_bytes), double(now.storage_bytes) * 1.21, 1e3);
    EXPECT_NEAR(double(then.puts), double(now.puts) * 1.21, 2);
    question.growth_percent = 0;
    EXPECT_EQ(make_plan(steady(600 * kMb), question)->factor, 1.0);
}

// Broken if the worst stretch of an outage were cut at the edge of a slot, or one that is longer
// than what was seen counted for what was seen.
TEST(Plan, AnOutageIsPlannedForItsWorstTime) {
    const ChurnSeries churn = series(kHour, {1, 9, 9, 1, 1, 1, 1, 1});
    EXPECT_EQ(written_in(churn, 2 * kHour, 1), 18u);
    EXPECT_EQ(written_in(churn, 90 * kMinute, 1), 18u) << "whole slots: rather too much";
    EXPECT_EQ(written_in(churn, kHour, 0.5), 1u);
    EXPECT_EQ(written_in(churn, 16 * kHour, 1), 48u);
    EXPECT_EQ(written_in(churn, 0, 1), 0u);
}

// Broken if of two series the need of one were forgotten.
TEST(Plan, OfSeveralSeriesTheLargestNeedCounts) {
    PlanInput input = steady(60 * kMb);
    // A month ago there was an hour of 360 GB.
    std::vector<uint64_t> hours = constant(720, 3600 * kMb);
    hours[3] = 360'000 * kMb;
    input.churn.push_back(series(kHour, std::move(hours)));
    PlanQuestion question;
    question.outage_us = kHour;
    const Plan plan = *make_plan(input, question);
    EXPECT_EQ(plan.spool_peak, 360'000 * kMb);
    EXPECT_GT(plan.bandwidth_peak, 40 * kMb);
    EXPECT_EQ(plan.interval_us, kMinute);
    EXPECT_EQ(plan.seen_us, 720 * kHour);
}

// Broken if what nobody has stored yet made no requests.
TEST(Plan, OfAMeasuredMachineObjectsFollowFromItsRate) {
    PlanInput input = steady(600 * kMb);
    input.items.front().object_bytes = 0;
    // 10 MB/s: a segment each quarter of a second.
    EXPECT_NEAR(double(make_plan(input, {})->puts), 4.0 * 2'592'000, 10);
    input = steady(60 * 1000);
    input.items.front().object_bytes = 0;
    EXPECT_NEAR(double(make_plan(input, {})->puts), 2'592'000, 10) << "one a second";
}

// Broken if a bill were other than the sums that its prices say.
TEST(Plan, CostIsTheSumOfItsPrices) {
    Plan plan;
    plan.storage_bytes = 2'000'000'000;
    plan.newest_bytes = 1'000'000'000;
    plan.puts = plan.range_gets = plan.heads = 1000;
    plan.lists = 3000;
    EXPECT_EQ(plan_cost(plan, {}).month, 0);
    const PlanCost cost = plan_cost(plan, {"X", 0.5, 4, 2, 1, 3, 7});
    EXPECT_DOUBLE_EQ(cost.storage, 1);
    EXPECT_DOUBLE_EQ(cost.requests, 4 + 2 + 1 + 9);
    EXPECT_DOUBLE_EQ(cost.month, 17);
    EXPECT_DOUBLE_EQ(cost.failover, 7);
}

// Broken if a question that has no answer got a number.
TEST(Plan, WhatCannotBePlannedIsAnError) {
    PlanQuestion question;
    question.rpo_us = kPipelineUs;
    EXPECT_EQ(make_plan(steady(1), question).error().code(), Code::kInvalidArgument);
    question = {};
    question.growth_percent = -100;
    EXPECT_FALSE(make_plan(steady(1), question));
    question = {};
    question.months = 241;
    EXPECT_FALSE(make_plan(steady(1), question));
    question.months = 240;
    question.growth_percent = 100'000;
    EXPECT_EQ(make_plan(steady(600 * kMb), question).error().code(), Code::kInvalidArgument);
    EXPECT_FALSE(make_plan({}, {}));
    PlanInput input = steady(1);
    input.churn.front().bytes.clear();
    EXPECT_FALSE(make_plan(input, {}));
}

// Broken if the sums could not be followed.
TEST(Plan, TheSumsAreShown) {
    PlanQuestion question;
    question.rpo_us = 62 * kSecond;
    std::string all;
    const Plan plan = *make_plan(steady(600 * kMb), question);
    for (const std::string& line : plan.explain) all += line + "\n";
    EXPECT_THAT(all, HasSubstr("RPO 62 s - 2 s"));
    EXPECT_THAT(all, HasSubstr("stored for each byte written: 0.500"));
    EXPECT_THAT(all,
                HasSubstr("storage of web: newest state 500.0 MB + window 36.00 GB = 36.50 GB"));
}

}  // namespace
}  // namespace farshore
