// The object that describes one replicated item to whoever has only the store and the key file:
// `items/<item>/item`. The vault writes it once, when the item is protected. Once the
// key-encryption key has changed, `items/<item>/description` stands in its place: the same without
// a key, which is in objects of its own then (item_key.h). Bytes: docs/format/item.md. Values; any
// thread may call.
#pragma once

#include <string>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"
#include "codec/key_file.h"

namespace farshore {

struct ItemObject {
    struct Disk {
        DiskIndex index = 0;
        std::string name;         // the source's word for it, e.g. "vda" or a path
        uint64_t size_bytes = 0;  // when it was protected; GEOMETRY records say more
        friend bool operator==(const Disk&, const Disk&) = default;
    };
    ItemId item;
    std::string name;
    TimePoint created;
    std::string key_id;  // of the key-encryption key that wraps the item's key
    Bytes wrapped_key;   // kWrappedKeyBytes; empty: a description without a key
    std::vector<Disk> disks;
    // How to build the machine again (CPUs, memory, firmware, NICs): a JSON object that this folder
    // does not look into. Empty: none.
    std::string machine_json;
};

std::string item_object_name(const ItemId& item);
std::string item_description_name(const ItemId& item);

// kInvalidArgument when machine_json is no JSON object.
Result<Bytes> encode_item_object(const ItemObject& object);
// kTruncated, kCorrupt, kMalformed, kNewerVersion; kForeignStore when it describes another item.
Result<ItemObject> decode_item_object(ByteView bytes, const ItemId& expected);

// Fills in key_id and wrapped_key. The item's id must be set: the key is bound to it.
Status wrap_item_key(ItemObject& object, const Secret& item_key, const KeyFile& key,
                     Random& random);
// The item's key. kWrongKey, naming the key file that is wanted.
Result<Secret> open_item_key(const ItemObject& object, const KeyFile& key);

}  // namespace farshore
