#include "agent/capture_source.h"

#include <gtest/gtest.h>

#include "capture/capture_files.h"
#include "codec/crc32c.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

// A log with ten records of which the appliance has received all; and a tap that is asked.
struct Log {
    Log() : shared("/dev/shm") {
        CaptureConfig config;
        config.item.raw[3] = 9;
        config.shared_memory_path = shared / "log";
        config.spill_path = directory / "spill";
        config.dirty_map_path = directory / "dirty";
        config.ring_bytes = kMinRingBytes;
        config.spill_bytes = 0;
        config.disk_bytes = {10u << 20};
        files.emplace(std::move(*CaptureFiles::open(config, system)));
        CaptureProducer::Options options;
        options.clock = &clock;
        producer.emplace(files->header, options);
        producer->settle_gap();
        consumer.emplace(files->header, nullptr, nullptr);
        for (int i = 0; i < 10; ++i) {
            AppendRequest request;
            request.payload = payload;
            request.payload_crc = crc32c(payload);
            request.length_bytes = static_cast<uint32_t>(payload.size());
            last = producer->append(request).sequence;
        }
        source.emplace(*consumer,
                       CaptureSource::Commands{[this](const TapCommand& command) -> Result<size_t> {
                                                   asked.push_back(command.kind);
                                                   return 0;
                                               },
                                               [this](size_t) { return answer; }},
                       false);
        FS_CHECK(source->resume({1}, {0}));
        while (!source->next(1u << 20)->empty()) {
        }
        source->release(last);
    }
    TestDirectory directory, shared;
    PosixFileSystem system;
    RealClock clock;
    const Bytes payload = Bytes(4096, 3);
    std::optional<CaptureFiles> files;
    std::optional<CaptureProducer> producer;
    std::optional<CaptureConsumer> consumer;
    std::optional<CaptureSource> source;
    Sequence last;
    std::vector<TapCommandKind> asked;
    std::optional<TapCommandResult> answer;
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

// Broken if what was stored once and was lost over there (objects of the log's end together with
// the ledger) stayed lost: the dirty map has let go of it.
TEST(CaptureSource, WhatWasStoredAndIsNoMoreTakesEverything) {
    Log log;
    log.source->set_stored({9});
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

}  // namespace
}  // namespace farshore
