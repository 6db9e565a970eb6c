#include "plan/churn.h"

#include <algorithm>

namespace farshore {
namespace {

constexpr int64_t kSecondUs = 1'000'000;

// Slots of `grain_s` from where something is known on to the last one that is over.
ChurnSeries series_of(const std::map<int64_t, uint64_t>& rows, int64_t grain_s, int64_t kept_s,
                      int64_t since_us, TimePoint now) {
    ChurnSeries series;
    series.interval_us = grain_s * kSecondUs;
    const auto floor = [&](int64_t us) { return us / series.interval_us * series.interval_us; };
    const int64_t end_us = floor(now.us);
    int64_t from_us =
        floor(std::max(since_us, now.us - kept_s * kSecondUs) + series.interval_us - 1);
    if (end_us <= from_us) return series;
    series.bytes.assign(static_cast<size_t>((end_us - from_us) / series.interval_us), 0);
    for (auto row = rows.lower_bound(from_us); row != rows.end() && row->first < end_us; ++row)
        series.bytes[static_cast<size_t>((row->first - from_us) / series.interval_us)] +=
            row->second;
    return series;
}

}  // namespace

void ChurnOf::add(const std::vector<ChangeRow>& rows, TimePoint seen_since) {
    since_us_ = std::min(since_us_, seen_since.us);
    for (const ChangeRow& row : rows) {
        auto& into = row.grain_s == kHourS ? hours_ : minutes_;
        into[row.start_us] += row.written_bytes + row.zeroed_bytes;
    }
}

std::vector<ChurnSeries> ChurnOf::series(TimePoint now) const {
    std::vector<ChurnSeries> all;
    if (since_us_ == INT64_MAX) return all;
    for (ChurnSeries& one : std::vector{series_of(minutes_, kMinuteS, kMinuteRowsS, since_us_, now),
                                        series_of(hours_, kHourS, kHourRowsS, since_us_, now)})
        if (!one.bytes.empty()) all.push_back(std::move(one));
    if (all.empty()) {
        uint64_t written = 0;
        for (const auto& [start_us, bytes] : minutes_) written += bytes;
        all.push_back({std::max(now.us - since_us_, kSecondUs), {written}});
    }
    return all;
}

}  // namespace farshore
