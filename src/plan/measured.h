// What `farshore plan measure` saw of a machine that is not protected yet, as a file.
//
//     {"format": "farshore-measured-1", "host": "db1", "started": "2026-01-02T03:04:05.000000Z",
//      "interval_us": 1000000, "disks": [{"path": "/dev/vda", "size_bytes": 1073741824}],
//      "written_bytes": [0, 4096, ...]}
//
// Plain values; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "plan/plan.h"

namespace farshore {

inline constexpr size_t kMaxMeasuredBytes = 8u << 20;
inline constexpr size_t kMaxMeasuredDisks = 64;
// What a slot may hold at most: beyond any disk, and sums of all slots stay numbers.
inline constexpr uint64_t kMaxSlotBytes = uint64_t{1} << 44;

struct MeasuredDisk {
    std::string path;
    uint64_t size_bytes = 0;
};
struct Measured {
    std::string host;
    TimePoint started;
    std::vector<MeasuredDisk> disks;
    ChurnSeries churn;  // of all disks together
};

std::string format_measured(const Measured& measured);
// kMalformed, naming the field; kTooLarge; kNewerVersion.
Result<Measured> parse_measured(std::string_view json);

// Bytes written by a disk since the machine started, and its size in bytes, by the texts of
// /sys/class/block/NAME/stat and /sys/class/block/NAME/size (the kernel's
// Documentation/block/stat.rst: the seventh number is sectors of 512 bytes). kMalformed.
Result<uint64_t> parse_written(std::string_view stat);
Result<uint64_t> parse_disk_size(std::string_view size);

// To plan with: nothing is known of what overwrites what, so every byte counts as one elsewhere, up
// to the size of the disks; and `stored_per_written` is the asker's guess (1: nothing compresses).
PlanInput plan_input(const Measured& measured, double stored_per_written, int64_t window_us,
                     RetentionGrid keep);

}  // namespace farshore
