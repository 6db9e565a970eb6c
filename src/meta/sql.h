// What the use-case files of this folder share: transactions over the session, exceptions turned
// into errors, and the few conversions between our types and columns. Private to src/meta.
#pragma once

#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/types.h"
#include "meta/database.h"

namespace farshore {

struct Database::Impl {
    Clock* clock = nullptr;
    std::string path;
    int version = 0;
    std::mutex write_mutex;
    soci::session writer;
    std::mutex read_mutex;
    soci::session reader;
    mutable std::mutex trouble_mutex;
    std::optional<Error> trouble;

    // Rows that the writer has changed since it was opened.
    long long changes();
    // What a write ended with; none: well. One that changed nothing proves nothing.
    void wrote(std::optional<Error> error, long long changes_before);
};

// The error for what a session threw. `what` names the use case.
Error error_from_soci(const std::exception& thrown, std::string_view what);

// Ends an open transaction whatever state it is in.
void roll_back(soci::session& sql) noexcept;

// Runs `function(session)` in one transaction; commits when it returns ok, rolls back otherwise.
template <typename Function>
std::invoke_result_t<Function, soci::session&> in_transaction(Database& database,
                                                              std::string_view what,
                                                              Function&& function) {
    Database::Impl& db = database.impl();
    const std::lock_guard lock(db.write_mutex);
    const long long before = db.changes();
    try {
        db.writer << "BEGIN IMMEDIATE";
        auto result = function(db.writer);
        if (!result) {
            roll_back(db.writer);
            return result;
        }
        db.writer << "COMMIT";
        db.wrote({}, before);
        return result;
    } catch (const std::exception& thrown) {
        roll_back(db.writer);
        Error error = error_from_soci(thrown, what);
        db.wrote(error, before);
        return fail(std::move(error));
    }
}

// Runs `function(session)` on the reading session: a consistent snapshot, no writes.
template <typename Function>
std::invoke_result_t<Function, soci::session&> in_snapshot(Database& database,
                                                           std::string_view what,
                                                           Function&& function) {
    Database::Impl& db = database.impl();
    const std::lock_guard lock(db.read_mutex);
    try {
        db.reader << "BEGIN";
        auto result = function(db.reader);
        roll_back(db.reader);
        return result;
    } catch (const std::exception& thrown) {
        roll_back(db.reader);
        return fail(error_from_soci(thrown, what));
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
inline std::string to_column(std::string_view text) { return std::string(text); }
inline std::string to_column(const std::string& text) { return text; }
inline std::string to_column(const char* text) { return text; }
template <typename Tag>
std::string to_column(const Id<Tag>& id) {
    return id.to_string();
}
inline std::string to_column(const Digest& digest) { return to_hex(digest); }
inline uint64_t from_column(long long v) { return static_cast<uint64_t>(v); }

// Runs one statement with its parameters in order; returns how many rows it changed.
template <typename... Args>
long long execute(soci::session& sql, std::string_view text, const Args&... args) {
    auto values = std::make_tuple(to_column(args)...);
    return std::apply(
        [&](auto&... value) {
            soci::statement statement = (sql.prepare << std::string(text), ..., soci::use(value));
            statement.execute(true);
            return static_cast<long long>(statement.get_affected_rows());
        },
        values);
}

// Runs a query and calls on_row(columns...) for each row. Columns is long long or std::string each.
template <typename... Columns, typename OnRow, typename... Args>
void select(soci::session& sql, std::string_view text, OnRow&& on_row, const Args&... args) {
    auto values = std::make_tuple(to_column(args)...);
    std::tuple<Columns...> row;
    std::apply(
        [&](auto&... value) {
            std::apply(
                [&](auto&... column) {
                    soci::statement statement(sql);
                    (statement.exchange(soci::into(column)), ...);
                    (statement.exchange(soci::use(value)), ...);
                    statement.alloc();
                    statement.prepare(std::string(text));
                    statement.define_and_bind();
                    statement.execute(false);
                    while (statement.fetch()) on_row(column...);
                },
                row);
        },
        values);
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
