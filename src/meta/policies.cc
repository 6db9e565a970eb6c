#include "meta/policies.h"

#include <fmt/core.h>

#include <algorithm>

#include "meta/policy_rows.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

constexpr size_t kNamedItems = 5;  // in a refusal

tl::unexpected<Error> no_policy(std::string_view name) {
    return fail(Code::kNotFound, fmt::format("there is no policy '{}'", name.substr(0, 64)),
                "`farshore policy list` shows them");
}

PolicyRecord built_in() {
    PolicyRecord record;
    record.name = kDefaultPolicy;
    return record;
}

template <typename... Args>
std::vector<PolicyRecord> select_policies(SqlSession& sql, std::string_view condition,
                                          const Args&... args) {
    std::vector<PolicyRecord> rows;
    select<T, L, L, L, L, L, L, L, L, L, T, L, L, T, L, T, L, L>(
        sql,
        "SELECT name, version, created_us, updated_us, crash_point_interval_s, window_s, grace_s, "
        "copy_throttle_bytes_per_s, consistent_interval_s, rpo_threshold_s, resync_windows, "
        "resync_windows_for_all, verify_interval_s, bandwidth, newest_first, keep, "
        "scrub_interval_s, (SELECT count(*) FROM items WHERE items.policy = policies.name) FROM "
        "policies " +
            std::string(condition),
        [&](const T& name, L version, L created, L updated, L interval, L window, L grace,
            L throttle, L consistent, L rpo, const T& windows, L for_all, L verify,
            const T& bandwidth, L newest_first, const T& keep, L scrub, L items) {
            PolicyRecord row;
            row.name = name;
            row.version = from_column(version);
            row.created.us = created;
            row.updated.us = updated;
            row.items = from_column(items);
            ItemPolicy& values = row.values;
            values.crash_point_interval_s = static_cast<uint32_t>(interval);
            values.window_s = static_cast<uint32_t>(window);
            values.grace_s = static_cast<uint32_t>(grace);
            values.copy_throttle_bytes_per_s = from_column(throttle);
            values.consistent_interval_s = static_cast<uint32_t>(consistent);
            values.rpo_threshold_s = static_cast<uint32_t>(rpo);
            values.resync_windows = windows;
            values.resync_windows_for_all = for_all != 0;
            values.verify_interval_s = static_cast<uint32_t>(verify);
            values.bandwidth = bandwidth;
            values.newest_first = newest_first != 0;
            values.keep = keep;
            values.scrub_interval_s = static_cast<uint32_t>(scrub);
            rows.push_back(std::move(row));
        },
        args...);
    return rows;
}

// `table` has the columns of a policy's values; of the rows where `key_column` is `key`.
template <typename Key>
void write_values(SqlSession& sql, std::string_view table, std::string_view key_column,
                  const Key& key, const ItemPolicy& values, TimePoint now) {
    execute(
        sql,
        fmt::format(
            "UPDATE {} SET crash_point_interval_s = :c, window_s = :w, grace_s = :g, "
            "copy_throttle_bytes_per_s = :t, consistent_interval_s = :cp, rpo_threshold_s = :r, "
            "resync_windows = :rw, resync_windows_for_all = :f, verify_interval_s = :v, "
            "bandwidth = :b, newest_first = :n, keep = :k, scrub_interval_s = :s, updated_us = "
            ":u WHERE {} = :key",
            table, key_column),
        values.crash_point_interval_s, values.window_s, values.grace_s,
        values.copy_throttle_bytes_per_s, values.consistent_interval_s, values.rpo_threshold_s,
        values.resync_windows, uint32_t{values.resync_windows_for_all}, values.verify_interval_s,
        values.bandwidth, uint32_t{values.newest_first}, values.keep, values.scrub_interval_s, now,
        key);
}

// Those that follow `policy` are asked for no consistent points any more.
void forget_consistent_requests(SqlSession& sql, const std::string& policy) {
    execute(sql,
            "DELETE FROM bookmarks WHERE sequence = 0 AND id IN (SELECT request FROM "
            "consistent_points WHERE item_id IN (SELECT id FROM items WHERE policy = :p))",
            policy);
    execute(sql,
            "UPDATE consistent_points SET request = '', error_code = '', error_what = '', "
            "error_remedy = '' WHERE item_id IN (SELECT id FROM items WHERE policy = :p)",
            policy);
}

template <typename... Args>
Result<std::vector<ItemRecord>> select_heads(SqlSession& sql, std::string_view condition,
                                             const Args&... args) {
    std::vector<ItemRecord> rows;
    Status damaged;
    select<T, T, T>(
        sql, "SELECT id, name, mode FROM items " + std::string(condition),
        [&](const T& id, const T& name, const T& mode) {
            const auto item = item_id_column(id);
            const auto known_mode = capture_mode_from_name(mode);
            if (!item || !known_mode) {
                damaged = tl::unexpected(item ? known_mode.error() : item.error());
                return;
            }
            ItemRecord record;
            record.id = *item;
            record.name = name;
            record.mode = *known_mode;
            rows.push_back(std::move(record));
        },
        args...);
    FS_TRY(damaged);
    return rows;
}

void insert_policy(SqlSession& sql, const PolicyRecord& policy) {
    // The values follow: one list of columns is enough.
    execute(sql,
            "INSERT INTO policies (name, version, created_us, updated_us, crash_point_interval_s, "
            "window_s, grace_s, copy_throttle_bytes_per_s, consistent_interval_s, rpo_threshold_s, "
            "resync_windows, resync_windows_for_all, verify_interval_s, bandwidth, newest_first, "
            "keep, scrub_interval_s) VALUES (:n, 0, :c, 0, 0, 0, 0, 0, 0, 0, '', 0, 0, '', 0, '', "
            "0)",
            policy.name, policy.created);
}

}  // namespace

Result<PolicyRecord> read_policy_row(SqlSession& sql, const std::string& name) {
    auto rows = select_policies(sql, "WHERE name = :n", name);
    if (!rows.empty()) return std::move(rows.front());
    if (name != kDefaultPolicy) return no_policy(name);
    PolicyRecord record = built_in();
    select<L>(
        sql, "SELECT count(*) FROM items WHERE policy = :n",
        [&](L items) { record.items = from_column(items); }, name);
    return record;
}

Status check_policy_name(const std::string& name) {
    const bool good =
        !name.empty() && name.size() <= kMaxPolicyNameBytes && name != "custom" &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
    if (good) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a policy's name", name.substr(0, 64)),
                fmt::format("1 to {} of a-z, 0-9 and -, with a letter; 'custom' is an item's own",
                            kMaxPolicyNameBytes));
}

Result<PolicyRecord> create_policy(Database& database, const PolicyRecord& policy) {
    FS_TRY(check_policy_name(policy.name));
    return in_transaction(
        database, "creating a policy", [&](SqlSession& sql) -> Result<PolicyRecord> {
            L count = 0;
            select<L>(sql, "SELECT count(*) FROM policies", [&](L all) { count = all; });
            if (policy.name == kDefaultPolicy ||
                !select_policies(sql, "WHERE name = :n", policy.name).empty())
                return fail(Code::kAlreadyExists,
                            fmt::format("there is a policy '{}' already", policy.name),
                            "`farshore policy edit` changes it");
            if (static_cast<size_t>(count) >= kMaxPolicies)
                return fail(Code::kLimitReached,
                            fmt::format("this vault holds {} policies, which is its limit", count));
            PolicyRecord made = policy;
            made.version = 1;
            made.created = made.updated = database.impl().clock->now();
            made.items = 0;
            insert_policy(sql, made);
            write_values(sql, "policies", "name", made.name, made.values, made.updated);
            execute(sql, "UPDATE policies SET version = 1 WHERE name = :n", made.name);
            return made;
        });
}

Result<PolicyRecord> get_policy(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a policy",
                       [&](SqlSession& sql) { return read_policy_row(sql, name); });
}

Result<std::vector<PolicyRecord>> list_policies(Database& database, const std::string& after,
                                                size_t limit) {
    return in_snapshot(
        database, "listing policies", [&](SqlSession& sql) -> Result<std::vector<PolicyRecord>> {
            auto rows =
                select_policies(sql, "WHERE name > :a ORDER BY name LIMIT :l", after, limit);
            const bool known = std::ranges::any_of(
                rows, [](const PolicyRecord& row) { return row.name == kDefaultPolicy; });
            if (known || after >= kDefaultPolicy) return rows;
            FS_ASSIGN(PolicyRecord own, read_policy_row(sql, std::string(kDefaultPolicy)));
            // Its row may be on a later page.
            if (own.version != 0) return rows;
            rows.insert(std::ranges::upper_bound(rows, own.name, {}, &PolicyRecord::name),
                        std::move(own));
            if (rows.size() > limit) rows.pop_back();
            return rows;
        });
}

Result<PolicyRecord> change_policy(Database& database, const std::string& name,
                                   const std::function<Status(PolicyRecord&)>& change,
                                   const PolicyCheck& check) {
    ItemsChange told(database, {});
    return in_transaction(
        database, "changing a policy", [&](SqlSession& sql) -> Result<PolicyRecord> {
            const TimePoint now = database.impl().clock->now();
            FS_ASSIGN(PolicyRecord policy, read_policy_row(sql, name));
            const bool is_new = policy.version == 0;
            FS_TRY(change(policy));
            FS_ASSIGN(const auto items,
                      select_heads(sql, "WHERE policy = :p ORDER BY name", policy.name));
            for (const ItemRecord& item : items) {
                FS_TRY(check(item, policy.values));
                told.add(item.id);
            }
            ++policy.version;
            policy.updated = now;
            if (is_new) {
                policy.created = now;
                insert_policy(sql, policy);
            }
            write_values(sql, "policies", "name", policy.name, policy.values, now);
            execute(sql, "UPDATE policies SET version = :v WHERE name = :n", policy.version,
                    policy.name);
            write_values(sql, "items", "policy", policy.name, policy.values, now);
            if (policy.values.consistent_interval_s == 0)
                forget_consistent_requests(sql, policy.name);
            return policy;
        });
}

Status remove_policy(Database& database, const std::string& name,
                     const std::function<Status(const PolicyRecord&)>& may) {
    return in_transaction(database, "removing a policy", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(const PolicyRecord policy, read_policy_row(sql, name));
        FS_TRY(may(policy));
        if (name == kDefaultPolicy)
            return fail(Code::kForbidden, "the policy 'default' is built in: it cannot be removed",
                        "`farshore policy edit default` changes it");
        if (policy.items != 0) {
            FS_ASSIGN(
                const auto items,
                select_heads(sql, "WHERE policy = :p ORDER BY name LIMIT :l", name, kNamedItems));
            std::string names;
            for (const ItemRecord& item : items)
                names += fmt::format("{}'{}'", names.empty() ? "" : ", ", item.name);
            if (policy.items > items.size())
                names += fmt::format(" and {} more", policy.items - items.size());
            return fail(Code::kWrongState,
                        fmt::format("the policy '{}' is followed by {}", name, names),
                        "give them another one first: `farshore policy assign`");
        }
        execute(sql, "DELETE FROM policies WHERE name = :n", name);
        return {};
    });
}

Result<PolicyRecord> assign_policy(Database& database, const std::string& name,
                                   const std::vector<ItemId>& items, const PolicyCheck& check) {
    const ItemsChange told(database, items);
    return in_transaction(
        database, "assigning a policy", [&](SqlSession& sql) -> Result<PolicyRecord> {
            const TimePoint now = database.impl().clock->now();
            FS_ASSIGN(const PolicyRecord policy, read_policy_row(sql, name));
            for (const ItemId& id : items) {
                FS_ASSIGN(const auto found, select_heads(sql, "WHERE id = :i", id));
                if (found.empty())
                    return fail(Code::kItemNotFound,
                                fmt::format("there is no item '{}'", id.to_string()),
                                "`farshore items` lists them");
                FS_TRY(check(found.front(), policy.values));
                execute(sql, "UPDATE items SET policy = :p WHERE id = :i", policy.name, id);
                write_values(sql, "items", "id", id, policy.values, now);
            }
            if (policy.values.consistent_interval_s == 0)
                forget_consistent_requests(sql, policy.name);
            return read_policy_row(sql, name);
        });
}

Result<std::vector<ItemRecord>> list_items_of_policy(Database& database, const std::string& name,
                                                     const std::string& after, size_t limit) {
    return in_snapshot(database, "listing a policy's items", [&](SqlSession& sql) {
        return select_heads(sql, "WHERE policy = :p AND name > :a ORDER BY name LIMIT :l", name,
                            after, limit);
    });
}

}  // namespace farshore
