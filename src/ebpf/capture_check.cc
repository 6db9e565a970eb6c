#include "ebpf/capture_check.h"

#include <fmt/core.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "ebpf/block_trace.h"
#include "ebpf/clean_stop.h"
#include "ebpf/page_bases.h"
#include "os/real.h"

namespace farshore {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxProcBytes = 1u << 20;
constexpr int kOldestMajor = 5, kOldestMinor = 10;
constexpr const char* kAlternative = "protect the machine from its hypervisor";

// Capabilities whose numbers older headers lack (include/uapi/linux/capability.h of 5.8).
constexpr int kPerfmon = 38, kBpf = 39;

bool has(uint64_t capabilities, int number) { return ((capabilities >> number) & 1) != 0; }

CaptureCheck ok(std::string subject, std::string what) {
    return {CheckResult::kOk, std::move(subject), std::move(what), {}};
}

CaptureCheck of_error(CheckResult result, std::string subject, const Error& error) {
    return {result, std::move(subject), error.what(), error.remedy()};
}

std::string text_of(const std::string& path) {
    PosixFileSystem files;
    auto bytes = read_whole_file(files, path, kMaxProcBytes);
    return bytes ? std::string(as_text(*bytes)) : std::string();
}

// The number behind "Name:" in a file of /proc; 0: there is none.
uint64_t number_of(const std::string& text, const std::string& name, int base) {
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1))
        if (at == 0 || text[at - 1] == '\n')
            return std::strtoull(text.c_str() + at + name.size(), nullptr, base);
    return 0;
}

std::string mib(uint64_t bytes) { return fmt::format("{} MiB", bytes >> 20); }

bool is_there(const std::string& path) {
    std::error_code error;
    return fs::exists(path, error);
}

// The directory itself, or what it would be made in.
std::string existing(const std::string& directory) {
    std::error_code error;
    fs::path at = fs::absolute(directory, error);
    while (!at.empty() && at != at.root_path() && !fs::exists(at, error)) at = at.parent_path();
    return at.empty() ? "/" : at.string();
}

CaptureCheck check_installed(std::string subject, const std::string& path, const char* without) {
    if (is_there(path)) return {CheckResult::kNote, std::move(subject), "installed", {}};
    return {CheckResult::kNote, std::move(subject), fmt::format("not installed: {}", without),
            "packaging/agent/install.sh installs it"};
}

void add_kernel(std::vector<CaptureCheck>& checks, const CaptureCheckOptions& options,
                Result<KernelLayout>& layout) {
    struct utsname name {};
    (void)::uname(&name);
    checks.push_back(judge_kernel(name.release));
    if (std::string_view(name.machine) == "x86_64")
        checks.push_back(ok("architecture", name.machine));
    else
        checks.push_back({CheckResult::kRefused, "architecture",
                          fmt::format("{}: only x86_64 can be captured", name.machine),
                          kAlternative});
    if (is_there("/sys/kernel/btf/vmlinux"))
        checks.push_back(ok("btf", "the kernel describes its types"));
    else
        checks.push_back(
            {CheckResult::kRefused, "btf", "this kernel has no BTF (/sys/kernel/btf/vmlinux)",
             std::string("use a kernel built with CONFIG_DEBUG_INFO_BTF, or ") + kAlternative});
    layout = read_kernel_layout();
    checks.push_back(layout ? ok("tracepoints", "block_rq_issue and what it needs are there")
                            : of_error(CheckResult::kRefused, "tracepoints", layout.error()));
    const uint64_t capabilities = number_of(text_of("/proc/self/status"), "CapEff:", 16);
    checks.push_back(judge_rights(capabilities));
    checks.push_back(judge_lockdown(text_of("/sys/kernel/security/lockdown")));
    struct statfs info {};
    const bool there = ::statfs(kBpfDirectory, &info) == 0;
    const bool mounted = there && static_cast<uint64_t>(info.f_type) == BPF_FS_MAGIC;
    checks.push_back(judge_bpf_directory(mounted, there, capabilities));
    checks.push_back(judge_memory(number_of(text_of("/proc/meminfo"), "MemAvailable:", 10) << 10,
                                  options.ring_bytes, options.trace_ring_bytes));
}

std::vector<LocalDisk> add_disks(std::vector<CaptureCheck>& checks,
                                 const CaptureCheckOptions& options,
                                 const Result<KernelLayout>& layout) {
    std::vector<LocalDisk> disks;
    std::vector<std::string> paths = options.devices;
    if (paths.empty())
        for (const LocalDisk& disk : list_disks()) paths.push_back(disk.device);
    if (paths.empty())
        checks.push_back({CheckResult::kRefused, "disks",
                          "this machine has no disk that can be captured", kAlternative});
    for (const std::string& path : paths) {
        const auto disk = inspect_disk(path);
        Status readable;
        if (!layout)
            readable = fail(layout.error());
        else if (disk) {
            KernelLayout found = *layout;
            readable = find_page_bases(disk->device, found);
        }
        checks.push_back(judge_disk(path, disk, readable));
        if (disk) disks.push_back(*disk);
    }
    return disks;
}

}  // namespace

std::string_view check_result_name(CheckResult result) {
    switch (result) {
        case CheckResult::kOk:
            return "ok";
        case CheckResult::kNote:
            return "note";
        case CheckResult::kWarning:
            return "warning";
        case CheckResult::kRefused:
            return "refused";
    }
    return "refused";
}

bool capture_will_work(const std::vector<CaptureCheck>& checks) {
    return std::none_of(checks.begin(), checks.end(), [](const CaptureCheck& check) {
        return check.result == CheckResult::kRefused;
    });
}

CaptureCheck judge_kernel(const std::string& release) {
    int major = 0, minor = 0;
    if (std::sscanf(release.c_str(), "%d.%d", &major, &minor) != 2)
        return {CheckResult::kWarning, "kernel",
                fmt::format("the version of '{}' cannot be told", release),
                fmt::format("capture needs Linux {}.{}", kOldestMajor, kOldestMinor)};
    if (std::pair(major, minor) < std::pair(kOldestMajor, kOldestMinor))
        return {CheckResult::kRefused, "kernel", fmt::format("Linux {} is too old", release),
                fmt::format("use Linux {}.{} or later, or {}", kOldestMajor, kOldestMinor,
                            kAlternative)};
    return ok("kernel", "Linux " + release);
}

CaptureCheck judge_rights(uint64_t capabilities) {
    // SYS_ADMIN includes the other two (kernel's security/commoncap.c, bpf_capable()).
    if (has(capabilities, CAP_SYS_ADMIN)) return ok("rights", "CAP_SYS_ADMIN");
    std::string missing;
    for (const auto& [number, name] :
         {std::pair(kBpf, "CAP_BPF"), std::pair(kPerfmon, "CAP_PERFMON")})
        if (!has(capabilities, number))
            missing += (missing.empty() ? "" : ", ") + std::string(name);
    if (!missing.empty())
        return {CheckResult::kRefused, "rights", fmt::format("missing: {}", missing),
                "run it as root, or give the agent CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"};
    return {CheckResult::kWarning, "rights",
            "no CAP_SYS_ADMIN: without the kernel's symbols the place of its pages cannot be "
            "searched",
            "give the agent CAP_SYS_ADMIN as well"};
}

CaptureCheck judge_lockdown(const std::string& lockdown) {
    if (lockdown.find("[confidentiality]") != std::string::npos)
        return {CheckResult::kRefused, "lockdown",
                "the kernel is locked down for confidentiality: no program may read its memory",
                std::string("start it with lockdown=integrity or less, or ") + kAlternative};
    if (lockdown.find("[integrity]") != std::string::npos)
        return ok("lockdown", "integrity only, which capture may have");
    return ok("lockdown", "none");
}

CaptureCheck judge_bpf_directory(bool mounted, bool there, uint64_t capabilities) {
    if (mounted) return ok("bpffs", fmt::format("mounted on {}", kBpfDirectory));
    if (!there)
        return {CheckResult::kRefused, "bpffs",
                fmt::format("there is no {}: this kernel has no bpf file system", kBpfDirectory),
                kAlternative};
    if (!has(capabilities, CAP_SYS_ADMIN))
        return {
            CheckResult::kRefused, "bpffs",
            fmt::format("not mounted on {}, and mounting it needs CAP_SYS_ADMIN", kBpfDirectory),
            fmt::format("mount -t bpf bpf {}", kBpfDirectory)};
    return ok("bpffs", fmt::format("not mounted; the agent mounts it on {}", kBpfDirectory));
}

CaptureCheck judge_memory(uint64_t available_bytes, uint64_t ring_bytes,
                          uint64_t trace_ring_bytes) {
    const uint64_t needed = ring_bytes + trace_ring_bytes;
    const std::string what =
        fmt::format("{} available; the rings take {} and {}", mib(available_bytes), mib(ring_bytes),
                    mib(trace_ring_bytes));
    const char* remedy = "smaller rings: --ring-mib and --trace-ring-kib";
    if (available_bytes < needed) return {CheckResult::kRefused, "memory", what, remedy};
    if (available_bytes < 2 * needed) return {CheckResult::kWarning, "memory", what, remedy};
    return ok("memory", what);
}

CaptureCheck judge_disk(const std::string& path, const Result<LocalDisk>& disk,
                        const Status& readable) {
    if (!disk) return of_error(CheckResult::kRefused, path, disk.error());
    const std::string what =
        fmt::format("{}, {}",
                    disk->size_bytes < (1u << 20) ? fmt::format("{} bytes", disk->size_bytes)
                                                  : mib(disk->size_bytes),
                    disk->identity);
    if (!readable)
        return {CheckResult::kRefused, path, fmt::format("{}: {}", what, readable.error().what()),
                readable.error().remedy()};
    // By its name alone a disk cannot be told from another one after a restart.
    if (disk->identity.starts_with("name:"))
        return {CheckResult::kWarning, path,
                what +
                    ": it has no identity of its own; after a restart its name may be another "
                    "disk's",
                "give it a serial number at the hypervisor, or a GUID partition table"};
    return ok(path, what + ", its pages can be read");
}

std::vector<CaptureCheck> check_capture(const CaptureCheckOptions& options) {
    std::vector<CaptureCheck> checks;
    Result<KernelLayout> layout;
    add_kernel(checks, options, layout);
    const std::vector<LocalDisk> disks = add_disks(checks, options, layout);
    const std::string directory = existing(options.data_directory);
    if (auto can = check_set_aside(directory, disks); can)
        checks.push_back(ok("clean restart", "disks need not be read again after one"));
    else
        checks.push_back({CheckResult::kWarning, "clean restart", can.error().what(),
                          "keep the agent's directory on ext4 or xfs, directly on a partition of "
                          "a protected disk"});
    checks.push_back(check_installed("initramfs hook",
                                     options.root + "/etc/initramfs-tools/hooks/farshore",
                                     "after each restart the disks are read again"));
    checks.push_back(check_installed("systemd unit",
                                     options.root + "/lib/systemd/system/farshore-agent.service",
                                     "nothing starts the agent with the machine"));
    return checks;
}

}  // namespace farshore
