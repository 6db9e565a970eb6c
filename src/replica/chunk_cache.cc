#include "replica/chunk_cache.h"

#include <list>
#include <mutex>
#include <unordered_map>

namespace farshore {

namespace {
struct Hash {
    size_t operator()(const ChunkKey& key) const {
        uint64_t h = load_u64(key.item.raw.data());
        for (uint64_t v : {key.object.number.v, key.object.epoch.v,
                           uint64_t{key.chunk} << 8 | static_cast<uint64_t>(key.object.kind)}) {
            h ^= v;
            h *= 0x9e3779b97f4a7c15;
            h ^= h >> 32;
        }
        return h;
    }
};
// What an entry takes beside its bytes: list node, map node, buckets.
constexpr size_t kEntryBytes = 192;
}  // namespace

struct ChunkCache::Shard {
    struct Entry {
        ChunkKey key;
        SharedBytes chunk;
    };
    std::mutex mutex;
    std::list<Entry> recent;  // front: used last
    std::unordered_map<ChunkKey, std::list<Entry>::iterator, Hash> by_key;
    size_t bytes = 0;
};

ChunkCache::ChunkCache(size_t capacity_bytes)
    : shards_(new Shard[kShards]), shard_capacity_bytes_(capacity_bytes / kShards) {}
ChunkCache::~ChunkCache() = default;

ChunkCache::Shard& ChunkCache::shard_of(const ChunkKey& key, size_t& hash) const {
    hash = Hash()(key);
    return shards_[(hash >> 24) % kShards];
}

SharedBytes ChunkCache::find(const ChunkKey& key) {
    size_t hash;
    Shard& shard = shard_of(key, hash);
    std::lock_guard lock(shard.mutex);
    auto it = shard.by_key.find(key);
    if (it == shard.by_key.end()) return nullptr;
    shard.recent.splice(shard.recent.begin(), shard.recent, it->second);
    return it->second->chunk;
}

void ChunkCache::insert(const ChunkKey& key, SharedBytes chunk) {
    size_t hash;
    Shard& shard = shard_of(key, hash);
    std::lock_guard lock(shard.mutex);
    if (shard.by_key.contains(key)) return;
    shard.bytes += chunk->size() + kEntryBytes;
    shard.recent.push_front({key, std::move(chunk)});
    shard.by_key[key] = shard.recent.begin();
    // The newest stays even when it alone is too large, so that one read of many small pieces of
    // a chunk decodes it once.
    while (shard.bytes > shard_capacity_bytes_ && shard.recent.size() > 1) {
        const Shard::Entry& oldest = shard.recent.back();
        shard.bytes -= oldest.chunk->size() + kEntryBytes;
        shard.by_key.erase(oldest.key);
        shard.recent.pop_back();
    }
}

size_t ChunkCache::size_bytes() const {
    size_t out = 0;
    for (size_t i = 0; i < kShards; ++i) {
        std::lock_guard lock(shards_[i].mutex);
        out += shards_[i].bytes;
    }
    return out;
}

}  // namespace farshore
