#include "ebpf/block_trace.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>

#include "ebpf/block_trace.skel.h"
#include "os/fd.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr size_t kPageBytes4K = 4096;
constexpr uint64_t kMissCheckUs = 50'000;
constexpr uint32_t kRecordBusy = 1u << 31, kRecordDiscarded = 1u << 30;
constexpr uint64_t kGranuleBytes = 1ull << kFsDirtyShift;
// For the marks of disks that are added later: 256 GiB.
constexpr uint64_t kSparePages = 256;
constexpr uint32_t kNoDevice = UINT32_MAX;

// Names of what is pinned, in this order.
constexpr const char* kMapNames[] = {"events", "in_flight", "dirty", "trace_state"};
constexpr const char* kProgramNames[] = {"on_complete", "on_issue"};

struct Mapping {
    uint8_t* at = nullptr;
    size_t bytes = 0;
    Mapping() = default;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (at != nullptr) ::munmap(at, bytes);
    }
    Status map(int fd, size_t length, int protection, uint64_t offset, const char* what) {
        void* mapped =
            ::mmap(nullptr, length, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
        if (mapped == MAP_FAILED) return fail_errno(errno, fmt::format("map the {}", what));
        at = static_cast<uint8_t*>(mapped);
        bytes = length;
        return {};
    }
};

uint64_t dirty_pages_of(uint64_t disk_bytes) {
    const uint64_t granules = (disk_bytes + kGranuleBytes - 1) / kGranuleBytes;
    return (granules + kFsDirtyPageBytes - 1) / kFsDirtyPageBytes;
}

fs_traced_disk entry_of(const TracedDisk& disk, uint32_t first_page, uint32_t pages) {
    return {disk.size_bytes == 0 ? kNoDevice : disk.major, disk.minor, first_page, pages, 0, 0};
}

tl::unexpected<Error> refused(int error, const std::string& what) {
    const std::string said = take_bpf_log();
    const bool rights = error == EPERM || error == EACCES;
    return fail(
        rights ? Code::kForbidden : (error == ENOMEM ? Code::kLimitReached : Code::kUnsupported),
        fmt::format("{}: {}{}{}", what, std::strerror(error), said.empty() ? "" : ": ",
                    said.substr(0, 2000)),
        rights ? "run the agent with CAP_BPF and CAP_PERFMON, on a kernel that is not "
                 "locked down for confidentiality"
               : "see `farshore agent check`");
}

std::string pin_path(const std::string& directory, const char* name) {
    return directory + "/" + name;
}

}  // namespace

struct BlockTrace::Impl {
    BlockTraceOptions options;
    block_trace_bpf* skeleton = nullptr;
    UniqueFd maps[4];
    UniqueFd links[2];  // of pinned programs
    UniqueFd epoll;

    Mapping state_map, dirty_map, consumer_page, producer_pages;
    uint64_t ring_bytes = 0;
    uint64_t read_at = 0;  // of the ring
    uint64_t released = 0;
    std::optional<uint64_t> issue_missed, complete_missed;  // not dealt with yet
    int64_t misses_checked_us = 0;
    RealClock clock;

    ~Impl() { block_trace_bpf__destroy(skeleton); }

    fs_trace_state* state() const { return reinterpret_cast<fs_trace_state*>(state_map.at); }
    int fd(size_t map) const { return maps[map].get(); }

    Status adopt();
    Status load();
    Status map_all();
    Status change_disks();
    void check_misses();
    std::optional<uint64_t> misses_of(size_t program) const;
    void forget_in_flight(const std::function<void(DiskIndex, ByteRange)>& marked);
    // First granule of a disk from `from` on that is marked; nullopt: none.
    std::optional<uint64_t> next_mark(size_t disk, uint64_t from) const;
    uint8_t* marks_of(size_t disk) const {
        return dirty_map.at + size_t{state()->disks[disk].dirty_page} * kFsDirtyPageBytes;
    }
    uint64_t whole_of(size_t disk) const {
        return std::atomic_ref<fs_u64>(state()->disks[disk].whole).load(std::memory_order_acquire);
    }
    template <typename T>
    static T load_acquire(const uint8_t* at) {
        return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<uint8_t*>(at)))
            .load(std::memory_order_acquire);
    }
    uint64_t produced() const { return load_acquire<uint64_t>(producer_pages.at); }
};

Status mount_bpf_directory() {
    struct statfs info {};
    if (::statfs(kBpfDirectory, &info) == 0 && static_cast<uint64_t>(info.f_type) == BPF_FS_MAGIC)
        return {};
    if (::mount("bpf", kBpfDirectory, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0)
        return fail_errno(errno, fmt::format("mount a bpffs on {}", kBpfDirectory));
    return {};
}

// ---- taking over, or making it anew -------------------------------------------------------------

Status BlockTrace::Impl::adopt() {
    for (size_t i = 0; i < 4; ++i) {
        maps[i] = UniqueFd(bpf_obj_get(pin_path(options.pin_directory, kMapNames[i]).c_str()));
        if (!maps[i]) return fail_errno(errno, "take over the pinned trace");
    }
    for (size_t i = 0; i < 2; ++i) {
        links[i] = UniqueFd(bpf_obj_get(pin_path(options.pin_directory, kProgramNames[i]).c_str()));
        if (!links[i]) return fail_errno(errno, "take over the pinned trace");
    }
    FS_TRY(map_all());
    if (state()->abi != kFsTraceAbi)
        return fail(Code::kNewerVersion, "the pinned trace is of another version");
    return change_disks();
}

// The program looks at a disk's entry once the count includes it, and at no entry of numbers that
// no device has. A disk that finds no pages for its marks, or has grown beyond its own, is marked
// as a whole when something of it is lost.
Status BlockTrace::Impl::change_disks() {
    fs_trace_state& shared = *state();
    const size_t known_disks = shared.disk_count;
    if (options.disks.size() < known_disks)
        return fail(Code::kDiskChanged, "the pinned trace is of other disks");
    for (size_t i = 0; i < known_disks; ++i) {
        const fs_traced_disk& known = shared.disks[i];
        const TracedDisk& wanted = options.disks[i];
        if (wanted.size_bytes == 0) continue;
        if (known.major != wanted.major || known.minor != wanted.minor ||
            known.dirty_pages > dirty_pages_of(wanted.size_bytes))
            return fail(Code::kDiskChanged, "the pinned trace is of other disks");
    }
    for (size_t i = 0; i < known_disks; ++i)
        if (options.disks[i].size_bytes == 0) shared.disks[i].major = kNoDevice;
    const uint64_t pages = dirty_map.bytes / kFsDirtyPageBytes;
    uint64_t used = 0;
    for (size_t i = 0; i < known_disks; ++i)
        used = std::max<uint64_t>(
            used, uint64_t{shared.disks[i].dirty_page} + shared.disks[i].dirty_pages);
    for (size_t i = known_disks; i < options.disks.size(); ++i) {
        const auto count = static_cast<uint32_t>(
            std::min(dirty_pages_of(options.disks[i].size_bytes), pages - std::min(pages, used)));
        shared.disks[i] = entry_of(options.disks[i], static_cast<uint32_t>(used), count);
        used += count;
    }
    std::atomic_ref<uint32_t>(shared.disk_count)
        .store(static_cast<uint32_t>(options.disks.size()), std::memory_order_release);
    return {};
}

Status BlockTrace::Impl::load() {
    FS_ASSIGN(KernelLayout layout, read_kernel_layout());
    const auto probed = std::ranges::find_if(
        options.disks, [](const TracedDisk& disk) { return disk.size_bytes != 0; });
    if (probed == options.disks.end())
        return fail(Code::kInvalidArgument, "no disk to trace is left");
    FS_TRY(find_page_bases(probed->device, layout));
    (void)take_bpf_log();
    skeleton = block_trace_bpf__open();
    if (skeleton == nullptr) return refused(errno, "the program cannot be opened");
    std::random_device random;
    const uint64_t key = (uint64_t{random()} << 32) | random();
    skeleton->rodata->issue_argument = layout.issue_argument;
    skeleton->rodata->page_struct_bytes = layout.page_struct_bytes;
    skeleton->rodata->page_writeback_bit = layout.page_writeback_bit;
    skeleton->rodata->vmemmap_base = layout.vmemmap_base;
    skeleton->rodata->page_offset_base = layout.page_offset_base;
    skeleton->rodata->sum_key = key;
    uint64_t pages = 0;
    for (const TracedDisk& disk : options.disks) pages += dirty_pages_of(disk.size_bytes);
    pages += kSparePages;
    if (bpf_map__set_max_entries(skeleton->maps.events,
                                 static_cast<uint32_t>(options.ring_bytes)) != 0 ||
        bpf_map__set_max_entries(skeleton->maps.dirty, static_cast<uint32_t>(pages)) != 0)
        return fail(Code::kInvalidArgument,
                    fmt::format("a ring of {} bytes is not to be had", options.ring_bytes));
    if (const int failed = block_trace_bpf__load(skeleton); failed != 0)
        return refused(-failed, "the kernel refuses the program");
    bpf_map* const all[] = {skeleton->maps.events, skeleton->maps.in_flight, skeleton->maps.dirty,
                            skeleton->maps.trace_state};
    for (size_t i = 0; i < 4; ++i) maps[i] = UniqueFd(::dup(bpf_map__fd(all[i])));
    FS_TRY(map_all());
    fs_trace_state& shared = *state();
    shared.abi = kFsTraceAbi;
    shared.sum_key = key;
    shared.position_base = options.first_position;
    uint32_t first = 0;
    for (size_t i = 0; i < options.disks.size(); ++i) {
        const auto count = static_cast<uint32_t>(dirty_pages_of(options.disks[i].size_bytes));
        shared.disks[i] = entry_of(options.disks[i], first, count);
        first += count;
    }
    std::atomic_ref<uint32_t>(shared.disk_count)
        .store(static_cast<uint32_t>(options.disks.size()), std::memory_order_release);
    // The end of requests first: one that is seen to begin is then seen to end.
    bpf_program* const programs[] = {skeleton->progs.on_complete, skeleton->progs.on_issue};
    bpf_link** const slots[] = {&skeleton->links.on_complete, &skeleton->links.on_issue};
    for (size_t i = 0; i < 2; ++i) {
        *slots[i] = bpf_program__attach(programs[i]);
        if (*slots[i] == nullptr) return refused(errno, "the program cannot be attached");
        links[i] = UniqueFd(::dup(bpf_link__fd(*slots[i])));
    }
    if (options.pin_directory.empty()) return {};
    if (::mkdir(options.pin_directory.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno(errno, fmt::format("make '{}'", options.pin_directory));
    // Links first: until all is there, the next process makes it anew and removes these.
    for (size_t i = 0; i < 2; ++i)
        if (const int failed =
                bpf_link__pin(*slots[i], pin_path(options.pin_directory, kProgramNames[i]).c_str());
            failed != 0)
            return refused(-failed, "the program cannot be pinned");
    for (size_t i = 0; i < 4; ++i)
        if (bpf_obj_pin(fd(i), pin_path(options.pin_directory, kMapNames[i]).c_str()) != 0)
            return refused(errno, "the program's maps cannot be pinned");
    return {};
}

Status BlockTrace::Impl::map_all() {
    bpf_map_info info{};
    uint32_t length = sizeof info;
    if (bpf_obj_get_info_by_fd(fd(0), &info, &length) != 0)
        return fail_errno(errno, "examine the ring");
    ring_bytes = info.max_entries;
    bpf_map_info dirty_info{};
    length = sizeof dirty_info;
    if (bpf_obj_get_info_by_fd(fd(2), &dirty_info, &length) != 0)
        return fail_errno(errno, "examine the dirty map");
    // The kernel's layout of a ring: a page for the consumer, one for the producer, and the data
    // twice in a row (Documentation/bpf/ringbuf.rst).
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    FS_TRY(consumer_page.map(fd(0), page, PROT_READ | PROT_WRITE, 0, "ring's consumer page"));
    FS_TRY(producer_pages.map(fd(0), page + 2 * ring_bytes, PROT_READ, page, "ring"));
    FS_TRY(dirty_map.map(fd(2), size_t{dirty_info.max_entries} * kFsDirtyPageBytes,
                         PROT_READ | PROT_WRITE, 0, "dirty map"));
    FS_TRY(state_map.map(fd(3),
                         (sizeof(fs_trace_state) + kPageBytes4K - 1) / kPageBytes4K * kPageBytes4K,
                         PROT_READ | PROT_WRITE, 0, "trace's state"));
    read_at = released = load_acquire<uint64_t>(consumer_page.at);
    epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    if (!epoll || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd(0), &wanted) != 0)
        return fail_errno(errno, "watch the ring");
    return {};
}

BlockTrace::BlockTrace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BlockTrace::~BlockTrace() = default;

Result<std::unique_ptr<BlockTrace>> BlockTrace::open(const BlockTraceOptions& options) {
    keep_bpf_log();
    (void)take_bpf_log();
    if (options.disks.empty() || options.disks.size() > kFsMaxTracedDisks)
        return fail(Code::kInvalidArgument, fmt::format("{} disks to trace", options.disks.size()));
    if (!options.pin_directory.empty() && exists(options.pin_directory)) {
        auto impl = std::make_unique<Impl>();
        impl->options = options;
        if (impl->adopt()) return std::unique_ptr<BlockTrace>(new BlockTrace(std::move(impl)));
        FS_TRY(remove(options.pin_directory));
    }
    auto impl = std::make_unique<Impl>();
    impl->options = options;
    if (auto loaded = impl->load(); !loaded) {
        if (!options.pin_directory.empty()) (void)remove(options.pin_directory);
        return fail(loaded.error());
    }
    return std::unique_ptr<BlockTrace>(new BlockTrace(std::move(impl)));
}

bool BlockTrace::exists(const std::string& pin_directory) {
    return ::access(pin_path(pin_directory, kProgramNames[1]).c_str(), F_OK) == 0;
}

Status BlockTrace::remove(const std::string& pin_directory) {
    // The programs go first: what is left is then only memory.
    for (const char* name : kProgramNames)
        if (::unlink(pin_path(pin_directory, name).c_str()) != 0 && errno != ENOENT)
            return fail_errno(errno, fmt::format("detach '{}/{}'", pin_directory, name));
    for (const char* name : kMapNames)
        if (::unlink(pin_path(pin_directory, name).c_str()) != 0 && errno != ENOENT)
            return fail_errno(errno, fmt::format("remove '{}/{}'", pin_directory, name));
    if (::rmdir(pin_directory.c_str()) != 0 && errno != ENOENT)
        return fail_errno(errno, fmt::format("remove '{}'", pin_directory));
    return {};
}

// ---- reading ------------------------------------------------------------------------------------

bool BlockTrace::primed() const { return impl_->state()->primed != 0; }
void BlockTrace::set_primed() {
    std::atomic_ref<fs_u32>(impl_->state()->primed).store(1, std::memory_order_release);
}
uint64_t BlockTrace::requests() const {
    return std::atomic_ref<fs_u64>(impl_->state()->requests).load(std::memory_order_relaxed);
}
uint64_t BlockTrace::unreadable() const {
    return std::atomic_ref<fs_u64>(impl_->state()->unreadable).load(std::memory_order_relaxed);
}
uint64_t BlockTrace::kernel_bytes() const { return impl_->ring_bytes + impl_->dirty_map.bytes; }
uint64_t BlockTrace::ring_bytes() const { return impl_->ring_bytes; }
uint64_t BlockTrace::sum_key() { return impl_->state()->sum_key; }

void BlockTrace::wait(int64_t timeout_us) {
    Impl& trace = *impl_;
    std::atomic_ref<fs_u32> waiting(trace.state()->waiting);
    waiting.store(1, std::memory_order_seq_cst);
    if (trace.produced() == std::atomic_ref<uint64_t>(trace.read_at).load()) {
        epoll_event event;
        ::epoll_wait(trace.epoll.get(), &event, 1,
                     static_cast<int>(std::max<int64_t>(1, timeout_us / 1000)));
    }
    waiting.store(0, std::memory_order_relaxed);
}

std::optional<TraceEvent> BlockTrace::next() {
    Impl& trace = *impl_;
    const uint8_t* const data = trace.producer_pages.at + ::sysconf(_SC_PAGESIZE);
    while (trace.read_at < trace.produced()) {
        const uint8_t* const record = data + (trace.read_at & (trace.ring_bytes - 1));
        const auto header = Impl::load_acquire<uint32_t>(record);
        if (header & kRecordBusy) return std::nullopt;  // still being filled
        const uint32_t length = header & ~kRecordDiscarded;
        std::atomic_ref<uint64_t>(trace.read_at)
            .store(trace.read_at + ((uint64_t{length} + 8 + 7) & ~7ull));
        if (header & kRecordDiscarded || length < sizeof(fs_event)) continue;
        TraceEvent event;
        std::memcpy(&event.head, record + 8, sizeof event.head);
        if (event.head.kind == kFsEventData) {
            if (event.head.length > length - sizeof(fs_event)) continue;
            event.payload = {record + 8 + sizeof(fs_event), event.head.length};
        }
        event.position = trace.state()->position_base + trace.read_at;
        return event;
    }
    return std::nullopt;
}

uint64_t BlockTrace::reserved() { return impl_->state()->position_base + impl_->produced(); }
uint64_t BlockTrace::passed() {
    return impl_->state()->position_base + std::atomic_ref<uint64_t>(impl_->read_at).load();
}

void BlockTrace::release(uint64_t position) {
    Impl& trace = *impl_;
    const uint64_t at = position - trace.state()->position_base;
    if (at <= trace.released || at > trace.read_at) return;
    trace.released = at;
    std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(trace.consumer_page.at))
        .store(at, std::memory_order_release);
}

// ---- what is only marked ------------------------------------------------------------------------

uint64_t BlockTrace::drops() {
    impl_->check_misses();
    return std::atomic_ref<fs_u64>(impl_->state()->drops).load(std::memory_order_acquire);
}

std::optional<uint64_t> BlockTrace::Impl::misses_of(size_t program) const {
    bpf_link_info link{};
    uint32_t length = sizeof link;
    if (bpf_obj_get_info_by_fd(links[program].get(), &link, &length) != 0) return std::nullopt;
    const UniqueFd fd(bpf_prog_get_fd_by_id(link.prog_id));
    if (!fd) return std::nullopt;
    bpf_prog_info info{};
    length = sizeof info;
    if (bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0) return std::nullopt;
    return info.recursion_misses;
}

// From 6.0 on the kernel leaves a program out where it would interrupt itself, and counts that. An
// interrupt can end a request while another one's end is being told; nothing can begin one so.
void BlockTrace::Impl::check_misses() {
    const int64_t now = clock.steady_us();
    if (now - misses_checked_us < static_cast<int64_t>(kMissCheckUs)) return;
    misses_checked_us = now;
    const fs_u64* const taken = state()->misses_taken;
    const auto complete = misses_of(0), issue = misses_of(1);
    bool news = false;
    if (complete && *complete != taken[0] && complete_missed != complete) {
        complete_missed = complete;
        news = true;
    }
    if (issue && *issue != taken[1] && issue_missed != issue) {
        issue_missed = issue;
        news = true;
    }
    // So that the consumer comes for it.
    if (news) std::atomic_ref<fs_u64>(state()->drops).fetch_add(1);
}

// An end was missed: nobody knows whose. Each request that seems to be in flight is forgotten, and
// what it wrote is read again; those that do end later are then unknown, and are marked once more.
void BlockTrace::Impl::forget_in_flight(const std::function<void(DiskIndex, ByteRange)>& marked) {
    uint64_t key = 0;
    std::vector<uint64_t> keys;
    for (int more = bpf_map_get_next_key(fd(1), nullptr, &key); more == 0;
         more = bpf_map_get_next_key(fd(1), &key, &key)) {
        keys.push_back(key);
        if (keys.size() >= kFsInFlightRequests) break;
    }
    for (const uint64_t request : keys) {
        fs_in_flight entry{};
        if (bpf_map_lookup_elem(fd(1), &request, &entry) != 0 || entry.disk >= options.disks.size())
            continue;
        if (entry.ranges)
            marked(entry.disk, {0, options.disks[entry.disk].size_bytes});
        else
            marked(entry.disk, {entry.offset, entry.length});
        bpf_map_delete_elem(fd(1), &request);
    }
}

std::optional<uint64_t> BlockTrace::Impl::next_mark(size_t disk, uint64_t from) const {
    const uint8_t* const marks = marks_of(disk);
    const uint64_t granules =
        std::min<uint64_t>((options.disks[disk].size_bytes + kGranuleBytes - 1) / kGranuleBytes,
                           size_t{state()->disks[disk].dirty_pages} * kFsDirtyPageBytes);
    for (uint64_t at = from; at < granules; ++at) {
        // Eight at a time where nothing is marked, which is nearly everywhere.
        uint64_t eight;
        if (at + sizeof eight <= granules) {
            std::memcpy(&eight, marks + at, sizeof eight);
            if (eight == 0) {
                at += sizeof eight - 1;
                continue;
            }
        }
        if (load_acquire<uint8_t>(marks + at) != 0) return at;
    }
    return std::nullopt;
}

bool BlockTrace::marked() {
    Impl& trace = *impl_;
    if (trace.complete_missed || trace.issue_missed) return true;
    for (size_t i = 0; i < trace.options.disks.size(); ++i)
        if (trace.whole_of(i) != trace.state()->disks[i].whole_taken || trace.next_mark(i, 0))
            return true;
    return false;
}

void BlockTrace::harvest(const std::function<void(DiskIndex, ByteRange)>& marked) {
    Impl& trace = *impl_;
    fs_trace_state& state = *trace.state();
    if (trace.complete_missed) {
        trace.forget_in_flight(marked);
        state.misses_taken[0] = *trace.complete_missed;
        trace.complete_missed.reset();
    }
    for (size_t i = 0; i < trace.options.disks.size(); ++i) {
        const auto disk = static_cast<DiskIndex>(i);
        const uint64_t size = trace.options.disks[i].size_bytes;
        const uint64_t whole = trace.whole_of(i);
        if (whole != state.disks[i].whole_taken || trace.issue_missed) {
            marked(disk, {0, size});
            state.disks[i].whole_taken = whole;
        }
        uint8_t* const marks = trace.marks_of(i);
        uint64_t from = 0;
        while (const auto at = trace.next_mark(i, from)) {
            const uint64_t offset = *at * kGranuleBytes;
            marked(disk, {offset, std::min(kGranuleBytes, size - offset)});
            // A mark that comes before this is for a write whose end marks it again, or is over.
            std::atomic_ref<uint8_t>(marks[*at]).store(0, std::memory_order_seq_cst);
            from = *at + 1;
        }
    }
    if (trace.issue_missed) {
        state.misses_taken[1] = *trace.issue_missed;
        trace.issue_missed.reset();
    }
}

bool BlockTrace::in_flight(uint64_t request) {
    fs_in_flight entry{};
    return bpf_map_lookup_elem(impl_->fd(1), &request, &entry) == 0;
}

}  // namespace farshore
