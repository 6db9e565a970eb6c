// Which points damaged objects cost: found by walking what a reader of a point would read - the
// manifest at or below it, that one's shards, the log behind - and following what of the damaged
// payload is still in place after each record. Exact for all objects together; for each alone as
// far as another does not hide it (what lies behind a segment that cannot be opened is not looked
// at).
//
// Reads every manifest of the item, the shards that refer to damaged objects, and the indexes of
// the log behind the window's floor: for diagnosis, not for each second. Borrows the store. Any
// thread may call. Errors of the store.
#pragma once

#include <vector>

#include "replica/item_replica.h"
#include "replica/scrub.h"

namespace farshore {

struct HurtPoints {
    std::vector<OfferedRange> ranges;  // of the window: no point in them can be read wholly
    std::vector<KeptRow> kept;         // the same, below the window
    bool newest = false;               // the newest point is among them

    bool none() const { return ranges.empty() && kept.empty(); }
};

// For each of `damage`, in order. `offered` is what there are of points (ItemReplica::points).
Result<std::vector<HurtPoints>> hurt_points(ObjectStore& store, const ItemId& item,
                                            const Secret& item_key, const PointList& offered,
                                            const std::vector<ObjectDamage>& damage);

}  // namespace farshore
