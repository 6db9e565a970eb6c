// What the replica's tests share: a machine that writes at random and remembers what every sequence
// looked like, an appliance that cuts its records into segments, and a store and ledger that fail
// or die at a chosen operation. Only for tests.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "replica/item_replica.h"
#include "replica/memory_ledger.h"
#include "replica/replica_reader.h"
#include "sim/rng.h"
#include "store/memory_store.h"

namespace farshore::replica_test {

class TestClock final : public Clock {
  public:
    TimePoint now() const override { return {now_us}; }
    int64_t steady_us() const override { return now_us; }
    int64_t now_us = 1'000'000'000;
};

class TestRandom final : public Random {
  public:
    explicit TestRandom(uint64_t seed) : rng_(seed) {}
    void fill(MutableByteView out) override { rng_.fill(out); }

  private:
    Rng rng_;
};

// Thrown where the vault dies. No std::exception, as in the simulator.
struct Died {};

// Counts operations of store and ledger together; at the chosen one it dies (before or after the
// effect) or fails.
struct Fate {
    uint64_t operations = 0;
    uint64_t at = 0;  // 0: never
    enum class Kind : uint8_t {
        kDieBefore,
        kDieAfter,
        kFailBefore,
        kFailAfter
    } kind = Kind::kDieBefore;
    bool happened = false;

    Status before() {
        if (++operations != at) return {};
        if (kind == Kind::kDieBefore) {
            happened = true;
            throw Died{};
        }
        if (kind == Kind::kFailBefore) {
            happened = true;
            return fail(Code::kUnavailable, "the test says so");
        }
        return {};
    }
    Status after() {
        if (operations != at || happened) return {};
        happened = true;
        if (kind == Kind::kDieAfter) throw Died{};
        return fail(Code::kTimeout, "the test says so, afterwards");
    }
};

class FatefulStore final : public ObjectStore {
  public:
    FatefulStore(ObjectStore& inner, Fate& fate) : inner_(inner), fate_(fate) {}
    Status put(const std::string& name, ByteView data) override {
        FS_TRY(fate_.before());
        FS_TRY(inner_.put(name, data));
        return fate_.after();
    }
    Result<Bytes> get(const std::string& name) override {
        FS_TRY(fate_.before());
        FS_ASSIGN(Bytes bytes, inner_.get(name));
        if (on_get) on_get(name, bytes);
        return bytes;
    }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        FS_TRY(fate_.before());
        return inner_.get_range(name, offset, length);
    }
    Result<ObjectInfo> head(const std::string& name) override {
        FS_TRY(fate_.before());
        return inner_.head(name);
    }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        FS_TRY(fate_.before());
        // Small pages: whoever forgets to go on is found out.
        return inner_.list(prefix, after, std::min<size_t>(limit, 1000));
    }
    Status remove(const std::string& name) override {
        FS_TRY(fate_.before());
        if (on_remove) on_remove(name);
        FS_TRY(inner_.remove(name));
        return fate_.after();
    }
    std::function<void(const std::string&)> on_remove;
    std::function<void(const std::string&, Bytes&)> on_get;

  private:
    ObjectStore& inner_;
    Fate& fate_;
};

// A machine with disks of which only a region is ever written in small pieces, so that shards and
// their borders are met without gigabytes of model.
class Machine {
  public:
    struct Disk {
        uint64_t size = 0;
        uint64_t region = 0;  // offset of the region
        Bytes bytes;          // of the region
        bool operator==(const Disk&) const = default;
    };
    explicit Machine(uint64_t seed) : rng_(seed) {
        disks_.push_back({kShardBytes + 65536, kShardBytes - 40'000, Bytes(80'000)});
        disks_.push_back({100'001, 0, Bytes(100'001)});
        disks_.push_back({3 * kShardBytes, 2 * kShardBytes - 9000, Bytes(30'000)});
    }

    // Makes `count` more records, which are appended to `records`.
    void run(int count, Bytes& records, int64_t& now_us) {
        for (int i = 0; i < count; ++i) step(records, now_us);
    }
    void begin(Bytes& records, int64_t now_us, bool with_gap) {
        in_gap_ = with_gap;
        if (with_gap) emit(records, header(RecordKind::kGap, now_us));
        for (size_t d = 0; d < disks_.size(); ++d) {
            RecordHeader h = header(RecordKind::kGeometry, now_us);
            h.disk = static_cast<DiskIndex>(d);
            h.offset_bytes = disks_[d].size;
            emit(records, h);
        }
    }
    // Changes that are lost, and the GAP record behind them.
    void lose(int count, Bytes& records, int64_t now_us) {
        Bytes lost;
        if (!in_gap_) last_good_ = next_ - 1;
        for (int i = 0; i < count; ++i) step(lost, now_us, true);
        emit(records, header(RecordKind::kGap, now_us));
        if (!in_gap_) drop_history(last_good_ + 1);
        in_gap_ = true;
        history_.erase(next_ - 1);
    }
    // Sends everything again and closes the gap.
    void resync(Bytes& records, int64_t now_us) {
        for (size_t d = 0; d < disks_.size(); ++d) {
            Disk& disk = disks_[d];
            for (size_t at = 0; at < disk.bytes.size();) {
                const size_t n = std::min<size_t>(1 + rng_.below(30'000), disk.bytes.size() - at);
                const ByteView content = ByteView(disk.bytes).subspan(at, n);
                RecordHeader h =
                    header(all_zero(content) ? RecordKind::kZero : RecordKind::kWrite, now_us);
                h.disk = static_cast<DiskIndex>(d);
                h.offset_bytes = disk.region + at;
                h.length_bytes = static_cast<uint32_t>(n);
                emit(records, h, h.has_payload() ? content : ByteView());
                at += n;
            }
        }
        in_gap_ = false;
        emit(records, header(RecordKind::kResynced, now_us));
    }

    bool in_gap() const { return in_gap_; }
    uint64_t last() const { return next_ - 1; }
    // Sequences that are points, and what the disks were.
    const std::map<uint64_t, std::vector<Disk>>& history() const { return history_; }
    void forget_before(uint64_t sequence) {
        history_.erase(history_.begin(), history_.lower_bound(sequence));
    }
    Rng& rng() { return rng_; }
    std::map<uint64_t, std::string> labels;

  private:
    RecordHeader header(RecordKind kind, int64_t now_us) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {next_++};
        h.time = {now_us};
        return h;
    }
    void emit(Bytes& records, const RecordHeader& h, ByteView payload = {}) {
        append_record(records, h, payload);
        if (!in_gap_) history_[h.sequence.v] = disks_;
    }
    void drop_history(uint64_t from) { history_.erase(history_.lower_bound(from), history_.end()); }

    void step(Bytes& records, int64_t& now_us_ref) { step(records, now_us_ref, false); }
    void step(Bytes& records, const int64_t& now_us, bool) {
        const uint64_t what = rng_.below(20);
        if (what == 0) {
            const std::string label = "p" + std::to_string(next_);
            RecordHeader h = header(RecordKind::kPoint, now_us);
            h.flags = static_cast<uint8_t>(1 + rng_.below(3));
            h.length_bytes = static_cast<uint32_t>(label.size());
            if (!in_gap_) labels[h.sequence.v] = label;
            emit(records, h, as_bytes(label));
            return;
        }
        if (what == 1) return emit(records, header(RecordKind::kTime, now_us));
        if (what == 2) return emit(records, header(RecordKind::kFlush, now_us));
        const auto d = static_cast<DiskIndex>(rng_.below(disks_.size()));
        Disk& disk = disks_[d];
        const uint64_t bound = rng_.coin() ? 300 : rng_.coin() ? 5000 : disk.bytes.size();
        uint64_t at = rng_.below(disk.bytes.size());
        uint64_t n = 1 + rng_.below(std::min<uint64_t>(bound, disk.bytes.size() - at));
        RecordHeader h = header(RecordKind::kWrite, now_us);
        h.disk = d;
        h.offset_bytes = disk.region + at;
        h.length_bytes = static_cast<uint32_t>(n);
        if (what <= 5) {
            h.kind = what == 3 ? RecordKind::kDiscard : RecordKind::kZero;
            if (rng_.below(4) == 0) {  // over shard borders and beyond the region
                h.offset_bytes = rng_.below(disk.region + 1);
                h.length_bytes = static_cast<uint32_t>(
                    std::min<uint64_t>(1 + rng_.below(kMaxZeroBytes), disk.size - h.offset_bytes));
                const uint64_t from = std::max(h.offset_bytes, disk.region);
                const uint64_t to =
                    std::min(h.offset_bytes + h.length_bytes, disk.region + disk.bytes.size());
                at = from - disk.region;
                n = to > from ? to - from : 0;
                if (n == 0) at = 0;
            }
            std::fill_n(disk.bytes.begin() + static_cast<ptrdiff_t>(at), n, uint8_t{0});
            return emit(records, h);
        }
        Bytes payload(n);
        if (rng_.coin())
            rng_.fill(payload);
        else
            std::fill(payload.begin(), payload.end(), static_cast<uint8_t>(next_));
        std::copy(payload.begin(), payload.end(), disk.bytes.begin() + static_cast<ptrdiff_t>(at));
        emit(records, h, payload);
    }

    Rng rng_;
    std::vector<Disk> disks_;
    uint64_t next_ = 1;
    uint64_t last_good_ = 0;
    bool in_gap_ = false;
    std::map<uint64_t, std::vector<Disk>> history_;
};

// Cuts records into segments, puts and registers them; sends again what failed, on a new lease when
// it was fenced.
class Appliance {
  public:
    Appliance(ObjectStore& store, Random& random, const ItemId& item, const Secret& key)
        : store_(store), random_(random), item_(item), key_(key) {}

    Status acquire(ItemReplica& replica) {
        FS_ASSIGN(lease_, replica.acquire_log("appliance"));
        next_ = lease_.next_segment;
        previous_ = lease_.previous_header;
        return {};
    }
    // Builds one segment of `records` and puts it.
    Result<SegmentRegistration> build(ByteView records) {
        SegmentWriter writer;
        FS_TRY(writer.add(records));
        SegmentWriter::BuildOptions options;
        options.item = item_;
        options.epoch = lease_.epoch;
        options.number = next_;
        options.previous_header = previous_;
        options.item_key = &key_;
        options.random = &random_;
        FS_ASSIGN(const BuiltSegment built, writer.build(options));
        SegmentRegistration r;
        r.item = item_;
        r.epoch = built.header.epoch;
        r.number = built.header.number;
        r.object_name = segment_object_name(built.header);
        r.object_bytes = built.object.size();
        r.header_hash = built.header.header_hash;
        r.previous_header = built.header.previous_header;
        r.first = built.header.first;
        r.last = built.header.last;
        r.first_time = built.header.first_time;
        r.last_time = built.header.last_time;
        FS_TRY(store_.put(r.object_name, built.object));
        return r;
    }
    void registered(const SegmentRegistration& r) {
        next_ = r.number.next();
        previous_ = r.header_hash;
    }
    Status send(ItemReplica& replica, ByteView records) {
        FS_ASSIGN(const auto r, build(records));
        FS_TRY(replica.register_segment(r));
        registered(r);
        return {};
    }
    const LogLease& lease() const { return lease_; }

  private:
    ObjectStore& store_;
    Random& random_;
    ItemId item_;
    Secret key_;
    LogLease lease_;
    SegmentNumber next_{1};
    Digest previous_{};
};

inline ItemId test_item() {
    ItemId item;
    item.raw.fill(0x5a);
    return item;
}
inline Secret test_key() { return Secret(Bytes(32, 0x17)); }

}  // namespace farshore::replica_test
