// The rules of BlockCapture one by one, over a kernel that does what the test says.
#include "ebpf/block_capture.h"

#include <gtest/gtest.h>

#include "capture/capture_test_reader.h"
#include "capture/capture_test_world.h"
#include "ebpf/test_fake_kernel.h"

namespace farshore {
namespace {

using capture_test::StillClock;
using capture_test::TestMemory;

constexpr uint64_t kDiskBytes = 8u << 20;

struct Logged {
    RecordKind kind;
    DiskIndex disk = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
    Bytes payload{};
    friend bool operator==(const Logged&, const Logged&) = default;
};

void PrintTo(const Logged& record, std::ostream* out) {
    *out << record_kind_name(record.kind) << " disk " << record.disk << " at " << record.offset
         << " length " << record.length;
    if (!record.payload.empty()) *out << " of " << int{record.payload.front()};
}

struct ProcessDied {};

class BlockCaptureTest : public ::testing::Test {
  protected:
    void start(std::vector<uint64_t> disks = {kDiskBytes}, uint64_t kernel_ring = 64u << 20) {
        LogGeometry geometry;
        geometry.ring_bytes = 4u << 20;
        geometry.disk_bytes = disks;
        memory_.emplace(geometry);
        ASSERT_TRUE(LogHeader::format(memory_->memory(), geometry, {1}));
        kernel_.emplace(std::move(disks), kernel_ring);
        start_process();
        reader_.emplace(producer_->header(), nullptr, nullptr);
        ASSERT_TRUE(producer_->settle_gap());
        ASSERT_TRUE(producer_->try_resynced());
        capture_->drain();
        log();
    }
    // The process that reads the trace, another time over the same memory and the same ring.
    void start_process() {
        capture_.reset();
        CaptureProducer::Options options;
        options.clock = &clock_;
        options.on_append = [this](const AppendRequest&, const Appended&) {
            if (dies_after_ && --*dies_after_ == 0) throw ProcessDied{};
        };
        producer_.emplace(*LogHeader::open(memory_->memory()), std::move(options));
        kernel_->restart_consumer();
        capture_.emplace(*producer_, *kernel_);
    }
    // The process dies when so many more records are in the log.
    void die_after(int records) {
        dies_after_ = records;
        EXPECT_THROW(capture_->drain(), ProcessDied);
        dies_after_.reset();
        start_process();
    }
    // What came into the log since the last call; GEOMETRY says nothing here.
    std::vector<Logged> log() {
        std::vector<Logged> records;
        while (!reader_->at_end()) {
            const auto last = capture_test::take_records(*reader_, 1u << 20, [&](const auto& r) {
                const RecordHeader& h = r.header;
                if (h.kind != RecordKind::kGeometry)
                    records.push_back(
                        {h.kind, h.disk, h.offset_bytes, h.length_bytes, to_bytes(r.payload)});
            });
            EXPECT_TRUE(last) << last.error().to_string();
            if (!last) break;
            reader_->release(*last);
        }
        return records;
    }
    std::vector<Logged> drained() {
        capture_->drain();
        return log();
    }
    bool in_gap() const { return producer_->state().gap != GapState::kNone; }
    bool todo(uint64_t offset, DiskIndex disk = 0) { return producer_->todo(disk).test(offset); }
    // As the copier does, with nothing to read.
    void copy_all() {
        const auto disks = static_cast<DiskIndex>(producer_->disks());
        for (DiskIndex disk = 0; disk < disks; ++disk)
            while (const auto range = producer_->todo(disk).next(0, kMaxZeroBytes)) {
                const auto claim = producer_->claim_copy(disk, *range);
                ASSERT_TRUE(claim);
                ASSERT_TRUE(producer_->finish_copy(*claim, {}));
            }
        ASSERT_TRUE(producer_->try_resynced());
        log();
    }

    static FakeKernelRequest write(uint64_t id, uint64_t offset, size_t length, uint8_t fill,
                                   DiskIndex disk = 0) {
        FakeKernelRequest rq;
        rq.id = id;
        rq.disk = disk;
        rq.bios = {{offset, length}};
        rq.pages = Bytes(length, fill);
        return rq;
    }
    static FakeKernelRequest other(uint64_t id, fs_event_kind kind, std::vector<ByteRange> bios) {
        FakeKernelRequest rq;
        rq.id = id;
        rq.kind = static_cast<uint8_t>(kind);
        rq.bios = std::move(bios);
        return rq;
    }
    static Logged written(uint64_t offset, size_t length, uint8_t fill, DiskIndex disk = 0) {
        return {RecordKind::kWrite, disk, offset, length, Bytes(length, fill)};
    }
    static Logged gap() { return {RecordKind::kGap}; }
    using Log = std::vector<Logged>;

    StillClock clock_;
    std::optional<TestMemory> memory_;
    std::optional<FakeKernel> kernel_;
    std::optional<CaptureProducer> producer_;
    std::optional<BlockCapture> capture_;
    std::optional<CaptureConsumer> reader_;
    std::optional<int> dies_after_;
};

// Broken: a record a page, or pieces of one write merged into something that it did not write.
TEST_F(BlockCaptureTest, PiecesOfAWriteAreOneRecord) {
    start();
    auto small = write(1, 512, 512, 1);
    auto large = write(2, 8192, 20'992, 2);
    for (size_t i = 0; i < large.pages.size(); ++i) large.pages[i] = static_cast<uint8_t>(i / 512);
    kernel_->issue(small);
    kernel_->issue(large);
    EXPECT_EQ(drained(), (Log{written(512, 512, 1),
                              {RecordKind::kWrite, 0, 8192, large.pages.size(), large.pages}}));
    EXPECT_EQ(capture_->in_flight(), 2u);
    kernel_->complete(large);
    kernel_->complete(small);
    EXPECT_EQ(drained(), Log{});
    EXPECT_EQ(capture_->in_flight(), 0u);
    EXPECT_EQ(capture_->counters().requests, 2u);
    EXPECT_FALSE(in_gap());
}

// Broken: a record that is larger than records may be.
TEST_F(BlockCaptureTest, AWriteOfMoreThanARecordIsSeveral) {
    start();
    kernel_->issue(write(1, 4096, kMaxWriteBytes + 8192, 3));
    EXPECT_EQ(drained(),
              (Log{written(4096, kMaxWriteBytes, 3), written(4096 + kMaxWriteBytes, 8192, 3)}));
}

// Broken: pieces that two CPUs put into the ring in turns change places in the log.
TEST_F(BlockCaptureTest, InterleavedWritesStayInOrder) {
    start({kDiskBytes, kDiskBytes});
    const auto a = write(1, 0, 12'288, 1), b = write(2, 4096, 8192, 2, 1);
    bool inside = false;
    int steps = 0;
    kernel_->kernel_step = [&] {
        // Behind the first piece of A.
        if (inside || kernel_->filling() || ++steps != 3) return;
        inside = true;
        kernel_->issue(b);
        inside = false;
    };
    kernel_->issue(a);
    kernel_->kernel_step = nullptr;
    EXPECT_EQ(drained(),
              (Log{written(0, 4096, 1), written(4096, 8192, 2, 1), written(4096, 8192, 1)}));
    EXPECT_FALSE(in_gap());
}

// Broken: a range that no record can name, or a part of it that is left out.
TEST_F(BlockCaptureTest, LargeZeroesAndDiscardsAreSplit) {
    constexpr uint64_t kMore = 4096;
    start({8ull << 30});
    kernel_->issue(other(1, kFsEventZero, {{4096, kMaxZeroBytes + kMore}}));
    kernel_->issue(other(2, kFsEventDiscard, {{4ull << 30, 2 * uint64_t{kMaxZeroBytes}}}));
    EXPECT_EQ(drained(), (Log{{RecordKind::kZero, 0, 4096, kMaxZeroBytes},
                              {RecordKind::kZero, 0, 4096 + uint64_t{kMaxZeroBytes}, kMore},
                              {RecordKind::kDiscard, 0, 4ull << 30, kMaxZeroBytes},
                              {RecordKind::kDiscard, 0, 5ull << 30, kMaxZeroBytes}}));
}

// Broken: of several discards that the kernel merged, only the first counts.
TEST_F(BlockCaptureTest, MergedDiscardsAreToldOneByOne) {
    start();
    const auto rq = other(1, kFsEventDiscard, {{0, 4096}, {1u << 20, 8192}});
    kernel_->issue(rq);
    EXPECT_EQ(drained(),
              (Log{{RecordKind::kDiscard, 0, 0, 4096}, {RecordKind::kDiscard, 0, 1u << 20, 8192}}));
    EXPECT_FALSE(capture_->quiet(0, {1u << 20, 4096}));
    EXPECT_TRUE(capture_->quiet(0, {4096, 4096}));
    kernel_->complete(rq);
    EXPECT_TRUE(capture_->quiet(0, {1u << 20, 4096}));
    EXPECT_FALSE(in_gap());
}

// Broken: what the guest made durable is not told.
TEST_F(BlockCaptureTest, AFlushIsARecord) {
    start({kDiskBytes, kDiskBytes});
    kernel_->complete_flush(7, 1);
    EXPECT_EQ(drained(), (Log{{RecordKind::kFlush, 1}}));
}

// Broken: the replica has the write that was issued last, the disk the one that it did last.
TEST_F(BlockCaptureTest, OverlapInFlightIsCopiedWhenBothHaveEnded) {
    for (const bool first_ends_first : {true, false}) {
        SCOPED_TRACE(first_ends_first);
        start();
        const auto a = write(1, 0, 8192, 1), b = write(2, 4096, 8192, 2);
        kernel_->issue(a);
        kernel_->issue(b);
        EXPECT_EQ(drained(), (Log{written(0, 8192, 1), written(4096, 8192, 2)}));
        EXPECT_EQ(capture_->counters().overlaps, 1u);
        // Either may be what the disk holds until one has ended: no gap before that.
        EXPECT_FALSE(in_gap());
        kernel_->complete(first_ends_first ? a : b);
        EXPECT_EQ(drained(), Log{gap()});
        EXPECT_TRUE(todo(4096));
        EXPECT_FALSE(capture_->quiet(0, {0, kTodoGranuleBytes}));
        kernel_->complete(first_ends_first ? b : a);
        drained();
        EXPECT_TRUE(todo(4096));
        EXPECT_TRUE(in_gap());
        EXPECT_TRUE(capture_->quiet(0, {0, kTodoGranuleBytes}));
    }
}

// Broken: writes one after the other, or beside each other, cost a gap.
TEST_F(BlockCaptureTest, NeighboursAndSuccessorsDoNotOverlap) {
    start();
    const auto a = write(1, 0, 4096, 1), b = write(2, 4096, 4096, 2), c = write(3, 0, 4096, 3);
    kernel_->issue(a);
    kernel_->issue(b);
    kernel_->complete(a);
    kernel_->issue(c);
    kernel_->complete(c);
    kernel_->complete(b);
    EXPECT_EQ(drained().size(), 3u);
    EXPECT_EQ(capture_->counters().overlaps, 0u);
    EXPECT_FALSE(in_gap());
}

// Broken: the replica has a write of which the disk may have done any part.
TEST_F(BlockCaptureTest, AFailedWriteIsCopied) {
    start();
    const auto rq = write(1, 1u << 20, 4096, 1);
    kernel_->issue(rq);
    drained();
    EXPECT_FALSE(in_gap());
    kernel_->complete(rq, true);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_FALSE(todo(0));
    EXPECT_EQ(capture_->counters().failed, 1u);
}

// Broken: the disk has taken pages later than the trace did, and nobody notices; or each write of
// pages that might have changed costs a gap.
TEST_F(BlockCaptureTest, PagesThatChangedAreCopied) {
    start();
    auto same = write(1, 0, 12'288, 1), changed = write(2, 1u << 20, 12'288, 2);
    kernel_->issue(same);
    kernel_->issue(changed);
    kernel_->complete(same);
    drained();
    EXPECT_FALSE(in_gap());
    changed.pages[9000] ^= 1;
    kernel_->complete(changed);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_FALSE(todo(0));
    EXPECT_EQ(capture_->counters().changed, 1u);
}

// Broken: pages that the kernel will write again anyway cost a gap.
TEST_F(BlockCaptureTest, PagesUnderWriteBackAreNotSummed) {
    start();
    auto rq = write(1, 0, 4096, 1);
    rq.stable = true;
    kernel_->issue(rq);
    rq.pages[0] ^= 1;
    kernel_->complete(rq);
    drained();
    EXPECT_FALSE(in_gap());
}

// Broken: a request that the driver put back counts as one that overlaps itself, or its sum is that
// of both times.
TEST_F(BlockCaptureTest, ARequestThatIsIssuedAgainBeginsAnew) {
    start();
    auto rq = write(1, 0, 8192, 1);
    kernel_->issue(rq);
    rq.pages.assign(rq.pages.size(), 2);
    kernel_->issue(rq);
    EXPECT_EQ(drained(), (Log{written(0, 8192, 1), written(0, 8192, 2)}));
    EXPECT_EQ(capture_->in_flight(), 1u);
    kernel_->complete(rq);
    EXPECT_EQ(drained(), Log{});
    EXPECT_FALSE(in_gap());
    EXPECT_EQ(capture_->counters().overlaps, 0u);
    EXPECT_TRUE(capture_->quiet(0, {0, 8192}));
}

// Broken: a write that was under way before anybody looked is taken for captured.
TEST_F(BlockCaptureTest, AnEndWithoutABeginningIsCopied) {
    start({kDiskBytes, kDiskBytes});
    const auto one = write(1, 1u << 20, 4096, 1);
    const auto several = other(2, kFsEventDiscard, {{0, 4096}, {2u << 20, 4096}});
    kernel_->issue(one);
    kernel_->issue(several);
    drained();
    start_process();
    EXPECT_EQ(drained(), Log{});
    kernel_->complete(one);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_EQ(producer_->todo_granules(), 1u);
    // Where its ranges were is not known any more.
    kernel_->complete(several);
    drained();
    EXPECT_EQ(producer_->todo(0).count(), kDiskBytes / kTodoGranuleBytes);
    EXPECT_EQ(producer_->todo(1).count(), 0u);
    EXPECT_EQ(capture_->counters().unknown, 2u);
}

// Broken: a write of which the ring took only a part counts as captured when it has ended, or is
// never forgotten so that the copier waits for ever.
TEST_F(BlockCaptureTest, WhatTheRingCouldNotTakeIsCopiedAfterItsEnd) {
    start({kDiskBytes}, 16u << 10);
    const auto rq = write(1, 1u << 20, 65'536, 1);
    kernel_->issue(rq);
    EXPECT_EQ(drained(), (Log{written(1u << 20, 3 * 4096, 1), gap()}));
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_FALSE(capture_->quiet(0, {1u << 20, 4096}));
    copy_all();
    EXPECT_FALSE(in_gap());
    kernel_->complete(rq);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_EQ(capture_->in_flight(), 0u);
    EXPECT_EQ(capture_->counters().unknown, 0u);
}

// Broken: a write whose end found no room in the ring is waited for until the world ends.
TEST_F(BlockCaptureTest, AnEndThatWasLostIsNoticed) {
    start({kDiskBytes}, 16u << 10);
    const auto a = write(1, 0, 4096, 1);
    kernel_->issue(a);
    EXPECT_FALSE(capture_->quiet(0, {0, 4096}));
    log();
    // Full to the last event, so that the end of A finds no room.
    std::vector<FakeKernelRequest> others;
    for (uint64_t id = 2; kernel_->losses() == 0; ++id) {
        others.push_back(write(id, id * 65'536, 512, 2));
        kernel_->issue(others.back());
    }
    while (kernel_->produced() - kernel_->released() + 64 < 16u << 10)
        kernel_->complete_flush(0, 0);
    kernel_->complete(a);
    EXPECT_TRUE(capture_->quiet(0, {0, 4096}));
    EXPECT_TRUE(todo(0));
    EXPECT_TRUE(in_gap());
}

// Broken: of a merged discard whose end found no room only the first range is looked after, and
// what a write did to another one while nobody knew of the discard is forgotten.
TEST_F(BlockCaptureTest, EachRangeOfAnEndThatWasLostIsCopied) {
    start({kDiskBytes}, 16u << 10);
    const auto discard = other(1, kFsEventDiscard, {{0, 4096}, {1u << 20, 4096}});
    kernel_->issue(discard);
    drained();
    start_process();
    const auto overlapping = write(2, 1u << 20, 4096, 2);
    kernel_->issue(overlapping);
    kernel_->complete(overlapping);
    drained();
    EXPECT_FALSE(in_gap());
    while (kernel_->produced() - kernel_->released() + 64 < 16u << 10)
        kernel_->complete_flush(0, 0);
    kernel_->complete(discard);
    drained();
    EXPECT_TRUE(todo(0));
    EXPECT_TRUE(todo(1u << 20));
    EXPECT_TRUE(in_gap());
}

// Broken: something that came after a loss is offered as a point although the loss is not in it.
TEST_F(BlockCaptureTest, TheGapComesBeforeTheEventThatTellsOfIt) {
    start();
    const auto before = write(1, 0, 4096, 1), after = write(2, 8192, 4096, 2);
    kernel_->issue(before);
    kernel_->pass_command(0);
    kernel_->issue(after);
    EXPECT_EQ(drained(), (Log{written(0, 4096, 1), gap(), written(8192, 4096, 2)}));
    EXPECT_EQ(producer_->todo(0).count(), kDiskBytes / kTodoGranuleBytes);
    EXPECT_EQ(capture_->counters().drops, 1u);
}

// Broken: the same when pieces of a write are still being gathered.
TEST_F(BlockCaptureTest, TheGapComesBetweenPieces) {
    start();
    int steps = 0;
    kernel_->kernel_step = [&] {
        if (!kernel_->filling() && ++steps == 4) kernel_->pass_command(0);
    };
    kernel_->issue(write(1, 0, 16'384, 1));
    kernel_->kernel_step = nullptr;
    EXPECT_EQ(drained(), (Log{written(0, 8192, 1), gap(), written(8192, 8192, 1)}));
}

// Broken: marks are copied again and again, or are lost when they came before their count.
TEST_F(BlockCaptureTest, MarksAreHandedOverOnce) {
    start({kDiskBytes}, 4096);
    const auto rq = write(1, 5u << 20, 4096, 1);
    kernel_->issue(rq);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_EQ(producer_->todo(0).count(), FakeKernel::kGranuleBytes / kTodoGranuleBytes);
    EXPECT_TRUE(todo(5u << 20));
    EXPECT_FALSE(kernel_->marked());
    copy_all();
    EXPECT_EQ(drained(), Log{});
    EXPECT_EQ(producer_->todo_granules(), 0u);
    // Its end marks it again; this time the marks are taken before they are counted.
    bool once = true;
    kernel_->kernel_step = [&] {
        if (!kernel_->marked() || !once) return;
        once = false;
        start_process();
        capture_->drain();
    };
    kernel_->complete(rq);
    kernel_->kernel_step = nullptr;
    EXPECT_FALSE(once);
    EXPECT_EQ(log(), Log{gap()});
    EXPECT_TRUE(todo(5u << 20));
    EXPECT_EQ(drained(), Log{});
    EXPECT_EQ(capture_->counters().drops, 1u);
}

// Broken: a process that dies while it takes marks over leaves some of them nowhere.
TEST_F(BlockCaptureTest, MarksOutliveAProcessThatTakesThem) {
    start({kDiskBytes}, 4096);
    kernel_->issue(write(1, 0, 4096, 1));
    kernel_->issue(write(2, 5u << 20, 4096, 1));
    // In next, drops and marked, before the first mark, and when it has been handed over.
    int calls = 6;
    kernel_->consumer_step = [&] {
        if (--calls == 0) throw ProcessDied{};
    };
    EXPECT_THROW(capture_->drain(), ProcessDied);
    kernel_->consumer_step = nullptr;
    EXPECT_TRUE(kernel_->marked());
    start_process();
    drained();
    EXPECT_TRUE(todo(0));
    EXPECT_TRUE(todo(5u << 20));
    EXPECT_TRUE(in_gap());
    EXPECT_FALSE(kernel_->marked());
}

// Broken: a command that could have changed anything on one disk costs the others a copy, or costs
// its own none.
TEST_F(BlockCaptureTest, AWholeDiskCanBeMarked) {
    start({kDiskBytes, kDiskBytes});
    kernel_->pass_command(1);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_EQ(producer_->todo(0).count(), 0u);
    EXPECT_EQ(producer_->todo(1).count(), kDiskBytes / kTodoGranuleBytes);
}

// Broken: bytes behind a disk's protected end get into the log, which the replica refuses, or
// what is in front of that end is forgotten.
TEST_F(BlockCaptureTest, WhatIsBehindTheProtectedEndIsLeftOut) {
    start({kDiskBytes - 4096});
    const auto behind = write(1, kDiskBytes, 4096, 1);
    const auto across = other(2, kFsEventZero, {{kDiskBytes - 8192, 65'536}});
    kernel_->issue(behind);
    EXPECT_EQ(drained(), Log{});
    kernel_->complete(behind);
    EXPECT_EQ(drained(), Log{});
    EXPECT_FALSE(in_gap());
    kernel_->issue(across);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(kDiskBytes - 8192));
    copy_all();
    kernel_->complete(across);
    EXPECT_EQ(drained(), Log{gap()});
    EXPECT_TRUE(todo(kDiskBytes - 8192));
    EXPECT_EQ(producer_->todo_granules(), 1u);
    kernel_->complete_flush(0, 1);
    EXPECT_EQ(drained(), Log{});
}

// Broken: a process that follows another one repeats records, or leaves some out.
TEST_F(BlockCaptureTest, TheNextProcessGoesOnBehindTheLastRecord) {
    start();
    const auto a = write(1, 0, 4096, 1), b = write(2, 8192, 12'288, 2),
               c = write(3, 65'536, 512, 3);
    const uint64_t released = kernel_->released();
    kernel_->issue(a);
    kernel_->issue(b);
    kernel_->issue(c);
    for (int i = 0; i < 3; ++i) die_after(1);
    EXPECT_EQ(kernel_->released(), released) << "each died before it could release";
    EXPECT_EQ(drained(),
              (Log{written(0, 4096, 1), written(8192, 12'288, 2), written(65'536, 512, 3)}));
    // It was told of the beginnings again, so the ends are no news.
    for (const auto* rq : {&a, &b, &c}) kernel_->complete(*rq);
    EXPECT_EQ(drained(), Log{});
    EXPECT_EQ(capture_->counters().unknown, 0u);
    EXPECT_FALSE(in_gap());
}

// Broken: a process that dies between two records of one request loses the second.
TEST_F(BlockCaptureTest, TheNextProcessGoesOnInTheMiddleOfARequest) {
    start({8ull << 30});
    kernel_->issue(write(1, 0, kMaxWriteBytes + 4096, 1));
    die_after(1);
    EXPECT_EQ(drained(), (Log{written(0, kMaxWriteBytes, 1), written(kMaxWriteBytes, 4096, 1)}));

    const auto discards = other(2, kFsEventDiscard, {{0, 4096}, {65'536, 4096}});
    kernel_->issue(discards);
    die_after(1);
    EXPECT_EQ(drained(),
              (Log{{RecordKind::kDiscard, 0, 0, 4096}, {RecordKind::kDiscard, 0, 65'536, 4096}}));

    // The records of one event say the same when they come twice, as long as all of them come.
    const auto zero = other(3, kFsEventZero, {{0, 2 * uint64_t{kMaxZeroBytes}}});
    kernel_->issue(zero);
    die_after(1);
    const Log records = drained();
    ASSERT_GE(records.size(), 2u);
    EXPECT_EQ(records.back(), (Logged{RecordKind::kZero, 0, kMaxZeroBytes, kMaxZeroBytes}));
    kernel_->complete(zero);
    drained();
    EXPECT_FALSE(in_gap());
}

// Broken: a page that changed is not noticed because a process died in between.
TEST_F(BlockCaptureTest, TheNextProcessSumsWhatIsInTheLogAlready) {
    start();
    auto a = write(1, 0, 12'288, 1), b = write(2, 1u << 20, 12'288, 2);
    kernel_->issue(a);
    kernel_->issue(b);
    die_after(2);
    b.pages[0] ^= 1;
    kernel_->complete(a);
    kernel_->complete(b);
    drained();
    EXPECT_FALSE(todo(0));
    EXPECT_TRUE(todo(1u << 20));
}

// Broken: the kernel writes over an event that is not in the log yet, and a process that dies then
// has lost it.
TEST_F(BlockCaptureTest, NothingIsReleasedBeforeItIsInTheLog) {
    start();
    size_t releases = 0;
    kernel_->on_release = [&](uint64_t position) {
        ++releases;
        EXPECT_LE(position, producer_->state().source_position);
    };
    // Writes of 2 MiB, so that space is given back while pieces are still being gathered; ends
    // carry nothing, so none are told here.
    for (uint64_t id = 1; id <= 4; ++id) kernel_->issue(write(id, (id - 1) << 21, 2u << 20, 1));
    EXPECT_GT(capture_->drain(), 0u);
    EXPECT_GT(releases, 4u);
    EXPECT_EQ(kernel_->released(), kernel_->produced());
    kernel_->on_release = nullptr;
    kernel_->complete(write(1, 0, 2u << 20, 1));
    capture_->drain();
    EXPECT_EQ(kernel_->released(), kernel_->produced());
}

// Broken: a CPU that is taken away while it fills an event hides all that comes behind it, and a
// copy or a point is made as if that had not happened.
TEST_F(BlockCaptureTest, NothingSettlesBehindAnEventThatIsBeingFilled) {
    start();
    bool inside = false;
    kernel_->kernel_step = [&] {
        if (inside || !kernel_->filling()) return;
        inside = true;
        // Another CPU meanwhile: a write from its beginning to its end.
        const auto other = write(2, 65'536, 4096, 2);
        kernel_->issue(other);
        kernel_->complete(other);
        EXPECT_FALSE(capture_->settle());
        EXPECT_EQ(log(), Log{});
    };
    kernel_->issue(write(1, 0, 4096, 1));
    kernel_->kernel_step = nullptr;
    EXPECT_TRUE(inside);
    EXPECT_TRUE(capture_->settle());
    EXPECT_EQ(log(), (Log{written(0, 4096, 1), written(65'536, 4096, 2)}));
    EXPECT_TRUE(capture_->settle());
}

// Broken: a full log makes the trace wait, or what the log had no room for is forgotten.
TEST_F(BlockCaptureTest, AFullLogIsAGap) {
    start();
    for (uint64_t id = 1; id <= 8; ++id) {
        kernel_->issue(write(id, (id - 1) << 20, 1u << 20, 1));
        capture_->drain();
    }
    EXPECT_EQ(producer_->state().gap, GapState::kDropping);
    EXPECT_TRUE(todo(7u << 20));
    EXPECT_EQ(kernel_->released(), kernel_->produced());
    start_process();
    capture_->drain();
    EXPECT_EQ(producer_->state().gap, GapState::kDropping);
}

}  // namespace
}  // namespace farshore
