#include "meta/copy_database.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <deque>
#include <string>
#include <vector>

#include "meta/sql.h"

namespace farshore {
namespace {

// Others refer to their rows.
constexpr std::array<std::string_view, 7> kFirst{
    "settings", "items", "jobs", "ledgers", "stores", "replication_groups", "shared_points"};

struct Column {
    std::string name;
    bool is_text = false;
};

// All tables of the schema, each behind those that its rows refer to.
std::vector<std::string> tables_of(SqlSession& sqlite) {
    std::vector<std::string> tables;
    select<std::string>(sqlite,
                        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE "
                        "'sqlite_%' AND name != 'schema_migrations' ORDER BY name",
                        [&](const std::string& name) { tables.push_back(name); });
    const auto place = [](const std::string& name) { return std::ranges::find(kFirst, name); };
    std::ranges::stable_sort(
        tables, [&](const std::string& a, const std::string& b) { return place(a) < place(b); });
    return tables;
}

std::vector<Column> columns_of(SqlSession& sqlite, const std::string& table) {
    std::vector<Column> columns;
    select<std::string, std::string>(
        sqlite, "SELECT name, type FROM pragma_table_info(:t) ORDER BY cid",
        [&](const std::string& name, const std::string& type) {
            columns.push_back({name, type == "TEXT"});
        },
        table);
    return columns;
}

uint64_t copy_table(SqlSession& from, SqlSession& to, const std::string& table) {
    const std::vector<Column> columns = columns_of(from, table);
    std::string names, places;
    // Of one row; bound to both statements, so they stay where they are.
    std::deque<std::string> texts;
    std::deque<long long> numbers;
    soci::statement read(from.raw()), write(to.raw());
    for (const Column& column : columns) {
        names += (names.empty() ? "" : ", ") + column.name;
        places += (places.empty() ? ":" : ", :") + column.name;
        if (column.is_text) {
            read.exchange(soci::into(texts.emplace_back()));
            write.exchange(soci::use(texts.back()));
        } else {
            read.exchange(soci::into(numbers.emplace_back()));
            write.exchange(soci::use(numbers.back()));
        }
    }
    read.alloc();
    read.prepare(fmt::format("SELECT {} FROM {}", names, table));
    read.define_and_bind();
    write.alloc();
    write.prepare(fmt::format("INSERT INTO {} ({}) VALUES ({})", table, names, places));
    write.define_and_bind();
    uint64_t rows = 0;
    read.execute(false);
    while (read.fetch()) {
        for (const std::string& text : texts) (void)to_column(text);
        write.execute(true);
        ++rows;
    }
    const bool counts = std::ranges::any_of(
        columns, [](const Column& column) { return column.name == "id" && !column.is_text; });
    if (counts)
        select<std::string>(
            to, "SELECT coalesce(pg_get_serial_sequence(:t, 'id'), '')",
            [&](const std::string& sequence) {
                if (sequence.empty()) return;
                to << fmt::format(
                    "SELECT setval('{}', (SELECT coalesce(max(id), "
                    "0) + 1 FROM {}), false)",
                    sequence, table);
            },
            table);
    return rows;
}

}  // namespace

Result<DatabaseCopy> copy_database(Database& from, Database& to) {
    if (from.is_shared() || !to.is_shared())
        return fail(Code::kUnsupported, "databases are copied from SQLite to PostgreSQL only");
    return in_snapshot(from, "copying", [&](SqlSession& source) {
        return in_transaction(to, "copying", [&](SqlSession& target) -> Result<DatabaseCopy> {
            DatabaseCopy copy;
            for (const std::string& table : tables_of(source)) {
                long long there = 0;
                select<long long>(target, "SELECT count(*) FROM " + table,
                                  [&](long long count) { there = count; });
                if (there != 0)
                    return fail(Code::kAlreadyExists,
                                fmt::format("{} holds a vault already", to.place()),
                                "give an empty database, or an empty schema");
                copy.rows += copy_table(source, target, table);
                ++copy.tables;
            }
            return copy;
        });
    });
}

}  // namespace farshore
