#include "meta/items.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "base/party_names.h"
#include "base/plain_name.h"
#include "meta/item_memory.h"
#include "meta/nodes.h"
#include "meta/policy_rows.h"
#include "meta/sql.h"

namespace farshore {
namespace {

constexpr std::string_view kColumns =
    "SELECT id, name, state, state_since_us, mode, agent, qmp_socket, nbd_socket, machine, "
    "wrapped_key, crash_point_interval_s, window_s, grace_s, copy_throttle_bytes_per_s, "
    "resync_request, error_code, error_what, error_remedy, created_us, updated_us, "
    "consistent_interval_s, rpo_threshold_s, resync_windows, resync_windows_for_all, "
    "verify_interval_s, bandwidth, newest_first, keep, scrub_interval_s, policy FROM items ";

tl::unexpected<Error> no_item(std::string_view name) {
    return fail(Code::kItemNotFound, fmt::format("there is no item '{}'", name.substr(0, 128)),
                "`farshore items` lists them");
}

// `condition` with `args` says which items they are.
template <typename... Args>
void read_disks(SqlSession& sql, std::vector<ItemRecord*> items, const std::string& condition,
                const Args&... args) {
    using L = long long;
    using T = std::string;
    std::ranges::sort(items, {}, &ItemRecord::id);
    auto at = items.begin();
    select<T, L, T, L, L, L>(
        sql,
        "SELECT item_id, disk, path, size_bytes, removed, joining FROM item_disks WHERE item_id " +
            condition + " ORDER BY item_id, disk",
        [&](const T& id, L disk, const T& path, L size, L removed, L joining) {
            while (at != items.end() && (*at)->id.to_string() < id) ++at;
            if (at == items.end() || (*at)->id.to_string() != id) return;
            (*at)->disks.push_back({static_cast<DiskIndex>(disk), path, from_column(size),
                                    removed != 0, joining != 0});
        },
        args...);
}

template <typename... Args>
Result<std::vector<ItemRecord>> select_items(SqlSession& sql, std::string_view condition,
                                             const Args&... args) {
    std::vector<ItemRecord> items;
    Status damaged;
    const auto keep = [&](auto& target, auto result) {
        if (result)
            target = std::move(*result);
        else if (damaged)
            damaged = tl::unexpected(result.error());
    };
    using L = long long;
    using T = std::string;
    select<T, T, T, L, T, T, T, T, T, T, L, L, L, L, T, T, T, T, L, L, L, L, T, L, L, T, L, T, L,
           T>(
        sql, std::string(kColumns) + std::string(condition),
        [&](const T& id, const T& name, const T& state, L since, const T& mode, const T& agent,
            const T& qmp, const T& nbd, const T& machine, const T& key, L interval, L window,
            L grace, L throttle, const T& resync, const T& error_code, const T& error_what,
            const T& error_remedy, L created, L updated, L consistent, L rpo, const T& windows,
            L windows_for_all, L verify, const T& bandwidth, L newest_first, const T& kept, L scrub,
            const T& policy_name) {
            ItemRecord item;
            keep(item.id, item_id_column(id));
            item.name = name;
            keep(item.state, item_state_from_name(state));
            item.state_since.us = since;
            keep(item.mode, capture_mode_from_name(mode));
            item.agent = agent;
            item.qmp_socket = qmp;
            item.nbd_socket = nbd;
            item.machine = machine;
            keep(item.wrapped_key, from_hex(key));
            item.policy.crash_point_interval_s = static_cast<uint32_t>(interval);
            item.policy.window_s = static_cast<uint32_t>(window);
            item.policy.grace_s = static_cast<uint32_t>(grace);
            item.policy.copy_throttle_bytes_per_s = from_column(throttle);
            item.policy.consistent_interval_s = static_cast<uint32_t>(consistent);
            item.policy.rpo_threshold_s = static_cast<uint32_t>(rpo);
            item.policy.resync_windows = windows;
            item.policy.resync_windows_for_all = windows_for_all != 0;
            item.policy.verify_interval_s = static_cast<uint32_t>(verify);
            item.policy.bandwidth = bandwidth;
            item.policy.newest_first = newest_first != 0;
            item.policy.keep = kept;
            item.policy.scrub_interval_s = static_cast<uint32_t>(scrub);
            item.policy_name = policy_name;
            item.resync_request = resync;
            if (!error_code.empty())
                item.error = ItemError{code_from_name(error_code), error_what, error_remedy};
            item.created.us = created;
            item.updated.us = updated;
            items.push_back(std::move(item));
        },
        args...);
    FS_TRY(damaged);
    std::vector<ItemRecord*> found;
    for (ItemRecord& item : items) found.push_back(&item);
    if (items.size() == 1)
        read_disks(sql, found, "= :i", items.front().id);
    else if (!items.empty())
        read_disks(sql, found, "IN (SELECT id FROM items " + std::string(condition) + ")", args...);
    return items;
}

// The ids that `query` gives.
template <typename... Args>
Result<std::set<ItemId>> select_ids(SqlSession& sql, std::string_view query, const Args&... args) {
    std::set<ItemId> ids;
    Status damaged;
    select<std::string>(
        sql, query,
        [&](const std::string& text) {
            if (const auto id = item_id_column(text))
                ids.insert(*id);
            else
                damaged = tl::unexpected(id.error());
        },
        args...);
    FS_TRY(damaged);
    return ids;
}

// Which of the remembered items `query` asks for; none: it asks for what there cannot be. Where
// their records go is not remembered: the database is asked.
Result<std::optional<ItemMemory::Wanted>> wanted_by(
    Database& database, const ItemQuery& query, const std::function<bool(const ItemId&)>& also) {
    ItemMemory::Wanted wanted;
    const auto ask = [&](std::string_view text, const auto&... of) -> Status {
        FS_ASSIGN(std::set<ItemId> ids,
                  in_one_read(database, "listing items",
                              [&](SqlSession& sql) { return select_ids(sql, text, of...); }));
        if (wanted.among)
            std::erase_if(ids, [&](const ItemId& id) { return !wanted.among->contains(id); });
        wanted.among = std::move(ids);
        return {};
    };
    if (!query.appliance.empty())
        FS_TRY(ask("SELECT item_id FROM ledgers WHERE appliance = :l", query.appliance));
    if (!query.site.empty())
        FS_TRY(
            ask("SELECT i.item_id FROM item_appliances i JOIN appliances a ON a.name = CASE "
                "i.appliance WHEN :r THEN i.home ELSE i.appliance END WHERE a.site = :w",
                kRecoveryAppliance, query.site));
    wanted.prefix = query.prefix;
    if (!query.agent.empty()) wanted.agent = query.agent;
    if (!query.state.empty()) {
        const auto state = item_state_from_name(query.state);
        if (!state) return std::optional<ItemMemory::Wanted>();
        wanted.state = *state;
    }
    if (!query.policy.empty() || also)
        wanted.takes = [policy = query.policy, also](const ItemRecord& item) {
            const std::string_view its =
                item.policy_name.empty() ? std::string_view("custom") : item.policy_name;
            return (policy.empty() || policy == its) && (!also || also(item.id));
        };
    return std::optional(std::move(wanted));
}

Result<ItemRecord> read_item(SqlSession& sql, const ItemId& id) {
    FS_ASSIGN(auto items, select_items(sql, "WHERE id = :id", id));
    if (items.empty()) return no_item(id.to_string());
    return std::move(items.front());
}

void write_windows(SqlSession& sql, const ItemRecord& item) {
    const ItemPolicy& policy = item.policy;
    execute(sql,
            "UPDATE items SET rpo_threshold_s = :r, resync_windows = :w, resync_windows_for_all = "
            ":f, verify_interval_s = :v, bandwidth = :b, newest_first = :n, keep = :k, "
            "scrub_interval_s = :s, policy = :p WHERE id = :i",
            policy.rpo_threshold_s, policy.resync_windows, uint32_t{policy.resync_windows_for_all},
            policy.verify_interval_s, policy.bandwidth, uint32_t{policy.newest_first}, policy.keep,
            policy.scrub_interval_s, item.policy_name, item.id);
}

Status write_disks(SqlSession& sql, const ItemRecord& item) {
    execute(sql, "DELETE FROM item_disks WHERE item_id = :i", item.id);
    for (const DesiredDisk& disk : item.disks) {
        std::string other;
        if (!disk.path.empty() && !disk.removed)
            select<std::string, std::string>(
                sql,
                "SELECT items.name, items.agent FROM item_disks "
                "JOIN items ON items.id = item_disks.item_id "
                "WHERE item_disks.path = :p AND items.mode = :m AND item_disks.removed = 0",
                [&](const std::string& name, const std::string& agent) {
                    // Every machine has a /dev/vda.
                    if (item.mode == CaptureMode::kInPath || agent == item.agent) other = name;
                },
                disk.path, capture_mode_name(item.mode));
        if (!other.empty() && item.mode != CaptureMode::kMirror)
            return fail(Code::kAlreadyExists,
                        fmt::format("disk {} is captured for item '{}' already", disk.path, other));
        execute(sql,
                "INSERT INTO item_disks (item_id, disk, path, size_bytes, removed, joining) VALUES "
                "(:i, :d, :p, :s, :r, :j)",
                item.id, disk.index, disk.path, disk.size_bytes, disk.removed, disk.joining);
    }
    return {};
}

Result<ItemRecord> change_item_in(SqlSession& sql, TimePoint now, const ItemId& id,
                                  const std::function<Status(ItemRecord&)>& change) {
    FS_ASSIGN(ItemRecord before, read_item(sql, id));
    ItemRecord item = before;
    FS_TRY(change(item));
    FS_TRY(check_transition(before.state, item.state));
    item.updated = now;
    if (item.state != before.state) item.state_since = now;
    const ItemError error = item.error.value_or(ItemError{});
    execute(sql,
            "UPDATE items SET state = :s, state_since_us = :ss, mode = :m, agent = :a, "
            "qmp_socket = :q, nbd_socket = :n, machine = :ma, wrapped_key = :k, "
            "resync_request = :r, updated_us = :u WHERE id = :i",
            item_state_name(item.state), item.state_since, capture_mode_name(item.mode), item.agent,
            item.qmp_socket, item.nbd_socket, item.machine, to_hex(item.wrapped_key),
            item.resync_request, item.updated, id);
    execute(sql,
            "UPDATE items SET crash_point_interval_s = :c, window_s = :w, grace_s = :g, "
            "copy_throttle_bytes_per_s = :t, consistent_interval_s = :cp, error_code = "
            ":ec, error_what = :ew, error_remedy = :er WHERE id = :i",
            item.policy.crash_point_interval_s, item.policy.window_s, item.policy.grace_s,
            item.policy.copy_throttle_bytes_per_s, item.policy.consistent_interval_s,
            item.error ? code_name(error.code) : std::string_view{}, error.what, error.remedy, id);
    if (!(item.policy == before.policy) || item.policy_name != before.policy_name)
        write_windows(sql, item);
    const auto same = [](const DesiredDisk& a, const DesiredDisk& b) {
        return a.index == b.index && a.path == b.path && a.size_bytes == b.size_bytes &&
               a.removed == b.removed && a.joining == b.joining;
    };
    if (!std::equal(item.disks.begin(), item.disks.end(), before.disks.begin(), before.disks.end(),
                    same))
        FS_TRY(write_disks(sql, item));
    return item;
}

constexpr std::string_view kBookmarkColumns =
    "SELECT id, item_id, label, kind, requested_us, sequence, time_us FROM bookmarks ";

template <typename... Args>
Result<std::vector<BookmarkRecord>> select_bookmarks(SqlSession& sql, std::string_view condition,
                                                     const Args&... args) {
    std::vector<BookmarkRecord> rows;
    Status damaged;
    select<std::string, std::string, std::string, long long, long long, long long, long long>(
        sql, std::string(kBookmarkColumns) + std::string(condition),
        [&](const std::string& id, const std::string& item, const std::string& label,
            long long kind, long long requested, long long sequence, long long time) {
            auto item_id = item_id_column(item);
            if (!item_id) {
                damaged = tl::unexpected(item_id.error());
                return;
            }
            rows.push_back({id,
                            *item_id,
                            label,
                            static_cast<PointKind>(kind),
                            {requested},
                            {from_column(sequence)},
                            {time}});
        },
        args...);
    FS_TRY(damaged);
    return rows;
}

template <typename... Args>
Result<std::vector<FailoverRecord>> select_failovers(SqlSession& sql, std::string_view condition,
                                                     const Args&... args) {
    std::vector<FailoverRecord> rows;
    Status damaged;
    select<long long, std::string, std::string, std::string, long long, long long, long long,
           long long, std::string, long long, long long>(
        sql,
        "SELECT id, item_id, kind, state, sequence, point_time_us, lease_id, job_id, details, "
        "created_us, updated_us FROM failovers " +
            std::string(condition),
        [&](long long id, const std::string& item, const std::string& kind,
            const std::string& state, long long sequence, long long time, long long lease,
            long long job, const std::string& details, long long created, long long updated) {
            auto item_id = item_id_column(item);
            if (!item_id) {
                damaged = tl::unexpected(item_id.error());
                return;
            }
            rows.push_back({from_column(id),
                            *item_id,
                            kind,
                            state,
                            {from_column(sequence)},
                            {time},
                            from_column(lease),
                            from_column(job),
                            details,
                            {created},
                            {updated}});
        },
        args...);
    FS_TRY(damaged);
    return rows;
}

}  // namespace

Status check_item_name(const std::string& name) {
    if (!is_plain_name(name, kMaxItemNameBytes))
        return fail(
            Code::kInvalidArgument,
            fmt::format("'{}' is not a name for an item", name.substr(0, 128)),
            "use 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter, a digit "
            "or '_'");
    if (ItemId::parse(name))
        return fail(Code::kInvalidArgument,
                    "a name of 32 hexadecimal digits would look like an id");
    return {};
}

Result<ItemRecord> create_item(Database& database, ItemRecord item) {
    FS_TRY(check_item_name(item.name));
    const TimePoint now = database.impl().clock->now();
    const ItemsChange told(database, {item.id});
    item.state = ItemState::kEnabling;
    item.created = item.updated = item.state_since = now;
    FS_TRY(in_transaction(database, "creating an item", [&](SqlSession& sql) -> Status {
        long long count = 0, taken = 0;
        select<long long, long long>(
            sql, "SELECT count(*), count(CASE WHEN name = :n THEN 1 END) FROM items",
            [&](long long all, long long same) {
                count = all;
                taken = same;
            },
            item.name);
        if (taken != 0)
            return fail(Code::kAlreadyExists,
                        fmt::format("there is an item '{}' already", item.name),
                        "choose another name, or unprotect that one");
        if (static_cast<size_t>(count) >= kMaxItems)
            return fail(Code::kLimitReached,
                        fmt::format("this vault holds {} items, which is its limit", count));
        if (!item.policy_name.empty()) {
            FS_ASSIGN(const PolicyRecord policy, read_policy_row(sql, item.policy_name));
            item.policy = policy.values;
        }
        execute(
            sql,
            "INSERT INTO items (id, name, state, state_since_us, mode, agent, qmp_socket, "
            "nbd_socket, machine, wrapped_key, crash_point_interval_s, window_s, grace_s, "
            "copy_throttle_bytes_per_s, resync_request, error_code, error_what, error_remedy, "
            "created_us, updated_us, consistent_interval_s) VALUES (:i, :n, :s, :ss, :m, :a, :q, "
            "'', :ma, :k, :ci, :w, :g, :t, '', '', '', '', :c, :u, :cp)",
            item.id, item.name, item_state_name(item.state), item.state_since,
            capture_mode_name(item.mode), item.agent, item.qmp_socket, item.machine,
            to_hex(item.wrapped_key), item.policy.crash_point_interval_s, item.policy.window_s,
            item.policy.grace_s, item.policy.copy_throttle_bytes_per_s, item.created, item.updated,
            item.policy.consistent_interval_s);
        write_windows(sql, item);
        return write_disks(sql, item);
    }));
    return item;
}

Result<ItemRecord> get_item(Database& database, const ItemId& id) {
    return in_snapshot(database, "reading an item",
                       [&](SqlSession& sql) { return read_item(sql, id); });
}

Result<ItemRecord> find_item(Database& database, const std::string& name_or_id) {
    return in_snapshot(database, "finding an item", [&](SqlSession& sql) -> Result<ItemRecord> {
        FS_ASSIGN(auto items,
                  select_items(sql, "WHERE name = :n OR id = :i LIMIT 1", name_or_id, name_or_id));
        if (items.empty()) return no_item(name_or_id);
        return std::move(items.front());
    });
}

Result<std::vector<ItemRecord>> list_items(Database& database, const std::string& after,
                                           size_t limit) {
    return in_snapshot(database, "listing items", [&](SqlSession& sql) {
        return select_items(sql, "WHERE name > :a ORDER BY name LIMIT :n", after, limit);
    });
}

std::unique_ptr<ItemMemory> memory_of_items(Database& database) {
    using Items = std::vector<ItemRecord>;
    return std::make_unique<ItemMemory>([&database](const std::vector<ItemId>* ids) {
        const auto read = [&](SqlSession& sql) -> Result<Items> {
            if (ids == nullptr) return select_items(sql, "");
            Items items;
            for (const ItemId& id : *ids) {
                FS_ASSIGN(Items one, select_items(sql, "WHERE id = :id", id));
                std::ranges::move(one, std::back_inserter(items));
            }
            return items;
        };
        std::atomic<bool>& unsure = database.impl().unsure;
        if (!unsure.exchange(false)) return in_snapshot(database, "reading items", read);
        // Among those that change something, though it does not: that waits for the one.
        auto items = in_transaction(database, "reading items", read);
        if (!items) unsure = true;
        return items;
    });
}

Result<std::vector<ItemRecord>> remembered_items(Database& database, const ItemQuery& query,
                                                 const std::string& after, size_t limit,
                                                 const std::function<bool(const ItemId&)>& also) {
    FS_TRY(check_still_leads(database));
    FS_ASSIGN(const auto wanted, wanted_by(database, query, also));
    if (!wanted) return std::vector<ItemRecord>();
    return database.impl().items->list(after, limit, *wanted);
}

Result<std::vector<ItemRecord>> remembered_items_of_agent(Database& database,
                                                          const std::string& agent) {
    FS_TRY(check_still_leads(database));
    return database.impl().items->of_agent(agent);
}

Result<ItemRecord> remembered_item(Database& database, const ItemId& id) {
    FS_TRY(check_still_leads(database));
    FS_ASSIGN(auto item, database.impl().items->find(id));
    if (!item) return no_item(id.to_string());
    return std::move(*item);
}

Result<ItemRecord> change_item(Database& database, const ItemId& id,
                               const std::function<Status(ItemRecord&)>& change) {
    const ItemsChange told(database, {id});
    return in_transaction(database, "changing an item", [&](SqlSession& sql) -> Result<ItemRecord> {
        return change_item_in(sql, database.impl().clock->now(), id, change);
    });
}

Status delete_item(Database& database, const ItemId& id) {
    const ItemsChange told(database, {id});
    return in_transaction(database, "deleting an item", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM items WHERE id = :i", id);
        return {};
    });
}

Status add_bookmark(Database& database, const BookmarkRecord& bookmark) {
    return in_transaction(database, "a bookmark", [&](SqlSession& sql) -> Status {
        FS_TRY(read_item(sql, bookmark.item));
        size_t pending = 0;
        select<long long>(
            sql, "SELECT count(*) FROM bookmarks WHERE item_id = :i AND sequence = 0",
            [&](long long count) { pending = static_cast<size_t>(count); }, bookmark.item);
        if (pending >= kMaxPendingBookmarks)
            return fail(Code::kLimitReached,
                        fmt::format("{} bookmarks of this item wait for its agent", pending),
                        "wait until the agent is connected");
        execute(sql,
                "INSERT INTO bookmarks (id, item_id, label, kind, requested_us, sequence, time_us) "
                "VALUES (:b, :i, :l, :k, :r, 0, 0)",
                bookmark.id, bookmark.item, bookmark.label, bookmark.kind,
                database.impl().clock->now());
        // Answered ones are kept for a while only so that a caller that lost its answer finds it.
        execute(
            sql,
            "DELETE FROM bookmarks WHERE item_id = :i AND sequence != 0 AND id NOT IN (SELECT id "
            "FROM bookmarks WHERE item_id = :j AND sequence != 0 ORDER BY sequence DESC LIMIT "
            "100)",
            bookmark.item, bookmark.item);
        return {};
    });
}

Result<BookmarkRecord> get_bookmark(Database& database, const std::string& id) {
    return in_one_read(database, "reading a bookmark",
                       [&](SqlSession& sql) -> Result<BookmarkRecord> {
                           FS_ASSIGN(auto rows, select_bookmarks(sql, "WHERE id = :b", id));
                           if (rows.empty())
                               return fail(Code::kNotFound, "there is no such bookmark request");
                           return std::move(rows.front());
                       });
}

Status finish_bookmark(Database& database, const std::string& id, Sequence sequence,
                       TimePoint time) {
    return in_transaction(database, "a bookmark", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE bookmarks SET sequence = :s, time_us = :t WHERE id = :b AND sequence = 0",
                sequence, time, id);
        return {};
    });
}

Status drop_bookmark(Database& database, const std::string& id) {
    return in_transaction(database, "a bookmark", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM bookmarks WHERE id = :b AND sequence = 0", id);
        return {};
    });
}

Result<std::vector<BookmarkRecord>> pending_bookmarks(Database& database, const ItemId& item) {
    return in_one_read(database, "listing bookmarks", [&](SqlSession& sql) {
        return select_bookmarks(
            sql, "WHERE item_id = :i AND sequence = 0 ORDER BY requested_us, id LIMIT :l", item,
            kMaxPendingBookmarks);
    });
}

namespace {

ConsistentState read_consistent_state(SqlSession& sql, const ItemId& item) {
    ConsistentState state;
    using L = long long;
    using T = std::string;
    select<T, L, L, T, T, T, L>(
        sql,
        "SELECT request, asked_us, made_us, error_code, error_what, error_remedy, failed_us FROM "
        "consistent_points WHERE item_id = :i",
        [&](const T& request, L asked, L made, const T& code, const T& what, const T& remedy,
            L failed) {
            state.request = request;
            state.asked.us = asked;
            state.made.us = made;
            if (!code.empty()) state.error = ItemError{code_from_name(code), what, remedy};
            state.failed.us = failed;
        },
        item);
    return state;
}

}  // namespace

Result<ConsistentState> get_consistent_state(Database& database, const ItemId& item) {
    return in_one_read(database, "reading an item's consistent points",
                       [&](SqlSession& sql) -> Result<ConsistentState> {
                           return read_consistent_state(sql, item);
                       });
}

Result<ConsistentState> change_consistent_state(
    Database& database, const ItemId& item, const std::function<void(ConsistentState&)>& change) {
    return in_transaction(
        database, "an item's consistent points", [&](SqlSession& sql) -> Result<ConsistentState> {
            FS_TRY(read_item(sql, item));
            ConsistentState state = read_consistent_state(sql, item);
            change(state);
            const ItemError error = state.error.value_or(ItemError{});
            upsert(sql, "consistent_points", "item_id",
                   "request, asked_us, made_us, error_code, error_what, error_remedy, failed_us",
                   item, state.request, state.asked, state.made,
                   state.error ? code_name(error.code) : std::string_view{}, error.what,
                   error.remedy, state.failed);
            return state;
        });
}

namespace {

constexpr std::array<std::string_view, 4> kResyncStages{"none", "waiting", "asked", "running"};
constexpr std::array<std::string_view, 3> kResyncKinds{"now", "in-window", "verify"};

template <typename Enum, size_t kNames>
Result<Enum> enum_column(const std::array<std::string_view, kNames>& names, std::string_view text) {
    const auto found = std::ranges::find(names, text);
    if (found == names.end())
        return fail(Code::kCorrupt,
                    fmt::format("the database has '{}' for a comparison", text.substr(0, 64)));
    return static_cast<Enum>(found - names.begin());
}

Result<ResyncPlan> read_resync_plan(SqlSession& sql, const ItemId& item) {
    Result<ResyncPlan> read = ResyncPlan{};
    using L = long long;
    using T = std::string;
    select<T, T, T, L, L, T>(
        sql,
        "SELECT stage, kind, request, asked_us, finished_us, cancel FROM resync_plans WHERE "
        "item_id = :i",
        [&](const T& stage, const T& kind, const T& request, L asked, L finished, const T& cancel) {
            read = [&]() -> Result<ResyncPlan> {
                ResyncPlan plan;
                FS_ASSIGN(plan.stage, enum_column<ResyncStage>(kResyncStages, stage));
                FS_ASSIGN(plan.kind, enum_column<ResyncKind>(kResyncKinds, kind));
                plan.request = request;
                plan.asked.us = asked;
                plan.finished.us = finished;
                plan.cancel = cancel;
                return plan;
            }();
        },
        item);
    return read;
}

}  // namespace

std::string_view resync_stage_name(ResyncStage stage) {
    return kResyncStages.at(static_cast<size_t>(stage));
}
std::string_view resync_kind_name(ResyncKind kind) {
    return kResyncKinds.at(static_cast<size_t>(kind));
}

Result<ResyncPlan> get_resync_plan(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading an item's comparison",
                       [&](SqlSession& sql) { return read_resync_plan(sql, item); });
}

Result<ResyncPlan> change_resync_plan(
    Database& database, const ItemId& item,
    const std::function<Status(ItemRecord&, ResyncPlan&)>& change) {
    const ItemsChange told(database, {item});
    return in_transaction(
        database, "an item's comparison", [&](SqlSession& sql) -> Result<ResyncPlan> {
            FS_ASSIGN(ResyncPlan plan, read_resync_plan(sql, item));
            FS_TRY(change_item_in(sql, database.impl().clock->now(), item,
                                  [&](ItemRecord& record) { return change(record, plan); }));
            upsert(sql, "resync_plans", "item_id",
                   "stage, kind, request, asked_us, finished_us, cancel", item,
                   resync_stage_name(plan.stage), resync_kind_name(plan.kind), plan.request,
                   plan.asked, plan.finished, plan.cancel);
            return plan;
        });
}

Result<FailoverRecord> add_failover(Database& database, FailoverRecord failover) {
    return in_transaction(database, "a failover", [&](SqlSession& sql) -> Result<FailoverRecord> {
        FS_TRY(read_item(sql, failover.item));
        failover.created = failover.updated = database.impl().clock->now();
        failover.id = insert_returning(
            sql,
            "INSERT INTO failovers (item_id, kind, state, sequence, point_time_us, lease_id, "
            "job_id, details, created_us, updated_us) VALUES (:i, :k, :s, :q, :t, :l, :j, "
            ":d, :c, :u) RETURNING id",
            failover.item, failover.kind, failover.state, failover.sequence, failover.point_time,
            failover.lease_id, failover.job_id, failover.details, failover.created,
            failover.updated);
        return failover;
    });
}

Result<FailoverRecord> get_failover(Database& database, uint64_t id) {
    return in_snapshot(
        database, "reading a failover", [&](SqlSession& sql) -> Result<FailoverRecord> {
            FS_ASSIGN(auto rows, select_failovers(sql, "WHERE id = :n", id));
            if (rows.empty())
                return fail(Code::kNotFound, fmt::format("there is no failover {}", id));
            return std::move(rows.front());
        });
}

Status update_failover(Database& database, const FailoverRecord& failover) {
    return in_transaction(database, "a failover", [&](SqlSession& sql) -> Status {
        if (execute(
                sql,
                "UPDATE failovers SET state = :s, sequence = :q, point_time_us = :t, lease_id = "
                ":l, job_id = :j, details = :d, updated_us = :u WHERE id = :n",
                failover.state, failover.sequence, failover.point_time, failover.lease_id,
                failover.job_id, failover.details, database.impl().clock->now(), failover.id) == 0)
            return fail(Code::kNotFound, fmt::format("there is no failover {}", failover.id));
        return {};
    });
}

Result<std::vector<FailoverRecord>> list_failovers(Database& database,
                                                   const std::optional<ItemId>& item,
                                                   size_t limit) {
    return in_snapshot(database, "listing failovers", [&](SqlSession& sql) {
        return item ? select_failovers(sql, "WHERE item_id = :i ORDER BY id DESC LIMIT :l", *item,
                                       limit)
                    : select_failovers(sql, "ORDER BY id DESC LIMIT :l", limit);
    });
}

}  // namespace farshore
