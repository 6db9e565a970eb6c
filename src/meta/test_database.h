// A database for tests: an SQLite file in a directory of its own; or, with FARSHORE_TEST_POSTGRES
// (tests/services/postgres.py), a schema of its own on that server.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "meta/database.h"

namespace farshore {

class ManualClock final : public Clock {
  public:
    TimePoint now() const override { return time; }
    int64_t steady_us() const override { return time.us; }
    TimePoint time{1'700'000'000'000'000};
};

// What tests connect to; empty: SQLite.
inline std::string test_postgres() {
    const char* given = std::getenv("FARSHORE_TEST_POSTGRES");
    return given == nullptr ? std::string() : given;
}
// Of tests about the file.
#define SKIP_ON_POSTGRES() \
    if (!test_postgres().empty()) GTEST_SKIP() << "this is about SQLite's file"

// A connection string for a schema that is made for it, named by the last part of `directory`.
inline std::string test_schema(const std::string& directory) {
    const std::string server = test_postgres();
    if (server.empty()) return {};
    std::string name = "t_";
    for (const char c : directory.substr(directory.rfind('-') + 1))
        name += std::to_string(static_cast<unsigned char>(c));
    const std::string command = "psql -q -v ON_ERROR_STOP=1 -d '" + server +
                                "' -c 'CREATE SCHEMA IF NOT EXISTS " + name + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return server + " options='-c search_path=" + name + "'";
}

struct TestDatabase {
    TestDatabase() {
        char pattern[] = "/tmp/farshore-meta-XXXXXX";
        directory = ::mkdtemp(pattern);
        postgresql = test_schema(directory);
        reopen();
    }
    ~TestDatabase() {
        database.reset();
        std::filesystem::remove_all(directory);
    }
    DatabaseOptions options() const { return {.path = path(), .postgresql = postgresql}; }
    void reopen() {
        database.reset();
        auto opened = Database::open(options(), clock);
        ASSERT_TRUE(opened) << opened.error().to_string();
        database = std::move(*opened);
    }
    std::string path() const { return directory + "/farshore.db"; }

    std::string directory, postgresql;
    ManualClock clock;
    std::unique_ptr<Database> database;
};

}  // namespace farshore
