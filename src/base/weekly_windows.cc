#include "base/weekly_windows.h"

#include <absl/time/civil_time.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>

namespace farshore {
namespace {

constexpr uint32_t kDayMinutes = 24 * 60;
constexpr uint32_t kWeekMinutes = 7 * kDayMinutes;
constexpr int64_t kMinuteUs = 60'000'000;
constexpr int64_t kWeekUs = kWeekMinutes * kMinuteUs;
// 1970 began on a Thursday.
constexpr int64_t kFromMondayUs = 3 * int64_t{kDayMinutes} * kMinuteUs;
constexpr int64_t kLastUs = 253'402'300'799'000'000;
constexpr size_t kMaxZoneBytes = 64;

constexpr const char* kHelp =
    "write it as 'Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin'";

tl::unexpected<Error> refuse(std::string what, const char* remedy = kHelp) {
    return fail(Code::kInvalidArgument, std::move(what), remedy);
}

std::string quoted(std::string_view text) {
    return fmt::format("'{}'", text.substr(0, kMaxZoneBytes));
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::vector<std::string_view> words_of(std::string_view text) {
    std::vector<std::string_view> words;
    for (size_t at = 0; at < text.size();) {
        if (is_space(text[at])) {
            ++at;
            continue;
        }
        size_t end = at;
        while (end < text.size() && !is_space(text[end])) ++end;
        words.push_back(text.substr(at, end - at));
        at = end;
    }
    return words;
}

std::optional<uint32_t> day_of(std::string_view word) {
    static constexpr std::array<std::string_view, 7> kDays{
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"};
    std::string name(word);
    for (char& c : name) c = lower(c);
    for (uint32_t day = 0; day < kDays.size(); ++day)
        if (name == kDays[day] || name == kDays[day].substr(0, 3)) return day;
    return std::nullopt;
}

struct Days {
    uint32_t first = 0, last = 6;
};
std::optional<Days> days_of(std::string_view word) {
    const size_t dash = word.find('-');
    const auto first = day_of(word.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : day_of(word.substr(dash + 1));
    if (!first || !last) return std::nullopt;
    return Days{*first, *last};
}

// HH:MM up to 24:00, in minutes.
std::optional<uint32_t> clock_of(std::string_view word) {
    if (word.size() != 5 || word[2] != ':') return std::nullopt;
    for (size_t i : {0, 1, 3, 4})
        if (word[i] < '0' || word[i] > '9') return std::nullopt;
    const auto digits = [&](size_t at) {
        return static_cast<uint32_t>(word[at] - '0') * 10 +
               static_cast<uint32_t>(word[at + 1] - '0');
    };
    const uint32_t minutes = digits(0) * 60 + digits(3);
    if (digits(3) > 59 || minutes > kDayMinutes) return std::nullopt;
    return minutes;
}

bool looks_like_clock(std::string_view word) {
    return !word.empty() && word[0] >= '0' && word[0] <= '9';
}

struct Hours {
    uint32_t from = 0, to = 0;
};
Result<Hours> hours_of(std::string_view word) {
    const size_t dash = word.find('-');
    if (dash == std::string_view::npos)
        return refuse(fmt::format("{} is not a start and an end on the clock", quoted(word)));
    const auto from = clock_of(word.substr(0, dash));
    const auto to = clock_of(word.substr(dash + 1));
    if (!from || !to)
        return refuse(fmt::format("{} is not a start and an end on the clock, from 00:00 to 24:00",
                                  quoted(word)));
    if (*from == kDayMinutes)
        return refuse(fmt::format("{} begins when the day is over", quoted(word)),
                      "begin at 00:00 of the next day");
    if (*from == *to)
        return refuse(fmt::format("the window {} has no length: it would never open", quoted(word)),
                      "write 00:00-24:00 for the whole day");
    return Hours{*from, *to > *from ? *to : *to + kDayMinutes};
}

Result<absl::TimeZone> zone_of(std::string_view name) {
    const auto good = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '/' || c == '_' || c == '-' || c == '+';
    };
    const bool fit = !name.empty() && name.size() <= kMaxZoneBytes && name[0] != '/' &&
                     name != "localtime" && std::ranges::all_of(name, good);
    absl::TimeZone zone;
    if (!fit || !absl::LoadTimeZone(std::string(name), &zone))
        return refuse(
            fmt::format("there is no time zone {}", quoted(name)),
            "name it as in the IANA's list, e.g. Europe/Berlin or UTC; the package tzdata "
            "has them");
    return zone;
}

}  // namespace

Status check_time_zone(std::string_view name) {
    FS_TRY(zone_of(name));
    return {};
}

Result<WeeklyWindows> WeeklyWindows::parse(std::string_view text, std::string_view zone) {
    if (text.size() > kMaxWindowsBytes)
        return refuse(fmt::format("windows of {} bytes; at most {} are taken", text.size(),
                                  kMaxWindowsBytes));
    WeeklyWindows windows;
    windows.zone_name_ = std::string(zone);
    std::vector<std::pair<uint32_t, uint32_t>> open;
    for (size_t at = 0, count = 0; at <= text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        const bool last = end == text.size();
        auto words = words_of(text.substr(at, end - at));
        at = end + 1;
        if (++count > kMaxWindows) return refuse(fmt::format("more than {} windows", kMaxWindows));
        if (last && words.size() > 1 && !looks_like_clock(words.back())) {
            windows.zone_name_ = std::string(words.back());
            words.pop_back();
        }
        if (words.empty()) return refuse("a window is empty");
        Days days;
        if (!looks_like_clock(words[0])) {
            const auto named = days_of(words[0]);
            if (!named) return refuse(fmt::format("{} is not a day of the week", quoted(words[0])));
            days = *named;
            words.erase(words.begin());
        }
        if (words.empty()) return refuse("a window has days, but no start and end on the clock");
        FS_ASSIGN(const Hours hours, hours_of(words[0]));
        if (words.size() > 1)
            return refuse(fmt::format("{} stands where the next window is due", quoted(words[1])));
        for (uint32_t day = days.first;; day = (day + 1) % 7) {
            const uint32_t from = day * kDayMinutes + hours.from;
            const uint32_t to = day * kDayMinutes + hours.to;
            open.emplace_back(from, std::min(to, kWeekMinutes));
            if (to > kWeekMinutes) open.emplace_back(0, to - kWeekMinutes);
            if (day == days.last) break;
        }
    }
    FS_ASSIGN(windows.zone_, zone_of(windows.zone_name_));
    std::ranges::sort(open);
    for (const auto& [from, to] : open) {
        if (!windows.open_.empty() && from <= windows.open_.back().second)
            windows.open_.back().second = std::max(windows.open_.back().second, to);
        else
            windows.open_.emplace_back(from, to);
    }
    return windows;
}

int64_t WeeklyWindows::offset_us(TimePoint time) const {
    return int64_t{zone_.At(absl::FromUnixMicros(time.us)).offset} * 1'000'000;
}

namespace {

int64_t in_week_us(int64_t local_us) {
    const int64_t rest = (local_us + kFromMondayUs) % kWeekUs;
    return rest < 0 ? rest + kWeekUs : rest;
}

}  // namespace

bool WeeklyWindows::contains_local(int64_t local_us) const {
    const auto minute = static_cast<uint32_t>(in_week_us(local_us) / kMinuteUs);
    return std::ranges::any_of(
        open_, [&](const auto& one) { return one.first <= minute && minute < one.second; });
}

bool WeeklyWindows::contains(TimePoint time) const {
    time.us = std::clamp(time.us, -kLastUs, kLastUs);
    return contains_local(time.us + offset_us(time));
}

bool WeeklyWindows::always_open() const {
    return open_.size() == 1 && open_[0].second - open_[0].first == kWeekMinutes;
}

std::optional<TimePoint> WeeklyWindows::next_change(TimePoint time) const {
    if (always_open() || time.us > kLastUs || time.us < -kLastUs) return std::nullopt;
    const bool before = contains(time);
    // From one change of the zone's offset to the next the clock runs as everywhere.
    while (time.us <= kLastUs) {
        const int64_t offset = offset_us(time);
        const int64_t in_week = in_week_us(time.us + offset);
        // The nearest edge where it is otherwise; a window over the week's end is two.
        int64_t wait_us = kWeekUs;
        for (const auto& [from, to] : open_)
            for (const uint32_t edge : {from, to}) {
                int64_t ahead = int64_t{edge} * kMinuteUs - in_week;
                if (ahead <= 0) ahead += kWeekUs;
                if (contains_local(time.us + offset + ahead) != before)
                    wait_us = std::min(wait_us, ahead);
            }
        absl::TimeZone::CivilTransition shift;
        std::optional<TimePoint> shifted;
        if (zone_.NextTransition(absl::FromUnixMicros(time.us), &shift))
            shifted = TimePoint{absl::ToUnixMicros(zone_.At(shift.to).trans)};
        if (!shifted || shifted->us <= time.us || shifted->us > time.us + wait_us)
            return TimePoint{time.us + wait_us};
        time = *shifted;
        if (contains(time) != before) return time;
    }
    return std::nullopt;
}

std::optional<TimePoint> WeeklyWindows::next_opening(TimePoint time) const {
    if (contains(time)) return time;
    return next_change(time);
}

}  // namespace farshore
