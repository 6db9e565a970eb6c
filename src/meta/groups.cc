#include "meta/groups.h"

#include <fmt/core.h>

#include <array>
#include <set>

#include "meta/sql.h"
#include "replicate/shared_point.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

constexpr std::array<std::string_view, 4> kStates{"asked", "made", "stored", "void"};

tl::unexpected<Error> no_group(std::string_view name) {
    return fail(Code::kNotFound,
                fmt::format("there is no replication group '{}'", name.substr(0, 64)),
                "`farshore group list` shows them");
}

SharedPointState state_of(std::string_view name) {
    for (size_t i = 0; i < kStates.size(); ++i)
        if (kStates[i] == name) return static_cast<SharedPointState>(i);
    return SharedPointState::kVoid;
}

template <typename... Args>
Result<std::vector<GroupRecord>> select_groups(SqlSession& sql, std::string_view condition,
                                               const Args&... args) {
    std::vector<GroupRecord> groups;
    select<T, L, L, L, L, L>(
        sql,
        "SELECT name, version, crash_interval_s, application_interval_s, created_us, updated_us "
        "FROM replication_groups " +
            std::string(condition),
        [&](const T& name, L version, L crash, L application, L created, L updated) {
            GroupRecord group;
            group.name = name;
            group.version = from_column(version);
            group.crash_interval_s = static_cast<uint32_t>(crash);
            group.application_interval_s = static_cast<uint32_t>(application);
            group.created.us = created;
            group.updated.us = updated;
            groups.push_back(std::move(group));
        },
        args...);
    Status damaged;
    for (GroupRecord& group : groups)
        select<T, T, L>(
            sql,
            "SELECT item_id, name, joined_us FROM group_members JOIN items ON id = item_id WHERE "
            "group_name = :g ORDER BY name",
            [&](const T& id, const T& name, L joined) {
                auto item = item_id_column(id);
                if (!item) {
                    damaged = tl::unexpected(item.error());
                    return;
                }
                group.members.push_back({*item, name, {joined}});
            },
            group.name);
    FS_TRY(damaged);
    return groups;
}

Result<GroupRecord> read_group(SqlSession& sql, const std::string& name) {
    FS_ASSIGN(auto rows, select_groups(sql, "WHERE name = :n", name));
    if (rows.empty()) return no_group(name);
    return std::move(rows.front());
}

void touch(SqlSession& sql, const std::string& name, TimePoint now) {
    execute(sql,
            "UPDATE replication_groups SET version = version + 1, updated_us = :u WHERE name = :n",
            now, name);
}

template <typename... Args>
Result<std::vector<SharedPointRecord>> select_points(SqlSession& sql, std::string_view condition,
                                                     const Args&... args) {
    std::vector<SharedPointRecord> points;
    Status damaged;
    select<T, L, T, T, T, L, T, L, L, L, T, T, T>(
        sql,
        "SELECT id, number, group_name, kind, label, by_policy, state, asked_us, made_us, "
        "barrier_us, error_code, error_what, error_remedy FROM shared_points " +
            std::string(condition),
        [&](const T& id, L number, const T& group, const T& kind, const T& label, L by_policy,
            const T& state, L asked, L made, L barrier, const T& code, const T& what,
            const T& remedy) {
            SharedPointRecord point;
            point.id = id;
            point.number = from_column(number);
            point.group = group;
            point.kind = point_kind_from_name(kind).value_or(PointKind::kBookmark);
            point.label = label;
            point.by_policy = by_policy != 0;
            point.state = state_of(state);
            point.asked.us = asked;
            point.made.us = made;
            point.barrier_us = barrier;
            if (!code.empty()) point.error = ItemError{code_from_name(code), what, remedy};
            points.push_back(std::move(point));
        },
        args...);
    for (SharedPointRecord& point : points)
        select<T, L, L>(
            sql,
            "SELECT item_id, sequence, time_us FROM shared_point_members WHERE point_id = :p "
            "ORDER BY item_id",
            [&](const T& id, L sequence, L time) {
                auto item = item_id_column(id);
                if (!item) {
                    damaged = tl::unexpected(item.error());
                    return;
                }
                point.members.push_back({*item, {from_column(sequence)}, {time}});
            },
            point.id);
    FS_TRY(damaged);
    return points;
}

template <typename... Args>
Result<std::vector<ItemSharedPoint>> select_of_item(SqlSession& sql, std::string_view condition,
                                                    const Args&... args) {
    std::vector<ItemSharedPoint> points;
    select<T, T, T, T, L>(
        sql,
        "SELECT id, group_name, kind, state, sequence FROM shared_point_members JOIN shared_points "
        "ON id = point_id " +
            std::string(condition),
        [&](const T& id, const T& group, const T& kind, const T& state, L sequence) {
            points.push_back({id,
                              group,
                              point_kind_from_name(kind).value_or(PointKind::kBookmark),
                              state_of(state),
                              {from_column(sequence)}});
        },
        args...);
    return points;
}

}  // namespace

std::string_view shared_point_state_name(SharedPointState state) {
    return kStates.at(static_cast<size_t>(state));
}

Status check_group_name(const std::string& name) {
    const bool good =
        !name.empty() && name.size() <= kMaxGroupNameBytes &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
    if (good) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a group's name", name.substr(0, 64)),
                fmt::format("1 to {} of a-z, 0-9 and -, with a letter", kMaxGroupNameBytes));
}

Result<GroupRecord> create_group(Database& database, const GroupRecord& group) {
    FS_TRY(check_group_name(group.name));
    return in_transaction(
        database, "creating a group", [&](SqlSession& sql) -> Result<GroupRecord> {
            L count = 0, same = 0;
            select<L, L>(
                sql,
                "SELECT count(*), count(CASE WHEN name = :n THEN 1 END) FROM replication_groups",
                [&](L all, L taken) {
                    count = all;
                    same = taken;
                },
                group.name);
            if (same != 0)
                return fail(Code::kAlreadyExists,
                            fmt::format("there is a group '{}' already", group.name),
                            "`farshore group join` adds items to it");
            if (static_cast<size_t>(count) >= kMaxGroups)
                return fail(Code::kLimitReached,
                            fmt::format("this vault has {} groups, which is its limit", count));
            const TimePoint now = database.impl().clock->now();
            execute(sql,
                    "INSERT INTO replication_groups (name, version, crash_interval_s, "
                    "application_interval_s, created_us, updated_us) VALUES (:n, 1, :c, :a, :t, "
                    ":u)",
                    group.name, group.crash_interval_s, group.application_interval_s, now, now);
            return read_group(sql, group.name);
        });
}

Result<GroupRecord> get_group(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a group",
                       [&](SqlSession& sql) { return read_group(sql, name); });
}

Result<std::vector<GroupRecord>> list_groups(Database& database, const std::string& after,
                                             size_t limit) {
    return in_snapshot(database, "listing groups", [&](SqlSession& sql) {
        return select_groups(sql, "WHERE name > :a ORDER BY name LIMIT :l", after, limit);
    });
}

Result<GroupRecord> change_group(Database& database, const std::string& name,
                                 const std::function<Status(GroupRecord&)>& change) {
    return in_transaction(
        database, "changing a group", [&](SqlSession& sql) -> Result<GroupRecord> {
            FS_ASSIGN(GroupRecord group, read_group(sql, name));
            FS_TRY(change(group));
            execute(sql,
                    "UPDATE replication_groups SET crash_interval_s = :c, application_interval_s = "
                    ":a WHERE name = :n",
                    group.crash_interval_s, group.application_interval_s, name);
            touch(sql, name, database.impl().clock->now());
            return read_group(sql, name);
        });
}

Status remove_group(Database& database, const std::string& name) {
    return in_transaction(database, "removing a group", [&](SqlSession& sql) -> Status {
        if (execute(sql, "DELETE FROM replication_groups WHERE name = :n", name) == 0)
            return no_group(name);
        return {};
    });
}

Result<GroupRecord> join_group(Database& database, const std::string& name,
                               const std::vector<ItemId>& items) {
    return in_transaction(database, "joining a group", [&](SqlSession& sql) -> Result<GroupRecord> {
        FS_ASSIGN(const GroupRecord group, read_group(sql, name));
        const std::set<ItemId> fresh(items.begin(), items.end());
        if (group.members.size() + fresh.size() > kMaxGroupMembers)
            return fail(Code::kLimitReached,
                        fmt::format("a group has at most {} items", kMaxGroupMembers));
        const TimePoint now = database.impl().clock->now();
        for (const ItemId& item : fresh) {
            L known = 0;
            std::string in;
            select<L>(
                sql, "SELECT count(*) FROM items WHERE id = :i", [&](L n) { known = n; }, item);
            if (known == 0)
                return fail(Code::kItemNotFound,
                            fmt::format("there is no item {}", item.to_string()));
            select<T>(
                sql, "SELECT group_name FROM group_members WHERE item_id = :i",
                [&](const T& group_name) { in = group_name; }, item);
            if (!in.empty())
                return fail(
                    Code::kAlreadyExists,
                    fmt::format("item {} is in the group '{}' already", item.to_string(), in),
                    "an item is in one group; `farshore group leave` takes it out");
            execute(sql,
                    "INSERT INTO group_members (item_id, group_name, joined_us) VALUES (:i, "
                    ":g, :t)",
                    item, name, now);
        }
        touch(sql, name, now);
        return read_group(sql, name);
    });
}

Result<GroupRecord> leave_group(Database& database, const std::string& name, const ItemId& item) {
    return in_transaction(database, "leaving a group", [&](SqlSession& sql) -> Result<GroupRecord> {
        FS_TRY(read_group(sql, name));
        if (execute(sql, "DELETE FROM group_members WHERE group_name = :g AND item_id = :i", name,
                    item) == 0)
            return fail(Code::kNotFound,
                        fmt::format("item {} is no member of '{}'", item.to_string(), name),
                        "`farshore group show` lists its members");
        touch(sql, name, database.impl().clock->now());
        return read_group(sql, name);
    });
}

Result<std::vector<ItemId>> all_group_members(Database& database) {
    return in_snapshot(database, "reading groups",
                       [&](SqlSession& sql) -> Result<std::vector<ItemId>> {
                           std::vector<ItemId> members;
                           Status damaged;
                           select<T>(sql, "SELECT item_id FROM group_members", [&](const T& text) {
                               auto item = item_id_column(text);
                               if (item)
                                   members.push_back(*item);
                               else
                                   damaged = tl::unexpected(item.error());
                           });
                           FS_TRY(damaged);
                           return members;
                       });
}

// ---- shared points

Result<SharedPointRecord> add_shared_point(Database& database, SharedPointRecord point) {
    return in_transaction(
        database, "asking for a shared point", [&](SqlSession& sql) -> Result<SharedPointRecord> {
            FS_ASSIGN(const GroupRecord group, read_group(sql, point.group));
            if (group.members.empty())
                return fail(Code::kWrongState,
                            fmt::format("the group '{}' has no members", group.name),
                            "`farshore group join` adds items to it");
            L last = 0;
            select<L>(sql, "SELECT COALESCE(MAX(number), 0) FROM shared_points",
                      [&](L number) { last = number; });
            execute(sql,
                    "INSERT INTO shared_points (id, number, group_name, kind, label, by_policy, "
                    "state, asked_us, made_us, barrier_us, error_code, error_what, error_remedy) "
                    "VALUES (:i, :n, :g, :k, :l, :p, :s, :t, 0, 0, '', '', '')",
                    point.id, last + 1, point.group, point_kind_name(point.kind), point.label,
                    uint32_t{point.by_policy}, shared_point_state_name(SharedPointState::kAsked),
                    database.impl().clock->now());
            for (const GroupMember& member : group.members)
                execute(sql,
                        "INSERT INTO shared_point_members (point_id, item_id, sequence, time_us) "
                        "VALUES (:p, :i, 0, 0)",
                        point.id, member.item);
            FS_ASSIGN(auto rows, select_points(sql, "WHERE id = :i", point.id));
            return std::move(rows.front());
        });
}

Result<SharedPointRecord> get_shared_point(Database& database, const std::string& id) {
    return in_snapshot(
        database, "reading a shared point", [&](SqlSession& sql) -> Result<SharedPointRecord> {
            FS_ASSIGN(auto rows, select_points(sql, "WHERE id = :i", id));
            if (rows.empty())
                return fail(Code::kNotFound,
                            fmt::format("there is no shared point '{}'", id.substr(0, 64)),
                            "`farshore group points` lists them");
            return std::move(rows.front());
        });
}

Result<std::vector<SharedPointRecord>> list_shared_points(Database& database,
                                                          const std::string& group, uint64_t before,
                                                          size_t limit) {
    return in_snapshot(database, "listing shared points",
                       [&](SqlSession& sql) -> Result<std::vector<SharedPointRecord>> {
                           FS_TRY(read_group(sql, group));
                           return select_points(
                               sql,
                               "WHERE group_name = :g AND number < :b ORDER BY number DESC LIMIT "
                               ":l",
                               group, before == 0 ? uint64_t{INT64_MAX} : before, limit);
                       });
}

Result<std::vector<SharedPointRecord>> shared_points_in(Database& database, SharedPointState state,
                                                        size_t limit) {
    return in_snapshot(database, "listing shared points", [&](SqlSession& sql) {
        return select_points(sql, "WHERE state = :s ORDER BY number LIMIT :l",
                             shared_point_state_name(state), limit);
    });
}

Result<std::optional<SharedPointRecord>> newest_shared_point(Database& database,
                                                             const std::string& group,
                                                             PointKind kind) {
    return in_snapshot(
        database, "reading a shared point",
        [&](SqlSession& sql) -> Result<std::optional<SharedPointRecord>> {
            FS_ASSIGN(auto rows,
                      select_points(sql,
                                    "WHERE group_name = :g AND kind = :k ORDER BY number DESC "
                                    "LIMIT 1",
                                    group, point_kind_name(kind)));
            if (rows.empty()) return std::optional<SharedPointRecord>{};
            return std::optional(std::move(rows.front()));
        });
}

Result<bool> save_shared_point(Database& database, const SharedPointRecord& point,
                               SharedPointState before) {
    return in_transaction(database, "a shared point", [&](SqlSession& sql) -> Result<bool> {
        const ItemError error = point.error.value_or(ItemError{});
        FS_ASSIGN(const auto now, select_points(sql, "WHERE id = :i", point.id));
        if (now.empty() || now.front().state != before) return false;
        execute(sql,
                "UPDATE shared_points SET state = :s, made_us = :m, barrier_us = :b, error_code = "
                ":c, error_what = :w, error_remedy = :r WHERE id = :i",
                shared_point_state_name(point.state), point.made, point.barrier_us,
                point.error ? std::string(code_name(error.code)) : std::string(), error.what,
                error.remedy, point.id);
        for (const SharedPointMember& member : point.members)
            execute(sql,
                    "UPDATE shared_point_members SET sequence = :s, time_us = :t WHERE point_id = "
                    ":p AND item_id = :i",
                    member.sequence, member.time, point.id, member.item);
        return true;
    });
}

Status drop_shared_points(Database& database, const std::vector<std::string>& ids) {
    return in_transaction(database, "dropping shared points", [&](SqlSession& sql) -> Status {
        for (const std::string& id : ids)
            execute(sql, "DELETE FROM shared_points WHERE id = :i", id);
        return {};
    });
}

Result<std::vector<SharedPointRecord>> stored_shared_points(Database& database,
                                                            const std::string& group,
                                                            uint64_t after, size_t limit) {
    return in_snapshot(database, "listing shared points", [&](SqlSession& sql) {
        return select_points(sql,
                             "WHERE group_name = :g AND state = 'stored' AND number > :a ORDER BY "
                             "number LIMIT :l",
                             group, after, limit);
    });
}

Status forget_void_points(Database& database, const std::string& group, size_t keep) {
    return in_transaction(database, "dropping shared points", [&](SqlSession& sql) -> Status {
        execute(sql,
                "DELETE FROM shared_points WHERE group_name = :g AND state = 'void' AND number < "
                "(SELECT COALESCE(MIN(number), 0) FROM (SELECT number FROM shared_points WHERE "
                "group_name = :h AND state = 'void' ORDER BY number DESC LIMIT :k) AS newest)",
                group, group, keep);
        return {};
    });
}

Result<std::vector<ItemSharedPoint>> shared_points_of(Database& database, const ItemId& item,
                                                      Sequence from, Sequence to) {
    return in_snapshot(database, "listing shared points", [&](SqlSession& sql) {
        return select_of_item(sql,
                              "WHERE item_id = :i AND sequence >= :f AND sequence <= :t AND "
                              "sequence > 0 ORDER BY sequence",
                              item, from, to);
    });
}

Result<std::vector<ItemSharedPoint>> stored_points_of(Database& database, const ItemId& item,
                                                      size_t limit) {
    return in_snapshot(database, "listing shared points", [&](SqlSession& sql) {
        return select_of_item(
            sql, "WHERE item_id = :i AND state = 'stored' ORDER BY number DESC LIMIT :l", item,
            limit);
    });
}

}  // namespace farshore
