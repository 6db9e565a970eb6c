#include "replica/retention_cost.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace farshore {
namespace {

// Rows of a map that change with a kept point: about so much of it for what is fresh of the state.
double share(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0 : std::min(1.0, double(part) / double(whole));
}

}  // namespace

uint64_t fresh_bytes(const ChangeSeen& seen, int64_t span_us) {
    if (span_us <= 0) return 0;
    // Of several of one span the most: an estimate that is too low is found out too late.
    std::map<int64_t, uint64_t> known;
    for (const auto& fresh : seen.fresh)
        if (fresh.span_us > 0) known[fresh.span_us] = std::max(known[fresh.span_us], fresh.bytes);
    uint64_t most = 0;
    for (auto& [span, bytes] : known) bytes = most = std::max(most, bytes);
    const auto bounded = [&](double bytes) {
        return static_cast<uint64_t>(std::min(bytes, double(seen.live_bytes)));
    };
    if (known.empty()) {
        // Nothing to compare yet: each write elsewhere.
        if (seen.written_us <= 0) return 0;
        return bounded(double(seen.written_bytes) / double(seen.written_us) * double(span_us));
    }
    const auto above = known.lower_bound(span_us);
    if (above == known.begin())
        return bounded(double(above->second) * double(span_us) / double(above->first));
    if (above != known.end()) {
        const auto below = std::prev(above);
        const double part = double(span_us - below->first) / double(above->first - below->first);
        return bounded(double(below->second) +
                       part * (double(above->second) - double(below->second)));
    }
    // Beyond: bytes grow as a power of the span, between not at all and in proportion.
    const auto [last, last_bytes] = *known.rbegin();
    const auto half = known.lower_bound(last / 2);
    double power = 1;
    if (half->first < last && half->second > 0 && last_bytes > 0)
        power = std::clamp(std::log(double(last_bytes) / double(half->second)) /
                               std::log(double(last) / double(half->first)),
                           0.0, 1.0);
    return bounded(double(last_bytes) * std::pow(double(span_us) / double(last), power));
}

RetentionCost retention_cost(const ChangeSeen& seen, int64_t window_us, const RetentionGrid& grid) {
    RetentionCost cost;
    const double ratio = seen.stored_per_written;
    cost.seen_us = seen.written_us;
    if (seen.written_us > 0)
        cost.written_per_s = double(seen.written_bytes) * 1e6 / double(seen.written_us);
    cost.newest_bytes = static_cast<uint64_t>(double(seen.live_bytes) * ratio) + seen.map_bytes;
    cost.window_bytes = static_cast<uint64_t>(cost.written_per_s * double(window_us) / 1e6 * ratio);
    cost.total_bytes = cost.newest_bytes + cost.window_bytes;
    int64_t from_us = window_us;
    for (const GridStep& step : grid.steps()) {
        RetentionCost::Step row{step, 0, 0};
        if (step.until_us > from_us) {
            row.points = static_cast<uint64_t>((step.until_us - from_us + step.every_us - 1) /
                                               step.every_us);
            const uint64_t fresh = fresh_bytes(seen, step.every_us);
            const double each =
                double(fresh) * ratio + double(seen.map_bytes) * share(fresh, seen.live_bytes);
            row.bytes = static_cast<uint64_t>(double(row.points) * each);
            from_us = step.until_us;
        }
        cost.total_bytes += row.bytes;
        cost.steps.push_back(row);
    }
    return cost;
}

}  // namespace farshore
