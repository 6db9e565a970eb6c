#include "replica/item_key.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "codec/document.h"
#include "codec/envelope.h"
#include "replica/log_walk.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr uint64_t kFormat = 1;
constexpr size_t kMaxTextBytes = 64;

auto malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("key object: {}", what));
}

bool hex_number(std::string_view& text, std::string_view after, uint64_t& value) {
    if (text.size() < 16 + after.size() || text.substr(16, after.size()) != after) return false;
    value = 0;
    for (char c : text.substr(0, 16)) {
        const bool decimal = c >= '0' && c <= '9';
        if (!decimal && (c < 'a' || c > 'f')) return false;
        value = value << 4 | static_cast<uint64_t>(decimal ? c - '0' : c - 'a' + 10);
    }
    text.remove_prefix(16 + after.size());
    return true;
}

Result<std::string> text_of(const json& from, const char* field) {
    const auto found = from.find(field);
    if (found == from.end() || !found->is_string() ||
        found->get_ref<const std::string&>().size() > 4 * kMaxTextBytes)
        return malformed(fmt::format("'{}' is missing or no text", field));
    return found->get<std::string>();
}

bool is_damage(Code code) {
    return code == Code::kCorrupt || code == Code::kTruncated || code == Code::kMalformed;
}

struct Listed {
    ItemKeyName name;
    std::string object;
};
// Newest first.
Result<std::vector<Listed>> list_keys(ObjectStore& store, const ItemId& item) {
    FS_ASSIGN(const auto infos, list_all(store, item_key_prefix(item)));
    std::vector<Listed> keys;
    for (const ObjectInfo& info : infos)
        if (const auto name = parse_item_key_name(item, info.name))
            keys.push_back({*name, info.name});
    std::ranges::sort(keys, [](const Listed& a, const Listed& b) { return a.name > b.name; });
    return keys;
}

Result<ItemKeyObject> load_key_object(ObjectStore& store, const ItemId& item, const Listed& key) {
    FS_ASSIGN(const Bytes bytes, store.get(key.object));
    auto object = decode_item_key(bytes, item, key.name);
    if (!object) return fail(object.error().with_context(key.object));
    return object;
}

Result<ItemObject> load_from(ObjectStore& store, const ItemId& item, const std::string& name) {
    auto bytes = store.get(name);
    if (!bytes) return fail(bytes.error());
    auto object = decode_item_object(*bytes, item);
    if (!object) return fail(object.error().with_context(name));
    return object;
}

bool there_is_none(const Error& error) { return error.code() == Code::kNotFound; }

}  // namespace

std::string item_key_prefix(const ItemId& item) {
    return fmt::format("items/{}/key/", item.to_string());
}

std::string item_key_name(const ItemId& item, uint64_t generation, Epoch vault) {
    return fmt::format("{}{:016x}-{:016x}.key", item_key_prefix(item), generation, vault.v);
}

std::optional<ItemKeyName> parse_item_key_name(const ItemId& item, const std::string& name) {
    const std::string prefix = item_key_prefix(item);
    if (!name.starts_with(prefix)) return std::nullopt;
    std::string_view rest = std::string_view(name).substr(prefix.size());
    ItemKeyName out;
    if (!hex_number(rest, "-", out.generation) || !hex_number(rest, ".key", out.vault.v) ||
        !rest.empty() || out.generation == 0)
        return std::nullopt;
    return out;
}

Bytes encode_item_key(const ItemKeyObject& object) {
    const json out = {{"format", kFormat},
                      {"item", object.item.to_string()},
                      {"generation", object.generation},
                      {"vault_epoch", object.vault.v},
                      {"created", to_rfc3339(object.created)},
                      {"key", {{"id", object.key_id}, {"wrapped", to_hex(object.wrapped_key)}}}};
    return encode_document(out.dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<ItemKeyObject> decode_item_key(ByteView bytes, const ItemId& item, const ItemKeyName& name) {
    FS_ASSIGN(const std::string text, decode_document(bytes, "key object"));
    const json in = json::parse(text, nullptr, false);
    if (!in.is_object()) return malformed("it is no JSON object");
    const auto number = [&](const char* field) -> Result<uint64_t> {
        const auto found = in.find(field);
        if (found == in.end() || !found->is_number_unsigned())
            return malformed(fmt::format("'{}' is missing or no number", field));
        return found->get<uint64_t>();
    };
    FS_ASSIGN(const uint64_t format, number("format"));
    if (format > kFormat)
        return fail(Code::kNewerVersion, fmt::format("key object of format {}", format),
                    "upgrade this side");
    ItemKeyObject object;
    FS_ASSIGN(const std::string own, text_of(in, "item"));
    FS_ASSIGN(object.item, ItemId::parse(own));
    FS_ASSIGN(object.generation, number("generation"));
    FS_ASSIGN(object.vault.v, number("vault_epoch"));
    if (object.item != item || object.generation != name.generation || object.vault != name.vault)
        return fail(
            Code::kForeignStore,
            fmt::format("the key object is of item {}, generation {}", own, object.generation),
            "somebody moved objects between items or stores; put them back");
    FS_ASSIGN(const std::string created, text_of(in, "created"));
    FS_ASSIGN(object.created, from_rfc3339(created));
    const auto key = in.find("key");
    if (key == in.end() || !key->is_object()) return malformed("it has no key");
    FS_ASSIGN(object.key_id, text_of(*key, "id"));
    if (object.key_id.size() > kMaxTextBytes) return malformed("its key's id is too long");
    FS_ASSIGN(const std::string wrapped, text_of(*key, "wrapped"));
    FS_ASSIGN(object.wrapped_key, from_hex(wrapped));
    if (object.wrapped_key.size() != kWrappedKeyBytes) return malformed("its key has a wrong size");
    return object;
}

Bytes key_associated(const ItemId& item) {
    Bytes out;
    ByteWriter writer(out);
    writer.bytes(as_bytes("farshore-item-key"));
    writer.bytes(item.view());
    return out;
}

Result<Bytes> wrap_for_item(const ItemId& item, const Secret& item_key, const KeyFile& key,
                            Random& random) {
    return wrap_key(key.key, item_key, key_associated(item), random);
}

Result<OpenedItemKey> open_for_item(const ItemId& item, ByteView wrapped, const Keyring& keys) {
    std::string known;
    for (const auto& [id, key] : keys) {
        auto opened = unwrap_key(key.key, wrapped, key_associated(item));
        if (opened) return OpenedItemKey{std::move(*opened), id, 0};
        if (opened.error().code() != Code::kWrongKey) return fail(opened.error());
        known += (known.empty() ? "" : ", ") + id;
    }
    return fail(Code::kWrongKey,
                fmt::format("none of the keys that are known ({}) opens the key of item {}", known,
                            item.to_string()),
                "give the key that it was sealed under; `farshore key show` lists key ids");
}

Result<ItemObject> load_item_object(ObjectStore& store, const ItemId& item) {
    auto described = load_from(store, item, item_description_name(item));
    if (described || !there_is_none(described.error())) return described;
    return load_from(store, item, item_object_name(item));
}

Result<OpenedItemKey> load_item_key(ObjectStore& store, const ItemId& item, const Keyring& keys) {
    FS_ASSIGN(const auto destroyed, key_destroyed(store, item));
    if (destroyed)
        return fail(Code::kWrongKey,
                    fmt::format("the key of item {} was destroyed at {}: nothing opens what is "
                                "left of it",
                                item.to_string(), to_rfc3339(*destroyed)),
                    "`farshore unprotect --force` deletes what is left");
    std::optional<Error> damage;
    std::string wanted;
    const auto attempt = [&](const std::string& key_id,
                             ByteView wrapped) -> Result<std::optional<OpenedItemKey>> {
        const auto key = keys.find(key_id);
        if (key == keys.end()) {
            if (wanted.find(key_id) == std::string::npos)
                wanted += (wanted.empty() ? "" : " or ") + key_id.substr(0, 32);
            return std::nullopt;
        }
        auto opened = open_for_item(item, wrapped, {{key->first, key->second}});
        if (opened) return std::move(*opened);
        if (!damage)
            damage = Error(Code::kCorrupt,
                           fmt::format("key {} does not open the key of item {}, though it is "
                                       "said to be wrapped under it",
                                       key_id, item.to_string()),
                           "restore the item's key objects from a copy of the store");
        return std::nullopt;
    };
    FS_ASSIGN(const auto generations, list_keys(store, item));
    for (const Listed& listed : generations) {
        auto object = load_key_object(store, item, listed);
        if (!object) {
            if (!is_damage(object.error().code()) && !there_is_none(object.error()))
                return fail(object.error());
            if (!damage && !there_is_none(object.error())) damage = object.error();
            continue;
        }
        FS_ASSIGN(auto opened, attempt(object->key_id, object->wrapped_key));
        if (opened) {
            opened->generation = listed.name.generation;
            return std::move(*opened);
        }
    }
    auto object = load_from(store, item, item_object_name(item));
    if (object && !object->wrapped_key.empty()) {
        FS_ASSIGN(auto opened, attempt(object->key_id, object->wrapped_key));
        if (opened) return std::move(*opened);
    } else if (!object && !there_is_none(object.error())) {
        if (!is_damage(object.error().code())) return fail(object.error());
        if (!damage) damage = object.error();
    }
    if (!wanted.empty()) {
        std::string known;
        for (const auto& [id, key] : keys) known += (known.empty() ? "" : ", ") + id;
        return fail(Code::kWrongKey,
                    fmt::format("the key at hand is {}, item {} was sealed under {}", known,
                                item.to_string(), wanted),
                    fmt::format("give the key with id {}", wanted));
    }
    if (damage) return fail(*damage);
    return fail(Code::kNotFound, fmt::format("the store has no key of item {}", item.to_string()),
                "restore its key objects from a copy of the store");
}

Status put_item_key(ObjectStore& store, const ItemId& item, const Secret& item_key,
                    const KeyFile& key, Epoch vault, TimePoint now, Random& random) {
    const Keyring ring{{key.id, key}};
    const auto same = [&](ByteView wrapped) {
        auto opened = open_for_item(item, wrapped, ring);
        return opened && std::ranges::equal(opened->key.reveal(), item_key.reveal());
    };
    FS_ASSIGN(const auto generations, list_keys(store, item));
    if (generations.empty()) {
        auto object = load_item_object(store, item);
        if (!object) {
            // Not described yet: its first object will be written under the new key.
            if (there_is_none(object.error())) return {};
            return fail(object.error());
        }
        if (!object->wrapped_key.empty() && same(object->wrapped_key)) return {};
    } else if (auto newest = load_key_object(store, item, generations.front())) {
        if (same(newest->wrapped_key)) return {};
    } else if (!is_damage(newest.error().code())) {
        return fail(newest.error());
    }
    ItemKeyObject object;
    object.item = item;
    object.generation = generations.empty() ? 1 : generations.front().name.generation + 1;
    object.vault = vault;
    object.created = now;
    object.key_id = key.id;
    FS_ASSIGN(object.wrapped_key, wrap_for_item(item, item_key, key, random));
    return put_idempotent(store, item_key_name(item, object.generation, vault),
                          encode_item_key(object));
}

namespace {

// The description in place of an item object, from that object alone: whoever writes it, writes the
// same bytes.
Status describe_without_key(ObjectStore& store, ItemObject object) {
    object.key_id.clear();
    object.wrapped_key.clear();
    FS_ASSIGN(const Bytes bytes, encode_item_object(object));
    return put_idempotent(store, item_description_name(object.item), bytes);
}

}  // namespace

Result<size_t> remove_other_item_keys(ObjectStore& store, const ItemId& item, const KeyFile& key,
                                      const std::function<Status()>& check) {
    const Keyring ring{{key.id, key}};
    FS_ASSIGN(const auto generations, list_keys(store, item));
    auto first = load_from(store, item, item_object_name(item));
    if (!first && !there_is_none(first.error())) return fail(first.error());
    bool opens = first && first->key_id == key.id &&
                 open_for_item(item, first->wrapped_key, ring).has_value();
    const bool first_stays = opens;
    std::optional<ItemKeyName> newest;
    for (const Listed& listed : generations) {
        auto object = load_key_object(store, item, listed);
        if (!object || object->key_id != key.id || !open_for_item(item, object->wrapped_key, ring))
            continue;
        newest = listed.name;
        opens = true;
        break;
    }
    if (!opens) {
        if (!first && generations.empty()) return size_t{0};
        return fail(Code::kWrongKey,
                    fmt::format("no copy of the key of item {} is wrapped under {}",
                                item.to_string(), key.id),
                    "run `farshore key rotate` again");
    }
    FS_TRY(check());
    size_t removed = 0;
    for (const Listed& listed : generations) {
        if (newest == listed.name) continue;
        FS_TRY(store.remove(listed.object));
        ++removed;
    }
    if (first && !first_stays) {
        FS_TRY(describe_without_key(store, std::move(*first)));
        FS_TRY(store.remove(item_object_name(item)));
        ++removed;
    }
    return removed;
}

std::string key_destroyed_name(const ItemId& item) {
    return fmt::format("items/{}/key-destroyed", item.to_string());
}

Result<std::optional<TimePoint>> key_destroyed(ObjectStore& store, const ItemId& item) {
    auto bytes = store.get(key_destroyed_name(item));
    if (!bytes && there_is_none(bytes.error())) return std::nullopt;
    if (!bytes) return fail(bytes.error());
    // That it is there is what counts; a damaged one was written as well.
    TimePoint when;
    if (auto text = decode_document(*bytes, "key-destroyed")) {
        const json in = json::parse(*text, nullptr, false);
        if (in.is_object())
            if (auto at = text_of(in, "destroyed"))
                if (auto time = from_rfc3339(*at)) when = *time;
    }
    return when;
}

Status destroy_item_key(ObjectStore& store, const ItemId& item, TimePoint now,
                        const std::function<Status()>& check) {
    FS_TRY(check());
    FS_ASSIGN(const auto already, key_destroyed(store, item));
    if (!already) {
        const json said = {
            {"format", kFormat}, {"item", item.to_string()}, {"destroyed", to_rfc3339(now)}};
        FS_TRY(put_idempotent(store, key_destroyed_name(item), encode_document(said.dump())));
    }
    auto first = load_from(store, item, item_object_name(item));
    if (first) FS_TRY(describe_without_key(store, std::move(*first)));
    FS_ASSIGN(const auto keys, list_all(store, item_key_prefix(item)));
    FS_TRY(check());
    for (const ObjectInfo& info : keys) FS_TRY(store.remove(info.name));
    return store.remove(item_object_name(item));
}

}  // namespace farshore
