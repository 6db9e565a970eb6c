#include "os/load_meter.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <charconv>
#include <string>
#include <vector>

#include "os/real.h"

namespace farshore {
namespace {

constexpr size_t kMaxProcBytes = 1u << 20;

std::string proc(const char* path) {
    PosixFileSystem files;
    auto bytes = read_whole_file(files, path, kMaxProcBytes);
    return bytes ? std::string(as_text(*bytes)) : std::string();
}

// The numbers behind `from`, until something else comes.
std::vector<uint64_t> numbers(std::string_view text) {
    std::vector<uint64_t> out;
    while (true) {
        while (text.starts_with(' ')) text.remove_prefix(1);
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc()) return out;
        out.push_back(value);
        text.remove_prefix(static_cast<size_t>(end - text.data()));
    }
}

std::optional<uint64_t> value_of(std::string_view meminfo, std::string_view name) {
    const size_t at = meminfo.find(name);
    if (at == std::string_view::npos) return {};
    const auto found = numbers(meminfo.substr(at + name.size()));
    if (found.empty()) return {};
    return found.front();
}

}  // namespace

std::optional<CpuTicks> parse_cpu_ticks(std::string_view stat) {
    if (!stat.starts_with("cpu ")) return {};
    // user nice system idle iowait irq softirq steal; guests are in user already.
    const auto ticks = numbers(stat.substr(4));
    if (ticks.size() < 5) return {};
    CpuTicks out;
    for (size_t i = 0; i < ticks.size() && i < 8; ++i) {
        out.all += ticks[i];
        if (i != 3 && i != 4) out.busy += ticks[i];
    }
    return out;
}

std::optional<int32_t> parse_memory_permille(std::string_view meminfo) {
    const auto total = value_of(meminfo, "MemTotal:"), free = value_of(meminfo, "MemAvailable:");
    if (!total || !free || *total == 0 || *free > *total) return {};
    return static_cast<int32_t>((*total - *free) * 1000 / *total);
}

std::optional<DiskSpace> disk_space(const std::string& path) {
    struct statvfs info {};
    if (::statvfs(path.c_str(), &info) != 0) return {};
    return DiskSpace{uint64_t{info.f_bavail} * info.f_frsize,
                     uint64_t{info.f_blocks} * info.f_frsize};
}

MachineLoad LoadMeter::look() {
    MachineLoad load;
    if (const auto ticks = parse_cpu_ticks(proc("/proc/stat"))) {
        if (all_ != 0 && ticks->all > all_ && ticks->busy >= busy_)
            load.cpu_permille =
                static_cast<int32_t>((ticks->busy - busy_) * 1000 / (ticks->all - all_));
        busy_ = ticks->busy;
        all_ = ticks->all;
    }
    load.memory_permille = parse_memory_permille(proc("/proc/meminfo")).value_or(-1);
    const auto pages = numbers(proc("/proc/self/statm"));
    if (pages.size() > 1) load.process_bytes = pages[1] * static_cast<uint64_t>(::getpagesize());
    return load;
}

}  // namespace farshore
