// How fast segments are built and read: M4's budget on the appliance, M6's on the vault.
#include <benchmark/benchmark.h>

#include <atomic>
#include <random>
#include <thread>

#include "codec/envelope.h"
#include "record/record.h"
#include "replica/segment.h"
#include "store/memory_store.h"

namespace farshore {
namespace {

class BenchRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_{1};
};

// 16 MiB of writes of `write_bytes` at random places of 1 TiB. Content that compresses as disks do:
// two fifths noise, the rest words.
Bytes records(size_t write_bytes) {
    std::mt19937_64 random(2);
    Bytes out;
    Bytes payload(write_bytes);
    const size_t count = (16u << 20) / write_bytes;
    for (size_t n = 0; n < count; ++n) {
        for (size_t i = 0; i < write_bytes; i += 64) {
            const bool noise = random() % 5 < 2;
            for (size_t j = i; j < std::min(write_bytes, i + 64); ++j)
                payload[j] = noise ? static_cast<uint8_t>(random())
                                   : static_cast<uint8_t>("the quick brown fox "[(j + n) % 20]);
        }
        RecordHeader h;
        h.sequence = {n + 1};
        h.time = {1'700'000'000'000'000 + static_cast<int64_t>(n * 97 + random() % 90)};
        h.offset_bytes = random() % (1u << 28) << 12;
        append_record(out, h, payload);
    }
    return out;
}

struct Setup {
    BenchRandom random;
    Secret key = make_key(random);
    MemoryStore store;
    SegmentWriter::BuildOptions options(size_t threads) {
        SegmentWriter::BuildOptions o;
        o.item.raw.fill(1);
        o.epoch = {1};
        o.number = {1};
        o.item_key = &key;
        o.random = &random;
        if (threads > 1)
            o.parallel_for = [threads](size_t n, const std::function<void(size_t)>& job) {
                std::atomic<size_t> next{0};
                const auto run = [&] {
                    for (size_t i = next++; i < n; i = next++) job(i);
                };
                std::vector<std::thread> others;
                for (size_t t = 1; t < threads; ++t) others.emplace_back(run);
                run();
                for (std::thread& other : others) other.join();
            };
        return o;
    }
};

void build(benchmark::State& state, Haste haste) {
    Setup setup;
    const Bytes encoded = records(static_cast<size_t>(state.range(0)));
    auto options = setup.options(static_cast<size_t>(state.range(1)));
    options.haste = haste;
    SegmentWriter writer;
    uint64_t object_bytes = 0;
    for (auto _ : state) {
        if (!writer.add(encoded)) state.SkipWithError("add");
        auto built = writer.build(options);
        if (!built) state.SkipWithError("build");
        object_bytes = built->object.size();
    }
    state.SetBytesProcessed(state.iterations() * (16 << 20));
    state.counters["ratio"] = double(16 << 20) / double(object_bytes);
}
BENCHMARK_CAPTURE(build, zstd, Haste::kNone)
    ->Args({4096, 1})
    ->Args({65536, 1})
    ->Args({65536, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(build, lz4, Haste::kSome)
    ->Args({65536, 1})
    ->Args({65536, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void add_only(benchmark::State& state) {
    const Bytes encoded = records(static_cast<size_t>(state.range(0)));
    for (auto _ : state) {
        SegmentWriter writer;
        if (!writer.add(encoded)) state.SkipWithError("add");
    }
    state.SetBytesProcessed(state.iterations() * (16 << 20));
}
BENCHMARK(add_only)->Arg(4096)->Arg(65536)->Unit(benchmark::kMillisecond);

void open_index(benchmark::State& state) {
    Setup setup;
    SegmentWriter writer;
    (void)writer.add(records(static_cast<size_t>(state.range(0))));
    auto built = writer.build(setup.options(1));
    const std::string name = segment_object_name(built->header);
    (void)setup.store.put(name, built->object);
    for (auto _ : state)
        benchmark::DoNotOptimize(
            SegmentReader::open(setup.store, name, built->header.item, setup.key));
    state.SetItemsProcessed(state.iterations() * built->header.record_count);
}
BENCHMARK(open_index)->Arg(4096)->Arg(65536)->Unit(benchmark::kMicrosecond);

void read_chunks(benchmark::State& state) {
    Setup setup;
    SegmentWriter writer;
    (void)writer.add(records(65536));
    auto built = writer.build(setup.options(1));
    const std::string name = segment_object_name(built->header);
    (void)setup.store.put(name, built->object);
    auto reader = SegmentReader::open(setup.store, name, built->header.item, setup.key);
    uint32_t chunk = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize((*reader)->read_chunk(setup.store, chunk));
        chunk = (chunk + 1) % built->header.chunk_count;
    }
    state.SetBytesProcessed(state.iterations() * kChunkBytes);
}
BENCHMARK(read_chunks);

}  // namespace
}  // namespace farshore
