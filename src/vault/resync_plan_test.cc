#include "vault/resync_plan.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

ResyncInputs healthy() {
    ResyncInputs in;
    in.healthy = true;
    in.created = {1'000'000'000};
    in.now = {1'000'000'000};
    in.agent = ResyncState::kNone;
    return in;
}

// Broken if a check by policy came too early, too late, or never after the clock was set back.
TEST(ResyncPlan, AChecksTurnComesOncePerInterval) {
    ResyncInputs in = healthy();
    in.now.us += 10'000'000'000;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait) << "the policy asks for none";
    in.verify_interval_s = 3600;
    in.now = {in.created.us + 3'599'999'999};
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    in.now.us += 1;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kPlan);
    in.healthy = false;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait) << "it is compared anyway, or cannot be";
    in.healthy = true;
    in.plan.finished = in.now;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    in.now.us -= 4'000'000'000;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kPlan);
}

// Broken if what waits began outside its window, or was lost on its way to its end.
TEST(ResyncPlan, GoesFromTheWishToTheEnd) {
    ResyncInputs in = healthy();
    in.plan.stage = ResyncStage::kWaiting;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    in.window_open = true;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kAsk);
    in.healthy = false;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    in.plan.stage = ResyncStage::kAsked;
    in.window_open = false;
    in.request_pending = true;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait) << "an old comparison's end is not its own";
    in.request_pending = false;
    EXPECT_EQ(next_resync_step(in), ResyncStep::kBegun);
    in.plan.stage = ResyncStage::kRunning;
    for (const ResyncState state : {ResyncState::kComparing, ResyncState::kVerifying}) {
        in.agent = state;
        EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    }
    in.agent.reset();
    EXPECT_EQ(next_resync_step(in), ResyncStep::kWait);
    for (const ResyncState state : {ResyncState::kDone, ResyncState::kNone}) {
        in.agent = state;
        EXPECT_EQ(next_resync_step(in), ResyncStep::kFinish);
    }
}

// Broken if an unprotected item waited without having been told to, or somebody who asked for it at
// once.
TEST(ResyncPlan, WaitsOnlyWhereItMay) {
    ResyncPlan none;
    EXPECT_EQ(resync_hold(none, true, false), ResyncHold::kNone);
    EXPECT_EQ(resync_hold(none, false, false), ResyncHold::kWithoutGap);
    EXPECT_EQ(resync_hold(none, true, true), ResyncHold::kNone);
    EXPECT_EQ(resync_hold(none, false, true), ResyncHold::kAlways);
    ResyncPlan check;
    check.stage = ResyncStage::kRunning;
    check.kind = ResyncKind::kVerify;
    EXPECT_EQ(resync_hold(check, false, false), ResyncHold::kWithoutGap) << "it goes on next time";
    check.kind = ResyncKind::kNow;
    EXPECT_EQ(resync_hold(check, false, false), ResyncHold::kNone);
    EXPECT_EQ(resync_hold(check, false, true), ResyncHold::kNone);
}

// Broken if a comparison that stands still were not told, one that waits were, or it did not end.
TEST(ResyncWatch, TellsOfAComparisonThatStandsStill) {
    ResyncWatch watch;
    const auto look = [&](bool due, uint64_t progress, uint64_t errors, int64_t us) {
        watch.look({due, progress, errors, us});
        return watch.failing(us);
    };
    EXPECT_FALSE(look(true, 5, 1, 0));
    EXPECT_FALSE(look(true, 5, 1, kResyncStuckUs - 1));
    EXPECT_TRUE(look(true, 5, 1, kResyncStuckUs));
    EXPECT_FALSE(watch.cannot_read()) << "errors from before";
    EXPECT_TRUE(look(true, 5, 2, kResyncStuckUs + 1));
    EXPECT_TRUE(watch.cannot_read());
    EXPECT_FALSE(look(true, 6, 2, kResyncStuckUs + 2)) << "it got on";
    EXPECT_FALSE(watch.cannot_read());
    EXPECT_FALSE(look(false, 6, 2, 3 * kResyncStuckUs));
    EXPECT_FALSE(look(true, 6, 2, 5 * kResyncStuckUs)) << "it waited until now";
    EXPECT_TRUE(look(true, 6, 2, 6 * kResyncStuckUs));
}

}  // namespace
}  // namespace farshore
