#include "replica/change_history.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>

#include "replica/segment.h"

namespace farshore {
namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kHourUs = kHourS * kSecondUs, kMinuteUs = kMinuteS * kSecondUs;
constexpr uint64_t kRegionBytes = 1u << 20;
// Of the past: what is usual, and how long what recurs is remembered.
constexpr int64_t kUsualHours = 7 * 24, kLeastHours = 24, kRecurDays = 35;
constexpr int kRecurTimes = 3;
// Beyond the median by so many deviations. Of a normal distribution 1.5 MAD are one sigma.
constexpr double kDeviations = 8 * 1.5;
// A disk that writes evenly has hardly any deviation: a part of the median counts at least.
constexpr double kLeastDeviation = 0.05;

int64_t floor_to(int64_t us, int64_t grain_us) {
    const int64_t rest = us % grain_us;
    return us - (rest < 0 ? rest + grain_us : rest);
}

double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
    std::ranges::nth_element(values, middle);
    return *middle;
}

uint64_t measure(const ChangeRow& row, ChangeReason reason) {
    return reason == ChangeReason::kDense ? row.dense_bytes : row.written_bytes;
}

// One disk's hours, by their start in hours since 1970.
using Hours = std::map<int64_t, uint64_t>;

uint64_t at(const Hours& hours, int64_t hour) {
    const auto found = hours.find(hour);
    return found == hours.end() ? 0 : found->second;
}

// Something like it at this hour of the day (or next to it) on several days before.
bool recurs(const Hours& hours, int64_t hour, uint64_t bytes) {
    int times = 0;
    for (int64_t day = 1; day <= kRecurDays && times < kRecurTimes; ++day) {
        uint64_t most = 0;
        for (int64_t near = -1; near <= 1; ++near)
            most = std::max(most, at(hours, hour - day * 24 + near));
        times += most >= bytes / 2;
    }
    return times >= kRecurTimes;
}

struct Usual {
    double median = 0, limit = 0;
};
Usual usual_before(const Hours& hours, int64_t hour) {
    const int64_t from = std::max(hours.begin()->first, hour - kUsualHours);
    std::vector<double> values;
    // Hours without a row are hours without a write.
    for (int64_t h = from; h < hour; ++h) values.push_back(static_cast<double>(at(hours, h)));
    Usual usual;
    usual.median = median(values);
    for (double& value : values) value = std::abs(value - usual.median);
    const double deviation = std::max(median(values), kLeastDeviation * usual.median);
    usual.limit = std::max(usual.median + kDeviations * deviation,
                           usual.median + static_cast<double>(kLeastBreakBytes));
    return usual;
}

}  // namespace

void ChangeRow::add(const ChangeRow& other) {
    records += other.records;
    written_bytes += other.written_bytes;
    zeroed_bytes += other.zeroed_bytes;
    dense_bytes += other.dense_bytes;
    regions += other.regions;
}

ChangeRow hour_of(const ChangeRow& minute) {
    ChangeRow hour = minute;
    hour.grain_s = kHourS;
    hour.start_us = floor_to(minute.start_us, kHourUs);
    return hour;
}

std::vector<ChangeRow> changes_of(const SegmentReader& segment, bool in_gap) {
    std::map<std::pair<int64_t, DiskIndex>, ChangeRow> rows;
    std::map<std::pair<int64_t, DiskIndex>, std::vector<uint32_t>> regions;
    const std::vector<bool> dense = segment.dense_chunks(kDensePercent);
    // A segment is mostly of one minute and disk: the last row is the next one's, too.
    ChangeRow* row = nullptr;
    std::vector<uint32_t>* touched = nullptr;
    for (const IndexEntry& entry : segment.index()) {
        if (entry.kind == RecordKind::kGap) in_gap = true;
        if (entry.kind == RecordKind::kResynced) in_gap = false;
        if (in_gap) continue;
        const bool write = entry.kind == RecordKind::kWrite;
        if (!write && entry.kind != RecordKind::kZero && entry.kind != RecordKind::kDiscard)
            continue;
        const int64_t start_us = floor_to(entry.time.us, kMinuteUs);
        if (row == nullptr || row->start_us != start_us || row->disk != entry.disk) {
            row = &rows[{start_us, entry.disk}];
            touched = &regions[{start_us, entry.disk}];
            row->start_us = start_us;
            row->disk = entry.disk;
        }
        ++row->records;
        (write ? row->written_bytes : row->zeroed_bytes) += entry.length_bytes;
        touched->push_back(static_cast<uint32_t>(entry.offset_bytes / kRegionBytes));
        if (!write) continue;
        for (uint64_t from = entry.payload_position, end = from + entry.length_bytes; from < end;) {
            const uint64_t chunk = from / kChunkBytes;
            const uint64_t to = std::min(end, (chunk + 1) * kChunkBytes);
            if (chunk < dense.size() && dense[chunk]) row->dense_bytes += to - from;
            from = to;
        }
    }
    std::vector<ChangeRow> out;
    for (auto& [key, made] : rows) {
        auto& all = regions[key];
        std::ranges::sort(all);
        made.regions = static_cast<uint64_t>(std::ranges::unique(all).begin() - all.begin());
        out.push_back(made);
    }
    return out;
}

std::string_view change_reason_name(ChangeReason reason) {
    return reason == ChangeReason::kDense ? "incompressible" : "rate";
}

std::vector<ChangeBreak> find_breaks(const std::vector<ChangeRow>& rows) {
    std::map<DiskIndex, std::vector<const ChangeRow*>> hours_of, minutes_of;
    for (const ChangeRow& row : rows)
        (row.grain_s == kHourS ? hours_of : minutes_of)[row.disk].push_back(&row);
    std::vector<ChangeBreak> out;
    for (const auto& [disk, of] : hours_of) {
        for (const ChangeReason reason : {ChangeReason::kDense, ChangeReason::kRate}) {
            Hours hours;
            for (const ChangeRow* row : of) hours[row->start_us / kHourUs] += measure(*row, reason);
            std::optional<int64_t> last;
            for (const auto& [hour, bytes] : hours) {
                if (bytes < kLeastBreakBytes || hour - hours.begin()->first < kLeastHours) continue;
                const Usual usual = usual_before(hours, hour);
                if (static_cast<double>(bytes) <= usual.limit || recurs(hours, hour, bytes))
                    continue;
                const TimePoint until{(hour + 1) * kHourUs};
                if (last && *last + 1 == hour) {
                    out.back().until = until;
                    out.back().bytes = std::max(out.back().bytes, bytes);
                } else {
                    ChangeBreak made{disk,  reason, {hour * kHourUs},
                                     until, bytes,  static_cast<uint64_t>(usual.median)};
                    // Its first minute that is more like the break than like what is usual.
                    const double much =
                        std::max(static_cast<double>(bytes), usual.median + usual.limit) / 2 / 60;
                    std::optional<int64_t> first;
                    for (const ChangeRow* row : minutes_of[disk]) {
                        if (row->start_us / kHourUs == hour &&
                            static_cast<double>(measure(*row, reason)) >= much)
                            first = std::min(first.value_or(row->start_us), row->start_us);
                    }
                    if (first) made.from.us = *first;
                    out.push_back(made);
                }
                last = hour;
            }
        }
    }
    std::ranges::sort(out, {},
                      [](const ChangeBreak& b) { return std::tuple(b.from.us, b.disk, b.reason); });
    return out;
}

}  // namespace farshore
