#include "replicate/barrier.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

ItemId item_of(uint8_t number) {
    ItemId id;
    id.raw[0] = number;
    return id;
}

BarrierOrder of_members(uint8_t count, PointKind kind = PointKind::kBookmark) {
    BarrierOrder order;
    order.point.raw[0] = 9;
    order.kind = kind;
    for (uint8_t i = 1; i <= count; ++i)
        order.members.push_back({item_of(i), "agent-" + std::to_string(i)});
    return order;
}

BarrierReport did(BarrierStep step, std::vector<uint8_t> members) {
    BarrierReport report;
    report.step = step;
    for (const uint8_t one : members) {
        MemberOutcome outcome;
        outcome.item = item_of(one);
        if (step == BarrierStep::kMark) outcome.sequence = {one * 100u};
        report.members.push_back(outcome);
    }
    return report;
}

// Broken if somebody were told to mark before all had held, or a point counted as made without all.
TEST(Barrier, NobodyGoesOnBeforeAllAreThere) {
    Barrier barrier(of_members(2), 0);
    EXPECT_FALSE(barrier.next(BarrierStep::kReady));
    barrier.report(did(BarrierStep::kReady, {1}), 10);
    EXPECT_FALSE(barrier.next(BarrierStep::kReady));
    for (const BarrierStep step :
         {BarrierStep::kReady, BarrierStep::kPrepare, BarrierStep::kHold}) {
        barrier.report(did(step, {1}), 20);
        EXPECT_FALSE(barrier.next(step)) << barrier_step_name(step);
        // Nobody is believed ahead of the order.
        barrier.report(did(BarrierStep::kMark, {1, 2}), 25);
        EXPECT_FALSE(barrier.next(step));
        barrier.report(did(step, {2}), 30);
        ASSERT_TRUE(barrier.next(step));
        EXPECT_EQ(*barrier.next(step), step == BarrierStep::kReady     ? BarrierStep::kPrepare
                                       : step == BarrierStep::kPrepare ? BarrierStep::kHold
                                                                       : BarrierStep::kMark)
            << "nothing is frozen for it";
    }
    barrier.report(did(BarrierStep::kMark, {1}), 40);
    EXPECT_EQ(barrier.state(), Barrier::State::kRunning);
    barrier.report(did(BarrierStep::kMark, {2}), 1'040);
    EXPECT_EQ(barrier.state(), Barrier::State::kMade);
    EXPECT_EQ(barrier.outcomes()[1].sequence.v, 200u);
    EXPECT_EQ(barrier.barrier_us(), 1'010) << "from the order to hold";
}

// Broken if a machine were frozen while another one's scripts run, which may take long.
TEST(Barrier, NobodyFreezesBeforeAllScriptsAreThrough) {
    BarrierOrder order = of_members(2);
    order.kind = PointKind::kApplication;
    Barrier barrier(order, 0);
    barrier.report(did(BarrierStep::kReady, {1, 2}), 0);
    barrier.report(did(BarrierStep::kPrepare, {1}), 0);
    EXPECT_FALSE(barrier.next(BarrierStep::kPrepare));
    barrier.report(did(BarrierStep::kPrepare, {2}), 0);
    EXPECT_EQ(barrier.next(BarrierStep::kPrepare), BarrierStep::kFreeze);
    barrier.report(did(BarrierStep::kFreeze, {1}), 0);
    EXPECT_FALSE(barrier.next(BarrierStep::kFreeze));
    barrier.report(did(BarrierStep::kFreeze, {2}), 0);
    EXPECT_EQ(barrier.next(BarrierStep::kFreeze), BarrierStep::kHold);
}

// Broken if a member that cannot, or says nothing, kept the others waiting, or were not named.
TEST(Barrier, OneThatCannotEndsIt) {
    Barrier refused(of_members(2), 0);
    refused.report(did(BarrierStep::kReady, {1, 2}), 0);
    BarrierReport report = did(BarrierStep::kPrepare, {2});
    report.members[0].error = Error(Code::kPointInGap, "it is copied");
    refused.report(report, 0);
    EXPECT_EQ(refused.state(), Barrier::State::kVoid);
    EXPECT_EQ(refused.next(BarrierStep::kReady), BarrierStep::kAbandon);
    EXPECT_EQ(refused.error()->code(), Code::kPointInGap);

    Barrier silent(of_members(3), 0);
    silent.report(did(BarrierStep::kReady, {1, 2, 3}), 0);
    silent.report(did(BarrierStep::kPrepare, {1, 3}), 0);
    silent.tick(silent.deadline_us() - 1);
    EXPECT_EQ(silent.state(), Barrier::State::kRunning);
    silent.tick(silent.deadline_us());
    EXPECT_EQ(silent.state(), Barrier::State::kVoid);
    EXPECT_EQ(silent.error()->code(), Code::kTimeout);
    EXPECT_NE(silent.error()->what().find("agent-2"), std::string::npos);
}

// Broken if an appliance that has lost an agent could end what another one does with it.
TEST(Barrier, OfTwoAppliancesTheBetterWordCounts) {
    Barrier barrier(of_members(1), 0);
    barrier.report(did(BarrierStep::kReady, {1}), 0);
    barrier.report(did(BarrierStep::kPrepare, {1}), 0);
    BarrierReport stale = did(BarrierStep::kPrepare, {1});
    stale.members[0].error = Error(Code::kTimeout, "the agent did not answer");
    barrier.report(stale, 0);
    EXPECT_EQ(barrier.state(), Barrier::State::kRunning);
    EXPECT_EQ(barrier.next(BarrierStep::kPrepare), BarrierStep::kHold);
}

// Broken if an order or a report changed on its way, or what is no such document were taken.
TEST(SharedPoint, DocumentsAreTheSameOnTheOtherSide) {
    BarrierOrder order = of_members(2, PointKind::kApplication);
    order.step = BarrierStep::kHold;
    order.label = "shop/\"1\"";
    const auto there = decode_order(encode_order(order));
    ASSERT_TRUE(there) << there.error().to_string();
    EXPECT_EQ(there->point, order.point);
    EXPECT_EQ(there->step, order.step);
    EXPECT_EQ(there->kind, order.kind);
    EXPECT_EQ(there->label, order.label);
    ASSERT_EQ(there->members.size(), 2u);
    EXPECT_EQ(there->members[1].agent, "agent-2");
    BarrierReport report = did(BarrierStep::kMark, {1, 2});
    report.members[0].time = {77};
    report.members[1].error = Error(Code::kTimeout, "not UTF-8: \xff", "look");
    const auto back = decode_report(encode_report(report));
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->members[0].sequence.v, 100u);
    EXPECT_EQ(back->members[0].time.us, 77);
    ASSERT_TRUE(back->members[1].error);
    EXPECT_EQ(back->members[1].error->code(), Code::kTimeout);
    for (
        const char* wrong :
        {"", "[]", "{}", R"({"point":"00","step":"hold","kind":1,"label":"","members":[]})",
         R"({"point":"000102030405060708090a0b0c0d0e0f","step":"jump","kind":1,"label":"","members":[]})",
         R"({"point":"000102030405060708090a0b0c0d0e0f","step":"hold","kind":9,"label":"","members":[]})",
         R"({"point":"000102030405060708090a0b0c0d0e0f","step":"hold","kind":1,"label":"","members":{}})"}) {
        EXPECT_FALSE(decode_order(wrong)) << wrong;
    }
    EXPECT_EQ(decode_report(R"({"point":7,"step":"hold","members":[]})").error().code(),
              Code::kMalformed);
}

}  // namespace
}  // namespace farshore
