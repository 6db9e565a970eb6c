#include "os/host_capacity.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace farshore {

HostCapacity host_capacity() {
    HostCapacity host;
    host.cpus = static_cast<uint32_t>(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN)));
    std::ifstream file("/proc/meminfo");
    std::string name, unit;
    uint64_t kib = 0;
    while (file >> name >> kib) {
        if (name == "MemTotal:") host.memory_bytes = kib * 1024;
        if (name == "MemAvailable:") host.available_bytes = kib * 1024;
        std::getline(file, unit);
    }
    return host;
}

}  // namespace farshore
