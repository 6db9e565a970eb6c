// The key of an item as the store holds it once the key-encryption key (KEK) has changed:
// write-once objects `items/<item>/key/<generation>-<vault epoch>.key`, each the same item key
// wrapped under some KEK. The newest generation that a known KEK opens is the item's key; without
// any, the one in the item object is (generation 0). Bytes and rules: docs/format/keys.md. Values;
// any thread may call.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "codec/key_file.h"
#include "replica/item_object.h"
#include "store/object_store.h"

namespace farshore {

// KEKs by their id. Few: one, and during a rotation two.
using Keyring = std::map<std::string, KeyFile>;

struct ItemKeyObject {
    ItemId item;
    uint64_t generation = 0;  // from 1
    Epoch vault;              // of the vault that wrote it
    TimePoint created;
    std::string key_id;  // of the KEK
    Bytes wrapped_key;   // kWrappedKeyBytes
};

std::string item_key_prefix(const ItemId& item);
std::string item_key_name(const ItemId& item, uint64_t generation, Epoch vault);
struct ItemKeyName {
    uint64_t generation = 0;
    Epoch vault;
    friend auto operator<=>(const ItemKeyName&, const ItemKeyName&) = default;
};
// None: another object's name.
std::optional<ItemKeyName> parse_item_key_name(const ItemId& item, const std::string& name);

Bytes encode_item_key(const ItemKeyObject& object);
// kTruncated, kCorrupt, kMalformed, kNewerVersion; kForeignStore when it is another item's or had
// another name.
Result<ItemKeyObject> decode_item_key(ByteView bytes, const ItemId& item, const ItemKeyName& name);

// What every wrapping of an item's key is bound to.
Bytes key_associated(const ItemId& item);
// An item key wrapped under `key`; bound to the item.
Result<Bytes> wrap_for_item(const ItemId& item, const Secret& item_key, const KeyFile& key,
                            Random& random);
struct OpenedItemKey {
    Secret key;
    std::string key_id;       // of the KEK that opened it
    uint64_t generation = 0;  // 0: out of the item object
};
// With whichever of the keys fits; kWrongKey when none does.
Result<OpenedItemKey> open_for_item(const ItemId& item, ByteView wrapped, const Keyring& keys);

// The item object, or the description that stands in its place once the key has changed.
// kNotFound when neither is there.
Result<ItemObject> load_item_object(ObjectStore& store, const ItemId& item);
// The item's key out of the store. kWrongKey: none of `keys` opens it, and which one would; or it
// was destroyed. kNotFound: the store has no key of it. A damaged object counts only when no other
// one opens.
Result<OpenedItemKey> load_item_key(ObjectStore& store, const ItemId& item, const Keyring& keys);

// Makes the store hold the item's key under `key` as the newest generation; nothing to do when it
// does, or when the store does not describe the item. `item_key` is what it holds now.
Status put_item_key(ObjectStore& store, const ItemId& item, const Secret& item_key,
                    const KeyFile& key, Epoch vault, TimePoint now, Random& random);
// Removes every copy of the item's key that is not wrapped under `key`, after reading back one that
// is. `check` (the fence) is asked before anything is removed. An item object that holds such a
// copy is replaced by a description without a key first, so that one of them is always there. How
// many objects were removed.
Result<size_t> remove_other_item_keys(ObjectStore& store, const ItemId& item, const KeyFile& key,
                                      const std::function<Status()>& check);

// ---- destruction of an item by its key

// `items/<item>/key-destroyed`: written before the copies go, so that a crash in between is known.
std::string key_destroyed_name(const ItemId& item);
// When it was destroyed, or none.
Result<std::optional<TimePoint>> key_destroyed(ObjectStore& store, const ItemId& item);
// Says so in the store, then removes every copy of the item's key. May be repeated.
Status destroy_item_key(ObjectStore& store, const ItemId& item, TimePoint now,
                        const std::function<Status()>& check);

}  // namespace farshore
