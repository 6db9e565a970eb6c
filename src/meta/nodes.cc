#include "meta/nodes.h"

#include <fmt/core.h>

#include "meta/item_memory.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

// So long an answer to who leads is believed.
constexpr int64_t kLedForUs = 1'000'000;
constexpr int64_t kForgottenUs = int64_t{86'400} * 1'000'000;

// Microseconds by the server's clock, which goes on within a transaction.
constexpr std::string_view kNow = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";

Status check_shared(Database& database) {
    if (database.is_shared()) return {};
    return fail(Code::kUnsupported, "one vault has the database to itself",
                "nodes share a PostgreSQL database: --database");
}

Result<VaultLease> read_lease(SqlSession& sql) {
    VaultLease lease;
    select<L, T, T, L>(
        sql, fmt::format("SELECT epoch, node, address, until_us - {} FROM vault_lease", kNow),
        [&](L epoch, const T& node, const T& address, L left) {
            lease = {from_column(epoch), node, address, node.empty() ? 0 : left};
        });
    return lease;
}

// Alone: whoever commits a change after this one knows of it.
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_lease_transaction(Database& database,
                                                                 std::string_view what,
                                                                 Function&& function) {
    using Return = std::invoke_result_t<Function, SqlSession&>;
    if (Status shared = check_shared(database); !shared)
        return Return(tl::unexpected(shared.error()));
    Database::Impl& db = database.impl();
    SqlSessions::Lease lease(db.writers);
    SqlSession& sql = lease.session();
    try {
        db.make_ready(sql, false);
        db.backend->begin_alone(sql.raw());
        Return result = function(sql);
        if (!result) {
            db.roll_back(sql);
            return result;
        }
        sql << "COMMIT";
        return result;
    } catch (const std::exception& thrown) {
        Error error = db.error_of(thrown, what);
        db.roll_back(sql);
        return fail(std::move(error));
    }
}

}  // namespace

Result<VaultLease> read_vault_lease(Database& database) {
    FS_TRY(check_shared(database));
    return in_one_read(database, "reading the vault's lease",
                       [](SqlSession& sql) { return read_lease(sql); });
}

Result<VaultLease> take_vault_lease(Database& database, const std::string& node,
                                    const std::string& address, int64_t duration_us) {
    return in_lease_transaction(
        database, "taking the vault's lease", [&](SqlSession& sql) -> Result<VaultLease> {
            FS_ASSIGN(VaultLease lease, read_lease(sql));
            if (lease.left_us > 0 && lease.node != node) return lease;
            lease = {lease.epoch + 1, node, address, duration_us};
            execute(sql,
                    fmt::format("INSERT INTO vault_lease (id, epoch, node, address, until_us) "
                                "VALUES (1, :e, :n, :a, {0} + :d) ON CONFLICT (id) DO UPDATE SET "
                                "epoch = excluded.epoch, node = excluded.node, address = "
                                "excluded.address, until_us = excluded.until_us",
                                kNow),
                    lease.epoch, node, address, duration_us);
            return lease;
        });
}

Status renew_vault_lease(Database& database, uint64_t epoch, int64_t duration_us) {
    return in_lease_transaction(
        database, "renewing the vault's lease", [&](SqlSession& sql) -> Status {
            if (execute(sql,
                        fmt::format("UPDATE vault_lease SET until_us = {} + :d WHERE epoch = :e "
                                    "AND node != ''",
                                    kNow),
                        duration_us, epoch) == 0)
                return fail(Code::kFenced, "another vault node leads now");
            return {};
        });
}

Status check_still_leads(Database& database) {
    Database::Impl& db = database.impl();
    const uint64_t epoch = db.epoch;
    const int64_t now_us = db.clock->steady_us();
    if (epoch == 0 || (db.led_us != 0 && now_us - db.led_us < kLedForUs)) return {};
    FS_TRY(in_one_read(database, "asking who leads", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(const VaultLease lease, read_lease(sql));
        if (lease.epoch != epoch) return fail(Code::kFenced, "another vault node leads now");
        return {};
    }));
    db.led_us = now_us;
    return {};
}

Status give_up_vault_lease(Database& database, uint64_t epoch) {
    return in_lease_transaction(
        database, "giving the vault's lease up", [&](SqlSession& sql) -> Status {
            execute(sql, "UPDATE vault_lease SET node = '', until_us = 0 WHERE epoch = :e", epoch);
            return {};
        });
}

void fence_by_vault_lease(Database& database, uint64_t epoch, const std::string& node) {
    database.impl().led_us = 0;
    database.impl().items->forget_all();  // of the time when another one led
    database.impl().epoch = epoch;
    database.impl().node = node;
}

std::string node_of(Database& database) { return database.impl().node; }

Status vault_node_seen(Database& database, const VaultNode& node) {
    FS_TRY(check_shared(database));
    return in_transaction(database, "a vault node", [&](SqlSession& sql) -> Status {
        execute(sql, fmt::format("DELETE FROM vault_nodes WHERE seen_us < {} - :f", kNow),
                kForgottenUs);
        L others = 0;
        select<L>(
            sql, "SELECT count(*) FROM vault_nodes WHERE name != :n",
            [&](L count) { others = count; }, node.name);
        if (others >= static_cast<L>(kMaxVaultNodes))
            return fail(Code::kLimitReached,
                        fmt::format("{} vault nodes share this database already", others));
        execute(
            sql,
            fmt::format(
                "INSERT INTO vault_nodes (name, address, version, started_us, machines, "
                "seen_us) VALUES (:n, :a, :v, :s, :m, {}) ON CONFLICT (name) DO UPDATE SET address "
                "= excluded.address, version = excluded.version, started_us = "
                "excluded.started_us, machines = excluded.machines, seen_us = "
                "excluded.seen_us",
                kNow),
            node.name, node.address, node.version, node.started, node.machines);
        return {};
    });
}

Result<std::vector<VaultNode>> list_vault_nodes(Database& database) {
    FS_TRY(check_shared(database));
    return in_snapshot(database, "listing vault nodes", [](SqlSession& sql) {
        Result<std::vector<VaultNode>> nodes = std::vector<VaultNode>();
        select<T, T, T, L, L, L>(
            sql,
            fmt::format("SELECT name, address, version, started_us, machines, {} - seen_us FROM "
                        "vault_nodes "
                        "ORDER BY name",
                        kNow),
            [&](const T& name, const T& address, const T& version, L started, L machines,
                L silent) {
                nodes->push_back(
                    {name, address, version, {started}, from_column(machines), silent});
            });
        return nodes;
    });
}

}  // namespace farshore
