// Vault nodes that share one PostgreSQL database: which of them leads. The leader holds a lease
// with an epoch that only grows. Every change that its Database makes asks for that epoch in the
// same transaction, so a node that was only asleep changes nothing any more once another one leads.
// The lease ends by the database's clock: those of the nodes may differ.
//
// Any thread may call; errors as in database.h, kUnsupported on SQLite, which has one vault.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxVaultNodes = 64;

struct VaultLease {
    uint64_t epoch = 0;  // 0: nobody has ever led
    std::string node;    // empty: it was given up
    std::string address;
    int64_t left_us = 0;  // until it ends; not above 0: it has ended
};

struct VaultNode {
    std::string name;     // unique, of one data directory
    std::string address;  // host:port at which the other nodes reach it
    std::string version;
    TimePoint started;
    uint64_t machines = 0;  // recovered ones that run there
    int64_t silent_us = 0;  // since it was heard of
};

Result<VaultLease> read_vault_lease(Database& database);
// The lease, with a new epoch, when it is free, has ended, or is `node`'s own (which has started
// again); else what there is, with another node's name.
Result<VaultLease> take_vault_lease(Database& database, const std::string& node,
                                    const std::string& address, int64_t duration_us);
// kFenced when another epoch counts by now.
Status renew_vault_lease(Database& database, uint64_t epoch, int64_t duration_us);
// For whoever answers from memory: that the lease which fences the changes by `database` is still
// its own, as the database said within the last second. Ok without a lease. kFenced.
Status check_still_leads(Database& database);
// Ends it at once. Ok when it is another's by now.
Status give_up_vault_lease(Database& database, uint64_t epoch);
// From now on every change by `database` needs this epoch (0: none is asked for), and jobs that are
// added are `node`'s. Before other threads use the database.
void fence_by_vault_lease(Database& database, uint64_t epoch, const std::string& node = {});
// The node of fence_by_vault_lease(); empty: there are none.
std::string node_of(Database& database);

// Known from now on; nodes that have been silent for a day are forgotten. kLimitReached.
Status vault_node_seen(Database& database, const VaultNode& node);
// By name.
Result<std::vector<VaultNode>> list_vault_nodes(Database& database);

}  // namespace farshore
