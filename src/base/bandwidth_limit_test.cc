#include "base/bandwidth_limit.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

BandwidthLimit limit(const std::string& text) {
    auto parsed = BandwidthLimit::parse(text, "UTC");
    EXPECT_TRUE(parsed) << text << ": " << parsed.error().to_string();
    return parsed.value_or(BandwidthLimit());
}

TimePoint at(const char* text) {
    auto time = from_rfc3339(text);
    EXPECT_TRUE(time) << text;
    return time.value_or(TimePoint{});
}

// Broken if another part than the first that is open counted, or its end were missed.
TEST(BandwidthLimit, TheFirstPartThatIsOpenCounts) {
    const auto office = limit(
        "20MB/s Mon-Fri 08:00-18:00 Europe/Berlin; paused Mon-Fri 17:00-19:00 Europe/Berlin; "
        "200MB/s");
    EXPECT_EQ(office.at(at("2026-01-05T06:59:59Z")), 200'000'000u);
    EXPECT_EQ(office.at(at("2026-01-05T07:00:00Z")), 20'000'000u);
    EXPECT_EQ(office.at(at("2026-01-05T16:30:00Z")), 20'000'000u);
    EXPECT_EQ(office.at(at("2026-01-05T17:30:00Z")), 0u);
    EXPECT_EQ(office.next_change(at("2026-01-05T07:00:00Z")), at("2026-01-05T17:00:00Z"));
    EXPECT_EQ(office.next_change(at("2026-01-05T17:00:00Z")), at("2026-01-05T18:00:00Z"));
    EXPECT_EQ(office.next_change(at("2026-01-09T18:00:00Z")), at("2026-01-12T07:00:00Z"));
}

TEST(BandwidthLimit, WithoutAPartThatCountsThereIsNone) {
    EXPECT_EQ(limit("").at({0}), kUnlimited);
    EXPECT_EQ(limit("  ").at({0}), kUnlimited);
    EXPECT_EQ(limit("1MB/s 08:00-09:00").at({0}), kUnlimited);
    EXPECT_EQ(limit("unlimited").next_change({0}), std::nullopt);
    EXPECT_EQ(limit("1MB/s").next_change({0}), std::nullopt);
}

TEST(BandwidthLimit, ReadsEveryUnit) {
    EXPECT_EQ(limit("10000B").at({0}), 10'000u);
    EXPECT_EQ(limit("1.5MB/s").at({0}), 1'500'000u);
    EXPECT_EQ(limit("16KiB/s").at({0}), 16'384u);
    EXPECT_EQ(limit("1GiB").at({0}), 1u << 30);
    EXPECT_EQ(limit("100Mbit/s").at({0}), 12'500'000u);
    EXPECT_EQ(rate_text(12'500'000), "12.5 MB/s");
    EXPECT_EQ(rate_text(0), "paused");
    EXPECT_EQ(rate_text(kUnlimited), "unlimited");
}

// Broken if a limit with which nothing is ever sent were taken, or a mistake were guessed at.
TEST(BandwidthLimit, RefusesWhatNeverSendsAndWhatIsNoLimit) {
    struct Case {
        const char* text;
        const char* words;
    };
    for (const Case& c :
         {Case{"0", "never send"},
          Case{"0MB/s", "never send"},
          Case{"paused", "every time"},
          Case{"paused 00:00-24:00; 1MB/s", "every time"},
          Case{"paused Mon-Wed 00:00-24:00, Thu-Sun 00:00-24:00; 1MB/s", "every time"},
          Case{"paused 08:00-20:00; paused", "every time"},
          Case{"never", "not a rate"},
          Case{"-1MB/s", "not a rate"},
          Case{"1..5MB/s", "not a rate"},
          Case{"5", "no unit"},
          Case{"5 MB/s", "no unit"},
          Case{"5mb/s", "no unit"},
          Case{"1kB/s", "out of range"},
          Case{"999999999999GB/s", "out of range"},
          Case{"1MB/s; 2MB/s", "only the last"},
          Case{"1MB/s;", "empty"},
          Case{";", "empty"},
          Case{"1MB/s Foo 08:00-09:00", "not a day"},
          Case{"1MB/s 08:00-08:00", "never open"},
          Case{"1MB/s 08:00-09:00 Mars/Base", "no time"}}) {
        auto parsed = BandwidthLimit::parse(c.text, "UTC");
        ASSERT_FALSE(parsed) << c.text;
        EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
        EXPECT_NE(parsed.error().what().find(c.words), std::string::npos)
            << c.text << ": " << parsed.error().what();
        EXPECT_FALSE(parsed.error().remedy().empty());
    }
    // Something is sent for one minute of the week.
    EXPECT_EQ(limit("1MB/s Sun 03:00-03:01; paused").at(at("2026-01-04T03:00:30Z")), 1'000'000u);
}

}  // namespace
}  // namespace farshore
