// The bytes of a segment that writer and reader must agree on: docs/format/segment.md. Internal to
// segment_writer.cc, segment_reader.cc and their tests.
#pragma once

#include <vector>

#include "codec/compress.h"
#include "codec/envelope.h"
#include "replica/segment.h"

namespace farshore::segment_format {

inline constexpr char kMagic[9] = "FARSHSEG";
inline constexpr uint16_t kVersion = 1;
// The rest of the fixed header is reserved and zero.
inline constexpr size_t kHeaderBytes = 320;
// A newer version may have a longer header; its first kPrefixBytes stay as they are.
inline constexpr size_t kPrefixBytes = 16;
inline constexpr size_t kMaxHeaderBytes = 4096;

// Where things stand in the header.
inline constexpr size_t kCrcAt = 8, kVersionAt = 12, kHeaderBytesAt = 14, kKindAt = 16,
                        kChunkBytesAt = 20, kItemAt = 24, kEpochAt = 40, kNumberAt = 48,
                        kFirstAt = 56, kLastAt = 64, kFirstTimeAt = 72, kLastTimeAt = 80,
                        kPreviousAt = 88, kPayloadBytesAt = 120, kObjectBytesAt = 128,
                        kRecordCountAt = 136, kChunkCountAt = 140, kIndexSealedAt = 144,
                        kIndexPlainAt = 148, kIndexCodecAt = 152, kWrappedKeyAt = 160,
                        kBodyDigestAt = 220, kReservedAt = 252;
static_assert(kWrappedKeyAt + kWrappedKeyBytes == kBodyDigestAt);
static_assert(kBodyDigestAt + sizeof(Digest) == kReservedAt && kReservedAt < kHeaderBytes);
// What the index's tag covers of the header: everything from the version to the lengths.
inline constexpr size_t kBoundFrom = kVersionAt, kBoundTo = kWrappedKeyAt;

// Nonces under a data key: the chunk's number, and for the index what no chunk's number can be.
inline constexpr uint64_t kIndexNonce = ~0ull;

inline constexpr uint32_t kMaxRecords = 1u << 20;
inline constexpr uint32_t kMaxIndexBytes = 24u << 20;
inline constexpr uint32_t kMaxChunks = kMaxSegmentPayloadBytes / kChunkBytes;

// The header and what only writer and reader need of it.
struct Header {
    SegmentHeader pub;
    uint32_t index_sealed_bytes = 0;
    uint32_t index_plain_bytes = 0;
    Compression index_codec = Compression::kRaw;
    std::array<uint8_t, kWrappedKeyBytes> wrapped_key{};
    Digest body_digest{};
};

// Exactly kHeaderBytes. header.pub.header_hash is not read: it is the hash of the result.
Bytes encode_header(const Header& header);
// Checks everything that the header alone can show; sets pub.header_hash. kTruncated, kMalformed
// (not a segment), kCorrupt (checksum), kNewerVersion.
Result<Header> decode_header(ByteView object);

// Associated data of the data key's wrapping, and of a chunk. The index's is the header's bound
// part.
Bytes key_associated(const SegmentHeader& header);
struct Chunk {
    Compression codec = Compression::kRaw;
    uint32_t packed_bytes = 0;  // without the tag
};
using ChunkAssociated = std::array<uint8_t, 48>;
ChunkAssociated chunk_associated(const SegmentHeader& header, uint32_t chunk, uint32_t plain_bytes,
                                 const Chunk& packed);
inline ByteView index_associated(ByteView header) {
    return header.subspan(kBoundFrom, kBoundTo - kBoundFrom);
}
inline uint32_t chunk_plain_bytes(uint64_t payload_bytes, uint32_t chunk) {
    const uint64_t from = uint64_t{chunk} * kChunkBytes;
    return static_cast<uint32_t>(std::min<uint64_t>(kChunkBytes, payload_bytes - from));
}

// Appends index entries in their compact coding.
class IndexEncoder {
  public:
    void add(const RecordHeader& record, ByteView label);
    const Bytes& bytes() const { return out_; }
    void clear();

  private:
    Bytes out_;
    DiskIndex disk_ = 0;
    uint32_t length_ = 0;
    uint64_t sequence_ = 0;
    int64_t time_ = 0;
    uint64_t ends_[kMaxDisks] = {};
};
// More than any entry without its label takes: tag, flags, disk, sequence, time, offset, length.
inline constexpr size_t kMaxEntryBytes = 48;

struct Index {
    std::vector<Chunk> chunks;
    std::vector<IndexEntry> entries;
};
// Appends the chunk table, which stands in front of the entries.
void encode_chunk_table(Bytes& out, const std::vector<Chunk>& chunks);
// kTruncated, kMalformed, kNewerVersion (unknown record kind or codec).
Result<Index> decode_index(ByteView plain, const SegmentHeader& header);

}  // namespace farshore::segment_format
