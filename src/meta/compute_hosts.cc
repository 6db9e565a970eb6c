#include "meta/compute_hosts.h"

#include <fmt/core.h>

#include "meta/sql.h"
#include "meta/stores.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
std::vector<ComputeHostRecord> select_hosts(SqlSession& sql, std::string_view condition,
                                            const Args&... args) {
    std::vector<ComputeHostRecord> hosts;
    select<T, L, T, L, L>(
        sql,
        "SELECT name, version, document, created_us, updated_us FROM compute_hosts " +
            std::string(condition),
        [&](const T& name, L version, const T& document, L created, L updated) {
            hosts.push_back({name, from_column(version), document, {created}, {updated}});
        },
        args...);
    return hosts;
}

Result<ComputeHostRecord> read_host(SqlSession& sql, const std::string& name) {
    auto hosts = select_hosts(sql, "WHERE name = :n", name);
    if (hosts.empty())
        return fail(Code::kNotFound,
                    fmt::format("no compute host is called '{}'", name.substr(0, 64)),
                    "`farshore compute list` shows them");
    return std::move(hosts.front());
}

size_t count(SqlSession& sql, const std::string& table) {
    size_t rows = 0;
    select<L>(sql, "SELECT count(*) FROM " + table, [&](L all) { rows = from_column(all); });
    return rows;
}

}  // namespace

Status check_compute_host_name(const std::string& name) {
    if (name != kLocalHost && check_store_name(name)) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a compute host's name", name.substr(0, 64)),
                fmt::format("1 to {} of a-z, 0-9 and -, with a letter; '{}' is the vault's own "
                            "machine, and 'primary' a store",
                            kMaxStoreNameBytes, kLocalHost));
}

Result<std::vector<ComputeHostRecord>> list_compute_hosts(Database& database) {
    return in_snapshot(database, "listing compute hosts",
                       [&](SqlSession& sql) -> Result<std::vector<ComputeHostRecord>> {
                           return select_hosts(sql, "ORDER BY name");
                       });
}

Result<ComputeHostRecord> get_compute_host(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a compute host",
                       [&](SqlSession& sql) { return read_host(sql, name); });
}

Result<ComputeHostRecord> add_compute_host(Database& database, const std::string& name,
                                           const std::string& document) {
    FS_TRY(check_compute_host_name(name));
    return in_transaction(
        database, "adding a compute host", [&](SqlSession& sql) -> Result<ComputeHostRecord> {
            if (!select_hosts(sql, "WHERE name = :n", name).empty())
                return fail(Code::kAlreadyExists,
                            fmt::format("a compute host is called '{}' already", name),
                            "`farshore compute change` changes it");
            if (count(sql, "compute_hosts") >= kMaxComputeHosts)
                return fail(Code::kLimitReached,
                            fmt::format("a vault has at most {} compute hosts", kMaxComputeHosts));
            const TimePoint now = database.impl().clock->now();
            execute(sql,
                    "INSERT INTO compute_hosts (name, version, document, created_us, updated_us) "
                    "VALUES (:n, 1, :d, :c, :u)",
                    name, document, now, now);
            return read_host(sql, name);
        });
}

Result<ComputeHostRecord> change_compute_host(Database& database, const std::string& name,
                                              const std::string& document) {
    return in_transaction(
        database, "changing a compute host", [&](SqlSession& sql) -> Result<ComputeHostRecord> {
            execute(sql,
                    "UPDATE compute_hosts SET document = :d, version = version + 1, updated_us = "
                    ":u WHERE name = :n",
                    document, database.impl().clock->now(), name);
            return read_host(sql, name);
        });
}

Status remove_compute_host(Database& database, const std::string& name) {
    return in_transaction(database, "removing a compute host", [&](SqlSession& sql) -> Status {
        FS_TRY(read_host(sql, name));
        std::string item;
        select<T>(
            sql,
            "SELECT i.name FROM item_compute c JOIN items i ON i.id = c.item_id WHERE c.host = :h "
            "ORDER BY i.name LIMIT 1",
            [&](const T& found) { item = found; }, name);
        if (!item.empty())
            return fail(Code::kWrongState,
                        fmt::format("'{}' is to run on '{}' in a recovery", item, name),
                        "`farshore item compute ITEM HOST` sets another one, `local` the vault's "
                        "own machine");
        execute(sql, "DELETE FROM compute_hosts WHERE name = :n", name);
        return {};
    });
}

Result<std::optional<std::string>> item_compute(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading an item's compute host",
                       [&](SqlSession& sql) -> Result<std::optional<std::string>> {
                           std::optional<std::string> host;
                           select<T>(
                               sql, "SELECT host FROM item_compute WHERE item_id = :i",
                               [&](const T& found) { host = found; }, item);
                           return host;
                       });
}

Status set_item_compute(Database& database, const ItemId& item, const std::string& host) {
    return in_transaction(
        database, "setting an item's compute host", [&](SqlSession& sql) -> Status {
            bool known = false;
            select<L>(
                sql, "SELECT 1 FROM items WHERE id = :i", [&](L) { known = true; }, item);
            if (!known) return fail(Code::kItemNotFound, "the item is gone");
            FS_TRY(read_host(sql, host));
            upsert(sql, "item_compute", "item_id", "host", item, host);
            return {};
        });
}

Status clear_item_compute(Database& database, const ItemId& item) {
    return in_transaction(database, "clearing an item's compute host",
                          [&](SqlSession& sql) -> Status {
                              execute(sql, "DELETE FROM item_compute WHERE item_id = :i", item);
                              return {};
                          });
}

}  // namespace farshore
