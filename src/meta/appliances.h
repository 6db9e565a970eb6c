// Use cases over appliances as the vault knows them, and which of them has each item. Any thread
// may call; errors of the database as in database.h.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/types.h"
#include "meta/agent_documents.h"

namespace farshore {

class Database;

// What an appliance said of itself last.
struct ApplianceRecord {
    std::string name;     // common name of its certificate
    std::string address;  // host:port at which agents reach it; empty: it does not know
    std::string site;
    std::string version;
    TimePoint seen;
};

Status appliance_seen(Database& database, const ApplianceRecord& appliance);
// By name.
Result<std::vector<ApplianceRecord>> list_appliances(Database& database);
// Ok when it is not known.
Status forget_appliance(Database& database, const std::string& name);

// Which appliance an item's records go to.
struct ItemAppliance {
    std::string now;   // empty: the first that asks
    std::string next;  // that it moves to; empty: it stays
    TimePoint since;   // of the newest change
};

Result<ItemAppliance> get_item_appliance(Database& database, const ItemId& item);
struct ApplianceLoad {
    uint64_t items = 0;   // that it has
    uint64_t coming = 0;  // that move to it
};
// Of those that have any, by name.
Result<std::map<std::string, ApplianceLoad>> appliance_loads(Database& database);
// Of all items that have one.
Result<std::map<ItemId, ItemAppliance>> list_item_appliances(Database& database);
// `appliance` asks for the item's records: it has them from now on when it is the item's, the next
// one, or the first. kForbidden: they are another's. True when that is news.
Result<bool> take_item(Database& database, const ItemId& item, const std::string& appliance);
// It goes to `next` as soon as nothing is missed by that; to the one that it has: it stays. At once
// with `lost`, which is when the one that it has will not come back. kItemNotFound.
Result<ItemAppliance> move_item(Database& database, const ItemId& item, const std::string& next,
                                bool lost);

}  // namespace farshore
