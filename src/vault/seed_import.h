// An image of a machine's disks that is at the recovery site already - shipped, restored from a
// backup, or a point of another item - as the beginning of an item's replica. Its blocks become
// records of the item's log, in a gap: no point is offered of them. When the source's capture
// begins behind them, all of it is compared, and only what differs travels.
//
// Blocking; one call for an item at a time. docs/design/resync.md, "Seeds".
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "block/block_device.h"
#include "replica/item_replica.h"
#include "store/object_store.h"

namespace farshore {

struct SeedDisk {
    DiskIndex disk = 0;
    std::unique_ptr<BlockDevice> device;  // read from beginning to end; zeroes are left out
    uint64_t size_bytes = 0;              // of the machine's disk: what is read of a larger image
};

// Where an import stands: everything before is stored and registered.
struct SeedPosition {
    size_t disk = 0;  // place in the list
    uint64_t offset_bytes = 0;
};

struct SeedImport {
    ObjectStore* store = nullptr;  // all borrowed
    ItemReplica* replica = nullptr;
    Clock* clock = nullptr;
    Random* random = nullptr;
    Secret item_key;
    std::vector<SeedDisk> disks;
    SeedPosition from;  // of an import that was interrupted
    // After each segment that is registered; an error ends the import with it.
    std::function<Status(const SeedPosition&, uint64_t imported_bytes, uint64_t total_bytes)>
        report;
};

// Bytes of payload that were imported. Errors of devices, store and replica; kFenced when somebody
// else took the item's log.
Result<uint64_t> import_seed(SeedImport& import);

}  // namespace farshore
