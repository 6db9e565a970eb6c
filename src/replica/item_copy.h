// A copy of an item in a second store: what the source's replica needs for its oldest point is put
// there once (the seeding), then every registered segment follows, under the same names. From then
// on it is a replica like any other, with a ledger, checkpoints and retention of its own, and the
// store it is in can be read, rebuilt and taken over like a first one. docs/design/copies.md.
//
// While there is a copy, the source's retention asks followed() of it, so that what has not
// travelled yet stays in the source's log.
//
// Borrows all that Parts names. step(), mirror_description() and drop are for one thread at a time;
// replica() and status() for any. No threads of its own. After an error or a crash anywhere,
// opening again goes on.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "replica/item_replica.h"

namespace farshore {

// Who holds the lease of a seeding.
inline constexpr std::string_view kCopyHolderPrefix = "copy to ";

struct ItemCopyParts {
    std::string name;  // of the store that the copy is in
    ItemReplica* source = nullptr;
    ObjectStore* source_store = nullptr;
    ReplicaLedger* source_ledger = nullptr;
    ObjectStore* store = nullptr;  // where the copy is
    ReplicaLedger* ledger = nullptr;
    Clock* clock = nullptr;
    Random* random = nullptr;
    ItemId item;
    Secret item_key;
    // Of the copy's replica; its fence is that of the copy's store, of an epoch not smaller than
    // that of any vault that wrote to the source.
    ItemReplicaOptions replica;
    // Moves that many objects side by side; null: one after the other.
    ParallelFor parallel;
};

struct ItemCopyStatus {
    bool seeding = false;
    uint64_t seed_objects = 0, seed_objects_total = 0;
    uint64_t copied_objects = 0, copied_bytes = 0;  // by this process
    // Of these, with payload that the source cannot read; and kept points that it has lost.
    std::vector<std::string> damaged;
};

class ItemCopy {
  public:
    // Rebuilds the copy's ledger when the store knows more than it.
    static Result<std::unique_ptr<ItemCopy>> open(ItemCopyParts parts);

    // Moves a few objects; whether there was anything to do. kSequenceHole: the source no longer
    // has what follows, or the copy is not of this log. kCorrupt, kTruncated, ...: an object of the
    // source cannot be read, and was not copied; one of which some payload cannot be read is.
    // kFenced; errors of both stores.
    Result<bool> step();
    // Makes what opens and describes the item (its key under the key-encryption keys, the item
    // object) the same as in the source's store; what the source has no more goes. Cheap when all
    // is equal: two listings.
    Status mirror_description();

    // Null while seeding.
    std::shared_ptr<ItemReplica> replica() const;
    ItemCopyStatus status() const;

    // Up to where the copy needs no more of the source's log. 0: it has not begun.
    static Result<Sequence> followed(ReplicaLedger& ledger);

  private:
    explicit ItemCopy(ItemCopyParts parts) : parts_(std::move(parts)) {}
    struct Seed {
        uint64_t lease = 0;
        int64_t renewed_us = 0;  // steady
        std::vector<std::string> names;
        size_t done = 0;
        std::string floor_manifest;
    };

    Status adopt();
    Status begin_seeding();
    Status seed_some();
    Result<bool> follow_some();
    Result<bool> follow_idle(const LedgerState& source);
    Status move_objects(const std::vector<std::string>& names);

    const ItemCopyParts parts_;
    std::optional<Seed> seed_;
    mutable std::mutex mutex_;  // below
    std::shared_ptr<ItemReplica> replica_;
    ItemCopyStatus status_;
};

// Puts a damaged or missing log segment again from another store that has it whole; segments are
// the objects that are the same in all stores of an item. False: the other one has it not, or
// damaged too, or it is no segment. `check` is the fence of the store that is mended.
Result<bool> restore_segment(ObjectStore& store, ObjectStore& other, const ItemId& item,
                             const Secret& item_key, const std::string& name,
                             const std::function<Status()>& check);

}  // namespace farshore
