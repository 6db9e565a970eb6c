#include "agent/item_supervisor.h"

#include <fmt/core.h>

#include <algorithm>
#include <csignal>

#include "agent/file_system_freeze.h"
#include "capture/capture_files.h"
#include "capture/tap_config.h"
#include "compute/local_machine.h"
#include "ebpf/block_trace.h"
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
constexpr int64_t kTroubleShownUs = 15'000'000;
constexpr size_t kMaxDoneBookmarks = kMaxPendingBookmarks;

}  // namespace

ItemSupervisor::ItemSupervisor(const SupervisorOptions& options, DesiredItem desired,
                               PartyId instance, ThreadExecutor& home, ApplianceRoutes& routes,
                               FileSystem& files, Clock& clock)
    : options_(options),
      item_(desired.item),
      instance_(instance),
      home_(home),
      route_(routes),
      files_(files),
      clock_(clock),
      desired_(std::move(desired)) {
    status_.item = item_;
    slow_ = std::make_unique<ThreadExecutor>("rest-" + short_id().substr(0, 8));
    worker_ = std::make_unique<ThreadExecutor>("item-" + short_id().substr(0, 8));
    worker_->post([this] { tick(); });
}

ItemSupervisor::~ItemSupervisor() {
    stopping_ = true;
    if (session_) session_->poke();
    {
        const std::lock_guard lock(mutex_);
        for (QuestionLine* line : {compare_line_.get(), return_line_.get()})
            if (line != nullptr) line->stop();
    }
    watcher_.reset();
    // A tick that is under way still uses the worker: it ends before its pointer goes.
    worker_->stop();
    worker_.reset();
    // These wait for home.
    compare_line_.reset();
    return_line_.reset();
    // The sender's callbacks run on home.
    (void)home_.run_sync([this] {
        points_.reset();
        compare_.reset();
        move_.reset();
        sender_.reset();
        source_.reset();
    });
    // A script that runs comes to its end first, and still uses the pointer. What is frozen still
    // is thawed here.
    slow_->stop();
    slow_.reset();
    quiesce_.reset();
}

std::string ItemSupervisor::short_id() const { return item_.to_string().substr(0, 12); }

std::string ItemSupervisor::item_directory() const {
    return options_.directory + "/items/" + item_.to_string();
}

std::string ItemSupervisor::session_lock_path() const {
    return options_.shared_directory + "/" + item_.to_string() + ".agent";
}

// Short, because a socket's path is.
std::string ItemSupervisor::tap_directory() const {
    return options_.directory + "/taps/" + short_id();
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
        config.first_at_least = std::max(desired_.stored.next(), begin_at_least_);
        for (const DesiredDisk& disk : desired_.disks)
            if (disk.joining && !disk.removed) config.joining |= 1ull << disk.index;
    }
    return config;
}

void ItemSupervisor::desire(DesiredItem desired) {
    std::lock_guard lock(mutex_);
    // A vault that lost its database does not know of disks that were added and removed since. It
    // hears of them by the status.
    for (size_t i = 0; i < desired_.disks.size(); ++i) {
        if (i >= desired.disks.size())
            desired.disks.push_back(desired_.disks[i]);
        else if (desired_.disks[i].removed)
            desired.disks[i].removed = true;
    }
    desired_ = std::move(desired);
}

AgentItemStatus ItemSupervisor::status() const {
    std::lock_guard lock(mutex_);
    return status_;
}

void ItemSupervisor::tick() {
    if (stopping_ || removed_) return;
    if (frozen_) {
        worker_->post_after_us(options_.tick_us, [this] { tick(); });
        return;
    }
    DesiredItem desired;
    {
        std::lock_guard lock(mutex_);
        desired = desired_;
    }
    Status worked;
    if (desired.desired == Desired::kRemove) {
        worked = tear_down(desired);
        if (worked) removed_ = true;
    } else if (desired.desired == Desired::kStandBy) {
        worked = stand_by(desired);
    } else if (desired.desired == Desired::kReturn) {
        worked = go_home(desired);
    } else {
        worked = work(desired);
    }
    publish(desired, worked);
    if (!removed_) worker_->post_after_us(options_.tick_us, [this] { tick(); });
}

// Directories, and what an agent after this one must know.
Status ItemSupervisor::make_room(const DesiredItem& desired) {
    FS_TRY(files_.make_directories(item_directory()));
    FS_TRY(files_.make_directories(tap_directory()));
    FS_TRY(files_.make_directories(options_.shared_directory));
    // A full disk must not end the protection: what is kept only matters to an agent that starts
    // while the vault is away.
    auto kept = save(desired);
    keeping_trouble_.reset();
    if (!kept) keeping_trouble_ = kept.error();
    return {};
}

Status ItemSupervisor::work(const DesiredItem& desired) {
    FS_TRY(make_room(desired));
    if (desired.await_seed && !session_) return describe(desired);
    FS_TRY(end_return());
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
        case CaptureMode::kRecovery:
            FS_TRY(prepare_recovery(desired));
            FS_TRY(ensure_tap(desired));
            break;
    }
    apply_settings(desired);
    tell_quiesce_target(desired);
    follow_appliance(desired);
    FS_TRY(check_numbers(desired));
    serve_requests(desired);
    return {};
}

// So that an agent that starts while the vault is away goes on protecting.
Status ItemSupervisor::save(const DesiredItem& desired) {
    DesiredItem keep = desired;
    keep.bookmarks.clear();
    // A log that is made by whoever reads this must count on from there; once there is one, it
    // knows by itself.
    if (!session_) saved_stored_ = std::max(saved_stored_, desired.stored);
    keep.stored = saved_stored_;
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

Status ItemSupervisor::open_session(TapMode mode, const std::vector<uint64_t>& disk_bytes) {
    if (session_) return {};
    if (!session_lock_) {
        // Two agents with one identity on one host would both read the log, and each would free
        // what the other has not sent.
        FS_ASSIGN(session_lock_, InstanceLock::acquire(session_lock_path(), 0));
    }
    const CaptureConfig config = capture_config(mode, disk_bytes);
    FS_ASSIGN(const bool fits, CaptureFiles::fits(config));
    if (!fits) {
        // Nobody may use what is changed. Without a log of this start of the host none does.
        FS_TRY(end_process(mode));
        FS_TRY(CaptureFiles::reshape(config, files_));
    }
    FS_ASSIGN(session_, CaptureSession::open(config, files_, clock_));
    // Before any tap runs.
    {
        const std::lock_guard lock(mutex_);
        apply_settings(desired_);
    }
    // A mirror must be attached before anything is copied (mirror_control.h).
    if (mode == TapMode::kMirror && session_->status().tap_starts == 0)
        session_->set_copy_paused(true);
    watcher_ = std::make_unique<ThreadExecutor>("log-" + short_id().substr(0, 8));
    FS_TRY(home_.run_sync([this, mode] {
        CaptureSource::Commands commands;
        commands.post = [this](const TapCommand& command) { return session_->post(command); };
        commands.take = [this](size_t ticket) { return session_->poll(ticket); };
        source_ = std::make_unique<CaptureSource>(session_->log(), std::move(commands),
                                                  mode != TapMode::kInPath, &clock_);
        source_->keep(source_->ring_bytes() / kKeptPartOfRing);
        sender_ =
            std::make_unique<LogSender>(home_, clock_, route_, "", item_, instance_, *source_);
        move_ = std::make_unique<ItemMove>(route_, *source_, *sender_, clock_);
        {
            const std::lock_guard lock(mutex_);
            route_.set(desired_.appliance);
        }
        sender_->start();
        const LogHeader header = session_->log().header();
        compare_ =
            std::make_unique<CompareClient>(home_, clock_, route_, "", item_, header, [header] {
                auto& bell = header.futex(LogWord::kTapDoorbell);
                bell.fetch_add(1);
                futex_wake(bell);
            });
        points_ = make_point_maker(mode);
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

// On the watcher's thread: the worker may itself wait for a QEMU that waits for the tap.
void ItemSupervisor::check_tap() {
    const int64_t now_us = clock_.steady_us();
    if (now_us - tap_checked_us_ < kWatchUs / 2) return;
    // When we come late ourselves, so may the tap: then it is the host that is slow.
    const bool late = now_us - std::exchange(tap_checked_us_, now_us) > 3 * kWatchUs;
    std::string name;
    {
        const std::lock_guard lock(mutex_);
        // In path, a slow backing disk is no hung tap, and killing it would take the disk away.
        if (desired_.mode != CaptureMode::kMirror) return;
        name = desired_.name;
    }
    if (late || !tap_.kept()) return;
    const uint64_t seen = tap_.number();
    const CaptureStatus capture = session_->status();
    std::string why;
    if (!tap_.alive()) {
        if (!tap_.ended()) return;  // too soon
        why = "has ended";
    } else if (capture.oldest_in_flight_us > options_.hung_tap_us)
        why = fmt::format("has not answered a write for {} ms", capture.oldest_in_flight_us / 1000);
    else if (capture.tap_heartbeat_age_us > kTapSilenceUs)
        // One that is stopped as a whole does not even take the request that it does not answer.
        why =
            fmt::format("has shown no sign of life for {} ms", capture.tap_heartbeat_age_us / 1000);
    else
        return;
    log::warn("agent", {.item = name, .item_id = item_.to_string()},
              "item {}: the tap {}, it is replaced", name, why);
    if (auto replaced = tap_.replace(seen); !replaced)
        log::warn("agent", {.item = name, .item_id = item_.to_string()},
                  "item {}: the tap is not replaced: {}", name, replaced.error().what());
}

// QEMU is asked nothing here: with the tap away it may answer nobody.
Status ItemSupervisor::ensure_tap(const DesiredItem& desired) {
    if (tap_.alive()) return {};
    const bool runs = tap_.adopt(tap_directory(), tap_socket());
    // Anew: they may have become files of their own.
    if (!runs && recovery_) FS_TRY(ask_recovery_disks(desired.item));
    FS_ASSIGN(const NbdServerOptions options, tap_options(desired));
    if (!runs) FS_TRY(tap_.start(options));
    if (desired.mode == CaptureMode::kMirror) tap_.keep(options);
    return {};
}

Result<NbdServerOptions> ItemSupervisor::tap_options(const DesiredItem& desired) const {
    TapConfig config;
    config.mode = desired.mode == CaptureMode::kMirror ? ServeMode::kMirror : ServeMode::kInPath;
    config.capture = session_->config();
    for (size_t i = 0; i < session_->config().disk_bytes.size(); ++i) {
        ServedDisk disk;
        disk.index = static_cast<DiskIndex>(i);
        disk.size_bytes = session_->config().disk_bytes[i];
        if (disk.size_bytes == 0) {
            disk.backing = BackingKind::kNone;
        } else if (desired.mode == CaptureMode::kInPath) {
            disk.path = desired.disks[i].path;
        } else if (recovery_) {
            disk = recovery_->disks.at(i);
        } else {
            disk.backing = BackingKind::kNbd;
            disk.uri = fmt::format("nbd+unix:///{}?socket={}/source.sock",
                                   source_export_name(disk.index), tap_directory());
        }
        config.disks.push_back(std::move(disk));
    }
    if (recovery_) config.replica = recovery_->replica;
    NbdServerOptions server;
    server.run_directory = tap_directory();
    FS_ASSIGN(server.plugin, find_plugin());
    server.config_json = encode_tap_config(config);
    server.socket_path = tap_socket();
    return server;
}

void ItemSupervisor::apply_settings(const DesiredItem& desired) {
    session_->set_point_interval_us(uint64_t{desired.crash_point_interval_s} * 1'000'000);
    session_->set_copy_bytes_per_s(desired.copy_throttle_bytes_per_s);
    session_->set_copy_held(desired.hold_copy);
    if (source_) source_->prefer_newest(int64_t{desired.newest_first_after_s} * 1'000'000);
    session_->set_compare_hold(static_cast<CompareHold>(desired.resync_hold));
}

void ItemSupervisor::follow_appliance(const DesiredItem& desired) {
    if (move_posted_.exchange(true)) return;
    home_.post([this, now = desired.appliance, next = desired.next_appliance] {
        move_posted_ = false;
        if (!move_) return;
        move_->follow(now, next);
        const LogSenderStatus status = sender_->status();
        const std::lock_guard lock(mutex_);
        sending_.appliance = status.connected ? sender_->peer_name() : std::string();
        sending_.trouble = status.connected ? std::string() : status.last_error;
        sending_.moving = move_->waits_since_us() != 0;
    });
}

// A log whose numbers the recovery site has had from another one is of no use: its records would
// be taken for those.
Status ItemSupervisor::check_numbers(const DesiredItem& desired) {
    const Sequence first = source_ ? source_->must_begin_at() : Sequence{};
    if (first.v == 0) return {};
    log::warn("agent", {.item = desired.name, .item_id = item_.to_string()},
              "item {}: the recovery site has records up to {}, which this log never had: it is "
              "made anew, and everything is compared",
              desired.name, first.v - 1);
    FS_TRY(forget_capture(desired));
    begin_at_least_ = first;
    return {};
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
            begin_consistent_point(request);
            continue;
        }
        auto ticket = session_->post({TapCommandKind::kPoint, request.kind, request.label});
        if (!ticket) break;
        bookmarks_.push_back({request.request_id, *ticket});
    }
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
    std::optional<CaptureConfig> config;
    if (session_) config = session_->config();
    const bool device = desired.mode == CaptureMode::kDevice;
    FS_TRY(end_capture(device ? TapMode::kBlock : TapMode::kInPath));
    if (device) FS_TRY(BlockTrace::remove(pin_directory()));
    if (config) {
        FS_TRY(CaptureFiles::remove(*config, files_));
        (void)files_.remove(session_lock_path());
        session_lock_.reset();
    }
    FS_TRY(FileSystemFreeze::thaw_leftovers(freeze_note(), files_));
    (void)files_.remove(item_directory() + "/desired.json");
    (void)files_.remove(item_directory() + "/machine.json");
    (void)files_.remove(item_directory() + "/devices.json");
    (void)files_.remove(item_directory() + "/clean-stop");
    FS_TRY(end_return());
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
                        "host everything is compared",
                        session_->config().dirty_map_path),
            "mend the disk; the tap's next start makes the map anew"};
    return std::nullopt;
}

std::string ItemSupervisor::path_of(const DesiredItem& desired, DiskIndex index) const {
    if (desired.mode != CaptureMode::kMirror && index < desired.disks.size())
        return desired.disks[index].path;
    for (const MachineDisk& disk : machine_.disks)
        if (disk.index == index) return disk.path;
    return {};
}

void ItemSupervisor::tell_map_damage(const CaptureStatus& capture) {
    const std::pair damage(capture.dirty_map_mended, capture.dirty_map_lost);
    if (damage == map_damage_told_) return;
    map_damage_told_ = damage;
    log::warn("agent", {.item_id = item_.to_string()},
              "the dirty map {} was damaged: {} pieces in one copy, mended from the other; {} in "
              "both, whose regions count as different",
              session_->config().dirty_map_path, damage.first, damage.second);
}

AgentItemNumbers ItemSupervisor::numbers() const {
    AgentItemNumbers numbers;
    if (sender_) numbers.sender = sender_->status();
    std::lock_guard lock(mutex_);
    numbers.status = status_;
    numbers.capture = capture_status_;
    return numbers;
}

void ItemSupervisor::publish(const DesiredItem& desired, const Status& worked) {
    AgentItemStatus status;
    status.item = item_;
    if (removed_) {
        status.state = AgentItemState::kRemoved;
    } else if (!worked) {
        status.state = AgentItemState::kError;
        status.error = {worked.error().code(), worked.error().what(), worked.error().remedy()};
    } else if (desired.desired == Desired::kReturn) {
        status.state = AgentItemState::kReturning;
    } else if (standing_by_) {
        status.state = AgentItemState::kStandingBy;
    } else if (!session_ || !captures()) {
        status.state = AgentItemState::kStarting;
    }
    if (return_) status.way_home = return_->status();
    std::optional<CaptureStatus> captured;
    if (session_) {
        captured = session_->status();
        const CaptureStatus& capture = *captured;
        if (worked && captures() && desired.desired == Desired::kProtect) {
            if (capture.gap == GapState::kDropping)
                status.state = AgentItemState::kGap;
            else
                status.state = capture.gap == GapState::kOpen ? AgentItemState::kCopying
                                                              : AgentItemState::kLive;
        }
        if (worked) status.error = tap_trouble(capture);
        tell_map_damage(capture);
        // What is there for another appliance's sake waits for nobody.
        const uint64_t kept = source_ ? source_->kept_bytes() : 0;
        status.ring_used_bytes = capture.ring_used_bytes - std::min(kept, capture.ring_used_bytes);
        status.spill_used_bytes = capture.spill_used_bytes;
        status.gap_open = capture.gap != GapState::kNone;
        status.copied_bytes = capture.copy_done_bytes;
        status.copy_total_bytes = capture.copy_total_bytes;
        status.compared_bytes = capture.copied_bytes + capture.compared_ever_bytes;
        status.dirty_regions = capture.dirty_regions;
        status.dirty_map_syncs = capture.dirty_map_syncs;
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
        status.resync.sampled = capture.sampled_bytes;
        status.resync.sample_differing = capture.sample_differing_bytes;
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
        if (source_) status.received = std::max(status.received, source_->received());
        status.stored = capture.stored;
        status.machine_bytes = capture.guest_bytes;
        for (size_t i = 0; i < session_->config().disk_bytes.size(); ++i) {
            AgentDisk disk;
            disk.index = static_cast<DiskIndex>(i);
            disk.size_bytes = session_->config().disk_bytes[i];
            disk.path = path_of(desired, disk.index);
            status.disks.push_back(disk);
        }
    }
    if (!session_ && desired.await_seed)
        for (const MachineDisk& disk : machine_.disks)
            status.disks.push_back({disk.index, disk.size_bytes, path_of(desired, disk.index)});
    if (desired.mode == CaptureMode::kInPath) status.nbd_socket = tap_.socket_path();
    if (machine_known_) status.machine_description = encode_machine(machine_);
    status.bookmarks = bookmarks_done_;
    status.resync_done_id = resync_done_id_;
    status.resync_cancel_done_id = resync_cancel_done_id_;
    status.resync_cancel_error = resync_cancel_error_;
    status.tap_restarts = tap_.restarts() + tracer_restarts_;
    std::lock_guard lock(mutex_);
    status.appliance = sending_.appliance;
    status.moving = sending_.moving;
    status.send_trouble = sending_.trouble.substr(0, 512);
    status_ = std::move(status);
    capture_status_ = captured;
}

}  // namespace farshore
