// How fast one core compresses and seals chunks: the process server's budget.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "codec/block_sum.h"
#include "codec/compress.h"
#include "codec/crc32c.h"
#include "codec/envelope.h"
#include "codec/hash.h"

namespace farshore {
namespace {

// Half random, half repeated words: compresses about as disks do (x2 to x3).
Bytes disk_like(size_t n) {
    std::mt19937_64 random(1);
    Bytes out(n);
    for (size_t i = 0; i < n; i += 64) {
        const bool noise = random() % 5 < 2;
        for (size_t j = i; j < std::min(n, i + 64); ++j)
            out[j] = noise ? static_cast<uint8_t>(random())
                           : static_cast<uint8_t>("the quick brown fox "[(j * 7 + i / 640) % 20]);
    }
    return out;
}

void compress_chunk(benchmark::State& state, Compression codec) {
    const Bytes plain = disk_like(static_cast<size_t>(state.range(0)));
    Bytes packed;
    for (auto _ : state) benchmark::DoNotOptimize(compress(codec, plain, packed));
    state.SetBytesProcessed(state.iterations() * state.range(0));
    state.counters["ratio"] = double(plain.size()) / double(packed.size());
}
BENCHMARK_CAPTURE(compress_chunk, zstd, Compression::kZstd)->Arg(4096)->Arg(65536);
BENCHMARK_CAPTURE(compress_chunk, lz4, Compression::kLz4)->Arg(4096)->Arg(65536);

void decompress_chunk(benchmark::State& state, Compression codec) {
    const Bytes plain = disk_like(65536);
    Bytes packed, out(plain.size());
    compress(codec, plain, packed);
    for (auto _ : state) benchmark::DoNotOptimize(decompress(codec, packed, MutableByteView(out)));
    state.SetBytesProcessed(state.iterations() * 65536);
}
BENCHMARK_CAPTURE(decompress_chunk, zstd, Compression::kZstd);
BENCHMARK_CAPTURE(decompress_chunk, lz4, Compression::kLz4);

void probe(benchmark::State& state) {
    const Bytes plain = disk_like(65536);
    for (auto _ : state) benchmark::DoNotOptimize(looks_incompressible(plain));
    state.SetBytesProcessed(state.iterations() * 65536);
}
BENCHMARK(probe);

void seal(benchmark::State& state) {
    const auto n = static_cast<size_t>(state.range(0));
    const Bytes plain = disk_like(n);
    Bytes sealed(n + kSealTagBytes);
    auto key = SealKey::make(Secret(Bytes(32, 7)));
    uint64_t counter = 0;
    for (auto _ : state) key->seal(counter_nonce(counter++), {}, plain, sealed);
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(seal)->Arg(4096)->Arg(65536);

void hash_sha256(benchmark::State& state) {
    const Bytes plain = disk_like(1 << 20);
    for (auto _ : state) benchmark::DoNotOptimize(sha256(plain));
    state.SetBytesProcessed(state.iterations() * (1 << 20));
}
BENCHMARK(hash_sha256);

// What a comparison pays for a block on each side, beside hash_sha256, which would be the other
// way.
void sum_block(benchmark::State& state) {
    const Bytes plain = disk_like(kSumBlockBytes);
    BlockSummer summer(SumKey{1, 2, 3});
    uint64_t offset_bytes = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize(summer.block(0, offset_bytes, plain));
        offset_bytes += kSumBlockBytes;
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kSumBlockBytes));
}
BENCHMARK(sum_block);

void sum_zero_block(benchmark::State& state) {
    const Bytes plain(kSumBlockBytes);
    BlockSummer summer(SumKey{1, 2, 3});
    for (auto _ : state) benchmark::DoNotOptimize(summer.block(0, 0, plain));
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kSumBlockBytes));
}
BENCHMARK(sum_zero_block);

// The sums of 64 MiB to one.
void sum_run(benchmark::State& state) {
    const std::vector<BlockSum> sums(1024, BlockSum{1});
    BlockSummer summer(SumKey{1, 2, 3});
    for (auto _ : state) benchmark::DoNotOptimize(summer.run(0, 0, sums));
    state.SetBytesProcessed(state.iterations() *
                            static_cast<int64_t>(sums.size() * sizeof(BlockSum)));
}
BENCHMARK(sum_run);

void checksum_crc32c(benchmark::State& state) {
    const Bytes plain = disk_like(65536);
    for (auto _ : state) benchmark::DoNotOptimize(crc32c(plain));
    state.SetBytesProcessed(state.iterations() * 65536);
}
BENCHMARK(checksum_crc32c);

}  // namespace
}  // namespace farshore
