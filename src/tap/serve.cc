#include "tap/serve.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "block/file_device.h"
#include "block/nbd_device.h"
#include "block/overlay_device.h"
#include "block/replica_device.h"
#include "os/process.h"
#include "os/real.h"
#include "os/waiting.h"
#include "os/worker_pool.h"
#include "replica/replica_reader.h"
#include "store/directory_store.h"

namespace farshore {
namespace {

// Beside nbdkit's threads, which open and decode what their clients ask for.
constexpr size_t kOpeners = 2;
// Tasks of reading ahead that wait or run. When the helper is behind, the reader itself decodes
// what it needs, and more in the queue would only be late.
constexpr int kMaxAhead = 8;

}  // namespace

struct Server::Impl {
    TapConfig config;
    PosixFileSystem file_system;
    RealClock clock;
    RealRandom random;
    std::unique_ptr<ObjectStore> store;
    std::unique_ptr<WorkerPool> helpers;
    std::shared_ptr<ReplicaReader> reader;
    std::atomic<int> ahead_waiting{0};
    std::unique_ptr<ThreadExecutor> ahead;  // ends before what its tasks use
    std::optional<InstanceLock> lock;       // one tap for a capture log
    CaptureFiles files;
    std::vector<std::unique_ptr<BlockDevice>> devices;  // given to the tap when there is one
    std::unique_ptr<DirtyMap> dirty;
    std::unique_ptr<Tap> tap;

    std::thread housekeeping;
    std::thread copying;
    std::mutex mutex;
    std::condition_variable work;
    uint64_t news = 0;
    bool stopping = false;

    ~Impl();
    bool captures() const { return config.mode != ServeMode::kPlain; }
    Result<std::unique_ptr<BlockDevice>> open_device(const ServedDisk& disk);
    Status open_devices();
    Status open_replica();
    Status take_lock();
    void keep_house(const std::function<void()>& on_quit);
    void copy();
    bool stopped();
};

Server::Impl::~Impl() {
    {
        std::lock_guard guard(mutex);
        stopping = true;
    }
    work.notify_all();
    if (housekeeping.joinable()) {
        auto& bell = files.header.futex(LogWord::kTapDoorbell);
        bell.fetch_add(1);
        futex_wake(bell);
        housekeeping.join();
    }
    if (copying.joinable()) copying.join();
}

// Held as long as the process lives, however it ends: the kernel lets go of it.
Status Server::Impl::take_lock() {
    const std::string path = config.capture.shared_memory_path + ".tap";
    Result<InstanceLock> taken = fail(Code::kInternal, "");
    // The tap before us may be dying.
    wait_until(5'000, 50, [&] {
        taken = InstanceLock::acquire(path);
        return taken || taken.error().code() != Code::kDuplicateIdentity;
    });
    if (!taken) return fail(taken.error().with_context("the tap's lock"));
    lock.emplace(std::move(*taken));
    return {};
}

Result<std::unique_ptr<BlockDevice>> Server::Impl::open_device(const ServedDisk& disk) {
    std::unique_ptr<BlockDevice> device;
    switch (disk.backing) {
        case BackingKind::kFile: {
            FileDeviceOptions options;
            options.read_only = disk.read_only;
            options.expect_bytes = disk.size_bytes;
            FS_ASSIGN(device, open_file_device(disk.path, options));
            break;
        }
        case BackingKind::kNbd: {
            NbdDeviceOptions options;
            options.uri = disk.uri;
            options.expect_bytes = disk.size_bytes;
            options.writable = config.mode != ServeMode::kMirror && !disk.read_only;
            FS_ASSIGN(device, open_nbd_device(std::move(options)));
            break;
        }
        case BackingKind::kReplica: {
            FS_TRY(open_replica());
            FS_ASSIGN(auto replica_disk, reader->disk(disk.replica_disk));
            device = make_replica_device(std::move(replica_disk));
            if (disk.size_bytes != 0 && device->size_bytes() != disk.size_bytes)
                return fail(Code::kDiskChanged,
                            fmt::format("the replica's disk has {} bytes, {} were expected",
                                        device->size_bytes(), disk.size_bytes));
            break;
        }
    }
    if (!disk.overlay_path.empty()) {
        FS_ASSIGN(device, open_overlay_files(std::move(device), disk.overlay_path, file_system));
    }
    return device;
}

Status Server::Impl::open_devices() {
    for (const ServedDisk& disk : config.disks) {
        auto device = open_device(disk);
        if (!device) return fail(device.error().with_context(fmt::format("disk {}", disk.index)));
        devices.push_back(std::move(*device));
    }
    return {};
}

Status Server::Impl::open_replica() {
    if (reader) return {};
    const ServedReplica& replica = *config.replica;
    FS_ASSIGN(store, DirectoryStore::open(file_system, random, {replica.store_directory, false}));
    ReplicaReaderOptions options;
    options.cache_bytes = replica.cache_bytes;
    helpers = std::make_unique<WorkerPool>(kOpeners);
    ahead = std::make_unique<ThreadExecutor>("read-ahead");
    options.parallel = [this](size_t n, const std::function<void(size_t)>& job) {
        helpers->run(n, job);
    };
    options.background = [this](std::function<void()> task) {
        if (ahead_waiting.fetch_add(1) >= kMaxAhead) {
            ahead_waiting.fetch_sub(1);
            return;
        }
        ahead->post([this, task = std::move(task)] {
            task();
            ahead_waiting.fetch_sub(1);
        });
    };
    FS_ASSIGN(reader, ReplicaReader::open(*store, replica.item, replica.item_key, replica.sequence,
                                          std::move(options)));
    return {};
}

bool Server::Impl::stopped() {
    std::lock_guard guard(mutex);
    return stopping;
}

void Server::Impl::keep_house(const std::function<void()>& on_quit) {
    auto& bell = files.header.futex(LogWord::kTapDoorbell);
    bool told = false;
    while (!stopped()) {
        const uint32_t seen = bell.load();
        const int64_t delay_us = tap->tick();
        {
            std::lock_guard guard(mutex);
            ++news;
        }
        work.notify_all();
        if (tap->quit_requested() && !told) {
            told = true;
            on_quit();
        }
        futex_wait(bell, seen, delay_us);
    }
}

void Server::Impl::copy() {
    for (;;) {
        uint64_t seen;
        {
            std::lock_guard guard(mutex);
            if (stopping) return;
            seen = news;
        }
        const Copier::Outcome outcome = tap->copier().step();
        if (outcome == Copier::Outcome::kWorked) continue;
        int64_t longest_us = 1'000'000;
        if (outcome == Copier::Outcome::kThrottled)
            longest_us = std::min<int64_t>(tap->copier().wait_us(), longest_us);
        if (outcome == Copier::Outcome::kNoSpace) {
            // Tell the agent to ring, then look once more: it may have made room in between.
            tap->producer().header().word(LogWord::kTapWantsSpace).store(1);
            if (tap->producer().room_for_copy() &&
                tap->producer().state().gap != GapState::kDropping)
                continue;
        }
        std::unique_lock guard(mutex);
        const auto until = [&] { return stopping || news != seen; };
        // Throttled, or after an error of the source: news do not make it sooner.
        if (outcome == Copier::Outcome::kThrottled || outcome == Copier::Outcome::kFailed)
            work.wait_for(guard, std::chrono::microseconds(longest_us), [&] { return stopping; });
        else
            work.wait_for(guard, std::chrono::microseconds(longest_us), until);
    }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::open(TapConfig config) {
    auto impl = std::make_unique<Impl>();
    impl->config = std::move(config);
    // A replica's reader has threads, which a fork would lose.
    if (!impl->config.replica) FS_TRY(impl->open_devices());
    if (impl->captures()) {
        FS_TRY(impl->take_lock());
        FS_ASSIGN(impl->files, CaptureFiles::open(impl->config.capture, impl->file_system));
        FS_ASSIGN(impl->dirty, CaptureFiles::open_dirty_map(impl->config.capture, impl->file_system,
                                                            impl->files.header));
    }
    return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Status Server::start(std::function<void()> on_quit) {
    if (impl_->config.replica) FS_TRY(impl_->open_devices());
    if (!impl_->captures()) return {};
    impl_->files.header.word(LogWord::kTapPid).store(static_cast<uint64_t>(::getpid()));
    TapOptions options;
    options.mode = impl_->config.capture.mode;
    options.header = impl_->files.header;
    options.devices = std::move(impl_->devices);
    options.dirty = std::move(impl_->dirty);
    options.spill = impl_->files.spill.get();
    options.clock = &impl_->clock;
    options.wake = real_wake();
    FS_ASSIGN(impl_->tap, Tap::start(std::move(options)));
    impl_->housekeeping = std::thread(
        [impl = impl_.get(), on_quit = std::move(on_quit)] { impl->keep_house(on_quit); });
    impl_->copying = std::thread([impl = impl_.get()] { impl->copy(); });
    return {};
}

const TapConfig& Server::config() const { return impl_->config; }
Tap* Server::tap() const { return impl_->tap.get(); }

BlockDevice* Server::device(const std::string& export_name) const {
    size_t position = 0;
    if (!export_name.empty()) {
        unsigned index = 0;
        const char* end = export_name.data() + export_name.size();
        const auto [at, error] = std::from_chars(export_name.data(), end, index);
        if (error != std::errc() || at != end) return nullptr;
        const auto& disks = impl_->config.disks;
        const auto found = std::find_if(disks.begin(), disks.end(), [&](const ServedDisk& disk) {
            return disk.index == index;
        });
        if (found == disks.end()) return nullptr;
        position = static_cast<size_t>(found - disks.begin());
    }
    if (impl_->tap) return &impl_->tap->disk(static_cast<DiskIndex>(position));
    return impl_->devices.empty() ? nullptr : impl_->devices[position].get();
}

Status Server::write(BlockDevice& device, uint64_t offset_bytes, ByteView data, bool through) {
    // The devices of a tap are TapDisks, all of them.
    if (impl_->tap && through)
        return static_cast<TapDisk&>(device).write_through(offset_bytes, data);
    FS_TRY(device.write(offset_bytes, data));
    if (through) FS_TRY(device.flush());
    return {};
}

}  // namespace farshore
