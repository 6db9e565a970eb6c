#include "base/bandwidth_limit.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace farshore {
namespace {

constexpr const char* kHelp =
    "write it as '20MB/s Mon-Fri 08:00-18:00 Europe/Berlin; 200MB/s', or 'unlimited'";
// Any week will do to find out whether something is sent at all; this one has no change of clocks.
constexpr TimePoint kSomeWeek{1'767'571'200'000'000};
constexpr int64_t kEightDaysUs = 8ll * 86'400 * 1'000'000;

tl::unexpected<Error> refuse(std::string what, const char* remedy = kHelp) {
    return fail(Code::kInvalidArgument, std::move(what), remedy);
}

struct Unit {
    std::string_view name;
    double bytes;
};
constexpr std::array<Unit, 10> kUnits{
    Unit{"B", 1},        Unit{"kB", 1e3},      Unit{"MB", 1e6},         Unit{"GB", 1e9},
    Unit{"KiB", 1024},   Unit{"MiB", 1048576}, Unit{"GiB", 1073741824}, Unit{"kbit", 125},
    Unit{"Mbit", 125e3}, Unit{"Gbit", 125e6}};
constexpr double kMostBytesPerS = 1e15;

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kSpaces = " \t\r\n";
    const size_t from = text.find_first_not_of(kSpaces);
    if (from == std::string_view::npos) return {};
    return text.substr(from, text.find_last_not_of(kSpaces) - from + 1);
}

// Up to 12 digits and up to 3 behind a point.
std::optional<double> number_of(std::string_view text) {
    const size_t point = text.find('.');
    const std::string_view whole = text.substr(0, point);
    const std::string_view part =
        point == std::string_view::npos ? std::string_view("0") : text.substr(point + 1);
    if (whole.empty() || whole.size() > 12 || part.empty() || part.size() > 3) return std::nullopt;
    double value = 0, scale = 1;
    for (const char c : whole) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + (c - '0');
    }
    for (const char c : part) {
        if (c < '0' || c > '9') return std::nullopt;
        value += (c - '0') * (scale /= 10);
    }
    return value;
}

Result<BytesPerS> rate_of(std::string_view word) {
    if (word == "unlimited") return kUnlimited;
    if (word == "paused") return BytesPerS{0};
    const std::string shown(word.substr(0, 64));
    std::string_view text = word;
    if (text.ends_with("/s")) text.remove_suffix(2);
    const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
    const auto number = number_of(text.substr(0, digits));
    const auto unit = std::ranges::find(kUnits, text.substr(digits), &Unit::name);
    if (!number) return refuse(fmt::format("'{}' is not a rate", shown));
    if (*number == 0)
        return refuse("a limit of 0 would never send anything",
                      "say 'paused' and when; or 'unlimited'");
    if (unit == kUnits.end())
        return refuse(fmt::format("'{}' has no unit that is known", shown),
                      "use B, kB, MB, GB, KiB, MiB, GiB, kbit, Mbit or Gbit, with or without /s");
    const double rate = *number * unit->bytes;
    if (rate < static_cast<double>(kMinBandwidthBytesPerS) || rate > kMostBytesPerS)
        return refuse(fmt::format("'{}' is out of range: a limit is from {} to 1000000 GB/s", shown,
                                  rate_text(kMinBandwidthBytesPerS)),
                      "take a larger limit, or 'paused' in some windows");
    return static_cast<BytesPerS>(std::llround(rate));
}

}  // namespace

Result<BandwidthLimit> BandwidthLimit::parse(std::string_view text, std::string_view zone) {
    BandwidthLimit limit;
    if (trimmed(text).empty()) return limit;
    if (text.size() > kMaxBandwidthBytes)
        return refuse(fmt::format("a bandwidth limit of {} bytes; at most {} are taken",
                                  text.size(), kMaxBandwidthBytes));
    bool last = false;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(';', at), text.size());
        const std::string_view part = trimmed(text.substr(at, end - at));
        at = end + 1;
        if (part.empty()) return refuse("a part of the bandwidth limit is empty");
        if (last)
            return refuse(
                "only the last part of a bandwidth limit can be without windows: what "
                "stands behind it would never count");
        if (limit.parts_.size() >= kMaxBandwidthParts)
            return refuse(fmt::format("more than {} parts", kMaxBandwidthParts));
        const size_t word = std::min(part.find_first_of(" \t\r\n"), part.size());
        Part made;
        FS_ASSIGN(made.rate, rate_of(part.substr(0, word)));
        if (const auto rest = trimmed(part.substr(word)); !rest.empty()) {
            FS_ASSIGN(made.windows, WeeklyWindows::parse(rest, zone));
        }
        last = !made.windows;
        limit.parts_.push_back(std::move(made));
    }
    TimePoint time = kSomeWeek;
    while (limit.at(time) == 0) {
        const auto next = limit.next_change(time);
        if (!next || next->us > kSomeWeek.us + kEightDaysUs)
            return refuse("this is paused at every time: nothing would ever be sent",
                          "leave a window in which something may be sent; or unprotect the item");
        time = *next;
    }
    return limit;
}

BytesPerS BandwidthLimit::at(TimePoint time) const {
    for (const Part& part : parts_)
        if (!part.windows || part.windows->contains(time)) return part.rate;
    return kUnlimited;
}

std::optional<TimePoint> BandwidthLimit::next_change(TimePoint time) const {
    const BytesPerS now = at(time);
    // Windows that change below others that count are passed over, two weeks far at most.
    const int64_t end_us = time.us + 2 * kEightDaysUs;
    while (time.us <= end_us) {
        std::optional<TimePoint> next;
        for (const Part& part : parts_) {
            if (!part.windows) break;
            const auto change = part.windows->next_change(time);
            if (change && (!next || *change < *next)) next = change;
        }
        if (!next) return std::nullopt;
        if (at(*next) != now) return next;
        time = *next;
    }
    return std::nullopt;
}

std::string rate_text(BytesPerS rate) {
    if (rate == kUnlimited) return "unlimited";
    if (rate == 0) return "paused";
    static constexpr std::array<std::string_view, 4> kNames{"B/s", "kB/s", "MB/s", "GB/s"};
    auto value = static_cast<double>(rate);
    size_t unit = 0;
    while (value >= 999.95 && unit + 1 < kNames.size()) {
        value /= 1000;
        ++unit;
    }
    return std::floor(value) == value ? fmt::format("{:.0f} {}", value, kNames[unit])
                                      : fmt::format("{:.1f} {}", value, kNames[unit]);
}

}  // namespace farshore
