// The names of an item's objects, and the manifest: the immutable object that says of one sequence
// of the log where every byte of every disk is. Bytes: docs/format/manifest.md §4.
//
// A manifest stands at a segment's end. It names the checkpoint object of each shard
// (checkpoint.h), the log and base objects that those refer to with what is still needed of them,
// and the points and gaps of the window up to it. The manifest of a kept point is the same under
// another name, at any sequence: no log is behind it, it is its own window. Values; any thread may
// call.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "replica/ledger.h"
#include "replica/segment.h"

namespace farshore {

// A log segment or base object, as maps refer to it.
struct ObjectRef {
    SegmentKind kind = SegmentKind::kLog;
    SegmentNumber number;
    Epoch epoch;
    friend auto operator<=>(const ObjectRef&, const ObjectRef&) = default;
};

// Which writing of a shard or manifest it is: the vault's epoch and its generation number.
struct Generation {
    Epoch vault;
    uint64_t number = 0;
    friend auto operator<=>(const Generation&, const Generation&) = default;
};

struct ShardRef {
    DiskIndex disk = 0;
    uint32_t shard = 0;  // covers [shard, shard + 1) * kShardBytes
    Generation generation;
    uint64_t object_bytes = 0;
    friend bool operator==(const ShardRef&, const ShardRef&) = default;
};

struct LiveObject {
    ObjectRef object;
    uint64_t live_bytes = 0;     // payload that some shard refers to
    uint64_t payload_bytes = 0;  // all of it
    friend bool operator==(const LiveObject&, const LiveObject&) = default;
};

struct Manifest {
    Sequence sequence;  // the last one that it contains
    TimePoint time;
    Generation generation;
    // The segment that ends at `sequence`: where a reader goes on.
    SegmentNumber segment;
    Epoch segment_epoch;
    Digest segment_header{};
    // The window's oldest sequence when this was written. The newest generation's counts.
    Sequence floor;
    SegmentNumber floor_segment;
    TimePoint floor_time;
    uint64_t written_bytes = 0;       // by the guest, up to here
    std::string previous;             // name of the manifest that this was made from; may be gone
    std::vector<DiskSize> disks;      // by disk
    std::vector<ShardRef> shards;     // by disk, shard; those that are not here are all zeroes
    std::vector<LiveObject> objects;  // by object
    std::vector<PointRow> points;     // in [floor, sequence]
    std::vector<GapRow> gaps;  // that end behind the floor, with what was known at `sequence`
};

inline constexpr uint32_t kMaxShards = 1u << 20;

std::string item_prefix(const ItemId& item);  // "items/<item>/"
std::string log_prefix(const ItemId& item);
std::string base_prefix(const ItemId& item);
std::string shard_prefix(const ItemId& item);
std::string manifest_prefix(const ItemId& item);
std::string kept_prefix(const ItemId& item);
std::string object_name(const ItemId& item, const ObjectRef& object);
std::string shard_name(const ItemId& item, const ShardRef& shard);
std::string manifest_name(const ItemId& item, Sequence sequence, const Generation& generation);
std::string kept_name(const ItemId& item, Sequence sequence, const Generation& generation);
// What the names of a sequence's kept manifests start with.
std::string kept_name_prefix(const ItemId& item, Sequence sequence);
// What listing a prefix gives, taken apart; nothing for names that are not of this form.
std::optional<ObjectRef> parse_object_name(const ItemId& item, std::string_view name);
struct ManifestName {
    Sequence sequence;
    Generation generation;
};
std::optional<ManifestName> parse_manifest_name(const ItemId& item, std::string_view name);
std::optional<ManifestName> parse_kept_name(const ItemId& item, std::string_view name);
std::optional<ShardRef> parse_shard_name(const ItemId& item, std::string_view name);
// `after` for ObjectStore::list(log_prefix): all segments with a larger number follow it.
std::string after_segment(const ItemId& item, SegmentNumber number);

// The whole object, sealed for its name: manifest_name(), or kept_name().
Result<Bytes> encode_manifest(const ItemId& item, const Manifest& manifest, const Secret& item_key,
                              Random& random, bool kept = false);
// The errors of open_object() and of the body: kTruncated, kMalformed. The name must be the
// manifest's own.
Result<Manifest> decode_manifest(const ItemId& item, const std::string& name, ByteView object,
                                 const Secret& item_key);
// The body alone, for the fuzzer.
Result<Manifest> decode_manifest_body(ByteView body);

}  // namespace farshore
