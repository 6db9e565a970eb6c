// The vault's items from the store alone. An item whose own objects are damaged is set aside: its
// record is there, every verb on it answers with what is wrong, and the others are served.
#include <fmt/core.h>

#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// What one item's objects can be. Anything else (key, store, database, fence) is not about one
// item.
bool is_of_the_item(Code code) {
    switch (code) {
        case Code::kCorrupt:
        case Code::kTruncated:
        case Code::kMalformed:
        case Code::kNotFound:
        case Code::kNewerVersion:
        case Code::kForeignStore:
        case Code::kSequenceHole:
        case Code::kTooLarge:
            return true;
        default:
            return false;
    }
}

std::string short_id(const ItemId& id) { return id.to_string().substr(0, 8); }

}  // namespace

Result<bool> Vault::Impl::is_described(const ItemId& id) {
    for (const std::string& name : {item_description_name(id), item_object_name(id)}) {
        auto there = store->head(name);
        if (there) return true;
        if (there.error().code() != Code::kNotFound) return tl::unexpected(there.error());
    }
    return false;
}

std::optional<Error> Vault::Impl::why_set_aside(const ItemId& id) {
    const std::lock_guard hold(mutex);
    const auto at = set_aside.find(id);
    if (at == set_aside.end()) return {};
    return at->second;
}

// A database that was lost (or never was: a data directory that takes a store over) is filled from
// the store alone.
Status Vault::Impl::rebuild_items() {
    FS_ASSIGN(const std::string rebuilt, get_setting(*database, "rebuilt"));
    if (!rebuilt.empty()) {
        FS_ASSIGN(const std::vector<ItemId> unfinished, unfinished_rebuilds(*database));
        for (const ItemId& id : unfinished) {
            FS_TRY(rebuild_item(id));
            if (why_set_aside(id)) continue;
            FS_ASSIGN(const ItemRecord record, get_item(*database, id));
            log::info("vault", about(record), "item '{}' was rebuilt from the store", record.name);
            FS_TRY(add_event(*database,
                             {.severity = Severity::kInformation,
                              .code = "item-rebuilt",
                              .item = id,
                              .item_name = record.name,
                              .cause = "its objects in the store are whole again; it is served"}));
        }
        return {};
    }
    size_t count = 0;
    std::string after = "items/";
    while (true) {
        FS_ASSIGN(const auto found, store->list("items/", after, 1));
        if (found.empty()) break;
        const std::string id_text = found.front().name.substr(6, 32);
        after = "items/" + id_text + "/~";  // greater than every name of that item
        auto id = ItemId::parse(id_text);
        if (!id) continue;
        FS_ASSIGN(const bool added, rebuild_item(*id));
        if (added) ++count;
    }
    if (count != 0)
        FS_TRY(
            add_event(*database, {.severity = Severity::kWarning,
                                  .code = "rebuilt-from-store",
                                  .cause = fmt::format("{} items were rebuilt from the store: this "
                                                       "database did not know them",
                                                       count),
                                  .remedy = "policies and sources are to be set again"}));
    return set_setting(*database, "rebuilt", "1");
}

// Whether it is whole and was not known.
Result<bool> Vault::Impl::rebuild_item(const ItemId& id) {
    const auto known = get_item(*database, id);
    if (!known && known.error().code() != Code::kItemNotFound) return tl::unexpected(known.error());
    DatabaseLedger ledger(*database, id);
    std::optional<ItemObject> object;
    bool is_destroyed = false;
    const auto rebuild = [&]() -> Status {
        auto decoded = load_item_object(*store, id);
        if (!decoded && decoded.error().code() == Code::kNotFound)
            return fail(Code::kCorrupt,
                        fmt::format("{} is missing in the store", item_object_name(id)));
        if (!decoded) return fail(decoded.error());
        FS_ASSIGN(const auto destroyed, key_destroyed(*store, id));
        if (destroyed) {
            is_destroyed = true;
            object = std::move(*decoded);
            object->wrapped_key.clear();
            // A crash may have left some of its copies.
            FS_TRY(
                destroy_item_key(*store, id, *destroyed, [this] { return fence->still_mine(); }));
            return fail(key_is_destroyed(object->name, *destroyed));
        }
        FS_ASSIGN(const OpenedItemKey opened, load_item_key(*store, id, keks()));
        const Secret& item_key = opened.key;
        object = std::move(*decoded);
        FS_ASSIGN(object->wrapped_key, wrap_for_item(id, item_key, kek(), random));
        FS_TRY(adopt_item(id, &*object));
        ItemReplicaOptions replica_options;
        replica_options.fence = &*fence;
        return ItemReplica::rebuild(*store, ledger, id, item_key, replica_options);
    };
    if (known) {
        // One that another vault deleted: forget_lost_items() looks after it.
        FS_ASSIGN(const LedgerState before, ledger.state());
        FS_ASSIGN(const bool there, is_described(id));
        if (!there && !before.rebuilding) return false;
    }
    auto done = rebuild();
    if (!done && is_destroyed && done.error().code() == Code::kWrongKey) {
        FS_TRY(ledger.begin_rebuild({}));
        FS_TRY(adopt_item(id, known ? nullptr : &*object));
        const std::lock_guard hold(mutex);
        set_aside.insert_or_assign(id, done.error());
        return false;  // it was said when it was done
    }
    if (!done && is_of_the_item(done.error().code())) {
        FS_TRY(put_aside(id, object ? &*object : nullptr, done.error()));
        return false;
    }
    FS_TRY(done);
    if (!known)
        log::info("vault", {.item = object->name, .item_id = id.to_string()},
                  "item '{}' ({}) was rebuilt from the store", object->name, id.to_string());
    return !known;
}

// The record of an item that the store holds; one that is known stays as it is. It comes before the
// ledger: a crash in between begins again. Without `object` only the id is known of it, and the
// record is made anew once there is more.
Result<ItemRecord> Vault::Impl::adopt_item(const ItemId& id, const ItemObject* object) {
    auto known = get_item(*database, id);
    if (known &&
        (object == nullptr || !known->wrapped_key.empty() || known->state == ItemState::kDisabling))
        return known;
    if (!known && known.error().code() != Code::kItemNotFound) return known;
    ItemRecord record;
    record.id = id;
    record.mode = CaptureMode::kMirror;  // nothing is served in the path until somebody says so
    record.name = "item-" + short_id(id);
    if (object != nullptr) {
        if (check_item_name(object->name)) record.name = object->name;
        record.machine = object->machine_json;
        record.wrapped_key = object->wrapped_key;
        for (const auto& disk : object->disks)
            record.disks.push_back({disk.index, disk.name, disk.size_bytes});
    }
    if (known) {
        record.policy = known->policy;
        record.policy_name = known->policy_name;
        FS_TRY(delete_item(*database, id));
    }
    auto made = create_item(*database, record);
    if (!made && made.error().code() == Code::kAlreadyExists) {
        record.name.resize(std::min(record.name.size(), kMaxItemNameBytes - 9));
        record.name += "-" + short_id(id);
        made = create_item(*database, record);
    }
    if (!made) return made;
    return change_item(*database, id, [](ItemRecord& item) -> Status {
        item.state = ItemState::kCatchingUp;
        return {};
    });
}

Status Vault::Impl::put_aside(const ItemId& id, const ItemObject* object, const Error& damage) {
    // Emptied and marked: nothing takes half a ledger for a whole one, and the next start tries
    // again.
    DatabaseLedger ledger(*database, id);
    FS_TRY(ledger.begin_rebuild({}));
    FS_ASSIGN(const ItemRecord record, adopt_item(id, object));
    const std::string cause = fmt::format(
        "'{}' is set aside, its objects under items/{} in the store at {} are damaged: {}",
        record.name, id.to_string(), store_location, damage.what());
    const std::string remedy = fmt::format(
        "{}, then start the vault again; or `farshore unprotect {} --force` deletes what is left",
        damage.code() == Code::kNewerVersion ? "upgrade Farshore"
                                             : "put them back from a copy of the store",
        record.name);
    // "There is no such thing" would be said of the item, not of its object.
    const Code code = damage.code() == Code::kNotFound ? Code::kCorrupt : damage.code();
    log::error("vault", {.item = record.name, .item_id = id.to_string(), .code = code_name(code)},
               "{}: {}; {}", code_name(code), cause, remedy);
    {
        const std::lock_guard hold(mutex);
        set_aside.insert_or_assign(id, Error(code, cause, remedy));
    }
    return add_event(*database, {.severity = Severity::kCritical,
                                 .code = "item-set-aside",
                                 .item = id,
                                 .item_name = record.name,
                                 .cause = cause,
                                 .remedy = remedy});
}

}  // namespace farshore
