#include "meta/sql_session.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <functional>

#include "meta/sql.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

constexpr const char* kPut = "INSERT INTO settings (key, value) VALUES (:k, :v)";
constexpr const char* kAll = "SELECT key, value FROM settings WHERE key >= :k ORDER BY key";

std::string all_from(SqlSession& sql, const std::string& first) {
    std::string found;
    select<std::string, std::string>(
        sql, kAll,
        [&](const std::string& key, const std::string& value) { found += key + value + ' '; },
        first);
    return found;
}

Status in_test(TestDatabase& test, const std::function<void(SqlSession&)>& function) {
    return in_transaction(*test.database, "test", [&](SqlSession& sql) -> Status {
        function(sql);
        return {};
    });
}

// Broken if a kept statement had the values or the rows of the time before.
TEST(SqlStatements, AreUsedAgainWithOtherValues) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        for (const char* key : {"a", "b", "c"}) EXPECT_EQ(execute(sql, kPut, key, 1), 1);
        const size_t kept = sql.statements().size();
        EXPECT_EQ(all_from(sql, "a"), "a1 b1 c1 ");
        EXPECT_EQ(all_from(sql, "c"), "c1 ");
        EXPECT_EQ(all_from(sql, "d"), "");
        EXPECT_EQ(all_from(sql, "b"), "b1 c1 ");
        EXPECT_EQ(sql.statements().size(), kept + 1);
    }));
}

// Broken if a query within the rows of the same query took its statement away.
TEST(SqlStatements, WithinThemselvesAreOthers) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        for (const char* key : {"a", "b", "c"}) execute(sql, kPut, key, 1);
        std::string found;
        select<std::string, std::string>(
            sql, kAll,
            [&](const std::string& key, const std::string&) {
                found += key + ": " + all_from(sql, key) + "; ";
            },
            "a");
        EXPECT_EQ(found, "a: a1 b1 c1 ; b: b1 c1 ; c: c1 ; ");
        EXPECT_EQ(all_from(sql, "b"), "b1 c1 ");
    }));
}

// Broken if a statement that failed, or whose rows were left in the middle, held on to the database
// or gave its other rows to the next who asks.
TEST(SqlStatements, OnesThatThrewAreGone) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        for (const char* key : {"a", "b"}) execute(sql, kPut, key, 1);
    }));
    for (int i = 0; i < 3; ++i) {
        const Status twice = in_test(test, [&](SqlSession& sql) { execute(sql, kPut, "a", 2); });
        ASSERT_FALSE(twice);
        EXPECT_EQ(twice.error().code(), Code::kAlreadyExists);
        const Status left = in_test(test, [&](SqlSession& sql) {
            select<std::string, std::string>(
                sql, kAll,
                [](const std::string&, const std::string&) {
                    throw std::invalid_argument("enough");
                },
                "a");
        });
        ASSERT_FALSE(left);
        EXPECT_EQ(left.error().code(), Code::kInvalidArgument);
    }
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        EXPECT_EQ(execute(sql, kPut, "c", 1), 1);
        EXPECT_EQ(all_from(sql, "a"), "a1 b1 c1 ");
    }));
}

// Broken if a reader's kept statement went on seeing what there was when it was compiled.
TEST(SqlStatements, ReadersSeeWhatWasCommitted) {
    TestDatabase test;
    for (const std::string key : {"a", "b", "c"}) {
        ASSERT_TRUE(in_test(test, [&](SqlSession& sql) { execute(sql, kPut, key, 1); }));
        const auto found = in_snapshot(*test.database, "test", [&](SqlSession& sql) {
            return Result<std::string>(all_from(sql, key));
        });
        ASSERT_TRUE(found);
        EXPECT_EQ(*found, key + "1 ");
    }
}

// Broken if texts that differ each time were kept without end.
TEST(SqlStatements, AreNotKeptWithoutEnd) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        for (size_t i = 0; i < 2 * SqlStatements::kMost; ++i) {
            select<long long>(sql, fmt::format("SELECT {}", i),
                              [&](long long found) { EXPECT_EQ(found, static_cast<int>(i)); });
            EXPECT_LE(sql.statements().size(), SqlStatements::kMost);
        }
    }));
}

// Broken if a statement kept the megabytes that it was given, or had read, once.
TEST(SqlStatements, OnesWithMuchTextAreNotKept) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        const size_t kept = sql.statements().size();
        execute(sql, kPut, "a", std::string(1 << 20, 'x'));
        EXPECT_EQ(sql.statements().size(), kept);
        EXPECT_EQ(all_from(sql, "a").size(), (1u << 20) + 2);
        EXPECT_EQ(sql.statements().size(), kept);
        execute(sql, kPut, "b", 1);
        EXPECT_EQ(sql.statements().size(), kept + 1);
    }));
}

// Broken if a text with other columns than before were read into the places of those.
TEST(SqlStatements, OfOtherColumnsAreCompiledAnew) {
    TestDatabase test;
    ASSERT_TRUE(in_test(test, [&](SqlSession& sql) {
        execute(sql, kPut, "a", "7");
        constexpr const char* kOne = "SELECT value FROM settings WHERE key = :k";
        for (int i = 0; i < 2; ++i) {
            select<std::string>(
                sql, kOne, [](const std::string& value) { EXPECT_EQ(value, "7"); }, "a");
            select<long long>(
                sql, kOne, [](long long value) { EXPECT_EQ(value, 7); }, "a");
        }
    }));
}

}  // namespace
}  // namespace farshore
