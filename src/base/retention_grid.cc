#include "base/retention_grid.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>

namespace farshore {
namespace {

constexpr int64_t kSecond = 1'000'000;
struct Unit {
    char letter;
    int64_t us;
};
constexpr std::array kUnits{Unit{'y', 365 * 86'400 * kSecond}, Unit{'w', 7 * 86'400 * kSecond},
                            Unit{'d', 86'400 * kSecond},       Unit{'h', 3'600 * kSecond},
                            Unit{'m', 60 * kSecond},           Unit{'s', kSecond}};

std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

tl::unexpected<Error> wrong(std::string_view text, std::string_view why) {
    return fail(Code::kInvalidArgument, fmt::format("the points to keep '{}': {}", text, why),
                "write steps as EVERY:AGE that grow, such as 1h:1d, 2h:7d, 4h:15d, 1d:1y");
}

// Nothing when it is no duration, or a longer one than any that is allowed.
std::optional<int64_t> duration(std::string_view text) {
    text = trim(text);
    if (text.size() < 2) return std::nullopt;
    const auto unit = std::ranges::find(kUnits, text.back(), &Unit::letter);
    if (unit == kUnits.end()) return std::nullopt;
    uint64_t number = 0;
    const char* const end = text.data() + text.size() - 1;
    const auto parsed = std::from_chars(text.data(), end, number);
    if (parsed.ec != std::errc{} || parsed.ptr != end || number == 0 ||
        number > static_cast<uint64_t>(kMaxGridAgeUs / unit->us))
        return std::nullopt;
    return static_cast<int64_t>(number) * unit->us;
}

std::string duration_text(int64_t us) {
    for (const Unit& unit : kUnits) {
        if (us % unit.us == 0) return fmt::format("{}{}", us / unit.us, unit.letter);
    }
    return fmt::format("{}s", us / kSecond);
}

int64_t floor_divide(int64_t value, int64_t by) { return value / by - (value % by < 0 ? 1 : 0); }

}  // namespace

Result<RetentionGrid> RetentionGrid::parse(std::string_view text) {
    RetentionGrid grid;
    if (text.size() > kMaxGridBytes) return wrong(text.substr(0, kMaxGridBytes), "it is too long");
    if (trim(text).empty()) return grid;
    std::string_view rest = text;
    while (true) {
        const size_t comma = rest.find(',');
        const std::string_view step = trim(rest.substr(0, comma));
        const size_t colon = step.find(':');
        if (colon == std::string_view::npos)
            return wrong(text, fmt::format("'{}' is no EVERY:AGE", step));
        const auto every = duration(step.substr(0, colon));
        const auto until = duration(step.substr(colon + 1));
        if (!every || !until) return wrong(text, fmt::format("'{}' is no pair of durations", step));
        if (*every < kMinGridSlotUs) return wrong(text, "a step is shorter than a minute");
        if (*until < *every) return wrong(text, fmt::format("'{}' ends before its first", step));
        if (!grid.steps_.empty() &&
            (*every <= grid.steps_.back().every_us || *until <= grid.steps_.back().until_us))
            return wrong(text, fmt::format("'{}' does not grow", step));
        if (grid.steps_.size() == kMaxGridSteps) return wrong(text, "it has too many steps");
        grid.steps_.push_back({*every, *until});
        if (comma == std::string_view::npos) return grid;
        rest.remove_prefix(comma + 1);
    }
}

RetentionGrid RetentionGrid::of(std::vector<GridStep> steps) {
    RetentionGrid grid;
    grid.steps_ = std::move(steps);
    return grid;
}

std::string RetentionGrid::text() const {
    std::string out;
    for (const GridStep& step : steps_)
        out += fmt::format("{}{}:{}", out.empty() ? "" : ", ", duration_text(step.every_us),
                           duration_text(step.until_us));
    return out;
}

uint64_t RetentionGrid::slots(int64_t from_us, int64_t to_us) const {
    uint64_t sum = 0;
    int64_t begin = from_us;
    for (const GridStep& step : steps_) {
        const int64_t end = std::min(step.until_us, to_us);
        if (end <= begin) continue;
        sum += static_cast<uint64_t>((end - begin + step.every_us - 1) / step.every_us);
        begin = end;
    }
    return sum;
}

std::vector<bool> RetentionGrid::choose(std::span<const Point> points, TimePoint now) const {
    std::vector<bool> stays(points.size());
    std::map<std::pair<size_t, int64_t>, size_t> best;  // step and slot -> its point
    for (size_t i = 0; i < points.size(); ++i) {
        const int64_t age_us = now.us - points[i].time.us;
        const auto step =
            std::ranges::find_if(steps_, [&](const GridStep& s) { return age_us <= s.until_us; });
        if (step == steps_.end()) continue;
        const auto [at, fresh] = best.try_emplace({static_cast<size_t>(step - steps_.begin()),
                                                   floor_divide(points[i].time.us, step->every_us)},
                                                  i);
        if (fresh) continue;
        const int rank = points[i].rank, before = points[at->second].rank;
        if (rank > before || (rank == before && rank == 0)) at->second = i;
    }
    for (const auto& [slot, i] : best) stays[i] = true;
    return stays;
}

}  // namespace farshore
