#include "replica/manifest.h"

#include <fmt/core.h>

#include "replica/compact.h"
#include "replica/extent_map.h"
#include "replica/sealed_object.h"

namespace farshore {
namespace {

constexpr size_t kMaxNameBytes = 512;
// Added to the index of a disk that joins.
constexpr uint64_t kJoiningMark = kMaxDisks;

// Exactly `digits` lower-case hexadecimal digits at the start of `text`, which they are cut off.
std::optional<uint64_t> take_hex(std::string_view& text, size_t digits) {
    if (text.size() < digits) return std::nullopt;
    uint64_t v = 0;
    for (size_t i = 0; i < digits; ++i) {
        const char c = text[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | static_cast<uint64_t>(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | static_cast<uint64_t>(c - 'a' + 10);
        else
            return std::nullopt;
    }
    text.remove_prefix(digits);
    return v;
}

bool take(std::string_view& text, std::string_view expected) {
    if (!text.starts_with(expected)) return false;
    text.remove_prefix(expected.size());
    return true;
}

void write_ref(CompactWriter& out, const ObjectRef& ref) {
    out.number(static_cast<uint64_t>(ref.kind));
    out.number(ref.number.v);
    out.number(ref.epoch.v);
}

}  // namespace

std::string item_prefix(const ItemId& item) { return "items/" + item.to_string() + "/"; }
std::string log_prefix(const ItemId& item) { return item_prefix(item) + "log/"; }
std::string base_prefix(const ItemId& item) { return item_prefix(item) + "base/"; }
std::string shard_prefix(const ItemId& item) { return item_prefix(item) + "shard/"; }
std::string manifest_prefix(const ItemId& item) { return item_prefix(item) + "manifest/"; }
std::string kept_prefix(const ItemId& item) { return item_prefix(item) + "kept/"; }

std::string object_name(const ItemId& item, const ObjectRef& object) {
    SegmentHeader header;
    header.kind = object.kind;
    header.item = item;
    header.number = object.number;
    header.epoch = object.epoch;
    return segment_object_name(header);
}

std::string shard_name(const ItemId& item, const ShardRef& shard) {
    return fmt::format("{}{:04x}-{:08x}-{:016x}-{:016x}.shard", shard_prefix(item), shard.disk,
                       shard.shard, shard.generation.vault.v, shard.generation.number);
}

namespace {

std::string name_below(const std::string& prefix, Sequence sequence, const Generation& generation) {
    return fmt::format("{}{:016x}-{:016x}-{:016x}.manifest", prefix, sequence.v, generation.vault.v,
                       generation.number);
}

std::optional<ManifestName> parse_below(const std::string& prefix, std::string_view name) {
    if (!take(name, prefix)) return std::nullopt;
    const auto sequence = take_hex(name, 16);
    if (!sequence || !take(name, "-")) return std::nullopt;
    const auto vault = take_hex(name, 16);
    if (!vault || !take(name, "-")) return std::nullopt;
    const auto number = take_hex(name, 16);
    if (!number || name != ".manifest") return std::nullopt;
    return ManifestName{{*sequence}, {{*vault}, *number}};
}

}  // namespace

std::string manifest_name(const ItemId& item, Sequence sequence, const Generation& generation) {
    return name_below(manifest_prefix(item), sequence, generation);
}

std::string kept_name(const ItemId& item, Sequence sequence, const Generation& generation) {
    return name_below(kept_prefix(item), sequence, generation);
}

std::string kept_name_prefix(const ItemId& item, Sequence sequence) {
    return fmt::format("{}{:016x}-", kept_prefix(item), sequence.v);
}

std::optional<ObjectRef> parse_object_name(const ItemId& item, std::string_view name) {
    ObjectRef ref;
    if (take(name, log_prefix(item)))
        ref.kind = SegmentKind::kLog;
    else if (take(name, base_prefix(item)))
        ref.kind = SegmentKind::kBase;
    else
        return std::nullopt;
    const auto number = take_hex(name, 16);
    if (!number || !take(name, "-")) return std::nullopt;
    const auto epoch = take_hex(name, 16);
    if (!epoch || name != (ref.kind == SegmentKind::kLog ? ".seg" : ".base")) return std::nullopt;
    ref.number.v = *number;
    ref.epoch.v = *epoch;
    return ref;
}

std::optional<ManifestName> parse_manifest_name(const ItemId& item, std::string_view name) {
    return parse_below(manifest_prefix(item), name);
}

std::optional<ManifestName> parse_kept_name(const ItemId& item, std::string_view name) {
    return parse_below(kept_prefix(item), name);
}

std::optional<ShardRef> parse_shard_name(const ItemId& item, std::string_view name) {
    if (!take(name, shard_prefix(item))) return std::nullopt;
    const auto disk = take_hex(name, 4);
    if (!disk || !take(name, "-")) return std::nullopt;
    const auto shard = take_hex(name, 8);
    if (!shard || !take(name, "-")) return std::nullopt;
    const auto vault = take_hex(name, 16);
    if (!vault || !take(name, "-")) return std::nullopt;
    const auto number = take_hex(name, 16);
    if (!number || name != ".shard") return std::nullopt;
    return ShardRef{
        static_cast<DiskIndex>(*disk), static_cast<uint32_t>(*shard), {{*vault}, *number}, 0};
}

std::string after_segment(const ItemId& item, SegmentNumber number) {
    // '.' and the digits of an epoch come after '-', and before 'g'.
    return fmt::format("{}{:016x}-g", log_prefix(item), number.v);
}

Result<Bytes> encode_manifest(const ItemId& item, const Manifest& m, const Secret& item_key,
                              Random& random, bool kept) {
    Bytes body;
    CompactWriter out(body);
    out.number(m.sequence.v);
    out.signed_number(m.time.us);
    out.number(m.generation.vault.v);
    out.number(m.generation.number);
    out.number(m.segment.v);
    out.number(m.segment_epoch.v);
    out.bytes(m.segment_header);
    out.number(m.floor.v);
    out.number(m.floor_segment.v);
    out.signed_number(m.floor_time.us);
    out.number(m.written_bytes);
    out.text(m.previous);
    out.number(m.disks.size());
    for (const DiskSize& disk : m.disks) {
        out.number(disk.disk + (disk.joining ? kJoiningMark : 0));
        out.number(disk.size_bytes);
    }
    out.number(m.shards.size());
    for (const ShardRef& shard : m.shards) {
        out.number(shard.disk);
        out.number(shard.shard);
        out.number(shard.generation.vault.v);
        out.number(shard.generation.number);
        out.number(shard.object_bytes);
    }
    out.number(m.objects.size());
    for (const LiveObject& object : m.objects) {
        write_ref(out, object.object);
        out.number(object.live_bytes);
        out.number(object.payload_bytes);
    }
    out.number(m.points.size());
    uint64_t sequence = 0;
    int64_t time = 0;
    for (const PointRow& point : m.points) {
        out.number(point.sequence.v - sequence);
        out.number(static_cast<uint64_t>(point.kind));
        out.signed_number(point.time.us - time);
        out.text(point.label);
        sequence = point.sequence.v;
        time = point.time.us;
    }
    out.number(m.gaps.size());
    for (const GapRow& gap : m.gaps) {
        out.number(gap.last_good.v);
        out.number(gap.gap.v);
        out.number(gap.resynced.v);
        out.signed_number(gap.last_good_time.us);
        out.signed_number(gap.resynced_time.us);
    }
    const std::string name = kept ? kept_name(item, m.sequence, m.generation)
                                  : manifest_name(item, m.sequence, m.generation);
    return seal_object(kManifestMagic, name, item, body, item_key, random);
}

Result<Manifest> decode_manifest_body(ByteView body) {
    Manifest m;
    CompactReader in(body, "manifest");
    const auto malformed = [](const char* what) {
        return fail(Code::kMalformed, std::string("manifest: ") + what);
    };
    FS_ASSIGN(m.sequence.v, in.number());
    FS_ASSIGN(m.time.us, in.signed_number());
    FS_ASSIGN(m.generation.vault.v, in.number());
    FS_ASSIGN(m.generation.number, in.number());
    FS_ASSIGN(m.segment.v, in.number());
    FS_ASSIGN(m.segment_epoch.v, in.number());
    FS_ASSIGN(const ByteView digest, in.bytes(m.segment_header.size()));
    std::copy(digest.begin(), digest.end(), m.segment_header.begin());
    FS_ASSIGN(m.floor.v, in.number(m.sequence.v));
    FS_ASSIGN(m.floor_segment.v, in.number(m.segment.v));
    FS_ASSIGN(m.floor_time.us, in.signed_number());
    FS_ASSIGN(m.written_bytes, in.number());
    FS_ASSIGN(m.previous, in.text(kMaxNameBytes));

    FS_ASSIGN(const size_t disks, in.count(2));
    for (size_t i = 0; i < disks; ++i) {
        DiskSize disk;
        FS_ASSIGN(const uint64_t index, in.number(kJoiningMark + kMaxDisks - 1));
        disk.joining = index >= kJoiningMark;
        disk.disk = static_cast<DiskIndex>(index % kJoiningMark);
        FS_ASSIGN(disk.size_bytes, in.number(kMaxDiskBytes));
        if (!m.disks.empty() && m.disks.back().disk >= disk.disk)
            return malformed("its disks are not in order");
        m.disks.push_back(disk);
    }
    FS_ASSIGN(const size_t shards, in.count(5));
    m.shards.reserve(shards);
    for (size_t i = 0; i < shards; ++i) {
        ShardRef shard;
        FS_ASSIGN(const uint64_t disk, in.number(kMaxDisks - 1));
        shard.disk = static_cast<DiskIndex>(disk);
        FS_ASSIGN(const uint64_t index, in.number(kMaxDiskBytes / kShardBytes - 1));
        shard.shard = static_cast<uint32_t>(index);
        FS_ASSIGN(shard.generation.vault.v, in.number());
        FS_ASSIGN(shard.generation.number, in.number());
        FS_ASSIGN(shard.object_bytes, in.number());
        if (!m.shards.empty() && std::pair(m.shards.back().disk, m.shards.back().shard) >=
                                     std::pair(shard.disk, shard.shard))
            return malformed("its shards are not in order");
        m.shards.push_back(shard);
    }
    FS_ASSIGN(const size_t objects, in.count(5));
    m.objects.reserve(objects);
    for (size_t i = 0; i < objects; ++i) {
        LiveObject object;
        FS_ASSIGN(const uint64_t kind, in.number());
        if (kind != 1 && kind != 2) return malformed("unknown kind of object");
        object.object.kind = static_cast<SegmentKind>(kind);
        FS_ASSIGN(object.object.number.v, in.number());
        FS_ASSIGN(object.object.epoch.v, in.number());
        FS_ASSIGN(object.live_bytes, in.number());
        FS_ASSIGN(object.payload_bytes, in.number(kMaxSegmentPayloadBytes));
        if (!m.objects.empty() && m.objects.back().object >= object.object)
            return malformed("its objects are not in order");
        m.objects.push_back(object);
    }
    FS_ASSIGN(const size_t points, in.count(4));
    m.points.reserve(points);
    PointRow point;
    for (size_t i = 0; i < points; ++i) {
        FS_ASSIGN(const uint64_t more, in.number(m.sequence.v - point.sequence.v));
        if (more == 0 && i > 0) return malformed("its points are not in order");
        point.sequence.v += more;
        FS_ASSIGN(const uint64_t kind, in.number());
        if (kind < 1 || kind > 3) return malformed("unknown kind of point");
        point.kind = static_cast<PointKind>(kind);
        FS_ASSIGN(const int64_t later, in.signed_number());
        point.time.us = static_cast<int64_t>(static_cast<uint64_t>(point.time.us) +
                                             static_cast<uint64_t>(later));
        FS_ASSIGN(point.label, in.text(kMaxLabelBytes));
        m.points.push_back(point);
    }
    FS_ASSIGN(const size_t gaps, in.count(5));
    for (size_t i = 0; i < gaps; ++i) {
        GapRow gap;
        FS_ASSIGN(gap.last_good.v, in.number(m.sequence.v));
        FS_ASSIGN(gap.gap.v, in.number(m.sequence.v));
        FS_ASSIGN(gap.resynced.v, in.number(m.sequence.v));
        FS_ASSIGN(gap.last_good_time.us, in.signed_number());
        FS_ASSIGN(gap.resynced_time.us, in.signed_number());
        if (gap.gap <= gap.last_good || (!gap.open() && gap.resynced <= gap.gap))
            return malformed("a gap ends before it starts");
        if (!m.gaps.empty() && (m.gaps.back().open() || m.gaps.back().resynced > gap.last_good))
            return malformed("its gaps are not in order");
        m.gaps.push_back(gap);
    }
    FS_TRY(in.finish());
    return m;
}

Result<Manifest> decode_manifest(const ItemId& item, const std::string& name, ByteView object,
                                 const Secret& item_key) {
    FS_ASSIGN(const Bytes body, open_object(kManifestMagic, name, item, object, item_key));
    auto manifest = decode_manifest_body(body);
    if (!manifest) return fail(manifest.error().with_context(name));
    if (manifest_name(item, manifest->sequence, manifest->generation) != name &&
        kept_name(item, manifest->sequence, manifest->generation) != name)
        return fail(Code::kMalformed, name + " holds a manifest of another name");
    return manifest;
}

}  // namespace farshore
