#include "capture/tap.h"

#include <gtest/gtest.h>

#include <thread>

#include "capture/capture_test_world.h"

namespace farshore {
namespace {

using namespace capture_test;

struct OneTap {
    explicit OneTap(uint64_t disk_bytes = (4u << 20) + 100, TapMode mode = TapMode::kInPath,
                    uint64_t ring_bytes = 8u << 20)
        : disk(disk_bytes), memory(geometry(disk_bytes, ring_bytes)) {
        header = *LogHeader::format(memory.memory(), memory.geometry(), {1});
        TapOptions options;
        options.mode = mode;
        options.header = header;
        options.devices.push_back(std::make_unique<MemoryDevice>(disk));
        options.dirty = *DirtyMap::create(files, "dirty", {}, {disk_bytes});
        fill_new_log(header, *options.dirty, mode);
        options.clock = &clock;
        tap = *Tap::start(std::move(options));
        consumer = std::make_unique<CaptureConsumer>(header, nullptr, nullptr);
        commands = std::make_unique<TapCommands>(header, nullptr);
    }
    static LogGeometry geometry(uint64_t disk_bytes, uint64_t ring_bytes) {
        LogGeometry g;
        g.ring_bytes = ring_bytes;
        g.disk_bytes = {disk_bytes};
        return g;
    }
    std::vector<RecordHeader> read() {
        std::vector<RecordHeader> out;
        for (;;) {
            auto batch = consumer->peek(1u << 20);
            EXPECT_TRUE(batch);
            if (!batch || batch->empty()) return out;
            RecordCursor cursor(batch->records, true);
            while (!cursor.done()) out.push_back(cursor.next()->header);
            consumer->advance();
            consumer->release(batch->last);
        }
    }
    std::string kinds() {
        std::string out;
        for (const RecordHeader& header_read : read())
            out += std::string(out.empty() ? "" : " ") +
                   std::string(record_kind_name(header_read.kind));
        return out;
    }
    // Past the initial copy.
    void protect() {
        while (tap->copier().step() != Copier::Outcome::kNothing) read();
        tap->tick();
        read();
    }
    TestFiles files;
    StillClock clock;
    DiskContent disk;
    TestMemory memory;
    LogHeader header;
    std::unique_ptr<Tap> tap;
    std::unique_ptr<CaptureConsumer> consumer;
    std::unique_ptr<TapCommands> commands;
};

// Broken: a machine is said to be protected before everything is copied, or never.
TEST(Tap, TheInitialCopyIsAGap) {
    OneTap t;
    t.disk.now[3u << 20] = 7;
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kNoSpace) << "before GAP is in the log";
    t.tap->tick();
    EXPECT_EQ(t.kinds(), "gap geometry");
    while (t.tap->copier().step() != Copier::Outcome::kNothing) {
    }
    // Zeroes before it, the granule, zeroes behind: to the byte.
    const auto records = t.read();
    ASSERT_EQ(records.size(), 4u);
    EXPECT_EQ(records[0].kind, RecordKind::kZero);
    EXPECT_EQ(records[0].length_bytes, 3u << 20);
    EXPECT_EQ(records[1].kind, RecordKind::kWrite);
    EXPECT_EQ(records[2].kind, RecordKind::kZero);
    EXPECT_EQ(records[2].offset_bytes + records[2].length_bytes, t.disk.now.size());
    EXPECT_EQ(records[3].kind, RecordKind::kResynced);
    t.tap->tick();
    EXPECT_EQ(t.kinds(), "point") << "the first point comes at once";
}

// Broken: unallocated space costs time or log.
TEST(Tap, ALargeSparseDiskIsAFewRecords) {
    struct Sparse final : BlockDevice {
        uint64_t size_bytes() const override { return (64ull << 40) - 512; }
        bool read_only() const override { return false; }
        Status read(uint64_t, MutableByteView) override { return fail(Code::kIo, "was read"); }
        Status write(uint64_t, ByteView) override { return {}; }
        Status zero(uint64_t, uint64_t, bool) override { return {}; }
        Status discard(uint64_t, uint64_t) override { return {}; }
        Status flush() override { return {}; }
        Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
            return std::vector<BlockExtent>{{offset, length, true, true}};
        }
    };
    auto sparse = std::make_unique<Sparse>();
    TestFiles files;
    StillClock clock;
    TestMemory memory(OneTap::geometry(sparse->size_bytes(), 8u << 20));
    auto header = *LogHeader::format(memory.memory(), memory.geometry(), {1});
    TapOptions options;
    options.header = header;
    options.dirty = *DirtyMap::create(files, "dirty", {}, {sparse->size_bytes()});
    fill_new_log(header, *options.dirty, TapMode::kInPath);
    options.devices.push_back(std::move(sparse));
    options.clock = &clock;
    auto tap = *Tap::start(std::move(options));
    tap->tick();
    uint64_t steps = 0;
    while (tap->copier().step() == Copier::Outcome::kWorked) ++steps;
    EXPECT_EQ(steps, 64u << 10);  // 1 GiB each
    EXPECT_TRUE(tap->producer().settled());
}

TEST(Tap, BoundsAreChecked) {
    OneTap t;
    const uint64_t size = t.disk.now.size();
    Bytes data(100);
    TapDisk& disk = t.tap->disk(0);
    EXPECT_EQ(disk.write(size - 99, data).error().code(), Code::kInvalidArgument);
    EXPECT_EQ(disk.zero(~0ull, 100, false).error().code(), Code::kInvalidArgument);
    EXPECT_EQ(disk.discard(size, 1).error().code(), Code::kInvalidArgument);
    EXPECT_TRUE(disk.write(size - 100, data));
    EXPECT_TRUE(disk.write(size, {}));
}

// Broken: a large write is one record too large, or is torn by another one.
TEST(Tap, LargeWritesAreSeveralRecords) {
    OneTap t;
    t.tap->tick();
    t.read();
    ASSERT_TRUE(t.tap->disk(0).write_through(11, Bytes((3u << 20) + 5, 9)));
    const auto records = t.read();
    ASSERT_EQ(records.size(), 4u);
    EXPECT_EQ(records[3].length_bytes, 5u);
    EXPECT_EQ(records[3].offset_bytes, 11 + (3u << 20));
    EXPECT_EQ(t.disk.durable[11], 9) << "a FUA write is on stable storage";
}

// Broken: idle time does not move, or points come at the wrong times.
TEST(Tap, TimeAndPointsWhenIdle) {
    OneTap t;
    t.tap->tick();
    t.protect();
    t.header.word(LogWord::kPointIntervalUs).store(5'000'000);
    t.tap->tick();
    std::string all;
    for (int i = 0; i < 24; ++i) {
        t.clock.advance_us(500'000);
        t.tap->tick();
        const std::string some = t.kinds();
        if (!some.empty()) all += some + " ";
    }
    EXPECT_EQ(all, "time time time time point time time time time point time time ");
}

// Broken: the backing disk's error is hidden, or what it did in part is not captured.
TEST(Tap, AFailedWriteIsReportedAndCaptured) {
    OneTap t;
    t.tap->tick();
    t.protect();
    t.disk.before_change = [](uint64_t, uint64_t, uint64_t& part) -> Status {
        part = 70'000;
        return fail(Code::kIo, "bad sector");
    };
    EXPECT_EQ(t.tap->disk(0).write(0, Bytes(200'000, 3)).error().code(), Code::kIo);
    const auto records = t.read();
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].length_bytes, 131072u);  // the granules that the write reached
    EXPECT_EQ(records[1].kind, RecordKind::kZero);
}

// Broken if a hold let a write into the log, the point came behind a write that waited, one were
// made in a gap or after the hold was over, or a tap that is in no write's way said that it holds
// them.
TEST(Tap, WritesWaitForASharedPoint) {
    OneTap t;
    const auto run = [&](OneTap& on, TapCommandKind kind, uint64_t hold) {
        TapCommand command{kind, PointKind::kBookmark, "shop/1"};
        command.hold = hold;
        command.not_after_us = on.clock.steady_us() + kMaxHoldUs;
        const size_t slot = *on.commands->post(command);
        on.tap->serve_gate();  // beside the housekeeping, which may be busy
        return *on.commands->take(slot);
    };
    t.tap->tick();
    EXPECT_EQ(run(t, TapCommandKind::kHold, 5).code, Code::kPointInGap);
    t.protect();
    ASSERT_TRUE(run(t, TapCommandKind::kHold, 5).ok);
    std::thread writer([&] { EXPECT_TRUE(t.tap->disk(0).write(0, Bytes(4096, 1))); });
    Bytes some(512);
    EXPECT_TRUE(t.tap->disk(0).read(0, some)) << "reads do not wait";
    const TapCommandResult point = run(t, TapCommandKind::kMark, 5);
    writer.join();
    ASSERT_TRUE(point.ok);
    const auto records = t.read();
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].kind, RecordKind::kPoint);
    EXPECT_EQ(records[0].sequence, point.sequence);
    EXPECT_EQ(records[1].kind, RecordKind::kWrite);
    EXPECT_EQ(run(t, TapCommandKind::kMark, 5).code, Code::kTimeout) << "its hold is over";
    ASSERT_TRUE(run(t, TapCommandKind::kHold, 6).ok);
    ASSERT_TRUE(run(t, TapCommandKind::kLetGo, 6).ok);
    EXPECT_EQ(run(t, TapCommandKind::kMark, 6).code, Code::kTimeout);
    EXPECT_TRUE(t.read().empty());
    OneTap traced((4u << 20) + 100, TapMode::kBlock);
    traced.tap->tick();
    traced.protect();
    EXPECT_EQ(run(traced, TapCommandKind::kHold, 5).code, Code::kUnsupported);
}

TEST(Tap, CommandsAreDoneOnceAndRefusedByName) {
    OneTap t;
    const auto run = [&](TapCommandKind kind, const std::string& label = "") {
        const size_t slot = *t.commands->post({kind, PointKind::kApplication, label});
        EXPECT_FALSE(t.commands->take(slot));
        t.tap->tick();
        auto result = t.commands->take(slot);
        EXPECT_TRUE(result);
        return *result;
    };
    // Commands come first in a tick: the GAP of the beginning is not settled yet.
    EXPECT_EQ(run(TapCommandKind::kPoint).code, Code::kPointInGap);
    t.protect();
    const TapCommandResult point = run(TapCommandKind::kPoint, "label");
    EXPECT_TRUE(point.ok);
    const auto records = t.read();
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(records[0].sequence, point.sequence);
    EXPECT_EQ(records[0].flags, static_cast<uint8_t>(PointKind::kApplication));
    const TapCommandResult gap = run(TapCommandKind::kResyncAll);
    EXPECT_TRUE(gap.ok);
    EXPECT_EQ(t.read()[0].sequence, gap.sequence);
    EXPECT_EQ(t.tap->producer().todo_granules(), 65u);
    EXPECT_FALSE(t.tap->quit_requested());
    EXPECT_TRUE(run(TapCommandKind::kQuit).ok);
    EXPECT_TRUE(t.tap->quit_requested());
    EXPECT_EQ(t.commands->post({TapCommandKind::kPoint, PointKind::kCrash, std::string(257, 'x')})
                  .error()
                  .code(),
              Code::kInvalidArgument);
    for (size_t i = 0; i < kCommandSlots; ++i)
        EXPECT_TRUE(t.commands->post({TapCommandKind::kRotate, PointKind::kCrash, ""}));
    EXPECT_EQ(t.commands->post({TapCommandKind::kRotate, PointKind::kCrash, ""}).error().code(),
              Code::kLimitReached);
}

// Broken: a point that comes late is called what it was asked for as: nothing is frozen any more.
TEST(Tap, APointIsNotMadeLaterThanItMay) {
    OneTap t;
    t.tap->tick();
    t.protect();
    const auto run = [&](int64_t not_after_us) {
        const size_t slot =
            *t.commands->post({TapCommandKind::kPoint, PointKind::kApplication, "x", not_after_us});
        t.clock.advance_us(1'000'000);
        t.tap->tick();
        return *t.commands->take(slot);
    };
    EXPECT_EQ(run(t.clock.steady_us() + 999'999).code, Code::kTimeout);
    for (const RecordHeader& record : t.read()) EXPECT_NE(record.kind, RecordKind::kPoint);
    EXPECT_TRUE(run(t.clock.steady_us() + 1'000'000).ok);
    EXPECT_TRUE(run(0).ok) << "what was in the slot before counts";
}

// Broken: a point that is asked for between the round's settling and its commands lacks what was
// written before it was asked for.
TEST(Tap, APointHasWhatWasWrittenBeforeItWasAskedFor) {
    OneTap t;
    struct Barrier final : CopyBarrier {
        OneTap& t;
        int settled = 0;
        explicit Barrier(OneTap& tap) : t(tap) {}
        bool quiet(DiskIndex, ByteRange) override { return true; }
        bool settle() override {
            if (++settled == 1) {
                EXPECT_TRUE(t.commands->post({TapCommandKind::kPoint, PointKind::kBookmark, "x"}));
            } else if (settled == 2) {
                AppendRequest flush;
                flush.kind = RecordKind::kFlush;
                (void)t.tap->producer().append(flush);
            }
            return true;
        }
    } barrier(t);
    t.tap->tick();
    t.protect();
    t.tap->set_barrier(&barrier);
    t.tap->tick();
    const auto records = t.read();
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].kind, RecordKind::kFlush);
    EXPECT_EQ(records[1].kind, RecordKind::kPoint);
    t.tap->set_barrier(nullptr);
}

// Broken: a point or a time mark is made while something that has begun is not known yet.
TEST(Tap, NoPointWhileSomethingBegunIsNotKnown) {
    OneTap t;
    struct Barrier final : CopyBarrier {
        bool known = false;
        bool quiet(DiskIndex, ByteRange) override { return true; }
        bool settle() override { return known; }
    } barrier;
    t.tap->tick();
    t.protect();
    t.tap->set_barrier(&barrier);
    ASSERT_TRUE(t.commands->post({TapCommandKind::kPoint, PointKind::kBookmark, "x"}));
    t.clock.advance_us(5'000'000);
    t.tap->tick();
    EXPECT_TRUE(t.read().empty());
    barrier.known = true;
    t.tap->tick();
    const auto records = t.read();
    ASSERT_FALSE(records.empty());
    EXPECT_EQ(records[0].kind, RecordKind::kPoint);
    t.tap->set_barrier(nullptr);
}

// Broken: throttle and pause of the copy.
TEST(Tap, TheCopyIsThrottledAndPaused) {
    OneTap t;
    std::fill(t.disk.now.begin(), t.disk.now.end(), 1);
    t.tap->tick();
    t.header.word(LogWord::kCopyPaused).store(1);
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kPaused);
    t.header.word(LogWord::kCopyPaused).store(0);
    t.header.word(LogWord::kCopyBytesPerS).store(1u << 20);
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kWorked);  // 1 MiB
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kThrottled);
    EXPECT_EQ(t.tap->copier().wait_us(), 1'000'000);
    t.clock.advance_us(1'000'000);
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kWorked);
}

// Broken: live writes have to wait for the copy.
TEST(Tap, TheCopyLeavesHalfOfTheRing) {
    OneTap t((4u << 20), TapMode::kInPath, 1u << 20);
    std::fill(t.disk.now.begin(), t.disk.now.end(), 1);
    t.tap->tick();
    while (t.tap->copier().step() == Copier::Outcome::kWorked) {
    }
    EXPECT_LE(t.tap->producer().usage().ring_bytes, (1u << 19) + (1u << 18));
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kNoSpace);
    t.read();
    EXPECT_EQ(t.tap->copier().step(), Copier::Outcome::kWorked);
}

// Broken: what is measured as "without the dirty map" still waits for it, or forgets what differs.
TEST(Tap, WithoutMarksEverythingCountsAsDifferent) {
    OneTap t(40u << 20);
    TapOptions options;
    options.header = t.header;
    options.devices.push_back(std::make_unique<MemoryDevice>(t.disk));
    options.dirty = *DirtyMap::create(t.files, "dirty2", {}, {40u << 20});
    for (int i = 0; i < 4; ++i) options.dirty->rotate(i == 0, true, {1}, {1});
    ASSERT_FALSE(options.dirty->all_dirty());
    options.clock = &t.clock;
    options.marks = false;
    t.tap.reset();
    auto tap = *Tap::start(std::move(options));
    bool waited = false;
    t.files.before = [&](const std::string&) -> Status {
        waited = true;
        return {};
    };
    ASSERT_TRUE(tap->disk(0).write(5, Bytes(100, 1)));
    EXPECT_FALSE(waited);
    t.files.before = nullptr;
    for (int i = 0; i < 20; ++i) {
        while (tap->copier().step() != Copier::Outcome::kNothing) t.read();
        t.clock.advance_us(60'000'000);
        tap->tick();
        t.read();
    }
    t.files.power_loss();
    EXPECT_TRUE((*DirtyMap::open(t.files, "dirty2", {}, {40u << 20}))->all_dirty());
}

TEST(Tap, ADiskOfAnotherSizeIsRefused) {
    OneTap t;
    DiskContent other(1u << 20);
    TapOptions options;
    options.header = t.header;
    options.devices.push_back(std::make_unique<MemoryDevice>(other));
    options.dirty = *DirtyMap::create(t.files, "dirty2", {}, {1u << 20});
    options.clock = &t.clock;
    auto tap = Tap::start(std::move(options));
    ASSERT_FALSE(tap);
    EXPECT_EQ(tap.error().code(), Code::kDiskChanged);
}

}  // namespace
}  // namespace farshore
