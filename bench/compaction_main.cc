// Whether folding and rewriting keep up with a database that writes 54 MB/s: the replica engine in
// virtual time with the vault's own upkeep (checkpoint when due; retention every twentieth of the
// window, a minute at most), the store a directory or memory. Prints one JSON object.
//
//   compaction_bench DIR|- [WINDOW_S] [DISK_GIB] [WINDOWS] [UPKEEP_S] [RANDOM_BYTES]
//                   [REWRITE_MIB]
//
// Pages of 8 KiB that begin with so many random bytes (4096; fewer make a long window fit into
// memory), the rest of each compressible to nothing, four fifths of them to a fifth of the disk
// at random, in segments of 18 MB. Counted from the second window on, when the window moves. Upkeep
// is timed alone, in processor seconds of this process, user and system; what the machine and the
// appliance do is not in it. `upkeep_s_per_gb` is by 10^9 bytes that the machine wrote: upkeep
// keeps up on one core while it is below 1 / 0.054. `stored_bytes` at the end of each window show
// whether what nothing needs any more goes as fast as it comes.
#include <fmt/core.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "os/real.h"
#include "replica/replica_test_model.h"
#include "store/directory_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kSecondUs = 1'000'000;
constexpr uint32_t kPageBytes = 8192;
constexpr uint64_t kBytesPerSecond = 54'000'000;
constexpr uint64_t kSegmentsPerSecond = 3;
constexpr uint64_t kPages = kBytesPerSecond / kSegmentsPerSecond / kPageBytes;

// Counts what is put and got; the rest is the store's.
class CountingStore final : public ObjectStore {
  public:
    explicit CountingStore(ObjectStore& inner) : inner_(inner) {}
    Status put(const std::string& name, ByteView data) override {
        put_bytes += data.size();
        return inner_.put(name, data);
    }
    Result<Bytes> get(const std::string& name) override { return counted(inner_.get(name)); }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        return counted(inner_.get_range(name, offset, length));
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        return inner_.list(prefix, after, limit);
    }
    Status remove(const std::string& name) override { return inner_.remove(name); }
    uint64_t put_bytes = 0, got_bytes = 0;

  private:
    Result<Bytes> counted(Result<Bytes> got) {
        if (got) got_bytes += got->size();
        return got;
    }
    ObjectStore& inner_;
};

double cpu_s() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto s = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return s(used.ru_utime) + s(used.ru_stime);
}

double steady_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

struct Load {
    int64_t window_s = 120;
    uint64_t disk_bytes = 8ull << 30;
    int64_t windows = 5;
    int64_t upkeep_s = 0;
    uint32_t random_bytes = kPageBytes / 2;
    uint64_t rewrite_bytes = RetentionPolicy().rewrite_bytes;
};

// What upkeep did since counting began.
struct Sum {
    double checkpoint_s = 0, retention_s = 0, longest_s = 0;
    uint64_t put_bytes = 0, got_bytes = 0, rewritten_bytes = 0, removed_bytes = 0;
};

Status run(ObjectStore& inner, const Load& load) {
    TestClock clock;
    TestRandom random(1);
    CountingStore store(inner);
    MemoryLedger ledger;
    FS_ASSIGN(const auto replica,
              ItemReplica::open(store, ledger, clock, random, test_item(), test_key()));
    Appliance appliance(store, random, test_item(), test_key());
    FS_TRY(appliance.acquire(*replica));
    RetentionPolicy policy;
    policy.window_us = load.window_s * kSecondUs;
    policy.min_advance_us = load.upkeep_s * kSecondUs / 2;
    policy.rewrite_bytes = load.rewrite_bytes;
    policy.grace_us = std::min<int64_t>(60, load.window_s / 4) * kSecondUs;

    Rng rng(7);
    uint64_t sequence = 0, written = 0, log_bytes = 0;
    Sum sum;
    std::string stored;
    Bytes payload(kPageBytes);
    const uint64_t pages = load.disk_bytes / kPageBytes;
    // With `timed` the seconds of `work`.
    const auto timed = [&](double& seconds, auto work) -> Status {
        const uint64_t put = store.put_bytes, got = store.got_bytes;
        const double cpu = cpu_s(), began = steady_s();
        FS_TRY(work());
        seconds += cpu_s() - cpu;
        sum.longest_s = std::max(sum.longest_s, steady_s() - began);
        sum.put_bytes += store.put_bytes - put;
        sum.got_bytes += store.got_bytes - got;
        return {};
    };
    for (int64_t second = 0; second < load.windows * load.window_s; ++second) {
        if (second == load.window_s) {
            sum = {};
            written = log_bytes = 0;
        }
        clock.now_us += kSecondUs;
        for (uint64_t segment = 0; segment < kSegmentsPerSecond; ++segment) {
            Bytes records;
            records.reserve(kPages * (kPageBytes + 64) + 64);
            const auto header = [&](RecordKind kind, uint64_t offset, uint32_t length) {
                RecordHeader h;
                h.kind = kind;
                h.sequence = {++sequence};
                h.time = clock.now();
                h.offset_bytes = offset;
                h.length_bytes = length;
                return h;
            };
            if (sequence == 0)
                append_record(records, header(RecordKind::kGeometry, load.disk_bytes, 0));
            for (uint64_t n = 0; n < kPages; ++n) {
                const uint64_t page = rng.below(rng.below(5) < 4 ? pages / 5 : pages);
                rng.fill(MutableByteView(payload).first(load.random_bytes));
                append_record(records, header(RecordKind::kWrite, page * kPageBytes, kPageBytes),
                              payload);
                written += kPageBytes;
            }
            const uint64_t before = store.put_bytes;
            FS_TRY(appliance.send(*replica, records));
            log_bytes += store.put_bytes - before;
        }
        FS_TRY(timed(sum.checkpoint_s, [&]() -> Status {
            FS_TRY(replica->maybe_checkpoint());
            return {};
        }));
        if (second % load.upkeep_s == 0)
            FS_TRY(timed(sum.retention_s, [&]() -> Status {
                FS_ASSIGN(const RetentionReport report, replica->run_retention(policy));
                sum.rewritten_bytes += report.rewritten_bytes;
                sum.removed_bytes += report.removed_bytes;
                return {};
            }));
        if ((second + 1) % load.window_s == 0) {
            FS_ASSIGN(const ReplicaStatus status, replica->status());
            fmt::print(stderr, "window {}: {} bytes stored, {:.1f} s of upkeep\n",
                       (second + 1) / load.window_s, status.stored_bytes,
                       sum.checkpoint_s + sum.retention_s);
            stored += fmt::format("{}{}", stored.empty() ? "" : ", ", status.stored_bytes);
        }
    }
    const double gb = static_cast<double>(written) / 1e9;
    fmt::print(
        "{{\"window_s\": {}, \"disk_bytes\": {}, \"upkeep_interval_s\": {}, \"written_bytes\": {}, "
        "\"log_bytes\": {}, \"upkeep_put_bytes\": {}, \"upkeep_got_bytes\": {}, "
        "\"rewritten_bytes\": {}, \"removed_bytes\": {}, \"checkpoint_s\": {:.2f}, "
        "\"retention_s\": {:.2f}, \"longest_s\": {:.2f}, \"upkeep_s_per_gb\": {:.3f}, "
        "\"share_of_a_core\": {:.3f}, \"amplification\": {:.3f}, \"stored_bytes\": [{}]}}\n",
        load.window_s, load.disk_bytes, load.upkeep_s, written, log_bytes, sum.put_bytes,
        sum.got_bytes, sum.rewritten_bytes, sum.removed_bytes, sum.checkpoint_s, sum.retention_s,
        sum.longest_s, (sum.checkpoint_s + sum.retention_s) / gb,
        (sum.checkpoint_s + sum.retention_s) / gb * static_cast<double>(kBytesPerSecond) / 1e9,
        static_cast<double>(log_bytes + sum.put_bytes) / static_cast<double>(log_bytes), stored);
    return {};
}

Status run_in(const std::string& directory, const Load& load) {
    if (directory == "-") {
        MemoryStore memory;
        return run(memory, load);
    }
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    FS_ASSIGN(const auto store, DirectoryStore::open(files, random, {directory, true}));
    FS_TRY(ensure_store_identity(*store, clock, random));
    return run(*store, load);
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    farshore::Load load;
    if (argc > 2) load.window_s = std::atoi(argv[2]);
    if (argc > 3) load.disk_bytes = std::strtoull(argv[3], nullptr, 10) << 30;
    if (argc > 4) load.windows = std::atoi(argv[4]);
    load.upkeep_s = argc > 5 ? std::atoi(argv[5]) : std::clamp<int64_t>(load.window_s / 20, 2, 60);
    if (argc > 6) load.random_bytes = static_cast<uint32_t>(std::atoi(argv[6]));
    if (argc > 7) load.rewrite_bytes = std::strtoull(argv[7], nullptr, 10) << 20;
    if (argc < 2 || load.window_s < 40 || load.random_bytes > farshore::kPageBytes ||
        load.disk_bytes == 0 || load.windows < 2 || load.upkeep_s < 1) {
        fmt::print(stderr,
                   "usage: {} DIR|- [WINDOW_S] [DISK_GIB] [WINDOWS] [UPKEEP_S] [RANDOM_BYTES] "
                   "[REWRITE_MIB]\n",
                   argv[0]);
        return 64;
    }
    const farshore::Status status = farshore::run_in(argv[1], load);
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}
