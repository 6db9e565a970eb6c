#include "meta/scrubs.h"

#include <fmt/core.h>

#include "meta/json_fields.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

Status check_item(SqlSession& sql, const ItemId& item) {
    bool there = false;
    select<L>(
        sql, "SELECT 1 FROM items WHERE id = :i", [&](L) { there = true; }, item);
    if (there) return {};
    return fail(Code::kItemNotFound, fmt::format("there is no item '{}'", item.to_string()));
}

}  // namespace

Result<ScrubRecord> get_scrub(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading a scrub", [&](SqlSession& sql) -> Result<ScrubRecord> {
        ScrubRecord record;
        select<L, L, L, T, L, L, L, T, T, T>(
            sql,
            "SELECT started_us, ended_us, finished_us, after, objects, bytes, damaged, "
            "error_code, error_what, error_remedy FROM scrubs WHERE item_id = :i",
            [&](L started, L ended, L finished, const T& after, L objects, L bytes, L damaged,
                const T& code, const T& what, const T& remedy) {
                record.started.us = started;
                record.ended.us = ended;
                record.finished.us = finished;
                record.after = after;
                record.objects = from_column(objects);
                record.bytes = from_column(bytes);
                record.damaged = from_column(damaged);
                if (!code.empty()) record.error = ItemError{code_from_name(code), what, remedy};
            },
            item);
        return record;
    });
}

Status put_scrub(Database& database, const ItemId& item, const ScrubRecord& record) {
    return in_transaction(database, "keeping a scrub", [&](SqlSession& sql) -> Status {
        FS_TRY(check_item(sql, item));
        const ItemError error = record.error.value_or(ItemError{});
        upsert(sql, "scrubs", "item_id",
               "started_us, ended_us, finished_us, after, objects, bytes, damaged, error_code, "
               "error_what, error_remedy",
               item, record.started, record.ended, record.finished, record.after, record.objects,
               record.bytes, record.damaged,
               record.error ? code_name(error.code) : std::string_view{}, error.what, error.remedy);
        return {};
    });
}

Result<std::vector<DamageRecord>> list_damage(Database& database, const ItemId& item) {
    return in_snapshot(
        database, "listing damaged objects",
        [&](SqlSession& sql) -> Result<std::vector<DamageRecord>> {
            std::vector<DamageRecord> out;
            select<T, T, T, T, L, L, T, L>(
                sql,
                "SELECT object_name, code, what, chunks, found_us, newest, points, asked_us FROM "
                "scrub_damage WHERE item_id = :i ORDER BY object_name",
                [&](const T& name, const T& code, const T& what, const T& chunks, L found, L newest,
                    const T& points, L asked) {
                    DamageRecord damage{name,    code_from_name(code), what,   {},
                                        {found}, newest != 0,          points, {asked}};
                    const Json list = Json::parse(chunks, nullptr, false);
                    if (list.is_array())
                        for (const Json& chunk : list)
                            if (chunk.is_number_unsigned())
                                damage.chunks.push_back(chunk.get<uint32_t>());
                    out.push_back(std::move(damage));
                },
                item);
            return out;
        });
}

Status put_damage(Database& database, const ItemId& item, const DamageRecord& damage) {
    return in_transaction(database, "keeping a damaged object", [&](SqlSession& sql) -> Status {
        FS_TRY(check_item(sql, item));
        bool known = false;
        L there = 0, found = damage.found.us, asked = damage.asked.us;
        select<T, L, L>(
            sql, "SELECT object_name, found_us, asked_us FROM scrub_damage WHERE item_id = :i",
            [&](const T& name, L found_us, L asked_us) {
                ++there;
                if (name != damage.object_name) return;
                known = true;
                found = found_us;
                asked = asked_us;
            },
            item);
        if (!known && there >= static_cast<L>(kMaxDamagedObjects))
            return fail(Code::kLimitReached,
                        fmt::format("{} damaged objects of this item are known already", there));
        upsert(sql, "scrub_damage", "item_id, object_name",
               "code, what, chunks, found_us, newest, points, asked_us", item, damage.object_name,
               code_name(damage.code), damage.what, dump_json(Json(damage.chunks)),
               TimePoint{found}, uint32_t{damage.newest}, damage.points, TimePoint{asked});
        return {};
    });
}

Status damage_asked(Database& database, const ItemId& item, TimePoint now) {
    return in_transaction(database, "asking for what was lost", [&](SqlSession& sql) -> Status {
        execute(sql, "UPDATE scrub_damage SET asked_us = :t WHERE item_id = :i AND newest != 0",
                now, item);
        return {};
    });
}

Status remove_damage(Database& database, const ItemId& item, const std::string& object_name) {
    return in_transaction(database, "forgetting a damaged object", [&](SqlSession& sql) -> Status {
        execute(sql,
                "DELETE FROM scrub_damage WHERE item_id = :i AND "
                "object_name = :o",
                item, object_name);
        return {};
    });
}

}  // namespace farshore
