#include "meta/stores.h"

#include <fmt/core.h>

#include "meta/database_ledger.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
Result<std::vector<StoreRecord>> select_stores(SqlSession& sql, std::string_view condition,
                                               const Args&... args) {
    std::vector<StoreRecord> out;
    select<T, T, T, T, T, T, L>(
        sql,
        "SELECT name, location, settings_file, store_id, claim_epoch, claim_id, created_us FROM "
        "stores " +
            std::string(condition),
        [&](const T& name, const T& location, const T& settings, const T& id, const T& epoch,
            const T& claim, L created) {
            out.push_back({name, location, settings, id, epoch, claim, {created}});
        },
        args...);
    return out;
}

template <typename... Args>
Result<std::vector<CopyRecord>> select_copies(SqlSession& sql, std::string_view condition,
                                              const Args&... args) {
    std::vector<CopyRecord> out;
    Status damaged;
    select<T, T, L, T, L, L, L, L, L, T>(
        sql,
        "SELECT item_id, store, window_s, keep, grace_s, created_us, removing, scrubbed_us, "
        "damaged, damage FROM copies " +
            std::string(condition),
        [&](const T& item, const T& store, L window, const T& keep, L grace, L created, L removing,
            L scrubbed, L damaged_objects, const T& damage) {
            auto id = item_id_column(item);
            if (!id) {
                damaged = tl::unexpected(id.error());
                return;
            }
            out.push_back({*id,
                           store,
                           static_cast<uint32_t>(window),
                           keep,
                           static_cast<uint32_t>(grace),
                           {created},
                           removing != 0,
                           {scrubbed},
                           from_column(damaged_objects),
                           damage});
        },
        args...);
    FS_TRY(damaged);
    return out;
}

Result<CopyRecord> one_copy(SqlSession& sql, const ItemId& item, const std::string& store) {
    FS_ASSIGN(auto rows, select_copies(sql, "WHERE item_id = :i AND store = :s", item, store));
    if (rows.empty())
        return fail(Code::kNotFound,
                    fmt::format("the item has no copy in '{}'", store.substr(0, 64)),
                    "`farshore copy list` shows its copies");
    return std::move(rows.front());
}

Error no_such_store(const std::string& name) {
    return Error(Code::kNotFound, fmt::format("no store is called '{}'", name.substr(0, 64)),
                 "`farshore store list` shows them");
}

}  // namespace

Status check_store_name(const std::string& name) {
    const bool good =
        !name.empty() && name.size() <= kMaxStoreNameBytes && name != "primary" &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
    if (good) return {};
    return fail(
        Code::kInvalidArgument, fmt::format("'{}' cannot be a store's name", name.substr(0, 64)),
        fmt::format("1 to {} of a-z, 0-9 and -, with a letter; 'primary' is the vault's own",
                    kMaxStoreNameBytes));
}

Status add_store(Database& database, const StoreRecord& record) {
    return in_transaction(database, "adding a store", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(const auto known, select_stores(sql, ""));
        if (known.size() >= kMaxStores)
            return fail(Code::kLimitReached,
                        fmt::format("a vault has at most {} more stores", kMaxStores));
        for (const StoreRecord& other : known) {
            if (other.name == record.name)
                return fail(Code::kAlreadyExists,
                            fmt::format("a store is called '{}' already", record.name));
            if (other.store_id == record.store_id)
                return fail(Code::kAlreadyExists,
                            fmt::format("that is the store '{}'", other.name));
        }
        execute(sql,
                "INSERT INTO stores (name, location, settings_file, store_id, claim_epoch, "
                "claim_id, created_us) VALUES (:n, :l, :f, :i, :e, :c, :t)",
                record.name, record.location, record.settings_file, record.store_id,
                record.claim_epoch, record.claim_id, database.impl().clock->now());
        return {};
    });
}

Result<StoreRecord> get_store(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a store", [&](SqlSession& sql) -> Result<StoreRecord> {
        FS_ASSIGN(auto rows, select_stores(sql, "WHERE name = :n", name));
        if (rows.empty()) return fail(no_such_store(name));
        return std::move(rows.front());
    });
}

Result<std::vector<StoreRecord>> list_stores(Database& database) {
    return in_snapshot(database, "listing stores",
                       [&](SqlSession& sql) { return select_stores(sql, "ORDER BY name"); });
}

Status keep_store_claim(Database& database, const std::string& name, const std::string& epoch,
                        const std::string& id) {
    return in_transaction(database, "keeping a claim", [&](SqlSession& sql) -> Status {
        execute(sql, "UPDATE stores SET claim_epoch = :e, claim_id = :c WHERE name = :n", epoch, id,
                name);
        return {};
    });
}

Status remove_store(Database& database, const std::string& name) {
    return in_transaction(database, "removing a store", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(const auto known, select_stores(sql, "WHERE name = :n", name));
        if (known.empty()) return fail(no_such_store(name));
        FS_ASSIGN(const auto copies, select_copies(sql, "WHERE store = :n", name));
        if (!copies.empty())
            return fail(Code::kWrongState,
                        fmt::format("{} item{} a copy in '{}'", copies.size(),
                                    copies.size() == 1 ? " has" : "s have", name),
                        "`farshore copy remove ITEM --store STORE` first");
        execute(sql, "DELETE FROM stores WHERE name = :n", name);
        return {};
    });
}

Status add_copy(Database& database, const CopyRecord& record) {
    return in_transaction(database, "adding a copy", [&](SqlSession& sql) -> Status {
        bool item = false;
        select<L>(
            sql, "SELECT 1 FROM items WHERE id = :i", [&](L) { item = true; }, record.item);
        if (!item)
            return fail(Code::kItemNotFound,
                        fmt::format("there is no item '{}'", record.item.to_string()));
        FS_ASSIGN(const auto stores, select_stores(sql, "WHERE name = :n", record.store));
        if (stores.empty()) return fail(no_such_store(record.store));
        FS_ASSIGN(const auto known, select_copies(sql, "WHERE item_id = :i AND store = :s",
                                                  record.item, record.store));
        if (!known.empty())
            return fail(Code::kAlreadyExists,
                        fmt::format("the item has a copy in '{}' already", record.store));
        // One that outlived its copy knows less than the store.
        execute(sql, "DELETE FROM ledgers WHERE item_id = :i",
                copy_ledger_name(record.item, record.store));
        execute(sql,
                "INSERT INTO copies (item_id, store, window_s, keep, grace_s, created_us, "
                "removing, scrubbed_us, damaged, damage) VALUES (:i, :s, :w, :k, :g, :t, 0, 0, 0, "
                "'')",
                record.item, record.store, record.window_s, record.keep, record.grace_s,
                database.impl().clock->now());
        return {};
    });
}

Result<CopyRecord> get_copy(Database& database, const ItemId& item, const std::string& store) {
    return in_snapshot(database, "reading a copy",
                       [&](SqlSession& sql) { return one_copy(sql, item, store); });
}

Result<CopyRecord> change_copy(Database& database, const ItemId& item, const std::string& store,
                               const std::function<Status(CopyRecord&)>& change) {
    return in_transaction(database, "changing a copy", [&](SqlSession& sql) -> Result<CopyRecord> {
        FS_ASSIGN(CopyRecord record, one_copy(sql, item, store));
        FS_TRY(change(record));
        execute(sql,
                "UPDATE copies SET window_s = :w, keep = :k, grace_s = :g, removing = :r, "
                "scrubbed_us = :t, damaged = :d, damage = :x WHERE item_id = :i AND store = :s",
                record.window_s, record.keep, record.grace_s, uint32_t{record.removing},
                record.scrubbed, record.damaged, record.damage, item, store);
        return record;
    });
}

Result<std::vector<CopyRecord>> list_copies(Database& database, const ItemId& item) {
    return in_snapshot(database, "listing copies", [&](SqlSession& sql) {
        return select_copies(sql, "WHERE item_id = :i ORDER BY store", item);
    });
}

Result<std::vector<CopyRecord>> list_copies_in(Database& database, const std::string& store) {
    return in_snapshot(database, "listing copies", [&](SqlSession& sql) {
        return select_copies(sql, "WHERE store = :s ORDER BY item_id", store);
    });
}

Status remove_copy(Database& database, const ItemId& item, const std::string& store) {
    return in_transaction(database, "removing a copy", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM ledgers WHERE item_id = :i", copy_ledger_name(item, store));
        execute(sql, "DELETE FROM copies WHERE item_id = :i AND store = :s", item, store);
        return {};
    });
}

}  // namespace farshore
