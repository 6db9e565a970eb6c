#include "capture/compare_board.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "capture/capture_test_world.h"
#include "sim/rng.h"

namespace farshore {
namespace {

using namespace capture_test;

constexpr uint64_t kDiskBytes = 8 * kSumBlockBytes + 512;

class CompareBoardTest : public ::testing::Test {
  protected:
    CompareBoardTest()
        : memory_(LogGeometry{.item = {},
                              .boot_id = {},
                              .ring_bytes = kMinRingBytes,
                              .spill_bytes = 0,
                              .disk_bytes = {1 << 20, kDiskBytes}}),
          header_(*LogHeader::format(memory_.memory(), memory_.geometry(), {1})) {}

    static CompareQuestion question(uint64_t blocks = 3, uint8_t mark = 1) {
        CompareQuestion question;
        question.key.fill(mark);
        question.sum.fill(static_cast<uint8_t>(mark + 100));
        question.at_least = {mark + 1000u};
        question.disk = 1;
        question.offset_bytes = kSumBlockBytes;
        question.length_bytes = blocks * kSumBlockBytes;
        return question;
    }
    static CompareAnswer sums(size_t count, uint8_t mark = 7, uint32_t unreadable = 0) {
        CompareAnswer answer;
        answer.verdict = CompareVerdict::kSums;
        for (size_t i = 0; i < count; ++i) answer.sums.push_back(BlockSum{mark, uint8_t(i)});
        answer.unreadable = unreadable;
        return answer;
    }
    std::atomic_ref<uint64_t> word(size_t slot, size_t at) const {
        return header_.compare_slot(slot, at);
    }

    TestMemory memory_;
    LogHeader header_;
    CompareResponder responder_{header_};
};

// Broken if a question or its answer changed between the tap and the agent, in any slot.
TEST_F(CompareBoardTest, QuestionsAndAnswersArrive) {
    CompareAsker asker(header_);
    EXPECT_FALSE(CompareResponder::any(header_));
    EXPECT_TRUE(responder_.asked().empty());
    for (size_t slot = 0; slot < kCompareSlots; ++slot) {
        EXPECT_FALSE(asker.take(slot));
        asker.ask(slot, question(slot + 1, static_cast<uint8_t>(slot)));
    }
    EXPECT_TRUE(CompareResponder::any(header_));
    const auto asked = responder_.asked();
    ASSERT_EQ(asked.size(), kCompareSlots);
    for (size_t slot = 0; slot < kCompareSlots; ++slot) {
        const CompareQuestion expected = question(slot + 1, static_cast<uint8_t>(slot));
        EXPECT_EQ(asked[slot].slot, slot);
        EXPECT_EQ(asked[slot].question.key, expected.key);
        EXPECT_EQ(asked[slot].question.sum, expected.sum);
        EXPECT_EQ(asked[slot].question.at_least.v, expected.at_least.v);
        EXPECT_EQ(asked[slot].question.disk, 1);
        EXPECT_EQ(asked[slot].question.offset_bytes, expected.offset_bytes);
        EXPECT_EQ(asked[slot].question.length_bytes, expected.length_bytes);
        EXPECT_FALSE(asker.take(slot)) << "not answered yet";
    }
    EXPECT_TRUE(responder_.answer(asked[2], sums(3, 9, 1)));
    EXPECT_TRUE(responder_.answer(asked[0], {CompareVerdict::kEqual, {}, 0}));
    EXPECT_TRUE(responder_.answer(asked[1], {CompareVerdict::kNothing, {}, 0}));
    EXPECT_EQ(asker.take(0)->verdict, CompareVerdict::kEqual);
    EXPECT_EQ(asker.take(1)->verdict, CompareVerdict::kNothing);
    const auto third = asker.take(2);
    ASSERT_TRUE(third);
    EXPECT_EQ(third->verdict, CompareVerdict::kSums);
    EXPECT_EQ(third->sums, sums(3, 9).sums);
    EXPECT_EQ(third->unreadable, 1u);
    EXPECT_FALSE(asker.take(2)) << "an answer is taken once";
    EXPECT_FALSE(asker.take(3));
    EXPECT_EQ(responder_.asked().size(), 1u) << "what is answered is not asked";
}

// Broken if an answer to what was asked before were taken for one to what is asked now: the slot is
// the same, the blocks are not.
TEST_F(CompareBoardTest, ALateAnswerIsRefused) {
    CompareAsker asker(header_);
    asker.ask(0, question(3, 1));
    const auto before = responder_.asked().at(0);
    asker.ask(0, question(3, 2));
    EXPECT_FALSE(responder_.answer(before, {CompareVerdict::kEqual, {}, 0}));
    EXPECT_FALSE(asker.take(0));
    const auto now = responder_.asked().at(0);
    EXPECT_NE(now.ticket, before.ticket);
    EXPECT_TRUE(responder_.answer(now, sums(3)));
    EXPECT_FALSE(responder_.answer(before, {CompareVerdict::kEqual, {}, 0})) << "after the answer";
    EXPECT_EQ(asker.take(0)->verdict, CompareVerdict::kSums);
    EXPECT_FALSE(responder_.answer(now, sums(3))) << "it was taken";
    EXPECT_FALSE(asker.take(0));

    asker.ask(1, question());
    const auto forgotten = responder_.asked().at(0);
    asker.forget(1);
    EXPECT_TRUE(responder_.asked().empty());
    EXPECT_FALSE(responder_.answer(forgotten, sums(3)));
    EXPECT_FALSE(asker.take(1));
}

// Broken if a tap that was killed left questions that its successor took for its own: the ranges
// and the key are others.
TEST_F(CompareBoardTest, ARestartedTapForgets) {
    std::optional<CompareAsker> asker(header_);
    asker->ask(0, question());
    asker->ask(1, question());
    const auto asked = responder_.asked();
    ASSERT_EQ(asked.size(), 2u);
    EXPECT_TRUE(responder_.answer(asked[0], sums(3)));
    asker.emplace(header_);
    EXPECT_FALSE(asker->take(0)) << "answered before it started";
    EXPECT_FALSE(CompareResponder::any(header_));
    EXPECT_FALSE(responder_.answer(asked[1], sums(3)));
    asker->ask(1, question(2));
    EXPECT_FALSE(responder_.answer(asked[1], sums(2)));
    EXPECT_FALSE(asker->take(1));
    EXPECT_TRUE(responder_.answer(responder_.asked().at(0), sums(2)));
    EXPECT_TRUE(asker->take(1));
}

// Broken if an agent that was killed at any instant of its answer left a slot that nobody answers
// any more, or half an answer that is taken for one.
TEST_F(CompareBoardTest, AResponderThatDiedWhileItAnswered) {
    CompareAsker asker(header_);
    asker.ask(0, question());
    const auto asked = responder_.asked().at(0);
    // As it is after the first step of an answer, with some of the words written.
    word(0, 0).store(asked.ticket << 2 | 2);
    word(0, 11).store(static_cast<uint64_t>(CompareVerdict::kEqual));
    EXPECT_FALSE(asker.take(0));
    EXPECT_TRUE(CompareResponder::any(header_)) << "nobody would wake the next one";
    const CompareResponder next(header_);
    const auto again = next.asked();
    ASSERT_EQ(again.size(), 1u);
    EXPECT_EQ(again[0].ticket, asked.ticket);
    EXPECT_TRUE(responder_.answer(again[0], sums(3)));
    const auto answer = asker.take(0);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->verdict, CompareVerdict::kSums);
    EXPECT_EQ(answer->sums, sums(3).sums);
    EXPECT_FALSE(CompareResponder::any(header_));
}

// Broken if an answer with more or fewer sums than blocks were read past its end, or settled blocks
// that nobody compared.
TEST_F(CompareBoardTest, AWrongNumberOfSumsIsNoAnswer) {
    CompareAsker asker(header_);
    for (const size_t count :
         {size_t{0}, size_t{2}, size_t{4}, kMaxCompareBlocks, kMaxCompareBlocks + 5}) {
        asker.ask(0, question(3));
        EXPECT_TRUE(responder_.answer(responder_.asked().at(0), sums(count)));
        const auto answer = asker.take(0);
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->verdict, CompareVerdict::kNothing) << count;
        EXPECT_TRUE(answer->sums.empty());
    }
    // Four blocks: the last is the disk's odd end.
    CompareQuestion odd = question();
    odd.offset_bytes = 5 * kSumBlockBytes;
    odd.length_bytes = kDiskBytes - odd.offset_bytes;
    asker.ask(0, odd);
    EXPECT_TRUE(responder_.answer(responder_.asked().at(0), sums(4)));
    EXPECT_EQ(asker.take(0)->sums.size(), 4u);
}

// Broken if the number of sums were believed from the slot instead of from the question: the tap
// would read past the end of what it got.
TEST_F(CompareBoardTest, ASlotThatForgetsItsQuestionIsNoAnswer) {
    CompareAsker asker(header_);
    // The last ones are lengths that round up to no block.
    const std::pair<uint64_t, size_t> claims[] = {
        {0, 0}, {1, 1}, {2 * kSumBlockBytes, 2}, {UINT64_MAX, 0}, {UINT64_MAX - 5, 0}};
    for (const auto& [length, count] : claims) {
        asker.ask(0, question(3));
        EXPECT_TRUE(responder_.answer(responder_.asked().at(0), sums(count)));
        word(0, 3).store(length);
        const auto answer = asker.take(0);
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->verdict, CompareVerdict::kNothing) << length;
    }
    asker.ask(0, question(3));
    EXPECT_TRUE(responder_.answer(responder_.asked().at(0), sums(3, 7, UINT32_MAX)));
    EXPECT_EQ(asker.take(0)->unreadable, 3u) << "no more than there are blocks";
    // Answered before anything was asked.
    word(1, 0).store(5 << 2 | 3);
    word(1, 11).store(static_cast<uint64_t>(CompareVerdict::kEqual));
    EXPECT_FALSE(asker.take(1));
}

// Broken if garbage in the shared memory reached the vault, or ended the tap or the agent.
TEST_F(CompareBoardTest, GarbageIsLeftOut) {
    CompareAsker asker(header_);
    const auto with = [&](size_t at, uint64_t value) {
        asker.ask(0, question());
        word(0, at).store(value);
        return responder_.asked().size();
    };
    EXPECT_EQ(with(1, 1), 1u);
    EXPECT_EQ(with(1, 2), 0u) << "no such disk";
    EXPECT_EQ(with(1, 65536), 0u) << "disk 0 once it is cut";
    EXPECT_EQ(with(2, 512), 0u) << "not at a block";
    EXPECT_EQ(with(2, 8 * kSumBlockBytes), 0u) << "past the disk's end";
    EXPECT_EQ(with(2, UINT64_MAX / kSumBlockBytes * kSumBlockBytes), 0u);
    EXPECT_EQ(with(3, 0), 0u);
    EXPECT_EQ(with(3, kMaxCompareBytes + 1), 0u);
    EXPECT_EQ(with(3, UINT64_MAX), 0u);

    Rng rng(base_seed());
    for (int round = 0; round < 20'000; ++round) {
        for (size_t slot = 0; slot < kCompareSlots; ++slot) {
            if (rng.coin()) asker.ask(slot, question(1 + rng.below(7)));
            for (size_t n = rng.below(3); n != 0; --n) {
                const uint64_t small = rng.below(8) * (rng.coin() ? 1 : kSumBlockBytes);
                word(slot, rng.below(LogHeader::kCompareSlotWords))
                    .store(rng.coin() ? small : rng.below(UINT64_MAX));
            }
        }
        for (const auto& asked : responder_.asked()) {
            const CompareQuestion& q = asked.question;
            ASSERT_TRUE(check_question(q));
            ASSERT_LT(q.disk, 2u);
            ASSERT_LE(q.offset_bytes + q.length_bytes, memory_.geometry().disk_bytes[q.disk]);
            if (rng.coin()) (void)responder_.answer(asked, sums(q.blocks()));
        }
        for (size_t slot = 0; slot < kCompareSlots; ++slot) {
            if (const auto answer = asker.take(slot)) {
                ASSERT_LE(answer->sums.size(), 7u);
            }
        }
    }
}

}  // namespace
}  // namespace farshore
