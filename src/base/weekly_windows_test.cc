#include "base/weekly_windows.h"

#include <absl/time/civil_time.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <fmt/core.h>

namespace farshore {
namespace {

WeeklyWindows windows(const std::string& text, const char* zone = "UTC") {
    auto parsed = WeeklyWindows::parse(text, zone);
    EXPECT_TRUE(parsed) << text << ": " << parsed.error().to_string();
    return parsed.value_or(WeeklyWindows());
}

TimePoint at(const char* text) {
    auto time = from_rfc3339(text);
    EXPECT_TRUE(time) << text;
    return time.value_or(TimePoint{});
}

std::string told(std::optional<TimePoint> time) { return time ? to_rfc3339(*time) : "none"; }

// Broken if a night that was asked for ended at midnight, or began on the wrong day.
TEST(WeeklyWindows, GoOverMidnightAndTheEndOfTheWeek) {
    const auto night = windows("Mon-Fri 20:00-06:00");  // 2026-01-05 is a Monday
    EXPECT_FALSE(night.contains(at("2026-01-05T05:59:59Z")));
    EXPECT_TRUE(night.contains(at("2026-01-05T20:00:00Z")));
    EXPECT_TRUE(night.contains(at("2026-01-06T05:59:59.999999Z")));
    EXPECT_FALSE(night.contains(at("2026-01-06T06:00:00Z")));
    EXPECT_TRUE(night.contains(at("2026-01-10T05:00:00Z")));   // Friday's
    EXPECT_FALSE(night.contains(at("2026-01-10T20:00:00Z")));  // Saturday has none
    const auto sunday = windows("sunday 22:00-02:00");
    EXPECT_TRUE(sunday.contains(at("2026-01-05T01:00:00Z")));
    EXPECT_EQ(told(sunday.next_change(at("2026-01-04T23:00:00Z"))), "2026-01-05T02:00:00.000000Z");
    // From one window into the next without an end between them.
    const auto both = windows("Sun 12:00-24:00, Mon 00:00-03:00");
    EXPECT_EQ(told(both.next_change(at("2026-01-04T13:00:00Z"))), "2026-01-05T03:00:00.000000Z");
    EXPECT_EQ(told(both.next_opening(at("2026-01-05T03:00:00Z"))), "2026-01-11T12:00:00.000000Z");
    EXPECT_EQ(told(both.next_opening(at("2026-01-04T13:00:00.5Z"))), "2026-01-04T13:00:00.500000Z");
}

TEST(WeeklyWindows, AreOfTheirZone) {
    const auto berlin = windows("08:00-18:00 Europe/Berlin", "Asia/Tokyo");
    EXPECT_EQ(berlin.zone(), "Europe/Berlin");
    EXPECT_EQ(told(berlin.next_opening(at("2026-01-05T00:00:00Z"))), "2026-01-05T07:00:00.000000Z");
    EXPECT_EQ(told(berlin.next_opening(at("2026-07-06T00:00:00Z"))), "2026-07-06T06:00:00.000000Z");
    EXPECT_EQ(windows("08:00-18:00", "Asia/Tokyo").zone(), "Asia/Tokyo");
}

// 2026-03-29, 02:00 is 03:00 in Berlin; 2026-10-25, 03:00 is 02:00 again. Broken if a night with a
// changed clock had a window too many, or one that never closes.
TEST(WeeklyWindows, FollowTheClockOnTheWallOverDaylightSaving) {
    const auto skipped = windows("Sun 02:15-02:45 Europe/Berlin");
    EXPECT_EQ(told(skipped.next_opening(at("2026-03-28T12:00:00Z"))),
              "2026-04-05T00:15:00.000000Z");
    const auto into = windows("Sun 02:30-05:00 Europe/Berlin");
    EXPECT_EQ(told(into.next_opening(at("2026-03-28T12:00:00Z"))), "2026-03-29T01:00:00.000000Z");
    EXPECT_EQ(told(into.next_change(at("2026-03-29T01:00:00Z"))), "2026-03-29T03:00:00.000000Z");
    const auto twice = windows("Sun 02:15-02:45 Europe/Berlin");
    EXPECT_EQ(told(twice.next_opening(at("2026-10-24T12:00:00Z"))), "2026-10-25T00:15:00.000000Z");
    EXPECT_EQ(told(twice.next_change(at("2026-10-25T00:15:00Z"))), "2026-10-25T00:45:00.000000Z");
    EXPECT_EQ(told(twice.next_opening(at("2026-10-25T00:45:00Z"))), "2026-10-25T01:15:00.000000Z");
    const auto until = windows("Sun 00:00-02:30 Europe/Berlin");
    EXPECT_EQ(told(until.next_change(at("2026-10-25T00:35:00Z"))), "2026-10-25T01:00:00.000000Z");
}

TEST(WeeklyWindows, AlwaysIsNeverOtherwise) {
    for (const char* text : {"00:00-24:00", "Mon-Wed 00:00-24:00, thu-sun 00:00-24:00",
                             "Tue-Mon 00:00-24:00", "00:00-12:00, 11:00-24:00"}) {
        const auto always = windows(text);
        EXPECT_TRUE(always.always_open()) << text;
        EXPECT_EQ(always.next_change(at("2026-01-05T00:00:00Z")), std::nullopt) << text;
    }
    EXPECT_FALSE(windows("00:00-23:59").always_open());
}

// Broken if what never opens were taken, or a mistake were guessed at.
TEST(WeeklyWindows, RefuseWhatIsNoWindow) {
    struct Case {
        const char* text;
        const char* words;
    };
    for (const Case& c :
         {Case{"", "empty"}, Case{" , ", "empty"}, Case{"Mon", "no start and end"},
          Case{"Mon 20:00-20:00", "never open"}, Case{"Mon 24:00-02:00", "the day is over"},
          Case{"Mon 20:00", "not a start"}, Case{"Mon 8:00-9:00", "not a start"},
          Case{"Mon 20:00-24:01", "not a start"}, Case{"Mon 20:60-21:00", "not a start"},
          Case{"Mo 20:00-21:00", "not a day"}, Case{"Mon-Foo 20:00-21:00", "not a day"},
          Case{"Mon 20:00-21:00 Tue 20:00-21:00", "is due"},
          Case{"Mon 20:00-21:00 Europe/Nowhere", "no time zone"},
          Case{"Mon 20:00-21:00 ../../etc/passwd", "no time zone"},
          Case{"Mon 20:00-21:00 /etc/localtime", "no time zone"},
          Case{"Mon 20:00-21:00 localtime", "no time zone"}, Case{"Mon 20:00-21:00,", "empty"},
          Case{"Europe/Berlin", "not a day"}}) {
        auto parsed = WeeklyWindows::parse(c.text, "UTC");
        ASSERT_FALSE(parsed) << c.text;
        EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
        EXPECT_NE(parsed.error().what().find(c.words), std::string::npos)
            << c.text << ": " << parsed.error().what();
        EXPECT_FALSE(parsed.error().remedy().empty());
    }
    EXPECT_FALSE(WeeklyWindows::parse("00:00-01:00", "Nowhere"));
    EXPECT_FALSE(WeeklyWindows::parse(std::string(kMaxWindowsBytes + 1, ' '), "UTC"));
    std::string many = "00:00-00:01";
    for (size_t i = 0; i < kMaxWindows; ++i) many += ",00:00-00:01";
    EXPECT_FALSE(WeeklyWindows::parse(many, "UTC"));
}

// ---- against a model that looks at every minute

struct Plain {
    int day, from, to;  // minutes of the day
};

bool plain_contains(const std::vector<Plain>& all, const absl::TimeZone& zone, TimePoint time) {
    const auto civil = zone.At(absl::FromUnixMicros(time.us)).cs;
    const int day = static_cast<int>(absl::GetWeekday(absl::CivilDay(civil)));  // Monday is 0
    const int minute = civil.hour() * 60 + civil.minute();
    for (const Plain& one : all) {
        if (one.to > one.from && day == one.day && minute >= one.from && minute < one.to)
            return true;
        if (one.to <= one.from && day == one.day && minute >= one.from) return true;
        if (one.to <= one.from && day == (one.day + 1) % 7 && minute < one.to) return true;
    }
    return false;
}

// Broken if any window in any zone, on any day of any year, opened at another minute than the
// clock on the wall says.
TEST(WeeklyWindows, AreWhatLookingAtEveryMinuteFinds) {
    static const char* const kDays[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
    static const char* const kZones[] = {"UTC",
                                         "Europe/Berlin",
                                         "America/New_York",
                                         "Asia/Kolkata",
                                         "Pacific/Apia",
                                         "Australia/Lord_Howe",
                                         "Africa/Cairo",
                                         "Asia/Kathmandu",
                                         "America/St_Johns",
                                         "Pacific/Auckland"};
    EXPECT_TRUE(rc::check([] {
        const auto zone_name =
            *rc::gen::elementOf(std::vector<std::string>(std::begin(kZones), std::end(kZones)));
        absl::TimeZone zone;
        RC_ASSERT(absl::LoadTimeZone(zone_name, &zone));
        const auto plain = *rc::gen::nonEmpty(rc::gen::resize(
            6, rc::gen::container<std::vector<Plain>>(rc::gen::apply(
                   [](int day, int from, int to) {
                       return Plain{day, from, to};
                   },
                   rc::gen::inRange(0, 7), rc::gen::inRange(0, 1440), rc::gen::inRange(0, 1440)))));
        std::string text;
        for (const Plain& one : plain) {
            RC_PRE(one.from != one.to);
            text +=
                fmt::format("{}{} {:02}:{:02}-{:02}:{:02}", text.empty() ? "" : ", ",
                            kDays[one.day], one.from / 60, one.from % 60, one.to / 60, one.to % 60);
        }
        const auto parsed = WeeklyWindows::parse(text, zone_name);
        RC_ASSERT(parsed);
        // Often near a change of the clocks.
        int64_t minute = *rc::gen::inRange<int64_t>(20'000'000, 33'000'000);
        absl::TimeZone::CivilTransition shift;
        if (*rc::gen::arbitrary<bool>() &&
            zone.NextTransition(absl::FromUnixSeconds(minute * 60), &shift))
            minute = absl::ToUnixSeconds(zone.At(shift.to).trans) / 60 -
                     *rc::gen::inRange<int64_t>(0, 1440);
        const TimePoint start{minute * 60'000'000 + *rc::gen::inRange<int64_t>(0, 60'000'000)};
        const bool open = plain_contains(plain, zone, start);
        RC_ASSERT(parsed->contains(start) == open);
        std::optional<TimePoint> expected;
        for (int64_t next = minute + 1; next <= minute + 15 * 1440 && !expected; ++next)
            if (plain_contains(plain, zone, {next * 60'000'000}) != open)
                expected = TimePoint{next * 60'000'000};
        const auto found = parsed->next_change(start);
        RC_ASSERT(told(found) == told(expected));
        RC_ASSERT(told(parsed->next_opening(start)) == told(open ? start : expected));
    }));
}

}  // namespace
}  // namespace farshore
