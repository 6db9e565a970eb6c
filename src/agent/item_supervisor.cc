#include "agent/item_supervisor.h"

#include <fmt/core.h>

#include <algorithm>
#include <csignal>

#include "agent/file_system_freeze.h"
#include "capture/capture_files.h"
#include "capture/tap_config.h"
#include "compute/local_machine.h"
#include "ebpf/block_trace.h"
#include "ebpf/freezer.h"
#include "os/log.h"
#include "os/shared_memory.h"
#include "os/waiting.h"

namespace farshore {
namespace {

// After a wake-up the log is left to fill for this long: a wake-up a write would cost the guest
// more than a millisecond costs the RPO.
constexpr int kWakePauseMs = 2;
constexpr int64_t kWatchUs = 200'000;
// Six ticks of the tap's housekeeping.
constexpr int64_t kTapSilenceUs = 1'500'000;
constexpr int64_t kSizesCheckUs = 2'000'000;
constexpr int64_t kTracerRetryUs = 5'000'000;
constexpr int kPointPollMs = 2;
constexpr int64_t kAnswerGraceUs = 200'000;
constexpr int64_t kTroubleShownUs = 15'000'000;
constexpr size_t kMaxDoneBookmarks = kMaxPendingBookmarks;

std::string short_id(const ItemId& item) { return item.to_string().substr(0, 12); }

}  // namespace

ItemSupervisor::ItemSupervisor(const SupervisorOptions& options, DesiredItem desired,
                               PartyId instance, ThreadExecutor& home, Dialer& dialer,
                               FileSystem& files, Clock& clock)
    : options_(options),
      item_(desired.item),
      instance_(instance),
      home_(home),
      dialer_(dialer),
      files_(files),
      clock_(clock),
      desired_(std::move(desired)) {
    status_.item = item_;
    worker_ = std::make_unique<ThreadExecutor>("item-" + short_id(item_).substr(0, 8));
    worker_->post([this] { tick(); });
}

ItemSupervisor::~ItemSupervisor() {
    stopping_ = true;
    if (session_) session_->poke();
    watcher_.reset();
    // A tick that is under way still uses the worker: it ends before its pointer goes.
    worker_->stop();
    worker_.reset();
    // The sender's callbacks run on home.
    (void)home_.run_sync([this] {
        compare_.reset();
        sender_.reset();
        source_.reset();
    });
}

std::string ItemSupervisor::item_directory() const {
    return options_.directory + "/items/" + item_.to_string();
}

std::string ItemSupervisor::session_lock_path() const {
    return options_.shared_directory + "/" + item_.to_string() + ".agent";
}

// Short, because a socket's path is.
std::string ItemSupervisor::tap_directory() const {
    return options_.directory + "/taps/" + short_id(item_);
}

CaptureConfig ItemSupervisor::capture_config(TapMode mode, std::vector<uint64_t> disk_bytes) const {
    CaptureConfig config;
    config.item = item_;
    config.mode = mode;
    config.shared_memory_path = options_.shared_directory + "/" + item_.to_string() + ".log";
    config.spill_path = item_directory() + "/spill";
    config.dirty_map_path = item_directory() + "/dirty";
    config.ring_bytes = options_.ring_bytes;
    config.spill_bytes = options_.spill_bytes;
    // A spill on a disk that is captured would feed the capture: then memory and the dirty map do.
    if (mode == TapMode::kBlock && lies_on_disks(item_directory(), devices_))
        config.spill_bytes = 0;
    config.disk_bytes = std::move(disk_bytes);
    {
        std::lock_guard lock(mutex_);
        config.first_at_least = desired_.stored.next();
    }
    return config;
}

void ItemSupervisor::desire(DesiredItem desired) {
    std::lock_guard lock(mutex_);
    desired_ = std::move(desired);
}

AgentItemStatus ItemSupervisor::status() const {
    std::lock_guard lock(mutex_);
    return status_;
}

void ItemSupervisor::tick() {
    if (stopping_ || removed_) return;
    DesiredItem desired;
    {
        std::lock_guard lock(mutex_);
        desired = desired_;
    }
    Status worked;
    if (desired.desired == Desired::kRemove) {
        worked = tear_down(desired);
        if (worked) removed_ = true;
    } else {
        worked = work(desired);
    }
    publish(desired, worked);
    if (!removed_) worker_->post_after_us(options_.tick_us, [this] { tick(); });
}

Status ItemSupervisor::work(const DesiredItem& desired) {
    FS_TRY(files_.make_directories(item_directory()));
    FS_TRY(files_.make_directories(tap_directory()));
    FS_TRY(files_.make_directories(options_.shared_directory));
    // A full disk must not end the protection: what is kept only matters to an agent that starts
    // while the vault is away.
    auto kept = save(desired);
    keeping_trouble_.reset();
    if (!kept) keeping_trouble_ = kept.error();
    switch (desired.mode) {
        case CaptureMode::kInPath:
            FS_TRY(prepare_in_path(desired));
            FS_TRY(ensure_tap(desired));
            break;
        case CaptureMode::kMirror:
            FS_TRY(prepare_mirror(desired));
            FS_TRY(ensure_tap(desired));
            FS_TRY(ensure_mirror());
            break;
        case CaptureMode::kDevice:
            FS_TRY(prepare_devices(desired));
            FS_TRY(ensure_tracer());
            break;
    }
    apply_settings(desired);
    serve_requests(desired);
    return {};
}

// So that an agent that starts while the vault is away goes on protecting.
Status ItemSupervisor::save(const DesiredItem& desired) {
    DesiredItem keep = desired;
    keep.bookmarks.clear();
    keep.stored = {};
    AgentInstructions document_of_one;
    document_of_one.items.push_back(keep);
    const std::string document = encode_instructions(document_of_one);
    const std::string path = item_directory() + "/desired.json";
    if (!saved_) {
        auto there = read_whole_file(files_, path);
        saved_ = there && as_text(*there) == document;
        if (saved_) saved_document_ = document;
    }
    if (saved_ && document == saved_document_) return {};
    FS_TRY(write_file_durably(files_, path, as_bytes(document)));
    saved_ = true;
    saved_document_ = document;
    return {};
}

Status ItemSupervisor::prepare_in_path(const DesiredItem& desired) {
    if (session_) {
        check_disk_sizes(desired);
        return {};
    }
    std::vector<uint64_t> sizes;
    std::vector<PlainDisk> plain;
    for (const DesiredDisk& disk : desired.disks) {
        FS_ASSIGN(std::unique_ptr<File> file, files_.open(disk.path, OpenMode::kRead));
        FS_ASSIGN(uint64_t size, file->size());
        if (size == 0)
            return fail(Code::kInvalidArgument, fmt::format("{} is empty", disk.path),
                        "protect a disk that has a size");
        sizes.push_back(size);
        plain.push_back({disk.path, size});
    }
    if (!machine_known_) {
        machine_ = describe_plain_machine(desired.name, plain);
        machine_known_ = true;
    }
    return open_session(TapMode::kInPath, sizes);
}

// The tap goes on with the size that was protected, so only health can tell. (QEMU lets nobody
// resize a disk that is mirrored.)
void ItemSupervisor::check_disk_sizes(const DesiredItem& desired) {
    const int64_t now_us = clock_.steady_us();
    if (now_us - sizes_checked_us_ < kSizesCheckUs) return;
    sizes_checked_us_ = now_us;
    size_trouble_.reset();
    const auto& known = session_->config().disk_bytes;
    if (desired.mode == CaptureMode::kDevice) {
        for (size_t i = 0; i < devices_.size(); ++i) {
            auto now = inspect_disk(devices_[i].device);
            if (!now)
                size_trouble_ = now.error();
            else if (now->size_bytes != known[i])
                size_trouble_ =
                    Error(Code::kDiskChanged,
                          fmt::format("{} had {} bytes when it was protected, now {}",
                                      devices_[i].device, known[i], now->size_bytes),
                          "what it gained is not protected: unprotect the machine and protect it "
                          "anew");
        }
        return;
    }
    for (size_t i = 0; i < known.size() && i < desired.disks.size(); ++i) {
        auto file = files_.open(desired.disks[i].path, OpenMode::kRead);
        auto size = file ? (*file)->size() : Result<uint64_t>(tl::unexpected(file.error()));
        if (!size) {
            size_trouble_ = size.error();
        } else if (*size != known[i]) {
            size_trouble_ =
                Error(Code::kDiskChanged,
                      fmt::format("{} had {} bytes when it was protected, now {}",
                                  desired.disks[i].path, known[i], *size),
                      "give it its old size again, or unprotect the machine and protect it anew");
        }
    }
}

// ---- this machine's own disks ------------------------------------------------------------------

std::string ItemSupervisor::pin_directory() const {
    return std::string(kBpfDirectory) + "/" + kPinPrefix + short_id(item_);
}

// Which disk is which was settled when protection began; their names may be others by now.
Status ItemSupervisor::find_devices(const DesiredItem& desired) {
    const std::string path = item_directory() + "/devices.json";
    std::vector<LocalDisk> found;
    auto kept = read_whole_file(files_, path, kMaxAgentDocumentBytes);
    if (kept) {
        FS_ASSIGN(const auto known, decode_devices(as_text(*kept)));
        for (const LocalDisk& disk : known) {
            FS_ASSIGN(LocalDisk now, find_disk(disk.identity, disk.device));
            found.push_back(std::move(now));
        }
    } else {
        if (kept.error().code() != Code::kNotFound) return fail(kept.error());
        for (const DesiredDisk& disk : desired.disks) {
            FS_ASSIGN(LocalDisk now, inspect_disk(disk.path));
            found.push_back(std::move(now));
        }
        FS_TRY(write_file_durably(files_, path, as_bytes(encode_devices(found))));
    }
    for (size_t i = 0; i < found.size(); ++i)
        for (size_t j = i + 1; j < found.size(); ++j)
            if (found[i].device == found[j].device)
                return fail(Code::kInvalidArgument,
                            fmt::format("{} is named twice", found[i].device));
    devices_ = std::move(found);
    return {};
}

Status ItemSupervisor::describe_this_machine(const DesiredItem& desired) {
    LocalMachineOptions options;
    options.name = desired.name;
    options.now = clock_.now();
    for (const LocalDisk& disk : devices_) options.disks.push_back({disk.device, disk.size_bytes});
    FS_ASSIGN(machine_, describe_local_machine(options));
    machine_known_ = true;
    return {};
}

Status ItemSupervisor::prepare_devices(const DesiredItem& desired) {
    if (session_) {
        check_disk_sizes(desired);
        return {};
    }
    FS_TRY(find_devices(desired));
    FS_TRY(mount_bpf_directory());
    if (!machine_known_) FS_TRY(describe_this_machine(desired));
    std::vector<uint64_t> sizes;
    for (const LocalDisk& disk : devices_) sizes.push_back(disk.size_bytes);
    FS_TRY(open_session(TapMode::kBlock, sizes));
    tell_early();
    return {};
}

// So that a clean restart need not read the disks again. Where that cannot be, everything is read.
void ItemSupervisor::tell_early() {
    auto blocks = set_aside_blocks(item_directory() + "/clean-stop", devices_);
    if (!blocks) {
        log::info("agent", "{}", blocks.error().what());
        return;
    }
    EarlyItem early;
    early.item = item_;
    early.config_path = tap_directory() + "/tap.json";
    early.pin_directory = pin_directory();
    early.trace_ring_bytes = options_.trace_ring_bytes;
    early.disks = devices_;
    early.blocks = std::move(*blocks);
    const std::lock_guard lock(mutex_);
    early_ = std::move(early);
}

std::optional<EarlyItem> ItemSupervisor::early() const {
    const std::lock_guard lock(mutex_);
    if (removed_) return std::nullopt;
    return early_;
}

Status ItemSupervisor::ensure_tracer() {
    if (tracer_ && tracer_->alive()) return {};
    const bool had_one = tracer_.has_value();
    tracer_.reset();
    if (auto running = CaptureProcess::adopt(tap_directory())) {
        tracer_ = std::move(*running);
        return {};
    }
    // The kernel's verifier takes its time: one that was refused is not asked again at once.
    if (tracer_error_ && clock_.steady_us() < tracer_retry_us_) return fail(*tracer_error_);
    TapConfig config;
    config.mode = ServeMode::kBlock;
    config.capture = session_->config();
    config.trace_pin_directory = pin_directory();
    config.trace_ring_bytes = options_.trace_ring_bytes;
    for (size_t i = 0; i < devices_.size(); ++i) {
        ServedDisk disk;
        disk.index = static_cast<DiskIndex>(i);
        disk.size_bytes = session_->config().disk_bytes[i];
        disk.path = devices_[i].device;
        disk.read_only = true;
        config.disks.push_back(std::move(disk));
    }
    auto started = CaptureProcess::start(tap_directory(), encode_tap_config(config));
    if (!started) {
        tracer_error_ = started.error();
        tracer_retry_us_ = clock_.steady_us() + kTracerRetryUs;
        return fail(started.error());
    }
    tracer_error_.reset();
    tracer_ = std::move(*started);
    if (had_one) ++tap_restarts_;
    return {};
}

// ---- a running QEMU
// ------------------------------------------------------------------------------

Status ItemSupervisor::prepare_mirror(const DesiredItem& desired) {
    if (qmp_) {
        // A monitor that is gone means a QEMU that is gone, or about to be.
        if (qmp_->connected()) return {};
        mirror_.reset();
        qmp_.reset();
    }
    auto connected = QmpClient::connect(desired.qmp_socket);
    if (!connected) {
        // Without its machine a tap would go on saying that nothing is written.
        if (tap_ && tap_->alive()) {
            (void)tap_->kill();
            tap_.reset();
        }
        return fail(connected.error().with_context("the machine can't be reached"));
    }
    FS_ASSIGN(MachineDescription now, capture_machine(**connected, desired.name, clock_.now()));
    if (!machine_known_) FS_TRY(recall_machine(now));
    FS_ASSIGN(mirror_disks_, match_disks(machine_, now));
    std::vector<uint64_t> sizes;
    for (const MachineDisk& disk : machine_.disks) sizes.push_back(disk.size_bytes);
    FS_TRY(open_session(TapMode::kMirror, sizes));
    MirrorOptions options;
    options.source_socket = tap_directory() + "/source.sock";
    options.tap_socket = tap_directory() + "/nbd.sock";
    options.disks = mirror_disks_;
    qmp_ = std::move(*connected);
    mirror_ = std::make_unique<MirrorControl>(*qmp_, options);
    return {};
}

// Which disk has which index was settled when protection began, and holds for a QEMU that lists
// them in another order.
Status ItemSupervisor::recall_machine(const MachineDescription& now) {
    const std::string path = item_directory() + "/machine.json";
    auto kept = read_whole_file(files_, path, kMaxMachineJsonBytes);
    if (kept) {
        FS_ASSIGN(machine_, decode_machine(as_text(*kept)));
    } else {
        if (kept.error().code() != Code::kNotFound) return fail(kept.error());
        machine_ = now;
        FS_TRY(write_file_durably(files_, path, as_bytes(encode_machine(machine_))));
    }
    machine_known_ = true;
    return {};
}

Status ItemSupervisor::open_session(TapMode mode, const std::vector<uint64_t>& disk_bytes) {
    if (session_) return {};
    if (!session_lock_) {
        // Two agents with one identity on one host would both read the log, and each would free
        // what the other has not sent.
        FS_ASSIGN(session_lock_, InstanceLock::acquire(session_lock_path(), 0));
    }
    FS_ASSIGN(session_, CaptureSession::open(capture_config(mode, disk_bytes), files_, clock_));
    // A mirror must be attached before anything is copied (mirror_control.h).
    if (mode == TapMode::kMirror && session_->status().tap_starts == 0)
        session_->set_copy_paused(true);
    watcher_ = std::make_unique<ThreadExecutor>("log-" + short_id(item_).substr(0, 8));
    FS_TRY(home_.run_sync([this, mode] {
        CaptureSource::Commands commands;
        commands.post = [this](const TapCommand& command) { return session_->post(command); };
        commands.take = [this](size_t ticket) { return session_->poll(ticket); };
        source_ = std::make_unique<CaptureSource>(session_->log(), std::move(commands),
                                                  mode != TapMode::kInPath);
        sender_ = std::make_unique<LogSender>(home_, clock_, dialer_, options_.appliance, item_,
                                              instance_, *source_);
        sender_->start();
        const LogHeader header = session_->log().header();
        compare_ = std::make_unique<CompareClient>(
            home_, clock_, dialer_, options_.appliance, item_, header, [header] {
                auto& bell = header.futex(LogWord::kTapDoorbell);
                bell.fetch_add(1);
                futex_wake(bell);
            });
    }));
    watcher_->post([this] { watch_log(); });
    return {};
}

// Wakes the sender when the log has grown. The consumer belongs to home, so this looks only at what
// the tap published.
void ItemSupervisor::watch_log() {
    const LogHeader header = session_->log().header();
    auto& bell = header.futex(LogWord::kAgentDoorbell);
    uint64_t told = 0;
    while (!stopping_ && !removed_) {
        const uint32_t seen = bell.load();
        if (CompareResponder::any(header) && !compare_posted_.exchange(true))
            home_.post([this] {
                compare_posted_ = false;
                if (compare_) compare_->wake();
            });
        if (header.producer().next_sequence != told) {
            check_tap();
            told = header.producer().next_sequence;
            if (!wake_posted_.exchange(true)) {
                home_.post([this] {
                    wake_posted_ = false;
                    if (sender_) sender_->wake();
                });
            }
            pause_ms(kWakePauseMs);
            continue;
        }
        header.word(LogWord::kAgentWaiting).store(1);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (header.producer().next_sequence == told) futex_wait(bell, seen, kWatchUs);
        header.word(LogWord::kAgentWaiting).store(0);
        check_tap();
    }
}

void ItemSupervisor::watch_tap(std::optional<ProcessKey> tap) {
    std::lock_guard lock(mutex_);
    watched_tap_ = tap;
}

// On the watcher's thread: the worker may itself wait for a QEMU that waits for the tap.
void ItemSupervisor::check_tap() {
    const int64_t now_us = clock_.steady_us();
    if (now_us - tap_checked_us_ < kWatchUs / 2) return;
    // When we come late ourselves, so may the tap: then it is the host that is slow.
    const bool late = now_us - std::exchange(tap_checked_us_, now_us) > 3 * kWatchUs;
    std::optional<ProcessKey> key;
    std::string name;
    {
        std::lock_guard lock(mutex_);
        // In path, a slow backing disk is no hung tap, and killing it would take the disk away.
        if (desired_.mode == CaptureMode::kMirror) key = watched_tap_;
        name = desired_.name;
    }
    if (!key || late) return;
    const CaptureStatus capture = session_->status();
    const bool slow = capture.oldest_in_flight_us > options_.hung_tap_us;
    // One that is stopped as a whole does not even take the request that it does not answer.
    const bool stopped = capture.tap_heartbeat_age_us > kTapSilenceUs;
    if (!slow && !stopped) return;
    auto process = Process::adopt(*key);
    if (!process) return;
    log::warn("agent", "item {}: the tap {} for {} ms, it is replaced", name,
              slow ? "has not answered a write" : "has shown no sign of life",
              (slow ? capture.oldest_in_flight_us : capture.tap_heartbeat_age_us) / 1000);
    (void)process->kill(SIGKILL);
    watch_tap({});
}

Status ItemSupervisor::ensure_tap(const DesiredItem& desired) {
    if (tap_ && tap_->alive()) return {};
    const bool had_one = tap_.has_value();
    tap_.reset();
    watch_tap({});
    if (auto running = NbdServer::adopt(tap_directory())) {
        if (running->alive()) {
            tap_ = std::move(*running);
            watch_tap(tap_->process_key());
            return {};
        }
    }
    if (desired.mode == CaptureMode::kMirror) FS_TRY(mirror_->export_sources());
    TapConfig config;
    config.mode = desired.mode == CaptureMode::kInPath ? ServeMode::kInPath : ServeMode::kMirror;
    config.capture = session_->config();
    for (size_t i = 0; i < session_->config().disk_bytes.size(); ++i) {
        ServedDisk disk;
        disk.index = static_cast<DiskIndex>(i);
        disk.size_bytes = session_->config().disk_bytes[i];
        if (desired.mode == CaptureMode::kInPath) {
            disk.path = desired.disks[i].path;
        } else {
            disk.backing = BackingKind::kNbd;
            disk.uri = fmt::format("nbd+unix:///{}?socket={}/source.sock",
                                   source_export_name(disk.index), tap_directory());
        }
        config.disks.push_back(std::move(disk));
    }
    NbdServerOptions server;
    server.run_directory = tap_directory();
    FS_ASSIGN(server.plugin, find_plugin());
    server.config_json = encode_tap_config(config);
    FS_TRY(NbdServer::clean_up(tap_directory()));
    FS_ASSIGN(NbdServer started, NbdServer::start(server));
    tap_ = std::move(started);
    watch_tap(tap_->process_key());
    if (had_one) ++tap_restarts_;
    return {};
}

Status ItemSupervisor::ensure_mirror() {
    FS_ASSIGN(bool anew, mirror_->ensure_attached());
    if (anew) {
        // What was written while no mirror was attached is unknown.
        FS_TRY(session_->run({TapCommandKind::kResyncAll, PointKind::kBookmark, {}}, 5'000'000));
    }
    if (session_->status().copy_paused) session_->set_copy_paused(false);
    return {};
}

void ItemSupervisor::apply_settings(const DesiredItem& desired) {
    session_->set_point_interval_us(uint64_t{desired.crash_point_interval_s} * 1'000'000);
    session_->set_copy_bytes_per_s(desired.copy_throttle_bytes_per_s);
    session_->set_compare_hold(static_cast<CompareHold>(desired.resync_hold));
}

void ItemSupervisor::serve_cancel(const DesiredItem& desired) {
    if (desired.resync_cancel_id.empty() || desired.resync_cancel_id == resync_cancel_done_id_)
        return;
    auto cancelled =
        session_->run({TapCommandKind::kCancelCompare, PointKind::kBookmark, {}}, 2'000'000);
    // One that is busy, or being started, is told again.
    if (!cancelled && cancelled.error().retry() != Retry::kNever) return;
    resync_cancel_error_.reset();
    if (!cancelled && cancelled.error().code() == Code::kWrongState)
        resync_cancel_error_ = AgentItemError{Code::kWrongState,
                                              "the item needs this comparison: order was lost, a "
                                              "difference was found, or its tap was "
                                              "started again since it began",
                                              "wait for its end"};
    else if (!cancelled)
        resync_cancel_error_ = AgentItemError{
            Code::kUnsupported, "the tap that runs cannot cancel a comparison", "wait for its end"};
    resync_cancel_done_id_ = desired.resync_cancel_id;
}

void ItemSupervisor::serve_requests(const DesiredItem& desired) {
    serve_cancel(desired);
    if (!desired.resync_request_id.empty() && desired.resync_request_id != resync_done_id_) {
        if (session_->run({TapCommandKind::kCompareAll, PointKind::kBookmark, {}}, 2'000'000))
            resync_done_id_ = desired.resync_request_id;
    }
    if (freeze_left_over_) {
        const Status thawed = FileSystemFreeze::thaw_leftovers(freeze_note(), files_);
        freeze_left_over_ = !thawed;
        if (!thawed) log::warn("agent", "{}", thawed.error().to_string());
    }
    std::erase_if(late_, [&](size_t ticket) { return session_->poll(ticket).has_value(); });
    // Answers first, then what is new. The vault repeats a request until it has seen the answer.
    std::erase_if(bookmarks_, [&](const Bookmark& bookmark) {
        auto result = session_->poll(bookmark.ticket);
        if (!result) return false;
        if (result->ok)
            bookmarks_done_.push_back({bookmark.request_id, result->sequence, result->time, {}});
        return true;
    });
    std::erase_if(bookmarks_done_, [&](const BookmarkDone& done) {
        return std::ranges::none_of(desired.bookmarks, [&](const BookmarkRequest& request) {
            return request.request_id == done.request_id;
        });
    });
    for (const BookmarkRequest& request : desired.bookmarks) {
        const auto same = [&](const auto& known) { return known.request_id == request.request_id; };
        if (std::ranges::any_of(bookmarks_, same) || std::ranges::any_of(bookmarks_done_, same))
            continue;
        if (bookmarks_done_.size() >= kMaxDoneBookmarks) break;
        if (request.kind == PointKind::kApplication) {
            bookmarks_done_.push_back(make_consistent_point(desired.mode, request));
            break;  // it took its time: the others' turn comes with the next round
        }
        auto ticket = session_->post({TapCommandKind::kPoint, request.kind, request.label});
        if (!ticket) break;
        bookmarks_.push_back({request.request_id, *ticket});
    }
}

// ---- points that file systems agree with
// ---------------------------------------------------------

// In memory, so that it is gone when the machine is.
std::string ItemSupervisor::freeze_note() const {
    return options_.shared_directory + "/" + item_.to_string() + kFreezeNoteSuffix;
}

BookmarkDone ItemSupervisor::make_consistent_point(CaptureMode mode,
                                                   const BookmarkRequest& request) {
    BookmarkDone done;
    done.request_id = request.request_id;
    auto point = consistent_point(mode, request);
    if (point) {
        done.sequence = point->sequence;
        done.time = point->time;
        return done;
    }
    const Error& error = point.error();
    log::warn("agent", "no consistent point '{}': {}", request.label, error.to_string());
    done.error = AgentItemError{error.code(), error.what(), error.remedy()};
    return done;
}

Result<TapCommandResult> ItemSupervisor::consistent_point(CaptureMode mode,
                                                          const BookmarkRequest& request) {
    if (mode != CaptureMode::kDevice)
        return fail(Code::kUnsupported,
                    "only an agent inside the machine can freeze its file systems",
                    "make the point without --consistent, or protect the machine from inside "
                    "(--device)");
    // Not worth stopping the machine for.
    if (session_->status().gap != GapState::kNone)
        return fail(Code::kPointInGap, "there are no points while the machine is copied",
                    "wait until it is protected again");
    FS_ASSIGN(const auto mounts, find_mounts_to_freeze(devices_));
    FS_ASSIGN(FileSystemFreeze frozen,
              FileSystemFreeze::begin(freeze_note(), mounts, files_, clock_));
    auto point = point_while_frozen(request, frozen.until_us());
    const Status thawed = frozen.end();
    freeze_left_over_ = !thawed;
    FS_TRY(point);
    FS_TRY(thawed);
    return point;
}

// Nothing here may touch a disk: log lines neither.
Result<TapCommandResult> ItemSupervisor::point_while_frozen(const BookmarkRequest& request,
                                                            int64_t not_after_us) {
    not_after_us = std::min(not_after_us, clock_.steady_us() + kFrozenUs);
    FS_ASSIGN(const size_t ticket,
              session_->post({TapCommandKind::kPoint, request.kind, request.label, not_after_us}));
    std::optional<TapCommandResult> result = session_->poll(ticket);
    // A little longer than the capture process may take, so that its answer is not missed.
    while (!result && clock_.steady_us() < not_after_us + kAnswerGraceUs) {
        pause_ms(kPointPollMs);
        result = session_->poll(ticket);
    }
    if (!result) {
        late_.push_back(ticket);
        return fail(Code::kTimeout, "the capture process did not make the point in time",
                    "try again; `farshore item` shows whether the capture runs");
    }
    if (!result->ok && result->code == Code::kTimeout)
        return fail(Code::kTimeout, "the capture process came to the point too late",
                    "try again when less is being written");
    if (!result->ok)
        return fail(result->code, "the capture process refused the point",
                    "wait until the machine is protected again");
    return *result;
}

Status ItemSupervisor::tear_down(const DesiredItem& desired) {
    if (desired.mode == CaptureMode::kMirror) {
        if (!qmp_) {
            if (auto connected = QmpClient::connect(desired.qmp_socket)) {
                MirrorOptions options;
                options.source_socket = tap_directory() + "/source.sock";
                options.tap_socket = tap_directory() + "/nbd.sock";
                options.disks = mirror_disks_;
                qmp_ = std::move(*connected);
                mirror_ = std::make_unique<MirrorControl>(*qmp_, options);
            }
        }
        if (mirror_) FS_TRY(mirror_->detach());
    }
    mirror_.reset();
    qmp_.reset();
    stopping_ = true;
    if (session_) session_->poke();
    watcher_.reset();
    stopping_ = false;
    FS_TRY(home_.run_sync([this] {
        compare_.reset();
        sender_.reset();
        source_.reset();
    }));
    if (desired.mode == CaptureMode::kDevice) {
        FS_TRY(CaptureProcess::clean_up(tap_directory()));
        FS_TRY(BlockTrace::remove(pin_directory()));
    } else {
        FS_TRY(NbdServer::clean_up(tap_directory()));
    }
    tap_.reset();
    tracer_.reset();
    if (session_) {
        const CaptureConfig config = session_->config();
        session_.reset();
        FS_TRY(CaptureFiles::remove(config, files_));
        (void)files_.remove(session_lock_path());
        session_lock_.reset();
    }
    FS_TRY(FileSystemFreeze::thaw_leftovers(freeze_note(), files_));
    (void)files_.remove(item_directory() + "/desired.json");
    (void)files_.remove(item_directory() + "/machine.json");
    (void)files_.remove(item_directory() + "/devices.json");
    (void)files_.remove(item_directory() + "/clean-stop");
    (void)files_.remove(item_directory());
    (void)files_.remove(tap_directory() + "/nbd.log");
    (void)files_.remove(tap_directory());
    return {};
}

// What the tap could not do and went on without. Shown for a while after it mended, so that
// somebody can see why there was a gap.
std::optional<AgentItemError> ItemSupervisor::tap_trouble(const CaptureStatus& capture) {
    const int64_t now_us = clock_.steady_us();
    if (capture.spill_errors != spill_errors_seen_) {
        spill_errors_seen_ = capture.spill_errors;
        spill_error_us_ = now_us;
    }
    const bool lately = spill_errors_seen_ != 0 && now_us - spill_error_us_ < kTroubleShownUs;
    if (capture.spill_errno != 0 && (lately || capture.gap != GapState::kNone)) {
        const Error error = Error::from_errno(
            capture.spill_errno,
            fmt::format("the spill {} could not be written", session_->config().spill_path));
        return AgentItemError{
            error.code(), error.what() + ": writes were dropped, and are copied again",
            "free space there, or give the spill another disk; the rest goes by itself"};
    }
    for (const auto* trouble : {&size_trouble_, &keeping_trouble_})
        if (*trouble)
            return AgentItemError{(*trouble)->code(), (*trouble)->what(), (*trouble)->remedy()};
    if (capture.dirty_map_broken)
        return AgentItemError{
            Code::kIo,
            fmt::format("the dirty map {} could not be written: after a crash of this "
                        "host everything is copied again",
                        session_->config().dirty_map_path),
            "mend the disk; the tap's next start makes the map anew"};
    return std::nullopt;
}

void ItemSupervisor::publish(const DesiredItem& desired, const Status& worked) {
    AgentItemStatus status;
    status.item = item_;
    if (removed_) {
        status.state = AgentItemState::kRemoved;
    } else if (!worked) {
        status.state = AgentItemState::kError;
        status.error = {worked.error().code(), worked.error().what(), worked.error().remedy()};
    } else if (!session_ || !captures()) {
        status.state = AgentItemState::kStarting;
    }
    if (session_) {
        const CaptureStatus capture = session_->status();
        if (worked && captures()) {
            if (capture.gap == GapState::kDropping)
                status.state = AgentItemState::kGap;
            else
                status.state = capture.gap == GapState::kOpen ? AgentItemState::kCopying
                                                              : AgentItemState::kLive;
        }
        if (worked) status.error = tap_trouble(capture);
        status.ring_used_bytes = capture.ring_used_bytes;
        status.spill_used_bytes = capture.spill_used_bytes;
        status.gap_open = capture.gap != GapState::kNone;
        status.copied_bytes = capture.copy_done_bytes;
        status.copy_total_bytes = capture.copy_total_bytes;
        status.compared_bytes = capture.copied_bytes + capture.compared_ever_bytes;
        status.dirty_regions = capture.dirty_regions;
        // The words are those of shared memory: one that we do not know is none.
        if (capture.compare <= CompareState::kDone)
            status.resync.state = static_cast<ResyncState>(capture.compare);
        status.resync.total = capture.compare_total_bytes;
        status.resync.compared = capture.compared_bytes;
        status.resync.differing = capture.differing_bytes;
        status.resync.sent = capture.compare_sent_bytes;
        status.resync.unreadable = capture.unreadable_bytes;
        status.resync.verified = capture.verified_bytes;
        status.resync.verify_failures = capture.verify_failures;
        status.resync.held = capture.compare_held;
        status.resync.read_errors = capture.copy_errors;
        const int64_t now_us = clock_.steady_us();
        if (now_us - copy_rate_us_ >= 1'000'000) {
            if (copy_rate_us_ != 0 && capture.copied_bytes >= copy_rate_bytes_)
                copy_rate_ = (capture.copied_bytes - copy_rate_bytes_) * 1'000'000 /
                             static_cast<uint64_t>(now_us - copy_rate_us_);
            copy_rate_us_ = now_us;
            copy_rate_bytes_ = capture.copied_bytes;
        }
        status.copy_rate_bytes_per_s = copy_rate_;
        status.last = capture.last;
        status.last_time = capture.last_time;
        status.received = capture.released;
        status.stored = capture.stored;
        for (size_t i = 0; i < session_->config().disk_bytes.size(); ++i) {
            AgentDisk disk;
            disk.index = static_cast<DiskIndex>(i);
            disk.size_bytes = session_->config().disk_bytes[i];
            disk.path = desired.mode != CaptureMode::kMirror && i < desired.disks.size()
                            ? desired.disks[i].path
                            : (i < machine_.disks.size() ? machine_.disks[i].path : "");
            status.disks.push_back(disk);
        }
    }
    if (desired.mode == CaptureMode::kInPath && tap_) status.nbd_socket = tap_->socket_path();
    if (machine_known_) status.machine_description = encode_machine(machine_);
    status.bookmarks = bookmarks_done_;
    status.resync_done_id = resync_done_id_;
    status.resync_cancel_done_id = resync_cancel_done_id_;
    status.resync_cancel_error = resync_cancel_error_;
    status.tap_restarts = tap_restarts_;
    std::lock_guard lock(mutex_);
    status_ = std::move(status);
}

}  // namespace farshore
