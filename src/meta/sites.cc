#include "meta/sites.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/plain_name.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
std::vector<SiteRecord> select_sites(SqlSession& sql, std::string_view condition,
                                     const Args&... args) {
    std::vector<SiteRecord> sites;
    select<T, L, T, L, L>(
        sql,
        "SELECT name, version, description, created_us, updated_us FROM sites " +
            std::string(condition),
        [&](const T& name, L version, const T& description, L created, L updated) {
            sites.push_back({name, from_column(version), description, {created}, {updated}});
        },
        args...);
    return sites;
}

// Appliances that name it.
size_t appliances_of(SqlSession& sql, const std::string& name) {
    size_t count = 0;
    select<L>(
        sql, "SELECT count(*) FROM appliances WHERE site = :s",
        [&](L found) { count = from_column(found); }, name);
    return count;
}

Result<SiteRecord> read_site(SqlSession& sql, const std::string& name) {
    auto sites = select_sites(sql, "WHERE name = :n", name);
    if (!sites.empty()) return std::move(sites.front());
    if (appliances_of(sql, name) != 0) return SiteRecord{.name = name};
    return fail(Code::kNotFound, fmt::format("no site is called '{}'", name.substr(0, 64)),
                "`farshore site list` shows them");
}

}  // namespace

Status check_site_name(std::string_view name) {
    if (is_plain_name(name, kMaxSiteNameBytes)) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a site's name", name.substr(0, 64)),
                fmt::format("1 to {} letters, digits, '.', '_' and '-'", kMaxSiteNameBytes));
}

Result<std::vector<SiteRecord>> list_sites(Database& database) {
    return in_snapshot(database, "listing sites",
                       [&](SqlSession& sql) -> Result<std::vector<SiteRecord>> {
                           std::vector<SiteRecord> sites = select_sites(sql, "");
                           std::vector<std::string> named;
                           select<T>(sql, "SELECT DISTINCT site FROM appliances WHERE site <> ''",
                                     [&](const T& name) { named.push_back(name); });
                           for (std::string& name : named)
                               if (std::ranges::find(sites, name, &SiteRecord::name) == sites.end())
                                   sites.push_back({.name = std::move(name)});
                           std::ranges::sort(sites, {}, &SiteRecord::name);
                           return sites;
                       });
}

Result<SiteRecord> get_site(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a site",
                       [&](SqlSession& sql) { return read_site(sql, name); });
}

Result<SiteRecord> put_site(Database& database, const std::string& name,
                            const std::string& description) {
    FS_TRY(check_site_name(name));
    if (description.size() > kMaxSiteDescriptionBytes)
        return fail(Code::kInvalidArgument, fmt::format("a site's description has at most {} bytes",
                                                        kMaxSiteDescriptionBytes));
    return in_transaction(
        database, "describing a site", [&](SqlSession& sql) -> Result<SiteRecord> {
            const TimePoint now = database.impl().clock->now();
            const auto known = select_sites(sql, "WHERE name = :n", name);
            if (known.empty()) {
                size_t all = 0;
                select<L>(sql, "SELECT count(*) FROM sites",
                          [&](L found) { all = from_column(found); });
                if (all >= kMaxSites)
                    return fail(Code::kLimitReached,
                                fmt::format("a vault knows at most {} sites", kMaxSites));
                execute(sql,
                        "INSERT INTO sites (name, version, description, created_us, updated_us) "
                        "VALUES (:n, 1, :d, :c, :u)",
                        name, description, now, now);
            } else {
                execute(sql,
                        "UPDATE sites SET description = :d, version = version + 1, updated_us = :u "
                        "WHERE name = :n",
                        description, now, name);
            }
            return read_site(sql, name);
        });
}

Status remove_site(Database& database, const std::string& name) {
    return in_transaction(database, "removing a site", [&](SqlSession& sql) -> Status {
        FS_TRY(read_site(sql, name));
        if (const size_t there = appliances_of(sql, name); there != 0)
            return fail(Code::kWrongState,
                        fmt::format("{} appliances say that they stand at '{}'", there, name),
                        "give them another site, or forget those that are gone");
        execute(sql, "DELETE FROM sites WHERE name = :n", name);
        return {};
    });
}

Result<std::string> site_of_item(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading an item's site",
                       [&](SqlSession& sql) -> Result<std::string> {
                           std::string site;
                           select<T>(
                               sql,
                               "SELECT a.site FROM item_appliances i JOIN appliances a "
                               "ON a.name = i.home WHERE i.item_id = :i",
                               [&](const T& found) { site = found; }, item);
                           return site;
                       });
}

Result<std::vector<ItemId>> items_of_sites(Database& database,
                                           const std::vector<std::string>& sites) {
    return in_snapshot(database, "reading the items of sites",
                       [&](SqlSession& sql) -> Result<std::vector<ItemId>> {
                           std::vector<ItemId> items;
                           Status damaged;
                           for (const std::string& site : sites)
                               select<T>(
                                   sql,
                                   "SELECT i.item_id FROM item_appliances i JOIN appliances a "
                                   "ON a.name = i.home WHERE a.site = :s",
                                   [&](const T& item) {
                                       auto id = item_id_column(item);
                                       if (id)
                                           items.push_back(*id);
                                       else
                                           damaged = tl::unexpected(id.error());
                                   },
                                   site);
                           FS_TRY(damaged);
                           return items;
                       });
}

}  // namespace farshore
