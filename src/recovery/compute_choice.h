// Where the recovery machine of an item is to run: which host, and its settings. Any thread may
// call; errors of the database as in database.h.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "base/types.h"
#include "compute/compute_host.h"

namespace farshore {

class Database;
struct ComputeHostRecord;

struct ComputeChoice {
    std::string host;                             // kLocalHost (meta/compute_hosts.h), or another
    std::optional<ComputeHostSettings> settings;  // of that other one
};

// kMalformed and others of compute_host_from_json(): the record is damaged.
Result<ComputeHostSettings> settings_of(const ComputeHostRecord& host);
Result<ComputeChoice> compute_choice(Database& database, const ItemId& item);

}  // namespace farshore
