#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "cli/environment.h"
#include "cli/plan_prices.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "os/test_paths.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;

// A machine whose disk writes so many sectors with each slot.
struct Machine {
    std::map<std::string, std::string> files;
    std::vector<uint64_t> sectors;
    size_t slot = 0;
    size_t interrupted_at = SIZE_MAX;
    uint64_t written = 1000;
    std::ostringstream out, err;

    int run(std::vector<const char*> words) {
        words.insert(words.begin(), "farshore");
        out.str("");
        err.str("");
        CliEnvironment environment;
        environment.out = &out;
        environment.err = &err;
        environment.variable = [](const std::string&) { return std::string(); };
        environment.read_file = [this](const std::string& path) -> Result<std::string> {
            if (path == "/sys/class/block/vda/size") return "2048\n";
            if (path == "/sys/class/block/vda/stat")
                return " 1 2 3 4 5 6 " + std::to_string(written) + " 8 9\n";
            if (!files.contains(path)) return fail(Code::kNotFound, path);
            return files[path];
        };
        environment.keep_secret = [this](const std::string& path, const std::string& text) {
            files[path] = text;
            return Status{};
        };
        environment.pause = [this](int64_t) {
            if (slot == interrupted_at) return true;
            written += sectors.at(slot++);
            return false;
        };
        environment.connect = [](const ServerLocation&) -> Result<std::unique_ptr<ApiTransport>> {
            return fail(Code::kUnavailable, "there is no vault");
        };
        return run_cli(environment, static_cast<int>(words.size()), words.data());
    }
};

// Broken if a machine without a vault could not be planned for, in the numbers of its kernel.
TEST(PlanVerbs, AMachineIsMeasuredAndPlannedForWithoutAVault) {
    Machine machine;
    machine.sectors = {0, 2000, 4000, 2000};
    ASSERT_EQ(machine.run({"plan", "measure", "--disk", "/dev/vda", "--for", "40s", "--interval",
                           "10s", "--output", "/m.json"}),
              0)
        << machine.err.str();
    EXPECT_THAT(machine.files["/m.json"],
                HasSubstr("\"written_bytes\":[0,1024000,2048000,1024000]"));
    TestDirectory directory;
    PosixFileSystem files;
    ASSERT_TRUE(
        write_file_durably(files, directory / "m.json", as_bytes(machine.files["/m.json"])));
    machine.files["/p.toml"] = "currency = 'EUR'\nput-1000 = \"1000\"\n";
    const std::string file = directory / "m.json";
    ASSERT_EQ(machine.run({"plan", "--measured", file.c_str(), "--rpo", "12s", "--outage", "20s",
                           "--bandwidth", "1MB/s", "--prices", "/p.toml", "--explain"}),
              0)
        << machine.err.str();
    const std::string said = machine.out.str();
    EXPECT_THAT(said, HasSubstr("Line to the store for an RPO of 12 s"));
    EXPECT_THAT(said, HasSubstr("RPO held in 100.0 % of the time"));
    EXPECT_THAT(said, HasSubstr("EUR"));
    EXPECT_THAT(said, HasSubstr("seen: 4 slots of 10 s, 4.1 MB written in them"));
    // The worst 20 seconds: 2 048 000 + 1 024 000 bytes.
    EXPECT_THAT(said, HasSubstr("3.1 MB in the worst"));
}

// Broken if what was measured before somebody had enough of it were lost.
TEST(PlanVerbs, WhatWasMeasuredBeforeAnInterruptionCounts) {
    Machine machine;
    machine.sectors = {2, 2, 2, 2};
    machine.interrupted_at = 2;
    ASSERT_EQ(
        machine.run({"plan", "measure", "--disk", "vda", "--for", "40s", "--interval", "10s"}), 0);
    EXPECT_THAT(machine.out.str(), HasSubstr("\"written_bytes\":[1024,1024]"));
    machine.interrupted_at = 0;
    machine.slot = 0;
    EXPECT_EQ(machine.run({"plan", "measure", "--disk", "vda", "--for", "40s"}), 75);
}

// Broken if a wrong name were read as a path, or a wrong option were not told.
TEST(PlanVerbs, WhatIsWrongIsTold) {
    Machine machine;
    EXPECT_EQ(machine.run({"plan", "measure", "--disk", "/dev/mapper/x"}), 64);
    EXPECT_EQ(machine.run({"plan", "measure", "--disk", "../vda"}), 64);
    EXPECT_EQ(machine.run({"plan", "measure", "--disk", "/dev/none"}), 66);
    EXPECT_EQ(machine.run({"plan", "measure", "--disk", "vda", "--for", "1s", "--interval", "5s"}),
              64);
    EXPECT_EQ(machine.run({"plan", "--bandwidth", "5MB/s Mon 08:00-09:00"}), 64);
    EXPECT_EQ(machine.run({"plan", "web", "--measured", "x"}), 64);
    EXPECT_EQ(machine.run({"plan", "--stored", "0.5"}), 64) << "an item's is measured";
    EXPECT_EQ(machine.run({"plan", "web", "--server", "https://v:1", "--token-file", "/t"}), 69)
        << machine.err.str();
}

// Broken if a price were taken for another, or a comma for a point.
TEST(PlanVerbs, PricesAreReadOrRefused) {
    const auto prices = parse_prices(
        "currency = 'EUR'\nstorage-gb-month = '0.5'\nput-1000 = 2\nget-1000 = '3'\n"
        "head-1000 = '4'\nlist-1000 = '5'\negress-gb = '0.25'\n",
        "p");
    ASSERT_TRUE(prices) << prices.error().to_string();
    EXPECT_EQ(prices->currency, "EUR");
    EXPECT_EQ(prices->storage_gb_month, 0.5);
    EXPECT_EQ(prices->put_1000, 2);
    EXPECT_EQ(prices->get_1000, 3);
    EXPECT_EQ(prices->head_1000, 4);
    EXPECT_EQ(prices->list_1000, 5);
    EXPECT_EQ(prices->egress_gb, 0.25);
    EXPECT_EQ(parse_prices("", "p")->put_1000, 0);
    for (const char* wrong :
         {"put-1000 = '0,5'", "put-1000 = '-1'", "put-1000 = 'nan'", "put-1000 = true", "put = '1'",
          "currency = 5", "put-1000 = '99999999999'", "put-1000 = ['1']"}) {
        const auto refused = parse_prices(std::string("\n") + wrong + "\n", "p");
        ASSERT_FALSE(refused) << wrong;
        EXPECT_TRUE(refused.error().what().starts_with("p:2:")) << refused.error().what();
    }
}

// Broken if the sample that people begin with were refused, or invented a price.
TEST(PlanVerbs, TheSampleHasNoPrices) {
    PosixFileSystem files;
    const auto text =
        read_whole_file(files, test_source_directory() + "/packaging/config/prices.toml");
    ASSERT_TRUE(text);
    const auto prices = parse_prices(as_text(*text), "sample");
    ASSERT_TRUE(prices) << prices.error().to_string();
    EXPECT_EQ(prices->storage_gb_month + prices->put_1000 + prices->get_1000 + prices->head_1000 +
                  prices->list_1000 + prices->egress_gb,
              0);
}

}  // namespace
}  // namespace farshore
