#include "replica/replica_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>

#include "replica/checkpoint.h"

namespace farshore {
namespace {

// Chunks that are decoded ahead of a sequential read.
constexpr uint32_t kReadAheadChunks = 2;

bool is_damage(Code code) {
    return code == Code::kCorrupt || code == Code::kTruncated || code == Code::kMalformed ||
           code == Code::kNotFound;
}

class Reader final : public ReplicaReader, public std::enable_shared_from_this<Reader> {
  public:
    Reader(ObjectStore& store, const ItemId& item, const Secret& key, ReplicaReaderOptions options)
        : store_(store), item_(item), key_(key), options_(std::move(options)) {
        if (!options_.cache) options_.cache = std::make_shared<ChunkCache>(options_.cache_bytes);
    }

    Status open_at(Sequence wanted);

    Sequence sequence() const override { return sequence_; }
    TimePoint time() const override { return time_; }
    const std::vector<DiskSize>& disks() const override { return disks_; }
    const std::vector<PointRow>& points() const override { return points_; }
    const std::vector<GapRow>& gaps() const override { return gaps_; }
    Result<std::shared_ptr<ReplicaDisk>> disk(DiskIndex index) override;
    ReplicaReaderStats stats() const override {
        return {shards_loaded_, extents_loaded_, chunks_decoded_, chunks_prefetched_,
                segments_behind_};
    }

    Status read(DiskIndex disk, uint64_t size, uint64_t offset, MutableByteView out);
    Result<std::vector<ReplicaExtent>> extents(DiskIndex disk, uint64_t size, uint64_t offset,
                                               uint64_t length);

  private:
    // A log or base object that maps refer to. Filled at open, its segment when first read.
    struct Object {
        ObjectRef ref;
        std::mutex mutex;
        std::shared_ptr<SegmentReader> segment;
        // Where the last read of this object ended, and how far was decoded ahead: readahead.
        std::atomic<uint32_t> next_chunk{0};
        std::atomic<uint32_t> ahead{0};
    };
    struct Shard {
        std::optional<ShardRef> checkpoint;
        std::vector<ShardOp> ops;
        std::mutex mutex;
        std::unique_ptr<ExtentMap> map;                 // set once under mutex
        std::atomic<const ExtentMap*> loaded{nullptr};  // published after
    };

    struct Listed {
        std::string name;
        ManifestName parsed;
    };
    Status open_from(const std::vector<Listed>& manifests, Sequence wanted);
    Status open_behind(const Manifest& from, Sequence wanted);
    // The manifest of a point that was kept below the window; nothing when there is none.
    Result<std::optional<Manifest>> kept_manifest(Sequence wanted);
    Status fail_in_gap(Sequence wanted, GapRow gap, Sequence floor) const;
    Status outside_window(Sequence wanted, Sequence newest) const;
    Result<const ExtentMap*> shard_map(DiskIndex disk, uint32_t shard);
    Result<const ExtentMap*> load(Shard& shard);
    uint32_t intern(const ObjectRef& ref);
    Result<std::shared_ptr<SegmentReader>> segment(Object& object);
    Result<SharedBytes> chunk(Object& object, uint32_t chunk);
    void read_ahead(uint32_t object, uint32_t chunk);
    // Calls visit(piece, offset of the piece in [offset, offset+length)) for every piece of the
    // range.
    template <typename Visit>
    Status pieces(DiskIndex disk, uint64_t offset, uint64_t length, Visit visit);

    ObjectStore& store_;
    const ItemId item_;
    const Secret key_;
    ReplicaReaderOptions options_;

    // Fixed once opened.
    Manifest floor_;  // the newest generation's window, as far as it could be read
    bool have_floor_ = false;
    Sequence sequence_;
    TimePoint time_;
    std::vector<DiskSize> disks_;
    std::vector<PointRow> points_;
    std::vector<GapRow> gaps_;
    std::vector<std::unique_ptr<Object>> objects_;
    std::map<ObjectRef, uint32_t> object_numbers_;
    std::unordered_map<uint64_t, std::unique_ptr<Shard>> shards_;

    std::array<std::mutex, 64> decoding_;  // by chunk: one thread decodes it
    std::atomic<uint64_t> shards_loaded_{0}, extents_loaded_{0}, chunks_decoded_{0},
        chunks_prefetched_{0}, segments_behind_{0};
};

class Disk final : public ReplicaDisk {
  public:
    Disk(std::shared_ptr<Reader> reader, DiskSize disk) : reader_(std::move(reader)), disk_(disk) {}
    DiskIndex index() const override { return disk_.disk; }
    uint64_t size_bytes() const override { return disk_.size_bytes; }
    Status read(uint64_t offset, MutableByteView out) override {
        return reader_->read(disk_.disk, disk_.size_bytes, offset, out);
    }
    Result<std::vector<ReplicaExtent>> extents(uint64_t offset, uint64_t length) override {
        return reader_->extents(disk_.disk, disk_.size_bytes, offset, length);
    }

  private:
    const std::shared_ptr<Reader> reader_;
    const DiskSize disk_;
};

uint32_t Reader::intern(const ObjectRef& ref) {
    const auto [it, fresh] =
        object_numbers_.try_emplace(ref, static_cast<uint32_t>(objects_.size()));
    if (fresh) {
        objects_.push_back(std::make_unique<Object>());
        objects_.back()->ref = ref;
    }
    return it->second;
}

Status Reader::outside_window(Sequence wanted, Sequence newest) const {
    return fail(Code::kPointOutsideWindow,
                fmt::format("sequence {} has left the window, which reaches from {} to {}",
                            wanted.v, floor_.floor.v, newest.v),
                "choose a point inside the window");
}

Status Reader::fail_in_gap(Sequence wanted, GapRow gap, Sequence floor) const {
    // The walk ended inside the gap; where it was closed is further on.
    ReplicaReaderOptions options = options_;
    options.allow_gap = true;
    Reader whole(store_, item_, key_, std::move(options));
    if (gap.open() && whole.open_at(kLatestSequence)) {
        for (const GapRow& row : whole.gaps_) {
            if (row.last_good == gap.last_good) gap = row;
        }
    }
    return fail(point_in_gap(wanted, gap, floor));
}

Status Reader::open_at(Sequence wanted) {
    // A manifest that retention removes between the listing and the read makes the listing stale.
    for (int attempt = 0;; ++attempt) {
        FS_ASSIGN(const auto infos, list_all(store_, manifest_prefix(item_)));
        std::vector<Listed> manifests;
        for (const ObjectInfo& info : infos) {
            if (auto parsed = parse_manifest_name(item_, info.name))
                manifests.push_back({info.name, *parsed});
        }
        const Status opened = open_from(manifests, wanted);
        if (opened || attempt == 2 || opened.error().code() != Code::kNotFound) return opened;
    }
}

Status Reader::open_from(const std::vector<Listed>& manifests, Sequence wanted) {
    const auto load_manifest = [&](const Listed& listed) -> Result<Manifest> {
        FS_ASSIGN(const Bytes object, store_.get(listed.name));
        return decode_manifest(item_, listed.name, object, key_);
    };
    // The window is what the manifest that was written last says.
    have_floor_ = false;
    std::optional<Error> damage;
    const auto newest = std::max_element(
        manifests.begin(), manifests.end(),
        [](const Listed& a, const Listed& b) { return a.parsed.generation < b.parsed.generation; });
    if (newest != manifests.end()) {
        auto manifest = load_manifest(*newest);
        if (manifest) {
            floor_ = std::move(*manifest);
            have_floor_ = true;
        } else if (!is_damage(manifest.error().code())) {
            return fail(manifest.error());
        } else {
            damage = manifest.error();
        }
    }
    if (wanted != kLatestSequence && (!have_floor_ || wanted < floor_.floor)) {
        FS_ASSIGN(const auto kept, kept_manifest(wanted));
        if (kept) return open_behind(*kept, wanted);
    }
    // That manifest may come from a move of the floor that was never committed, and the point may
    // be leased: below the floor, what is still there is read.
    const bool below_floor = have_floor_ && wanted < floor_.floor;
    const auto checked = [&](Status opened) -> Status {
        if (opened || !below_floor) return opened;
        const Code code = opened.error().code();
        if (code == Code::kSequenceHole || code == Code::kPointNotFound || is_damage(code))
            return outside_window(wanted, floor_.sequence);
        return opened;
    };

    // Names sort by sequence, then generation: from the back comes the best first.
    for (auto it = manifests.rbegin(); it != manifests.rend(); ++it) {
        if (it->parsed.sequence > wanted) continue;
        if (have_floor_ && !below_floor && it->parsed.sequence < floor_.floor) break;
        auto manifest = load_manifest(*it);
        if (!manifest) {
            if (!is_damage(manifest.error().code())) return fail(manifest.error());
            if (!damage) damage = manifest.error();
            continue;
        }
        if (!have_floor_) floor_ = *manifest;
        return checked(open_behind(*manifest, wanted));
    }
    if (below_floor) return checked(open_behind(Manifest{}, wanted));
    // Without a manifest the log is read from its start; where that has been folded, the damaged
    // manifest is what is wrong.
    if (have_floor_ && floor_.floor.v > 0)
        return fail(damage ? *damage
                           : Error(Code::kCorrupt, "the manifest at the window's floor is missing",
                                   "restore it from a copy of the store"));
    if (damage) {
        FS_ASSIGN(const LogListing log, list_log(store_, item_, SegmentNumber{0}));
        if (log.segments.empty() || log.lost_behind({log.segments.size()})) return fail(*damage);
    }
    return open_behind(Manifest{}, wanted);
}

Result<std::optional<Manifest>> Reader::kept_manifest(Sequence wanted) {
    FS_ASSIGN(const auto infos, list_all(store_, kept_name_prefix(item_, wanted)));
    std::optional<Error> damage;
    // By generation: the newest is the last.
    for (auto info = infos.rbegin(); info != infos.rend(); ++info) {
        FS_ASSIGN(const Bytes object, store_.get(info->name));
        auto manifest = decode_manifest(item_, info->name, object, key_);
        if (manifest) return std::optional<Manifest>(std::move(*manifest));
        if (!damage) damage = manifest.error();
    }
    if (damage) return fail(*damage);
    return std::optional<Manifest>();
}

Status Reader::open_behind(const Manifest& from, Sequence wanted) {
    objects_.clear();
    object_numbers_.clear();
    shards_.clear();
    for (const LiveObject& object : from.objects) intern(object.object);
    for (const ShardRef& ref : from.shards) {
        auto shard = std::make_unique<Shard>();
        shard->checkpoint = ref;
        shards_[shard_key(ref.disk, ref.shard)] = std::move(shard);
    }

    std::optional<GapRow> open_gap;
    if (!from.gaps.empty() && from.gaps.back().open()) open_gap = from.gaps.back();
    LogState state(from.sequence, from.time, open_gap, from.disks);
    ShardOps ops(from.shards);
    uint64_t behind = 0;
    Sequence stored = from.sequence;
    if (wanted > from.sequence) {
        FS_ASSIGN(const LogListing log, list_log(store_, item_, from.segment));
        LogPosition at{from.segment, from.segment_epoch, from.segment_header, from.sequence,
                       from.time};
        const Status walked =
            walk_log(store_, item_, key_, at, log.segments, options_.parallel,
                     [&](const std::shared_ptr<SegmentReader>& opened) -> Result<bool> {
                         ++behind;
                         const SegmentHeader& header = opened->header();
                         const uint32_t object = intern({header.kind, header.number, header.epoch});
                         for (const IndexEntry& entry : opened->index()) {
                             // A GAP behind the point shows that the point lies in what it skipped.
                             if (entry.sequence > wanted &&
                                 !(entry.kind == RecordKind::kGap && state.last() < wanted))
                                 break;
                             FS_TRY(state.apply(entry));
                             ops.add(entry, object);
                         }
                         opened->forget_index();
                         objects_[object]->segment = opened;
                         stored = header.last;
                         return header.last < wanted;
                     });
        if (!walked) return walked;
    }
    const bool latest = wanted == kLatestSequence;
    if (latest) wanted = state.last();
    if (stored < wanted)
        return fail(Code::kPointNotFound,
                    stored.v == 0 ? "nothing of this machine is stored yet"
                                  : fmt::format("sequence {} is not stored; the newest is {}",
                                                wanted.v, stored.v),
                    "wait until it is stored, or choose an older point");
    std::vector<GapRow> gaps = from.gaps;
    merge_gaps(gaps, state.gaps());

    const GapRow* gap = nullptr;
    for (const GapRow& row : gaps) {
        if (row.covers(wanted)) gap = &row;
    }
    // A sequence that a gap consumed lies between the records that were read.
    if (gap == nullptr && state.last() != wanted)
        return fail(Code::kCorrupt, fmt::format("the log has no record {}", wanted.v));
    if (gap != nullptr && !options_.allow_gap) {
        const Sequence before = gap->last_good;
        const bool good = before.v > 0 && before >= floor_.floor;
        if (latest && good) return open_at(before);
        if (latest)
            return fail(Code::kPointNotFound,
                        "there is no recovery point yet: the first copy is not complete",
                        "wait until the machine is protected");
        return fail_in_gap(wanted, *gap, floor_.floor);
    }
    sequence_ = wanted;
    time_ = state.last_time();
    if (from.sequence.v == 0 && behind == 0 && wanted.v == 0)
        return fail(Code::kPointNotFound, "nothing of this machine is stored yet",
                    "wait until the machine is protected");
    disks_ = state.disks();
    points_ = from.points;
    points_.insert(points_.end(), state.points().begin(), state.points().end());
    gaps_ = std::move(gaps);
    segments_behind_ = behind;
    for (auto& [key, list] : ops.by_shard()) {
        auto& shard = shards_[key];
        if (!shard) shard = std::make_unique<Shard>();
        shard->ops = std::move(list);
    }
    return {};
}

Result<const ExtentMap*> Reader::shard_map(DiskIndex disk, uint32_t shard) {
    const auto it = shards_.find(shard_key(disk, shard));
    if (it == shards_.end()) return nullptr;
    if (const ExtentMap* map = it->second->loaded.load(std::memory_order_acquire)) return map;
    return load(*it->second);
}

Result<const ExtentMap*> Reader::load(Shard& shard) {
    std::lock_guard lock(shard.mutex);
    if (shard.map) return shard.map.get();
    auto map = std::make_unique<ExtentMap>();
    if (shard.checkpoint) {
        const std::string name = shard_name(item_, *shard.checkpoint);
        auto object = store_.get(name);
        if (!object) {
            if (object.error().code() != Code::kNotFound) return fail(object.error());
            return fail(Code::kCorrupt, fmt::format("{}, which the point needs, is missing", name),
                        "restore it from a copy of the store, or use another point");
        }
        FS_ASSIGN(ShardContent content, decode_shard(item_, *shard.checkpoint, *object, key_));
        std::vector<uint32_t> numbers;
        for (const auto& used : content.objects) {
            const auto it = object_numbers_.find(used.ref);
            if (it == object_numbers_.end())
                return fail(Code::kCorrupt,
                            fmt::format("{} refers to {}, which its manifest does not name", name,
                                        object_name(item_, used.ref)));
            numbers.push_back(it->second);
        }
        content.map.for_each([&](Extent extent) {
            extent.object = numbers[extent.object];
            map->append(extent);
        });
    }
    apply_ops(shard.ops, *map);
    std::vector<ShardOp>().swap(shard.ops);
    shard.map = std::move(map);
    ++shards_loaded_;
    extents_loaded_ += shard.map->size();
    shard.loaded.store(shard.map.get(), std::memory_order_release);
    return shard.map.get();
}

template <typename Visit>
Status Reader::pieces(DiskIndex disk, uint64_t offset, uint64_t length, Visit visit) {
    thread_local std::vector<Extent> found;
    uint64_t done = 0;
    while (done < length) {
        const uint64_t at = offset + done;
        const uint32_t start = static_cast<uint32_t>(at % kShardBytes);
        const uint32_t part =
            static_cast<uint32_t>(std::min<uint64_t>(length - done, kShardBytes - start));
        FS_ASSIGN(const ExtentMap* map, shard_map(disk, static_cast<uint32_t>(at / kShardBytes)));
        if (map == nullptr) {
            FS_TRY(visit(Extent{start, part, kNoObject, 0}, done));
        } else {
            found.clear();
            map->lookup(start, part, found);
            for (const Extent& piece : found) FS_TRY(visit(piece, done + (piece.start - start)));
        }
        done += part;
    }
    return {};
}

Status Reader::read(DiskIndex disk, uint64_t size, uint64_t offset, MutableByteView out) {
    if (offset > size || out.size() > size - offset)
        return fail(Code::kInvalidArgument, "a read past the end of the disk");
    return pieces(disk, offset, out.size(), [&](const Extent& piece, uint64_t at) -> Status {
        if (piece.object == kNoObject) {
            std::fill_n(out.begin() + static_cast<ptrdiff_t>(at), piece.length, uint8_t{0});
            return {};
        }
        Object& object = *objects_[piece.object];
        uint32_t copied = 0;
        while (copied < piece.length) {
            const uint32_t position = piece.position + copied;
            const uint32_t number = position / kChunkBytes;
            const uint32_t skip = position % kChunkBytes;
            FS_ASSIGN(const SharedBytes bytes, chunk(object, number));
            if (bytes->size() <= skip)
                return fail(Code::kCorrupt, fmt::format("{} is shorter than its map says",
                                                        object_name(item_, object.ref)));
            const size_t n = std::min<size_t>(piece.length - copied, bytes->size() - skip);
            std::copy_n(bytes->begin() + skip, n,
                        out.begin() + static_cast<ptrdiff_t>(at + copied));
            copied += static_cast<uint32_t>(n);
            if (options_.background) read_ahead(piece.object, number);
        }
        return {};
    });
}

Result<std::vector<ReplicaExtent>> Reader::extents(DiskIndex disk, uint64_t size, uint64_t offset,
                                                   uint64_t length) {
    if (length == 0 || offset > size || length > size - offset)
        return fail(Code::kInvalidArgument, "a range past the end of the disk");
    std::vector<ReplicaExtent> out;
    FS_TRY(pieces(disk, offset, length, [&](const Extent& piece, uint64_t at) -> Status {
        const bool zero = piece.object == kNoObject;
        if (!out.empty() && out.back().zero == zero)
            out.back().length_bytes += piece.length;
        else
            out.push_back({offset + at, piece.length, zero});
        return {};
    }));
    return out;
}

Result<std::shared_ptr<SegmentReader>> Reader::segment(Object& object) {
    std::lock_guard lock(object.mutex);
    if (object.segment) return object.segment;
    const std::string name = object_name(item_, object.ref);
    auto opened = SegmentReader::open(store_, name, item_, key_);
    if (!opened) {
        if (opened.error().code() != Code::kNotFound) return fail(opened.error());
        return fail(Code::kCorrupt, fmt::format("{}, which the point needs, is missing", name),
                    "restore it from a copy of the store, or use another point");
    }
    (*opened)->forget_index();
    object.segment = std::move(*opened);
    return object.segment;
}

Result<SharedBytes> Reader::chunk(Object& object, uint32_t number) {
    const ChunkKey key{item_, object.ref, number};
    if (SharedBytes cached = options_.cache->find(key)) return cached;
    // Clients cut large reads into pieces and send them at once: the first decodes, the others
    // wait.
    std::lock_guard lock(decoding_[(object.ref.number.v * 37 + number) % decoding_.size()]);
    if (SharedBytes cached = options_.cache->find(key)) return cached;
    FS_ASSIGN(const auto opened, segment(object));
    FS_ASSIGN(Bytes plain, opened->read_chunk(store_, number));
    ++chunks_decoded_;
    auto shared = std::make_shared<const Bytes>(std::move(plain));
    options_.cache->insert(key, shared);
    return shared;
}

void Reader::read_ahead(uint32_t number, uint32_t chunk_number) {
    Object& object = *objects_[number];
    // Sequential: the chunk after the one that was read last, or still the same one.
    const uint32_t expected = object.next_chunk.exchange(chunk_number + 1);
    if (expected != chunk_number || chunk_number == 0) return;
    const uint32_t target = chunk_number + kReadAheadChunks;
    uint32_t ahead = object.ahead.load();
    const uint32_t from = std::max(ahead > target ? chunk_number : ahead, chunk_number) + 1;
    if (from > target || !object.ahead.compare_exchange_strong(ahead, target)) return;
    options_.background([self = shared_from_this(), &object, from, target] {
        for (uint32_t i = from; i <= target; ++i) {
            const auto opened = self->segment(object);
            if (!opened) return;
            const uint64_t payload = (*opened)->header().payload_bytes;
            if (uint64_t{i} * kChunkBytes >= payload) return;
            // An error shows when the chunk is really read.
            if (self->chunk(object, i)) ++self->chunks_prefetched_;
        }
    });
}

Result<std::shared_ptr<ReplicaDisk>> Reader::disk(DiskIndex index) {
    for (const DiskSize& disk : disks_) {
        if (disk.disk != index) continue;
        if (disk.joining && !options_.allow_gap)
            return fail(Code::kNotFound,
                        fmt::format("at sequence {} disk {} was not copied yet: it had been added "
                                    "to the machine before",
                                    sequence_.v, index),
                        "choose a newer point, one of those that have the disk");
        return std::make_shared<Disk>(shared_from_this(), disk);
    }
    return fail(Code::kNotFound,
                fmt::format("at sequence {} the machine has no disk {}", sequence_.v, index));
}

}  // namespace

Result<std::shared_ptr<ReplicaReader>> ReplicaReader::open(ObjectStore& store, const ItemId& item,
                                                           const Secret& item_key,
                                                           Sequence sequence,
                                                           ReplicaReaderOptions options) {
    auto reader = std::make_shared<Reader>(store, item, item_key, std::move(options));
    FS_TRY(reader->open_at(sequence));
    return reader;
}

}  // namespace farshore
