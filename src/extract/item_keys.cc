#include "extract/item_keys.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "codec/document.h"
#include "codec/envelope.h"
#include "codec/key_file.h"
#include "codec/passphrase.h"
#include "codec/rsa.h"
#include "os/real.h"

namespace farshore::extraction {
namespace {

using nlohmann::json;

constexpr size_t kMaxEscrowBytes = kMaxDocumentBytes;
constexpr std::string_view kUpgrade = "use a newer version of farshore extract";

auto wrong(Code code, const std::string& name, std::string_view what,
           std::string_view remedy = {}) {
    return fail(code, fmt::format("{}: {}", name, what), std::string(remedy));
}

// Fields of a document; `ok` turns false at the first that is missing or of another type.
class Fields {
  public:
    explicit Fields(const json& from) : from_(from) { ok = from.is_object(); }
    std::string text(const char* field) {
        const json* at = find(field);
        if (at == nullptr || !at->is_string()) return stop();
        return at->get<std::string>();
    }
    uint64_t number(const char* field, uint64_t limit = UINT64_MAX) {
        const json* at = find(field);
        if (at == nullptr || !at->is_number_unsigned() || at->get<uint64_t>() > limit) {
            stop();
            return 0;
        }
        return at->get<uint64_t>();
    }
    Bytes hex(const char* field) {
        auto bytes = from_hex(text(field));
        if (!bytes) {
            stop();
            return {};
        }
        return std::move(*bytes);
    }
    const json& object(const char* field) {
        static const json none = json::object();
        const json* at = find(field);
        if (at != nullptr && at->is_object()) return *at;
        stop();
        return none;
    }
    bool ok = true;

  private:
    const json* find(const char* field) const {
        if (!ok) return nullptr;
        const auto at = from_.find(field);
        return at == from_.end() ? nullptr : &*at;
    }
    std::string stop() {
        ok = false;
        return {};
    }
    const json& from_;
};

Bytes bound_to(std::string_view domain, std::string_view id) {
    Bytes out = to_bytes(as_bytes(domain));
    const ByteView text = as_bytes(id);
    out.insert(out.end(), text.begin(), text.end());
    return out;
}

Result<json> read_document(ByteView object, const std::string& name) {
    FS_ASSIGN(const std::string text, decode_document(object, name));
    json in = json::parse(text, nullptr, false);
    Fields fields(in);
    const uint64_t format = fields.number("format");
    if (!fields.ok) return wrong(Code::kMalformed, name, "it names no format");
    if (format > 1) return wrong(Code::kNewerVersion, name, "it has a newer format", kUpgrade);
    return in;
}

Status read_kdf(const json& from, const std::string& name, KdfCost& cost, Bytes& salt) {
    Fields kdf(from);
    const std::string algorithm = kdf.text("name");
    cost.memory_kib = static_cast<uint32_t>(kdf.number("memory_kib", UINT32_MAX));
    cost.passes = static_cast<uint32_t>(kdf.number("passes", UINT32_MAX));
    cost.lanes = static_cast<uint32_t>(kdf.number("lanes", UINT32_MAX));
    salt = kdf.hex("salt");
    if (!kdf.ok) return wrong(Code::kMalformed, name, "its kdf is not complete");
    if (algorithm != "argon2id")
        return wrong(Code::kNewerVersion, name, "its kdf is not known", kUpgrade);
    return check_kdf_cost(cost);
}

Result<Secret> read_secret(FileSystem& files, const std::string& path, size_t limit) {
    auto raw = read_whole_file(files, path, limit);
    if (!raw) return fail(raw.error());
    Secret out{ByteView(*raw)};
    std::fill(raw->begin(), raw->end(), uint8_t{0});
    return out;
}

Status add_kek(Keys& keys, const std::string& id, Secret key, const std::string& name) {
    if (key.reveal().size() != kKeyBytes || key_id(key) != id)
        return wrong(Code::kCorrupt, name, "a key in it is not the one that it is said to be");
    keys.keks.insert_or_assign(id, std::move(key));
    return {};
}

// Every KEK that the store keeps and that opens with what there is.
Result<Keys> open_sealed_keks(const ExtractOptions& options, const Secret& passphrase,
                              const StoreReader& store) {
    FS_ASSIGN(const auto names, store.list("keys"));
    Keys keys;
    std::optional<Error> trouble;
    for (const std::string& file : names) {
        const std::string name = "keys/" + file;
        const auto open = [&]() -> Status {
            FS_ASSIGN(const Bytes object, store.read(name));
            FS_ASSIGN(const SealedKek sealed, decode_sealed_kek(object, name));
            if (sealed.id != file) return wrong(Code::kCorrupt, name, "it was another key's");
            if (sealed.kind == "passphrase") {
                if (passphrase.empty())
                    return wrong(Code::kWrongKey, name, "the key is sealed under a passphrase",
                                 "give it with --passphrase-file");
                FS_ASSIGN(const Secret derived, derive_key(passphrase, sealed.salt, sealed.cost));
                auto key = unwrap_key(derived, sealed.sealed,
                                      bound_to("farshore-kek-passphrase", sealed.id));
                if (!key)
                    return fail(Code::kWrongKey,
                                fmt::format("this passphrase does not open key {}", sealed.id),
                                "give the one that the key was sealed under");
                return add_kek(keys, sealed.id, std::move(*key), name);
            }
            if (!options.unwrap_remote)
                return fail(Code::kWrongKey,
                            fmt::format("key {} is sealed by {}", sealed.id, sealed.remote_key),
                            "name that key service with --key-source, or give an escrow");
            FS_ASSIGN(Secret key, options.unwrap_remote(sealed.remote_key, sealed.sealed));
            return add_kek(keys, sealed.id, std::move(key), name);
        };
        auto opened = open();
        // That a service is away says more than that something else does not fit.
        if (!opened && (!trouble || opened.error().retry() != Retry::kNever))
            trouble = opened.error();
    }
    if (!keys.keks.empty()) return keys;
    if (trouble) return fail(*trouble);
    return fail(Code::kWrongKey, "the store keeps no key that a passphrase or a service opens",
                "give the key file with --key");
}

}  // namespace

Result<SealedKek> decode_sealed_kek(ByteView object, const std::string& name) {
    FS_ASSIGN(const json in, read_document(object, name));
    Fields fields(in);
    SealedKek out;
    out.id = fields.text("id");
    out.kind = fields.text("kind");
    out.sealed = fields.hex("sealed");
    if (!fields.ok) return wrong(Code::kMalformed, name, "a field is missing");
    if (out.kind == "passphrase") {
        FS_TRY(read_kdf(fields.object("kdf"), name, out.cost, out.salt));
        return out;
    }
    out.remote_key = fields.text("key");
    const std::string algorithm = fields.text("algorithm");
    if (out.kind != "azure-key-vault" || algorithm != "RSA-OAEP-256")
        return wrong(Code::kNewerVersion, name, "it is sealed in a way that is not known",
                     kUpgrade);
    if (!fields.ok) return wrong(Code::kMalformed, name, "a field is missing");
    return out;
}

Result<Keys> open_escrow(ByteView file, const Secret& passphrase, const Secret& private_key) {
    const std::string name = "escrow";
    FS_ASSIGN(const json in, read_document(file, name));
    Fields fields(in);
    const std::string what = fields.text("what"), store = fields.text("store");
    const Bytes body = fields.hex("body");
    const json& seal = fields.object("seal");
    Fields how(seal);
    const std::string kind = how.text("kind");
    if (!fields.ok || !how.ok || what != "farshore-escrow")
        return wrong(Code::kMalformed, name, "this is no escrow of Farshore's");
    Secret key;
    if (kind == "passphrase") {
        if (passphrase.empty())
            return wrong(Code::kWrongKey, name, "it is sealed under a passphrase",
                         "give it with --passphrase-file");
        KdfCost cost;
        Bytes salt;
        FS_TRY(read_kdf(how.object("kdf"), name, cost, salt));
        FS_ASSIGN(key, derive_key(passphrase, salt, cost));
    } else if (kind == "rsa") {
        if (private_key.empty())
            return wrong(Code::kWrongKey, name, "it is sealed for a private key",
                         "give that with --private-key");
        const Bytes wrapped = how.hex("wrapped");
        FS_ASSIGN(key, rsa_open(private_key, wrapped));
    } else {
        return wrong(Code::kNewerVersion, name, "it is sealed in a way that is not known",
                     kUpgrade);
    }
    if (body.size() < kSealNonceBytes + kSealTagBytes)
        return wrong(Code::kTruncated, name, "its body is too short");
    FS_ASSIGN(const SealKey opener, SealKey::make(key));
    SealNonce nonce;
    std::copy_n(body.begin(), kSealNonceBytes, nonce.begin());
    Bytes plain(body.size() - kSealNonceBytes - kSealTagBytes);
    if (!opener.open(nonce, bound_to("farshore-escrow", store),
                     ByteView(body).subspan(kSealNonceBytes), plain))
        return wrong(
            Code::kWrongKey, name,
            kind == "rsa" ? "the private key does not open it" : "the passphrase does not open it",
            "give what it was sealed under; or it was damaged");
    const Secret text(std::move(plain));
    const json content = json::parse(as_text(text.reveal()), nullptr, false);
    Keys keys;
    if (!content.is_object()) return wrong(Code::kMalformed, name, "its content");
    for (const char* list : {"keys", "items"}) {
        const auto rows = content.find(list);
        if (rows == content.end() || !rows->is_array())
            return wrong(Code::kMalformed, name, "its content");
        for (const json& row : *rows) {
            Fields entry(row);
            Secret one(entry.hex("key"));
            if (one.reveal().size() != kKeyBytes)
                return wrong(Code::kMalformed, name, "a key has another size");
            if (rows == content.find("keys")) {
                FS_TRY(add_kek(keys, entry.text("id"), std::move(one), name));
            } else {
                FS_ASSIGN(const ItemId item, ItemId::parse(entry.text("item")));
                keys.items.insert_or_assign(item, std::move(one));
            }
            if (!entry.ok) return wrong(Code::kMalformed, name, "its content");
        }
    }
    return keys;
}

Result<Keys> open_keys(const ExtractOptions& options, FileSystem& files, const StoreReader& store) {
    Secret passphrase = options.passphrase, private_key;
    if (!options.passphrase_file.empty()) {
        FS_ASSIGN(const Secret text,
                  read_secret(files, options.passphrase_file, 2 * kMaxPassphraseBytes));
        passphrase = trim_passphrase(text.reveal());
    }
    if (!options.private_key_file.empty()) {
        FS_ASSIGN(private_key, read_secret(files, options.private_key_file, 64u << 10));
    }
    Keys keys;
    if (!options.key_text.empty()) {
        FS_ASSIGN(const KeyFile key, parse_key_file(as_text(options.key_text.reveal())));
        keys.keks.insert_or_assign(key.id, key.key);
        return keys;
    }
    if (options.key_file.empty()) return open_sealed_keks(options, passphrase, store);
    auto first = read_secret(files, options.key_file, kMaxEscrowBytes);
    if (first && !first->empty() && first->reveal()[0] == '{') {
        auto escrow = open_escrow(first->reveal(), passphrase, private_key);
        if (!escrow) return fail(escrow.error().with_context(options.key_file));
        return escrow;
    }
    FS_ASSIGN(const KeyFile key, load_key_file(files, options.key_file));
    keys.keks.insert_or_assign(key.id, key.key);
    return keys;
}

Result<KeyGeneration> decode_key_generation(ByteView object, const std::string& name,
                                            const ItemId& item, uint64_t generation,
                                            uint64_t vault) {
    FS_ASSIGN(const json in, read_document(object, name));
    Fields fields(in);
    const std::string own = fields.text("item");
    const uint64_t own_generation = fields.number("generation");
    const uint64_t own_vault = fields.number("vault_epoch");
    Fields key(fields.object("key"));
    KeyGeneration out;
    out.key_id = key.text("id");
    out.wrapped = key.hex("wrapped");
    if (!fields.ok || !key.ok || out.wrapped.size() != kWrappedKeyBytes)
        return wrong(Code::kMalformed, name, "a field is missing");
    if (own != item.to_string() || own_generation != generation || own_vault != vault)
        return wrong(Code::kForeignStore, name, "it is another item's or generation's");
    return out;
}

Result<ItemDescription> find_item_description(const StoreReader& store, const ItemId& item) {
    // Once its key has changed, an item is described without one.
    for (const char* which : {"description", "item"}) {
        auto object = store.read(fmt::format("items/{}/{}", item.to_string(), which));
        if (object) return decode_item(*object, item);
        if (object.error().code() != Code::kNotFound) return fail(object.error());
    }
    return fail(Code::kItemNotFound, fmt::format("the store has no item {}", item.to_string()),
                "give one of the directory names below items/, or a name");
}

Result<Secret> find_item_key(const StoreReader& store, const ItemDescription& item,
                             const Keys& keys) {
    const std::string root = fmt::format("items/{}", item.item.to_string());
    auto destroyed = store.read(root + "/key-destroyed");
    if (destroyed)
        return fail(Code::kWrongKey,
                    fmt::format("the key of '{}' was destroyed: nothing opens what is left of it",
                                item.name));
    if (destroyed.error().code() != Code::kNotFound) return fail(destroyed.error());
    if (const auto own = keys.items.find(item.item); own != keys.items.end()) return own->second;
    Bytes bound = to_bytes(as_bytes("farshore-item-key"));
    bound.insert(bound.end(), item.item.raw.begin(), item.item.raw.end());
    std::string wanted;
    std::optional<Error> trouble;
    const auto open = [&](const std::string& id, ByteView wrapped) -> std::optional<Secret> {
        const auto kek = keys.keks.find(id);
        if (kek == keys.keks.end()) {
            if (wanted.find(id) == std::string::npos) wanted += (wanted.empty() ? "" : " or ") + id;
            return std::nullopt;
        }
        auto key = unwrap_key(kek->second, wrapped, bound);
        if (key) return std::move(*key);
        if (!trouble)
            trouble = Error(Code::kCorrupt,
                            fmt::format("the key of '{}' does not open under key {}, under which "
                                        "it is said to be",
                                        item.name, id));
        return std::nullopt;
    };
    struct Name {
        uint64_t generation = 0, vault = 0;
        std::string file;
    };
    std::vector<Name> names;
    FS_ASSIGN(const auto files, store.list(root + "/key"));
    for (const std::string& file : files) {
        Name name;
        if (parse_key_name(file, name.generation, name.vault)) {
            name.file = file;
            names.push_back(std::move(name));
        }
    }
    std::ranges::sort(names, [](const Name& a, const Name& b) {
        return std::pair(a.generation, a.vault) > std::pair(b.generation, b.vault);
    });
    for (const Name& name : names) {
        const std::string path = root + "/key/" + name.file;
        auto object = store.read(path);
        if (!object && object.error().code() == Code::kNotFound) continue;
        if (!object) return fail(object.error());
        auto one = decode_key_generation(*object, path, item.item, name.generation, name.vault);
        if (!one) {
            if (!trouble) trouble = one.error();
            continue;
        }
        if (auto key = open(one->key_id, one->wrapped)) return std::move(*key);
    }
    if (!item.wrapped_key.empty()) {
        if (auto key = open(item.key_id, item.wrapped_key)) return std::move(*key);
    } else if (auto first = store.read(root + "/item")) {
        // Beside a description as long as a rotation has not ended.
        FS_ASSIGN(const ItemDescription described, decode_item(*first, item.item));
        if (auto key = open(described.key_id, described.wrapped_key)) return std::move(*key);
    }
    if (!wanted.empty()) {
        std::string have;
        for (const auto& [id, key] : keys.keks) have += (have.empty() ? "" : ", ") + id;
        return fail(Code::kWrongKey,
                    fmt::format("this is key {}, '{}' was sealed under {}",
                                have.empty() ? "of other items" : have, item.name, wanted),
                    fmt::format("give the key with id {}", wanted));
    }
    if (trouble) return fail(*trouble);
    return fail(Code::kNotFound, fmt::format("the store has no key of '{}'", item.name),
                "restore its key objects from a copy of the store");
}

}  // namespace farshore::extraction
