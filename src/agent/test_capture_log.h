// A machine's capture log as an agent has it, in files of its own, with ten records of which the
// appliance has received all; and a tap that is asked. Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "agent/capture_source.h"
#include "capture/capture_files.h"
#include "codec/crc32c.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {

struct TestCaptureLog {
    // `clock` is borrowed.
    explicit TestCaptureLog(Clock& clock) : shared("/dev/shm") {
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
        append(10);
        source.emplace(*consumer,
                       CaptureSource::Commands{[this](const TapCommand& command) -> Result<size_t> {
                                                   asked.push_back(command.kind);
                                                   return 0;
                                               },
                                               [this](size_t) { return answer; }},
                       false);
        FS_CHECK(source->resume({1}, {0}));
        send_all();
        source->release(last);
    }
    void append(int records) {
        for (int i = 0; i < records; ++i) {
            AppendRequest request;
            request.payload = payload;
            request.payload_crc = crc32c(payload);
            request.length_bytes = static_cast<uint32_t>(payload.size());
            last = producer->append(request).sequence;
        }
    }
    // In pieces, so that they can be let go of in pieces.
    void send_all() {
        while (!source->next(8u << 10)->empty()) {
        }
    }

    TestDirectory directory, shared;
    PosixFileSystem system;
    const Bytes payload = Bytes(4096, 3);
    std::optional<CaptureFiles> files;
    std::optional<CaptureProducer> producer;
    std::optional<CaptureConsumer> consumer;
    std::optional<CaptureSource> source;
    Sequence last;
    std::vector<TapCommandKind> asked;
    std::optional<TapCommandResult> answer;
};

}  // namespace farshore
