// What a run of retention moves into base objects. Internal to ItemReplica.
#pragma once

#include <optional>
#include <vector>

#include "replica/item_replica.h"
#include "replica/manifest_builder.h"

namespace farshore {

struct ItemReplica::Rewriting {
    size_t objects = 0;  // 0: nothing is worth it
    std::optional<ManifestBuilder::Needed> needed;
    std::vector<KeptRow> kept;  // those that refer to them, by sequence
};

}  // namespace farshore
