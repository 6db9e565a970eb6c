// Makes manifests: a newer one from an older one and the segments between, and the same one again
// after payload moved into base objects. Puts shard and base objects; the caller puts nothing
// itself and commits what comes back. Internal to item_replica.cc. One thread at a time.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "replica/checkpoint.h"
#include "replica/log_walk.h"
#include "replica/manifest.h"
#include "replica/replica_reader.h"
#include "store/object_store.h"

namespace farshore {

// Where a piece of an object's payload went.
struct PayloadMove {
    uint32_t position = 0, length = 0;
    ObjectRef object;
    uint32_t new_position = 0;
};
// By object, each one's by position.
using PayloadMoves = std::map<ObjectRef, std::vector<PayloadMove>>;
inline bool refers_to(const Manifest& manifest, const PayloadMoves& moves) {
    return std::ranges::any_of(manifest.objects,
                               [&](const LiveObject& o) { return moves.contains(o.object); });
}

class ManifestBuilder {
  public:
    ManifestBuilder(ObjectStore& store, const ItemId& item, const Secret& key, Random& random,
                    ParallelFor parallel)
        : store_(store), item_(item), key_(key), random_(random), parallel_(std::move(parallel)) {}

    // Puts the shards that `segments` (all those behind `from`, in order) change, and returns the
    // manifest at the last of them. Not put yet: the caller may set the window first. An empty
    // `from` (sequence 0) is the state before the log. What comes after the record `last` is left
    // out: then nothing can be extended from what comes back, it is a kept point's.
    Result<Manifest> extend(const Manifest& from, const std::vector<SegmentRow>& segments,
                            Generation generation, Sequence last = {UINT64_MAX});

    using Moved = PayloadMove;
    using Moves = PayloadMoves;
    // What some manifests need of some objects, taken up one manifest after the other.
    class Needed {
      public:
        explicit Needed(const std::vector<LiveObject>& objects);
        // Shards that one of the last two manifests had are not read again. What `lasts` (the first
        // one's) comes into base objects of its own: what only kept points need goes earlier.
        Status add(ManifestBuilder& builder, const Manifest& manifest, bool lasts);
        // Of one object, once all are there.
        uint64_t live_bytes(const ObjectRef& object) const;
        void leave_out(const ObjectRef& object) { pieces_.erase(object); }
        bool empty() const { return pieces_.empty(); }
        size_t objects() const { return pieces_.size(); }

      private:
        friend class ManifestBuilder;
        struct Piece {
            uint32_t position = 0, length = 0;
            DiskIndex disk = 0;
            uint64_t offset = 0;
            bool lasts = false;
        };
        std::map<ObjectRef, std::map<uint32_t, Piece>> pieces_;  // by position, not overlapping
        std::set<std::string> seen_, seen_before_;               // names of shards
    };
    // Copies it into base objects, whose records carry `time`, and puts those: so much at a time as
    // `memory_bytes` holds, in the order of the objects; what is copied at a time lies in the order
    // of the disk. `reserve` gives each a generation.
    Result<Moves> move_payload(const Needed& needed, uint64_t memory_bytes, TimePoint time,
                               Epoch vault, const std::function<Result<uint64_t>()>& reserve);
    // The same manifest, referring to where payload went. Its new shards carry `generation`.
    Result<Manifest> relocate(const Manifest& manifest, const Moves& moves, Generation generation);

    // The same manifest with the content of some shards put again, as another replica of the item
    // has it; what they referred to is not read. Its new shards and base objects carry `vault` and
    // a generation that `reserve` gives.
    using ShardSet = std::set<std::pair<DiskIndex, uint32_t>>;
    Result<Manifest> restate(const Manifest& manifest, const ShardSet& shards, ReplicaReader& from,
                             Epoch vault, const std::function<Result<uint64_t>()>& reserve);

    // Seals and puts it under its name, that of a kept one.
    Status put(const Manifest& manifest);
    Status put_kept(const Manifest& manifest);
    // What relocate() remembers of shards that `manifest` has not is forgotten.
    void forget_shards_but(const Manifest& manifest);
    Result<ShardContent> load_shard(const ShardRef& ref);
    // Of everything put so far.
    uint64_t put_bytes() const { return put_bytes_; }
    uint64_t moved_bytes() const { return moved_bytes_; }

  private:
    struct MovingPiece;
    Status put_object(const std::string& name, ByteView object);
    Status read_pieces(std::vector<MovingPiece>& pieces);
    // What is copied is added to `moves`, not yet sorted.
    Status write_pieces(std::vector<MovingPiece>& pieces, TimePoint time, Epoch vault,
                        const std::function<Result<uint64_t>()>& reserve, Moves& moves);
    // What an old shard became, for manifests that share it.
    struct Relocated {
        bool changed = false;
        ShardRef ref;
        std::vector<ShardContent::Object> before, after;
    };

    ObjectStore& store_;
    const ItemId item_;
    const Secret& key_;
    Random& random_;
    ParallelFor parallel_;
    std::map<ObjectRef, uint64_t> base_payload_;  // of the base objects made by move_payload
    std::map<std::string, Relocated> relocated_;  // by the old shard's name
    uint64_t put_bytes_ = 0;
    uint64_t moved_bytes_ = 0;
};

}  // namespace farshore
