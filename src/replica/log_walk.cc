#include "replica/log_walk.h"

#include <fmt/core.h>

#include <algorithm>

#include "replica/log_lease.h"

namespace farshore {

namespace {
constexpr size_t kListPage = 1000;
// Segments that are opened side by side: their indexes are in memory at once.
constexpr size_t kOpenBatch = 16;
}  // namespace

Result<std::vector<ObjectInfo>> list_all(ObjectStore& store, const std::string& prefix,
                                         const std::string& after) {
    std::vector<ObjectInfo> out;
    std::string from = after;
    while (true) {
        FS_ASSIGN(auto page, store.list(prefix, from, kListPage));
        const bool last = page.size() < kListPage;
        out.insert(out.end(), std::make_move_iterator(page.begin()),
                   std::make_move_iterator(page.end()));
        if (last) return out;
        from = out.back().name;
    }
}

Result<LogListing> list_log(ObjectStore& store, const ItemId& item, SegmentNumber after) {
    // The segments first: a lease is written down before any of its segments is put.
    FS_ASSIGN(const auto infos, list_all(store, log_prefix(item), after_segment(item, after)));
    FS_ASSIGN(const LogOwners owners, LogOwners::list(store, item));
    LogListing out;
    out.registered = owners.registered();
    uint64_t number = after.v;
    for (const ObjectInfo& info : infos) {
        const auto ref = parse_object_name(item, info.name);
        if (!ref) continue;
        out.highest = ref->number;
        if (!owners.may_own(ref->number, ref->epoch)) continue;
        if (ref->number.v == number && !out.segments.empty()) {
            out.segments.back() = *ref;  // names sort by epoch within a number
        } else if (ref->number.v == number + 1) {
            out.segments.push_back(*ref);
            ++number;
        }
    }
    return out;
}

Status walk_log(ObjectStore& store, const ItemId& item, const Secret& item_key, LogPosition& at,
                const std::vector<ObjectRef>& segments, const ParallelFor& parallel,
                const std::function<Result<bool>(const std::shared_ptr<SegmentReader>&)>& visit) {
    const size_t batch = parallel ? kOpenBatch : 1;
    for (size_t from = 0; from < segments.size(); from += batch) {
        const size_t count = std::min(batch, segments.size() - from);
        std::vector<Result<std::shared_ptr<SegmentReader>>> opened(
            count, fail(Code::kInternal, "not opened"));
        const auto open_one = [&](size_t i) {
            opened[i] =
                SegmentReader::open(store, object_name(item, segments[from + i]), item, item_key);
        };
        if (parallel)
            parallel(count, open_one);
        else
            open_one(0);
        for (size_t i = 0; i < count; ++i) {
            FS_ASSIGN(const auto segment, std::move(opened[i]));
            const SegmentHeader& header = segment->header();
            const bool follows = header.number == at.number.next() &&
                                 header.previous_header == at.header &&
                                 (header.first == at.last.next() ||
                                  (header.first > at.last && !segment->index().empty() &&
                                   segment->index().front().kind == RecordKind::kGap));
            if (header.epoch < at.epoch) return {};
            if (!follows) {
                return fail(Code::kCorrupt,
                            fmt::format("segment {} does not follow the one before it",
                                        object_name(item, segments[from + i])),
                            "an object of the log was lost or exchanged; restore it from a copy "
                            "of the store, or use an older point");
            }
            FS_ASSIGN(const bool more, visit(segment));
            at = {header.number, header.epoch, header.header_hash, header.last, header.last_time};
            if (!more) return {};
        }
    }
    return {};
}

LogState::LogState(Sequence last, TimePoint last_time, std::optional<GapRow> open_gap,
                   const std::vector<DiskSize>& disks)
    : last_(last), last_time_(last_time), open_gap_(open_gap) {
    for (const DiskSize& disk : disks) disks_[disk.disk] = disk;
}

Status LogState::apply(const IndexEntry& entry) {
    if (entry.sequence != last_.next() &&
        !(entry.kind == RecordKind::kGap && entry.sequence > last_))
        return fail(Code::kSequenceHole,
                    fmt::format("record {} does not follow record {}", entry.sequence.v, last_.v));
    switch (entry.kind) {
        case RecordKind::kPoint:
            points_.push_back(
                {entry.sequence, static_cast<PointKind>(entry.flags), entry.time, entry.label});
            break;
        case RecordKind::kGap:
            if (!open_gap_) {
                open_gap_ = GapRow{last_, entry.sequence, {}, last_time_, {}};
                gaps_[last_] = *open_gap_;
            }
            break;
        case RecordKind::kResynced:
            if (open_gap_) {
                open_gap_->resynced = entry.sequence;
                open_gap_->resynced_time = entry.time;
                gaps_[open_gap_->last_good] = *open_gap_;
                open_gap_.reset();
            }
            break;
        case RecordKind::kGeometry:
            geometry_.push_back({entry.disk, entry.sequence, entry.offset_bytes,
                                 (entry.flags & kGeometryJoining) != 0});
            if (entry.offset_bytes == 0)
                disks_.erase(entry.disk);
            else
                disks_[entry.disk] = {entry.disk, entry.offset_bytes, geometry_.back().joining};
            break;
        case RecordKind::kWrite:
        case RecordKind::kZero:
        case RecordKind::kDiscard: {
            DiskSize& disk = disks_[entry.disk];
            disk.disk = entry.disk;
            disk.size_bytes = std::max(disk.size_bytes, entry.offset_bytes + entry.length_bytes);
            break;
        }
        default:
            break;
    }
    last_ = entry.sequence;
    last_time_ = entry.time;
    return {};
}

std::vector<DiskSize> LogState::disks() const {
    std::vector<DiskSize> out;
    for (const auto& [index, disk] : disks_) out.push_back(disk);
    return out;
}

std::vector<DiskSize> disks_at(const std::vector<GeometryRow>& geometry, Sequence sequence) {
    std::vector<DiskSize> out;
    for (const GeometryRow& row : geometry) {
        if (row.since > sequence) continue;
        if (out.empty() || out.back().disk != row.disk) out.push_back({row.disk, 0, false});
        out.back() = {row.disk, row.size_bytes, row.joining};
    }
    std::erase_if(out, [](const DiskSize& disk) { return disk.size_bytes == 0; });
    return out;
}

std::vector<GapRow> LogState::gaps() const {
    std::vector<GapRow> out;
    for (const auto& [last_good, gap] : gaps_) out.push_back(gap);
    return out;
}

void merge_gaps(std::vector<GapRow>& known, const std::vector<GapRow>& newer) {
    for (const GapRow& gap : newer) {
        if (!known.empty() && known.back().last_good == gap.last_good)
            known.back() = gap;
        else
            known.push_back(gap);
    }
}

Error point_in_gap(Sequence wanted, const GapRow& gap, Sequence floor) {
    const auto named = [](Sequence s, TimePoint time) {
        return fmt::format("{} ({})", s.v, to_rfc3339(time));
    };
    const bool good = gap.last_good.v > 0 && gap.last_good >= floor;
    return Error(
        Code::kPointInGap,
        fmt::format("sequence {} lies in a gap; the good points next to it are {} and {}", wanted.v,
                    good ? named(gap.last_good, gap.last_good_time) : "none before it",
                    gap.open() ? "none after it yet" : named(gap.resynced, gap.resynced_time)),
        "choose one of its neighbours");
}

void ShardOps::add_range(DiskIndex disk, uint64_t offset, uint64_t length, uint32_t object,
                         uint32_t position) {
    while (length > 0) {
        const uint32_t shard = static_cast<uint32_t>(offset / kShardBytes);
        const uint32_t start = static_cast<uint32_t>(offset % kShardBytes);
        const uint32_t piece = static_cast<uint32_t>(std::min(length, kShardBytes - start));
        auto& ops = by_shard_[shard_key(disk, shard)];
        if (!ops.empty() && ops.back().object == object && ops.back().end() == start &&
            (object == kNoObject || ops.back().position + ops.back().length == position)) {
            ops.back().length += piece;
        } else {
            ops.push_back({start, piece, object, position});
            ++count_;
        }
        offset += piece;
        length -= piece;
        position += piece;
    }
}

void ShardOps::add(const IndexEntry& entry, uint32_t object) {
    if (entry.kind == RecordKind::kWrite) {
        add_range(entry.disk, entry.offset_bytes, entry.length_bytes, object,
                  entry.payload_position);
    } else if (entry.kind == RecordKind::kZero || entry.kind == RecordKind::kDiscard) {
        add_range(entry.disk, entry.offset_bytes, entry.length_bytes, kNoObject, 0);
    } else if (entry.kind == RecordKind::kGeometry) {
        // What is cut off must read as zeroes should the disk grow again.
        const auto cut = [&](DiskIndex disk, uint32_t shard) {
            const uint64_t end = (uint64_t{shard} + 1) * kShardBytes;
            if (disk != entry.disk || end <= entry.offset_bytes) return;
            const uint64_t from = std::max(uint64_t{shard} * kShardBytes, entry.offset_bytes);
            add_range(disk, from, end - from, kNoObject, 0);
        };
        for (const ShardRef& ref : existing_) cut(ref.disk, ref.shard);
        std::vector<uint64_t> changed;
        for (const auto& [key, ops] : by_shard_) changed.push_back(key);
        for (uint64_t key : changed)
            cut(static_cast<DiskIndex>(key >> 32), static_cast<uint32_t>(key));
    }
}

void apply_ops(const std::vector<ShardOp>& ops, ExtentMap& map) {
    for (const ShardOp& op : ops) {
        if (op.object == kNoObject)
            map.erase(op.start, op.length);
        else
            map.write(op);
    }
}

}  // namespace farshore
