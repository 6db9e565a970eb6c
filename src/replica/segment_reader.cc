#include <fmt/core.h>

#include <algorithm>

#include "codec/hash.h"
#include "replica/segment_format.h"
#include "store/object_store.h"

namespace farshore {

namespace sf = segment_format;

namespace {

// One ranged get of this size brings header and index of almost every segment: 16 MiB of 4 KiB
// writes have an index of about 40 KiB.
constexpr size_t kFirstReadBytes = 256u << 10;

class OpenedSegment final : public SegmentReader {
  public:
    OpenedSegment(std::string name, const sf::Header& header, SealKey key, sf::Index index)
        : name_(std::move(name)),
          header_(header),
          key_(std::move(key)),
          chunks_(std::move(index.chunks)),
          entries_(std::move(index.entries)) {
        places_.reserve(chunks_.size() + 1);
        uint64_t at = sf::kHeaderBytes + header_.index_sealed_bytes;
        for (const sf::Chunk& chunk : chunks_) {
            places_.push_back(at);
            at += chunk.packed_bytes + kSealTagBytes;
        }
        places_.push_back(at);
    }

    const SegmentHeader& header() const override { return header_.pub; }
    const std::vector<IndexEntry>& index() const override { return entries_; }
    std::vector<bool> dense_chunks(uint32_t percent) const override {
        std::vector<bool> out;
        for (uint32_t i = 0; i < chunks_.size(); ++i)
            out.push_back(uint64_t{chunks_[i].packed_bytes} * 100 >
                          uint64_t{sf::chunk_plain_bytes(header_.pub.payload_bytes, i)} * percent);
        return out;
    }
    void forget_index() override { std::vector<IndexEntry>().swap(entries_); }
    uint64_t end() const { return places_.back(); }

    Result<Bytes> read_chunk(ObjectStore& store, uint32_t chunk) const override {
        if (chunk >= chunks_.size())
            return fail(Code::kInvalidArgument,
                        fmt::format("{} has {} chunks, no chunk {}", name_, chunks_.size(), chunk));
        const uint64_t wanted = places_[chunk + 1] - places_[chunk];
        FS_ASSIGN(Bytes sealed, store.get_range(name_, places_[chunk], wanted));
        if (sealed.size() != wanted)
            return fail(sealed.size() < wanted ? Code::kTruncated : Code::kIo,
                        fmt::format("{}: chunk {} has {} of {} bytes", name_, chunk, sealed.size(),
                                    wanted));
        return open_chunk(chunk, sealed);
    }

    Status verify_all(ObjectStore& store) const override {
        FS_ASSIGN(Bytes object, store.get(name_));
        if (object.size() != header_.pub.object_bytes)
            return fail(
                object.size() < header_.pub.object_bytes ? Code::kTruncated : Code::kCorrupt,
                fmt::format("{} has {} bytes, its header says {}", name_, object.size(),
                            header_.pub.object_bytes));
        if (sha256(ByteView(object).first(sf::kHeaderBytes)) != header_.pub.header_hash)
            return fail(Code::kCorrupt, fmt::format("{}: its header has changed", name_));
        if (sha256(ByteView(object).subspan(sf::kHeaderBytes)) != header_.body_digest)
            return fail(Code::kCorrupt,
                        fmt::format("{} does not match the SHA-256 in its header", name_));
        for (uint32_t i = 0; i < chunks_.size(); ++i) {
            const auto sealed = ByteView(object).subspan(places_[i], places_[i + 1] - places_[i]);
            if (auto plain = open_chunk(i, sealed); !plain) return fail(plain.error());
        }
        return {};
    }

  private:
    Result<Bytes> open_chunk(uint32_t chunk, ByteView sealed) const {
        const sf::Chunk& info = chunks_[chunk];
        const uint32_t plain_bytes = sf::chunk_plain_bytes(header_.pub.payload_bytes, chunk);
        const auto associated = sf::chunk_associated(header_.pub, chunk, plain_bytes, info);
        const auto context = [&](const Error& error) {
            return fail(error.with_context(fmt::format("{}, chunk {}", name_, chunk)));
        };
        Bytes plain(plain_bytes);
        if (info.codec == Compression::kRaw) {
            if (Status s = key_.open(counter_nonce(chunk), associated, sealed, plain); !s)
                return context(s.error());
            return plain;
        }
        thread_local Bytes packed;
        packed.resize(info.packed_bytes);
        if (Status s = key_.open(counter_nonce(chunk), associated, sealed, packed); !s)
            return context(s.error());
        if (Status s = decompress(info.codec, packed, MutableByteView(plain)); !s)
            return context(s.error());
        return plain;
    }

    const std::string name_;
    const sf::Header header_;
    const SealKey key_;
    const std::vector<sf::Chunk> chunks_;
    std::vector<uint64_t> places_;  // where each sealed chunk starts, and where the last ends
    std::vector<IndexEntry> entries_;
};

Result<std::shared_ptr<SegmentReader>> open_segment(ObjectStore& store, const std::string& name,
                                                    const ItemId& item, const Secret& item_key) {
    FS_ASSIGN(Bytes front, store.get_range(name, 0, kFirstReadBytes));
    FS_ASSIGN(sf::Header header, sf::decode_header(front));
    const SegmentHeader& pub = header.pub;
    if (pub.item != item)
        return fail(
            Code::kForeignStore,
            fmt::format("it belongs to item {}, not {}", pub.item.to_string(), item.to_string()),
            "somebody moved objects between items or stores; put them back");
    if (segment_object_name(pub) != name)
        return fail(Code::kCorrupt,
                    fmt::format("it is {}, under another name", segment_object_name(pub)),
                    "somebody renamed objects of the store; put them back");
    // What the first read shows of the object's length must be what the header says.
    if (front.size() > pub.object_bytes)
        return fail(Code::kCorrupt,
                    fmt::format("{} bytes follow its end", front.size() - pub.object_bytes));
    if (front.size() < std::min<uint64_t>(kFirstReadBytes, pub.object_bytes))
        return fail(Code::kTruncated,
                    fmt::format("{} of {} bytes are there", front.size(), pub.object_bytes));

    FS_ASSIGN(Secret data_key, unwrap_key(item_key, header.wrapped_key, sf::key_associated(pub)));
    FS_ASSIGN(SealKey key, SealKey::make(data_key));
    const size_t index_end = sf::kHeaderBytes + header.index_sealed_bytes;
    if (front.size() < index_end) {
        FS_ASSIGN(Bytes rest, store.get_range(name, front.size(), index_end - front.size()));
        front.insert(front.end(), rest.begin(), rest.end());
        if (front.size() != index_end)
            return fail(Code::kTruncated, fmt::format("it ends inside its index at {} of {} bytes",
                                                      front.size(), pub.object_bytes));
    }
    const ByteView sealed = ByteView(front).subspan(sf::kHeaderBytes, header.index_sealed_bytes);
    Bytes packed(sealed.size() - kSealTagBytes);
    FS_TRY(key.open(counter_nonce(sf::kIndexNonce), sf::index_associated(front), sealed, packed));
    Bytes plain;
    if (header.index_codec == Compression::kRaw && packed.size() == header.index_plain_bytes) {
        plain.swap(packed);
    } else {
        FS_ASSIGN(plain, decompress(header.index_codec, packed, header.index_plain_bytes));
    }
    FS_ASSIGN(sf::Index index, sf::decode_index(plain, pub));
    auto opened = std::make_shared<OpenedSegment>(name, header, std::move(key), std::move(index));
    if (opened->end() != opened->header().object_bytes)
        return fail(Code::kMalformed, "its chunks do not fill it");
    return opened;
}

}  // namespace

Result<std::shared_ptr<SegmentReader>> SegmentReader::open(ObjectStore& store,
                                                           const std::string& name,
                                                           const ItemId& item,
                                                           const Secret& item_key) {
    auto opened = open_segment(store, name, item, item_key);
    if (!opened) return fail(opened.error().with_context(fmt::format("segment {}", name)));
    return opened;
}

}  // namespace farshore
