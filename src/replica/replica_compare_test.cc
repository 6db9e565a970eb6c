#include "replica/replica_compare.h"

#include <gtest/gtest.h>

#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr uint64_t kBlock = kSumBlockBytes;
constexpr size_t kBlocks = 41;  // more than is read at once; the last one is odd
constexpr uint64_t kDiskBytes = (kBlocks - 1) * kBlock + 1234;
constexpr uint64_t kSmallDiskBytes = 3 * kBlock;

// A replica of two disks in two segments, and what the source has. Blocks 0..3 and the last of disk
// 0 are in the first segment, block 20 in the second, block 30 was written and made zero again, and
// of block 35 only some bytes in the middle are known; all else is a hole.
class ReplicaCompareTest : public ::testing::Test {
  protected:
    void SetUp() override {
        replica_ = *ItemReplica::open(memory_, ledger_, clock_, random_, test_item(), test_key(),
                                      ItemReplicaOptions());
        Appliance appliance(memory_, random_, test_item(), test_key());
        ASSERT_TRUE(appliance.acquire(*replica_));
        Bytes records;
        geometry(records, 0, kDiskBytes);
        geometry(records, 1, kSmallDiskBytes);
        write(records, 0, 4 * kBlock);
        write(records, 30 * kBlock, kBlock);
        write(records, 35 * kBlock + 1000, 3000);
        write(records, (kBlocks - 1) * kBlock, 1234);
        ASSERT_TRUE(appliance.send(*replica_, records));
        records.clear();
        write(records, 20 * kBlock, kBlock);
        RecordHeader zero = header(RecordKind::kZero);
        zero.offset_bytes = 30 * kBlock;
        zero.length_bytes = kBlock;
        append_record(records, zero, {});
        std::fill_n(source_.begin() + 30 * kBlock, kBlock, uint8_t{0});
        auto second = appliance.build(records);
        ASSERT_TRUE(second);
        ASSERT_TRUE(replica_->register_segment(*second));
        second_segment_ = second->object_name;
        key_.fill(0x6b);
    }

    RecordHeader header(RecordKind kind) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {next_++};
        h.time = {clock_.now_us};
        return h;
    }
    void geometry(Bytes& records, DiskIndex disk, uint64_t bytes) {
        RecordHeader h = header(RecordKind::kGeometry);
        h.disk = disk;
        h.offset_bytes = bytes;
        append_record(records, h, {});
    }
    void write(Bytes& records, uint64_t at, uint64_t length) {
        RecordHeader h = header(RecordKind::kWrite);
        h.offset_bytes = at;
        h.length_bytes = static_cast<uint32_t>(length);
        const auto bytes = MutableByteView(source_).subspan(at, length);
        random_.fill(bytes);
        append_record(records, h, bytes);
    }

    std::shared_ptr<ReplicaReader> reader() {
        auto opened = ReplicaReader::open(memory_, test_item(), test_key(), {next_ - 1});
        EXPECT_TRUE(opened) << opened.error().to_string();
        return opened.value_or(nullptr);
    }
    std::vector<BlockSum> source_sums(uint64_t at, uint64_t length) const {
        BlockSummer summer(key_);
        std::vector<BlockSum> sums;
        for (uint64_t block = at; block < at + length; block += kBlock)
            sums.push_back(summer.block(
                0, block, ByteView(source_).subspan(block, std::min(kBlock, at + length - block))));
        return sums;
    }
    CompareQuestion question(uint64_t at, uint64_t length) const {
        CompareQuestion question;
        question.key = key_;
        question.at_least = {next_ - 1};
        question.offset_bytes = at;
        question.length_bytes = length;
        question.sum = BlockSummer(key_).run(0, at, source_sums(at, length));
        return question;
    }
    CompareAnswer ask(const CompareQuestion& question) {
        auto answer = compare_replica(*reader(), question);
        EXPECT_TRUE(answer) << answer.error().to_string();
        return answer.value_or(CompareAnswer());
    }
    // The blocks of a run that differ from the source's.
    std::vector<size_t> differing(const CompareAnswer& answer, uint64_t at, uint64_t length) const {
        const auto sums = source_sums(at, length);
        EXPECT_EQ(answer.sums.size(), sums.size());
        std::vector<size_t> all;
        for (size_t i = 0; i < std::min(sums.size(), answer.sums.size()); ++i)
            if (sums[i] != answer.sums[i]) all.push_back(i);
        return all;
    }

    TestClock clock_;
    TestRandom random_{11};
    MemoryStore memory_;
    MemoryLedger ledger_;
    std::shared_ptr<ItemReplica> replica_;
    uint64_t next_ = 1;
    Bytes source_ = Bytes(kDiskBytes);
    std::string second_segment_;
    SumKey key_;
};

// Broken if a long hole of the source hid what the replica has there, or were not equal to a hole.
TEST_F(ReplicaCompareTest, LongZeroesAreAnsweredFromTheExtents) {
    constexpr uint64_t kLong = 100ull << 30, kPiece = kMaxCompareBytes;
    Appliance appliance(memory_, random_, test_item(), test_key());
    ASSERT_TRUE(appliance.acquire(*replica_));
    Bytes records;
    geometry(records, 2, kLong);
    RecordHeader write = header(RecordKind::kWrite);
    write.disk = 2;
    write.offset_bytes = 70 * kPiece + 12345;
    write.length_bytes = 1;
    append_record(records, write, Bytes(1, 9));
    ASSERT_TRUE(appliance.send(*replica_, records));
    const auto ask_for = [&](uint64_t at, uint64_t length) {
        CompareQuestion q = question(0, kBlock);
        q.disk = 2;
        q.offset_bytes = at;
        q.length_bytes = length;
        q.sum = kZeroSum;
        return ask(q);
    };
    EXPECT_EQ(ask_for(0, 70 * kPiece).verdict, CompareVerdict::kEqual);
    EXPECT_EQ(ask_for(71 * kPiece, kMaxCompareZeroBytes).verdict, CompareVerdict::kEqual);
    const CompareAnswer found = ask_for(0, 80 * kPiece + kBlock);
    ASSERT_EQ(found.verdict, CompareVerdict::kSums);
    ASSERT_EQ(found.sums.size(), 81u);
    for (size_t i = 0; i < found.sums.size(); ++i)
        EXPECT_EQ(found.sums[i] == kZeroSum, i != 70) << i;
    // Beyond the replica's disk nothing is known to be equal.
    EXPECT_EQ(ask_for(kLong - kPiece, 2 * kPiece).verdict, CompareVerdict::kSums);
    CompareQuestion wrong = question(0, kBlock);
    wrong.length_bytes = kMaxCompareBytes + kBlock;
    EXPECT_EQ(compare_replica(*reader(), wrong).error().code(), Code::kMalformed)
        << "long, and not of zeroes";
}

// Broken if what is equal were sent again: written, partly written, made zero, never written, and
// the disk's odd end.
TEST_F(ReplicaCompareTest, WhatIsEqualIsSaidInOneWord) {
    const CompareAnswer all = ask(question(0, kDiskBytes));
    EXPECT_EQ(all.verdict, CompareVerdict::kEqual);
    EXPECT_TRUE(all.sums.empty());
    for (size_t block = 0; block < kBlocks; ++block) {
        const uint64_t at = block * kBlock;
        EXPECT_EQ(ask(question(at, std::min(kBlock, kDiskBytes - at))).verdict,
                  CompareVerdict::kEqual)
            << block;
    }
    EXPECT_EQ(ask(question(3 * kBlock, 30 * kBlock)).verdict, CompareVerdict::kEqual);
}

// Broken if a difference of one byte were missed anywhere, or more than its block were told.
TEST_F(ReplicaCompareTest, OneByteDiffersInOneBlock) {
    for (const uint64_t at :
         {uint64_t{0}, 2 * kBlock - 1, 4 * kBlock, 10 * kBlock + 77, 16 * kBlock, 20 * kBlock + 5,
          30 * kBlock, 35 * kBlock, 35 * kBlock + 2000, 36 * kBlock - 1, kDiskBytes - 1}) {
        SCOPED_TRACE(at);
        source_[at] ^= 0x40;
        const CompareAnswer answer = ask(question(0, kDiskBytes));
        EXPECT_EQ(answer.verdict, CompareVerdict::kSums);
        EXPECT_EQ(answer.unreadable, 0u);
        EXPECT_EQ(differing(answer, 0, kDiskBytes), std::vector<size_t>{at / kBlock});
        source_[at] ^= 0x40;
    }
    // The source has zeroes where the replica has data, and the other way round.
    std::fill_n(source_.begin() + kBlock, kBlock, uint8_t{0});
    random_.fill(MutableByteView(source_).subspan(12 * kBlock, kBlock));
    EXPECT_EQ(differing(ask(question(0, kDiskBytes)), 0, kDiskBytes), (std::vector<size_t>{1, 12}));
}

// Broken if holes were not zeroes without a read, or a sum depended on where the run begins.
TEST_F(ReplicaCompareTest, HolesAreZeroes) {
    CompareQuestion other = question(5 * kBlock, 30 * kBlock);
    other.sum[0] ^= 1;
    const CompareAnswer answer = ask(other);
    ASSERT_EQ(answer.sums.size(), 30u);
    for (size_t i = 0; i < 30; ++i)
        EXPECT_EQ(answer.sums[i] == kZeroSum, i != 15) << "only block 20 has data, block " << i + 5;
    EXPECT_EQ(answer.sums[15], source_sums(20 * kBlock, kBlock)[0]);
}

// Broken if damage of the store stopped a resynchronisation, were taken for equal, or cost more
// than what is damaged.
TEST_F(ReplicaCompareTest, WhatCannotBeReadIsToldAsSuch) {
    const auto readable = reader();
    Bytes damaged = *memory_.get(second_segment_);
    const Bytes good = damaged;
    damaged[damaged.size() / 2] ^= 1;
    memory_.replace(second_segment_, damaged);
    const auto check = [&](ReplicaReader& from) {
        auto answer = compare_replica(from, question(0, kDiskBytes));
        ASSERT_TRUE(answer) << answer.error().to_string();
        EXPECT_EQ(answer->verdict, CompareVerdict::kSums);
        EXPECT_EQ(answer->unreadable, 1u);
        EXPECT_EQ(differing(*answer, 0, kDiskBytes), std::vector<size_t>{20});
        EXPECT_EQ(answer->sums[20], kUnreadableSum);
        // A run without it is as equal as ever.
        auto before = compare_replica(from, question(0, 20 * kBlock));
        ASSERT_TRUE(before);
        EXPECT_EQ(before->verdict, CompareVerdict::kEqual);
    };
    check(*reader());
    // Gone altogether, while the reader is open.
    ASSERT_TRUE(memory_.remove(second_segment_));
    check(*readable);
    // Read again, it is whole: nothing of the damage was kept.
    ASSERT_TRUE(memory_.put(second_segment_, good));
    EXPECT_EQ(ask(question(0, kDiskBytes)).verdict, CompareVerdict::kEqual);
}

// Broken if a store that is away were taken for damage: everything would be sent.
TEST_F(ReplicaCompareTest, AStoreThatIsAwayIsAnError) {
    Fate fate;
    FatefulStore store(memory_, fate);
    uint64_t failed = 0;
    for (uint64_t at = 1;; ++at) {
        fate = {};
        auto opened = ReplicaReader::open(store, test_item(), test_key(), {next_ - 1});
        ASSERT_TRUE(opened);
        fate = {.operations = 0, .at = at, .kind = Fate::Kind::kFailBefore};
        auto answer = compare_replica(**opened, question(0, kDiskBytes));
        if (!fate.happened) break;
        if (answer) continue;  // tried again further down
        ++failed;
        EXPECT_EQ(answer.error().code(), Code::kUnavailable);
        // It comes back, and so does the answer of the same reader.
        answer = compare_replica(**opened, question(0, kDiskBytes));
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->verdict, CompareVerdict::kEqual);
    }
    EXPECT_GT(failed, 0u);
}

// Broken if a disk that was added or grew were not sent whole, or zeroes were taken for the same
// as no disk.
TEST_F(ReplicaCompareTest, WithoutTheDiskEverythingDiffers) {
    for (const DiskIndex disk : {DiskIndex{1}, DiskIndex{2}}) {
        CompareQuestion other = question(5 * kBlock, 3 * kBlock);
        other.disk = disk;
        const CompareAnswer answer = ask(other);
        EXPECT_EQ(answer.verdict, CompareVerdict::kSums);
        EXPECT_EQ(answer.sums, std::vector<BlockSum>(3, kUnreadableSum));
        EXPECT_EQ(answer.unreadable, 0u) << "nothing is damaged";
    }
    CompareQuestion beyond = question(0, kDiskBytes);
    beyond.length_bytes = kDiskBytes + 1;
    EXPECT_EQ(ask(beyond).verdict, CompareVerdict::kSums);
    // What the smaller disk does have.
    CompareQuestion within = question(0, 3 * kBlock);
    within.disk = 1;
    EXPECT_EQ(ask(within).sums, std::vector<BlockSum>(3, kZeroSum));
}

// Broken if a peer's question could make the vault read or allocate without bound.
TEST_F(ReplicaCompareTest, QuestionsOutOfRangeAreRefused) {
    const auto replica = reader();
    const auto code = [&](uint64_t at, uint64_t length) -> std::optional<Code> {
        CompareQuestion bad = question(0, kBlock);
        bad.offset_bytes = at;
        bad.length_bytes = length;
        auto answer = compare_replica(*replica, bad);
        if (!answer) return answer.error().code();
        return std::nullopt;
    };
    EXPECT_EQ(code(0, 0), Code::kMalformed);
    EXPECT_EQ(code(512, kBlock), Code::kMalformed);
    EXPECT_EQ(code(0, kMaxCompareBytes + 1), Code::kMalformed);
    EXPECT_EQ(code(UINT64_MAX / kBlock * kBlock, kBlock), Code::kMalformed);
    EXPECT_EQ(code(0, UINT64_MAX), Code::kMalformed);
    EXPECT_EQ(code(0, kMaxCompareBytes), std::nullopt);
}

}  // namespace
}  // namespace farshore
