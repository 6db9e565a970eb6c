// M10: bytes put into the object store / bytes written by the machine, over several retention
// windows of virtual time, with the replica engine as the vault runs it. Prints one JSON object.
//
//   amplification_bench [RECORD_BYTES] [WINDOWS] [REWRITE_BELOW_PERCENT]
//
// A machine writes 2 MB/s at random, four fifths of it to a fifth of its disk, content that cannot
// be compressed, in one segment a second; the window is ten minutes and upkeep runs as in the
// vault. "log" is what the appliance put, "all" also what checkpoints, manifests and rewriting put.
// Counted from the second window on: before, nothing leaves the window and nothing is folded. Same
// seed, same result.
#include <fmt/core.h>

#include <cstdlib>

#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kSecondUs = 1'000'000;
constexpr uint64_t kDiskBytes = 512ull << 20;
constexpr uint64_t kSegmentBytes = 2ull << 20;
constexpr int64_t kWindowSeconds = 600;
constexpr int64_t kUpkeepSeconds = 30;  // the vault's own: a twentieth of the window

// Counts what is put; the rest is the store's.
class CountingStore final : public ObjectStore {
  public:
    Status put(const std::string& name, ByteView data) override {
        put_bytes += data.size();
        return inner_.put(name, data);
    }
    Result<Bytes> get(const std::string& name) override { return inner_.get(name); }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        return inner_.get_range(name, offset, length);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        return inner_.list(prefix, after, limit);
    }
    Status remove(const std::string& name) override { return inner_.remove(name); }
    uint64_t put_bytes = 0;

  private:
    MemoryStore inner_;
};

Status run(uint32_t record_bytes, int64_t windows, uint32_t rewrite_below_percent) {
    TestClock clock;
    TestRandom random(1);
    CountingStore store;
    MemoryLedger ledger;
    FS_ASSIGN(const auto replica,
              ItemReplica::open(store, ledger, clock, random, test_item(), test_key()));
    Appliance appliance(store, random, test_item(), test_key());
    FS_TRY(appliance.acquire(*replica));
    RetentionPolicy policy;
    policy.window_us = kWindowSeconds * kSecondUs;
    policy.min_advance_us = kUpkeepSeconds * kSecondUs / 2;
    policy.rewrite_below_percent = rewrite_below_percent;
    policy.grace_us = 60 * kSecondUs;

    Rng rng(7);
    uint64_t sequence = 0, written = 0, log_bytes = 0, most_stored = 0;
    RetentionReport total;
    Bytes payload(record_bytes);
    const uint64_t blocks = kDiskBytes / record_bytes;
    for (int64_t second = 0; second < windows * kWindowSeconds; ++second) {
        if (second == kWindowSeconds) written = log_bytes = store.put_bytes = 0;
        clock.now_us += kSecondUs;
        Bytes records;
        records.reserve(kSegmentBytes + (kSegmentBytes / record_bytes + 1) * 64);
        const auto header = [&](RecordKind kind, uint64_t offset, uint32_t length) {
            RecordHeader h;
            h.kind = kind;
            h.sequence = {++sequence};
            h.time = clock.now();
            h.offset_bytes = offset;
            h.length_bytes = length;
            return h;
        };
        if (second == 0) append_record(records, header(RecordKind::kGeometry, kDiskBytes, 0));
        for (uint64_t n = 0; n < kSegmentBytes / record_bytes; ++n) {
            const uint64_t block = rng.below(rng.below(5) < 4 ? blocks / 5 : blocks);
            rng.fill(payload);
            append_record(records, header(RecordKind::kWrite, block * record_bytes, record_bytes),
                          payload);
            written += record_bytes;
        }
        const uint64_t before = store.put_bytes;
        FS_TRY(appliance.send(*replica, records));
        log_bytes += store.put_bytes - before;
        if (second % kUpkeepSeconds != 0) continue;
        FS_TRY(replica->maybe_checkpoint());
        FS_ASSIGN(const RetentionReport report, replica->run_retention(policy));
        total.rewritten_bytes += report.rewritten_bytes;
        total.removed_bytes += report.removed_bytes;
        FS_ASSIGN(const ReplicaStatus status, replica->status());
        most_stored = std::max(most_stored, status.stored_bytes);
    }
    FS_ASSIGN(const ReplicaStatus status, replica->status());
    fmt::print(
        "{{\"windows\": {}, \"record_bytes\": {}, \"written_bytes\": {}, \"log_bytes\": {}, "
        "\"all_bytes\": {}, \"rewritten_bytes\": {}, \"removed_bytes\": {}, \"stored_bytes\": {}, "
        "\"most_stored_bytes\": {}, \"window_bytes\": {}, \"disk_bytes\": {}}}\n",
        windows, record_bytes, written, log_bytes, store.put_bytes, total.rewritten_bytes,
        total.removed_bytes, status.stored_bytes, most_stored, kWindowSeconds * kSegmentBytes,
        kDiskBytes);
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    const int record_bytes = argc > 1 ? std::atoi(argv[1]) : 4096;
    const int windows = argc > 2 ? std::atoi(argv[2]) : 3;
    const int percent = argc > 3
                            ? std::atoi(argv[3])
                            : static_cast<int>(farshore::RetentionPolicy().rewrite_below_percent);
    if (record_bytes < 512 || record_bytes > 1 << 20 || record_bytes % 512 != 0 || windows < 2 ||
        percent < 0 || percent > 100) {
        fmt::print(stderr, "usage: {} [RECORD_BYTES] [WINDOWS] [REWRITE_BELOW_PERCENT]\n", argv[0]);
        return 64;
    }
    const farshore::Status status =
        farshore::run(static_cast<uint32_t>(record_bytes), windows, static_cast<uint32_t>(percent));
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}
