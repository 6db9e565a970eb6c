#include "meta/alarms.h"

#include <fmt/core.h>

#include "meta/parties.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
Result<std::vector<AlarmRecord>> select_alarms(SqlSession& sql, std::string_view condition,
                                               const Args&... args) {
    std::vector<AlarmRecord> out;
    Status damaged;
    select<L, T, T, T, T, T, T, L, L, L, T, T, T>(
        sql,
        "SELECT id, item_id, item_name, code, severity, cause, remedy, raised_us, cleared_us, "
        "acknowledged_us, acknowledged_by, note, component FROM alarms " +
            std::string(condition),
        [&](L id, const T& item, const T& item_name, const T& code, const T& severity,
            const T& cause, const T& remedy, L raised, L cleared, L acknowledged, const T& by,
            const T& note, const T& component) {
            AlarmRecord alarm;
            alarm.component = component;
            alarm.id = from_column(id);
            if (!item.empty()) {
                auto item_id = item_id_column(item);
                if (item_id)
                    alarm.item = *item_id;
                else
                    damaged = tl::unexpected(item_id.error());
            }
            alarm.item_name = item_name;
            alarm.code = code;
            alarm.severity = severity_from_name(severity).value_or(Severity::kWarning);
            alarm.cause = cause;
            alarm.remedy = remedy;
            alarm.raised.us = raised;
            alarm.cleared.us = cleared;
            alarm.acknowledged.us = acknowledged;
            alarm.acknowledged_by = by;
            alarm.note = note;
            out.push_back(std::move(alarm));
        },
        args...);
    FS_TRY(damaged);
    return out;
}

Result<AlarmRecord> read_alarm(SqlSession& sql, uint64_t id) {
    FS_ASSIGN(auto found, select_alarms(sql, "WHERE id = :i", id));
    if (found.empty())
        return fail(Code::kNotFound, fmt::format("there is no alarm {}", id),
                    "`farshore alarms --all` lists them");
    return std::move(found.front());
}

std::string item_column(const std::optional<ItemId>& item) {
    return item ? item->to_string() : std::string();
}

}  // namespace

Result<AlarmRecord> raise_alarm(Database& database, const AlarmRecord& alarm) {
    return in_transaction(
        database, "raising an alarm", [&](SqlSession& sql) -> Result<AlarmRecord> {
            FS_ASSIGN(
                const auto standing,
                select_alarms(
                    sql, "WHERE cleared_us = 0 AND item_id = :i AND component = :p AND code = :c",
                    item_column(alarm.item), alarm.component, alarm.code));
            if (!standing.empty()) {
                const AlarmRecord& known = standing.front();
                execute(sql,
                        "UPDATE alarms SET severity = :s, cause = :c, remedy = :r WHERE id = :i",
                        severity_name(alarm.severity), alarm.cause, alarm.remedy, known.id);
                if (alarm.severity > known.severity)
                    execute(sql,
                            "UPDATE alarms SET acknowledged_us = 0, acknowledged_by = '', note = "
                            "'' WHERE id = :i",
                            known.id);
                return read_alarm(sql, known.id);
            }
            const uint64_t id = insert_returning(
                sql,
                "INSERT INTO alarms (item_id, item_name, code, severity, cause, remedy, raised_us, "
                "cleared_us, acknowledged_us, acknowledged_by, note, component) VALUES (:i, :n, "
                ":c, :s, :w, :r, :t, 0, 0, '', '', :p) RETURNING id",
                item_column(alarm.item), alarm.item_name, alarm.code, severity_name(alarm.severity),
                alarm.cause, alarm.remedy, database.impl().clock->now(), alarm.component);
            if (id > kMaxKeptAlarms)
                execute(sql, "DELETE FROM alarms WHERE cleared_us != 0 AND id <= :i",
                        id - kMaxKeptAlarms);
            return read_alarm(sql, id);
        });
}

Status clear_alarm(Database& database, uint64_t id) {
    return in_transaction(database, "clearing an alarm", [&](SqlSession& sql) -> Status {
        execute(sql, "UPDATE alarms SET cleared_us = :t WHERE id = :i AND cleared_us = 0",
                database.impl().clock->now(), id);
        return {};
    });
}

Result<AlarmRecord> acknowledge_alarm(Database& database, uint64_t id, const std::string& who,
                                      const std::string& note) {
    return in_transaction(
        database, "acknowledging an alarm", [&](SqlSession& sql) -> Result<AlarmRecord> {
            FS_ASSIGN(const AlarmRecord alarm, read_alarm(sql, id));
            if (alarm.cleared.us != 0)
                return fail(Code::kWrongState, fmt::format("alarm {} has cleared already", id));
            execute(sql,
                    "UPDATE alarms SET acknowledged_us = :t, acknowledged_by = :w, note = :n WHERE "
                    "id = :i",
                    database.impl().clock->now(), who, note, id);
            return read_alarm(sql, id);
        });
}

Result<AlarmRecord> get_alarm(Database& database, uint64_t id) {
    return in_one_read(database, "reading an alarm",
                       [&](SqlSession& sql) { return read_alarm(sql, id); });
}

Result<std::vector<AlarmRecord>> list_alarms(Database& database, bool standing_only,
                                             uint64_t before, size_t limit,
                                             const std::optional<ItemId>& item) {
    const uint64_t below = before == 0 ? UINT64_MAX : before;
    const std::string standing = standing_only ? "cleared_us = 0 AND " : "";
    return in_one_read(database, "listing alarms", [&](SqlSession& sql) {
        return item ? select_alarms(sql,
                                    "WHERE " + standing +
                                        "id < :b AND item_id = :i ORDER BY id DESC LIMIT :l",
                                    below, *item, limit)
                    : select_alarms(sql, "WHERE " + standing + "id < :b ORDER BY id DESC LIMIT :l",
                                    below, limit);
    });
}

Result<std::vector<AlarmRecord>> list_component_alarms(Database& database,
                                                       const std::string& component) {
    return in_one_read(database, "listing a component's alarms", [&](SqlSession& sql) {
        return select_alarms(
            sql, "WHERE cleared_us = 0 AND item_id = '' AND component = :p ORDER BY id", component);
    });
}

}  // namespace farshore
