// Which vault owns a store: the one with the largest `vault/<epoch>` object (core.md §4). A vault
// that starts claims a new epoch; from then on an older one that still runs on the store finds
// itself fenced at its next registration or deletion.
#pragma once

#include <string>

#include "base/seams.h"
#include "base/types.h"
#include "store/object_store.h"

namespace farshore {

// Immutable once claimed; any thread may call. Borrows the store.
class VaultFence {
  public:
    // The newest claim on a store; epoch 0 when there is none.
    struct Claim {
        Epoch epoch;
        std::string id;
    };
    static Result<Claim> newest(ObjectStore& store);

    // Claims an epoch larger than every one there is, and not below `at_least`. `who` is kept in
    // the object for people, `id` so that whoever remembers it knows its claim again: fresh for
    // each claim, and made up here when empty.
    static Result<VaultFence> claim(ObjectStore& store, Clock& clock, Random& random,
                                    const std::string& who, std::string id = {},
                                    Epoch at_least = {});
    Epoch epoch() const { return epoch_; }
    // kFenced when a newer vault has claimed the store since; errors of the store: not known, so
    // the caller must not go on either.
    Status still_mine() const;

  private:
    VaultFence(ObjectStore& store, Epoch epoch) : store_(&store), epoch_(epoch) {}
    ObjectStore* store_;
    Epoch epoch_;
};

}  // namespace farshore
