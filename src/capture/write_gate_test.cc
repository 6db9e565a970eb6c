#include "capture/write_gate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "capture/capture_test_world.h"

namespace farshore {
namespace {

using capture_test::StillClock;

// A write that comes now.
bool may_pass(WriteGate& gate) {
    uint64_t arrival = 0;
    return gate.may_pass(arrival);
}

// Broken if a write that comes while the gate is closed is begun before the point, or one that
// waited is not begun behind it.
TEST(WriteGate, AWriteWaitsForThePoint) {
    StillClock clock;
    WriteGate gate(clock);
    EXPECT_TRUE(may_pass(gate));
    ASSERT_TRUE(gate.hold(7, clock.steady_us() + kMaxHoldUs));
    EXPECT_FALSE(may_pass(gate));
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
    EXPECT_TRUE(may_pass(gate));
}

// Broken if a hold could last longer than its time, or a point be made after writes went through.
TEST(WriteGate, AHoldEndsByItselfAndCostsThePoint) {
    StillClock clock;
    WriteGate gate(clock);
    // However long was asked for.
    ASSERT_TRUE(gate.hold(7, clock.steady_us() + 60'000'000));
    clock.advance_us(kMaxHoldUs - 1);
    EXPECT_FALSE(may_pass(gate));
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
    EXPECT_TRUE(may_pass(gate));
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
    EXPECT_FALSE(may_pass(gate));
    EXPECT_EQ(
        gate.mark(7, []() -> Status { return fail(Code::kLimitReached, "full"); }).error().code(),
        Code::kLimitReached);
    EXPECT_TRUE(may_pass(gate));
    ASSERT_TRUE(gate.hold(8, until_us));
    gate.let_go(8);
    EXPECT_TRUE(may_pass(gate));
    // An overdue one does not stand in the next one's way, whether somebody waited or not.
    ASSERT_TRUE(gate.hold(9, until_us));
    clock.advance_us(2 * kMaxHoldUs);
    EXPECT_TRUE(gate.hold(10, clock.steady_us() + 1000));
}

// Broken if a write that waits for one hold had to wait for the next one, too.
TEST(WriteGate, AWriteWaitsForOneHoldOnly) {
    StillClock clock;
    WriteGate gate(clock);
    uint64_t arrival = 0;
    ASSERT_TRUE(gate.hold(7, clock.steady_us() + kMaxHoldUs));
    EXPECT_FALSE(gate.may_pass(arrival));
    clock.advance_us(kMaxHoldUs);
    // Nobody looked when its time was over.
    ASSERT_TRUE(gate.hold(8, clock.steady_us() + kMaxHoldUs));
    EXPECT_FALSE(may_pass(gate));
    EXPECT_TRUE(gate.may_pass(arrival));
    EXPECT_TRUE(gate.mark(8, []() -> Status { return {}; })) << "it was issued before that hold";
}

}  // namespace
}  // namespace farshore
