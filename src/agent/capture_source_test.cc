#include "agent/capture_source.h"

#include "agent/test_capture_log.h"

namespace farshore {
namespace {

struct Log : TestCaptureLog {
    Log() : TestCaptureLog(real) {}
    static inline RealClock real;
};

// Broken if an appliance that lost its spool made the source compare everything: what was not
// stored is known.
TEST(CaptureSource, WhatIsNotStoredIsKnown) {
    Log log;
    log.source->set_stored({6});
    ASSERT_TRUE(log.source->resume({7}, {6}));
    EXPECT_EQ(log.asked, std::vector{TapCommandKind::kGapDirty});
    EXPECT_TRUE(log.source->waiting_for_gap());
}

// Broken if records were sent under numbers that the recovery site has had from another log: it
// would drop them as known, without a word.
TEST(CaptureSource, NumbersThatWereUsedByAnotherLogAreNotUsedAgain) {
    RealClock clock;
    TestCaptureLog log(clock);
    const Sequence next{log.last.v + 1};
    EXPECT_TRUE(log.source->resume(next, log.last));
    EXPECT_EQ(log.source->must_begin_at().v, 0u);
    const Status received = log.source->resume(next.next(), log.last);
    ASSERT_FALSE(received);
    EXPECT_EQ(received.error().code(), Code::kSequenceHole);
    EXPECT_EQ(log.source->must_begin_at(), next.next());
    EXPECT_FALSE(log.source->resume({1}, {log.last.v + 100}));
    EXPECT_EQ(log.source->must_begin_at().v, log.last.v + 101);
}

// Broken if what was stored once and was lost over there (objects of the log's end together with
// the ledger) stayed lost: the dirty map has let go of it.
TEST(CaptureSource, WhatWasStoredAndIsNoMoreTakesEverything) {
    Log log;
    log.source->set_stored({9});
    EXPECT_EQ(log.source->first_unstored().v, 10u);
    ASSERT_TRUE(log.source->resume({5}, {4}));
    EXPECT_EQ(log.asked, std::vector{TapCommandKind::kResyncAll});
    // Once: a connection that breaks meanwhile asks for no other one.
    ASSERT_TRUE(log.source->resume({5}, {4}));
    EXPECT_EQ(log.asked.size(), 1u);
    // And again when more is lost than that.
    log.answer = TapCommandResult{};
    log.answer->ok = false;
    EXPECT_FALSE(log.source->next(1u << 20));
    log.source->set_stored({10});
    ASSERT_TRUE(log.source->resume({5}, {4}));
    EXPECT_EQ(log.asked, (std::vector{TapCommandKind::kResyncAll, TapCommandKind::kResyncAll}));
}

// Broken if the loss were forgotten because a smaller gap was on its way.
TEST(CaptureSource, EverythingFollowsAGapThatWasOrderedBefore) {
    Log log;
    log.source->set_stored({6});
    ASSERT_TRUE(log.source->resume({7}, {6}));
    ASSERT_TRUE(log.source->resume({5}, {4}));
    EXPECT_EQ(log.asked.size(), 1u);
    log.answer = TapCommandResult{};
    log.answer->ok = true;
    log.answer->sequence = {11};
    ASSERT_TRUE(log.source->next(1u << 20));
    EXPECT_EQ(log.asked, (std::vector{TapCommandKind::kGapDirty, TapCommandKind::kResyncAll}));
}

// Broken if what was only received were let go of while there is room for it: an appliance that is
// lost then takes it with it.
TEST(CaptureSource, WhatIsReceivedIsKeptUntilItIsStored) {
    Log log;
    log.source->keep(kMinRingBytes);
    log.source->set_stored(log.last);
    const Sequence before = log.last;
    EXPECT_TRUE(log.source->has_all_unstored());
    log.append(20);
    log.send_all();
    log.source->release(log.last);
    EXPECT_EQ(log.consumer->released(), before);
    EXPECT_EQ(log.source->first_unstored(), before.next()) << "received is not stored";
    EXPECT_EQ(log.source->received(), log.last);
    EXPECT_GT(log.source->kept_bytes(), 20u * 4096);
    EXPECT_TRUE(log.source->has_all_unstored());
    // Another appliance has it all again.
    ASSERT_TRUE(log.source->resume(before.next(), before));
    EXPECT_FALSE(log.source->waiting_for_gap());
    // Nothing is let go of on the word of the one before.
    EXPECT_EQ(log.source->received().v, 0u);
    log.source->keep(0);
    EXPECT_EQ(log.consumer->released(), before);
    log.send_all();
    log.source->keep(kMinRingBytes);
    log.source->release({before.v + 10});
    log.source->set_stored({before.v + 4});
    EXPECT_GE(log.consumer->released().v, before.v + 2);
    EXPECT_LE(log.consumer->released().v, before.v + 4);
    // Only as much as has to be.
    log.source->keep(10u * 4096);
    EXPECT_GE(log.consumer->released().v, before.v + 5);
    EXPECT_LE(log.consumer->released().v, before.v + 10);
    EXPECT_FALSE(log.source->has_all_unstored());
    log.source->release(log.last);
    log.source->set_stored(log.last);
    EXPECT_TRUE(log.source->has_all_unstored());
    EXPECT_EQ(log.consumer->released(), log.last);
}

}  // namespace
}  // namespace farshore
