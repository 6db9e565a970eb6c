// Makes manifests: a newer one from an older one and the segments between, and the same one again
// after payload moved into base objects. Puts shard and base objects; the caller puts nothing
// itself and commits what comes back. Internal to item_replica.cc. One thread at a time.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "replica/checkpoint.h"
#include "replica/log_walk.h"
#include "replica/manifest.h"
#include "store/object_store.h"

namespace farshore {

class ManifestBuilder {
  public:
    ManifestBuilder(ObjectStore& store, const ItemId& item, const Secret& key, Random& random,
                    ParallelFor parallel)
        : store_(store), item_(item), key_(key), random_(random), parallel_(std::move(parallel)) {}

    // Puts the shards that `segments` (all those behind `from`, in order) change, and returns the
    // manifest at the last of them. Not put yet: the caller may set the window first. An empty
    // `from` (sequence 0) is the state before the log.
    Result<Manifest> extend(const Manifest& from, const std::vector<SegmentRow>& segments,
                            Generation generation);

    // Where payload went. Object -> pieces by position.
    struct Moved {
        uint32_t position = 0, length = 0;
        ObjectRef object;
        uint32_t new_position = 0;
    };
    using Moves = std::map<ObjectRef, std::vector<Moved>>;
    // Copies what `manifest` needs of `objects` into base objects and puts those. `reserve` gives
    // each a generation.
    Result<Moves> move_payload(const Manifest& manifest, const std::vector<LiveObject>& objects,
                               Epoch vault, const std::function<Result<uint64_t>()>& reserve);
    // The same manifest, referring to where payload went. Its new shards carry `generation`.
    Result<Manifest> relocate(const Manifest& manifest, const Moves& moves, Generation generation);

    // Seals and puts it under its name.
    Status put(const Manifest& manifest);
    Result<ShardContent> load_shard(const ShardRef& ref);
    // Of everything put so far.
    uint64_t put_bytes() const { return put_bytes_; }
    uint64_t moved_bytes() const { return moved_bytes_; }

  private:
    Status put_object(const std::string& name, ByteView object);
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
