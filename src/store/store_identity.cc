#include "store/store_identity.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "codec/document.h"

namespace farshore {

Bytes encode_store_identity(const StoreIdentity& identity) {
    const nlohmann::json json = {{"format", identity.format},
                                 {"store", identity.id.to_string()},
                                 {"created", to_rfc3339(identity.created)}};
    return encode_document(json.dump());
}

Result<StoreIdentity> decode_store_identity(ByteView object) {
    FS_ASSIGN(const std::string text, decode_document(object, "the store object"));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    const auto bad = [] { return fail(Code::kMalformed, "the store object lacks a field"); };
    if (!json.is_object()) return bad();
    const auto format = json.find("format");
    if (format == json.end() || !format->is_number_unsigned()) return bad();
    StoreIdentity identity;
    if (format->get<uint64_t>() > kStoreFormat)
        return fail(Code::kNewerVersion,
                    fmt::format("the store has format {}, this version knows {}",
                                format->get<uint64_t>(), kStoreFormat),
                    "upgrade this side before it touches the store");
    identity.format = format->get<int>();
    const auto id = json.find("store");
    const auto created = json.find("created");
    if (id == json.end() || !id->is_string() || created == json.end() || !created->is_string())
        return bad();
    FS_ASSIGN(identity.id, StoreId::parse(id->get_ref<const std::string&>()));
    FS_ASSIGN(identity.created, from_rfc3339(created->get_ref<const std::string&>()));
    return identity;
}

Result<bool> holds_objects(ObjectStore& store) {
    FS_ASSIGN(auto found, store.list("", "", 1));
    if (!found.empty() && found.front().name.starts_with(kStoreCheckPrefix)) {
        // The first name behind all of them: '0' follows '/'.
        std::string behind(kStoreCheckPrefix);
        behind.back() = '0';
        FS_ASSIGN(found, store.list("", behind, 1));
    }
    return !found.empty();
}

Result<StoreIdentity> read_store_identity(ObjectStore& store) {
    auto object = store.get(kStoreObject);
    if (object) return decode_store_identity(*object);
    if (object.error().code() == Code::kNotFound)
        return fail(Code::kForeignStore,
                    fmt::format("it is not a Farshore store: '{}' is missing", kStoreObject),
                    "give the store that the vault was set up with");
    return fail(object.error());
}

Result<StoreIdentity> ensure_store_identity(ObjectStore& store, Clock& clock, Random& random) {
    auto there = read_store_identity(store);
    if (there || there.error().code() != Code::kForeignStore) return there;
    FS_ASSIGN(const bool others, holds_objects(store));
    // Somebody else may have written it between the read and the listing.
    if (others) return read_store_identity(store);
    StoreIdentity identity;
    random.fill(identity.id.raw);
    identity.created = clock.now();
    if (Status put = store.put(kStoreObject, encode_store_identity(identity));
        !put && put.error().code() != Code::kAlreadyExists)
        return fail(put.error());
    return read_store_identity(store);
}

}  // namespace farshore
