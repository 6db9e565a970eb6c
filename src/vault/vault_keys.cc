// The vault's key-encryption keys: where they come from at the start, and what is shown of them.
#include <fmt/core.h>

#include <algorithm>

#include "keys/key_document.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "os/secret_input.h"
#include "replica/manifest.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr size_t kMaxSettingBytes = 64u << 10;

// A key file that was made for a rotation and not put in its place yet.
std::string next_of(const std::string& spec) { return spec + ".new"; }

}  // namespace

Error key_is_destroyed(const std::string& name, TimePoint when) {
    return Error(
        Code::kWrongKey,
        fmt::format("the key of '{}' was destroyed at {}: nothing opens what is left of it", name,
                    to_rfc3339(when)),
        fmt::format("`farshore unprotect {} --force` deletes what is left", name));
}

KeyFile Vault::Impl::kek() {
    const std::lock_guard hold(keys_mutex);
    const auto at = keyring.find(current_key);
    return at == keyring.end() ? KeyFile{} : at->second;
}

Keyring Vault::Impl::keks() {
    const std::lock_guard hold(keys_mutex);
    return keyring;
}

// Empty: the store keeps none of that key.
Result<Bytes> Vault::Impl::key_document(const std::string& id) {
    auto document = store->get(key_document_name(id));
    if (!document && document.error().code() == Code::kNotFound) return Bytes{};
    return document;
}

// Under which key the store's items are: what the newest key of the first one that can be read
// says. Empty: there is none. For a vault without a database of its own.
Result<std::string> Vault::Impl::key_wanted_by_store() {
    std::string after = "items/";
    while (true) {
        FS_ASSIGN(const auto found, store->list("items/", after, 1));
        if (found.empty()) return std::string();
        const std::string id_text = found.front().name.substr(6, 32);
        after = "items/" + id_text + "/~";  // greater than every name of that item
        const auto id = ItemId::parse(id_text);
        if (!id) continue;
        FS_ASSIGN(const auto names, list_all(*store, item_key_prefix(*id)));
        for (auto at = names.rbegin(); at != names.rend(); ++at) {
            const auto name = parse_item_key_name(*id, at->name);
            if (!name) continue;
            FS_ASSIGN(const Bytes bytes, store->get(at->name));
            if (auto object = decode_item_key(bytes, *id, *name)) return object->key_id;
        }
        if (auto object = load_item_object(*store, *id); object && !object->key_id.empty())
            return object->key_id;
    }
}

Result<KeyRotation> Vault::Impl::key_rotation() {
    FS_ASSIGN(const std::string text, get_setting(*database, "key_rotation"));
    KeyRotation rotation;
    if (text.empty()) return rotation;
    FS_ASSIGN(const Json json, parse_json(text, "key_rotation", kMaxSettingBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "key_rotation"));
    FS_ASSIGN(rotation.from, fields.required_text("from", 32));
    FS_ASSIGN(rotation.to, fields.required_text("to", 32));
    FS_ASSIGN(rotation.source, fields.required_text("source", 8192));
    FS_ASSIGN(rotation.final_source, fields.required_text("final_source", 8192));
    rotation.explicit_source = json.value("explicit", false);
    rotation.closing = json.value("closing", false);
    return rotation;
}

// The vault ended in the middle of a rotation: both keys are needed until it has ended.
Status Vault::Impl::open_keys_of_rotation(const KeyRotation& rotation, const std::string& given) {
    std::vector<std::string> specs{rotation.source};
    for (const std::string& spec : {rotation.final_source, given})
        if (std::ranges::find(specs, spec) == specs.end()) specs.push_back(spec);
    std::optional<Error> trouble;
    for (const std::string& spec : specs) {
        auto made = make_key_source(spec, files, options.kdf);
        if (!made) {
            if (!trouble) trouble = made.error();
            continue;
        }
        const std::shared_ptr<KeySource> source = std::move(*made);
        for (const std::string& id : {rotation.to, rotation.from}) {
            if (keyring.contains(id)) continue;
            FS_ASSIGN(const Bytes document, key_document(id));
            if (document.empty() && source->keeps_document()) continue;
            auto opened = source->open(id, document);
            if (opened) {
                keyring.insert_or_assign(id, *opened);
                if (id == rotation.to) key_source = source;
            } else if (!trouble || opened.error().retry() != Retry::kNever) {
                trouble = opened.error();
            }
        }
    }
    for (const std::string& id : {rotation.to, rotation.from}) {
        if (keyring.contains(id) || (id == rotation.from && rotation.closing)) continue;
        const std::string what = fmt::format(
            "a rotation from key {} to key {} has not ended, and key {} cannot be had: {}",
            rotation.from, rotation.to, id, trouble ? trouble->what() : "no source has it");
        const bool later = trouble && trouble->retry() != Retry::kNever;
        return fail(later ? trouble->code() : Code::kWrongKey, what,
                    fmt::format("{} must give key {}, and the former source key {}",
                                rotation.source, rotation.to, rotation.from));
    }
    current_key = rotation.to;
    return {};
}

Status Vault::Impl::open_key() {
    take_secret_variables("FARSHORE_KEY");
    FS_ASSIGN(const std::string known, get_setting(*database, "key_id"));
    FS_ASSIGN(const std::string kept, get_setting(*database, "key_source"));
    const std::string standard = "file:" + vault_directory + "/key";
    const std::string given = !options.key_source.empty() ? options.key_source
                              : !options.key_file.empty() ? "file:" + options.key_file
                                                          : "";
    const std::string spec = !given.empty() ? given : !kept.empty() ? kept : standard;
    FS_ASSIGN(const KeyRotation rotation, key_rotation());
    const std::lock_guard hold(keys_mutex);
    if (!rotation.to.empty()) return open_keys_of_rotation(rotation, spec);
    FS_ASSIGN(auto made, make_key_source(spec, files, options.kdf));
    key_source = std::move(made);
    std::string wanted = known;
    if (wanted.empty()) {
        FS_ASSIGN(wanted, key_wanted_by_store());
    }
    // A store that holds items already was sealed under some key: a new one would be of no use.
    FS_ASSIGN(const auto items, store->list("items/", "", 1));
    if (wanted.empty() && items.empty()) {
        const std::string path = key_source_path(spec);
        bool fresh = key_source->keeps_document();
        if (!path.empty()) {
            FS_ASSIGN(const bool there, files.exists(path));
            fresh = !there;
        }
        FS_ASSIGN(const KeySource::Made key, key_source->make(random, clock.now()));
        if (!key.document.empty())
            FS_TRY(put_idempotent(*store, key_document_name(key.key.id), key.document));
        if (fresh && !path.empty())
            log::info("vault", "new key-encryption key {} at {}: keep a copy of it elsewhere",
                      key.key.id, path);
        else
            log::info("vault", "key-encryption key {} of {}", key.key.id, spec);
        current_key = key.key.id;
        keyring.insert_or_assign(current_key, key.key);
        return {};
    }
    Bytes document;
    if (!wanted.empty()) {
        FS_ASSIGN(document, key_document(wanted));
    }
    auto opened = key_source->open(wanted, document);
    if (!opened && !key_source_path(spec).empty() && known.empty()) {
        // The database is lost, too, and with it that a rotation was under way.
        const std::string next = next_of(spec);
        FS_ASSIGN(auto other, make_key_source(next, files));
        if (auto key = other->open(wanted, {})) {
            if (auto old = key_source->open("", {})) {
                keyring.insert_or_assign(old->id, *old);
                FS_TRY(set_setting(*database, "key_rotation",
                                   dump_json({{"from", old->id},
                                              {"to", key->id},
                                              {"source", next},
                                              {"final_source", spec}})));
            }
            opened = *key;
        }
    }
    if (!opened && opened.error().code() == Code::kNotFound && !key_source_path(spec).empty())
        return fail(Code::kWrongKey,
                    wanted.empty() ? fmt::format("the store holds items, but there is no key at {}",
                                                 key_source_path(spec))
                                   : fmt::format("there is no key at {}; this vault's key is {}",
                                                 key_source_path(spec), wanted),
                    "put the key file there, or name it with --key");
    if (!opened && opened.error().code() == Code::kWrongKey && !kept.empty() && kept != spec)
        return fail(
            Code::kWrongKey, opened.error().what(),
            fmt::format("the key was rotated to {}: start with --key-source {}", kept, kept));
    if (!opened) return fail(opened.error());
    current_key = opened->id;
    keyring.insert_or_assign(current_key, *opened);
    return {};
}

// Those of the database and those that only the store has.
Result<std::vector<ItemId>> Vault::Impl::all_item_ids() {
    std::set<ItemId> ids;
    for (std::string after;;) {
        FS_ASSIGN(const auto records, list_items(*database, after, 500));
        if (records.empty()) break;
        after = records.back().name;
        for (const ItemRecord& record : records) ids.insert(record.id);
    }
    for (std::string after = "items/";;) {
        FS_ASSIGN(const auto found, store->list("items/", after, 1));
        if (found.empty()) break;
        const std::string id_text = found.front().name.substr(6, 32);
        after = "items/" + id_text + "/~";
        if (const auto id = ItemId::parse(id_text)) ids.insert(*id);
    }
    return std::vector<ItemId>(ids.begin(), ids.end());
}

Result<KeysReport> Vault::keys() {
    KeysReport report;
    {
        const std::lock_guard hold(impl_->keys_mutex);
        report.id = impl_->current_key;
        if (impl_->key_source) {
            report.source = impl_->key_source->spec();
            report.remote = impl_->key_source->is_remote();
        }
    }
    const Keyring keys = impl_->keks();
    for (std::string after;;) {
        FS_ASSIGN(const auto records, list_items(*impl_->database, after, 500));
        if (records.empty()) break;
        after = records.back().name;
        for (const ItemRecord& record : records) {
            const auto opened = open_for_item(record.id, record.wrapped_key, keys);
            ++report.items[opened ? opened->key_id : std::string()];
        }
    }
    FS_ASSIGN(const KeyRotation rotation, impl_->key_rotation());
    if (!rotation.to.empty()) {
        report.rotation = {rotation.from, rotation.to, rotation.final_source, 0};
        FS_ASSIGN(const auto jobs, open_jobs(*impl_->database));
        for (const JobRecord& job : jobs)
            if (job.kind == "key-rotation") report.rotation->job = job.id;
    }
    FS_ASSIGN(report.verified_json, get_setting(*impl_->database, "keys_verified"));
    return report;
}

Result<Bytes> Vault::escrow_keys(const EscrowRequest& request) {
    if (request.passphrase.empty() == request.public_key_pem.empty())
        return fail(Code::kInvalidArgument,
                    "an escrow is sealed under a passphrase or a public key",
                    "give one of the two");
    EscrowContent content;
    content.store_id = impl_->info.store_id;
    bool remote = false;
    {
        const std::lock_guard hold(impl_->keys_mutex);
        remote = impl_->key_source && impl_->key_source->is_remote();
    }
    const Keyring keys = impl_->keks();
    if (!remote) {
        for (const auto& [id, key] : keys) content.keys.push_back(key);
    } else {
        for (std::string after;;) {
            FS_ASSIGN(const auto records, list_items(*impl_->database, after, 500));
            if (records.empty()) break;
            after = records.back().name;
            for (const ItemRecord& record : records) {
                if (impl_->why_set_aside(record.id) && record.wrapped_key.empty()) continue;
                FS_ASSIGN(OpenedItemKey opened, open_for_item(record.id, record.wrapped_key, keys));
                content.items.push_back({record.id, record.name, std::move(opened.key)});
            }
        }
    }
    const TimePoint now = impl_->clock.now();
    auto sealed =
        request.passphrase.empty()
            ? seal_escrow_for(content, as_bytes(request.public_key_pem), now, impl_->random)
            : seal_escrow(content, request.passphrase, impl_->options.kdf, now, impl_->random);
    if (sealed)
        event(Severity::kWarning, "key-escrowed", nullptr,
              fmt::format("{} given out, sealed {}",
                          remote ? fmt::format("the keys of {} items were", content.items.size())
                                 : "the key-encryption key was",
                          request.passphrase.empty() ? "for a public key" : "under a passphrase"));
    return sealed;
}

}  // namespace farshore
