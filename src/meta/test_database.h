// A database in a directory of its own, for tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

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

struct TestDatabase {
    TestDatabase() {
        char pattern[] = "/tmp/farshore-meta-XXXXXX";
        directory = ::mkdtemp(pattern);
        reopen();
    }
    ~TestDatabase() {
        database.reset();
        std::filesystem::remove_all(directory);
    }
    void reopen() {
        database.reset();
        auto opened = Database::open({path()}, clock);
        ASSERT_TRUE(opened) << opened.error().to_string();
        database = std::move(*opened);
    }
    std::string path() const { return directory + "/farshore.db"; }

    std::string directory;
    ManualClock clock;
    std::unique_ptr<Database> database;
};

}  // namespace farshore
