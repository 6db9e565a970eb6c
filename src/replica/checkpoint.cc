#include "replica/checkpoint.h"

#include <fmt/core.h>

#include <map>
#include <unordered_map>

#include "replica/compact.h"
#include "replica/sealed_object.h"

namespace farshore {

Result<Bytes> encode_shard(const ItemId& item, const ShardRef& shard, const ExtentMap& map,
                           const std::function<ObjectRef(uint32_t)>& name_object,
                           const Secret& item_key, Random& random,
                           std::vector<ShardContent::Object>* objects_out) {
    std::unordered_map<uint32_t, uint64_t> live;
    map.for_each([&](const Extent& e) { live[e.object] += e.length; });
    std::map<ObjectRef, uint32_t> by_ref;
    for (const auto& [object, bytes] : live) by_ref.emplace(name_object(object), object);
    std::unordered_map<uint32_t, uint32_t> index_of;
    std::vector<ShardContent::Object> objects;
    for (const auto& [ref, object] : by_ref) {
        index_of[object] = static_cast<uint32_t>(objects.size());
        objects.push_back({ref, live[object]});
    }

    Bytes body;
    body.reserve(64 + objects.size() * 16 + map.size() * 10);
    CompactWriter out(body);
    out.number(shard.disk);
    out.number(shard.shard);
    out.number(objects.size());
    for (const auto& object : objects) {
        out.number(static_cast<uint64_t>(object.ref.kind));
        out.number(object.ref.number.v);
        out.number(object.ref.epoch.v);
        out.number(object.live_bytes);
    }
    out.number(map.size());
    // Positions are coded against where the object's extent before this one ended: guests write
    // in order more often than not.
    std::vector<uint32_t> ends(objects.size());
    uint32_t at = 0;
    map.for_each([&](const Extent& e) {
        const uint32_t index = index_of[e.object];
        out.number(e.start - at);
        out.number(e.length);
        out.number(index);
        out.signed_number(static_cast<int64_t>(e.position) - ends[index]);
        ends[index] = e.position + e.length;
        at = e.end();
    });
    if (objects_out != nullptr) *objects_out = std::move(objects);
    return seal_object(kShardMagic, shard_name(item, shard), item, body, item_key, random);
}

Result<ShardContent> decode_shard_body(ByteView body, DiskIndex disk, uint32_t shard) {
    ShardContent content;
    CompactReader in(body, "checkpoint");
    const auto malformed = [](const char* what) {
        return fail(Code::kMalformed, std::string("checkpoint: ") + what);
    };
    FS_ASSIGN(const uint64_t own_disk, in.number());
    FS_ASSIGN(const uint64_t own_shard, in.number());
    if (own_disk != disk || own_shard != shard) return malformed("it is of another shard");
    FS_ASSIGN(const size_t objects, in.count(4));
    content.objects.reserve(objects);
    for (size_t i = 0; i < objects; ++i) {
        ShardContent::Object object;
        FS_ASSIGN(const uint64_t kind, in.number());
        if (kind != 1 && kind != 2) return malformed("unknown kind of object");
        object.ref.kind = static_cast<SegmentKind>(kind);
        FS_ASSIGN(object.ref.number.v, in.number());
        FS_ASSIGN(object.ref.epoch.v, in.number());
        FS_ASSIGN(object.live_bytes, in.number(kShardBytes));
        if (!content.objects.empty() && content.objects.back().ref >= object.ref)
            return malformed("its objects are not in order");
        content.objects.push_back(object);
    }
    FS_ASSIGN(const size_t extents, in.count(4));
    std::vector<uint32_t> ends(objects);
    std::vector<uint64_t> live(objects);
    uint64_t at = 0;
    for (size_t i = 0; i < extents; ++i) {
        FS_ASSIGN(const uint64_t skip, in.number(kShardBytes - at));
        at += skip;
        FS_ASSIGN(const uint64_t length, in.number(kShardBytes - at));
        if (objects == 0 || length == 0) return malformed("an empty extent");
        FS_ASSIGN(const uint64_t object, in.number(objects - 1));
        FS_ASSIGN(const int64_t moved, in.signed_number());
        // The range is checked before the sum, so that it cannot overflow.
        if (moved < -int64_t{UINT32_MAX} || moved > int64_t{UINT32_MAX})
            return malformed("a position is out of range");
        const int64_t position = int64_t{ends[object]} + moved;
        if (position < 0 || static_cast<uint64_t>(position) + length > kMaxSegmentPayloadBytes)
            return malformed("a position is out of range");
        content.map.append({static_cast<uint32_t>(at), static_cast<uint32_t>(length),
                            static_cast<uint32_t>(object), static_cast<uint32_t>(position)});
        ends[object] = static_cast<uint32_t>(position + static_cast<int64_t>(length));
        live[object] += length;
        at += length;
    }
    FS_TRY(in.finish());
    for (size_t i = 0; i < objects; ++i) {
        if (live[i] != content.objects[i].live_bytes)
            return malformed("its extents are not those that it counts");
    }
    return content;
}

Result<ShardContent> decode_shard(const ItemId& item, const ShardRef& shard, ByteView object,
                                  const Secret& item_key) {
    const std::string name = shard_name(item, shard);
    FS_ASSIGN(const Bytes body, open_object(kShardMagic, name, item, object, item_key));
    auto content = decode_shard_body(body, shard.disk, shard.shard);
    if (!content) return fail(content.error().with_context(name));
    return content;
}

}  // namespace farshore
