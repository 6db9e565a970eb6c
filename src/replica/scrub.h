// Scrubbing: every object of an item is read again and verified wholly, so that damage is found
// while the source still has what was lost. One object a step, in the order of the names; where it
// is can be kept and taken up again, by another process, too. What is wrong with an object says
// which points it costs only together with the item's manifests: hurt_points.h.
//
// Borrows the store. One thread at a time; the functions may be called by any. Errors that are not
// damage (kUnavailable, kForbidden, kWrongKey ...) are returned: nothing is known of the object
// then, try again. docs/design/scrub.md.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/secret.h"
#include "replica/ledger.h"
#include "replica/manifest.h"
#include "store/object_store.h"

namespace farshore {

// So many objects in a row that the store cannot read (kIo) are the store's trouble, not theirs.
inline constexpr uint32_t kMaxUnreadableInARow = 4;

struct ObjectDamage {
    std::string object_name;
    // kCorrupt, kTruncated, kMalformed, kForeignStore, kNewerVersion, kIo; kNotFound: it is
    // missing.
    Code code = Code::kCorrupt;
    std::string what;
    // Of a segment or base object whose index is good: the chunks that cannot be read. Empty:
    // nothing of the object can.
    std::vector<uint32_t> chunks;
    // Only bytes that no reader needs (none today: every byte is under some checksum or tag).
    bool harmless = false;
};

struct ObjectCheck {
    uint64_t bytes = 0;  // that were read
    bool gone = false;   // there is no such object
    std::optional<ObjectDamage> damage;
};
// Reads one object of the item and verifies all of it: header, index and each chunk of segments and
// base objects, the content of shards, manifests and the item object. Names that are none of ours
// are passed over. kWrongKey when nothing can be told because the key is another.
Result<ObjectCheck> verify_object(ObjectStore& store, const ItemId& item, const Secret& item_key,
                                  const std::string& name);

struct ScrubProgress {
    std::string after;  // the last object that was verified; empty: none yet
    uint64_t objects = 0;
    uint64_t bytes = 0;
};

class ItemScrub {
  public:
    ItemScrub(ObjectStore& store, const ItemId& item, const Secret& item_key,
              ScrubProgress from = {});

    struct Step {
        bool done = false;  // there is no further object: nothing else is set
        std::string object_name;
        uint64_t bytes = 0;
        std::optional<ObjectDamage> damage;
    };
    // Verifies the next object. After an error the same one is tried again.
    Result<Step> step();
    const ScrubProgress& progress() const { return progress_; }

  private:
    ObjectStore& store_;
    const ItemId item_;
    const Secret& key_;
    ScrubProgress progress_;
    std::deque<ObjectInfo> listed_;
    uint32_t unreadable_ = 0;  // in a row
};

// Objects that something in force names, and that are not there or have another length: manifests,
// what they refer to, and the log behind the floor. Damaged manifests are passed over: step() names
// them.
Result<std::vector<ObjectDamage>> find_missing(ObjectStore& store, ReplicaLedger& ledger,
                                               const ItemId& item, const Secret& item_key);

}  // namespace farshore
