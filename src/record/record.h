// The record: one change of one machine, in the one order of its changes. The same bytes go from
// the tap through ring, spill, wire and spool; a segment stores the header fields in its index and
// the payload in its chunks. Layout and limits: docs/format/record.md.
//
// Encoded: a header of kRecordHeaderBytes, then the payload. The header's CRC32C covers the rest of
// the header; the payload has its own, computed once in the tap and carried all the way.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

// Values are on disk and on the wire: never renumbered.
enum class RecordKind : uint8_t {
    kWrite = 1,     // payload at offset
    kZero = 2,      // [offset, offset+length) reads as zeroes
    kDiscard = 3,   // as kZero for a reader; says that the guest does not need the space
    kFlush = 4,     // the guest asked for durability of what it wrote before
    kTime = 5,      // nothing happened up to `time`: an idle mark
    kPoint = 6,     // a recovery point just before this record; payload is its label
    kGap = 7,       // order was lost before this record; no points until kResynced
    kResynced = 8,  // everything that the gap covered has been sent again
    kGeometry = 9,  // the disk's size is `offset` bytes from here on; 0: the machine has it no more
};

// `flags` of a kPoint record.
enum class PointKind : uint8_t { kCrash = 1, kApplication = 2, kBookmark = 3 };

// `flags` of a kGeometry record: the disk's content is still being copied, so that it is no part of
// the points until a kGeometry of it without this.
inline constexpr uint8_t kGeometryJoining = 1;

inline constexpr size_t kRecordHeaderBytes = 40;
// A larger guest write is several records in a row.
inline constexpr uint32_t kMaxWriteBytes = 1u << 20;
inline constexpr uint32_t kMaxZeroBytes = 1u << 30;
inline constexpr uint32_t kMaxLabelBytes = 256;
inline constexpr uint64_t kMaxDiskBytes = 64ull << 40;
inline constexpr uint16_t kMaxDisks = 64;

struct RecordHeader {
    RecordKind kind = RecordKind::kWrite;
    uint8_t flags = 0;
    DiskIndex disk = 0;
    Sequence sequence;
    TimePoint time;
    uint64_t offset_bytes = 0;
    // kWrite: payload and extent; kZero, kDiscard: extent; kPoint: payload; else 0.
    uint32_t length_bytes = 0;
    uint32_t payload_crc = 0;

    bool has_payload() const { return kind == RecordKind::kWrite || kind == RecordKind::kPoint; }
    uint32_t payload_bytes() const { return has_payload() ? length_bytes : 0; }
    // Whether the record changes bytes of a disk.
    bool changes_disk() const {
        return kind == RecordKind::kWrite || kind == RecordKind::kZero ||
               kind == RecordKind::kDiscard;
    }
    size_t encoded_bytes() const { return kRecordHeaderBytes + payload_bytes(); }
};

// Writes exactly kRecordHeaderBytes. The header must be within the limits above.
void encode_record_header(const RecordHeader& header, uint8_t* out);

// Decodes and checks a header: checksum, kind, limits, extent within kMaxDiskBytes. kTruncated when
// fewer than kRecordHeaderBytes are given, kCorrupt on a checksum mismatch, kMalformed otherwise.
Result<RecordHeader> decode_record_header(ByteView in);

struct RecordView {
    RecordHeader header;
    ByteView payload;
};

// Walks encoded records that lie end to end in a view that it borrows.
class RecordCursor {
  public:
    // With `verify_payload`, a payload that does not match its checksum is kCorrupt.
    RecordCursor(ByteView records, bool verify_payload)
        : rest_(records), verify_payload_(verify_payload) {}

    bool done() const { return rest_.empty(); }
    // The next record; kTruncated when the view ends inside it.
    Result<RecordView> next();
    size_t remaining() const { return rest_.size(); }

  private:
    ByteView rest_;
    bool verify_payload_;
};

// Appends header (its payload_crc is computed here) and payload. For tests and rare records; the
// tap encodes in place.
void append_record(Bytes& out, RecordHeader header, ByteView payload = {});

std::string_view record_kind_name(RecordKind kind);

}  // namespace farshore
