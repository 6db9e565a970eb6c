// What this machine has for others.
#pragma once

#include <cstdint>

namespace farshore {

struct HostCapacity {
    uint32_t cpus = 1;
    uint64_t memory_bytes = 0;     // 0: not known
    uint64_t available_bytes = 0;  // of it, for new programs, as the kernel estimates; 0: not known
};

HostCapacity host_capacity();

}  // namespace farshore
