// The keys of a store, read as docs/format/keys.md says: key-encryption keys (KEKs) out of a key
// file, a passphrase or an escrow, and an item's key under them. Internal to src/extract. Values;
// any thread.
#pragma once

#include <map>
#include <string>

#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"
#include "codec/passphrase.h"
#include "extract/extract.h"
#include "extract/store_objects.h"

namespace farshore::extraction {

struct Keys {
    std::map<std::string, Secret> keks;  // by id
    std::map<ItemId, Secret> items;      // of an escrow
};

// What the options give. Errors of extract().
Result<Keys> open_keys(const ExtractOptions& options, FileSystem& files, const StoreReader& store);

// A document `keys/<id>`: how a KEK is sealed.
struct SealedKek {
    std::string id;
    std::string kind;  // passphrase, azure-key-vault
    KdfCost cost;
    Bytes salt;
    std::string remote_key;
    Bytes sealed;
};
Result<SealedKek> decode_sealed_kek(ByteView object, const std::string& name);

// An escrow, opened with a passphrase or a private key (PEM); whichever it needs must not be empty.
Result<Keys> open_escrow(ByteView file, const Secret& passphrase, const Secret& private_key);

// One generation of an item's key.
struct KeyGeneration {
    std::string key_id;
    Bytes wrapped;
};
Result<KeyGeneration> decode_key_generation(ByteView object, const std::string& name,
                                            const ItemId& item, uint64_t generation,
                                            uint64_t vault);

// The item's description, wherever it stands. kItemNotFound.
Result<ItemDescription> find_item_description(const StoreReader& store, const ItemId& item);
Result<Secret> find_item_key(const StoreReader& store, const ItemDescription& item,
                             const Keys& keys);

}  // namespace farshore::extraction
