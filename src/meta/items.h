// Use cases over replicated items and their bookmarks. Each is one durable transaction; errors of
// the database as in database.h, and kItemNotFound where an item is named. Any thread may call.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

// Items in one vault; what is more is refused with kLimitReached.
inline constexpr size_t kMaxItems = 10'000;

// A name is 1..128 bytes of [A-Za-z0-9._-], not starting with '.' or '-', and no 32 hexadecimal
// digits (which are an id). kInvalidArgument.
Status check_item_name(const std::string& name);

// Adds it, with state kEnabling; `created`, `updated` and `state_since` are set. kAlreadyExists
// when the name is taken; with a `policy_name` it gets that policy's values (kNotFound: there is no
// such policy); two items must not capture one disk: kAlreadyExists, naming the other.
Result<ItemRecord> create_item(Database& database, ItemRecord item);
Result<ItemRecord> get_item(Database& database, const ItemId& id);
// By name or by id.
Result<ItemRecord> find_item(Database& database, const std::string& name_or_id);
// In the order of their names, after `after`.
Result<std::vector<ItemRecord>> list_items(Database& database, const std::string& after,
                                           size_t limit);

// Which items a list is of; what is empty says nothing.
struct ItemQuery {
    std::string state, agent, prefix;
    std::string policy;     // "custom": with values of its own
    std::string appliance;  // that writes its log
    std::string site;       // of its appliance; of the one at home, while it runs elsewhere
};

// From memory, which is as new as the database: for lists that people look at, and heartbeats. Also
// kFenced (nodes.h).
//
// In the order of their names, after `after`. `also`, where there is one, takes what else is asked
// of them; it is called under a lock and asks nobody.
Result<std::vector<ItemRecord>> remembered_items(
    Database& database, const ItemQuery& query, const std::string& after, size_t limit,
    const std::function<bool(const ItemId&)>& also = {});
// Those that `agent` captures, and those that nobody captures yet, by name.
Result<std::vector<ItemRecord>> remembered_items_of_agent(Database& database,
                                                          const std::string& agent);
Result<ItemRecord> remembered_item(Database& database, const ItemId& id);

// Reads the item, lets `change` edit it, and writes it back when that returned ok, all in one
// transaction. The state may change only along item_state.h's table (kWrongState). Id, name and
// creation stay.
Result<ItemRecord> change_item(Database& database, const ItemId& id,
                               const std::function<Status(ItemRecord&)>& change);
// The item, its bookmarks and failovers; ok also when there is none. Its ledger goes with
// remove_ledger().
Status delete_item(Database& database, const ItemId& id);

// kLimitReached above kMaxPendingBookmarks that the agent has not made.
Status add_bookmark(Database& database, const BookmarkRecord& bookmark);
// kNotFound.
Result<BookmarkRecord> get_bookmark(Database& database, const std::string& id);
// The agent made it; ok also when it is known already or was dropped.
Status finish_bookmark(Database& database, const std::string& id, Sequence sequence,
                       TimePoint time);
// Gives up one that was not made.
Status drop_bookmark(Database& database, const std::string& id);
// Those that the agent has yet to make.
Result<std::vector<BookmarkRecord>> pending_bookmarks(Database& database, const ItemId& item);

// All zeroes while nothing was asked for.
Result<ConsistentState> get_consistent_state(Database& database, const ItemId& item);
// Reads it, lets `change` edit it and writes it back, in one transaction.
Result<ConsistentState> change_consistent_state(
    Database& database, const ItemId& item, const std::function<void(ConsistentState&)>& change);

// Nothing planned while nothing was asked for.
Result<ResyncPlan> get_resync_plan(Database& database, const ItemId& item);
// Reads item and plan, lets `change` edit both, and writes both back, in one transaction; what
// change_item() says of the item counts here, too.
Result<ResyncPlan> change_resync_plan(
    Database& database, const ItemId& item,
    const std::function<Status(ItemRecord&, ResyncPlan&)>& change);

// Failovers, for src/recovery. add: `id`, `created` and `updated` are set.
Result<FailoverRecord> add_failover(Database& database, FailoverRecord failover);
// kNotFound.
Result<FailoverRecord> get_failover(Database& database, uint64_t id);
// kNotFound. Kind, item and creation stay.
Status update_failover(Database& database, const FailoverRecord& failover);
// Newest first; all items' when `item` is none.
Result<std::vector<FailoverRecord>> list_failovers(Database& database,
                                                   const std::optional<ItemId>& item, size_t limit);

}  // namespace farshore
