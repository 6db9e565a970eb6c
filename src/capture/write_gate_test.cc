#include "capture/write_gate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "capture/capture_test_world.h"

namespace farshore {
namespace {

using capture_test::StillClock;

// Broken if a write that comes while the gate is closed is begun before the point, or one that
// waited is not begun behind it.
TEST(WriteGate, AWriteWaitsForThePoint) {
    StillClock clock;
    WriteGate gate(clock);
    EXPECT_TRUE(gate.may_pass());
    ASSERT_TRUE(gate.hold(7, clock.steady_us() + kMaxHoldUs));
    EXPECT_FALSE(gate.may_pass());
    std::atomic<bool> marked{false}, passed_before{false};
    std::vector<std::thread> writers;
    for (int i = 0; i < 4; ++i)
        writers.emplace_back([&] {
            gate.pass();
            if (!marked) passed_before = true;
        });
    ASSERT_TRUE(gate.mark(7, [&]() -> Status {
        EXPECT_FALSE(passed_before);
        marked = true;
        return {};
    }));
    for (std::thread& writer : writers) writer.join();
    EXPECT_FALSE(passed_before);
    EXPECT_TRUE(gate.may_pass());
}

// Broken if a hold could last longer than its time, or a point be made after writes went through.
TEST(WriteGate, AHoldEndsByItselfAndCostsThePoint) {
    StillClock clock;
    WriteGate gate(clock);
    // However long was asked for.
    ASSERT_TRUE(gate.hold(7, clock.steady_us() + 60'000'000));
    clock.advance_us(kMaxHoldUs - 1);
    EXPECT_FALSE(gate.may_pass());
    clock.advance_us(1);
    gate.pass();
    bool made = false;
    EXPECT_EQ(gate.mark(7,
                        [&]() -> Status {
                            made = true;
                            return {};
                        })
                  .error()
                  .code(),
              Code::kTimeout);
    EXPECT_FALSE(made);
    EXPECT_EQ(gate.hold(8, clock.steady_us()).error().code(), Code::kTimeout) << "came too late";
    EXPECT_TRUE(gate.may_pass());
}

// Broken if two points could hold one machine, one be made by the other's hold, or a point that
// cannot be made keep the writes.
TEST(WriteGate, OneHoldAtATime) {
    StillClock clock;
    WriteGate gate(clock);
    const int64_t until_us = clock.steady_us() + kMaxHoldUs;
    ASSERT_TRUE(gate.hold(7, until_us));
    EXPECT_TRUE(gate.hold(7, until_us)) << "told twice";
    EXPECT_EQ(gate.hold(8, until_us).error().code(), Code::kWrongState);
    EXPECT_EQ(gate.mark(8, []() -> Status { return {}; }).error().code(), Code::kTimeout);
    gate.let_go(8);
    EXPECT_FALSE(gate.may_pass());
    EXPECT_EQ(
        gate.mark(7, []() -> Status { return fail(Code::kLimitReached, "full"); }).error().code(),
        Code::kLimitReached);
    EXPECT_TRUE(gate.may_pass());
    ASSERT_TRUE(gate.hold(8, until_us));
    gate.let_go(8);
    EXPECT_TRUE(gate.may_pass());
    // An overdue one does not stand in the next one's way, whether somebody waited or not.
    ASSERT_TRUE(gate.hold(9, until_us));
    clock.advance_us(2 * kMaxHoldUs);
    EXPECT_TRUE(gate.hold(10, clock.steady_us() + 1000));
}

}  // namespace
}  // namespace farshore
