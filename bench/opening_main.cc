// M8 at ten million extents: how long a point takes to open and how much memory that needs, each in
// a process of its own. Prints one JSON object.
//
//   opening_bench make DIR EXTENTS DISK_GIB checkpoint|log    an item in a directory store
//   opening_bench open DIR [all]                              its newest point
//
// `make` writes blocks of 4 KiB, each at most once, at random over one disk, so that each is an
// extent. With `checkpoint` the item is looked after as the vault does it, and the last 190 000
// records have no checkpoint yet; with `log` none is ever made: the worst that can happen. `open`
// opens the newest point and reads one block; with `all` also every shard, as a machine that has
// read all of its disk has. Page cache as it is: whoever calls this empties it or not.
#include <fmt/core.h>
#include <sys/resource.h>

#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "os/real.h"
#include "replica/replica_test_model.h"
#include "store/directory_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kPerSegment = 4096;
constexpr uint64_t kBehind = 190'000;

double peak_mib() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_maxrss) / 1024;
}

// Of this process, user and system.
double cpu_ms() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto ms = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3;
    };
    return ms(used.ru_utime) + ms(used.ru_stime);
}

double seconds_since(std::chrono::steady_clock::time_point began) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// The n-th block: all of them in an order that looks random and meets none twice (each of the steps
// can be undone). `blocks` is a power of two.
uint64_t block_of(uint64_t n, uint64_t blocks) {
    const auto half = static_cast<unsigned>(std::countr_zero(blocks)) / 2;
    uint64_t x = n;
    for (const uint64_t odd : {0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb}) {
        x = (x * odd + 12345) & (blocks - 1);
        x ^= x >> half;
    }
    return x;
}

Status make(const std::string& path, uint64_t extents, uint64_t disk_bytes, bool checkpoints) {
    PosixFileSystem files;
    TestClock clock;
    TestRandom random(1);
    MemoryLedger ledger;
    FS_ASSIGN(const auto store, DirectoryStore::open(files, random, {path, true}));
    FS_TRY(ensure_store_identity(*store, clock, random));
    FS_ASSIGN(const auto replica,
              ItemReplica::open(*store, ledger, clock, random, test_item(), test_key()));
    Appliance appliance(*store, random, test_item(), test_key());
    FS_TRY(appliance.acquire(*replica));
    const uint64_t blocks = disk_bytes / kBlockBytes;
    uint64_t sequence = 0;
    // Content of which hardly anything is left when it is compressed: it plays no part here.
    Bytes payload(kBlockBytes, 1);
    double upkeep_s = 0;
    for (uint64_t n = 0; n < extents;) {
        Bytes records;
        records.reserve(18u << 20);
        const auto add = [&](RecordKind kind, uint64_t offset, uint32_t length, ByteView bytes) {
            RecordHeader h;
            h.kind = kind;
            h.sequence = {++sequence};
            h.time = clock.now();
            h.offset_bytes = offset;
            h.length_bytes = length;
            append_record(records, h, bytes);
        };
        if (n == 0) add(RecordKind::kGeometry, disk_bytes, 0, {});
        for (uint64_t i = 0; i < kPerSegment && n < extents; ++i, ++n) {
            std::memcpy(payload.data(), &n, sizeof n);
            add(RecordKind::kWrite, block_of(n, blocks) * kBlockBytes, kBlockBytes, payload);
        }
        FS_TRY(appliance.send(*replica, records));
        clock.now_us += 1'000'000;
        if (!checkpoints || extents - n < kBehind) continue;
        const auto began = std::chrono::steady_clock::now();
        FS_TRY(replica->maybe_checkpoint());
        upkeep_s += seconds_since(began);
    }
    FS_ASSIGN(const ReplicaStatus status, replica->status());
    fmt::print(
        "{{\"extents\": {}, \"segments\": {}, \"stored_bytes\": {}, \"checkpoint_s\": {:.2f}, "
        "\"peak_mib\": {:.1f}}}\n",
        extents, status.segments.v, status.stored_bytes, upkeep_s, peak_mib());
    return {};
}

Status open(const std::string& path, bool all) {
    PosixFileSystem files;
    TestRandom random(1);
    FS_ASSIGN(const auto store, DirectoryStore::open(files, random, {path, false}));
    const double before_mib = peak_mib(), before_ms = cpu_ms();
    const auto began = std::chrono::steady_clock::now();
    FS_ASSIGN(const auto reader,
              ReplicaReader::open(*store, test_item(), test_key(), kLatestSequence));
    FS_ASSIGN(const auto disk, reader->disk(0));
    const double open_s = seconds_since(began);
    const uint64_t size = disk->size_bytes();
    Bytes out(kBlockBytes);
    uint64_t at = block_of(0, size / kBlockBytes) * kBlockBytes;
    FS_TRY(disk->read(at, out));
    const double read_s = seconds_since(began);
    const double read_cpu_ms = cpu_ms() - before_ms, read_mib = peak_mib();
    if (out[8] != 1) return fail(Code::kCorrupt, "the block holds something else");
    if (all)
        for (at = 0; at < size; at += kShardBytes) FS_TRY(disk->extents(at, kBlockBytes));
    const ReplicaReaderStats stats = reader->stats();
    fmt::print(
        "{{\"open_ms\": {:.1f}, \"open_and_read_ms\": {:.1f}, \"cpu_ms\": {:.1f}, \"all_ms\": "
        "{:.1f}, "
        "\"extents_loaded\": {}, \"segments_behind\": {}, \"before_mib\": {:.1f}, \"read_mib\": "
        "{:.1f}, \"peak_mib\": {:.1f}}}\n",
        open_s * 1e3, read_s * 1e3, read_cpu_ms, seconds_since(began) * 1e3, stats.extents_loaded,
        stats.segments_behind, before_mib, read_mib, peak_mib());
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    const std::string_view verb = argc > 1 ? argv[1] : "";
    farshore::Status status;
    if (verb == "make" && argc == 6) {
        const uint64_t extents = std::strtoull(argv[3], nullptr, 10);
        const uint64_t disk_bytes = std::strtoull(argv[4], nullptr, 10) << 30;
        if (extents == 0 || !std::has_single_bit(disk_bytes) ||
            extents > disk_bytes / farshore::kBlockBytes) {
            fmt::print(stderr, "{}: a disk of 2^n GiB with room for {} extents, please\n", argv[0],
                       argv[3]);
            return 64;
        }
        status = farshore::make(argv[2], extents, disk_bytes, argv[5] == std::string("checkpoint"));
    } else if (verb == "open" && argc >= 3) {
        status = farshore::open(argv[2], argc > 3);
    } else {
        fmt::print(
            stderr,
            "usage: {0} make DIR EXTENTS DISK_GIB checkpoint|log\n       {0} open DIR [all]\n",
            argv[0]);
        return 64;
    }
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}
