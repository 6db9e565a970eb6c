// Drills of items: what was asked for, and what each has shown. Their inside is src/recovery's. Any
// thread may call; errors of the database as in database.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

// Of an item; older ones are forgotten. What could not be done does not push out what was shown.
inline constexpr size_t kMaxKeptDrills = 100, kMaxKeptUndoneDrills = 10;

struct DrillPolicyRecord {
    ItemId item;
    std::string document;  // drill_policy_json()
    TimePoint created;     // when the item got one
};

// Replaces what was set, which stays as old as it is. kItemNotFound.
Result<DrillPolicyRecord> set_drill_policy(Database& database, const ItemId& item,
                                           const std::string& document);
// Ok when there is none.
Status remove_drill_policy(Database& database, const ItemId& item);
Result<std::vector<DrillPolicyRecord>> list_drill_policies(Database& database);

struct DrillRecord {
    uint64_t id = 0;
    ItemId item;
    std::string item_name;
    std::string recovery;          // the id of its machine
    std::string verdict = "open";  // drill_verdict_name()
    Sequence sequence;             // 0: its point was not found yet
    TimePoint point_time;
    TimePoint created, ended;
    std::string document;  // what was seen, as JSON
};

// `id` and `created` are set. kInProgress: one of the item is not over.
Result<DrillRecord> add_drill(Database& database, DrillRecord drill);
// kNotFound.
Result<DrillRecord> get_drill(Database& database, uint64_t id);
Status save_drill(Database& database, const DrillRecord& drill);
// Newest first, with an id below `before` (0: from the newest); of one item, or of all.
Result<std::vector<DrillRecord>> list_drills(Database& database, uint64_t before, size_t limit,
                                             const std::optional<ItemId>& item = {});
Result<std::vector<DrillRecord>> open_drills(Database& database);
// Of each item the newest one, the newest with a verdict, and the newest good one.
Result<std::vector<DrillRecord>> newest_drills(Database& database);
// Forgets those of an item that are too many; their ids.
Result<std::vector<uint64_t>> forget_old_drills(Database& database, const ItemId& item);

}  // namespace farshore
