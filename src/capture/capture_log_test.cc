#include "capture/capture_log.h"

#include <gtest/gtest.h>

#include <thread>

#include "capture/capture_test_world.h"
#include "codec/crc32c.h"

namespace farshore {
namespace {

using namespace capture_test;

struct Log {
    explicit Log(uint64_t spill_bytes = 0, uint64_t ring_bytes = kMinRingBytes)
        : memory(geometry(spill_bytes, ring_bytes)),
          spill(*files.open("spill", OpenMode::kCreate)) {
        header = *LogHeader::format(memory.memory(), memory.geometry(), {1});
        open_both();
    }
    static LogGeometry geometry(uint64_t spill_bytes, uint64_t ring_bytes) {
        LogGeometry g;
        g.ring_bytes = ring_bytes;
        g.spill_bytes = spill_bytes;
        g.disk_bytes = {1u << 20};
        return g;
    }
    void open_both() {
        header = *LogHeader::open(memory.memory());
        producer = std::make_unique<CaptureProducer>(
            header, CaptureProducer::Options{&clock, spill.get(), nullptr, {}, nullptr});
        consumer = std::make_unique<CaptureConsumer>(header, spill.get(), nullptr);
    }
    Appended write(size_t bytes = 10'000, uint8_t fill = 1) {
        const Bytes payload(bytes, fill);
        AppendRequest request;
        request.length_bytes = static_cast<uint32_t>(bytes);
        request.payload = payload;
        request.payload_crc = crc32c(payload);
        return producer->append(request);
    }
    // Sequences read, as a string: "1-5 GAP9 10-12".
    std::vector<uint64_t> read(size_t max_bytes = 30'000) {
        std::vector<uint64_t> out;
        for (;;) {
            auto batch = consumer->peek(max_bytes);
            EXPECT_TRUE(batch) << batch.error().to_string();
            if (!batch || batch->empty()) return out;
            RecordCursor cursor(batch->records, true);
            while (!cursor.done()) {
                auto record = cursor.next();
                EXPECT_TRUE(record) << record.error().to_string();
                if (!record) return out;
                out.push_back(record->header.sequence.v);
            }
            consumer->advance();
        }
    }
    TestFiles files;
    StillClock clock;
    TestMemory memory;
    std::unique_ptr<File> spill;
    LogHeader header;
    std::unique_ptr<CaptureProducer> producer;
    std::unique_ptr<CaptureConsumer> consumer;
};

std::vector<uint64_t> from_to(uint64_t from, uint64_t to) {
    std::vector<uint64_t> out;
    for (uint64_t i = from; i <= to; ++i) out.push_back(i);
    return out;
}

// Broken: order across ring and spill, or the ring's wrap.
TEST(CaptureLog, OrderIsKeptThroughRingAndSpill) {
    Log log(400'000);
    uint64_t last = 0;
    std::vector<uint64_t> got;
    for (int round = 0; round < 40; ++round) {
        for (int i = 0; i < 12; ++i) {
            const Appended done = log.write(1'000 + static_cast<size_t>(round) * 311);
            ASSERT_FALSE(done.dropped);
            last = done.sequence.v;
        }
        // Reads behind at times, so that the ring fills and the spill comes and goes.
        if (round % 4 != 0) continue;
        const auto some = log.read();
        got.insert(got.end(), some.begin(), some.end());
        log.consumer->release({got.back()});
    }
    const auto rest = log.read();
    got.insert(got.end(), rest.begin(), rest.end());
    EXPECT_EQ(got, from_to(1, last));
    EXPECT_GT(log.header.word(LogWord::kSpilledBytes).load(), 100'000u);
    EXPECT_GT(log.header.producer().last_run, 4u);
}

// Broken: what does not fit vanishes without a word.
TEST(CaptureLog, AFullLogRemembersWhereAndSaysGap) {
    Log log;
    Appended done;
    do done = log.write();
    while (!done.dropped);
    const uint64_t dropped = done.sequence.v;
    EXPECT_EQ(log.producer->todo(0).count(), 1u);
    EXPECT_TRUE(log.write().dropped);
    EXPECT_EQ(log.read(), from_to(1, dropped - 1));
    log.consumer->release({dropped - 1});
    const Appended after = log.write();
    EXPECT_FALSE(after.dropped);
    // Two dropped, then GAP, GEOMETRY and the write.
    EXPECT_EQ(log.read(), from_to(dropped + 2, dropped + 4));
    EXPECT_EQ(log.header.producer().gap_sequence, dropped + 2);
    EXPECT_FALSE(log.producer->try_resynced()) << "with todo bits";
    log.producer->todo(0).clear(0, 1u << 20);
    EXPECT_TRUE(log.producer->try_resynced());
    EXPECT_EQ(log.producer->state().gap, GapState::kNone);
}

// Broken: a full disk under the spill loses records instead of opening a gap.
TEST(CaptureLog, ASpillThatCannotBeWrittenIsAGap) {
    Log log(1u << 20);
    uint64_t in_ring = 0;
    while (log.producer->usage().ring_bytes + 20'000 < kMinRingBytes)
        in_ring = log.write().sequence.v;
    log.files.before = [](const std::string&) -> Status { return fail(Code::kNoSpace, "full"); };
    Appended done;
    do done = log.write();
    while (!done.dropped && (in_ring = done.sequence.v) != 0);
    EXPECT_EQ(log.header.word(LogWord::kSpillErrors).load(), 1u);
    EXPECT_NE(log.header.word(LogWord::kSpillErrno).load(), 0u);
    EXPECT_EQ(log.read(), from_to(1, in_ring));
    log.consumer->release({in_ring});
    log.files.before = nullptr;
    EXPECT_FALSE(log.write().dropped);
    EXPECT_EQ(log.read().front(), done.sequence.v + 1);
}

// Broken: numbers or positions after a restart of either side.
TEST(CaptureLog, BothSidesGoOnWhereTheyWere) {
    Log log(400'000);
    uint64_t last = 0;
    for (int i = 0; i < 40; ++i) last = log.write().sequence.v;
    auto got = log.read();
    log.consumer->release({20});
    const uint64_t released = log.consumer->released().v;
    EXPECT_GT(released, 5u);
    EXPECT_LE(released, 20u);
    log.open_both();
    EXPECT_EQ(log.write().sequence.v, last + 1);
    EXPECT_EQ(log.read(), from_to(released + 1, last + 1));
}

// Broken: a comparison that begins in a full log behind flushes and marks alone waits until those
// are stored, and they are stored for nobody's sake.
TEST(CaptureLog, AComparisonThatBeginsInAFullLogWaitsForNoMark) {
    Log log;
    const auto mark = [&] {
        AppendRequest request;
        request.kind = RecordKind::kTime;
        return log.producer->append(request);
    };
    while (!mark().dropped) continue;
    log.open_both();
    log.producer->begin_compare();
    const Sequence after = log.producer->compare_after();
    const std::vector<uint64_t> old = log.read();
    EXPECT_EQ(old.back(), after.v);
    log.consumer->release(after);
    EXPECT_FALSE(mark().dropped);
    const auto batch = log.consumer->peek(30'000);
    ASSERT_TRUE(batch);
    RecordCursor cursor(batch->records, true);
    const auto first = cursor.next();
    ASSERT_TRUE(first);
    EXPECT_GT(first->header.sequence, after);
    EXPECT_EQ(first->header.kind, RecordKind::kGeometry);
}

// Broken: resuming at the record that the appliance wants.
TEST(CaptureLog, SeekFindsTheRecord) {
    Log log(400'000);
    for (int i = 0; i < 40; ++i) log.write();
    log.read();
    log.consumer->release({10});
    const uint64_t released = log.consumer->released().v;
    for (uint64_t want = released + 1; want <= 42; ++want) {
        ASSERT_TRUE(log.consumer->seek({want}));
        EXPECT_EQ(log.read(), from_to(want, 42));
    }
    ASSERT_TRUE(log.consumer->seek({43}));
    EXPECT_TRUE(log.consumer->at_end());
    EXPECT_EQ(log.consumer->seek({released}).error().code(), Code::kSequenceHole);
    EXPECT_EQ(log.consumer->seek({44}).error().code(), Code::kInvalidArgument);
    // And releases still find their place.
    ASSERT_TRUE(log.consumer->seek({30}));
    log.read();
    log.consumer->release({42});
    EXPECT_EQ(log.consumer->released().v, 42u);
    EXPECT_EQ(log.producer->usage().ring_bytes + log.producer->usage().spill_bytes, 0u);
}

// Broken: damaged memory is taken for records.
TEST(CaptureLog, DamageIsNamed) {
    Log log;
    log.write();
    log.memory.memory().ring[3] ^= 1;
    auto batch = log.consumer->peek(1000);
    ASSERT_FALSE(batch);
    EXPECT_EQ(batch.error().code(), Code::kCorrupt);
    log.consumer->discard_all();
    log.write();
    EXPECT_EQ(log.read().size(), 1u);
    Bytes copy = to_bytes(log.memory.memory().control);
    copy[50] ^= 1;
    EXPECT_EQ(read_geometry(copy).error().code(), Code::kCorrupt);
    copy[8] = 4;
    EXPECT_EQ(read_geometry(copy).error().code(), Code::kNewerVersion);
    copy[0] = 0;
    EXPECT_EQ(read_geometry(copy).error().code(), Code::kMalformed);
    EXPECT_EQ(read_geometry(ByteView(copy).first(100)).error().code(), Code::kTruncated);
}

// Broken: words of a commit from two different moments are read together.
TEST(CommitCell, ReadersNeverSeeAMixture) {
    std::vector<uint64_t> memory(CommitCell<4>::kBytes / 8);
    CommitCell<4> cell(memory.data());
    cell.write({0, 0, 0, 0});
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        for (uint64_t i = 0; i < 200'000; ++i) cell.write({i, i, i, i});
        stop = true;
    });
    uint64_t before = 0;
    while (!stop) {
        const auto words = cell.read();
        ASSERT_TRUE(words[0] == words[1] && words[1] == words[2] && words[2] == words[3]);
        ASSERT_GE(words[0], before);
        before = words[0];
    }
    writer.join();
}

// Broken: a sleeping agent is not woken, or a waking one costs a system call a record.
TEST(CaptureLog, TheDoorbellRingsOnceForASleeper) {
    Log log;
    int wakes = 0;
    CaptureProducer producer(
        log.header,
        {&log.clock, log.spill.get(), [&](std::atomic<uint32_t>&) { ++wakes; }, {}, nullptr});
    AppendRequest flush;
    flush.kind = RecordKind::kFlush;
    producer.append(flush);
    EXPECT_EQ(wakes, 0);
    log.header.word(LogWord::kAgentWaiting).store(1);
    producer.append(flush);
    producer.append(flush);
    EXPECT_EQ(wakes, 1);
}

}  // namespace
}  // namespace farshore
