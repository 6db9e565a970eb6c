// Use cases over alarms: what is wrong with an item or a component, from when it was raised until
// it cleared by itself. One at a time of an item or component and a code. Any thread may call;
// errors of the database as in database.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxKeptAlarms = 100'000;  // older ones that have cleared are forgotten
inline constexpr size_t kMaxAlarmNoteBytes = 1024;

struct AlarmRecord {
    uint64_t id = 0;
    std::optional<ItemId> item;
    std::string item_name;
    std::string
        component;  // "appliance NAME", "agent NAME", "store NAME", "vault"; without an item
    std::string code;
    Severity severity = Severity::kWarning;
    std::string cause, remedy;  // the newest
    TimePoint raised;
    TimePoint cleared;       // 0: it stands
    TimePoint acknowledged;  // 0: nobody has
    std::string acknowledged_by, note;
};

// `id` and `raised` are set. When one of that item and code stands already, it gets the new words,
// and is nobody's any more when the severity has grown.
Result<AlarmRecord> raise_alarm(Database& database, const AlarmRecord& alarm);
// Ok also when it has cleared.
Status clear_alarm(Database& database, uint64_t id);
// Somebody has seen it. kNotFound, kWrongState (it has cleared).
Result<AlarmRecord> acknowledge_alarm(Database& database, uint64_t id, const std::string& who,
                                      const std::string& note);
// kNotFound.
Result<AlarmRecord> get_alarm(Database& database, uint64_t id);
// Of one component, those that stand.
Result<std::vector<AlarmRecord>> list_component_alarms(Database& database,
                                                       const std::string& component);
// Newest first, with an id below `before` (0: from the newest); of one item, or of all.
Result<std::vector<AlarmRecord>> list_alarms(Database& database, bool standing_only,
                                             uint64_t before, size_t limit,
                                             const std::optional<ItemId>& item = {});

}  // namespace farshore
