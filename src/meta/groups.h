// Use cases over replication groups: items that get points at one moment, and these points. Each is
// one durable transaction; errors of the database as in database.h. Any thread may call.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxGroups = 1000;
inline constexpr size_t kMaxGroupNameBytes = 64;
inline constexpr uint32_t kMinSharedIntervalS = 10, kMaxSharedIntervalS = 86'400;

struct GroupMember {
    ItemId item;
    std::string item_name;
    TimePoint joined;
};

struct GroupRecord {
    std::string name;
    uint64_t version = 0;                 // grows with each change, of members, too
    uint32_t crash_interval_s = 300;      // between crash-consistent shared points; 0: none
    uint32_t application_interval_s = 0;  // between application-consistent ones; 0: none
    TimePoint created, updated;
    std::vector<GroupMember> members;  // by the items' names
};

enum class SharedPointState : uint8_t {
    kAsked,   // waits for its turn, or is being made
    kMade,    // every member has its POINT record; not all of them are stored
    kStored,  // all are: it can be recovered
    kVoid,    // it was not made, `error` says why; what there is of it is a point of one item
};
std::string_view shared_point_state_name(SharedPointState state);  // "asked", "made", ...

struct SharedPointMember {
    ItemId item;
    Sequence sequence;  // of its POINT record; 0: none
    TimePoint time;
};

struct SharedPointRecord {
    std::string id;       // 32 hexadecimal digits
    uint64_t number = 0;  // of two, the later has the larger one
    std::string group;
    PointKind kind = PointKind::kBookmark;  // or kApplication: what its records say
    std::string label;
    bool by_policy = false;
    SharedPointState state = SharedPointState::kAsked;
    TimePoint asked, made;
    int64_t barrier_us = 0;  // how long the machines' writes were held together; 0: not known
    std::optional<ItemError> error;
    std::vector<SharedPointMember> members;  // as they were when it was asked for
};

// [a-z0-9-], with a letter: kInvalidArgument.
Status check_group_name(const std::string& name);
// kAlreadyExists, kLimitReached.
Result<GroupRecord> create_group(Database& database, const GroupRecord& group);
// kNotFound.
Result<GroupRecord> get_group(Database& database, const std::string& name);
// By name, after `after`.
Result<std::vector<GroupRecord>> list_groups(Database& database, const std::string& after,
                                             size_t limit);
// Changes the intervals. kNotFound.
Result<GroupRecord> change_group(Database& database, const std::string& name,
                                 const std::function<Status(GroupRecord&)>& change);
// Its shared points are points of single items from then on. kNotFound.
Status remove_group(Database& database, const std::string& name);
// All of them or none. kAlreadyExists: one is in a group; kLimitReached; kItemNotFound.
Result<GroupRecord> join_group(Database& database, const std::string& name,
                               const std::vector<ItemId>& items);
// kNotFound: it is no member.
Result<GroupRecord> leave_group(Database& database, const std::string& name, const ItemId& item);
// Of all groups.
Result<std::vector<ItemId>> all_group_members(Database& database);

// `number`, `asked` and the state are set; the members are those that the group has now.
// kWrongState: it has none.
Result<SharedPointRecord> add_shared_point(Database& database, SharedPointRecord point);
// kNotFound.
Result<SharedPointRecord> get_shared_point(Database& database, const std::string& id);
// The newest first, of a number below `before` (0: all).
Result<std::vector<SharedPointRecord>> list_shared_points(Database& database,
                                                          const std::string& group, uint64_t before,
                                                          size_t limit);
// The oldest first, of all groups.
Result<std::vector<SharedPointRecord>> shared_points_in(Database& database, SharedPointState state,
                                                        size_t limit);
// The newest of the group, of that kind, whatever became of it; none: there is none.
Result<std::optional<SharedPointRecord>> newest_shared_point(Database& database,
                                                             const std::string& group,
                                                             PointKind kind);
// What became of one that was in state `before`. False: it is gone, or somebody was faster.
Result<bool> save_shared_point(Database& database, const SharedPointRecord& point,
                               SharedPointState before);
Status drop_shared_points(Database& database, const std::vector<std::string>& ids);
// Of the group, up to so many that are stored, by number from behind `after` on.
Result<std::vector<SharedPointRecord>> stored_shared_points(Database& database,
                                                            const std::string& group,
                                                            uint64_t after, size_t limit);
// Of void ones of the group, all but the newest `keep` go.
Status forget_void_points(Database& database, const std::string& group, size_t keep);

// Those of an item: of all states, by sequence, from..to.
struct ItemSharedPoint {
    std::string id, group;
    PointKind kind = PointKind::kBookmark;
    SharedPointState state = SharedPointState::kAsked;
    Sequence sequence;
};
Result<std::vector<ItemSharedPoint>> shared_points_of(Database& database, const ItemId& item,
                                                      Sequence from, Sequence to);
// Those that are stored, the newest first.
Result<std::vector<ItemSharedPoint>> stored_points_of(Database& database, const ItemId& item,
                                                      size_t limit);

}  // namespace farshore
