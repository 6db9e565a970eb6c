#include "meta/drills.h"

#include <fmt/core.h>

#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
Result<std::vector<DrillRecord>> select_drills(SqlSession& sql, std::string_view condition,
                                               const Args&... args) {
    std::vector<DrillRecord> drills;
    Status damaged;
    select<L, T, T, T, T, L, L, L, L, T>(
        sql,
        "SELECT id, item_id, item_name, recovery, verdict, sequence, point_time_us, created_us, "
        "ended_us, document FROM drills " +
            std::string(condition),
        [&](L id, const T& item, const T& name, const T& recovery, const T& verdict, L sequence,
            L point, L created, L ended, const T& document) {
            DrillRecord drill;
            drill.id = from_column(id);
            auto item_id = item_id_column(item);
            if (item_id)
                drill.item = *item_id;
            else
                damaged = tl::unexpected(item_id.error());
            drill.item_name = name;
            drill.recovery = recovery;
            drill.verdict = verdict;
            drill.sequence = {from_column(sequence)};
            drill.point_time.us = point;
            drill.created.us = created;
            drill.ended.us = ended;
            drill.document = document;
            drills.push_back(std::move(drill));
        },
        args...);
    FS_TRY(damaged);
    return drills;
}

}  // namespace

Result<DrillPolicyRecord> set_drill_policy(Database& database, const ItemId& item,
                                           const std::string& document) {
    return in_transaction(database, "setting a drill policy",
                          [&](SqlSession& sql) -> Result<DrillPolicyRecord> {
                              size_t known = 0;
                              select<L>(
                                  sql, "SELECT count(*) FROM items WHERE id = :i",
                                  [&](L count) { known = static_cast<size_t>(count); }, item);
                              if (known == 0) return fail(Code::kItemNotFound, "the item is gone");
                              TimePoint created = database.impl().clock->now();
                              select<L>(
                                  sql, "SELECT created_us FROM drill_policies WHERE item_id = :i",
                                  [&](L known) { created = {known}; }, item);
                              upsert(sql, "drill_policies", "item_id", "document, created_us", item,
                                     document, created);
                              return DrillPolicyRecord{item, document, created};
                          });
}

Status remove_drill_policy(Database& database, const ItemId& item) {
    return in_transaction(database, "removing a drill policy", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM drill_policies WHERE item_id = :i", item);
        return {};
    });
}

Result<std::vector<DrillPolicyRecord>> list_drill_policies(Database& database) {
    return in_snapshot(database, "listing drill policies",
                       [&](SqlSession& sql) -> Result<std::vector<DrillPolicyRecord>> {
                           std::vector<DrillPolicyRecord> policies;
                           Status damaged;
                           select<T, T, L>(
                               sql,
                               "SELECT item_id, document, created_us FROM drill_policies ORDER BY "
                               "item_id",
                               [&](const T& item, const T& document, L created) {
                                   auto id = item_id_column(item);
                                   if (id)
                                       policies.push_back({*id, document, {created}});
                                   else
                                       damaged = tl::unexpected(id.error());
                               });
                           FS_TRY(damaged);
                           return policies;
                       });
}

Result<DrillRecord> add_drill(Database& database, DrillRecord drill) {
    return in_transaction(database, "adding a drill", [&](SqlSession& sql) -> Result<DrillRecord> {
        FS_ASSIGN(const auto open,
                  select_drills(sql, "WHERE item_id = :i AND verdict = 'open'", drill.item));
        if (!open.empty())
            return fail(
                Code::kInProgress,
                fmt::format("drill {} of '{}' is under way", open.front().id, drill.item_name),
                "wait for its end");
        drill.created = database.impl().clock->now();
        drill.id = insert_returning(
            sql,
            "INSERT INTO drills (item_id, item_name, recovery, verdict, sequence, "
            "point_time_us, created_us, ended_us, document) VALUES (:i, :n, :r, :v, :s, :p, "
            ":c, 0, :d) RETURNING id",
            drill.item, drill.item_name, drill.recovery, drill.verdict, drill.sequence,
            drill.point_time, drill.created, drill.document);
        return drill;
    });
}

Result<DrillRecord> get_drill(Database& database, uint64_t id) {
    return in_snapshot(database, "reading a drill", [&](SqlSession& sql) -> Result<DrillRecord> {
        FS_ASSIGN(auto drills, select_drills(sql, "WHERE id = :i", id));
        if (drills.empty())
            return fail(Code::kNotFound, fmt::format("there is no drill {}", id),
                        "`farshore drill list` shows them");
        return std::move(drills.front());
    });
}

Status save_drill(Database& database, const DrillRecord& drill) {
    return in_transaction(database, "a drill", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE drills SET verdict = :v, sequence = :s, point_time_us = :p, ended_us = :e, "
                "document = :d WHERE id = :i",
                drill.verdict, drill.sequence, drill.point_time, drill.ended, drill.document,
                drill.id);
        return {};
    });
}

Result<std::vector<DrillRecord>> list_drills(Database& database, uint64_t before, size_t limit,
                                             const std::optional<ItemId>& item) {
    return in_snapshot(database, "listing drills", [&](SqlSession& sql) {
        const uint64_t below = before == 0 ? INT64_MAX : before;
        if (item)
            return select_drills(sql, "WHERE item_id = :i AND id < :b ORDER BY id DESC LIMIT :l",
                                 *item, below, limit);
        return select_drills(sql, "WHERE id < :b ORDER BY id DESC LIMIT :l", below, limit);
    });
}

Result<std::vector<DrillRecord>> open_drills(Database& database) {
    return in_snapshot(database, "listing drills", [&](SqlSession& sql) {
        return select_drills(sql, "WHERE verdict = 'open' ORDER BY id");
    });
}

Result<std::vector<DrillRecord>> newest_drills(Database& database) {
    return in_snapshot(database, "listing drills", [&](SqlSession& sql) {
        return select_drills(
            sql,
            "WHERE id IN (SELECT max(id) FROM drills GROUP BY item_id) OR id IN (SELECT max(id) "
            "FROM drills WHERE verdict IN ('good', 'bad') GROUP BY item_id) OR id IN (SELECT "
            "max(id) FROM drills WHERE verdict = 'good' GROUP BY item_id) ORDER BY id");
    });
}

Result<std::vector<uint64_t>> forget_old_drills(Database& database, const ItemId& item) {
    return in_transaction(
        database, "forgetting drills", [&](SqlSession& sql) -> Result<std::vector<uint64_t>> {
            std::vector<uint64_t> old;
            // The newest good one stays: it is what the item's report is about.
            select<L>(
                sql,
                "SELECT id FROM drills WHERE item_id = :i AND verdict <> 'open' AND id NOT IN "
                "(SELECT id FROM drills WHERE item_id = :j AND verdict IN ('good', 'bad') ORDER BY "
                "id DESC LIMIT :l) AND id NOT IN (SELECT id FROM drills WHERE item_id = :k AND "
                "verdict = 'none' ORDER BY id DESC LIMIT :m) AND id <> (SELECT COALESCE(max(id), "
                "0) FROM drills WHERE item_id = :n AND verdict = 'good')",
                [&](L id) { old.push_back(from_column(id)); }, item, item, kMaxKeptDrills, item,
                kMaxKeptUndoneDrills, item);
            for (const uint64_t id : old) execute(sql, "DELETE FROM drills WHERE id = :i", id);
            return old;
        });
}

}  // namespace farshore
