// An item's seed: what its replica begins with instead of nothing, and how far that is. Any thread
// may call.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

enum class SeedState : uint8_t {
    kNone,
    kWaiting,    // for the agent to describe the machine
    kImporting,  // a job reads it into the store
    kFailed,     // it could not be read: `error`
    kComparing,  // samples of source and seed are compared, and nothing is copied yet
    kHeld,       // they differ so much that somebody is asked
    kDone,       // what differs travels, or has
};
std::string_view seed_state_name(SeedState state);  // "none", "waiting", ...

struct SeedRecord {
    // For each disk in order a path, an NBD URI, or nothing; or one "item:NAME[@POINT]" for all.
    std::vector<std::string> sources;
    SeedState state = SeedState::kNone;
    std::optional<ItemError> error;
    uint64_t sampled_bytes = 0, differing_bytes = 0;
};

// kNone when it has none.
Result<SeedRecord> get_seed(Database& database, const ItemId& item);
// In one transaction; an error of `change` changes nothing. kItemNotFound.
Result<SeedRecord> change_seed(Database& database, const ItemId& item,
                               const std::function<Status(SeedRecord&)>& change);

}  // namespace farshore
