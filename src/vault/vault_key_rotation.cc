// Exchanging the key-encryption key without rewriting data (docs/design/keys.md): first every
// item's key is put again under the new one, then every copy under the old one is removed.
#include <fmt/core.h>

#include "keys/key_document.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "replica/log_walk.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

Status keep_rotation(Database& database, const KeyRotation& rotation) {
    return set_setting(database, "key_rotation",
                       dump_json({{"from", rotation.from},
                                  {"to", rotation.to},
                                  {"source", rotation.source},
                                  {"final_source", rotation.final_source},
                                  {"explicit", rotation.explicit_source},
                                  {"closing", rotation.closing}}));
}

// A source that only this process could read must not be what the next start depends on.
Status check_rotation_target(const std::string& spec) {
    const std::string_view kind = key_source_kind(spec);
    if (kind == "passphrase-fd" || kind == "passphrase-prompt")
        return fail(Code::kInvalidArgument, fmt::format("a key cannot be rotated to {}", kind),
                    "put the new passphrase into a file and name it with passphrase:FILE");
    return {};
}

}  // namespace

Result<JobRecord> Vault::rotate_key(const std::string& to) {
    const std::lock_guard one(impl_->key_rotation_start);
    const auto start = [this]() {
        return start_job("key-rotation", {}, false, "",
                         [this](JobRun& run) { return impl_->run_key_rotation(*this, run); });
    };
    FS_ASSIGN(const KeyRotation under_way, impl_->key_rotation());
    if (!under_way.to.empty()) {
        if (!to.empty() && to != under_way.final_source)
            return fail(Code::kWrongState,
                        fmt::format("a rotation to {} has not ended", under_way.final_source),
                        "`farshore key rotate` without --to goes on with it");
        FS_ASSIGN(const auto jobs, open_jobs(*impl_->database));
        for (const JobRecord& job : jobs)
            if (job.kind == "key-rotation") return job;
        return start();
    }
    FS_TRY(impl_->check_not_fenced(impl_->fence->still_mine()));
    std::shared_ptr<KeySource> source;
    KeyRotation rotation;
    {
        const std::lock_guard hold(impl_->keys_mutex);
        source = impl_->key_source;
        rotation.from = impl_->current_key;
    }
    rotation.final_source = to.empty() ? source->spec() : to;
    rotation.source = rotation.final_source;
    rotation.explicit_source = !to.empty();
    if (rotation.final_source == source->spec()) {
        // The file that is in use stays what it is until nothing depends on it any more.
        if (!key_source_path(rotation.source).empty()) {
            rotation.source += ".new";
            FS_ASSIGN(auto next, make_key_source(rotation.source, impl_->files));
            source = std::move(next);
        }
    } else {
        FS_TRY(check_rotation_target(to));
        FS_ASSIGN(auto next, make_key_source(to, impl_->files, impl_->options.kdf));
        source = std::move(next);
    }
    FS_ASSIGN(const KeySource::Made made, source->make(impl_->random, impl_->clock.now()));
    rotation.to = made.key.id;
    if (rotation.to == rotation.from)
        return fail(Code::kWrongState,
                    fmt::format("{} gives key {}, which is in use", rotation.source, rotation.to),
                    "name a source with another key: `farshore key rotate --to SOURCE`");
    if (!made.document.empty())
        FS_TRY(put_idempotent(*impl_->store, key_document_name(rotation.to), made.document));
    {
        const std::lock_guard work(impl_->key_work);
        FS_TRY(keep_rotation(*impl_->database, rotation));
        const std::lock_guard hold(impl_->keys_mutex);
        impl_->keyring.insert_or_assign(rotation.to, made.key);
        impl_->current_key = rotation.to;
        impl_->key_source = source;
    }
    event(Severity::kInformation, "key-rotation-started", nullptr,
          fmt::format("key {} replaces key {}", rotation.to, rotation.from));
    return start();
}

Status Vault::Impl::rewrap_item(const ItemId& id, const KeyFile& to) {
    const std::lock_guard work(key_work);
    FS_TRY(check_not_fenced(fence->still_mine()));
    FS_ASSIGN(const auto destroyed, key_destroyed(*store, id));
    if (destroyed) return {};
    const auto record = get_item(*database, id);
    if (!record && record.error().code() != Code::kItemNotFound) return fail(record.error());
    const Keyring keys = keks();
    Result<OpenedItemKey> opened = tl::unexpected(Error(Code::kNotFound, ""));
    if (record && !record->wrapped_key.empty())
        opened = open_for_item(id, record->wrapped_key, keys);
    if (!opened) opened = load_item_key(*store, id, keys);
    if (!opened) {
        // Leftovers of an item that was deleted: nothing there can be opened by any key.
        if (opened.error().code() == Code::kNotFound && !record) return {};
        return fail(opened.error());
    }
    FS_TRY(put_item_key(*store, id, opened->key, to, fence->epoch(), clock.now(), random));
    if (!record || record->wrapped_key.empty() || opened->key_id == to.id) return {};
    FS_ASSIGN(const Bytes wrapped, wrap_for_item(id, opened->key, to, random));
    auto changed = change_item(*database, id, [&](ItemRecord& item) -> Status {
        item.wrapped_key = wrapped;
        return {};
    });
    if (!changed && changed.error().code() != Code::kItemNotFound) return fail(changed.error());
    return {};
}

Result<std::string> Vault::Impl::run_key_rotation(Vault& vault, JobRun& run) {
    FS_ASSIGN(const KeyRotation rotation, key_rotation());
    if (rotation.to.empty()) return "{}";  // an earlier run did it
    const Keyring keys = keks();
    const auto at = keys.find(rotation.to);
    if (at == keys.end())
        return fail(Code::kWrongKey, fmt::format("key {} is not at hand", rotation.to));
    const KeyFile& to = at->second;
    // Items that are protected from now on are under the new key already.
    FS_ASSIGN(const std::vector<ItemId> ids, all_item_ids());
    std::vector<std::string> failed;
    std::optional<Error> first_trouble;
    size_t removed = 0;
    const auto each = [&](double from, const char* what,
                          const std::function<Status(const ItemId&)>& work) -> Status {
        size_t done = 0;
        for (const ItemId& id : ids) {
            FS_TRY(run.report(
                from + 0.45 * static_cast<double>(done++) / static_cast<double>(ids.size()),
                fmt::format("{}: {} of {}", what, done, ids.size())));
            auto worked = work(id);
            if (worked) continue;
            if (worked.error().retry() != Retry::kNever || worked.error().code() == Code::kFenced)
                return worked;
            const auto record = get_item(*database, id);
            failed.push_back(record ? record->name : id.to_string());
            if (!first_trouble) first_trouble = worked.error();
        }
        if (failed.empty()) return {};
        std::string names;
        for (size_t i = 0; i < std::min<size_t>(failed.size(), 10); ++i)
            names += (i == 0 ? "" : ", ") + failed[i];
        return fail(first_trouble->code(),
                    fmt::format("the keys of {} items could not be exchanged ({}): {}",
                                failed.size(), names, first_trouble->what()),
                    "mend or unprotect them, then `farshore key rotate` goes on; until then the "
                    "old key is needed, too");
    };
    FS_TRY(each(0, "wrapped anew", [&](const ItemId& id) { return rewrap_item(id, to); }));
    // Whoever takes a copy over has the new key then, as here.
    FS_TRY(each(0.25, "wrapped anew in copies", [&](const ItemId& id) { return mirror_keys(id); }));
    // Not before all are there: until here a vault with the old key alone reads everything.
    FS_TRY(each(0.5, "old copies removed", [&](const ItemId& id) -> Status {
        const std::lock_guard work(key_work);
        FS_ASSIGN(const auto destroyed, key_destroyed(*store, id));
        if (destroyed) return {};
        FS_ASSIGN(const size_t gone, remove_other_item_keys(*store, id, to, [this] {
                      return check_not_fenced(fence->still_mine());
                  }));
        removed += gone;
        return {};
    }));
    FS_TRY(each(0.75, "old copies removed in other stores",
                [&](const ItemId& id) { return mirror_keys(id); }));
    FS_TRY(run.report(0.95, "retiring the old key"));
    FS_TRY(close_key_rotation(vault, rotation));
    return dump_json({{"from", rotation.from},
                      {"to", rotation.to},
                      {"items", ids.size()},
                      {"removed_objects", removed}});
}

// Each step may have been done by an earlier run.
Status Vault::Impl::close_key_rotation(Vault& vault, KeyRotation rotation) {
    rotation.closing = true;
    FS_TRY(keep_rotation(*database, rotation));
    FS_TRY(check_not_fenced(fence->still_mine()));
    FS_ASSIGN(const auto documents, list_all(*store, std::string(kKeyDocumentPrefix)));
    for (const ObjectInfo& info : documents)
        if (info.name != key_document_name(rotation.to)) FS_TRY(store->remove(info.name));
    for (const auto& second : all_second_stores()) {
        FS_ASSIGN(const auto copies, list_copies_in(*database, second->name));
        if (copies.empty()) continue;
        FS_TRY(second_store(second->name));
        FS_TRY(mirror_key_documents(*second));
    }
    FS_TRY(set_setting(*database, "key_id", rotation.to));
    if (rotation.explicit_source)
        FS_TRY(set_setting(*database, "key_source", rotation.final_source));
    std::shared_ptr<KeySource> source;
    if (rotation.source != rotation.final_source) {
        const std::string from = key_source_path(rotation.source);
        const std::string path = key_source_path(rotation.final_source);
        FS_ASSIGN(const bool there, files.exists(from));
        if (there) {
            FS_TRY(files.rename(from, path));
            FS_TRY(files.sync_directory(parent_directory(path)));
        }
        FS_ASSIGN(auto placed, make_key_source(rotation.final_source, files, options.kdf));
        FS_TRY(placed->open(rotation.to, {}));
        source = std::move(placed);
    }
    {
        const std::lock_guard hold(keys_mutex);
        if (source) key_source = source;
        std::erase_if(keyring, [&](const auto& entry) { return entry.first != rotation.to; });
    }
    FS_TRY(set_setting(*database, "key_rotation", ""));
    vault.event(
        Severity::kInformation, "key-rotated", nullptr,
        fmt::format("key {} has replaced key {}, which opens nothing any more", rotation.to,
                    rotation.from),
        "keep a copy of the new key elsewhere (`farshore key escrow`), and destroy those of "
        "the old one");
    return {};
}

}  // namespace farshore
