#include "meta/appliances.h"

#include <fmt/core.h>

#include "base/party_names.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

ItemAppliance read(SqlSession& sql, const ItemId& item) {
    ItemAppliance found;
    select<T, T, L>(
        sql, "SELECT appliance, next_appliance, since_us FROM item_appliances WHERE item_id = :i",
        [&](const T& now, const T& next, L since) {
            found = {now, next, {since}};
        },
        item);
    return found;
}

void write(SqlSession& sql, const ItemId& item, const ItemAppliance& appliance) {
    upsert(sql, "item_appliances", "item_id", "appliance, next_appliance, since_us", item,
           appliance.now, appliance.next, appliance.since);
    // The one before the recovery site's own, while it is that one's.
    if (appliance.now != kRecoveryAppliance)
        execute(sql, "UPDATE item_appliances SET home = :a WHERE item_id = :i", appliance.now,
                item);
}

}  // namespace

Status appliance_seen(Database& database, const ApplianceRecord& appliance) {
    return in_transaction(database, "an appliance's report", [&](SqlSession& sql) -> Status {
        upsert(sql, "appliances", "name", "address, site, version, seen_us", appliance.name,
               appliance.address, appliance.site, appliance.version, appliance.seen);
        return {};
    });
}

Result<std::vector<ApplianceRecord>> list_appliances(Database& database) {
    return in_snapshot(
        database, "listing appliances",
        [&](SqlSession& sql) -> Result<std::vector<ApplianceRecord>> {
            std::vector<ApplianceRecord> all;
            select<T, T, T, T, L>(
                sql,
                "SELECT name, address, site, version, seen_us FROM appliances "
                "ORDER BY name",
                [&](const T& name, const T& address, const T& site, const T& version, L seen) {
                    all.push_back({name, address, site, version, {seen}});
                });
            return all;
        });
}

Status forget_appliance(Database& database, const std::string& name) {
    return in_transaction(database, "an appliance's end", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM appliances WHERE name = :n", name);
        return {};
    });
}

Result<ItemAppliance> get_item_appliance(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading an item's appliance",
                       [&](SqlSession& sql) -> Result<ItemAppliance> { return read(sql, item); });
}

Result<std::map<std::string, ApplianceLoad>> appliance_loads(Database& database) {
    using Loads = std::map<std::string, ApplianceLoad>;
    return in_snapshot(
        database, "counting appliances' items", [&](SqlSession& sql) -> Result<Loads> {
            Loads loads;
            select<T, L>(sql,
                         "SELECT appliance, count(*) FROM item_appliances WHERE appliance "
                         "!= '' GROUP BY appliance",
                         [&](const T& name, L count) { loads[name].items = from_column(count); });
            select<T, L>(sql,
                         "SELECT next_appliance, count(*) FROM item_appliances WHERE "
                         "next_appliance != '' GROUP BY next_appliance",
                         [&](const T& name, L count) { loads[name].coming = from_column(count); });
            return loads;
        });
}

Result<std::map<ItemId, ItemAppliance>> list_item_appliances(Database& database) {
    return in_snapshot(
        database, "listing items' appliances",
        [&](SqlSession& sql) -> Result<std::map<ItemId, ItemAppliance>> {
            std::map<ItemId, ItemAppliance> all;
            Status damaged;
            select<T, T, T, L>(
                sql, "SELECT item_id, appliance, next_appliance, since_us FROM item_appliances",
                [&](const T& item, const T& now, const T& next, L since) {
                    auto id = item_id_column(item);
                    if (id)
                        all[*id] = {now, next, {since}};
                    else
                        damaged = tl::unexpected(id.error());
                });
            FS_TRY(damaged);
            return all;
        });
}

Result<bool> take_item(Database& database, const ItemId& item, const std::string& appliance) {
    FS_ASSIGN(const ItemAppliance known, get_item_appliance(database, item));
    if (known.now == appliance && known.next != appliance) return false;
    return in_transaction(database, "an item's appliance", [&](SqlSession& sql) -> Result<bool> {
        ItemAppliance there = read(sql, item);
        if (there.now == appliance && there.next != appliance) return false;
        if (!there.now.empty() && there.next != appliance)
            return fail(
                Code::kForbidden,
                fmt::format("the item is appliance '{}''s, not '{}''s", there.now, appliance),
                "`farshore appliance move ITEM --to NAME` gives it to another one");
        there = {appliance, "", database.impl().clock->now()};
        write(sql, item, there);
        return true;
    });
}

Result<ItemAppliance> move_item(Database& database, const ItemId& item, const std::string& next,
                                bool lost) {
    return in_transaction(
        database, "moving an item", [&](SqlSession& sql) -> Result<ItemAppliance> {
            long long count = 0;
            select<L>(
                sql, "SELECT count(*) FROM items WHERE id = :i", [&](L n) { count = n; }, item);
            if (count == 0) return fail(Code::kItemNotFound, "the item is not protected any more");
            ItemAppliance there = read(sql, item);
            const TimePoint now = database.impl().clock->now();
            // One that nobody has yet waits for nobody.
            if (lost || there.now.empty())
                there = {next, "", now};
            else
                there = {there.now, there.now == next ? "" : next, now};
            write(sql, item, there);
            return there;
        });
}

}  // namespace farshore
