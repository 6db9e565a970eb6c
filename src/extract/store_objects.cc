#include "extract/store_objects.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "codec/crc32c.h"
#include "codec/document.h"
#include "codec/hash.h"

namespace farshore::extraction {
namespace {

constexpr uint64_t kSegmentHeader = 320;
constexpr uint64_t kSealedHeader = 128;
constexpr uint64_t kMaxPayload = 32ull << 20;
constexpr uint64_t kMaxIndex = 24ull << 20;
constexpr uint64_t kMaxDisk = 64ull << 40;
constexpr DiskIndex kDisks = 64;
constexpr std::string_view kUpgrade = "use a newer version of farshore extract";

auto wrong(Code code, const std::string& name, std::string_view what,
           std::string_view remedy = {}) {
    return fail(code, fmt::format("{}: {}", name, what), std::string(remedy));
}

// LEB128 numbers; `ok` turns false at the first that is cut off or too large, and stays so.
class Numbers {
  public:
    explicit Numbers(ByteView in) : in_(in) {}
    uint64_t number(uint64_t limit = UINT64_MAX) {
        uint64_t value = 0;
        for (unsigned shift = 0;; shift += 7) {
            if (!ok || at_ == in_.size() || shift > 63) return stop();
            const uint8_t byte = in_[at_++];
            if (shift == 63 && byte > 1) return stop();
            value |= uint64_t{byte & 127u} << shift;
            if (byte < 128) break;
        }
        return value > limit ? stop() : value;
    }
    int64_t signed_number() {
        const uint64_t v = number();
        return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
    }
    uint8_t byte() {
        if (!ok || at_ == in_.size()) return static_cast<uint8_t>(stop());
        return in_[at_++];
    }
    ByteView bytes(uint64_t n) {
        if (!ok || n > in_.size() - at_) {
            stop();
            return {};
        }
        const ByteView view = in_.subspan(at_, n);
        at_ += n;
        return view;
    }
    size_t left() const { return in_.size() - at_; }
    bool ok = true;

  private:
    uint64_t stop() {
        ok = false;
        return 0;
    }
    ByteView in_;
    size_t at_ = 0;
};

bool hex_field(std::string_view& text, size_t digits, std::string_view after, uint64_t& value) {
    if (text.size() < digits + after.size() || text.substr(digits, after.size()) != after)
        return false;
    value = 0;
    for (char c : text.substr(0, digits)) {
        const bool decimal = c >= '0' && c <= '9';
        if (!decimal && (c < 'a' || c > 'f')) return false;
        value = value << 4 | static_cast<uint64_t>(decimal ? c - '0' : c - 'a' + 10);
    }
    text.remove_prefix(digits + after.size());
    return true;
}

// The checks that the headers of all sealed objects share. Returns the version's header length.
Status check_front(ByteView front, std::string_view magic, uint64_t header_bytes,
                   const std::string& name) {
    if (front.size() < 16) return wrong(Code::kTruncated, name, "it ends inside its header");
    if (as_text(front.first(8)) != magic)
        return wrong(Code::kMalformed, name, "it does not begin as it should");
    const size_t covered = load_u16(&front[14]);
    if (covered < 16 || covered > 4096) return wrong(Code::kCorrupt, name, "its header is damaged");
    if (front.size() < covered) return wrong(Code::kTruncated, name, "it ends inside its header");
    if (load_u32(&front[8]) != crc32c(front.subspan(12, covered - 12)))
        return wrong(Code::kCorrupt, name, "its header does not match its checksum");
    if (load_u16(&front[12]) != 1)
        return wrong(Code::kNewerVersion, name, "it has a newer format", kUpgrade);
    if (covered != header_bytes) return wrong(Code::kMalformed, name, "its header's length");
    return {};
}

Result<Bytes> open_sealed(const StoreReader& store, std::string_view magic, const std::string& name,
                          const ItemId& item, const Secret& item_key) {
    FS_ASSIGN(const Bytes object, store.read(name));
    FS_TRY(check_front(object, magic, kSealedHeader, name));
    ByteReader in(ByteView(object).subspan(16), name);
    FS_ASSIGN(const ByteView own_item, in.bytes(16));
    FS_ASSIGN(const ByteView own_name, in.bytes(16));
    FS_ASSIGN(const uint8_t codec, in.u8());
    FS_TRY(in.bytes(3));
    FS_ASSIGN(const uint32_t plain_bytes, in.u32());
    FS_ASSIGN(const uint32_t sealed_bytes, in.u32());
    FS_TRY(in.bytes(4));
    FS_ASSIGN(const ByteView wrapped, in.bytes(kWrappedKeyBytes));
    if (!std::ranges::equal(own_item, item.raw))
        return wrong(Code::kForeignStore, name, "it belongs to another item");
    const Digest digest = sha256(as_bytes(name));
    if (!std::ranges::equal(own_name, ByteView(digest).first(16)))
        return wrong(Code::kCorrupt, name, "it had another name when it was written");
    if (object.size() < kSealedHeader + sealed_bytes)
        return wrong(Code::kTruncated, name, "it is shorter than its header says");
    if (object.size() > kSealedHeader + sealed_bytes)
        return wrong(Code::kCorrupt, name, "it is longer than its header says");
    if (sealed_bytes < kSealTagBytes) return wrong(Code::kMalformed, name, "it has no body");

    Bytes bound = to_bytes(as_bytes(magic));
    bound.insert(bound.end(), own_item.begin(), own_item.end());
    bound.insert(bound.end(), own_name.begin(), own_name.end());
    FS_ASSIGN(const Secret data_key, unwrap_key(item_key, wrapped, bound));
    FS_ASSIGN(const SealKey key, SealKey::make(data_key));
    Bytes packed(sealed_bytes - kSealTagBytes);
    const ByteView all(object);
    if (!key.open(counter_nonce(0), all.subspan(12, kSealedHeader - 12), all.subspan(kSealedHeader),
                  packed))
        return wrong(Code::kCorrupt, name, "its body does not match its tag");
    return decompress(static_cast<Compression>(codec), packed, plain_bytes);
}

}  // namespace

Result<Bytes> StoreDirectory::read(const std::string& name) const {
    FS_ASSIGN(const auto file, files_.open(fmt::format("{}/{}", root_, name), OpenMode::kRead));
    FS_ASSIGN(const uint64_t size, file->size());
    if (size > kMaxObject) return wrong(Code::kTooLarge, name, "larger than any object");
    Bytes out(size);
    FS_ASSIGN(const size_t n, file->read_at(0, out));
    out.resize(n);
    return out;
}

Result<Bytes> StoreDirectory::read_range(const std::string& name, uint64_t from,
                                         uint64_t length) const {
    FS_ASSIGN(const auto file, files_.open(fmt::format("{}/{}", root_, name), OpenMode::kRead));
    if (length > kMaxObject) return wrong(Code::kTooLarge, name, "larger than any object");
    Bytes out(length);
    FS_ASSIGN(const size_t n, file->read_at(from, out));
    if (n != length)
        return wrong(Code::kTruncated, name,
                     fmt::format("it ends at byte {}, {} were expected", from + n, from + length));
    return out;
}

Result<std::vector<std::string>> StoreDirectory::list(const std::string& directory) const {
    auto names = files_.list(fmt::format("{}/{}", root_, directory));
    if (!names && names.error().code() == Code::kNotFound) return std::vector<std::string>{};
    return names;
}

Status check_store(const StoreReader& store) {
    auto object = store.read("farshore-store");
    if (!object && object.error().code() == Code::kNotFound)
        return fail(Code::kForeignStore,
                    "the directory is no Farshore store: it has no object "
                    "'farshore-store'",
                    "give the store's directory, for example DATA/store");
    if (!object) return fail(object.error());
    FS_ASSIGN(const std::string text, decode_document(*object, "farshore-store"));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("format") || !json["format"].is_number_unsigned())
        return fail(Code::kMalformed, "farshore-store names no format");
    if (json["format"].get<uint64_t>() > 1)
        return fail(Code::kNewerVersion, "the store has a newer format", std::string(kUpgrade));
    return {};
}

Result<ItemDescription> decode_item(ByteView object, const ItemId& item) {
    const std::string name = fmt::format("items/{}/item", item.to_string());
    FS_ASSIGN(const std::string text, decode_document(object, name));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    const auto has = [](const nlohmann::json& in, const char* field, auto is) {
        return in.is_object() && in.contains(field) && (in[field].*is)();
    };
    constexpr auto is_text = &nlohmann::json::is_string;
    constexpr auto is_number = &nlohmann::json::is_number_unsigned;
    constexpr auto is_list = &nlohmann::json::is_array;
    constexpr auto is_object = &nlohmann::json::is_object;
    const auto bad = [&] { return wrong(Code::kMalformed, name, "a field is missing"); };
    if (!has(json, "format", is_number)) return bad();
    const auto format = json["format"].get<uint64_t>();
    if (format > 2) return wrong(Code::kNewerVersion, name, "it has a newer format", kUpgrade);
    const bool keyed = format != 2;
    if (!has(json, "item", is_text) || !has(json, "name", is_text) || !has(json, "disks", is_list))
        return bad();
    if (keyed && (!has(json, "key", is_object) || !has(json["key"], "id", is_text) ||
                  !has(json["key"], "wrapped", is_text)))
        return bad();
    ItemDescription out;
    FS_ASSIGN(out.item, ItemId::parse(json["item"].get<std::string>()));
    if (out.item != item) return wrong(Code::kForeignStore, name, "it describes another item");
    out.name = json["name"].get<std::string>();
    if (keyed) {
        out.key_id = json["key"]["id"].get<std::string>();
        FS_ASSIGN(out.wrapped_key, from_hex(json["key"]["wrapped"].get<std::string>()));
    }
    for (const auto& disk : json["disks"]) {
        if (!has(disk, "index", is_number) || !has(disk, "size_bytes", is_number)) return bad();
        const auto index = disk["index"].get<uint64_t>();
        const auto size = disk["size_bytes"].get<uint64_t>();
        if (index >= kDisks || size > kMaxDisk) return bad();
        out.disks.emplace_back(static_cast<DiskIndex>(index), size);
    }
    return out;
}

std::string segment_name(const ItemId& item, const Ref& ref) {
    const bool log = ref.kind == 1;
    return fmt::format("items/{}/{}/{:016x}-{:016x}.{}", item.to_string(), log ? "log" : "base",
                       ref.number, ref.epoch, log ? "seg" : "base");
}

bool parse_key_name(std::string_view file, uint64_t& generation, uint64_t& vault) {
    return hex_field(file, 16, "-", generation) && hex_field(file, 16, ".key", vault) &&
           file.empty();
}

bool parse_segment_name(std::string_view file, uint8_t kind, Ref& ref) {
    ref.kind = kind;
    return hex_field(file, 16, "-", ref.number) &&
           hex_field(file, 16, kind == 1 ? ".seg" : ".base", ref.epoch) && file.empty();
}

bool parse_lease_name(std::string_view file, Lease& lease) {
    if (!hex_field(file, 16, "-", lease.epoch) || !hex_field(file, 16, "-", lease.start) ||
        !hex_field(file, 16, "", lease.before) || !file.empty())
        return false;
    return lease.start != 0 && (lease.start == 1) == (lease.before == 0);
}

std::vector<Lease> leases_that_count(std::vector<Lease> leases) {
    std::ranges::sort(leases, [](const Lease& a, const Lease& b) {
        return std::pair(a.epoch, a.start) > std::pair(b.epoch, b.start);
    });
    std::vector<Lease> out;
    for (const Lease& lease : leases)
        if (out.empty() || (lease.epoch == out.back().before && lease.start < out.back().start))
            out.push_back(lease);
    return out;
}

void keep_owned(const std::vector<Lease>& leases, uint64_t number, std::vector<Ref>& refs) {
    if (leases.empty()) return;
    const auto own =
        std::ranges::find_if(leases, [&](const Lease& lease) { return lease.start <= number; });
    std::erase_if(refs, [&](const Ref& ref) {
        if (own == leases.end()) return ref.epoch > leases.back().before;
        return own == leases.begin() ? ref.epoch < own->epoch : ref.epoch != own->epoch;
    });
}

bool parse_manifest_name(std::string_view file, ManifestName& name) {
    name.file = std::string(file);
    return hex_field(file, 16, "-", name.sequence) && hex_field(file, 16, "-", name.vault) &&
           hex_field(file, 16, ".manifest", name.number) && file.empty();
}

Result<uint64_t> segment_front_bytes(ByteView header) {
    FS_TRY(check_front(header, "FARSHSEG", kSegmentHeader, "segment"));
    const uint64_t sealed = load_u32(&header[144]);
    if (sealed <= kSealTagBytes || sealed > kMaxIndex + kSealTagBytes)
        return fail(Code::kMalformed, "segment: its index's length");
    return kSegmentHeader + sealed;
}

Result<Segment> decode_segment(ByteView front, const std::string& name, const ItemId& item,
                               const Secret& item_key) {
    FS_TRY(check_front(front, "FARSHSEG", kSegmentHeader, name));
    Segment out;
    out.name = name;
    ByteReader in(front.subspan(16), name);
    FS_ASSIGN(out.ref.kind, in.u8());
    FS_TRY(in.bytes(3));
    FS_ASSIGN(const uint32_t chunk_bytes, in.u32());
    FS_ASSIGN(const ByteView own_item, in.bytes(16));
    std::ranges::copy(own_item, out.item.raw.begin());
    FS_ASSIGN(out.ref.epoch, in.u64());
    FS_ASSIGN(out.ref.number, in.u64());
    FS_ASSIGN(out.first, in.u64());
    FS_ASSIGN(out.last, in.u64());
    FS_ASSIGN(const uint64_t first_time, in.u64());
    FS_ASSIGN(const uint64_t last_time, in.u64());
    out.first_time_us = static_cast<int64_t>(first_time);
    out.last_time_us = static_cast<int64_t>(last_time);
    FS_ASSIGN(const ByteView previous, in.bytes(32));
    std::ranges::copy(previous, out.previous.begin());
    FS_ASSIGN(out.payload_bytes, in.u64());
    FS_ASSIGN(out.object_bytes, in.u64());
    FS_ASSIGN(const uint32_t records, in.u32());
    FS_ASSIGN(const uint32_t chunks, in.u32());
    FS_ASSIGN(const uint32_t index_sealed, in.u32());
    FS_ASSIGN(const uint32_t index_plain, in.u32());
    FS_ASSIGN(const uint8_t index_codec, in.u8());
    FS_TRY(in.bytes(7));
    FS_ASSIGN(const ByteView wrapped, in.bytes(kWrappedKeyBytes));
    const auto bad = [&](std::string_view what) { return wrong(Code::kMalformed, name, what); };
    if (out.item != item) return wrong(Code::kForeignStore, name, "it belongs to another item");
    if (out.ref.kind != 1 && out.ref.kind != 2) return bad("it is of an unknown kind");
    if (segment_name(item, out.ref) != name)
        return wrong(Code::kCorrupt, name, "it had another name when it was written");
    if (chunk_bytes != kChunk) return bad("it has chunks of an unknown size");
    if (out.payload_bytes > kMaxPayload || chunks != (out.payload_bytes + kChunk - 1) / kChunk)
        return bad("its chunks do not fit its payload");
    if (index_sealed <= kSealTagBytes || index_plain > kMaxIndex) return bad("its index's length");
    const uint64_t index_end = kSegmentHeader + index_sealed;
    if (front.size() < index_end) return wrong(Code::kTruncated, name, "it ends inside its index");
    out.digest = sha256(front.first(kSegmentHeader));

    Bytes bound = to_bytes(as_bytes("farshore-data-key"));
    ByteWriter binding(bound);
    binding.bytes(own_item);
    binding.u64(out.ref.epoch);
    binding.u64(out.ref.number);
    binding.u8(out.ref.kind);
    FS_ASSIGN(out.data_key, unwrap_key(item_key, wrapped, bound));
    FS_ASSIGN(const SealKey key, SealKey::make(out.data_key));
    Bytes packed(index_sealed - kSealTagBytes);
    if (!key.open(counter_nonce(UINT64_MAX), front.subspan(12, 160 - 12),
                  front.subspan(kSegmentHeader, index_sealed), packed))
        return wrong(Code::kCorrupt, name, "its index does not match its tag");
    FS_ASSIGN(const Bytes plain,
              decompress(static_cast<Compression>(index_codec), packed, index_plain));
    auto entries = decode_index(plain, records, chunks, out);
    if (!entries) return fail(entries.error().with_context(name));
    out.entries = std::move(*entries);
    uint64_t at = index_end;
    for (Segment::Chunk& chunk : out.chunks) {
        chunk.at = at;
        at += chunk.packed_bytes + kSealTagBytes;
    }
    if (at != out.object_bytes) return bad("its chunks do not fill it");
    return out;
}

Result<std::vector<Entry>> decode_index(ByteView plain, uint32_t records, size_t chunks,
                                        Segment& segment) {
    Numbers in(plain);
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("index: {}", what));
    };
    for (size_t i = 0; i < chunks; ++i) {
        const uint8_t codec = in.byte();
        const auto packed = static_cast<uint32_t>(in.number(kChunk));
        if (codec > 2)
            return fail(Code::kNewerVersion, "index: a chunk of an unknown codec",
                        std::string(kUpgrade));
        segment.chunks.push_back({static_cast<Compression>(codec), packed, 0});
    }
    std::vector<Entry> entries;
    Entry last;  // what the next entry may leave out
    uint32_t last_length = 0;
    uint64_t position = 0;
    std::vector<uint64_t> ends(kDisks);
    for (uint32_t i = 0; i < records && in.ok; ++i) {
        const uint8_t tag = in.byte();
        Entry entry;
        entry.kind = tag & 15;
        if (in.ok && (entry.kind < 1 || entry.kind > 9))
            return fail(Code::kNewerVersion, "index: a record of an unknown kind",
                        std::string(kUpgrade));
        if (tag & 128) entry.flags = in.byte();
        entry.disk = tag & 16 ? last.disk : static_cast<DiskIndex>(in.number(kDisks - 1));
        entry.sequence = last.sequence + (tag & 64 ? 1 : static_cast<uint64_t>(in.signed_number()));
        entry.time_us = static_cast<int64_t>(static_cast<uint64_t>(last.time_us) +
                                             static_cast<uint64_t>(in.signed_number()));
        const bool range = entry.kind >= kWriteRecord && entry.kind <= kDiscardRecord;
        const uint64_t coded = in.number();
        const uint64_t value = coded >> 1;
        const uint64_t moved = (value >> 1) ^ (0 - (value & 1));
        entry.offset = (range ? ends[entry.disk] : 0) + (coded & 1 ? moved : moved * 512);
        if (range || entry.kind == kPointRecord) {
            entry.length = tag & 32 ? last_length : static_cast<uint32_t>(in.number(1u << 30));
            last_length = entry.length;
        }
        if (entry.offset > kMaxDisk || (range && entry.offset + entry.length > kMaxDisk))
            return bad("a record beyond the largest disk");
        if (entry.kind == kPointRecord) entry.label = to_text(in.bytes(entry.length));
        if (range) ends[entry.disk] = entry.offset + entry.length;
        if (entry.kind == kWriteRecord) {
            if (position + entry.length > segment.payload_bytes) return bad("too much payload");
            entry.position = static_cast<uint32_t>(position);
            position += entry.length;
        }
        last = entry;
        last.label.clear();
        if (entry.sequence < segment.first || entry.sequence > segment.last)
            return bad("a sequence outside the segment");
        entries.push_back(std::move(entry));
    }
    if (!in.ok) return fail(Code::kTruncated, "index: it ends early or a number is too large");
    if (in.left() != 0 || position != segment.payload_bytes) return bad("it does not add up");
    return entries;
}

Result<Segment> open_segment(const StoreReader& store, const ItemId& item, const Ref& ref,
                             const Secret& item_key) {
    const std::string name = segment_name(item, ref);
    FS_ASSIGN(const Bytes header, store.read_range(name, 0, kSegmentHeader));
    FS_ASSIGN(const uint64_t front_bytes, segment_front_bytes(header));
    FS_ASSIGN(const Bytes front, store.read_range(name, 0, front_bytes));
    return decode_segment(front, name, item, item_key);
}

Status PayloadReader::load(size_t chunk) {
    if (chunk == loaded_) return {};
    loaded_ = SIZE_MAX;
    const Segment::Chunk& info = segment_.chunks[chunk];
    const uint64_t plain_bytes =
        std::min<uint64_t>(kChunk, segment_.payload_bytes - chunk * kChunk);
    FS_ASSIGN(const Bytes sealed,
              store_.read_range(segment_.name, info.at, info.packed_bytes + kSealTagBytes));
    Bytes bound;
    ByteWriter binding(bound);
    binding.bytes(segment_.item.raw);
    binding.u64(segment_.ref.epoch);
    binding.u64(segment_.ref.number);
    binding.u32(static_cast<uint32_t>(chunk));
    binding.u32(static_cast<uint32_t>(plain_bytes));
    binding.u32(info.packed_bytes);
    binding.u8(static_cast<uint8_t>(info.codec));
    binding.u8(segment_.ref.kind);
    binding.u16(0);
    FS_ASSIGN(const SealKey key, SealKey::make(segment_.data_key));
    Bytes packed(info.packed_bytes);
    if (!key.open(counter_nonce(chunk), bound, sealed, packed))
        return wrong(Code::kCorrupt, segment_.name,
                     fmt::format("chunk {} does not match its tag", chunk));
    auto plain = decompress(info.codec, packed, plain_bytes);
    if (!plain) return fail(plain.error().with_context(segment_.name));
    plain_ = std::move(*plain);
    loaded_ = chunk;
    return {};
}

Status PayloadReader::read(uint64_t position, uint64_t length,
                           const std::function<Status(ByteView piece)>& sink) {
    if (position + length > segment_.payload_bytes)
        return wrong(Code::kMalformed, segment_.name, "something refers behind its payload");
    while (length > 0) {
        FS_TRY(load(position / kChunk));
        const uint64_t within = position % kChunk;
        const uint64_t n = std::min(length, plain_.size() - within);
        FS_TRY(sink(ByteView(plain_).subspan(within, n)));
        position += n;
        length -= n;
    }
    return {};
}

Result<ManifestContent> decode_manifest_content(ByteView body) {
    Numbers in(body);
    ManifestContent out;
    out.sequence = in.number();
    out.time_us = in.signed_number();
    out.name.vault = in.number();
    out.name.number = in.number();
    out.segment = in.number();
    out.segment_epoch = in.number();
    if (const ByteView digest = in.bytes(32); in.ok)
        std::ranges::copy(digest, out.segment_digest.begin());
    out.floor = in.number();
    out.floor_segment = in.number();
    out.floor_time_us = in.signed_number();
    (void)in.number();            // bytes that the guest wrote
    (void)in.bytes(in.number());  // the manifest before
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        const uint64_t index = in.number(2 * kDisks - 1);  // from kDisks on: it joins
        const uint64_t size = in.number(kMaxDisk);
        out.disks.push_back({static_cast<DiskIndex>(index % kDisks), size, index >= kDisks});
    }
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        ManifestContent::ShardName shard{};
        shard.disk = static_cast<DiskIndex>(in.number(kDisks - 1));
        shard.shard = static_cast<uint32_t>(in.number(kMaxDisk / kShard - 1));
        shard.vault = in.number();
        shard.number = in.number();
        (void)in.number();  // its object's length
        out.shards.push_back(shard);
    }
    for (uint64_t n = in.number(); n > 0 && in.ok; --n)
        for (int field = 0; field < 5; ++field) (void)in.number();  // objects that are in use
    Point point;
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        point.sequence += in.number();
        (void)in.number();  // kind
        point.time_us = static_cast<int64_t>(static_cast<uint64_t>(point.time_us) +
                                             static_cast<uint64_t>(in.signed_number()));
        point.label = to_text(in.bytes(in.number()));
        out.points.push_back(point);
    }
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        Gap gap;
        gap.last_good = in.number();
        gap.gap = in.number();
        gap.resynced = in.number();
        (void)in.signed_number();
        (void)in.signed_number();
        out.gaps.push_back(gap);
    }
    if (!in.ok) return fail(Code::kTruncated, "manifest: it ends early or a number is too large");
    if (in.left() != 0) return fail(Code::kMalformed, "manifest: bytes are left over");
    return out;
}

Result<ManifestContent> open_manifest(const StoreReader& store, const ItemId& item,
                                      const ManifestName& name, const Secret& item_key,
                                      std::string_view folder) {
    const std::string full = fmt::format("items/{}/{}/{}", item.to_string(), folder, name.file);
    FS_ASSIGN(const Bytes body, open_sealed(store, "FARSHMAN", full, item, item_key));
    auto out = decode_manifest_content(body);
    if (!out) return fail(out.error().with_context(full));
    if (out->sequence != name.sequence || out->name.vault != name.vault ||
        out->name.number != name.number)
        return wrong(Code::kMalformed, full, "it is of another sequence");
    out->name = name;
    return out;
}

Result<std::vector<MapEntry>> decode_shard_content(ByteView body, DiskIndex disk, uint32_t shard) {
    Numbers in(body);
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("shard: {}", what));
    };
    if (in.number() != disk || in.number() != shard) return bad("it is of another place");
    std::vector<Ref> objects;
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        Ref ref;
        ref.kind = static_cast<uint8_t>(in.number(2));
        ref.number = in.number();
        ref.epoch = in.number();
        (void)in.number();  // bytes in use
        if (in.ok && ref.kind == 0) return bad("an object of an unknown kind");
        objects.push_back(ref);
    }
    std::vector<uint64_t> ends(objects.size());
    std::vector<MapEntry> out;
    uint64_t at = 0;
    for (uint64_t n = in.number(); n > 0 && in.ok; --n) {
        at += in.number(kShard);
        const uint64_t length = in.number(kShard);
        const uint64_t object = in.number();
        const int64_t moved = in.signed_number();
        if (!in.ok) break;
        if (object >= objects.size()) return bad("an object that it does not list");
        const uint64_t position = ends[object] + static_cast<uint64_t>(moved);
        if (at + length > kShard || position > kMaxPayload) return bad("a range too large");
        out.push_back({uint64_t{shard} * kShard + at, length, objects[object], position});
        at += length;
        ends[object] = position + length;
    }
    if (!in.ok) return fail(Code::kTruncated, "shard: it ends early or a number is too large");
    if (in.left() != 0) return bad("bytes are left over");
    return out;
}

Result<std::vector<MapEntry>> open_shard(const StoreReader& store, const ItemId& item,
                                         const ManifestContent::ShardName& shard,
                                         const Secret& item_key) {
    const std::string name =
        fmt::format("items/{}/shard/{:04x}-{:08x}-{:016x}-{:016x}.shard", item.to_string(),
                    shard.disk, shard.shard, shard.vault, shard.number);
    FS_ASSIGN(const Bytes body, open_sealed(store, "FARSHSHD", name, item, item_key));
    auto out = decode_shard_content(body, shard.disk, shard.shard);
    if (!out) return fail(out.error().with_context(name));
    return out;
}

}  // namespace farshore::extraction
