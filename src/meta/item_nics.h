// What was set for the network cards of items in a recovery; their inside is src/recovery's
// (nic_settings.h). They go with their item. Any thread may call; errors of the database as in
// database.h.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

class Database;

// By the card's place in the machine's description.
Result<std::map<uint32_t, std::string>> item_nics(Database& database, const ItemId& item);
// Of all items.
Result<std::vector<std::string>> all_item_nics(Database& database);
// Replaces what was set. kItemNotFound.
Status set_item_nic(Database& database, const ItemId& item, uint32_t nic,
                    const std::string& document);
// Ok when nothing was set.
Status clear_item_nic(Database& database, const ItemId& item, uint32_t nic);

}  // namespace farshore
