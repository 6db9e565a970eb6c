#include "replicate/group_relay.h"

#include <gtest/gtest.h>

#include <deque>

#include "replicate/frames.h"
#include "replicate/process_server_test_site.h"

namespace farshore {
namespace {

using process_server_test::FakeVault;
using process_server_test::ManualTime;

ItemId item(uint8_t n) {
    ItemId id;
    id.raw[0] = n;
    return id;
}
SharedPointId point(uint8_t n) {
    SharedPointId id;
    id.raw[0] = n;
    return id;
}

// A vault that answers what a test says, in that order; then it knows of no point.
struct Vault final : FakeVault {
    std::deque<Result<BarrierOrder>> answers;
    std::vector<BarrierReport> reports;

    Result<BarrierOrder> shared_point_step(const std::string&,
                                           const BarrierReport& report) override {
        reports.push_back(report);
        if (answers.empty()) return fail(Code::kNotFound, "nobody makes that point");
        auto answer = std::move(answers.front());
        answers.pop_front();
        return answer;
    }
};

// Two agents with an item each, one point at a time.
struct GroupRelayTest : testing::Test {
    GroupRelayTest() : relay(time, time, vault, "appliance-1", {&time}) {
        for (const uint8_t n : {1, 2})
            relay.attach(n, "agent-" + std::to_string(n),
                         [this, n](Bytes frame) { told[n].push_back(std::move(frame)); });
    }
    static BarrierOrder order(BarrierStep step, uint8_t n = 9) {
        BarrierOrder order;
        order.point = point(n);
        order.step = step;
        order.label = "shared";
        order.members = {{item(1), "agent-1"}, {item(2), "agent-2"}, {item(3), "elsewhere"}};
        return order;
    }
    void take() {
        relay.take({order(BarrierStep::kReady)});
        time.run();
    }
    // What a member's agent says of a step, in the name of `of`.
    void report(uint8_t session, BarrierStep step, uint8_t of, std::optional<Error> error = {}) {
        const BarrierReport words{point(9), step, {{item(of), std::move(error), {77}, {}}}};
        ASSERT_TRUE(relay.on_report(session, ByteView(encode_barrier_report(words)).subspan(1)));
        time.run();
    }
    BarrierStep last_step(uint8_t session) {
        return decode_barrier(ByteView(told[session].back()).subspan(1))->step;
    }

    ManualTime time;
    Vault vault;
    std::map<uint8_t, std::vector<Bytes>> told;
    GroupRelay relay;
};

// Broken if the vault were asked for each member, or a step went on before all had answered.
TEST_F(GroupRelayTest, AStepIsOneCallForAllMembers) {
    vault.answers = {order(BarrierStep::kHold), order(BarrierStep::kMark),
                     order(BarrierStep::kMark)};
    take();
    ASSERT_EQ(vault.reports.size(), 1u);
    EXPECT_EQ(vault.reports[0].members.size(), 2u) << "who can be reached, and nobody else";
    EXPECT_EQ(last_step(1), BarrierStep::kHold);
    EXPECT_EQ(last_step(2), BarrierStep::kHold);
    report(1, BarrierStep::kHold, 1);
    EXPECT_EQ(vault.reports.size(), 1u);
    report(2, BarrierStep::kHold, 2);
    ASSERT_EQ(vault.reports.size(), 2u);
    EXPECT_EQ(vault.reports[1].members.size(), 2u);
    EXPECT_EQ(last_step(1), BarrierStep::kMark);
    report(2, BarrierStep::kMark, 2);
    report(1, BarrierStep::kMark, 1);
    ASSERT_EQ(vault.reports.size(), 3u);
    EXPECT_EQ(vault.reports[2].members[0].sequence.v, 77u);
    EXPECT_EQ(relay.under_way(), 0u);
    EXPECT_EQ(last_step(1), BarrierStep::kMark) << "nothing is abandoned";
    // The caller is free for the next one.
    vault.answers = {order(BarrierStep::kHold)};
    take();
    EXPECT_EQ(relay.under_way(), 1u);
}

// Broken if an agent could answer for another one's machine, or for a step that is over.
TEST_F(GroupRelayTest, AnAgentSpeaksForItsOwnAndOfNow) {
    vault.answers = {order(BarrierStep::kHold)};
    take();
    report(1, BarrierStep::kHold, 1);
    report(1, BarrierStep::kHold, 2);
    report(2, BarrierStep::kPrepare, 2);
    EXPECT_EQ(vault.reports.size(), 1u);
}

// Broken if a member that does not answer, or cannot, made the others wait.
TEST_F(GroupRelayTest, OneThatDoesNotAnswerCostsThePoint) {
    vault.answers = {order(BarrierStep::kHold), order(BarrierStep::kAbandon)};
    take();
    report(1, BarrierStep::kHold, 1);
    time.advance(kHoldUs + 10'000);
    ASSERT_EQ(vault.reports.size(), 2u);
    ASSERT_TRUE(vault.reports[1].members[1].error);
    EXPECT_EQ(vault.reports[1].members[1].error->code(), Code::kTimeout);
    EXPECT_EQ(last_step(1), BarrierStep::kAbandon);
    EXPECT_EQ(last_step(2), BarrierStep::kAbandon);
    EXPECT_EQ(relay.under_way(), 0u);

    vault.answers = {order(BarrierStep::kHold), order(BarrierStep::kAbandon)};
    take();
    report(2, BarrierStep::kHold, 2, Error(Code::kPointInGap, "it is in a gap"));
    ASSERT_EQ(vault.reports.size(), 4u) << "at once";
    EXPECT_EQ(last_step(1), BarrierStep::kAbandon);
}

TEST_F(GroupRelayTest, ALostConnectionCostsThePoint) {
    vault.answers = {order(BarrierStep::kHold), order(BarrierStep::kAbandon)};
    take();
    relay.detach(2);
    time.run();
    ASSERT_EQ(vault.reports.size(), 2u);
    ASSERT_TRUE(vault.reports[1].members.back().error);
    EXPECT_EQ(vault.reports[1].members.back().error->code(), Code::kConnectionLost);
    EXPECT_EQ(last_step(1), BarrierStep::kAbandon);
}

// Broken if a vault that is away for a moment lost the point that its members have made already, or
// kept machines waiting when it is away before.
TEST_F(GroupRelayTest, TheLastWordIsSaidAgain) {
    const auto away = fail(Code::kUnavailable, "away");
    vault.answers = {order(BarrierStep::kMark), away, away, order(BarrierStep::kMark)};
    take();
    report(1, BarrierStep::kMark, 1);
    report(2, BarrierStep::kMark, 2);
    time.advance(1'000'000);
    EXPECT_EQ(vault.reports.size(), 4u);
    EXPECT_EQ(relay.under_way(), 0u);
    EXPECT_EQ(last_step(1), BarrierStep::kMark);

    vault.answers = {order(BarrierStep::kHold), away};
    take();
    report(1, BarrierStep::kHold, 1);
    report(2, BarrierStep::kHold, 2);
    EXPECT_EQ(last_step(1), BarrierStep::kAbandon);
    EXPECT_EQ(relay.under_way(), 0u);
}

// Broken if an agent could not tell an appliance that is there from one that is gone.
TEST_F(GroupRelayTest, AHelloIsAnswered) {
    ASSERT_TRUE(relay.on_report(1, ByteView(encode_barrier_report({})).subspan(1)));
    EXPECT_EQ(told[1].size(), 1u);
    EXPECT_TRUE(told[2].empty());
    EXPECT_FALSE(relay.on_report(1, as_bytes("{")));
}

}  // namespace
}  // namespace farshore
