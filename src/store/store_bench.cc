// How fast the directory store takes and gives segments, beside the same bytes written plainly to
// one file with fdatasync: the disk's own speed. FARSHORE_BENCH_DIRECTORY chooses the disk.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <random>

#include "os/real.h"
#include "os/test_directory.h"
#include "store/directory_store.h"

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

std::string bench_directory() {
    const char* chosen = std::getenv("FARSHORE_BENCH_DIRECTORY");
    return chosen != nullptr ? chosen : "/tmp";
}

Bytes noise(size_t n) {
    Bytes out(n);
    std::mt19937_64 engine(2);
    for (size_t i = 0; i + 8 <= n; i += 8) store_u64(out.data() + i, engine());
    return out;
}

void put_object(benchmark::State& state) {
    TestDirectory directory(bench_directory());
    PosixFileSystem files;
    BenchRandom random;
    auto store = DirectoryStore::open(files, random, {directory / "store", true});
    const Bytes data = noise(static_cast<size_t>(state.range(0)));
    for (auto _ : state) {
        if (!(*store)->put("items/x/log/1", data)) state.SkipWithError("put");
        // At once, as plain_file does: fresh page cache would be what is measured otherwise.
        state.PauseTiming();
        (void)(*store)->remove("items/x/log/1");
        state.ResumeTiming();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(put_object)->Arg(1 << 20)->Arg(16 << 20)->UseRealTime();

void plain_file(benchmark::State& state) {
    TestDirectory directory(bench_directory());
    PosixFileSystem files;
    const Bytes data = noise(static_cast<size_t>(state.range(0)));
    for (auto _ : state) {
        auto file = files.open(directory / "plain", OpenMode::kCreateNew);
        if (!(*file)->write_at(0, data) || !(*file)->sync()) state.SkipWithError("write");
        state.PauseTiming();
        (void)files.remove(directory / "plain");
        state.ResumeTiming();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(plain_file)->Arg(1 << 20)->Arg(16 << 20)->UseRealTime();

void get_chunk(benchmark::State& state) {
    TestDirectory directory(bench_directory());
    PosixFileSystem files;
    BenchRandom random;
    auto store = DirectoryStore::open(files, random, {directory / "store", true});
    (void)(*store)->put("items/x/log/1", noise(16 << 20));
    uint64_t at = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize((*store)->get_range("items/x/log/1", at, 25'000));
        at = (at + 25'000) % (16 << 20);
    }
    state.SetBytesProcessed(state.iterations() * 25'000);
}
BENCHMARK(get_chunk);

void list_page(benchmark::State& state) {
    TestDirectory directory(bench_directory());
    PosixFileSystem files;
    BenchRandom random;
    auto store = DirectoryStore::open(files, random, {directory / "store", true});
    for (int i = 0; i < 2000; ++i)
        (void)files.open(directory / ("store/" + std::to_string(100'000 + i)),
                         OpenMode::kCreateNew);
    for (auto _ : state) benchmark::DoNotOptimize((*store)->list("1", "101000", 100));
}
BENCHMARK(list_page);

}  // namespace
}  // namespace farshore
