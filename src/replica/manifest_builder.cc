#include "replica/manifest_builder.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

namespace {

// Base objects are as large as a full log segment.
constexpr uint64_t kBaseBytes = 16u << 20;

// Live bytes of every object, while shards come and go.
class LiveCount {
  public:
    explicit LiveCount(const std::vector<LiveObject>& objects) {
        for (const LiveObject& object : objects) by_ref_[object.object] = object;
    }
    void set_payload(const ObjectRef& ref, uint64_t payload_bytes) {
        LiveObject& object = by_ref_[ref];
        object.object = ref;
        object.payload_bytes = payload_bytes;
    }
    void add(const std::vector<ShardContent::Object>& objects) {
        for (const auto& object : objects) by_ref_[object.ref].live_bytes += object.live_bytes;
    }
    Status subtract(const std::vector<ShardContent::Object>& objects) {
        for (const auto& object : objects) {
            const auto it = by_ref_.find(object.ref);
            if (it == by_ref_.end() || it->second.live_bytes < object.live_bytes)
                return fail(Code::kCorrupt,
                            "a manifest and its shards count live bytes differently");
            it->second.live_bytes -= object.live_bytes;
        }
        return {};
    }
    std::vector<LiveObject> objects() const {
        std::vector<LiveObject> out;
        for (const auto& [ref, object] : by_ref_) {
            if (object.live_bytes > 0) out.push_back(object);
        }
        return out;
    }

  private:
    std::map<ObjectRef, LiveObject> by_ref_;
};

}  // namespace

Status ManifestBuilder::put_object(const std::string& name, ByteView object) {
    FS_TRY(put_idempotent(store_, name, object));
    put_bytes_ += object.size();
    return {};
}

Status ManifestBuilder::put(const Manifest& manifest) {
    FS_ASSIGN(const Bytes object, encode_manifest(item_, manifest, key_, random_));
    return put_object(manifest_name(item_, manifest.sequence, manifest.generation), object);
}

Status ManifestBuilder::put_kept(const Manifest& manifest) {
    FS_ASSIGN(const Bytes object, encode_manifest(item_, manifest, key_, random_, true));
    return put_object(kept_name(item_, manifest.sequence, manifest.generation), object);
}

void ManifestBuilder::forget_shards_but(const Manifest& manifest) {
    std::set<std::string> names;
    for (const ShardRef& ref : manifest.shards) names.insert(shard_name(item_, ref));
    std::erase_if(relocated_, [&](const auto& shard) { return !names.contains(shard.first); });
}

Result<ShardContent> ManifestBuilder::load_shard(const ShardRef& ref) {
    FS_ASSIGN(const Bytes object, store_.get(shard_name(item_, ref)));
    return decode_shard(item_, ref, object, key_);
}

Result<Manifest> ManifestBuilder::extend(const Manifest& from,
                                         const std::vector<SegmentRow>& segments,
                                         Generation generation, Sequence last) {
    Manifest out = from;
    out.generation = generation;
    if (from.sequence.v > 0) out.previous = manifest_name(item_, from.sequence, from.generation);
    if (segments.empty()) return out;

    std::optional<GapRow> open_gap;
    if (!from.gaps.empty() && from.gaps.back().open()) open_gap = from.gaps.back();
    LogState state(from.sequence, from.time, open_gap, from.disks);
    ShardOps ops(from.shards);
    LiveCount live(from.objects);
    std::vector<ObjectRef> numbered;  // what ShardOp::object means here
    LogPosition at{from.segment, from.segment_epoch, from.segment_header, from.sequence, from.time};
    std::vector<ObjectRef> refs;
    for (const SegmentRow& row : segments)
        refs.push_back({SegmentKind::kLog, row.number, row.epoch});
    const Status walked = walk_log(
        store_, item_, key_, at, refs, parallel_,
        [&](const std::shared_ptr<SegmentReader>& segment) -> Result<bool> {
            const SegmentHeader& header = segment->header();
            const SegmentRow& row = segments[numbered.size()];
            if (header.header_hash != row.header_hash)
                return fail(Code::kCorrupt, fmt::format("{} is not the segment that was registered",
                                                        row.object_name));
            const auto number = static_cast<uint32_t>(numbered.size());
            numbered.push_back({header.kind, header.number, header.epoch});
            live.set_payload(numbered.back(), header.payload_bytes);
            out.written_bytes += row.written_bytes;
            for (const IndexEntry& entry : segment->index()) {
                if (entry.sequence > last) break;
                FS_TRY(state.apply(entry));
                ops.add(entry, number);
            }
            return true;
        });
    if (!walked) return fail(walked.error());
    if (at.number != segments.back().number)
        return fail(Code::kCorrupt, fmt::format("{} does not follow the segment before it",
                                                segments[numbered.size()].object_name));

    std::map<std::pair<DiskIndex, uint32_t>, ShardRef> shards;
    for (const ShardRef& ref : from.shards) shards[{ref.disk, ref.shard}] = ref;
    std::vector<uint64_t> touched;
    for (const auto& [key, list] : ops.by_shard()) touched.push_back(key);
    std::sort(touched.begin(), touched.end());
    for (const uint64_t key : touched) {
        const auto disk = static_cast<DiskIndex>(key >> 32);
        const auto index = static_cast<uint32_t>(key);
        // Objects of the old shard are numbered behind the new segments.
        std::vector<ObjectRef> names = numbered;
        ExtentMap map;
        const auto old = shards.find({disk, index});
        if (old != shards.end()) {
            FS_ASSIGN(ShardContent content, load_shard(old->second));
            FS_TRY(live.subtract(content.objects));
            const auto offset = static_cast<uint32_t>(names.size());
            for (const auto& object : content.objects) names.push_back(object.ref);
            content.map.for_each([&](Extent extent) {
                extent.object += offset;
                map.append(extent);
            });
            shards.erase(old);
        }
        apply_ops(ops.by_shard()[key], map);
        std::vector<ShardOp>().swap(ops.by_shard()[key]);
        if (map.empty()) continue;
        ShardRef ref{disk, index, generation, 0};
        std::vector<ShardContent::Object> objects;
        FS_ASSIGN(const Bytes object, encode_shard(
                                          item_, ref, map, [&](uint32_t n) { return names[n]; },
                                          key_, random_, &objects));
        ref.object_bytes = object.size();
        FS_TRY(put_object(shard_name(item_, ref), object));
        live.add(objects);
        shards[{disk, index}] = ref;
    }

    out.sequence = state.last();
    out.time = state.last_time();
    out.segment = at.number;
    out.segment_epoch = at.epoch;
    out.segment_header = at.header;
    out.disks = state.disks();
    out.shards.clear();
    for (const auto& [key, ref] : shards) out.shards.push_back(ref);
    out.objects = live.objects();
    out.points.insert(out.points.end(), state.points().begin(), state.points().end());
    merge_gaps(out.gaps, state.gaps());
    return out;
}

ManifestBuilder::Needed::Needed(const std::vector<LiveObject>& objects) {
    for (const LiveObject& object : objects) pieces_[object.object];
}

Status ManifestBuilder::Needed::add(ManifestBuilder& builder, const Manifest& manifest,
                                    bool lasts) {
    std::set<std::string> now;
    for (const ShardRef& ref : manifest.shards) {
        const std::string name = shard_name(builder.item_, ref);
        now.insert(name);
        if (seen_.contains(name) || seen_before_.contains(name)) continue;
        FS_ASSIGN(const ShardContent content, builder.load_shard(ref));
        content.map.for_each([&](const Extent& extent) {
            const auto wanted = pieces_.find(content.objects[extent.object].ref);
            if (wanted == pieces_.end()) return;
            // A position of an object is one place on one disk, so what is there already is the
            // same. As records of a base object, so no longer than one.
            auto& pieces = wanted->second;
            for (uint32_t done = 0; done < extent.length;) {
                const uint32_t position = extent.position + done;
                auto next = pieces.upper_bound(position);
                if (next != pieces.begin()) {
                    const Piece& before = std::prev(next)->second;
                    if (before.position + before.length > position) {
                        done += before.position + before.length - position;
                        continue;
                    }
                }
                uint32_t length = std::min(extent.length - done, kMaxWriteBytes);
                if (next != pieces.end()) length = std::min(length, next->first - position);
                pieces[position] = {position, length, ref.disk,
                                    uint64_t{ref.shard} * kShardBytes + extent.start + done, lasts};
                done += length;
            }
        });
    }
    seen_before_ = std::move(seen_);
    seen_ = std::move(now);
    return {};
}

uint64_t ManifestBuilder::Needed::live_bytes(const ObjectRef& object) const {
    uint64_t sum = 0;
    const auto found = pieces_.find(object);
    if (found == pieces_.end()) return 0;
    for (const auto& [position, piece] : found->second) sum += piece.length;
    return sum;
}

struct ManifestBuilder::MovingPiece {
    DiskIndex disk = 0;
    uint64_t offset = 0;
    uint32_t length = 0;
    ObjectRef object;
    uint32_t position = 0;
    bool passes = false;
    Bytes payload;
};

Result<ManifestBuilder::Moves> ManifestBuilder::move_payload(
    const Needed& needed, uint64_t memory_bytes, TimePoint time, Epoch vault,
    const std::function<Result<uint64_t>()>& reserve) {
    Moves moves;
    std::vector<MovingPiece> pieces;
    uint64_t bytes = 0;
    const auto move = [&]() -> Status {
        FS_TRY(read_pieces(pieces));
        FS_TRY(write_pieces(pieces, time, vault, reserve, moves));
        pieces.clear();
        bytes = 0;
        return {};
    };
    // Objects without pieces are in it, too.
    for (const auto& [object, list] : needed.pieces_) {
        moves[object];
        for (const auto& [position, piece] : list) {
            if (!pieces.empty() && bytes + piece.length > memory_bytes) FS_TRY(move());
            pieces.push_back(
                {piece.disk, piece.offset, piece.length, object, position, !piece.lasts, {}});
            bytes += piece.length;
        }
    }
    FS_TRY(move());
    for (auto& [object, list] : moves) {
        std::sort(list.begin(), list.end(),
                  [](const Moved& a, const Moved& b) { return a.position < b.position; });
    }
    return moves;
}

// Each chunk is read and decoded once: in the order of the objects' payload.
Status ManifestBuilder::read_pieces(std::vector<MovingPiece>& pieces) {
    std::shared_ptr<SegmentReader> segment;
    ObjectRef opened;
    Bytes chunk;
    uint32_t chunk_number = UINT32_MAX;
    for (MovingPiece& piece : pieces) {
        if (!segment || opened != piece.object) {
            FS_ASSIGN(segment,
                      SegmentReader::open(store_, object_name(item_, piece.object), item_, key_));
            segment->forget_index();
            opened = piece.object;
            chunk_number = UINT32_MAX;
        }
        piece.payload.reserve(piece.length);
        while (piece.payload.size() < piece.length) {
            const uint32_t at = piece.position + static_cast<uint32_t>(piece.payload.size());
            if (chunk_number != at / kChunkBytes) {
                FS_ASSIGN(chunk, segment->read_chunk(store_, at / kChunkBytes));
                chunk_number = at / kChunkBytes;
            }
            const size_t skip = at % kChunkBytes;
            if (chunk.size() <= skip)
                return fail(Code::kCorrupt, fmt::format("{} is shorter than its map says",
                                                        object_name(item_, opened)));
            const size_t n =
                std::min<size_t>(chunk.size() - skip, piece.length - piece.payload.size());
            piece.payload.insert(piece.payload.end(), chunk.begin() + static_cast<ptrdiff_t>(skip),
                                 chunk.begin() + static_cast<ptrdiff_t>(skip + n));
        }
        moved_bytes_ += piece.length;
    }
    return {};
}

Status ManifestBuilder::write_pieces(std::vector<MovingPiece>& pieces, TimePoint time, Epoch vault,
                                     const std::function<Result<uint64_t>()>& reserve,
                                     Moves& moves) {
    // In a base object payload lies in the order of the disk.
    std::sort(pieces.begin(), pieces.end(), [](const MovingPiece& a, const MovingPiece& b) {
        return std::tie(a.passes, a.disk, a.offset, a.object) <
               std::tie(b.passes, b.disk, b.offset, b.object);
    });
    SegmentWriter writer;
    ObjectRef base;
    uint64_t record = 0;
    uint32_t position = 0;
    bool passes = false;
    const auto finish = [&]() -> Status {
        if (writer.empty()) return {};
        SegmentWriter::BuildOptions build;
        build.kind = SegmentKind::kBase;
        build.item = item_;
        build.epoch = base.epoch;
        build.number = base.number;
        build.item_key = &key_;
        build.random = &random_;
        FS_ASSIGN(const BuiltSegment built, writer.build(build));
        base_payload_[base] = built.header.payload_bytes;
        return put_object(segment_object_name(built.header), built.object);
    };
    for (MovingPiece& piece : pieces) {
        if (writer.empty() || position + piece.length > kBaseBytes || piece.passes != passes) {
            FS_TRY(finish());
            passes = piece.passes;
            FS_ASSIGN(const uint64_t number, reserve());
            base = {SegmentKind::kBase, {number}, vault};
            record = 0;
            position = 0;
        }
        Bytes encoded;
        RecordHeader header;
        header.kind = RecordKind::kWrite;
        header.disk = piece.disk;
        // Records of a base object are numbered from 1: what they carry are states, not changes.
        header.sequence = {++record};
        header.time = time;
        header.offset_bytes = piece.offset;
        header.length_bytes = piece.length;
        append_record(encoded, header, piece.payload);
        Bytes().swap(piece.payload);
        FS_TRY(writer.add(encoded));
        moves[piece.object].push_back({piece.position, piece.length, base, position});
        position += piece.length;
    }
    return finish();
}

Result<Manifest> ManifestBuilder::relocate(const Manifest& manifest, const Moves& moves,
                                           Generation generation) {
    Manifest out = manifest;
    out.generation = generation;
    out.previous = manifest_name(item_, manifest.sequence, manifest.generation);
    LiveCount live(manifest.objects);
    for (const auto& [ref, bytes] : base_payload_) live.set_payload(ref, bytes);
    for (ShardRef& ref : out.shards) {
        const std::string name = shard_name(item_, ref);
        auto done = relocated_.find(name);
        if (done == relocated_.end()) {
            Relocated result;
            FS_ASSIGN(const ShardContent content, load_shard(ref));
            result.changed = std::any_of(content.objects.begin(), content.objects.end(),
                                         [&](const auto& o) { return moves.contains(o.ref); });
            result.ref = ref;
            if (result.changed) {
                std::vector<ObjectRef> names;
                std::map<ObjectRef, uint32_t> numbers;
                const auto number = [&](const ObjectRef& object) {
                    const auto [it, fresh] =
                        numbers.try_emplace(object, static_cast<uint32_t>(names.size()));
                    if (fresh) names.push_back(object);
                    return it->second;
                };
                ExtentMap map;
                Status missed;
                content.map.for_each([&](const Extent& extent) {
                    const ObjectRef& object = content.objects[extent.object].ref;
                    const auto moved = moves.find(object);
                    if (moved == moves.end()) {
                        map.write({extent.start, extent.length, number(object), extent.position});
                        return;
                    }
                    const auto& list = moved->second;
                    auto it = std::upper_bound(
                        list.begin(), list.end(), extent.position,
                        [](uint32_t position, const Moved& m) { return position < m.position; });
                    for (uint32_t at = 0; at < extent.length;) {
                        const uint32_t position = extent.position + at;
                        if (it != list.begin() &&
                            std::prev(it)->position + std::prev(it)->length > position)
                            --it;
                        if (it == list.end() || it->position > position) {
                            missed = fail(Code::kCorrupt,
                                          fmt::format("{} refers to payload of {} that neither the "
                                                      "window's floor nor a kept point does",
                                                      name, object_name(item_, object)));
                            return;
                        }
                        const uint32_t skip = position - it->position;
                        const uint32_t n = std::min(extent.length - at, it->length - skip);
                        map.write(
                            {extent.start + at, n, number(it->object), it->new_position + skip});
                        at += n;
                        ++it;
                    }
                });
                if (!missed) return fail(missed.error());
                result.before = content.objects;
                result.ref.generation = generation;
                FS_ASSIGN(const Bytes object,
                          encode_shard(
                              item_, result.ref, map, [&](uint32_t n) { return names[n]; }, key_,
                              random_, &result.after));
                result.ref.object_bytes = object.size();
                FS_TRY(put_object(shard_name(item_, result.ref), object));
            }
            done = relocated_.emplace(name, std::move(result)).first;
        }
        if (!done->second.changed) continue;
        FS_TRY(live.subtract(done->second.before));
        live.add(done->second.after);
        ref = done->second.ref;
    }
    out.objects = live.objects();
    return out;
}

Result<Manifest> ManifestBuilder::restate(const Manifest& manifest, const ShardSet& shards,
                                          ReplicaReader& from, Epoch vault,
                                          const std::function<Result<uint64_t>()>& reserve) {
    Manifest out = manifest;
    FS_ASSIGN(const uint64_t generation, reserve());
    out.generation = {vault, generation};
    out.previous = manifest_name(item_, manifest.sequence, manifest.generation);
    // What the shards hold that cannot be read nobody knows, so all others are counted anew.
    LiveCount live({});
    for (const LiveObject& object : manifest.objects)
        live.set_payload(object.object, object.payload_bytes);

    SegmentWriter writer;
    std::vector<ObjectRef> bases;
    uint64_t record = 0;
    uint32_t position = 0;
    const auto finish = [&]() -> Status {
        if (writer.empty()) return {};
        SegmentWriter::BuildOptions build;
        build.kind = SegmentKind::kBase;
        build.item = item_;
        build.epoch = bases.back().epoch;
        build.number = bases.back().number;
        build.item_key = &key_;
        build.random = &random_;
        FS_ASSIGN(const BuiltSegment built, writer.build(build));
        live.set_payload(bases.back(), built.header.payload_bytes);
        return put_object(segment_object_name(built.header), built.object);
    };
    struct Restated {
        ShardRef ref;
        ExtentMap map;
    };
    std::vector<Restated> restated;
    std::vector<ShardRef> kept;
    for (const ShardRef& ref : manifest.shards) {
        if (!shards.contains({ref.disk, ref.shard})) {
            FS_ASSIGN(const ShardContent content, load_shard(ref));
            live.add(content.objects);
            kept.push_back(ref);
            continue;
        }
        FS_ASSIGN(const auto disk, from.disk(ref.disk));
        const uint64_t begin = uint64_t{ref.shard} * kShardBytes;
        const uint64_t size = disk->size_bytes();
        const uint64_t end = std::min(begin + kShardBytes, std::max(size, begin));
        Restated made;
        made.ref = ref;
        made.ref.generation = out.generation;
        std::vector<ReplicaExtent> extents;
        if (end > begin) {
            FS_ASSIGN(extents, disk->extents(begin, end - begin));
        }
        for (const ReplicaExtent& extent : extents) {
            if (extent.zero) continue;
            for (uint64_t done = 0; done < extent.length_bytes;) {
                const auto length = static_cast<uint32_t>(
                    std::min<uint64_t>(extent.length_bytes - done, kMaxWriteBytes));
                const uint64_t offset = extent.offset_bytes + done;
                Bytes payload(length);
                FS_TRY(disk->read(offset, payload));
                done += length;
                if (writer.empty() || position + length > kBaseBytes) {
                    FS_TRY(finish());
                    FS_ASSIGN(const uint64_t number, reserve());
                    bases.push_back({SegmentKind::kBase, {number}, vault});
                    record = 0;
                    position = 0;
                }
                RecordHeader header;
                header.kind = RecordKind::kWrite;
                header.disk = ref.disk;
                header.sequence = {++record};
                header.time = manifest.time;
                header.offset_bytes = offset;
                header.length_bytes = length;
                Bytes encoded;
                append_record(encoded, header, payload);
                FS_TRY(writer.add(encoded));
                made.map.write({static_cast<uint32_t>(offset - begin), length,
                                static_cast<uint32_t>(bases.size() - 1), position});
                position += length;
                moved_bytes_ += length;
            }
        }
        restated.push_back(std::move(made));
    }
    FS_TRY(finish());
    for (Restated& made : restated) {
        std::vector<ShardContent::Object> objects;
        FS_ASSIGN(const Bytes object,
                  encode_shard(
                      item_, made.ref, made.map, [&](uint32_t n) { return bases[n]; }, key_,
                      random_, &objects));
        made.ref.object_bytes = object.size();
        FS_TRY(put_object(shard_name(item_, made.ref), object));
        live.add(objects);
        kept.push_back(made.ref);
    }
    std::ranges::sort(kept, {}, [](const ShardRef& ref) { return std::pair(ref.disk, ref.shard); });
    out.shards = std::move(kept);
    out.objects = live.objects();
    return out;
}

}  // namespace farshore
