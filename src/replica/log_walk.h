// Walking an item's log: which segments of the store are the log, and what their records mean for
// points, gaps, disk sizes and shards. Shared by the replica at a point, checkpoints and
// rebuilding.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "replica/extent_map.h"
#include "replica/manifest.h"
#include "replica/registration.h"
#include "replica/segment.h"
#include "store/object_store.h"

namespace farshore {

// Runs n independent jobs, possibly in parallel, and returns when all are done.
using ParallelFor = std::function<void(size_t n, const std::function<void(size_t)>& job)>;

// All objects under a prefix, page by page.
Result<std::vector<ObjectInfo>> list_all(ObjectStore& store, const std::string& prefix,
                                         const std::string& after = {});

// Where a walk stands: the last segment that belongs to the log.
struct LogPosition {
    SegmentNumber number;  // 0: before the first
    Epoch epoch;
    Digest header{};
    Sequence last;
    TimePoint last_time;
};

struct LogListing {
    // Of each number the one that is the log's, up to the first number that is missing.
    std::vector<ObjectRef> segments;
    // The largest number of any segment, whosever it is; 0: there is none.
    SegmentNumber highest;
    // The log was registered at least up to here (log_lease.h).
    SegmentNumber registered;
    // Whether a segment that was registered is missing behind `number`, where the log ends: a lease
    // began further on, or there are more numbers behind the hole than an appliance runs ahead.
    bool lost_behind(SegmentNumber number) const {
        return number < registered || highest.v > number.v + kMaxSegmentsAhead;
    }
};
// What of the store is the item's log behind `after`: leftovers of lost leases, and what lies
// behind a hole, are no part of it (core.md §4).
Result<LogListing> list_log(ObjectStore& store, const ItemId& item, SegmentNumber after);

// Opens the segments one after the other and hands them out. It ends where `visit` says false,
// after the last one, or at a leftover of a fenced lease: one whose epoch is older than its
// predecessor's. Any other that does not follow its predecessor is kCorrupt.
Status walk_log(ObjectStore& store, const ItemId& item, const Secret& item_key, LogPosition& at,
                const std::vector<ObjectRef>& segments, const ParallelFor& parallel,
                const std::function<Result<bool>(const std::shared_ptr<SegmentReader>&)>& visit);

// Points, gaps and sizes, record by record.
class LogState {
  public:
    LogState() = default;
    LogState(Sequence last, TimePoint last_time, std::optional<GapRow> open_gap,
             const std::vector<DiskSize>& disks);

    // kSequenceHole unless the entry follows the one before, or is a GAP behind it.
    Status apply(const IndexEntry& entry);

    Sequence last() const { return last_; }
    TimePoint last_time() const { return last_time_; }
    const std::optional<GapRow>& open_gap() const { return open_gap_; }
    std::vector<DiskSize> disks() const;
    // What apply() found since the start: points, new and changed gaps, GEOMETRY records.
    const std::vector<PointRow>& points() const { return points_; }
    std::vector<GapRow> gaps() const;
    const std::vector<GeometryRow>& geometry() const { return geometry_; }

  private:
    Sequence last_;
    TimePoint last_time_;
    std::optional<GapRow> open_gap_;
    std::map<DiskIndex, DiskSize> disks_;
    std::vector<PointRow> points_;
    std::map<Sequence, GapRow> gaps_;
    std::vector<GeometryRow> geometry_;
};

// The disks that the machine had at `sequence`, joining ones too, by what is known of them in order
// of disk and sequence (ReplicaLedger::list_geometry). From the window's floor on.
std::vector<DiskSize> disks_at(const std::vector<GeometryRow>& geometry, Sequence sequence);

// Puts new and changed gaps (later ones) behind those that are known.
void merge_gaps(std::vector<GapRow>& known, const std::vector<GapRow>& newer);
// kPointInGap, with the good neighbours in its words.
Error point_in_gap(Sequence wanted, const GapRow& gap, Sequence floor);

// A change of a shard that waits until the shard is read. object kNoObject: zeroes.
using ShardOp = Extent;
inline uint64_t shard_key(DiskIndex disk, uint32_t shard) { return uint64_t{disk} << 32 | shard; }

// The changes of many records, by shard, each shard's in order. 16 bytes a change.
class ShardOps {
  public:
    // `existing` shards: those that a disk that gets smaller must cut.
    explicit ShardOps(const std::vector<ShardRef>& existing) : existing_(existing) {}
    void add(const IndexEntry& entry, uint32_t object);
    std::unordered_map<uint64_t, std::vector<ShardOp>>& by_shard() { return by_shard_; }
    uint64_t count() const { return count_; }

  private:
    void add_range(DiskIndex disk, uint64_t offset, uint64_t length, uint32_t object,
                   uint32_t position);
    const std::vector<ShardRef>& existing_;
    std::unordered_map<uint64_t, std::vector<ShardOp>> by_shard_;
    uint64_t count_ = 0;
};
void apply_ops(const std::vector<ShardOp>& ops, ExtentMap& map);

}  // namespace farshore
