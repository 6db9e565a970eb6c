#include "record/record.h"

#include <fmt/core.h>

#include "codec/crc32c.h"

namespace farshore {

// docs/format/record.md fixes these places.
namespace {
constexpr size_t kKindAt = 4, kFlagsAt = 5, kDiskAt = 6, kSequenceAt = 8, kTimeAt = 16,
                 kOffsetAt = 24, kLengthAt = 32, kPayloadCrcAt = 36;
static_assert(kPayloadCrcAt + 4 == kRecordHeaderBytes);

Status check(const RecordHeader& h) {
    const auto bad = [&](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("record {} ({}): {}", h.sequence.v,
                                                  record_kind_name(h.kind), what));
    };
    if (h.kind < RecordKind::kWrite || h.kind > RecordKind::kGeometry)
        return fail(Code::kNewerVersion,
                    fmt::format("record of unknown kind {}", static_cast<int>(h.kind)),
                    "a newer version wrote it; upgrade this side");
    if (h.sequence.v == 0) return bad("sequence 0");
    if (h.disk >= kMaxDisks) return bad("disk index out of range");
    if (h.offset_bytes > kMaxDiskBytes) return bad("offset beyond the largest disk");
    switch (h.kind) {
        case RecordKind::kWrite:
            if (h.length_bytes == 0 || h.length_bytes > kMaxWriteBytes)
                return bad("payload length out of range");
            break;
        case RecordKind::kZero:
        case RecordKind::kDiscard:
            if (h.length_bytes == 0 || h.length_bytes > kMaxZeroBytes)
                return bad("extent length out of range");
            break;
        case RecordKind::kPoint:
            if (h.length_bytes > kMaxLabelBytes) return bad("label too long");
            if (h.flags < 1 || h.flags > 3) return bad("unknown kind of point");
            break;
        case RecordKind::kGeometry:
            if (h.flags > kGeometryJoining)
                return fail(Code::kNewerVersion,
                            fmt::format("record {} (geometry) with unknown flags {}", h.sequence.v,
                                        h.flags),
                            "a newer version wrote it; upgrade this side");
            [[fallthrough]];
        default:
            if (h.length_bytes != 0) return bad("length where none belongs");
    }
    if (h.changes_disk() && h.offset_bytes + h.length_bytes > kMaxDiskBytes)
        return bad("extent beyond the largest disk");
    return {};
}
}  // namespace

void encode_record_header(const RecordHeader& h, uint8_t* out) {
    out[kKindAt] = static_cast<uint8_t>(h.kind);
    out[kFlagsAt] = h.flags;
    store_u16(out + kDiskAt, h.disk);
    store_u64(out + kSequenceAt, h.sequence.v);
    store_u64(out + kTimeAt, static_cast<uint64_t>(h.time.us));
    store_u64(out + kOffsetAt, h.offset_bytes);
    store_u32(out + kLengthAt, h.length_bytes);
    store_u32(out + kPayloadCrcAt, h.payload_crc);
    store_u32(out, crc32c({out + kKindAt, kRecordHeaderBytes - kKindAt}));
}

Result<RecordHeader> decode_record_header(ByteView in) {
    if (in.size() < kRecordHeaderBytes)
        return fail(Code::kTruncated, fmt::format("record header of {} bytes", in.size()));
    const uint8_t* p = in.data();
    if (load_u32(p) != crc32c({p + kKindAt, kRecordHeaderBytes - kKindAt}))
        return fail(Code::kCorrupt, "record header does not match its checksum");
    RecordHeader h;
    h.kind = static_cast<RecordKind>(p[kKindAt]);
    h.flags = p[kFlagsAt];
    h.disk = load_u16(p + kDiskAt);
    h.sequence = {load_u64(p + kSequenceAt)};
    h.time = {static_cast<int64_t>(load_u64(p + kTimeAt))};
    h.offset_bytes = load_u64(p + kOffsetAt);
    h.length_bytes = load_u32(p + kLengthAt);
    h.payload_crc = load_u32(p + kPayloadCrcAt);
    FS_TRY(check(h));
    return h;
}

Result<RecordView> RecordCursor::next() {
    FS_ASSIGN(RecordHeader header, decode_record_header(rest_));
    if (rest_.size() < header.encoded_bytes())
        return fail(Code::kTruncated,
                    fmt::format("record {} ends after {} of {} bytes", header.sequence.v,
                                rest_.size(), header.encoded_bytes()));
    RecordView record{header, rest_.subspan(kRecordHeaderBytes, header.payload_bytes())};
    if (verify_payload_ && header.has_payload() && crc32c(record.payload) != header.payload_crc)
        return fail(Code::kCorrupt, fmt::format("payload of record {} does not match its checksum",
                                                header.sequence.v));
    rest_ = rest_.subspan(header.encoded_bytes());
    return record;
}

void append_record(Bytes& out, RecordHeader header, ByteView payload) {
    if (header.has_payload()) {
        header.length_bytes = static_cast<uint32_t>(payload.size());
        header.payload_crc = crc32c(payload);
    }
    const size_t at = out.size();
    out.resize(at + kRecordHeaderBytes);
    encode_record_header(header, out.data() + at);
    if (header.has_payload()) out.insert(out.end(), payload.begin(), payload.end());
}

std::string_view record_kind_name(RecordKind kind) {
    switch (kind) {
        case RecordKind::kWrite:
            return "write";
        case RecordKind::kZero:
            return "zero";
        case RecordKind::kDiscard:
            return "discard";
        case RecordKind::kFlush:
            return "flush";
        case RecordKind::kTime:
            return "time";
        case RecordKind::kPoint:
            return "point";
        case RecordKind::kGap:
            return "gap";
        case RecordKind::kResynced:
            return "resynced";
        case RecordKind::kGeometry:
            return "geometry";
    }
    return "unknown";
}

}  // namespace farshore
