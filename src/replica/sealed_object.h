// The shell of checkpoint shards and manifests: a header, and a body that is compressed and then
// sealed under a data key of its own, which the item's key wraps. Bytes: docs/format/manifest.md
// §1.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

// 8 characters that an object of this kind begins with.
inline constexpr std::string_view kShardMagic = "FARSHSHD";
inline constexpr std::string_view kManifestMagic = "FARSHMAN";
inline constexpr std::string_view kHoldMagic = "FARSHHLD";

// The whole object. `name` is bound into it: under another name it does not open. kTooLarge when
// the body passes kMaxPlainBytes or the object kMaxObjectBytes.
Result<Bytes> seal_object(std::string_view magic, const std::string& name, const ItemId& item,
                          ByteView body, const Secret& item_key, Random& random);
// The body. kTruncated, kCorrupt, kMalformed (another kind of object), kNewerVersion, kForeignStore
// (another item's), kWrongKey.
Result<Bytes> open_object(std::string_view magic, const std::string& name, const ItemId& item,
                          ByteView object, const Secret& item_key);

}  // namespace farshore
