// Decoded chunks of segments and base objects, shared by all readers of a process: least recently
// used go first when `capacity_bytes` is passed. Any thread may call; 8 shards, each with its own
// lock and its own part of the capacity.
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "replica/manifest.h"

namespace farshore {

struct ChunkKey {
    ItemId item;
    ObjectRef object;
    uint32_t chunk = 0;
    friend bool operator==(const ChunkKey&, const ChunkKey&) = default;
};

class ChunkCache {
  public:
    explicit ChunkCache(size_t capacity_bytes);
    ~ChunkCache();
    // Null when it is not there.
    SharedBytes find(const ChunkKey& key);
    void insert(const ChunkKey& key, SharedBytes chunk);
    size_t size_bytes() const;

  private:
    struct Shard;
    static constexpr size_t kShards = 8;
    Shard& shard_of(const ChunkKey& key, size_t& hash) const;
    std::unique_ptr<Shard[]> shards_;
    size_t shard_capacity_bytes_;
};

}  // namespace farshore
