#include "replica/hurt_points.h"

#include <algorithm>
#include <map>

#include "replica/checkpoint.h"
#include "replica/item_internal.h"

namespace farshore {

using namespace item_internal;

namespace {

// Parts of disks, by disk and start; not overlapping.
class Regions {
  public:
    void add(DiskIndex disk, uint64_t from, uint64_t to) {
        if (from >= to) return;
        remove(disk, from, to);
        parts_[disk][from] = to;
    }
    void remove(DiskIndex disk, uint64_t from, uint64_t to) {
        const auto of = parts_.find(disk);
        if (of == parts_.end() || from >= to) return;
        auto& map = of->second;
        auto it = map.lower_bound(from);
        if (it != map.begin() && std::prev(it)->second > from) --it;
        while (it != map.end() && it->first < to) {
            const auto [start, end] = *it;
            it = map.erase(it);
            if (start < from) map[start] = from;
            if (end > to) map[to] = end;
        }
        if (map.empty()) parts_.erase(of);
    }
    // Whether any of it lies on a disk that a point with these disks has.
    bool touches(const std::vector<DiskSize>& disks) const {
        return std::ranges::any_of(disks, [&](const DiskSize& disk) {
            const auto of = parts_.find(disk.disk);
            return !disk.joining && of != parts_.end() &&
                   of->second.begin()->first < disk.size_bytes;
        });
    }
    bool empty() const { return parts_.empty(); }

  private:
    std::map<DiskIndex, std::map<uint64_t, uint64_t>> parts_;
};

// Calls visit(offset, length), relative to `position`, for each piece of [position, position +
// length) that lies in a damaged chunk.
template <typename Visit>
void bad_pieces(const ObjectDamage& damage, uint32_t position, uint32_t length, Visit visit) {
    if (damage.harmless) return;
    if (damage.chunks.empty()) return visit(uint32_t{0}, length);
    for (const uint32_t chunk : damage.chunks) {
        const uint64_t from = std::max<uint64_t>(uint64_t{chunk} * kChunkBytes, position);
        const uint64_t to =
            std::min<uint64_t>((uint64_t{chunk} + 1) * kChunkBytes, uint64_t{position} + length);
        if (from < to)
            visit(static_cast<uint32_t>(from - position), static_cast<uint32_t>(to - from));
    }
}

// Of one damaged object, while the points are walked.
struct Hurt {
    Regions lost;       // what reads its payload, and is mended when it is written over
    Regions unmapped;   // shards whose map is lost: nothing mends them
    bool opens = true;  // whether a point behind where the walk stands can be opened
    std::vector<OfferedRange> ranges;
    bool on = false;
    OfferedRange now;

    bool costs(const std::vector<DiskSize>& disks) const {
        return !opens || lost.touches(disks) || unmapped.touches(disks);
    }
    void forget() {
        lost = {};
        unmapped = {};
        opens = true;
    }
};

class Walk {
  public:
    Walk(ObjectStore& store, const ItemId& item, const Secret& key, const PointList& offered,
         const std::vector<ObjectDamage>& damage)
        : store_(store), item_(item), key_(key), offered_(offered), damage_(damage) {
        hurts_.resize(damage.size());
        for (size_t i = 0; i < damage.size(); ++i) {
            by_name_[damage[i].object_name] = i;
            if (const auto ref = parse_object_name(item, damage[i].object_name)) objects_[*ref] = i;
        }
    }

    Result<std::vector<HurtPoints>> run() {
        out_.resize(damage_.size());
        FS_TRY(list());
        if (!offered_.ranges.empty()) {
            first_ = offered_.ranges.front().first;
            last_ = offered_.ranges.back().last;
            FS_TRY(walk_window());
        }
        FS_TRY(look_at_kept());
        for (size_t i = 0; i < hurts_.size(); ++i) clip(hurts_[i].ranges, out_[i]);
        return std::move(out_);
    }

  private:
    struct Listed {
        std::string name;
        ManifestName parsed;
    };

    Result<std::optional<Manifest>> readable(const std::string& name, bool& hard) {
        hard = false;
        const auto known = by_name_.find(name);
        if (known != by_name_.end()) {
            // What a reader takes for a reason to look at an older one.
            hard = !is_damage(damage_[known->second].code);
            return std::optional<Manifest>();
        }
        auto manifest = load_manifest(store_, item_, key_, name);
        if (manifest) return std::optional<Manifest>(std::move(*manifest));
        if (!is_damage(manifest.error().code())) return fail(manifest.error());
        return std::optional<Manifest>();
    }

    Status list() {
        FS_ASSIGN(const auto infos, list_all(store_, manifest_prefix(item_)));
        for (const ObjectInfo& info : infos)
            if (auto parsed = parse_manifest_name(item_, info.name))
                manifests_.push_back({info.name, *parsed});
        return {};
    }

    // As a reader does (replica_reader.cc): of the readable ones at or above the floor, the newest
    // at or below a point serves it.
    Status walk_window() {
        Sequence floor;
        const auto newest = std::ranges::max_element(
            manifests_, {},
            [](const Listed& l) -> const Generation& { return l.parsed.generation; });
        if (newest != manifests_.end()) {
            bool hard = false;
            FS_ASSIGN(const auto manifest, readable(newest->name, hard));
            if (hard) {
                hurt_between(by_name_.at(newest->name), first_, last_);
                for (const KeptRow& row : offered_.kept)
                    out_[by_name_.at(newest->name)].kept.push_back(row);
                nothing_opens_ = true;
                return {};
            }
            if (manifest) floor = manifest->floor;
        }
        // From the newest down, as names sort; each serves up to where the one before began.
        Sequence end{last_.v + 1};
        end_time_ = offered_.ranges.back().last_time;
        std::optional<size_t> lost;  // a damaged one that was passed over
        for (auto it = manifests_.rbegin(); it != manifests_.rend() && end > first_; ++it) {
            if (it->parsed.sequence >= end) continue;
            if (it->parsed.sequence < floor) break;
            bool hard = false;
            FS_ASSIGN(const auto manifest, readable(it->name, hard));
            if (hard) {
                hurt_between(by_name_.at(it->name), it->parsed.sequence, {end.v - 1});
                end = it->parsed.sequence;
                continue;
            }
            if (!manifest) {
                if (by_name_.contains(it->name)) lost = by_name_.at(it->name);
                continue;
            }
            FS_TRY(walk(*manifest, end));
            end = manifest->sequence;
            end_time_ = manifest->time;
        }
        if (end <= first_) return {};
        if (floor.v > 0 || first_log_segment_gone()) {
            // One that is missing is not listed.
            for (const auto& [name, index] : by_name_) {
                const auto parsed = parse_manifest_name(item_, name);
                if (!lost && parsed && parsed->sequence < end) lost = index;
            }
            if (lost) hurt_between(*lost, first_, {end.v - 1});
            return {};
        }
        return walk(Manifest{}, end);
    }
    bool first_log_segment_gone() {
        const auto log = list_all(store_, log_prefix(item_));
        // One that is known to be missing is no sign of a log that was folded.
        for (const auto& [object, index] : objects_)
            if (object.kind == SegmentKind::kLog && object.number.v == 1) return false;
        if (!log || log->empty()) return true;
        const auto ref = parse_object_name(item_, log->front().name);
        return !ref || ref->number.v > 1;
    }

    // What `manifest` reads of damaged objects.
    Status begin(const Manifest& manifest) {
        for (Hurt& hurt : hurts_) hurt.forget();
        const bool any = std::ranges::any_of(
            manifest.objects, [&](const LiveObject& o) { return objects_.contains(o.object); });
        for (const ShardRef& ref : manifest.shards) {
            const std::string name = shard_name(item_, ref);
            const uint64_t base = uint64_t{ref.shard} * kShardBytes;
            if (const auto known = by_name_.find(name); known != by_name_.end()) {
                hurts_[known->second].unmapped.add(ref.disk, base, base + kShardBytes);
                continue;
            }
            if (!any) continue;
            FS_ASSIGN(const auto* found, lost_in(ref, name));
            for (const LostPiece& piece : *found)
                hurts_[piece.damage].lost.add(ref.disk, base + piece.start,
                                              base + piece.start + piece.length);
        }
        return {};
    }
    struct LostPiece {
        size_t damage = 0;
        uint32_t start = 0, length = 0;
    };
    Result<const std::vector<LostPiece>*> lost_in(const ShardRef& ref, const std::string& name) {
        const auto known = shards_.find(name);
        if (known != shards_.end()) return &known->second;
        std::vector<LostPiece> pieces;
        auto object = store_.get(name);
        if (object) {
            const auto content = decode_shard(item_, ref, *object, key_);
            if (content) {
                std::vector<std::optional<size_t>> damaged;
                for (const auto& used : content->objects) {
                    const auto at = objects_.find(used.ref);
                    damaged.push_back(at == objects_.end() ? std::nullopt
                                                           : std::optional(at->second));
                }
                content->map.for_each([&](const Extent& extent) {
                    const auto& index = damaged[extent.object];
                    if (!index) return;
                    bad_pieces(damage_[*index], extent.position, extent.length,
                               [&](uint32_t from, uint32_t length) {
                                   pieces.push_back({*index, extent.start + from, length});
                               });
                });
            } else if (!is_damage(content.error().code())) {
                return fail(content.error());
            }
        } else if (!is_damage(object.error().code())) {
            return fail(object.error());
        }
        return &(shards_[name] = std::move(pieces));
    }

    // Points in [from.sequence, end).
    Status walk(const Manifest& from, Sequence end) {
        FS_TRY(begin(from));
        LogState state(from.sequence, from.time, open_gap(from.gaps), from.disks);
        if (from.sequence.v > 0) look(from.sequence, from.time, from.disks);
        LogPosition at{from.segment, from.segment_epoch, from.segment_header, from.sequence,
                       from.time};
        FS_ASSIGN(const LogListing log, list_log(store_, item_, from.segment));
        const auto visit = [&](const std::shared_ptr<SegmentReader>& segment) -> Result<bool> {
            const SegmentHeader& header = segment->header();
            const auto known = objects_.find({header.kind, header.number, header.epoch});
            for (const IndexEntry& entry : segment->index()) {
                if (entry.sequence >= end) break;
                if (const Status ok = state.apply(entry); !ok) return fail(ok.error());
                change(entry,
                       known == objects_.end() ? std::nullopt : std::optional(known->second));
                look(entry.sequence, entry.time, state.disks());
            }
            return header.last.next() < end;
        };
        if (at.last.next() < end) {
            const Status walked = walk_log(store_, item_, key_, at, log.segments, {}, visit);
            if (!walked && !damages(walked.error().code())) return walked;
            // The log ends before the points do: at a segment that is damaged or gone.
            if (at.last.next() < end) {
                for (const auto& [ref, index] : objects_) {
                    if (ref.kind != SegmentKind::kLog || ref.number != at.number.next() ||
                        !damage_[index].chunks.empty())
                        continue;
                    hurts_[index].opens = false;
                    look_one(hurts_[index], at.last.next(), at.last_time, {});
                    break;
                }
            }
        }
        close({end.v - 1}, at.last.next() < end ? end_time_ : seen_time_);
        return {};
    }
    static bool damages(Code code) {
        return is_damage(code) || code == Code::kForeignStore || code == Code::kNewerVersion ||
               code == Code::kIo;
    }

    void change(const IndexEntry& entry, std::optional<size_t> damaged) {
        const uint64_t from = entry.offset_bytes, to = from + entry.length_bytes;
        const bool data = entry.kind == RecordKind::kWrite || entry.kind == RecordKind::kZero ||
                          entry.kind == RecordKind::kDiscard;
        for (Hurt& hurt : hurts_) {
            if (hurt.lost.empty()) continue;
            if (data) hurt.lost.remove(entry.disk, from, to);
            // What is cut off reads as zeroes should the disk grow again.
            if (entry.kind == RecordKind::kGeometry)
                hurt.lost.remove(entry.disk, entry.offset_bytes, UINT64_MAX);
        }
        if (!damaged || entry.kind != RecordKind::kWrite) return;
        bad_pieces(damage_[*damaged], entry.payload_position, entry.length_bytes,
                   [&](uint32_t at, uint32_t length) {
                       hurts_[*damaged].lost.add(entry.disk, from + at, from + at + length);
                   });
    }

    void look(Sequence sequence, TimePoint time, const std::vector<DiskSize>& disks) {
        for (Hurt& hurt : hurts_) look_one(hurt, sequence, time, disks);
        seen_ = sequence;
        seen_time_ = time;
    }
    void look_one(Hurt& hurt, Sequence sequence, TimePoint time,
                  const std::vector<DiskSize>& disks) {
        const bool costs = hurt.costs(disks);
        if (costs && !hurt.on) hurt.now = {sequence, sequence, time, time};
        if (!costs && hurt.on) end_range(hurt, {sequence.v - 1}, seen_time_);
        hurt.on = costs;
    }
    void end_range(Hurt& hurt, Sequence last, TimePoint time) {
        hurt.now.last = last;
        hurt.now.last_time = time;
        hurt.ranges.push_back(hurt.now);
        hurt.on = false;
    }
    void close(Sequence last, TimePoint time) {
        for (Hurt& hurt : hurts_)
            if (hurt.on) end_range(hurt, last, time);
    }
    void hurt_between(size_t index, Sequence first, Sequence last) {
        const auto time = [&](Sequence s) {
            for (const OfferedRange& range : offered_.ranges)
                if (s <= range.last) return s <= range.first ? range.first_time : range.last_time;
            return offered_.ranges.back().last_time;
        };
        if (first <= last) hurts_[index].ranges.push_back({first, last, time(first), time(last)});
    }

    Status look_at_kept() {
        if (nothing_opens_) return {};
        for (const KeptRow& row : offered_.kept) {
            // A reader takes the newest that it can read of those in the store.
            FS_ASSIGN(const auto infos, list_all(store_, kept_name_prefix(item_, row.sequence)));
            std::optional<Manifest> manifest;
            for (auto info = infos.rbegin(); info != infos.rend() && !manifest; ++info) {
                bool hard = false;
                FS_ASSIGN(manifest, readable(info->name, hard));
            }
            if (!manifest) {
                for (const auto& [name, index] : by_name_) {
                    const auto parsed = parse_kept_name(item_, name);
                    if (parsed && parsed->sequence == row.sequence) out_[index].kept.push_back(row);
                }
                continue;
            }
            FS_TRY(begin(*manifest));
            for (size_t i = 0; i < hurts_.size(); ++i)
                if (hurts_[i].costs(manifest->disks)) out_[i].kept.push_back(row);
        }
        return {};
    }

    // What of the ranges are points; neighbours become one.
    void clip(std::vector<OfferedRange>& ranges, HurtPoints& out) const {
        std::ranges::sort(ranges, {}, &OfferedRange::first);
        for (const OfferedRange& points : offered_.ranges) {
            for (const OfferedRange& hurt : ranges) {
                OfferedRange both = hurt;
                if (points.first > both.first)
                    both.first = points.first, both.first_time = points.first_time;
                if (points.last < both.last)
                    both.last = points.last, both.last_time = points.last_time;
                if (both.first > both.last) continue;
                if (!out.ranges.empty() && both.first <= out.ranges.back().last.next() &&
                    out.ranges.back().first >= points.first) {
                    if (both.last > out.ranges.back().last) {
                        out.ranges.back().last = both.last;
                        out.ranges.back().last_time = both.last_time;
                    }
                    continue;
                }
                out.ranges.push_back(both);
            }
        }
        out.newest = !out.ranges.empty() && out.ranges.back().last == last_;
    }

    ObjectStore& store_;
    const ItemId item_;
    const Secret& key_;
    const PointList& offered_;
    const std::vector<ObjectDamage>& damage_;
    std::map<std::string, size_t> by_name_;
    std::map<ObjectRef, size_t> objects_;
    std::vector<Listed> manifests_;
    std::map<std::string, std::vector<LostPiece>> shards_;
    std::vector<Hurt> hurts_;
    std::vector<HurtPoints> out_;
    Sequence first_, last_, seen_;
    TimePoint seen_time_, end_time_;
    bool nothing_opens_ = false;
};

}  // namespace

Result<std::vector<HurtPoints>> hurt_points(ObjectStore& store, const ItemId& item,
                                            const Secret& item_key, const PointList& offered,
                                            const std::vector<ObjectDamage>& damage) {
    return Walk(store, item, item_key, offered, damage).run();
}

}  // namespace farshore
