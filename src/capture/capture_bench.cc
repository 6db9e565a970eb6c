// How fast the tap's side of the log is. Aims: 1.5 GB/s of 64 KiB records, 1 M small records a
// second.
#include <benchmark/benchmark.h>

#include "capture/capture_session.h"
#include "codec/crc32c.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

// Real shared memory, a reader that releases everything at once.
struct BenchLog {
    BenchLog() : directory("/dev/shm") {
        config.shared_memory_path = directory / "log";
        config.dirty_map_path = directory / "dirty";
        config.ring_bytes = 64u << 20;
        config.spill_bytes = 0;
        config.disk_bytes = {1ull << 30};
        auto opened = CaptureFiles::open(config, file_system);
        FS_CHECK(opened.has_value());
        files = std::move(*opened);
        producer = std::make_unique<CaptureProducer>(
            files.header, CaptureProducer::Options{&clock, nullptr, real_wake(), {}, nullptr});
        consumer = std::make_unique<CaptureConsumer>(files.header, nullptr, real_wake());
        producer->settle_gap();
    }
    void drain() {
        for (;;) {
            const auto batch = consumer->peek(4u << 20);
            FS_CHECK(batch.has_value());
            if (batch->empty()) return;
            consumer->advance();
            consumer->release(batch->last);
        }
    }
    TestDirectory directory;
    CaptureConfig config;
    PosixFileSystem file_system;
    RealClock clock;
    CaptureFiles files;
    std::unique_ptr<CaptureProducer> producer;
    std::unique_ptr<CaptureConsumer> consumer;
};

void append(benchmark::State& state) {
    BenchLog log;
    const auto bytes = static_cast<size_t>(state.range(0));
    const Bytes payload(bytes, 0x5a);
    uint64_t since = 0;
    for (auto _ : state) {
        AppendRequest request;
        request.kind = bytes == 0 ? RecordKind::kZero : RecordKind::kWrite;
        request.length_bytes = bytes == 0 ? 4096 : static_cast<uint32_t>(bytes);
        request.payload = payload;
        request.payload_crc = crc32c(payload);
        request.guest = true;
        const Appended done = log.producer->append(request);
        FS_CHECK(!done.dropped);
        since += bytes + kRecordHeaderBytes;
        if (since > (16u << 20)) {
            state.PauseTiming();
            log.drain();
            since = 0;
            state.ResumeTiming();
        }
    }
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(append)->Arg(0)->Arg(4096)->Arg(65536)->Arg(1 << 20);

void drain(benchmark::State& state) {
    BenchLog log;
    const Bytes payload(4096, 0x5a);
    AppendRequest request;
    request.length_bytes = 4096;
    request.payload = payload;
    request.payload_crc = crc32c(payload);
    for (auto _ : state) {
        state.PauseTiming();
        for (int i = 0; i < 4000; ++i) log.producer->append(request);
        state.ResumeTiming();
        log.drain();
    }
    state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * 4000));
}
BENCHMARK(drain);

// A sparse 64 TiB disk with a granule here and there.
void todo_search(benchmark::State& state) {
    const uint64_t disk = 64ull << 40;
    std::vector<uint64_t> words(disk / kTodoGranuleBytes / 64);
    TodoMap map(words, disk);
    for (uint64_t at = 0; at < disk; at += disk / 64) map.set(at, 1);
    for (auto _ : state) {
        uint64_t at = 0;
        while (const auto found = map.next(at, kMaxZeroBytes)) at = found->end();
        benchmark::DoNotOptimize(at);
    }
}
BENCHMARK(todo_search)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace farshore
