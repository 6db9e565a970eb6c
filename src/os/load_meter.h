// Reads how busy this machine is (proc(5): /proc/stat, /proc/meminfo, /proc/self/statm).
//
// One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/machine_load.h"

namespace farshore {

class LoadMeter {
  public:
    // CPU is counted since the call before.
    MachineLoad look();

  private:
    uint64_t busy_ = 0, all_ = 0;  // ticks, at the last look
};

// Of the file system that a path is on (statvfs(3)).
struct DiskSpace {
    uint64_t free_bytes = 0;  // that we may use
    uint64_t bytes = 0;
};
std::optional<DiskSpace> disk_space(const std::string& path);

// The pieces, for tests. Ticks of all processors: busy, and all.
struct CpuTicks {
    uint64_t busy = 0, all = 0;
};
std::optional<CpuTicks> parse_cpu_ticks(std::string_view stat);
std::optional<int32_t> parse_memory_permille(std::string_view meminfo);

}  // namespace farshore
