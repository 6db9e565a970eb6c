// The objects of a store, decoded as docs/format/ says. Internal to src/extract. Values; any
// thread.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"
#include "codec/compress.h"
#include "codec/envelope.h"
#include "extract/store_reader.h"

namespace farshore::extraction {

inline constexpr uint64_t kChunk = 65536;
inline constexpr uint64_t kShard = 1ull << 30;

// Kinds of records, docs/format/record.md.
enum : uint8_t {
    kWriteRecord = 1,
    kZeroRecord = 2,
    kDiscardRecord = 3,
    kPointRecord = 6,
    kGapRecord = 7,
    kResyncedRecord = 8,
    kGeometryRecord = 9,
};
inline constexpr uint8_t kJoiningFlag = 1;  // of a geometry record

// Fails unless it is a store of a format that is known.
Status check_store(const StoreReader& store);

struct ItemDescription {
    ItemId item;
    std::string name;
    std::string key_id;
    Bytes wrapped_key;                                  // empty: its key is in objects of its own
    std::vector<std::pair<DiskIndex, uint64_t>> disks;  // and their sizes
};
Result<ItemDescription> decode_item(ByteView object, const ItemId& item);

// A log segment (kind 1) or a base object (kind 2).
struct Ref {
    uint8_t kind = 1;
    uint64_t number = 0;
    uint64_t epoch = 0;
    friend auto operator<=>(const Ref&, const Ref&) = default;
};
std::string segment_name(const ItemId& item, const Ref& ref);
// Of a file in log/ or base/; false when it is none.
bool parse_segment_name(std::string_view file, uint8_t kind, Ref& ref);
// What a right to append left before it was given: names.md §3.
struct Lease {
    uint64_t epoch = 0;
    uint64_t start = 0;   // number of its first segment
    uint64_t before = 0;  // epoch of the segment before that; 0: there is none
};
// Of a file in lease/.
bool parse_lease_name(std::string_view file, Lease& lease);
// Takes from `refs`, the segments of one number, those that are not of the log. `leases`: the
// newest first.
void keep_owned(const std::vector<Lease>& leases, uint64_t number, std::vector<Ref>& refs);
// Those that tell whose numbers are whose, of all that are there; the newest first.
std::vector<Lease> leases_that_count(std::vector<Lease> leases);
// So many numbers behind a hole say that what is missing there was of the log.
inline constexpr uint64_t kSegmentsAhead = 8;

// Of a file in key/.
bool parse_key_name(std::string_view file, uint64_t& generation, uint64_t& vault);

struct Entry {
    uint8_t kind = 0, flags = 0;
    DiskIndex disk = 0;
    uint64_t sequence = 0;
    int64_t time_us = 0;
    uint64_t offset = 0;
    uint32_t length = 0;
    uint32_t position = 0;
    std::string label;
};

struct Segment {
    std::string name;
    Ref ref;
    ItemId item;
    uint64_t first = 0, last = 0;
    int64_t first_time_us = 0, last_time_us = 0;
    Digest previous{}, digest{};
    uint64_t payload_bytes = 0, object_bytes = 0;
    std::vector<Entry> entries;
    struct Chunk {
        Compression codec;
        uint32_t packed_bytes;
        uint64_t at;  // in the object
    };
    std::vector<Chunk> chunks;
    Secret data_key;
};
// Header and index of a segment; `front` holds at least those.
Result<Segment> decode_segment(ByteView front, const std::string& name, const ItemId& item,
                               const Secret& item_key);
// How many bytes decode_segment() needs, from the first 320.
Result<uint64_t> segment_front_bytes(ByteView header);
Result<std::vector<Entry>> decode_index(ByteView plain, uint32_t records, size_t chunks,
                                        Segment& segment);
Result<Segment> open_segment(const StoreReader& store, const ItemId& item, const Ref& ref,
                             const Secret& item_key);

// The payload of one segment, read front to back or anyhow; keeps the last chunk.
class PayloadReader {
  public:
    PayloadReader(const StoreReader& store, const Segment& segment)
        : store_(store), segment_(segment) {}
    // Calls `sink` with the bytes of [position, position + length) in pieces, in order.
    Status read(uint64_t position, uint64_t length,
                const std::function<Status(ByteView piece)>& sink);

  private:
    Status load(size_t chunk);
    const StoreReader& store_;
    const Segment& segment_;
    size_t loaded_ = SIZE_MAX;
    Bytes plain_;
};

struct Gap {
    uint64_t last_good = 0, gap = 0, resynced = 0;
    bool covers(uint64_t s) const { return s > last_good && (resynced == 0 || s < resynced); }
};
struct Point {
    uint64_t sequence = 0;
    int64_t time_us = 0;
    std::string label;
};
struct ManifestName {
    std::string file;
    uint64_t sequence = 0, vault = 0, number = 0;
};
bool parse_manifest_name(std::string_view file, ManifestName& name);

struct ManifestContent {
    ManifestName name;
    uint64_t sequence = 0;
    int64_t time_us = 0;
    uint64_t segment = 0, segment_epoch = 0;
    Digest segment_digest{};
    uint64_t floor = 0, floor_segment = 0;
    int64_t floor_time_us = 0;
    struct DiskState {
        DiskIndex disk = 0;
        uint64_t size_bytes = 0;
        bool joining = false;  // not copied yet
    };
    std::vector<DiskState> disks;
    std::vector<DiskIndex> joining;  // of those, the ones not copied yet
    struct ShardName {
        DiskIndex disk;
        uint32_t shard;
        uint64_t vault, number;
    };
    std::vector<ShardName> shards;
    std::vector<Point> points;
    std::vector<Gap> gaps;
};
Result<ManifestContent> decode_manifest_content(ByteView body);
Result<ManifestContent> open_manifest(const StoreReader& store, const ItemId& item,
                                      const ManifestName& name, const Secret& item_key,
                                      std::string_view folder = "manifest");

struct MapEntry {
    uint64_t offset;  // on the disk
    uint64_t length;
    Ref object;
    uint64_t position;
};
Result<std::vector<MapEntry>> decode_shard_content(ByteView body, DiskIndex disk, uint32_t shard);
Result<std::vector<MapEntry>> open_shard(const StoreReader& store, const ItemId& item,
                                         const ManifestContent::ShardName& shard,
                                         const Secret& item_key);

}  // namespace farshore::extraction
