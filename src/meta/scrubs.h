// How far the scrub of an item's objects is, and which of them are damaged. Any thread may call.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

// What is more is counted, and found again when these are mended or gone.
inline constexpr size_t kMaxDamagedObjects = 200;

// The newest run of an item.
struct ScrubRecord {
    TimePoint started;               // 0: none yet
    TimePoint ended;                 // 0: it runs, or waits for its continuation
    TimePoint finished;              // when one came to its end last
    std::string after;               // the last object that was verified
    uint64_t objects = 0;            // that were verified
    uint64_t bytes = 0;              // that were read
    uint64_t damaged = 0;            // that were found in it
    std::optional<ItemError> error;  // why it ended early
};
// All zeroes when there was none.
Result<ScrubRecord> get_scrub(Database& database, const ItemId& item);
// kItemNotFound.
Status put_scrub(Database& database, const ItemId& item, const ScrubRecord& record);

struct DamageRecord {
    std::string object_name;
    Code code = Code::kCorrupt;  // kNotFound: it is missing
    std::string what;
    std::vector<uint32_t> chunks;  // empty: all of it
    TimePoint found;
    bool newest = false;  // it costs the newest point
    std::string points;   // JSON: which it costs (`ScrubDamage.points` in api/openapi.yaml)
    TimePoint asked;      // when the source was asked to send again; 0: not
};
// By name.
Result<std::vector<DamageRecord>> list_damage(Database& database, const ItemId& item);
// Adds it or replaces what is known of that object; when it was found, and asked for, stays.
// kLimitReached above kMaxDamagedObjects; kItemNotFound.
Status put_damage(Database& database, const ItemId& item, const DamageRecord& damage);
// The source was asked for what the newest point needs of all of them.
Status damage_asked(Database& database, const ItemId& item, TimePoint now);
// Ok also when there is none.
Status remove_damage(Database& database, const ItemId& item, const std::string& object_name);

}  // namespace farshore
