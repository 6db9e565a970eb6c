#include "plan/measured.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

Measured some() {
    Measured measured;
    measured.host = "db1";
    measured.started.us = 1'700'000'000'000'000;
    measured.disks = {{"/dev/vda", 10'000'000'000}, {"/dev/vdb", 1'000'000}};
    measured.churn = {1'000'000, {0, 4096, 1'000'000}};
    return measured;
}

// Broken if what one machine measured were read as something else on another.
TEST(Measured, IsReadAsItWasWritten) {
    const auto read = parse_measured(format_measured(some()));
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(read->host, "db1");
    EXPECT_EQ(read->started.us, some().started.us);
    EXPECT_EQ(read->churn.interval_us, 1'000'000);
    EXPECT_EQ(read->churn.bytes, some().churn.bytes);
    ASSERT_EQ(read->disks.size(), 2u);
    EXPECT_EQ(read->disks[0].size_bytes, 10'000'000'000u);
    const PlanInput input = plan_input(*read, 0.5, 3'600'000'000, {});
    EXPECT_EQ(input.items[0].seen.live_bytes, 10'001'000'000u);
    EXPECT_EQ(input.items[0].seen.written_bytes, 1'004'096u);
    EXPECT_TRUE(make_plan(input, {}));
}

// Broken if a file that is wrong gave a plan, or did not say where it is wrong.
TEST(Measured, WhatIsWrongIsNamed) {
    const std::string good = format_measured(some());
    const auto with = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        text.replace(text.find(from), from.size(), to);
        const auto read = parse_measured(text);
        return read ? std::string() : read.error().to_string();
    };
    EXPECT_NE(with("[0,4096", "[-1,4096").find("'written_bytes'"), std::string::npos);
    EXPECT_NE(with("[0,4096,1000000]", "[]").find("'written_bytes'"), std::string::npos);
    EXPECT_NE(with("1000000}", "1e3}").find("'size_bytes'"), std::string::npos);
    EXPECT_NE(with("\"interval_us\":1000000", "\"interval_us\":0").find("'interval_us'"),
              std::string::npos);
    EXPECT_NE(with("2023", "then").find("'started'"), std::string::npos);
    EXPECT_NE(with("measured-1", "measured-2").find("newer-version"), std::string::npos);
    EXPECT_NE(with("{", "[").find("malformed"), std::string::npos);
    EXPECT_EQ(parse_measured(std::string(kMaxMeasuredBytes + 1, ' ')).error().code(),
              Code::kTooLarge);
}

// Broken if another number of the kernel's were taken for what is written.
TEST(Measured, TheKernelsNumbersAreInSectors) {
    EXPECT_EQ(*parse_written("  11 12 13 14  15 16 17 18 19 20 21 22 23 24 25 26 27\n"), 17u * 512);
    EXPECT_FALSE(parse_written("1 2 3 4 5 6\n"));
    EXPECT_FALSE(parse_written("1 2 3 4 5 6 x 8\n"));
    EXPECT_FALSE(parse_written("1 2 3 4 5 6 18446744073709551615 8\n"));
    EXPECT_EQ(*parse_disk_size("2048\n"), 1u << 20);
    EXPECT_FALSE(parse_disk_size(""));
}

}  // namespace
}  // namespace farshore
