#include "capture/comparer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "capture/capture_log.h"
#include "capture/capture_test_world.h"

namespace farshore {
namespace {

using namespace capture_test;

constexpr uint64_t kDiskBytes = 16 * kSumBlockBytes;
constexpr size_t kDisks = 3;

// A tap with three disks that are to be compared with a replica of zeroes.
class ComparerTest : public ::testing::Test {
  protected:
    ComparerTest()
        : memory_(LogGeometry{.item = {},
                              .boot_id = {},
                              .ring_bytes = kMinRingBytes,
                              .spill_bytes = 0,
                              .disk_bytes = std::vector<uint64_t>(kDisks, kDiskBytes)}),
          header_(*LogHeader::format(memory_.memory(), memory_.geometry(), {1})),
          producer_(header_, CaptureProducer::Options{&clock_, nullptr, nullptr, {}, nullptr}) {
        for (size_t disk = 0; disk < kDisks; ++disk) {
            contents_.push_back(std::make_unique<DiskContent>(kDiskBytes));
            devices_.push_back(std::make_unique<MemoryDevice>(*contents_.back()));
            borrowed_.push_back({devices_.back().get(), nullptr});
        }
        comparer_.emplace(producer_, borrowed_, keys_);
    }
    void begin() {
        producer_.open_gap(
            [&] {
                for (DiskIndex disk = 0; disk < kDisks; ++disk) producer_.todo(disk).set_all();
            },
            true);
    }
    void ask_all() {
        while (comparer_->step() == Comparer::Outcome::kWorked) continue;
    }
    uint64_t state() const { return header_.word(LogWord::kCompareState).load(); }

    StillClock clock_;
    SeededKeys keys_;
    TestMemory memory_;
    LogHeader header_;
    CaptureProducer producer_;
    std::vector<std::unique_ptr<DiskContent>> contents_;
    std::vector<std::unique_ptr<MemoryDevice>> devices_;
    std::vector<Comparer::Source> borrowed_;
    std::optional<Comparer> comparer_;
    CompareResponder responder_{header_};
};

// Broken if what is equal were copied, or what is not were taken off.
TEST_F(ComparerTest, OnlyWhatDiffersStaysOnTodo) {
    contents_[1]->now[5 * kSumBlockBytes + 3] = 1;
    begin();
    ask_all();
    const auto asked = responder_.asked();
    ASSERT_EQ(asked.size(), kDisks) << "a question a disk, side by side";
    for (const auto& one : asked)
        EXPECT_TRUE(responder_.answer(
            one, {CompareVerdict::kSums, std::vector<BlockSum>(one.question.blocks()), 0}));
    ask_all();
    EXPECT_EQ(producer_.unsure_granules(), 0u);
    EXPECT_EQ(producer_.todo_granules(), 1u);
    EXPECT_TRUE(producer_.todo(1).test(5 * kSumBlockBytes));
}

// Broken if a tap that copies everything left questions behind: the agent would ask them, and be
// woken for them, for as long as they cannot be answered.
TEST_F(ComparerTest, NothingToCompareWithEndsAllQuestions) {
    begin();
    ask_all();
    const auto asked = responder_.asked();
    ASSERT_EQ(asked.size(), kDisks);
    EXPECT_TRUE(responder_.answer(asked[1], {CompareVerdict::kNothing, {}, 0}));
    ask_all();
    EXPECT_EQ(state(), static_cast<uint64_t>(CompareState::kNone));
    EXPECT_EQ(producer_.unsure_granules(), 0u);
    EXPECT_EQ(producer_.todo_granules(), kDisks * kDiskBytes / kTodoGranuleBytes)
        << "all is copied";
    EXPECT_FALSE(CompareResponder::any(header_));
    EXPECT_FALSE(responder_.answer(asked[0], {CompareVerdict::kEqual, {}, 0}));
    // The next comparison is not disturbed by it.
    begin();
    ask_all();
    EXPECT_EQ(responder_.asked().size(), kDisks);
    EXPECT_EQ(state(), static_cast<uint64_t>(CompareState::kComparing));
}

// Broken if a check that somebody cancelled went on, asked on, or left something to copy; or if it
// took away what has to be copied in any case.
TEST_F(ComparerTest, ACheckCanBeCancelledWhileNothingDiffers) {
    producer_.open_gap([] {});
    ASSERT_TRUE(producer_.settle_gap());
    ASSERT_TRUE(producer_.try_resynced());
    producer_.begin_check();
    ask_all();
    ASSERT_EQ(responder_.asked().size(), kDisks);
    // Written meanwhile, and not in the log: it is copied whatever becomes of the check.
    producer_.set_todo(1, 3 * kSumBlockBytes, 1);
    EXPECT_TRUE(producer_.cancel_check());
    EXPECT_EQ(state(), static_cast<uint64_t>(CompareState::kNone));
    EXPECT_EQ(producer_.unsure_granules(), 0u);
    EXPECT_EQ(producer_.todo_granules(), 1u);
    EXPECT_TRUE(producer_.todo(1).test(3 * kSumBlockBytes));
    EXPECT_EQ(comparer_->step(), Comparer::Outcome::kNothing);
    EXPECT_FALSE(CompareResponder::any(header_)) << "nobody is asked any more";
    EXPECT_TRUE(producer_.cancel_check()) << "there is nothing to cancel: no harm";
    // What was to be copied before a check began is in question with all the rest.
    producer_.begin_check();
    EXPECT_FALSE(producer_.cancel_check());
}

// Broken if a comparison without which nobody knows whether the replica is good could be ended.
TEST_F(ComparerTest, WhatIsNeededIsNotCancelled) {
    begin();
    ask_all();
    EXPECT_FALSE(producer_.cancel_check()) << "order was lost";
    EXPECT_EQ(state(), static_cast<uint64_t>(CompareState::kComparing));
    for (const auto& one : responder_.asked())
        EXPECT_TRUE(responder_.answer(one, {CompareVerdict::kEqual, {}, 0}));
    ask_all();
    ASSERT_TRUE(producer_.settle_gap());
    while (!comparer_->verified()) {
        ask_all();
        for (const auto& one : responder_.asked())
            EXPECT_TRUE(responder_.answer(one, {CompareVerdict::kEqual, {}, 0}));
        ask_all();
    }
    ASSERT_TRUE(producer_.try_resynced());
    // A check that found something.
    contents_[2]->now[7] = 1;
    producer_.begin_check();
    ask_all();
    for (const auto& one : responder_.asked())
        EXPECT_TRUE(responder_.answer(
            one, {CompareVerdict::kSums, std::vector<BlockSum>(one.question.blocks()), 0}));
    ask_all();
    EXPECT_FALSE(producer_.cancel_check()) << "a difference was found";
    EXPECT_TRUE(producer_.todo(2).test(0));
    // And one that an earlier tap began: what it knew is gone.
    CaptureProducer next(header_, CaptureProducer::Options{&clock_, nullptr, nullptr, {}, nullptr});
    Comparer taken_over(next, borrowed_, keys_);
    EXPECT_FALSE(next.cancel_check());
}

// Broken if a check read on outside its window, or an unprotected item waited for one.
TEST_F(ComparerTest, WaitsForItsWindowAsTold) {
    const auto hold = [&](CompareHold how) {
        header_.word(LogWord::kCompareHold).store(static_cast<uint64_t>(how));
    };
    hold(CompareHold::kAlways);
    EXPECT_FALSE(comparer_->held()) << "nothing is compared";
    begin();
    EXPECT_TRUE(comparer_->held());
    hold(CompareHold::kWithoutGap);
    EXPECT_FALSE(comparer_->held()) << "order was lost";
    hold(CompareHold::kNone);
    EXPECT_FALSE(comparer_->held());
    producer_.end_compare();
    for (DiskIndex disk = 0; disk < kDisks; ++disk) producer_.todo(disk).clear(0, kDiskBytes);
    ASSERT_TRUE(producer_.settle_gap());
    ASSERT_TRUE(producer_.try_resynced());
    producer_.begin_check();
    hold(CompareHold::kWithoutGap);
    EXPECT_TRUE(comparer_->held());
}

// Broken if an answer from before a new gap settled what is compared anew: the source may have
// changed unseen between the two.
TEST_F(ComparerTest, ANewGapMakesOldAnswersWorthless) {
    begin();
    ask_all();
    const auto before = responder_.asked();
    for (const auto& one : before)
        EXPECT_TRUE(responder_.answer(one, {CompareVerdict::kEqual, {}, 0}));
    contents_[0]->now[0] = 1;
    begin();
    ask_all();
    EXPECT_EQ(producer_.todo_granules(), kDisks * kDiskBytes / kTodoGranuleBytes);
    const auto now = responder_.asked();
    ASSERT_EQ(now.size(), kDisks);
    EXPECT_NE(now[0].question.key, before[0].question.key) << "a key for each comparison";
}

// Broken if what is written while it is compared were taken for what the replica had.
TEST_F(ComparerTest, WhatIsWrittenMeanwhileIsCopied) {
    begin();
    ask_all();
    AppendRequest request;
    request.kind = RecordKind::kZero;
    request.disk = 2;
    request.offset_bytes = 3 * kSumBlockBytes + 100;
    request.length_bytes = 200;
    (void)producer_.append(request);
    for (const auto& one : responder_.asked())
        EXPECT_TRUE(responder_.answer(one, {CompareVerdict::kEqual, {}, 0}));
    ask_all();
    EXPECT_EQ(producer_.unsure_granules(), 0u);
    EXPECT_EQ(producer_.todo_granules(), 1u);
    EXPECT_TRUE(producer_.todo(2).test(3 * kSumBlockBytes));
}

// A disk of 200 GiB and a bit that is empty but for a block each 50 GiB.
class SparseDevice final : public BlockDevice {
  public:
    static constexpr uint64_t kBytes = (200ull << 30) + 1000;
    static constexpr uint64_t kStep = 50ull << 30;
    static constexpr uint64_t kDataAt = 3 * kSumBlockBytes;  // behind each step

    uint64_t size_bytes() const override { return kBytes; }
    bool read_only() const override { return true; }
    Status read(uint64_t offset, MutableByteView out) override {
        read_bytes += out.size();
        std::ranges::fill(out, uint8_t{0});
        for (uint64_t at = kDataAt; at < kBytes; at += kStep)
            if (at >= offset && at < offset + out.size()) out[at - offset] = 1;
        return {};
    }
    Status write(uint64_t, ByteView) override { return fail(Code::kUnsupported, "write"); }
    Status zero(uint64_t, uint64_t, bool) override { return fail(Code::kUnsupported, "write"); }
    Status discard(uint64_t, uint64_t) override { return fail(Code::kUnsupported, "write"); }
    Status flush() override { return {}; }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        ++extent_calls;
        std::vector<BlockExtent> found;
        for (const uint64_t end = offset + length; offset < end;) {
            const uint64_t in = offset % kStep;
            const bool zero = in < kDataAt || in >= kDataAt + kSumBlockBytes;
            const uint64_t next = in < kDataAt ? offset - in + kDataAt
                                  : in < kDataAt + kSumBlockBytes
                                      ? offset - in + kDataAt + kSumBlockBytes
                                      : offset - in + kStep + kDataAt;
            found.push_back({offset, std::min(next, end) - offset, zero, zero});
            offset = std::min(next, end);
        }
        return found;
    }
    uint64_t read_bytes = 0, extent_calls = 0;
};

struct SparseDisk {
    SparseDisk()
        : memory(LogGeometry{.item = {},
                             .boot_id = {},
                             .ring_bytes = kMinRingBytes,
                             .spill_bytes = 0,
                             .disk_bytes = {SparseDevice::kBytes}}),
          header(*LogHeader::format(memory.memory(), memory.geometry(), {1})),
          producer(header, CaptureProducer::Options{&clock, nullptr, nullptr, {}, nullptr}),
          comparer(producer, {{&device, nullptr}}, keys) {
        producer.open_gap([&] { producer.todo(0).set_all(); }, true);
    }
    // Answers until nothing is asked; `there` says whether the replica has only zeroes in a range.
    // How many questions that took.
    size_t answer_all(const std::function<bool(ByteRange)>& zero_there) {
        size_t questions = 0;
        for (;;) {
            while (comparer.step() == Comparer::Outcome::kWorked) continue;
            const auto asked = responder.asked();
            if (asked.empty()) return questions;
            for (const auto& one : asked) answer(one, zero_there), ++questions;
        }
    }
    void answer(const CompareResponder::Asked& one,
                const std::function<bool(ByteRange)>& zero_there) {
        const CompareQuestion& q = one.question;
        CompareAnswer reply{CompareVerdict::kSums, {}, 0};
        for (uint64_t at = 0; at < q.length_bytes; at += q.block_bytes()) {
            const ByteRange block{q.offset_bytes + at,
                                  std::min(q.block_bytes(), q.length_bytes - at)};
            // What is data at the source is the same in this replica.
            const bool data = !q.long_zeroes() &&
                              block.offset_bytes % SparseDevice::kStep == SparseDevice::kDataAt;
            Bytes bytes(data ? kSumBlockBytes : 0);
            if (data) bytes[0] = 1;
            reply.sums.push_back(data ? BlockSummer(q.key).block(0, block.offset_bytes, bytes)
                                 : zero_there(block) ? kZeroSum
                                                     : kUnreadableSum);
        }
        if (q.long_zeroes()) ++long_questions;
        EXPECT_TRUE(responder.answer(one, reply));
    }
    StillClock clock;
    SeededKeys keys;
    TestMemory memory;
    LogHeader header;
    CaptureProducer producer;
    SparseDevice device;
    Comparer comparer;
    CompareResponder responder{header};
    size_t long_questions = 0;
};

// Broken if an empty terabyte took as long as a full one.
TEST(ComparerOfASparseDisk, ALongHoleIsOneQuestion) {
    SparseDisk disk;
    const size_t questions = disk.answer_all([](ByteRange) { return true; });
    EXPECT_EQ(disk.producer.todo_granules(), 0u);
    EXPECT_EQ(disk.header.word(LogWord::kComparedBytes).load(), SparseDevice::kBytes);
    // Beside each of five blocks a hole of 50 GiB, which may meet the end of 64 GiB.
    EXPECT_LE(questions, 5u + 5u + 5u);
    EXPECT_LE(disk.device.read_bytes, 5 * (1u << 20));
    EXPECT_LE(disk.device.extent_calls, 300u);
}

// Broken if what the replica has in a hole of the source stayed there, or all of the hole were
// asked or sent again for it.
TEST(ComparerOfASparseDisk, WhatTheReplicaHasInAHoleIsFound) {
    SparseDisk disk;
    const ByteRange stale{(70ull << 30) + 5 * kSumBlockBytes, kSumBlockBytes};
    const ByteRange at_end{SparseDevice::kBytes - 1000, 1000};
    const auto meets = [](const ByteRange& a, const ByteRange& b) {
        return a.offset_bytes < b.end() && b.offset_bytes < a.end();
    };
    const size_t questions = disk.answer_all(
        [&](ByteRange range) { return !meets(range, stale) && !meets(range, at_end); });
    EXPECT_EQ(disk.producer.unsure_granules(), 0u);
    EXPECT_EQ(disk.producer.todo_granules(), 2u);
    EXPECT_TRUE(disk.producer.todo(0).test(stale.offset_bytes));
    EXPECT_TRUE(disk.producer.todo(0).test(at_end.offset_bytes));
    EXPECT_LE(questions, 25u);
    EXPECT_EQ(disk.header.word(LogWord::kComparedBytes).load(), SparseDevice::kBytes);
    EXPECT_EQ(disk.header.word(LogWord::kDifferingBytes).load(), 2 * kTodoGranuleBytes);
}

// Broken if a write into a hole that is asked for were taken for what the replica had.
TEST(ComparerOfASparseDisk, WhatIsWrittenIntoAHoleMeanwhileIsCopied) {
    SparseDisk disk;
    while (disk.comparer.step() == Comparer::Outcome::kWorked) continue;
    AppendRequest request;
    request.kind = RecordKind::kZero;
    request.offset_bytes = 20ull << 30;
    request.length_bytes = 200;
    (void)disk.producer.append(request);
    (void)disk.answer_all([](ByteRange) { return true; });
    EXPECT_EQ(disk.producer.todo_granules(), 1u);
    EXPECT_TRUE(disk.producer.todo(0).test(20ull << 30));
    EXPECT_GE(disk.long_questions, 4u);
}

}  // namespace
}  // namespace farshore
