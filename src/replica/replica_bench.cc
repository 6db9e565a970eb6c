// M8: opening a point with a million extents, and reading it. Extent map speed.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include "replica/extent_map.h"
#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

void BM_ExtentMapInsert(benchmark::State& state) {
    const auto n = static_cast<uint64_t>(state.range(0));
    for (auto _ : state) {
        Rng rng(1);
        const size_t before = mallinfo2().uordblks;
        // Over as many shards as a disk of this many extents would have (256 Ki blocks each).
        std::vector<ExtentMap> maps(1 + n / 131072);
        for (uint64_t i = 0; i < n; ++i)
            maps[rng.below(maps.size())].write({static_cast<uint32_t>(rng.below(262144)) * 4096,
                                                4096, static_cast<uint32_t>(i / 4096),
                                                static_cast<uint32_t>(i % 4096) * 4096});
        uint64_t size = 0;
        for (const ExtentMap& map : maps) size += map.size();
        state.counters["bytes_per_extent"] =
            static_cast<double>(mallinfo2().uordblks - before) / static_cast<double>(size);
        state.counters["extents"] = static_cast<double>(size);
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_ExtentMapInsert)
    ->Arg(1'000'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1);

void BM_ExtentMapLookup(benchmark::State& state) {
    Rng rng(1);
    const auto n = static_cast<uint64_t>(state.range(0));
    std::vector<ExtentMap> maps(1 + n / 131072);
    for (uint64_t i = 0; i < n; ++i)
        maps[rng.below(maps.size())].write({static_cast<uint32_t>(rng.below(262144)) * 4096, 4096,
                                            static_cast<uint32_t>(i / 4096),
                                            static_cast<uint32_t>(i % 4096) * 4096});
    std::vector<Extent> out;
    for (auto _ : state) {
        out.clear();
        maps[rng.below(maps.size())].lookup(static_cast<uint32_t>(rng.below(262144)) * 4096, 4096,
                                            out);
        benchmark::DoNotOptimize(out.data());
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_ExtentMapLookup)->Arg(1'000'000)->Arg(10'000'000);

// A million 4 KiB writes at random over 64 GiB, half of each compressible, in segments of 16 MiB.
struct Million {
    Million() : random(1) {
        replica = *ItemReplica::open(memory, ledger, clock, random, test_item(), test_key());
        Appliance appliance(memory, random, test_item(), test_key());
        (void)appliance.acquire(*replica);
        Rng rng(7);
        uint64_t sequence = 0;
        RecordHeader h;
        Bytes payload(4096);
        for (int segment = 0; segment < 245; ++segment) {
            Bytes records;
            records.reserve(17u << 20);
            if (segment == 0) {
                h.kind = RecordKind::kGeometry;
                h.sequence = {++sequence};
                h.offset_bytes = kDiskBytes;
                append_record(records, h);
            }
            for (int i = 0; i < 4096; ++i) {
                h.kind = RecordKind::kWrite;
                h.sequence = {++sequence};
                h.offset_bytes = rng.below(kDiskBytes / 4096) * 4096;
                h.length_bytes = 4096;
                written.push_back(h.offset_bytes);
                rng.fill(MutableByteView(payload).first(2048));
                append_record(records, h, payload);
            }
            (void)appliance.send(*replica, records);
        }
    }
    static constexpr uint64_t kDiskBytes = 64ull << 30;
    std::vector<uint64_t> written;
    TestClock clock;
    TestRandom random;
    MemoryStore memory;
    MemoryLedger ledger;
    std::unique_ptr<ItemReplica> replica;
};
Million& million() {
    static Million m;
    return m;
}

// Everything behind the last checkpoint: the worst case.
void BM_OpenMillionInLog(benchmark::State& state) {
    Million& m = million();
    for (auto _ : state) {
        const size_t before = mallinfo2().uordblks;
        auto reader = ReplicaReader::open(m.memory, test_item(), test_key(), kLatestSequence);
        if (!reader) return state.SkipWithError(reader.error().to_string().c_str());
        Bytes out(4096);
        (void)(*(*reader)->disk(0))->read(123 * 4096, out);
        state.counters["bytes_per_extent"] =
            static_cast<double>(mallinfo2().uordblks - before) / 1e6;
    }
}
BENCHMARK(BM_OpenMillionInLog)->Unit(benchmark::kMillisecond);

void BM_CheckpointMillion(benchmark::State& state) {
    Million& m = million();
    for (auto _ : state) {
        const auto made = m.replica->checkpoint();
        if (!made || !*made) return state.SkipWithError("no checkpoint");
    }
    uint64_t bytes = 0;
    const auto shards = list_all(m.memory, shard_prefix(test_item()));
    for (const auto& info : *shards) bytes += info.size_bytes;
    state.counters["bytes_per_extent"] = static_cast<double>(bytes) / 1e6;
}
BENCHMARK(BM_CheckpointMillion)->Unit(benchmark::kMillisecond)->Iterations(1);

// The usual case: manifest, then a first read.
void BM_OpenMillionFromCheckpoint(benchmark::State& state) {
    Million& m = million();
    for (auto _ : state) {
        auto reader = ReplicaReader::open(m.memory, test_item(), test_key(), kLatestSequence);
        if (!reader) return state.SkipWithError(reader.error().to_string().c_str());
        Bytes out(4096);
        (void)(*(*reader)->disk(0))->read(123 * 4096, out);
    }
}
BENCHMARK(BM_OpenMillionFromCheckpoint)->Unit(benchmark::kMillisecond);

void BM_LoadAllShards(benchmark::State& state) {
    Million& m = million();
    for (auto _ : state) {
        const size_t before = mallinfo2().uordblks;
        auto reader = ReplicaReader::open(m.memory, test_item(), test_key(), kLatestSequence);
        auto disk = *(*reader)->disk(0);
        for (uint64_t at = 0; at < Million::kDiskBytes; at += kShardBytes)
            (void)disk->extents(at, 4096);
        state.counters["bytes_per_extent"] = static_cast<double>(mallinfo2().uordblks - before) /
                                             static_cast<double>((*reader)->stats().extents_loaded);
    }
}
BENCHMARK(BM_LoadAllShards)->Unit(benchmark::kMillisecond);

void BM_RandomRead(benchmark::State& state) {
    Million& m = million();
    const bool cached = state.range(0) != 0;
    ReplicaReaderOptions options;
    options.cache_bytes = 64u << 20;
    auto reader = *ReplicaReader::open(m.memory, test_item(), test_key(), kLatestSequence, options);
    auto disk = *reader->disk(0);
    Rng rng(3);
    Bytes out(4096);
    std::vector<uint64_t> places;
    for (int i = 0; i < 500; ++i) places.push_back(m.written[rng.below(m.written.size())]);
    for (const uint64_t at : places) (void)disk->read(at, out);
    for (uint64_t at = 0; at < Million::kDiskBytes; at += kShardBytes) (void)disk->extents(at, 1);
    for (auto _ : state) {
        const uint64_t at =
            cached ? places[rng.below(places.size())] : m.written[rng.below(m.written.size())];
        (void)disk->read(at, out);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RandomRead)->ArgName("cached")->Arg(1)->Arg(0)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace farshore
