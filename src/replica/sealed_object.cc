#include "replica/sealed_object.h"

#include <fmt/core.h>

#include "codec/compress.h"
#include "codec/crc32c.h"
#include "codec/envelope.h"
#include "codec/hash.h"
#include "store/object_store.h"

namespace farshore {
namespace {

constexpr uint16_t kVersion = 1;
constexpr size_t kCrcAt = 8, kVersionAt = 12, kHeaderBytesAt = 14, kItemAt = 16, kNameAt = 32,
                 kCodecAt = 48, kPlainBytesAt = 52, kSealedBytesAt = 56, kKeyAt = 64,
                 kHeaderBytes = 128;
static_assert(kKeyAt + kWrappedKeyBytes <= kHeaderBytes);
// Nonce of the body under the object's own data key, which seals nothing else.
constexpr uint64_t kBodyNonce = 0;

Digest name_digest(const std::string& name) { return sha256(as_bytes(name)); }

// What binds the data key to this object.
Bytes key_associated(std::string_view magic, const ItemId& item, const Digest& name) {
    Bytes out;
    ByteWriter writer(out);
    writer.bytes(as_bytes(magic));
    writer.bytes(item.view());
    writer.bytes(ByteView(name).first(16));
    return out;
}

}  // namespace

Result<Bytes> seal_object(std::string_view magic, const std::string& name, const ItemId& item,
                          ByteView body, const Secret& item_key, Random& random) {
    if (body.size() > kMaxPlainBytes)
        return fail(Code::kTooLarge, fmt::format("{}: its body has {} bytes", name, body.size()));
    Bytes packed;
    const Compression codec = compress(Compression::kZstd, body, packed);
    if (codec == Compression::kRaw) packed.assign(body.begin(), body.end());
    const size_t object_bytes = kHeaderBytes + packed.size() + kSealTagBytes;
    if (object_bytes > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("{} would have {} bytes", name, object_bytes));

    const Digest digest = name_digest(name);
    const Secret data_key = make_key(random);
    FS_ASSIGN(const SealKey key, SealKey::make(data_key));
    FS_ASSIGN(const Bytes wrapped,
              wrap_key(item_key, data_key, key_associated(magic, item, digest), random));
    Bytes out(object_bytes);
    std::copy(magic.begin(), magic.end(), out.begin());
    store_u16(&out[kVersionAt], kVersion);
    store_u16(&out[kHeaderBytesAt], kHeaderBytes);
    std::copy(item.raw.begin(), item.raw.end(), out.begin() + kItemAt);
    std::copy(digest.begin(), digest.begin() + 16, out.begin() + kNameAt);
    out[kCodecAt] = static_cast<uint8_t>(codec);
    store_u32(&out[kPlainBytesAt], static_cast<uint32_t>(body.size()));
    store_u32(&out[kSealedBytesAt], static_cast<uint32_t>(packed.size() + kSealTagBytes));
    std::copy(wrapped.begin(), wrapped.end(), out.begin() + kKeyAt);
    const ByteView header = ByteView(out).first(kHeaderBytes);
    store_u32(&out[kCrcAt], crc32c(header.subspan(kVersionAt)));
    key.seal(counter_nonce(kBodyNonce), header.subspan(kVersionAt), packed,
             MutableByteView(out).subspan(kHeaderBytes));
    return out;
}

Result<Bytes> open_object(std::string_view magic, const std::string& name, const ItemId& item,
                          ByteView object, const Secret& item_key) {
    const auto refuse = [&](Code code, const std::string& what, std::string remedy = {}) {
        return fail(code, name + " " + what, std::move(remedy));
    };
    if (object.size() < kHeaderBytes) return refuse(Code::kTruncated, "ends inside its header");
    const ByteView header = object.first(kHeaderBytes);
    if (as_text(header.first(8)) != magic)
        return refuse(Code::kMalformed, "is another kind of object, or not Farshore's");
    // A newer version may have a longer header, which the checksum then covers too; so the version
    // is looked at first.
    if (load_u16(&header[kVersionAt]) > kVersion)
        return refuse(Code::kNewerVersion, "was written by a newer version of Farshore",
                      "use that version or a newer one");
    if (load_u32(&header[kCrcAt]) != crc32c(header.subspan(kVersionAt)))
        return refuse(Code::kCorrupt, "has a header that does not match its checksum");
    if (load_u16(&header[kVersionAt]) != kVersion ||
        load_u16(&header[kHeaderBytesAt]) != kHeaderBytes)
        return refuse(Code::kMalformed, "has a header that no version writes");
    for (const auto& [from, to] :
         {std::pair{kCodecAt + 1, kPlainBytesAt}, std::pair{kSealedBytesAt + 4, kKeyAt},
          std::pair{kKeyAt + kWrappedKeyBytes, kHeaderBytes}}) {
        if (!all_zero(header.subspan(from, to - from)))
            return refuse(Code::kMalformed, "has reserved bytes that are not zero");
    }
    if (!std::equal(item.raw.begin(), item.raw.end(), header.begin() + kItemAt))
        return refuse(Code::kForeignStore, "belongs to another item");
    const Digest digest = name_digest(name);
    if (!std::equal(digest.begin(), digest.begin() + 16, header.begin() + kNameAt))
        return refuse(Code::kCorrupt, "stood under another name when it was written");
    const size_t sealed_bytes = load_u32(&header[kSealedBytesAt]);
    const size_t there = object.size() - kHeaderBytes;
    if (there < sealed_bytes)
        return refuse(Code::kTruncated, fmt::format("has {} of {} bytes", object.size(),
                                                    kHeaderBytes + sealed_bytes));
    if (there > sealed_bytes) return refuse(Code::kCorrupt, "has bytes behind its end");
    if (sealed_bytes < kSealTagBytes) return refuse(Code::kMalformed, "has no body");
    const size_t plain_bytes = load_u32(&header[kPlainBytesAt]);
    if (plain_bytes > kMaxPlainBytes) return refuse(Code::kTooLarge, "has too large a body");

    const auto context = [&](const Error& error) { return fail(error.with_context(name)); };
    auto data_key = unwrap_key(item_key, header.subspan(kKeyAt, kWrappedKeyBytes),
                               key_associated(magic, item, digest));
    if (!data_key) return context(data_key.error());
    FS_ASSIGN(const SealKey key, SealKey::make(*data_key));
    Bytes packed(sealed_bytes - kSealTagBytes);
    if (Status s = key.open(counter_nonce(kBodyNonce), header.subspan(kVersionAt),
                            object.subspan(kHeaderBytes), packed);
        !s)
        return context(s.error());
    auto body = decompress(static_cast<Compression>(header[kCodecAt]), packed, plain_bytes);
    if (!body) return context(body.error());
    return body;
}

}  // namespace farshore
