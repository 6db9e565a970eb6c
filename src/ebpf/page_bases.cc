#include "ebpf/page_bases.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>

#include "ebpf/block_probe_abi.h"
#include "os/fd.h"
#include "os/real.h"

// Uses the types of the ABI.
#include "ebpf/block_probe.skel.h"

namespace farshore {
namespace {

// x86-64 without address-space randomisation, four-level page tables
// (Documentation/arch/x86/x86_64/mm.rst of the kernel).
constexpr uint64_t kDefaultVmemmap = 0xffffea0000000000ull;
constexpr uint64_t kDefaultPageOffset = 0xffff888000000000ull;
constexpr uint64_t kBaseAlignment = 1ull << 30;
constexpr size_t kMaxLogBytes = 16u << 10;

std::mutex log_mutex;
std::string log_text;

int keep_line(libbpf_print_level level, const char* format, va_list arguments) {
    if (level == LIBBPF_DEBUG) return 0;
    char line[1024];
    std::vsnprintf(line, sizeof line, format, arguments);
    const std::lock_guard hold(log_mutex);
    if (log_text.size() + sizeof line < kMaxLogBytes) log_text += line;
    return 0;
}

struct Probe {
    block_probe_bpf* skeleton = nullptr;
    fs_probe* shared = nullptr;
    ~Probe() {
        if (shared != nullptr) ::munmap(shared, 4096);
        block_probe_bpf__destroy(skeleton);
    }
};

struct Page {
    uint8_t* at = nullptr;
    Page() {
        void* mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (mapped != MAP_FAILED) at = static_cast<uint8_t*>(mapped);
    }
    ~Page() {
        if (at != nullptr) ::munmap(at, 4096);
    }
};

// Where the kernel keeps a variable, or 0 when it does not say.
struct Symbols {
    uint64_t vmemmap_base = 0, page_offset_base = 0;
};
Symbols find_symbols() {
    Symbols found;
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/proc/kallsyms", "re"),
                                                     &std::fclose);
    if (!file) return found;
    char line[512];
    while (std::fgets(line, sizeof line, file.get()) != nullptr) {
        char* rest = nullptr;
        const uint64_t address = std::strtoull(line, &rest, 16);
        if (rest == line || std::strlen(rest) < 4) continue;
        const std::string_view name(rest + 3);
        if (name == "vmemmap_base\n") found.vmemmap_base = address;
        if (name == "page_offset_base\n") found.page_offset_base = address;
    }
    return found;
}

// Number of the frame that a page of ours is in; 0: the kernel does not tell.
uint64_t frame_of(const void* address) {
    const UniqueFd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    if (!fd) return 0;
    uint64_t entry = 0;
    const auto at = static_cast<off_t>(reinterpret_cast<uintptr_t>(address) / 4096 * 8);
    if (::pread(fd.get(), &entry, sizeof entry, at) != static_cast<ssize_t>(sizeof entry)) return 0;
    constexpr uint64_t kPresent = 1ull << 63, kFrameMask = (1ull << 55) - 1;
    return (entry & kPresent) != 0 ? entry & kFrameMask : 0;
}

tl::unexpected<Error> bpf_failure(int error, const std::string& what) {
    const std::string said = take_bpf_log();
    const auto code = error == EPERM || error == EACCES ? Code::kForbidden : Code::kUnsupported;
    return fail(code,
                fmt::format("{}: {}{}{}", what, std::strerror(error), said.empty() ? "" : ": ",
                            said.substr(0, 2000)),
                code == Code::kForbidden
                    ? "run the agent with CAP_BPF and CAP_PERFMON, on a kernel that is not locked "
                      "down for confidentiality"
                    : "see `farshore agent check`");
}

// One direct read into a page that holds a fresh number. True: the program read that number.
Result<bool> probe_once(Probe& probe, int fd, Page& page) {
    std::random_device random;
    uint64_t number[2] = {(uint64_t{random()} << 32) | random() | 1,
                          (uint64_t{random()} << 32) | random() | 1};
    std::memcpy(page.at, number, sizeof number);
    const uint64_t seen = __atomic_load_n(&probe.shared->seen, __ATOMIC_ACQUIRE);
    if (::pread(fd, page.at, 4096, 0) < 0)
        return fail_errno(errno, "read the first sector of the disk");
    if (__atomic_load_n(&probe.shared->seen, __ATOMIC_ACQUIRE) == seen)
        return fail(Code::kUnsupported,
                    "a read of the disk did not pass the kernel's tracepoint block_rq_issue",
                    "protect the disks that it is made of");
    return probe.shared->failed == 0 &&
           std::memcmp(probe.shared->found, number, sizeof number) == 0;
}

}  // namespace

void keep_bpf_log() { libbpf_set_print(keep_line); }

std::string take_bpf_log() {
    const std::lock_guard hold(log_mutex);
    return std::exchange(log_text, {});
}

Result<KernelLayout> read_kernel_layout() {
    keep_bpf_log();
#if !defined(__x86_64__)
    return fail(Code::kUnsupported, "the in-guest capture knows x86-64 machines only",
                "protect the machine from its hypervisor");
#endif
    const std::unique_ptr<btf, void (*)(btf*)> types(btf__load_vmlinux_btf(), &btf__free);
    if (!types)
        return fail(Code::kUnsupported, "this kernel has no BTF (/sys/kernel/btf/vmlinux)",
                    "use a kernel built with CONFIG_DEBUG_INFO_BTF, or protect the machine from "
                    "its hypervisor");
    KernelLayout layout;
    const int typedef_id =
        btf__find_by_name_kind(types.get(), "btf_trace_block_rq_issue", BTF_KIND_TYPEDEF);
    if (typedef_id < 0)
        return fail(Code::kUnsupported, "this kernel has no tracepoint block_rq_issue",
                    "use a kernel of 5.10 or later with tracepoints");
    const btf_type* pointer =
        btf__type_by_id(types.get(), btf__type_by_id(types.get(), typedef_id)->type);
    const btf_type* function = btf__type_by_id(types.get(), pointer->type);
    // The first parameter is the program's own context; before 5.11 the queue came next.
    layout.issue_argument = btf_vlen(function) >= 3 ? 1 : 0;
    const int page_id = btf__find_by_name_kind(types.get(), "page", BTF_KIND_STRUCT);
    if (page_id < 0) return fail(Code::kUnsupported, "this kernel's BTF has no struct page");
    layout.page_struct_bytes = btf__type_by_id(types.get(), page_id)->size;
    const int flags_id = btf__find_by_name_kind(types.get(), "pageflags", BTF_KIND_ENUM);
    if (flags_id < 0) return fail(Code::kUnsupported, "this kernel's BTF has no page flags");
    const btf_type* flags = btf__type_by_id(types.get(), flags_id);
    bool found = false;
    for (int i = 0; i < btf_vlen(flags); ++i) {
        const struct btf_enum& value = ::btf_enum(flags)[i];
        if (std::string_view(btf__name_by_offset(types.get(), value.name_off)) != "PG_writeback")
            continue;
        layout.page_writeback_bit = static_cast<uint32_t>(value.val);
        found = true;
    }
    if (!found) return fail(Code::kUnsupported, "this kernel's BTF has no PG_writeback");
    return layout;
}

Status find_page_bases(const std::string& device, KernelLayout& layout) {
    keep_bpf_log();
    const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open disk '{}'", device));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0 || !S_ISBLK(info.st_mode))
        return fail(Code::kInvalidArgument, fmt::format("'{}' is no block device", device));
    Probe probe;
    probe.skeleton = block_probe_bpf__open();
    if (probe.skeleton == nullptr) return bpf_failure(errno, "the probe cannot be opened");
    probe.skeleton->rodata->issue_argument = layout.issue_argument;
    probe.skeleton->rodata->page_struct_bytes = layout.page_struct_bytes;
    if (const int failed = block_probe_bpf__load(probe.skeleton); failed != 0)
        return bpf_failure(-failed, "the kernel refuses the probe");
    void* mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
                          bpf_map__fd(probe.skeleton->maps.probe), 0);
    if (mapped == MAP_FAILED) return fail_errno(errno, "map the probe");
    probe.shared = static_cast<fs_probe*>(mapped);
    probe.shared->major = major(info.st_rdev);
    probe.shared->minor = minor(info.st_rdev);
    probe.shared->vmemmap_base = kDefaultVmemmap;
    probe.shared->page_offset_base = kDefaultPageOffset;
    const Symbols symbols = find_symbols();
    probe.shared->vmemmap_symbol = symbols.vmemmap_base;
    probe.shared->page_offset_symbol = symbols.page_offset_base;
    if (const int failed = block_probe_bpf__attach(probe.skeleton); failed != 0)
        return bpf_failure(-failed, "the probe cannot be attached");
    Page page;
    if (page.at == nullptr) return fail(Code::kLimitReached, "no memory for the probe");
    const auto take = [&] {
        layout.vmemmap_base = probe.shared->vmemmap_base;
        layout.page_offset_base = probe.shared->page_offset_base;
    };
    // What the kernel calls them, or else where they are without randomisation: the program uses
    // the symbols by itself.
    FS_ASSIGN(bool good, probe_once(probe, fd.get(), page));
    if (good) {
        take();
        return {};
    }
    probe.shared->vmemmap_symbol = probe.shared->page_offset_symbol = 0;
    probe.shared->vmemmap_base = kDefaultVmemmap;
    probe.shared->page_offset_base = kDefaultPageOffset;
    FS_ASSIGN(good, probe_once(probe, fd.get(), page));
    const uint64_t frame = frame_of(page.at);
    if (!good && frame != 0) {
        // The page structure's address and the frame's number give one base; the other one lies
        // somewhere below any address that the kernel maps directly, on a whole GiB.
        probe.shared->vmemmap_base = probe.shared->page - frame * layout.page_struct_bytes;
        const uint64_t top = probe.shared->request / kBaseAlignment * kBaseAlignment;
        const uint64_t steps =
            static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * 4096 / kBaseAlignment + 64;
        for (uint64_t i = 0; i <= steps && !good; ++i) {
            probe.shared->page_offset_base = top - i * kBaseAlignment;
            FS_ASSIGN(good, probe_once(probe, fd.get(), page));
        }
    }
    if (!good)
        return fail(Code::kUnsupported,
                    "the pages of a request cannot be read on this kernel: neither its symbols nor "
                    "a search gave the place of its memory",
                    "protect the machine from its hypervisor");
    take();
    return {};
}

}  // namespace farshore
