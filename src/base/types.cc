#include "base/types.h"

#include <fmt/core.h>

#include <charconv>

namespace farshore {
namespace {

using std::chrono::days;
using std::chrono::sys_days;

constexpr int64_t kUsPerSecond = 1'000'000;
constexpr int64_t kUsPerDay = 86'400 * kUsPerSecond;

// `width` decimal digits at `at`, or -1.
int digits(std::string_view text, size_t at, size_t width) {
    if (at + width > text.size()) return -1;
    int value = 0;
    for (size_t i = at; i < at + width; ++i) {
        if (text[i] < '0' || text[i] > '9') return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

}  // namespace

std::string to_rfc3339(TimePoint time) {
    int64_t day = time.us / kUsPerDay;
    int64_t in_day = time.us % kUsPerDay;
    if (in_day < 0) {
        in_day += kUsPerDay;
        --day;
    }
    const std::chrono::year_month_day date{sys_days{days{day}}};
    const int64_t seconds = in_day / kUsPerSecond;
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", static_cast<int>(date.year()),
                       static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                       seconds / 3600, seconds / 60 % 60, seconds % 60, in_day % kUsPerSecond);
}

Result<TimePoint> from_rfc3339(std::string_view text) {
    const auto bad = [&] {
        return fail(Code::kMalformed,
                    fmt::format("'{}' is not an RFC 3339 time", text.substr(0, 64)),
                    "write it like 2026-01-31T08:00:00Z or 2026-01-31T09:00:00.250+01:00");
    };
    const int year = digits(text, 0, 4), month = digits(text, 5, 2), day = digits(text, 8, 2);
    const int hour = digits(text, 11, 2), minute = digits(text, 14, 2),
              second = digits(text, 17, 2);
    if (text.size() < 20 || year < 0 || month < 0 || day < 0 || hour < 0 || minute < 0 ||
        second < 0 || text[4] != '-' || text[7] != '-' ||
        (text[10] != 'T' && text[10] != 't' && text[10] != ' ') || text[13] != ':' ||
        text[16] != ':' || hour > 23 || minute > 59 || second > 60)
        return bad();
    const std::chrono::year_month_day date{std::chrono::year{year},
                                           std::chrono::month{static_cast<unsigned>(month)},
                                           std::chrono::day{static_cast<unsigned>(day)}};
    if (!date.ok()) return bad();
    size_t at = 19;
    int64_t fraction_us = 0;
    if (text[at] == '.') {
        size_t end = ++at;
        int64_t scale = 100'000;
        for (; end < text.size() && text[end] >= '0' && text[end] <= '9'; ++end) {
            fraction_us += (text[end] - '0') * scale;
            scale /= 10;
        }
        if (end == at || end - at > 9) return bad();
        at = end;
    }
    int64_t offset_s = 0;
    if (at >= text.size()) return bad();
    if (text[at] == 'Z' || text[at] == 'z') {
        if (at + 1 != text.size()) return bad();
    } else {
        const int offset_hour = digits(text, at + 1, 2), offset_minute = digits(text, at + 4, 2);
        if ((text[at] != '+' && text[at] != '-') || at + 6 != text.size() || text[at + 3] != ':' ||
            offset_hour < 0 || offset_hour > 23 || offset_minute < 0 || offset_minute > 59)
            return bad();
        offset_s = (offset_hour * 60 + offset_minute) * 60 * (text[at] == '+' ? 1 : -1);
    }
    const int64_t day_number = sys_days{date}.time_since_epoch().count();
    const int64_t seconds = day_number * 86'400 + hour * 3600 + minute * 60 + second - offset_s;
    return TimePoint{seconds * kUsPerSecond + fraction_us};
}

}  // namespace farshore
