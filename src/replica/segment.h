// The segment: a run of an item's records as one sealed, write-once object, and the base object,
// which has the same layout and holds what compaction carried over. Bytes: docs/format/segment.md.
//
// Payload is addressed by its position in the concatenation of the payloads of the segment's WRITE
// records, in order. That stream is cut into chunks of kChunkBytes (the last is shorter), each
// compressed and sealed on its own: chunk = position / kChunkBytes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"
#include "codec/compress.h"
#include "record/record.h"

namespace farshore {

inline constexpr uint32_t kChunkBytes = 64u << 10;
inline constexpr uint32_t kMaxSegmentPayloadBytes = 32u << 20;

enum class SegmentKind : uint8_t { kLog = 1, kBase = 2 };
// kAuto: an entropy probe picks raw or zstd; in haste lz4 instead of zstd.
enum class ChunkCodec : uint8_t { kRaw = 0, kZstd = 1, kLz4 = 2 };

struct SegmentHeader {
    SegmentKind kind = SegmentKind::kLog;
    ItemId item;
    Epoch epoch;
    SegmentNumber number;
    Sequence first, last;
    TimePoint first_time, last_time;
    Digest previous_header{};
    // Filled in by the writer:
    uint64_t payload_bytes = 0;
    uint32_t record_count = 0;
    uint32_t chunk_count = 0;
    uint64_t object_bytes = 0;
    Digest header_hash{};  // SHA-256 of the encoded header
};

// One record as the index keeps it. For kWrite, payload_position is where its payload starts in the
// payload stream; for kPoint the label is `label`.
struct IndexEntry {
    RecordKind kind = RecordKind::kWrite;
    uint8_t flags = 0;
    DiskIndex disk = 0;
    Sequence sequence;
    TimePoint time;
    uint64_t offset_bytes = 0;
    uint32_t length_bytes = 0;
    uint32_t payload_position = 0;
    std::string label;
};

// items/<item>/log/<number:016x>-<epoch:016x>.seg, or .../base/<number>-<epoch>.base
std::string segment_object_name(const SegmentHeader& header);

struct BuiltSegment {
    SegmentHeader header;
    Bytes object;  // the whole object, ready to put
};

// Collects records, then compresses and seals them. One thread at a time.
class SegmentWriter {
  public:
    SegmentWriter();
    ~SegmentWriter();
    // Appends encoded records (their checksums are verified; kCorrupt). Records must be in
    // sequence. Payload is copied. kTooLarge when payload would pass kMaxSegmentPayloadBytes: build
    // first.
    Status add(ByteView records);
    uint64_t payload_bytes() const;
    uint32_t record_count() const;
    bool empty() const;
    Sequence last() const;

    struct BuildOptions {
        SegmentKind kind = SegmentKind::kLog;
        ItemId item;
        Epoch epoch;
        SegmentNumber number;
        Digest previous_header{};
        const Secret* item_key = nullptr;  // 32 bytes, borrowed for the call
        Random* random = nullptr;
        Haste haste = Haste::kNone;
        // Runs n independent jobs, possibly in parallel; null runs them inline.
        std::function<void(size_t n, const std::function<void(size_t)>&)> parallel_for;
    };
    // Seals what was added and clears the writer.
    Result<BuiltSegment> build(const BuildOptions& options);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// An opened segment: verified header, decrypted index, and ranged reads of the payload. Immutable
// after open; any thread may call.
class ObjectStore;
class SegmentReader {
  public:
    // Reads header and index with one or two ranged gets. kCorrupt, kTruncated, kWrongKey,
    // kForeignStore (other item), kNewerVersion.
    static Result<std::shared_ptr<SegmentReader>> open(ObjectStore& store, const std::string& name,
                                                       const ItemId& item, const Secret& item_key);
    virtual ~SegmentReader() = default;
    virtual const SegmentHeader& header() const = 0;
    virtual const std::vector<IndexEntry>& index() const = 0;
    // For each chunk whether more than this part of it is left after compression.
    virtual std::vector<bool> dense_chunks(uint32_t percent) const = 0;
    // Drops the decoded index entries to save memory; index() is empty afterwards.
    virtual void forget_index() = 0;
    // One decrypted, decompressed chunk. The caller caches.
    virtual Result<Bytes> read_chunk(ObjectStore& store, uint32_t chunk) const = 0;
    // Whole object against every checksum and tag it has.
    virtual Status verify_all(ObjectStore& store) const = 0;
};

}  // namespace farshore
