#include "replica/segment_format.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "codec/crc32c.h"
#include "codec/hash.h"

namespace farshore::segment_format {
namespace {

constexpr std::string_view kUpgrade = "a newer version wrote it; upgrade this side";

// An entry starts with a tag: its kind, and which fields are left out because they are as expected.
constexpr uint8_t kKindMask = 0x0f, kSameDisk = 0x10, kSameLength = 0x20, kNextSequence = 0x40,
                  kHasFlags = 0x80;

void put_varint(Bytes& out, uint64_t v) {
    while (v >= 0x80) {
        out.push_back(static_cast<uint8_t>(v | 0x80));
        v >>= 7;
    }
    out.push_back(static_cast<uint8_t>(v));
}
uint64_t zigzag(uint64_t delta) {
    return (delta << 1) ^ static_cast<uint64_t>(static_cast<int64_t>(delta) >> 63);
}
uint64_t unzigzag(uint64_t v) { return (v >> 1) ^ (0 - (v & 1)); }

bool has_length(RecordKind kind) {
    return kind == RecordKind::kWrite || kind == RecordKind::kZero ||
           kind == RecordKind::kDiscard || kind == RecordKind::kPoint;
}
bool has_extent(RecordKind kind) { return has_length(kind) && kind != RecordKind::kPoint; }

// A plain pointer walk: ByteReader's error construction on every byte would be most of the cost of
// opening a segment of many small writes.
class Cursor {
  public:
    explicit Cursor(ByteView in) : at_(in.data()), end_(in.data() + in.size()) {}
    bool u8(uint8_t& v) {
        if (at_ == end_) return false;
        v = *at_++;
        return true;
    }
    bool varint(uint64_t& v) {
        v = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at_ == end_) return false;
            const uint8_t b = *at_++;
            if (shift == 63 && b > 1) return false;
            v |= uint64_t{b & 0x7fu} << shift;
            if (b < 0x80) return b != 0 || shift == 0;  // one spelling a number
        }
        return false;
    }
    bool bytes(size_t n, ByteView& v) {
        if (static_cast<size_t>(end_ - at_) < n) return false;
        v = {at_, n};
        at_ += n;
        return true;
    }
    size_t remaining() const { return static_cast<size_t>(end_ - at_); }

  private:
    const uint8_t* at_;
    const uint8_t* end_;
};

}  // namespace

Bytes encode_header(const Header& header) {
    const SegmentHeader& pub = header.pub;
    Bytes out(kHeaderBytes);
    uint8_t* p = out.data();
    std::copy_n(kMagic, 8, p);
    store_u16(p + kVersionAt, kVersion);
    store_u16(p + kHeaderBytesAt, kHeaderBytes);
    p[kKindAt] = static_cast<uint8_t>(pub.kind);
    store_u32(p + kChunkBytesAt, kChunkBytes);
    std::memcpy(p + kItemAt, pub.item.raw.data(), 16);
    store_u64(p + kEpochAt, pub.epoch.v);
    store_u64(p + kNumberAt, pub.number.v);
    store_u64(p + kFirstAt, pub.first.v);
    store_u64(p + kLastAt, pub.last.v);
    store_u64(p + kFirstTimeAt, static_cast<uint64_t>(pub.first_time.us));
    store_u64(p + kLastTimeAt, static_cast<uint64_t>(pub.last_time.us));
    std::memcpy(p + kPreviousAt, pub.previous_header.data(), 32);
    store_u64(p + kPayloadBytesAt, pub.payload_bytes);
    store_u64(p + kObjectBytesAt, pub.object_bytes);
    store_u32(p + kRecordCountAt, pub.record_count);
    store_u32(p + kChunkCountAt, pub.chunk_count);
    store_u32(p + kIndexSealedAt, header.index_sealed_bytes);
    store_u32(p + kIndexPlainAt, header.index_plain_bytes);
    p[kIndexCodecAt] = static_cast<uint8_t>(header.index_codec);
    std::memcpy(p + kWrappedKeyAt, header.wrapped_key.data(), kWrappedKeyBytes);
    std::memcpy(p + kBodyDigestAt, header.body_digest.data(), 32);
    store_u32(p + kCrcAt, crc32c(ByteView(out).subspan(kVersionAt)));
    return out;
}

Result<Header> decode_header(ByteView object) {
    if (object.size() < kPrefixBytes)
        return fail(Code::kTruncated, fmt::format("segment of {} bytes", object.size()));
    const uint8_t* p = object.data();
    if (std::memcmp(p, kMagic, 8) != 0)
        return fail(Code::kMalformed, "not a segment: it does not start as one");
    const size_t header_bytes = load_u16(p + kHeaderBytesAt);
    if (header_bytes < kPrefixBytes || header_bytes > kMaxHeaderBytes)
        return fail(Code::kCorrupt, fmt::format("segment header of {} bytes", header_bytes));
    if (object.size() < header_bytes)
        return fail(Code::kTruncated,
                    fmt::format("segment ends after {} bytes of its header", object.size()));
    if (load_u32(p + kCrcAt) != crc32c(object.subspan(kVersionAt, header_bytes - kVersionAt)))
        return fail(Code::kCorrupt, "segment header does not match its checksum");
    if (const int version = load_u16(p + kVersionAt); version != kVersion)
        return fail(Code::kNewerVersion, fmt::format("segment of format version {}", version),
                    std::string(kUpgrade));
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("segment header: {}", what));
    };
    if (header_bytes != kHeaderBytes) return bad("wrong length");

    Header header;
    SegmentHeader& pub = header.pub;
    pub.kind = static_cast<SegmentKind>(p[kKindAt]);
    if (pub.kind != SegmentKind::kLog && pub.kind != SegmentKind::kBase) return bad("unknown kind");
    if (load_u32(p + kChunkBytesAt) != kChunkBytes) return bad("unknown chunk size");
    std::memcpy(pub.item.raw.data(), p + kItemAt, 16);
    pub.epoch = {load_u64(p + kEpochAt)};
    pub.number = {load_u64(p + kNumberAt)};
    pub.first = {load_u64(p + kFirstAt)};
    pub.last = {load_u64(p + kLastAt)};
    pub.first_time = {static_cast<int64_t>(load_u64(p + kFirstTimeAt))};
    pub.last_time = {static_cast<int64_t>(load_u64(p + kLastTimeAt))};
    std::memcpy(pub.previous_header.data(), p + kPreviousAt, 32);
    pub.payload_bytes = load_u64(p + kPayloadBytesAt);
    pub.object_bytes = load_u64(p + kObjectBytesAt);
    pub.record_count = load_u32(p + kRecordCountAt);
    pub.chunk_count = load_u32(p + kChunkCountAt);
    header.index_sealed_bytes = load_u32(p + kIndexSealedAt);
    header.index_plain_bytes = load_u32(p + kIndexPlainAt);
    header.index_codec = static_cast<Compression>(p[kIndexCodecAt]);
    std::memcpy(header.wrapped_key.data(), p + kWrappedKeyAt, kWrappedKeyBytes);
    std::memcpy(header.body_digest.data(), p + kBodyDigestAt, 32);

    if (p[kKindAt + 1] != 0 || p[kKindAt + 2] != 0 || p[kKindAt + 3] != 0 ||
        !all_zero(object.subspan(kIndexCodecAt + 1, kWrappedKeyAt - kIndexCodecAt - 1)) ||
        !all_zero(object.subspan(kReservedAt, kHeaderBytes - kReservedAt)))
        return bad("reserved bytes are set");
    if (pub.first.v == 0 || pub.first > pub.last) return bad("sequences out of order");
    if (pub.record_count == 0 || pub.record_count > kMaxRecords) return bad("record count");
    if (pub.payload_bytes > kMaxSegmentPayloadBytes) return bad("payload too large");
    if (pub.chunk_count != (pub.payload_bytes + kChunkBytes - 1) / kChunkBytes)
        return bad("chunk count does not fit the payload");
    if (header.index_codec > Compression::kLz4) return bad("unknown index codec");
    if (header.index_plain_bytes == 0 || header.index_plain_bytes > kMaxIndexBytes ||
        header.index_sealed_bytes <= kSealTagBytes ||
        header.index_sealed_bytes > kMaxIndexBytes + kSealTagBytes)
        return bad("index length");
    if (pub.object_bytes < kHeaderBytes + uint64_t{header.index_sealed_bytes} ||
        pub.object_bytes > kHeaderBytes + uint64_t{header.index_sealed_bytes} + pub.payload_bytes +
                               uint64_t{pub.chunk_count} * kSealTagBytes)
        return bad("object length");
    pub.header_hash = sha256(object.first(kHeaderBytes));
    return header;
}

Bytes key_associated(const SegmentHeader& header) {
    Bytes out;
    ByteWriter writer(out);
    writer.bytes(as_bytes("farshore-data-key"));
    writer.bytes(header.item.view());
    writer.u64(header.epoch.v);
    writer.u64(header.number.v);
    writer.u8(static_cast<uint8_t>(header.kind));
    return out;
}

ChunkAssociated chunk_associated(const SegmentHeader& header, uint32_t chunk, uint32_t plain_bytes,
                                 const Chunk& packed) {
    ChunkAssociated out{};
    uint8_t* p = out.data();
    std::memcpy(p, header.item.raw.data(), 16);
    store_u64(p + 16, header.epoch.v);
    store_u64(p + 24, header.number.v);
    store_u32(p + 32, chunk);
    store_u32(p + 36, plain_bytes);
    store_u32(p + 40, packed.packed_bytes);
    p[44] = static_cast<uint8_t>(packed.codec);
    p[45] = static_cast<uint8_t>(header.kind);
    return out;
}

void IndexEncoder::add(const RecordHeader& record, ByteView label) {
    const bool same_disk = record.disk == disk_;
    const bool same_length = has_length(record.kind) && record.length_bytes == length_;
    const bool next = record.sequence.v == sequence_ + 1;
    uint8_t tag = static_cast<uint8_t>(record.kind);
    if (same_disk) tag |= kSameDisk;
    if (same_length) tag |= kSameLength;
    if (next) tag |= kNextSequence;
    if (record.flags != 0) tag |= kHasFlags;
    out_.push_back(tag);
    if (record.flags != 0) out_.push_back(record.flags);
    if (!same_disk) put_varint(out_, record.disk);
    if (!next) put_varint(out_, zigzag(record.sequence.v - sequence_));
    put_varint(out_, zigzag(static_cast<uint64_t>(record.time.us) - static_cast<uint64_t>(time_)));
    const uint64_t expected = has_extent(record.kind) ? ends_[record.disk] : 0;
    // Disks are below 2^47 bytes, so the delta has room for the unit's bit.
    const uint64_t delta = record.offset_bytes - expected;
    if (delta % 512 == 0)
        put_varint(out_, zigzag(static_cast<uint64_t>(static_cast<int64_t>(delta) / 512)) << 1);
    else
        put_varint(out_, zigzag(delta) << 1 | 1);
    if (has_length(record.kind) && !same_length) put_varint(out_, record.length_bytes);
    if (record.kind == RecordKind::kPoint) out_.insert(out_.end(), label.begin(), label.end());

    disk_ = record.disk;
    if (has_length(record.kind)) length_ = record.length_bytes;
    if (has_extent(record.kind)) ends_[record.disk] = record.offset_bytes + record.length_bytes;
    sequence_ = record.sequence.v;
    time_ = record.time.us;
}

void IndexEncoder::clear() { *this = IndexEncoder(); }

void encode_chunk_table(Bytes& out, const std::vector<Chunk>& chunks) {
    for (const Chunk& chunk : chunks) {
        out.push_back(static_cast<uint8_t>(chunk.codec));
        put_varint(out, chunk.packed_bytes);
    }
}

Result<Index> decode_index(ByteView plain, const SegmentHeader& header) {
    const auto truncated = [] { return fail(Code::kTruncated, "segment index ends too early"); };
    const auto bad = [](size_t entry, std::string_view what) {
        return fail(Code::kMalformed, fmt::format("segment index, entry {}: {}", entry, what));
    };
    Cursor in(plain);
    Index index;
    index.chunks.reserve(header.chunk_count);
    uint64_t chunk_bytes = 0;
    for (uint32_t i = 0; i < header.chunk_count; ++i) {
        uint8_t codec = 0;
        uint64_t packed = 0;
        if (!in.u8(codec) || !in.varint(packed)) return truncated();
        if (codec > static_cast<uint8_t>(Compression::kLz4))
            return fail(Code::kNewerVersion, fmt::format("chunk of unknown codec {}", codec),
                        std::string(kUpgrade));
        const uint32_t full = chunk_plain_bytes(header.payload_bytes, i);
        if (packed == 0 || packed > full || (codec == 0 && packed != full))
            return bad(i, "chunk length");
        index.chunks.push_back({static_cast<Compression>(codec), static_cast<uint32_t>(packed)});
        chunk_bytes += packed + kSealTagBytes;
    }
    if (chunk_bytes > header.object_bytes) return bad(0, "chunks longer than the object");

    // Every entry takes at least three bytes, so a count that lies cannot reserve much.
    if (header.record_count > in.remaining() / 3) return truncated();
    index.entries.reserve(header.record_count);
    DiskIndex disk = 0;
    uint32_t length = 0;
    uint64_t sequence = 0, time = 0, position = 0;
    uint64_t lowest = ~0ull, highest = 0;
    uint64_t ends[kMaxDisks] = {};
    for (size_t i = 0; i < header.record_count; ++i) {
        uint8_t tag = 0;
        uint64_t v = 0;
        if (!in.u8(tag)) return truncated();
        IndexEntry entry;
        entry.kind = static_cast<RecordKind>(tag & kKindMask);
        if (entry.kind < RecordKind::kWrite || entry.kind > RecordKind::kGeometry)
            return fail(Code::kNewerVersion,
                        fmt::format("record of unknown kind {}", tag & kKindMask),
                        std::string(kUpgrade));
        if ((tag & kHasFlags) != 0 && !in.u8(entry.flags)) return truncated();
        if ((tag & kSameDisk) == 0) {
            if (!in.varint(v)) return truncated();
            if (v >= kMaxDisks) return bad(i, "disk index out of range");
            disk = static_cast<DiskIndex>(v);
        }
        entry.disk = disk;
        if ((tag & kNextSequence) != 0) {
            ++sequence;
        } else {
            if (!in.varint(v)) return truncated();
            const uint64_t to = sequence + unzigzag(v);
            if (header.kind == SegmentKind::kLog && to <= sequence)
                return bad(i, "sequence does not rise");
            sequence = to;
        }
        if (sequence < header.first.v || sequence > header.last.v)
            return bad(i, "sequence outside the segment");
        lowest = std::min(lowest, sequence);
        highest = std::max(highest, sequence);
        entry.sequence = {sequence};
        if (!in.varint(v)) return truncated();
        time += unzigzag(v);
        entry.time = {static_cast<int64_t>(time)};
        if (!in.varint(v)) return truncated();
        const uint64_t delta = (v & 1) != 0 ? unzigzag(v >> 1) : unzigzag(v >> 1) * 512;
        entry.offset_bytes = (has_extent(entry.kind) ? ends[disk] : 0) + delta;
        if (entry.offset_bytes > kMaxDiskBytes) return bad(i, "offset beyond the largest disk");
        if (has_length(entry.kind)) {
            if ((tag & kSameLength) == 0) {
                if (!in.varint(v)) return truncated();
                if (v > kMaxZeroBytes) return bad(i, "length out of range");
                length = static_cast<uint32_t>(v);
            }
            entry.length_bytes = length;
            if (entry.kind == RecordKind::kPoint) {
                ByteView label;
                if (length > kMaxLabelBytes) return bad(i, "label too long");
                if (!in.bytes(length, label)) return truncated();
                entry.label = to_text(label);
            } else if (length == 0 ||
                       (entry.kind == RecordKind::kWrite && length > kMaxWriteBytes) ||
                       entry.offset_bytes + length > kMaxDiskBytes) {
                return bad(i, "extent out of range");
            }
        }
        if (has_extent(entry.kind)) ends[disk] = entry.offset_bytes + length;
        if (entry.kind == RecordKind::kWrite) {
            if (position + length > header.payload_bytes) return bad(i, "payload too long");
            entry.payload_position = static_cast<uint32_t>(position);
            position += length;
        }
        index.entries.push_back(std::move(entry));
    }
    if (in.remaining() != 0) return bad(header.record_count, "bytes behind the last entry");
    if (position != header.payload_bytes) return bad(header.record_count, "payload left over");
    if (lowest != header.first.v || highest != header.last.v)
        return bad(header.record_count, "sequences are not the header's");
    return index;
}

}  // namespace farshore::segment_format
