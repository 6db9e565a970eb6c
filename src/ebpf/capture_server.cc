#include "ebpf/capture_server.h"

#include <fmt/core.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "block/direct_device.h"
#include "block/removed_device.h"
#include "capture/tap_runner.h"
#include "ebpf/block_capture.h"
#include "ebpf/block_trace.h"
#include "ebpf/clean_stop.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

// After a wake-up the ring is left to fill for this long: a wake-up a write would cost the writer
// more than a millisecond costs the RPO.
constexpr int kGatherMs = 1;
// An event that comes while the consumer falls asleep waits this long at most.
constexpr int64_t kSleepUs = 50'000;
// Between two looks at how full the ring is.
constexpr size_t kDrainEvents = 1024;

Result<TracedDisk> traced_disk(const ServedDisk& disk) {
    if (disk.backing == BackingKind::kNone) return TracedDisk{};
    struct stat info {};
    if (::stat(disk.path.c_str(), &info) != 0)
        return fail_errno(errno, fmt::format("examine '{}'", disk.path));
    if (!S_ISBLK(info.st_mode))
        return fail(Code::kInvalidArgument, fmt::format("'{}' is no block device", disk.path));
    return TracedDisk{disk.path, major(info.st_rdev), minor(info.st_rdev), disk.size_bytes};
}

}  // namespace

struct CaptureServer::Impl {
    TapConfig config;
    PosixFileSystem file_system;
    RealClock clock;
    RealRandom random;
    std::optional<InstanceLock> lock;
    CaptureFiles files;
    std::unique_ptr<Tap> tap;
    std::unique_ptr<BlockTrace> trace;
    std::unique_ptr<BlockCapture> capture;
    std::unique_ptr<TapRunner> runner;
    std::atomic<bool> stopping{false};
    std::thread draining;

    ~Impl() {
        stopping = true;
        if (draining.joinable()) draining.join();
        runner.reset();
    }
    Status start_tap();
    Status start_trace();
    void prime();
    class Urgency;
    void drain();
};

Status CaptureServer::Impl::start_tap() {
    TapOptions options;
    options.mode = TapMode::kBlock;
    for (const ServedDisk& disk : config.disks) {
        if (disk.backing == BackingKind::kNone) {
            options.devices.push_back(std::make_unique<RemovedDevice>());
            continue;
        }
        FS_ASSIGN(auto device, open_direct_device(disk.path, disk.size_bytes));
        options.devices.push_back(std::move(device));
    }
    FS_ASSIGN(lock, lock_tap(config.capture.shared_memory_path));
    FS_ASSIGN(files, CaptureFiles::open(config.capture, file_system));
    FS_ASSIGN(options.dirty,
              CaptureFiles::open_dirty_map(config.capture, file_system, files.header));
    files.header.word(LogWord::kTapPid).store(static_cast<uint64_t>(::getpid()));
    options.header = files.header;
    options.spill = files.spill.get();
    options.clock = &clock;
    options.random = &random;
    options.wake = real_wake();
    FS_ASSIGN(tap, Tap::start(std::move(options)));
    return {};
}

Status CaptureServer::Impl::start_trace() {
    BlockTraceOptions options;
    options.pin_directory = config.trace_pin_directory;
    options.ring_bytes = config.trace_ring_bytes;
    options.first_position = tap->producer().state().source_position;
    for (const ServedDisk& disk : config.disks) {
        FS_ASSIGN(TracedDisk traced, traced_disk(disk));
        options.disks.push_back(std::move(traced));
    }
    FS_ASSIGN(trace, BlockTrace::open(options));
    const bool primed = trace->primed();
    if (!primed) {
        prime();
        trace->set_primed();
    }
    log::info("capture", "{} disks are traced, {}", options.disks.size(),
              primed ? "as they were before this process" : "from now on");
    capture = std::make_unique<BlockCapture>(tap->producer(), *trace);
    tap->set_barrier(capture.get());
    return {};
}

// What was written while nothing traced is unknown, but for a trace that began with the kernel and
// a shutdown that said what was left. The trace runs already.
void CaptureServer::Impl::prime() {
    CaptureProducer& producer = tap->producer();
    // Gone when it was read: a process that is killed behind this takes everything for unknown.
    auto stop = take_handed_over(config.capture.item);
    const bool clean =
        stop && stop->item == config.capture.item && stop->disk_bytes == config.capture.disk_bytes;
    // The replica has something once anything was stored, or this log goes on from an earlier one.
    const bool compare = producer.header().word(LogWord::kStored).load() != 0 ||
                         producer.header().word(LogWord::kCompareState).load() != 0;
    producer.open_gap(
        [&] {
            for (size_t i = 0; i < producer.disks(); ++i) {
                TodoMap& todo = producer.todo(static_cast<DiskIndex>(i));
                if (clean)
                    todo.clear(0, todo.disk_bytes());
                else
                    todo.set_all();
            }
            if (clean)
                for (const CleanStop::Range& one : stop->ranges)
                    producer.todo(one.disk).set(one.range.offset_bytes, one.range.length_bytes);
            producer.header().word(LogWord::kCopyTotalGranules).store(0);
            producer.header().word(LogWord::kCopyDoneGranules).store(0);
        },
        compare);
    if (clean) {
        uint64_t bytes = 0;
        for (const CleanStop::Range& one : stop->ranges) bytes += one.range.length_bytes;
        log::info("capture", "the machine was stopped cleanly: {} bytes are read again", bytes);
    } else if (stop || stop.error().code() != Code::kNotFound) {
        log::warn("capture", "what the last shutdown left is not usable: everything is read again");
    } else {
        log::info("capture", "what was written before now is not known: everything is read");
    }
}

// Whoever writes so much that the ring fills gives up processor time for it rather than points: a
// full ring is a gap. Without the right to do so (CAP_SYS_NICE) the thread stays what it is.
class CaptureServer::Impl::Urgency {
  public:
    void follow(uint64_t waiting_bytes, uint64_t ring_bytes) {
        if (urgent_ ? waiting_bytes * kCalmShare < ring_bytes
                    : waiting_bytes * kUrgentShare > ring_bytes)
            set(!urgent_);
    }

  private:
    void set(bool urgent) {
        const sched_param priority{.sched_priority = urgent ? 1 : 0};
        (void)::sched_setscheduler(0, urgent ? SCHED_RR : SCHED_OTHER, &priority);
        urgent_ = urgent;
    }
    static constexpr uint64_t kUrgentShare = 8, kCalmShare = 64;
    bool urgent_ = false;
};

void CaptureServer::Impl::drain() {
    Urgency urgency;
    while (!stopping) {
        urgency.follow(trace->reserved() - trace->passed(), trace->ring_bytes());
        const size_t taken = capture->drain(kDrainEvents);
        if (taken == kDrainEvents) continue;
        if (taken == 0) trace->wait(kSleepUs);
        pause_ms(kGatherMs);
    }
}

CaptureServer::CaptureServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CaptureServer::~CaptureServer() = default;

Result<std::unique_ptr<CaptureServer>> CaptureServer::start(TapConfig config,
                                                            std::function<void()> on_quit) {
    auto impl = std::make_unique<Impl>();
    impl->config = std::move(config);
    FS_TRY(impl->start_tap());
    FS_TRY(impl->start_trace());
    impl->draining = std::thread([made = impl.get()] { made->drain(); });
    impl->runner = std::make_unique<TapRunner>(*impl->tap, std::move(on_quit));
    return std::unique_ptr<CaptureServer>(new CaptureServer(std::move(impl)));
}

}  // namespace farshore
