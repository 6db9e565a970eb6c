// The checkpoint of one shard: its extent map as an immutable, sealed object. Bytes:
// docs/format/manifest.md §3. Any thread may call.
#pragma once

#include <functional>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "replica/extent_map.h"
#include "replica/manifest.h"

namespace farshore {

// An extent map with its own list of objects: Extent::object is an index into `objects`.
struct ShardContent {
    struct Object {
        ObjectRef ref;
        uint64_t live_bytes = 0;  // that this shard's extents cover
        friend bool operator==(const Object&, const Object&) = default;
    };
    std::vector<Object> objects;  // by ref; each is used
    ExtentMap map;
};

// The whole object under shard_name(item, shard). `name_object` says what an Extent::object of
// `map` stands for.
Result<Bytes> encode_shard(const ItemId& item, const ShardRef& shard, const ExtentMap& map,
                           const std::function<ObjectRef(uint32_t)>& name_object,
                           const Secret& item_key, Random& random,
                           std::vector<ShardContent::Object>* objects = nullptr);
// The errors of open_object() and of the body: kTruncated, kMalformed.
Result<ShardContent> decode_shard(const ItemId& item, const ShardRef& shard, ByteView object,
                                  const Secret& item_key);
// The body alone, for the fuzzer.
Result<ShardContent> decode_shard_body(ByteView body, DiskIndex disk, uint32_t shard);

}  // namespace farshore
