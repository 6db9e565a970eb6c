// How a machine's disks change: how much was written in a slot of time, how scattered, and how much
// of that cannot be compressed; and where that breaks from the disk's own past, as it does when
// something encrypts it. docs/design/change.md.
//
// Pure; any thread. Times are the source's, microseconds since 1970.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "record/record.h"

namespace farshore {

class SegmentReader;

// What one disk changed in [start, start + grain). Key: grain, start, disk.
struct ChangeRow {
    int64_t grain_s = 60;  // kMinuteS or kHourS
    int64_t start_us = 0;  // a multiple of the grain
    DiskIndex disk = 0;
    uint64_t records = 0;        // writes, zeroes and discards
    uint64_t written_bytes = 0;  // payload
    uint64_t zeroed_bytes = 0;
    uint64_t dense_bytes = 0;  // of the payload: in chunks that hardly got smaller
    uint64_t regions = 0;      // MiB of disk that were touched, counted once a segment
    friend bool operator==(const ChangeRow&, const ChangeRow&) = default;

    void add(const ChangeRow& other);
};
inline constexpr int64_t kMinuteS = 60, kHourS = 3600;
// So long rows stay: minutes tell where a break began, hours what is usual.
inline constexpr int64_t kMinuteRowsS = 2 * 86'400, kHourRowsS = 60 * 86'400;
// Rows that start before it are let go of when what is newest is of `newest`.
inline int64_t oldest_change_us(int64_t grain_s, TimePoint newest) {
    return newest.us - (grain_s == kHourS ? kHourRowsS : kMinuteRowsS) * 1'000'000;
}
// A chunk that kept more than this of its size is dense.
inline constexpr uint32_t kDensePercent = 90;

// The rows of a segment's records, minutes, by start and disk. Reads its index alone, which must
// not have been forgotten. What is sent inside a gap is left out: copies, not what the machine
// wrote then. `in_gap`: one is open where the segment begins.
std::vector<ChangeRow> changes_of(const SegmentReader& segment, bool in_gap);
// The hour that a minute is part of.
ChangeRow hour_of(const ChangeRow& minute);

enum class ChangeReason : uint8_t {
    kDense,  // much more than usual cannot be compressed
    kRate,   // much more than usual is written
};
std::string_view change_reason_name(ChangeReason reason);  // "incompressible", "rate"

// Hours of one disk, one behind the other, that are unlike its past.
struct ChangeBreak {
    DiskIndex disk = 0;
    ChangeReason reason = ChangeReason::kRate;
    // Where it began, to the minute while minutes are kept, else to the hour; the end of its last
    // hour.
    TimePoint from, until;
    uint64_t bytes = 0;        // in its largest hour; dense ones for kDense
    uint64_t usual_bytes = 0;  // median of an hour before
};

// Bytes in an hour below which nothing is a break.
inline constexpr uint64_t kLeastBreakBytes = 64u << 20;

// By from. `rows`: hours, and minutes as far as they are kept, in any order. Needs a day of past;
// what comes again at its hour of the day is usual once it was there on three days.
std::vector<ChangeBreak> find_breaks(const std::vector<ChangeRow>& rows);

}  // namespace farshore
