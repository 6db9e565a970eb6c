#include "tap/serve.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <optional>

#include "block/file_device.h"
#include "block/nbd_device.h"
#include "block/overlay_device.h"
#include "block/removed_device.h"
#include "block/replica_device.h"
#include "capture/tap_runner.h"
#include "os/process.h"
#include "os/real.h"
#include "os/worker_pool.h"
#include "replica/replica_reader.h"
#include "store/open_store.h"

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

    std::unique_ptr<TapRunner> runner;  // ends before the tap

    bool captures() const { return config.mode != ServeMode::kPlain; }
    Result<std::unique_ptr<BlockDevice>> open_device(const ServedDisk& disk);
    Status open_devices();
    Status open_replica();
};

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
        case BackingKind::kNone:
            return std::make_unique<RemovedDevice>();
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
    FS_ASSIGN(const StoreSettings settings, load_store_settings(file_system, replica.store_location,
                                                                replica.store_settings_file));
    FS_ASSIGN(store,
              open_retrying_store(file_system, clock, random, settings, false, sleep_for_retry));
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

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::open(TapConfig config) {
    auto impl = std::make_unique<Impl>();
    impl->config = std::move(config);
    // A replica's reader has threads, which a fork would lose.
    if (!impl->config.replica) FS_TRY(impl->open_devices());
    if (impl->captures()) {
        FS_ASSIGN(impl->lock, lock_tap(impl->config.capture.shared_memory_path));
        FS_ASSIGN(impl->files, CaptureFiles::open(impl->config.capture, impl->file_system));
        FS_ASSIGN(impl->dirty, CaptureFiles::open_dirty_map(impl->config.capture, impl->file_system,
                                                            impl->files.header));
    }
    return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Status Server::start(std::function<void()> on_quit, bool marks) {
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
    options.random = &impl_->random;
    options.wake = real_wake();
    options.marks = marks;
    FS_ASSIGN(impl_->tap, Tap::start(std::move(options)));
    impl_->runner = std::make_unique<TapRunner>(*impl_->tap, std::move(on_quit));
    return {};
}

const TapConfig& Server::config() const { return impl_->config; }
Tap* Server::tap() const { return impl_->tap.get(); }

BlockDevice* Server::device(const std::string& export_name) const {
    const auto& disks = impl_->config.disks;
    const auto there = [](const ServedDisk& disk) { return disk.backing != BackingKind::kNone; };
    auto found = std::ranges::find_if(disks, there);
    if (!export_name.empty()) {
        unsigned index = 0;
        const char* end = export_name.data() + export_name.size();
        const auto [at, error] = std::from_chars(export_name.data(), end, index);
        if (error != std::errc() || at != end) return nullptr;
        found = std::ranges::find_if(
            disks, [&](const ServedDisk& disk) { return disk.index == index && there(disk); });
    }
    if (found == disks.end()) return nullptr;
    const auto position = static_cast<size_t>(found - disks.begin());
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
