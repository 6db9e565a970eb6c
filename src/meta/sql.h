// What the use-case files of this folder share: transactions over a session, exceptions turned into
// errors, and the few conversions between our types and columns. The statements themselves are
// understood by SQLite and PostgreSQL alike; what differs is behind Backend. Private to src/meta.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/types.h"
#include "meta/database.h"
#include "meta/sql_session.h"

namespace farshore {

class ItemMemory;

// What the databases do not have in common. Its functions throw what SOCI throws.
class Backend {
  public:
    virtual ~Backend() = default;
    virtual std::string place() const = 0;
    virtual bool is_shared() const = 0;
    virtual size_t sessions() const = 0;  // for writers, and as many for readers
    virtual Status open(soci::session& session) = 0;
    virtual void make_reader(soci::session& session) = 0;
    // False: it has lost its server, and reconnect() finds that again.
    virtual bool is_alive(soci::session& session) noexcept = 0;
    virtual void reconnect(soci::session& session) = 0;
    // Refuses a database of another program; marks an empty one as ours.
    virtual Status take(soci::session& session) = 0;
    // Of a migration, which is written for SQLite.
    virtual std::string translate(std::string statement) const = 0;
    // Begins a transaction that changes something; those with one key take turns. `epoch`: what
    // the lease of the vault must still say (nodes.h), 0: not asked.
    virtual Status begin(soci::session& session, uint32_t key, uint64_t epoch) = 0;
    virtual void begin_reading(soci::session& session) = 0;
    // Begins a transaction beside which no other changes anything.
    virtual void begin_alone(soci::session& session) = 0;
    // Ends an open transaction whatever state it is in.
    virtual void roll_back(soci::session& session) noexcept = 0;
    // Rows that the session has changed since it was opened; none: it cannot say.
    virtual std::optional<long long> changes(soci::session& session) noexcept = 0;
    // Of what SOCI has thrown.
    virtual Error error_of(const std::exception& thrown, std::string_view what) const = 0;
};
std::unique_ptr<Backend> sqlite_backend(const DatabaseOptions& options);
Result<std::unique_ptr<Backend>> postgres_backend(const DatabaseOptions& options);

struct Database::Impl {
    explicit Impl(std::unique_ptr<Backend> backend_in);
    ~Impl();

    std::unique_ptr<Backend> backend;
    Clock* clock = nullptr;
    std::string place;
    int version = 0;
    SqlSessions writers, readers;
    std::atomic<uint64_t> epoch{0};  // of the vault's lease; 0: there is none
    std::string node;                // that holds it
    std::atomic<int64_t> led_us{0};  // steady, when the lease was known to be ours; 0: not yet
    std::unique_ptr<ItemMemory> items;
    // A transaction has thrown since `items` waited for all others: it may have been its commit,
    // which has lost its answer and is still under way.
    std::atomic<bool> unsure{false};
    mutable std::mutex trouble_mutex;
    std::optional<Error> trouble;

    // Before a transaction, or a read of its own.
    void make_ready(SqlSession& session, bool reader);
    Status begin(SqlSession& session, uint32_t key);
    void begin_reading(SqlSession& session);
    void roll_back(SqlSession& session) noexcept { backend->roll_back(session.raw()); }
    Error error_of(const std::exception& thrown, std::string_view what) const;
    // What a write ended with; none: well. One that changed nothing proves nothing.
    void wrote(const std::optional<Error>& error, bool changed);
};

// What was thrown, without the values of a statement's parameters.
std::string message_of(const std::exception& thrown);

inline constexpr uint32_t kWholeDatabase = 1;
// Tells the memory of items at its end: made before the transaction that changes them.
class ItemsChange {
  public:
    ItemsChange(Database& database, std::vector<ItemId> ids)
        : database_(database), ids_(std::move(ids)) {}
    ~ItemsChange();
    ItemsChange(const ItemsChange&) = delete;
    ItemsChange& operator=(const ItemsChange&) = delete;
    void add(const ItemId& id) { ids_.push_back(id); }

  private:
    Database& database_;
    std::vector<ItemId> ids_;
};

uint32_t key_of_ledger(const std::string& ledger);  // two may share one: they take turns then

// Runs `function(session)` in one transaction; commits when it returns ok, rolls back otherwise.
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_keyed_transaction(Database& database, uint32_t key,
                                                                 std::string_view what,
                                                                 Function&& function) {
    Database::Impl& db = database.impl();
    SqlSessions::Lease lease(db.writers);
    SqlSession& sql = lease.session();
    const auto before = db.backend->changes(sql.raw());
    try {
        if (Status begun = db.begin(sql, key); !begun) {
            db.roll_back(sql);
            return tl::unexpected(std::move(begun).error());
        }
        auto result = function(sql);
        if (!result) {
            db.roll_back(sql);
            return result;
        }
        sql << "COMMIT";
        db.wrote({}, !before || before != db.backend->changes(sql.raw()));
        return result;
    } catch (const std::exception& thrown) {
        db.unsure = true;
        Error error = db.error_of(thrown, what);
        db.roll_back(sql);
        db.wrote(error, false);
        return fail(std::move(error));
    }
}
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_transaction(Database& database,
                                                           std::string_view what,
                                                           Function&& function) {
    return in_keyed_transaction(database, kWholeDatabase, what, std::forward<Function>(function));
}

// As in_transaction(), for one that changes nothing but the ledger `ledger`.
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_transaction_of(Database& database,
                                                              const std::string& ledger,
                                                              std::string_view what,
                                                              Function&& function) {
    return in_keyed_transaction(database, key_of_ledger(ledger), what,
                                std::forward<Function>(function));
}

// Runs `function(session)` on a reading session: a consistent snapshot, no writes.
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_snapshot(Database& database, std::string_view what,
                                                        Function&& function) {
    Database::Impl& db = database.impl();
    SqlSessions::Lease lease(db.readers);
    SqlSession& sql = lease.session();
    try {
        db.begin_reading(sql);
        auto result = function(sql);
        db.roll_back(sql);
        return result;
    } catch (const std::exception& thrown) {
        Error error = db.error_of(thrown, what);
        db.roll_back(sql);
        return fail(std::move(error));
    }
}

// As in_snapshot(), for a function that runs one statement and no more: that sees a snapshot by
// itself, for one way to the server instead of three. Run again when the server turns out to have
// gone.
template <typename Function>
std::invoke_result_t<Function, SqlSession&> in_one_read(Database& database, std::string_view what,
                                                        Function&& function) {
    Database::Impl& db = database.impl();
    SqlSessions::Lease lease(db.readers);
    SqlSession& sql = lease.session();
    try {
        db.make_ready(sql, true);
        try {
            return function(sql);
        } catch (const std::exception&) {
            if (db.backend->is_alive(sql.raw())) throw;
        }
        db.make_ready(sql, true);
        return function(sql);
    } catch (const std::exception& thrown) {
        return fail(db.error_of(thrown, what));
    }
}

// How our types stand in columns. SQLite's integers are signed; no counter of ours gets near 2^63,
// only "no limit" does.
template <typename T>
requires(std::is_integral_v<T> || std::is_enum_v<T>) long long to_column(T v) {
    if constexpr (std::is_same_v<T, uint64_t>)
        return static_cast<long long>(std::min<uint64_t>(v, INT64_MAX));
    else
        return static_cast<long long>(v);
}
template <typename Tag>
long long to_column(Counter<Tag> counter) {
    return to_column(counter.v);
}
inline long long to_column(TimePoint time) { return time.us; }
// Throws std::invalid_argument (kInvalidArgument): PostgreSQL's text ends at a null character.
std::string to_column(std::string_view text);
inline std::string to_column(const std::string& text) { return to_column(std::string_view(text)); }
inline std::string to_column(const char* text) { return text; }
template <typename Tag>
std::string to_column(const Id<Tag>& id) {
    return id.to_string();
}
inline std::string to_column(const Digest& digest) { return to_hex(digest); }
inline uint64_t from_column(long long v) { return static_cast<uint64_t>(v); }

std::string upsert_text(std::string_view table, std::string_view keys, std::string_view columns);

// Runs one statement that gives no rows, with its parameters in order; returns how many it changed.
template <typename... Args>
long long execute(SqlSession& sql, std::string_view text, const Args&... args) {
    const auto values = std::make_tuple(to_column(args)...);
    return sql.statements().with<std::tuple<>>(sql.raw(), text, values,
                                               [](auto& statement) { return statement.execute(); });
}

// Runs a query and calls on_row(columns...) for each row. Columns is long long or std::string each.
template <typename... Columns, typename OnRow, typename... Args>
void select(SqlSession& sql, std::string_view text, OnRow&& on_row, const Args&... args) {
    const auto values = std::make_tuple(to_column(args)...);
    sql.statements().with<std::tuple<Columns...>>(sql.raw(), text, values, [&](auto& statement) {
        statement.fetch([&] { std::apply(on_row, statement.row); });
    });
}

// Inserts a row with its columns in order, or replaces what the one with the same keys has. `keys`
// and `columns`: names with ", " between.
template <typename... Args>
void upsert(SqlSession& sql, std::string_view table, std::string_view keys,
            std::string_view columns, const Args&... args) {
    execute(sql, upsert_text(table, keys, columns), args...);
}

// The id that an INSERT … RETURNING id has given its row.
template <typename... Args>
uint64_t insert_returning(SqlSession& sql, std::string_view text, const Args&... args) {
    uint64_t id = 0;
    select<long long>(
        sql, text, [&](long long given) { id = from_column(given); }, args...);
    return id;
}

// Column text that we wrote ourselves: what does not parse is a damaged database.
inline Result<ItemId> item_id_column(const std::string& text) {
    auto id = ItemId::parse(text);
    if (!id) return fail(Code::kCorrupt, "the database holds an item id that is none");
    return id;
}
inline Result<Digest> digest_column(const std::string& text) {
    auto bytes = from_hex(text);
    Digest digest{};
    if (!bytes || bytes->size() != digest.size())
        return fail(Code::kCorrupt, "the database holds a digest that is none");
    std::copy(bytes->begin(), bytes->end(), digest.begin());
    return digest;
}

}  // namespace farshore
