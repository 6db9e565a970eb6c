// Hosts on which recovery machines can run beside the vault's own machine, and which items are to
// run on which. A document's inside is src/compute's (compute_host.h). Any thread may call; errors
// of the database as in database.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxComputeHosts = 256;
// QEMU on the vault's own machine, which is no row.
inline constexpr std::string_view kLocalHost = "local";

struct ComputeHostRecord {
    std::string name;
    uint64_t version = 1;  // one more with each change
    std::string document;  // compute_host_json()
    TimePoint created, updated;
};

// [a-z0-9-], at most 32, with a letter, not `local`: kInvalidArgument.
Status check_compute_host_name(const std::string& name);
// By name.
Result<std::vector<ComputeHostRecord>> list_compute_hosts(Database& database);
// kNotFound.
Result<ComputeHostRecord> get_compute_host(Database& database, const std::string& name);
// `version` and times are set. kAlreadyExists, kLimitReached.
Result<ComputeHostRecord> add_compute_host(Database& database, const std::string& name,
                                           const std::string& document);
// kNotFound.
Result<ComputeHostRecord> change_compute_host(Database& database, const std::string& name,
                                              const std::string& document);
// kWrongState: items are to run there, one of which is named. kNotFound.
Status remove_compute_host(Database& database, const std::string& name);

// Where the item's machine is to run; none: on the vault's own machine. It goes with its item.
Result<std::optional<std::string>> item_compute(Database& database, const ItemId& item);
// Replaces what was set. kItemNotFound, kNotFound (the host).
Status set_item_compute(Database& database, const ItemId& item, const std::string& host);
// Ok when nothing was set.
Status clear_item_compute(Database& database, const ItemId& item);

}  // namespace farshore
