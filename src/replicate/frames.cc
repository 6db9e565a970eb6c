#include "replicate/frames.h"

#include <fmt/core.h>

#include "replicate/limits.h"

#include "record/record.h"

namespace farshore {
namespace {

constexpr size_t kMaxErrorText = 4096;
constexpr size_t kMaxPemBytes = 64u << 10;
constexpr size_t kMaxTokenBytes = 256;

Bytes begin(FrameType type, size_t reserve) {
    Bytes out;
    out.reserve(reserve + 1);
    out.push_back(static_cast<uint8_t>(type));
    return out;
}

template <size_t N>
Result<std::array<uint8_t, N>> fixed(ByteReader& in) {
    FS_ASSIGN(ByteView view, in.bytes(N));
    std::array<uint8_t, N> out;
    std::copy(view.begin(), view.end(), out.begin());
    return out;
}

void put_ranges(ByteWriter& writer, const std::vector<ReturnRange>& ranges) {
    writer.u32(static_cast<uint32_t>(ranges.size()));
    for (const ReturnRange& range : ranges) {
        writer.u64(range.offset_bytes);
        writer.u64(range.length_bytes);
    }
}

Result<std::vector<ReturnRange>> take_ranges(ByteReader& in) {
    FS_ASSIGN(const uint32_t count, in.u32());
    if (count > kMaxReturnRanges)
        return fail(Code::kMalformed, fmt::format("a frame with {} ranges", count));
    std::vector<ReturnRange> ranges(count);
    for (ReturnRange& range : ranges) {
        FS_ASSIGN(range.offset_bytes, in.u64());
        FS_ASSIGN(range.length_bytes, in.u64());
    }
    return ranges;
}

Bytes encode_document(FrameType type, const SyncFrame& frame) {
    Bytes out = begin(type, 12 + frame.document.size());
    ByteWriter writer(out);
    writer.u64(frame.request);
    writer.text(frame.document);
    return out;
}

}  // namespace

Bytes encode(const HelloFrame& frame) {
    Bytes out = begin(FrameType::kHello, 48);
    ByteWriter writer(out);
    writer.u16(frame.version);
    writer.bytes(frame.item.raw);
    writer.bytes(frame.instance.raw);
    writer.u64(frame.first_unstored.v);
    return out;
}

Bytes encode(const WelcomeFrame& frame) {
    Bytes out = begin(FrameType::kWelcome, 24);
    ByteWriter writer(out);
    writer.u64(frame.next.v);
    writer.u64(frame.stored.v);
    writer.u64(frame.window_bytes);
    return out;
}

Bytes encode(const AckFrame& frame) {
    Bytes out = begin(FrameType::kAck, 24);
    ByteWriter writer(out);
    writer.u64(frame.received.v);
    writer.u64(frame.stored.v);
    writer.u64(frame.window_bytes);
    return out;
}

Bytes encode(const CompareFrame& frame) {
    const CompareQuestion& question = frame.question;
    Bytes out = begin(FrameType::kCompare, 128);
    ByteWriter writer(out);
    writer.u64(frame.request);
    writer.bytes(frame.item.raw);
    writer.bytes(question.key);
    writer.u64(question.at_least.v);
    writer.u32(question.disk);
    writer.u64(question.offset_bytes);
    writer.u64(question.length_bytes);
    writer.bytes(question.sum);
    return out;
}

Bytes encode(const ComparedFrame& frame) {
    const CompareAnswer& answer = frame.answer;
    Bytes out = begin(FrameType::kCompared, 32 + answer.sums.size() * sizeof(BlockSum));
    ByteWriter writer(out);
    writer.u64(frame.request);
    writer.u8(static_cast<uint8_t>(answer.verdict));
    writer.u32(answer.unreadable);
    writer.u32(static_cast<uint32_t>(answer.sums.size()));
    for (const BlockSum& sum : answer.sums) writer.bytes(sum);
    return out;
}

Bytes encode(const ReturnFrame& frame) {
    const ReturnQuestion& question = frame.question;
    Bytes out = begin(FrameType::kReturn, 64 + question.ranges.size() * 16);
    ByteWriter writer(out);
    writer.u64(frame.request);
    writer.bytes(frame.item.raw);
    writer.u8(static_cast<uint8_t>(question.kind));
    writer.u64(question.from.v);
    writer.u64(question.to.v);
    writer.u32(question.disk);
    writer.u64(question.offset_bytes);
    put_ranges(writer, question.ranges);
    return out;
}

Bytes encode(const ReturnedFrame& frame) {
    const ReturnAnswer& answer = frame.answer;
    Bytes out = begin(FrameType::kReturned, 32 + answer.ranges.size() * 16 + answer.data.size());
    ByteWriter writer(out);
    writer.u64(frame.request);
    writer.u8(static_cast<uint8_t>(answer.verdict));
    writer.u64(answer.next_offset_bytes);
    put_ranges(writer, answer.ranges);
    writer.u32(static_cast<uint32_t>(answer.data.size()));
    writer.bytes(answer.data);
    return out;
}

Bytes encode(const EnrolFrame& frame) {
    Bytes out = begin(FrameType::kEnrol, 8 + frame.token.size() + frame.request_pem.size());
    ByteWriter writer(out);
    writer.text(frame.token);
    writer.text(frame.request_pem);
    return out;
}

Bytes encode(const EnrolledFrame& frame) {
    Bytes out = begin(FrameType::kEnrolled, 4 + frame.chain_pem.size());
    ByteWriter(out).text(frame.chain_pem);
    return out;
}

Bytes encode_sync(const SyncFrame& frame) { return encode_document(FrameType::kSync, frame); }
Bytes encode_sync_reply(const SyncFrame& frame) {
    return encode_document(FrameType::kSyncReply, frame);
}

static Bytes encode_text(FrameType type, std::string_view text) {
    Bytes out = begin(type, 4 + text.size());
    ByteWriter(out).text(text);
    return out;
}

Bytes encode_barrier(const BarrierOrder& order) {
    return encode_text(FrameType::kBarrier, encode_order(order));
}

Bytes encode_barrier_report(const BarrierReport& report) {
    return encode_text(FrameType::kBarrierReport, encode_report(report));
}

Bytes encode_error(const Error& error) {
    Bytes out = begin(FrameType::kError, 64);
    ByteWriter writer(out);
    writer.text(code_name(error.code()));
    writer.text(std::string_view(error.what()).substr(0, kMaxErrorText));
    writer.text(std::string_view(error.remedy()).substr(0, kMaxErrorText));
    return out;
}

Bytes encode_data(ByteView records) {
    Bytes out = begin(FrameType::kData, records.size());
    out.insert(out.end(), records.begin(), records.end());
    return out;
}

Result<FrameView> decode_frame(ByteView frame) {
    if (frame.empty()) return fail(Code::kMalformed, "an empty frame");
    if (frame[0] < 1 || frame[0] > static_cast<uint8_t>(FrameType::kBarrierReport))
        return fail(Code::kNewerVersion, fmt::format("frame of unknown type {}", frame[0]),
                    "the peer speaks a newer version, or is no Farshore agent or appliance");
    return FrameView{static_cast<FrameType>(frame[0]), frame.subspan(1)};
}

Result<HelloFrame> decode_hello(ByteView body) {
    ByteReader in(body, "HELLO frame");
    HelloFrame frame;
    FS_ASSIGN(frame.version, in.u16());
    if (frame.version != kProtocolVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("the agent speaks protocol version {}, this appliance {}",
                                frame.version, kProtocolVersion),
                    "bring agent and appliance to the same version");
    FS_ASSIGN(frame.item.raw, fixed<16>(in));
    FS_ASSIGN(frame.instance.raw, fixed<16>(in));
    FS_ASSIGN(frame.first_unstored.v, in.u64());
    FS_TRY(in.finish());
    return frame;
}

Result<WelcomeFrame> decode_welcome(ByteView body) {
    ByteReader in(body, "WELCOME frame");
    WelcomeFrame frame;
    FS_ASSIGN(frame.next.v, in.u64());
    FS_ASSIGN(frame.stored.v, in.u64());
    FS_ASSIGN(frame.window_bytes, in.u64());
    FS_TRY(in.finish());
    return frame;
}

Result<AckFrame> decode_ack(ByteView body) {
    ByteReader in(body, "ACK frame");
    AckFrame frame;
    FS_ASSIGN(frame.received.v, in.u64());
    FS_ASSIGN(frame.stored.v, in.u64());
    FS_ASSIGN(frame.window_bytes, in.u64());
    FS_TRY(in.finish());
    return frame;
}

Result<SyncFrame> decode_sync(ByteView body) {
    ByteReader in(body, "SYNC frame");
    SyncFrame frame;
    FS_ASSIGN(frame.request, in.u64());
    FS_ASSIGN(frame.document, in.text(kMaxControlBytes));
    FS_TRY(in.finish());
    return frame;
}

Result<CompareFrame> decode_compare(ByteView body) {
    ByteReader in(body, "COMPARE frame");
    CompareFrame frame;
    CompareQuestion& question = frame.question;
    FS_ASSIGN(frame.request, in.u64());
    FS_ASSIGN(frame.item.raw, fixed<16>(in));
    FS_ASSIGN(question.key, fixed<32>(in));
    FS_ASSIGN(question.at_least.v, in.u64());
    FS_ASSIGN(const uint32_t disk, in.u32());
    FS_ASSIGN(question.offset_bytes, in.u64());
    FS_ASSIGN(question.length_bytes, in.u64());
    FS_ASSIGN(question.sum, fixed<16>(in));
    FS_TRY(in.finish());
    question.disk = static_cast<DiskIndex>(disk);
    FS_TRY(check_question(question));
    if (disk >= kMaxDisks) return fail(Code::kMalformed, "COMPARE frame of a disk out of range");
    return frame;
}

Result<ComparedFrame> decode_compared(ByteView body) {
    ByteReader in(body, "COMPARED frame");
    ComparedFrame frame;
    FS_ASSIGN(frame.request, in.u64());
    FS_ASSIGN(const uint8_t verdict, in.u8());
    if (verdict < 1 || verdict > static_cast<uint8_t>(CompareVerdict::kNothing))
        return fail(Code::kMalformed, fmt::format("COMPARED frame with verdict {}", verdict));
    frame.answer.verdict = static_cast<CompareVerdict>(verdict);
    FS_ASSIGN(frame.answer.unreadable, in.u32());
    FS_ASSIGN(const uint32_t count, in.u32());
    if (count > kMaxCompareBlocks)
        return fail(Code::kMalformed, fmt::format("COMPARED frame with {} sums", count));
    for (uint32_t i = 0; i < count; ++i) {
        FS_ASSIGN(frame.answer.sums.emplace_back(), fixed<16>(in));
    }
    FS_TRY(in.finish());
    return frame;
}

Result<BarrierOrder> decode_barrier(ByteView body) {
    ByteReader in(body, "BARRIER frame");
    FS_ASSIGN(const std::string document, in.text(kMaxControlBytes));
    FS_TRY(in.finish());
    return decode_order(document);
}

Result<BarrierReport> decode_barrier_report(ByteView body) {
    ByteReader in(body, "BARRIER REPORT frame");
    FS_ASSIGN(const std::string document, in.text(kMaxControlBytes));
    FS_TRY(in.finish());
    return decode_report(document);
}

Result<ReturnFrame> decode_return(ByteView body) {
    ByteReader in(body, "RETURN frame");
    ReturnFrame frame;
    ReturnQuestion& question = frame.question;
    FS_ASSIGN(frame.request, in.u64());
    FS_ASSIGN(frame.item.raw, fixed<16>(in));
    FS_ASSIGN(const uint8_t kind, in.u8());
    question.kind = static_cast<ReturnKind>(kind);
    FS_ASSIGN(question.from.v, in.u64());
    FS_ASSIGN(question.to.v, in.u64());
    FS_ASSIGN(const uint32_t disk, in.u32());
    if (disk >= kMaxDisks) return fail(Code::kMalformed, "RETURN frame of a disk out of range");
    question.disk = static_cast<DiskIndex>(disk);
    FS_ASSIGN(question.offset_bytes, in.u64());
    FS_ASSIGN(question.ranges, take_ranges(in));
    FS_TRY(in.finish());
    FS_TRY(check_question(question));
    return frame;
}

Result<ReturnedFrame> decode_returned(ByteView body) {
    ByteReader in(body, "RETURNED frame");
    ReturnedFrame frame;
    FS_ASSIGN(frame.request, in.u64());
    FS_ASSIGN(const uint8_t verdict, in.u8());
    frame.answer.verdict = static_cast<ReturnVerdict>(verdict);
    FS_ASSIGN(frame.answer.next_offset_bytes, in.u64());
    FS_ASSIGN(frame.answer.ranges, take_ranges(in));
    FS_ASSIGN(const uint32_t length, in.u32());
    if (length > kMaxReturnBytes)
        return fail(Code::kMalformed, fmt::format("RETURNED frame with {} bytes", length));
    FS_ASSIGN(const ByteView data, in.bytes(length));
    frame.answer.data.assign(data.begin(), data.end());
    FS_TRY(in.finish());
    FS_TRY(check_answer(frame.answer));
    return frame;
}

Result<EnrolFrame> decode_enrol(ByteView body) {
    ByteReader in(body, "ENROL frame");
    EnrolFrame frame;
    FS_ASSIGN(frame.token, in.text(kMaxTokenBytes));
    FS_ASSIGN(frame.request_pem, in.text(kMaxPemBytes));
    FS_TRY(in.finish());
    return frame;
}

Result<EnrolledFrame> decode_enrolled(ByteView body) {
    ByteReader in(body, "ENROLLED frame");
    EnrolledFrame frame;
    FS_ASSIGN(frame.chain_pem, in.text(kMaxPemBytes));
    FS_TRY(in.finish());
    return frame;
}

Error decode_error(ByteView body) {
    ByteReader in(body, "ERROR frame");
    auto code = in.text(64);
    if (!code) return code.error();
    auto what = in.text(kMaxErrorText);
    if (!what) return what.error();
    auto remedy = in.text(kMaxErrorText);
    if (!remedy) return remedy.error();
    return Error(code_from_name(*code), *what, *remedy);
}

}  // namespace farshore
