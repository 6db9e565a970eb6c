#include "keys/key_document.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "codec/document.h"
#include "codec/envelope.h"
#include "codec/rsa.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr uint64_t kFormat = 1;
constexpr size_t kMaxTextBytes = 2048;
constexpr size_t kMaxSealedBytes = 1024;

auto malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("key document: {}", what));
}

Bytes associated(std::string_view domain, std::string_view id) {
    Bytes out = to_bytes(as_bytes(domain));
    const ByteView text = as_bytes(id);
    out.insert(out.end(), text.begin(), text.end());
    return out;
}

json kdf_of(const KdfCost& cost, ByteView salt) {
    return {{"name", "argon2id"},
            {"memory_kib", cost.memory_kib},
            {"passes", cost.passes},
            {"lanes", cost.lanes},
            {"salt", to_hex(salt)}};
}

std::string dump(const json& out) {
    return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::string> text_of(const json& from, const char* field) {
    const auto found = from.find(field);
    if (found == from.end() || !found->is_string() ||
        found->get_ref<const std::string&>().size() > kMaxTextBytes)
        return malformed(fmt::format("'{}' is missing or no text", field));
    return found->get<std::string>();
}
Result<uint64_t> number_of(const json& from, const char* field, uint64_t limit = UINT64_MAX) {
    const auto found = from.find(field);
    if (found == from.end() || !found->is_number_unsigned() || found->get<uint64_t>() > limit)
        return malformed(fmt::format("'{}' is missing or out of range", field));
    return found->get<uint64_t>();
}

// The body of an escrow as one secret. Grown in one piece, so that no copy is left behind.
Secret escrow_body(const EscrowContent& content) {
    json keys = json::array(), items = json::array();
    size_t bytes = 256 + content.store_id.size();
    const auto placeholder = std::string(2 * kKeyBytes, '?');
    for (const KeyFile& key : content.keys) {
        keys.push_back({{"id", key.id}, {"key", placeholder}});
        bytes += 128;
    }
    for (const auto& item : content.items) {
        items.push_back(
            {{"item", item.item.to_string()}, {"key", placeholder}, {"name", item.name}});
        bytes += 256 + 6 * item.name.size();
    }
    std::string text = dump({{"items", std::move(items)}, {"keys", std::move(keys)}});
    // The keys go into the text only here, past the JSON library's buffers.
    Bytes out = to_bytes(as_bytes(text));
    size_t from = 0;
    const auto fill = [&](const Secret& key) {
        static constexpr char kDigits[] = "0123456789abcdef";
        const size_t at = text.find(placeholder, from);
        FS_CHECK(at != std::string::npos);
        for (size_t i = 0; i < kKeyBytes; ++i) {
            out[at + 2 * i] = static_cast<uint8_t>(kDigits[key.reveal()[i] >> 4]);
            out[at + 2 * i + 1] = static_cast<uint8_t>(kDigits[key.reveal()[i] & 15]);
        }
        from = at + placeholder.size();
    };
    for (const auto& item : content.items) fill(item.key);
    for (const KeyFile& key : content.keys) fill(key.key);
    return Secret(std::move(out));
}

Result<Bytes> escrow_document(const EscrowContent& content, const Secret& key, json seal,
                              TimePoint now, Random& random) {
    FS_ASSIGN(const SealKey sealer, SealKey::make(key));
    const Secret body = escrow_body(content);
    SealNonce nonce;
    random.fill(nonce);
    Bytes sealed(kSealNonceBytes + body.reveal().size() + kSealTagBytes);
    std::copy(nonce.begin(), nonce.end(), sealed.begin());
    sealer.seal(nonce, associated("farshore-escrow", content.store_id), body.reveal(),
                MutableByteView(sealed).subspan(kSealNonceBytes));
    return encode_document(dump({{"format", kFormat},
                                 {"what", "farshore-escrow"},
                                 {"store", content.store_id},
                                 {"created", to_rfc3339(now)},
                                 {"seal", std::move(seal)},
                                 {"body", to_hex(sealed)}}));
}

}  // namespace

std::string key_document_name(const std::string& key_id) {
    return std::string(kKeyDocumentPrefix) + key_id;
}

std::string_view key_sealing_name(KeySealing sealing) {
    return sealing == KeySealing::kPassphrase ? "passphrase" : "azure-key-vault";
}

Bytes encode_key_document(const KeyDocument& document) {
    json out = {{"format", kFormat},
                {"id", document.key_id},
                {"created", to_rfc3339(document.created)},
                {"kind", key_sealing_name(document.sealing)},
                {"sealed", to_hex(document.sealed)}};
    if (document.sealing == KeySealing::kPassphrase) {
        out["kdf"] = kdf_of(document.cost, document.salt);
    } else {
        out["key"] = document.remote_key;
        out["algorithm"] = "RSA-OAEP-256";
    }
    return encode_document(dump(out));
}

Result<KeyDocument> decode_key_document(ByteView bytes) {
    FS_ASSIGN(const std::string text, decode_document(bytes, "key document"));
    const json in = json::parse(text, nullptr, false);
    if (!in.is_object()) return malformed("it is no JSON object");
    FS_ASSIGN(const uint64_t format, number_of(in, "format"));
    if (format > kFormat)
        return fail(Code::kNewerVersion, fmt::format("key document of format {}", format),
                    "upgrade this side");
    KeyDocument document;
    FS_ASSIGN(document.key_id, text_of(in, "id"));
    if (auto id = from_hex(document.key_id); !id || id->size() != 8) return malformed("its id");
    FS_ASSIGN(const std::string created, text_of(in, "created"));
    FS_ASSIGN(document.created, from_rfc3339(created));
    FS_ASSIGN(const std::string sealed, text_of(in, "sealed"));
    FS_ASSIGN(document.sealed, from_hex(sealed));
    FS_ASSIGN(const std::string kind, text_of(in, "kind"));
    if (kind == key_sealing_name(KeySealing::kPassphrase)) {
        const auto kdf = in.find("kdf");
        if (kdf == in.end() || !kdf->is_object()) return malformed("it has no kdf");
        FS_ASSIGN(const std::string name, text_of(*kdf, "name"));
        if (name != "argon2id")
            return fail(Code::kNewerVersion, fmt::format("a key under '{}'", name.substr(0, 32)),
                        "upgrade this side");
        FS_ASSIGN(const uint64_t memory, number_of(*kdf, "memory_kib", UINT32_MAX));
        FS_ASSIGN(const uint64_t passes, number_of(*kdf, "passes", UINT32_MAX));
        FS_ASSIGN(const uint64_t lanes, number_of(*kdf, "lanes", UINT32_MAX));
        document.cost = {static_cast<uint32_t>(memory), static_cast<uint32_t>(passes),
                         static_cast<uint32_t>(lanes)};
        FS_TRY(check_kdf_cost(document.cost));
        FS_ASSIGN(const std::string salt, text_of(*kdf, "salt"));
        FS_ASSIGN(document.salt, from_hex(salt));
        if (document.salt.size() < 8 || document.salt.size() > 64) return malformed("its salt");
        if (document.sealed.size() != kWrappedKeyBytes) return malformed("its sealed key's size");
    } else if (kind == key_sealing_name(KeySealing::kAzureKeyVault)) {
        document.sealing = KeySealing::kAzureKeyVault;
        FS_ASSIGN(document.remote_key, text_of(in, "key"));
        FS_ASSIGN(const std::string algorithm, text_of(in, "algorithm"));
        if (algorithm != "RSA-OAEP-256")
            return fail(Code::kNewerVersion, fmt::format("'{}'", algorithm.substr(0, 32)),
                        "upgrade this side");
        if (document.sealed.empty() || document.sealed.size() > kMaxSealedBytes)
            return malformed("its sealed key's size");
    } else {
        return fail(Code::kNewerVersion,
                    fmt::format("a key document of kind '{}'", kind.substr(0, 32)),
                    "upgrade this side");
    }
    return document;
}

Result<KeyDocument> seal_under_passphrase(const KeyFile& key, const Secret& passphrase,
                                          const KdfCost& cost, TimePoint now, Random& random) {
    FS_TRY(check_new_passphrase(passphrase));
    KeyDocument document;
    document.key_id = key.id;
    document.created = now;
    document.cost = cost;
    document.salt.resize(kSaltBytes);
    random.fill(document.salt);
    FS_ASSIGN(const Secret derived, derive_key(passphrase, document.salt, cost));
    FS_ASSIGN(document.sealed,
              wrap_key(derived, key.key, associated("farshore-kek-passphrase", key.id), random));
    return document;
}

Result<KeyFile> open_with_passphrase(const KeyDocument& document, const Secret& passphrase) {
    if (document.sealing != KeySealing::kPassphrase)
        return fail(
            Code::kWrongKey,
            fmt::format("key {} is sealed by {} ({}), not under a passphrase", document.key_id,
                        key_sealing_name(document.sealing), document.remote_key));
    FS_ASSIGN(const Secret derived, derive_key(passphrase, document.salt, document.cost));
    auto key = unwrap_key(derived, document.sealed,
                          associated("farshore-kek-passphrase", document.key_id));
    if (!key)
        return fail(Code::kWrongKey,
                    fmt::format("this passphrase does not open key {}", document.key_id),
                    fmt::format("give the passphrase that key {} was sealed under at {}",
                                document.key_id, to_rfc3339(document.created)));
    KeyFile out{document.key_id, std::move(*key)};
    if (key_id(out.key) != out.id)
        return fail(Code::kCorrupt, fmt::format("what is sealed as key {} is another key", out.id));
    return out;
}

Result<Bytes> seal_escrow(const EscrowContent& content, const Secret& passphrase,
                          const KdfCost& cost, TimePoint now, Random& random) {
    FS_TRY(check_new_passphrase(passphrase));
    Bytes salt(kSaltBytes);
    random.fill(salt);
    FS_ASSIGN(const Secret key, derive_key(passphrase, salt, cost));
    return escrow_document(content, key, {{"kind", "passphrase"}, {"kdf", kdf_of(cost, salt)}}, now,
                           random);
}

Result<Bytes> seal_escrow_for(const EscrowContent& content, ByteView public_key_pem, TimePoint now,
                              Random& random) {
    const Secret key = make_key(random);
    FS_ASSIGN(const Bytes wrapped, rsa_seal(public_key_pem, key));
    return escrow_document(
        content, key,
        {{"kind", "rsa"}, {"algorithm", "RSA-OAEP-256"}, {"wrapped", to_hex(wrapped)}}, now,
        random);
}

}  // namespace farshore
