#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "codec/hash.h"
#include "replica/segment_format.h"

namespace farshore {

namespace sf = segment_format;

std::string segment_object_name(const SegmentHeader& header) {
    const bool log = header.kind == SegmentKind::kLog;
    return fmt::format("items/{}/{}/{:016x}-{:016x}.{}", header.item.to_string(),
                       log ? "log" : "base", header.number.v, header.epoch.v, log ? "seg" : "base");
}

struct SegmentWriter::State {
    // Blocks of kChunkBytes: a buffer that doubled would hold the payload twice while it grows.
    std::vector<Bytes> blocks;
    uint64_t payload_bytes = 0;
    uint32_t record_count = 0;
    Sequence first{~0ull}, last{0}, newest{0};
    TimePoint first_time, last_time;
    // The first jump that no GAP explains: a log with it must not be built.
    Sequence hole{0};
    sf::IndexEncoder index;

    void append_payload(ByteView payload) {
        while (!payload.empty()) {
            if (payload_bytes % kChunkBytes == 0) {
                blocks.emplace_back();
                blocks.back().reserve(kChunkBytes);
            }
            Bytes& block = blocks.back();
            const size_t n = std::min(payload.size(), kChunkBytes - block.size());
            block.insert(block.end(), payload.begin(), payload.begin() + n);
            payload_bytes += n;
            payload = payload.subspan(n);
        }
    }

    void append(const RecordView& record) {
        const RecordHeader& h = record.header;
        if (record_count > 0 && hole.v == 0 &&
            (h.sequence <= newest || (h.sequence != newest.next() && h.kind != RecordKind::kGap)))
            hole = h.sequence;
        if (record_count == 0) first_time = h.time;
        last_time = h.time;
        first = std::min(first, h.sequence);
        last = std::max(last, h.sequence);
        newest = h.sequence;
        ++record_count;
        index.add(h, record.payload);
        if (h.kind == RecordKind::kWrite) append_payload(record.payload);
    }
};

SegmentWriter::SegmentWriter() : state_(std::make_unique<State>()) {}
SegmentWriter::~SegmentWriter() = default;

Status SegmentWriter::add(ByteView records) {
    // Everything is checked before anything is taken, so that a refused call changes nothing.
    uint64_t payload = state_->payload_bytes;
    uint64_t count = state_->record_count;
    uint64_t index = state_->index.bytes().size() + size_t{sf::kMaxChunks} * 4;
    for (RecordCursor check(records, true); !check.done();) {
        FS_ASSIGN(RecordView record, check.next());
        ++count;
        index += sf::kMaxEntryBytes;
        if (record.header.kind == RecordKind::kWrite)
            payload += record.payload.size();
        else
            index += record.payload.size();
    }
    if (payload > kMaxSegmentPayloadBytes || count > sf::kMaxRecords || index > sf::kMaxIndexBytes)
        return fail(Code::kTooLarge,
                    fmt::format("a segment of {} records and {} payload bytes is too large", count,
                                payload),
                    "build a segment from what was added before");
    for (RecordCursor take(records, false); !take.done();) {
        FS_ASSIGN(RecordView record, take.next());
        state_->append(record);
    }
    return {};
}

uint64_t SegmentWriter::payload_bytes() const { return state_->payload_bytes; }
uint32_t SegmentWriter::record_count() const { return state_->record_count; }
bool SegmentWriter::empty() const { return state_->record_count == 0; }
Sequence SegmentWriter::last() const { return state_->last; }

Result<BuiltSegment> SegmentWriter::build(const BuildOptions& options) {
    State& state = *state_;
    if (state.record_count == 0) return fail(Code::kInvalidArgument, "a segment without records");
    if (options.item_key == nullptr || options.random == nullptr)
        return fail(Code::kInvalidArgument, "a segment needs a key and a source of randomness");
    if (options.kind == SegmentKind::kLog && state.hole.v != 0)
        return fail(Code::kSequenceHole,
                    fmt::format("record {} does not follow the one before it", state.hole.v));
    const auto for_each = [&](size_t n, const std::function<void(size_t)>& job) {
        if (options.parallel_for)
            options.parallel_for(n, job);
        else
            for (size_t i = 0; i < n; ++i) job(i);
    };

    sf::Header header;
    SegmentHeader& pub = header.pub;
    pub.kind = options.kind;
    pub.item = options.item;
    pub.epoch = options.epoch;
    pub.number = options.number;
    pub.previous_header = options.previous_header;
    pub.first = state.first;
    pub.last = state.last;
    pub.first_time = state.first_time;
    pub.last_time = state.last_time;
    pub.payload_bytes = state.payload_bytes;
    pub.record_count = state.record_count;
    pub.chunk_count = static_cast<uint32_t>(state.blocks.size());

    const Secret data_key = make_key(*options.random);
    FS_ASSIGN(Bytes wrapped,
              wrap_key(*options.item_key, data_key, sf::key_associated(pub), *options.random));
    std::ranges::copy(wrapped, header.wrapped_key.begin());
    FS_ASSIGN(const SealKey sealer, SealKey::make(data_key));

    std::vector<sf::Chunk> chunks(state.blocks.size());
    std::vector<Bytes> packed(state.blocks.size());
    const Compression wanted =
        options.haste == Haste::kNone ? Compression::kZstd : Compression::kLz4;
    for_each(chunks.size(), [&](size_t i) {
        Bytes& plain = state.blocks[i];
        const Compression used = looks_incompressible(plain)
                                     ? Compression::kRaw
                                     : compress(wanted, plain, packed[i], options.haste);
        // The payload's block is given up as soon as its compressed copy is there, so that a
        // build holds little more than the payload at any time.
        if (used == Compression::kRaw) packed[i].swap(plain);
        Bytes().swap(plain);
        chunks[i] = {used, static_cast<uint32_t>(packed[i].size())};
    });

    Bytes index;
    index.reserve(state.index.bytes().size() + chunks.size() * 4);
    sf::encode_chunk_table(index, chunks);
    index.insert(index.end(), state.index.bytes().begin(), state.index.bytes().end());
    Bytes index_packed;
    header.index_plain_bytes = static_cast<uint32_t>(index.size());
    header.index_codec = compress(Compression::kZstd, index, index_packed);
    if (header.index_codec == Compression::kRaw) index_packed.swap(index);
    header.index_sealed_bytes = static_cast<uint32_t>(index_packed.size() + kSealTagBytes);

    std::vector<size_t> places(chunks.size());
    size_t object_bytes = sf::kHeaderBytes + header.index_sealed_bytes;
    for (size_t i = 0; i < chunks.size(); ++i) {
        places[i] = object_bytes;
        object_bytes += chunks[i].packed_bytes + kSealTagBytes;
    }
    pub.object_bytes = object_bytes;

    BuiltSegment built;
    built.object.resize(object_bytes);
    const MutableByteView object(built.object);
    for_each(chunks.size(), [&](size_t i) {
        const auto plain_bytes = sf::chunk_plain_bytes(pub.payload_bytes, static_cast<uint32_t>(i));
        sealer.seal(counter_nonce(i),
                    sf::chunk_associated(pub, static_cast<uint32_t>(i), plain_bytes, chunks[i]),
                    packed[i], object.subspan(places[i], packed[i].size() + kSealTagBytes));
        Bytes().swap(packed[i]);
    });
    const Bytes unfinished = sf::encode_header(header);
    sealer.seal(counter_nonce(sf::kIndexNonce), sf::index_associated(unfinished), index_packed,
                object.subspan(sf::kHeaderBytes, header.index_sealed_bytes));
    header.body_digest = sha256(object.subspan(sf::kHeaderBytes));
    const Bytes encoded = sf::encode_header(header);
    std::ranges::copy(encoded, object.begin());
    pub.header_hash = sha256(encoded);
    built.header = pub;
    state_ = std::make_unique<State>();
    return built;
}

}  // namespace farshore
