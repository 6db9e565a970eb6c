// The object that says that a store is one of Farshore's, of which format, and which one it is:
// `farshore-store`, written at first use. docs/format/names.md.
#pragma once

#include <string>
#include <string_view>

#include "base/seams.h"
#include "base/types.h"
#include "store/object_store.h"

namespace farshore {

inline constexpr const char* kStoreObject = "farshore-store";
inline constexpr int kStoreFormat = 1;

// What checks of a store put below it and remove again; a crash of one may leave some of it.
inline constexpr std::string_view kStoreCheckPrefix = "farshore-check/";

using StoreId = Id<struct StoreIdTag>;

struct StoreIdentity {
    int format = kStoreFormat;
    StoreId id;
    TimePoint created;
};

Bytes encode_store_identity(const StoreIdentity& identity);
// kTruncated, kCorrupt, kMalformed, kNewerVersion.
Result<StoreIdentity> decode_store_identity(ByteView object);

// Whether there is any object but what a check left.
Result<bool> holds_objects(ObjectStore& store);

// The store's identity; kForeignStore when it has none, kNewerVersion when a newer Farshore wrote
// it.
Result<StoreIdentity> read_store_identity(ObjectStore& store);
// The same, but an empty store is given an identity. kForeignStore when it holds other things. When
// two do it at once, both get what one of them wrote.
Result<StoreIdentity> ensure_store_identity(ObjectStore& store, Clock& clock, Random& random);

}  // namespace farshore
