// How busy a machine and one of our processes on it are, as parts tell each other. Plain values.
#pragma once

#include <cstdint>

namespace farshore {

struct MachineLoad {
    int32_t cpu_permille = -1;     // of all processors, since the last look; -1: not known
    int32_t memory_permille = -1;  // that is not available; -1: not known
    uint64_t process_bytes = 0;    // resident, of the part itself
};

}  // namespace farshore
