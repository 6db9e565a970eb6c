// A replica at a point: every disk of an item as it was after one sequence, read from the object
// store with the item's key alone. No ledger, no vault.
//
// Opening loads the newest usable manifest at or below the point and the indexes of the segments
// behind it; a shard's map is loaded when the shard is first read, a chunk when its bytes are.
// Memory: at most kMaxBytesPerExtent an extent of the shards that were read, 16 bytes a change that
// waits for its shard, a few KiB an object that is read from, and the chunk cache.
//
// Whoever reads holds a lease of the item (ItemReplica::lease); without one, retention may remove
// what is read: that is kNotFound or kCorrupt, never wrong data.
#pragma once

#include <memory>
#include <vector>

#include "base/seams.h"
#include "replica/chunk_cache.h"
#include "replica/log_walk.h"
#include "replica/manifest.h"
#include "store/object_store.h"

namespace farshore {

// The newest sequence that is a point.
inline constexpr Sequence kLatestSequence{UINT64_MAX};

struct ReplicaReaderOptions {
    // Shared by readers; null: one of its own of `cache_bytes`.
    std::shared_ptr<ChunkCache> cache;
    size_t cache_bytes = 64u << 20;
    // Opens segments side by side; null: one after the other.
    ParallelFor parallel;
    // Runs a task on another thread, soon, or drops it. When set, sequential reads are decoded
    // ahead. The tasks keep the reader alive; the store must outlive them.
    std::function<void(std::function<void()>)> background;
    // For comparing and diagnosis only: opens sequences inside a gap, and disks that join.
    bool allow_gap = false;
};

struct ReplicaExtent {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    bool zero = false;
};

struct ReplicaReaderStats {
    uint64_t shards_loaded = 0;
    uint64_t extents_loaded = 0;
    uint64_t chunks_decoded = 0;
    uint64_t chunks_prefetched = 0;
    uint64_t segments_behind = 0;  // opened beyond the manifest
};

// One disk. Any thread may call. Keeps its reader alive.
class ReplicaDisk {
  public:
    virtual ~ReplicaDisk() = default;
    virtual DiskIndex index() const = 0;
    virtual uint64_t size_bytes() const = 0;
    // All of it or an error. kInvalidArgument past the end; errors of the store; kCorrupt,
    // kTruncated, kWrongKey of what is read.
    virtual Status read(uint64_t offset_bytes, MutableByteView out) = 0;
    // Pieces that cover [offset, offset + length) in order, neighbours of one kind joined.
    virtual Result<std::vector<ReplicaExtent>> extents(uint64_t offset_bytes,
                                                       uint64_t length_bytes) = 0;
};

// Any thread may call. Borrows the store.
class ReplicaReader {
  public:
    // kPointNotFound (newer than what is stored, or nothing is stored), kPointOutsideWindow (names
    // the window), kPointInGap (names the good neighbours), kCorrupt, kTruncated, kWrongKey,
    // kForeignStore, kNewerVersion, errors of the store. A manifest that cannot be read is passed
    // over for an older one where one serves.
    static Result<std::shared_ptr<ReplicaReader>> open(ObjectStore& store, const ItemId& item,
                                                       const Secret& item_key, Sequence sequence,
                                                       ReplicaReaderOptions options = {});
    virtual ~ReplicaReader() = default;
    virtual Sequence sequence() const = 0;
    virtual TimePoint time() const = 0;
    // Those that join, too.
    virtual const std::vector<DiskSize>& disks() const = 0;
    // kNotFound when the machine had no such disk, or it was not copied yet.
    virtual Result<std::shared_ptr<ReplicaDisk>> disk(DiskIndex index) = 0;
    // Points and gaps of the window up to sequence(), as far as the store tells.
    virtual const std::vector<PointRow>& points() const = 0;
    virtual const std::vector<GapRow>& gaps() const = 0;
    virtual ReplicaReaderStats stats() const = 0;
};

}  // namespace farshore
