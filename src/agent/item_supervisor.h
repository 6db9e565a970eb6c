// Keeps one protected machine captured and its log flowing: makes the capture files, keeps the tap
// alive, attaches it to a running QEMU, watches it, carries out what the vault wants, and sends.
//
// What may block (starting the tap, talking to QEMU) runs on a thread of its own; the sender lives
// on the agent's home executor. desire() and status() may be called from any thread. Killing the
// agent at any point leaves tap, log and mirror as they are; the next supervisor adopts them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "agent/capture_process.h"
#include "agent/capture_source.h"
#include "agent/compare_client.h"
#include "agent/disk_return.h"
#include "agent/item_move.h"
#include "agent/kept_tap.h"
#include "agent/point_maker.h"
#include "agent/question_line.h"
#include "agent/quiesce.h"
#include "base/seams.h"
#include "capture/capture_session.h"
#include "capture/tap_config.h"
#include "compute/machine_description.h"
#include "compute/mirror_control.h"
#include "compute/nbd_server.h"
#include "compute/qmp_client.h"
#include "ebpf/clean_stop.h"
#include "ebpf/local_disks.h"
#include "meta/agent_documents.h"
#include "os/process.h"
#include "os/real.h"
#include "replicate/log_sender.h"

namespace farshore {

// The disks of a machine that runs at the recovery site, as its tap serves them: each with its
// size, of `replica` and an overlay.
struct RecoveryDisks {
    std::vector<ServedDisk> disks;
    std::optional<ServedReplica> replica;  // none: the disks are files of their own
    std::string socket_path;               // where
};

struct SupervisorOptions {
    std::string directory;         // of the agent
    std::string shared_directory;  // on a tmpfs
    uint64_t ring_bytes = 256ull << 20;
    uint64_t spill_bytes = 4ull << 30;
    uint64_t trace_ring_bytes = 64ull << 20;  // in the kernel, for this machine's own disks
    RestLimits rest_limits;
    int64_t tick_us = 100'000;
    int64_t hung_tap_us = 500'000;
    // Of items that are captured there; null: nothing is a recovery site here. kUnavailable: the
    // machine's disks are still served by somebody else.
    std::function<Result<RecoveryDisks>(const ItemId&)> recovery_disks;
};

// What is shown of one item to monitoring (agent/agent_metrics.h).
struct AgentItemNumbers {
    AgentItemStatus status;
    std::optional<CaptureStatus> capture;  // none: nothing is captured yet
    LogSenderStatus sender;
};

class ItemSupervisor {
  public:
    // Everything is borrowed and outlives it. `home` is where the sender lives.
    ItemSupervisor(const SupervisorOptions& options, DesiredItem desired, PartyId instance,
                   ThreadExecutor& home, ApplianceRoutes& routes, FileSystem& files, Clock& clock);
    ~ItemSupervisor();

    void desire(DesiredItem desired);
    AgentItemStatus status() const;
    // What is shown to monitoring. On home.
    AgentItemNumbers numbers() const;
    // The item's part in a point that its group shares, one step of it. On home.
    void serve_shared_point(const BarrierOrder& order, PointMaker::Answer answer);
    void abandon_shared_point();
    // What the initramfs must know of it; nullopt: nothing, or not yet.
    std::optional<EarlyItem> early() const;
    // Everything of it was torn down, as desired.
    bool removed() const { return removed_; }

  private:
    void tick();
    Status work(const DesiredItem& desired);
    Status prepare_in_path(const DesiredItem& desired);
    Status prepare_mirror(const DesiredItem& desired);
    Status prepare_devices(const DesiredItem& desired);
    Status ask_recovery_disks(const ItemId& item);
    Status prepare_recovery(const DesiredItem& desired);
    Status stand_by(const DesiredItem& desired);
    Status power_off(const DesiredItem& desired);
    Status note_standing(const DesiredItem& desired);
    Status go_home(const DesiredItem& desired);
    Status end_return();
    void drop_return();
    ReturnPeers return_peers();
    Status forget_capture(const DesiredItem& desired);
    std::string tap_socket() const;
    std::string return_path() const { return item_directory() + "/return.json"; }
    // Whether the disks are to be looked at again.
    bool disks_due(const DesiredItem& desired);
    Result<std::vector<uint64_t>> in_path_sizes(const DesiredItem& desired);
    // Opens the session, or makes the one that is there fit; what cannot be is a trouble, and all
    // goes on as it was.
    Status follow_disks(TapMode mode, const std::vector<uint64_t>& sizes);
    Status end_capture(TapMode mode);
    Status end_process(TapMode mode);
    Status connect_machine(const DesiredItem& desired);
    MirrorOptions mirror_options(const std::vector<uint64_t>& sizes) const;
    Status adapt_machine(const DesiredItem& desired, const MachineDescription& now);
    Status find_devices(const DesiredItem& desired);
    // What the vault must know before anything is captured.
    Status describe(const DesiredItem& desired);
    Status describe_this_machine(const DesiredItem& desired);
    void describe_plain(const DesiredItem& desired, const std::vector<uint64_t>& sizes);
    Status ensure_tracer();
    void tell_early();
    bool captures() const { return tap_.has_one() || tracer_.has_value(); }
    Status recall_machine(const MachineDescription& now);
    Status open_session(TapMode mode, const std::vector<uint64_t>& disk_bytes);
    Status ensure_tap(const DesiredItem& desired);
    Result<NbdServerOptions> tap_options(const DesiredItem& desired) const;
    Status ensure_mirror();
    Status tear_down(const DesiredItem& desired);
    void apply_settings(const DesiredItem& desired);
    void follow_appliance(const DesiredItem& desired);
    Status check_numbers(const DesiredItem& desired);
    void serve_requests(const DesiredItem& desired);
    void serve_cancel(const DesiredItem& desired);
    // Of points at rest (item_supervisor_points.cc).
    std::unique_ptr<PointMaker> make_point_maker(TapMode mode);
    void begin_consistent_point(const BookmarkRequest& request);
    void tell_quiesce_target(const DesiredItem& desired);
    void begin_rest(const std::string& label, std::function<void(Status)> begun);
    void freeze_rest(std::function<void(Result<int64_t>)> frozen);
    void confirm_mirrored(std::function<void(Status)> confirmed);
    void end_rest(bool made, std::function<void(Status)> thawed);
    std::string freeze_note() const;
    void watch_log();
    void check_tap();
    void publish(const DesiredItem& desired, const Status& worked);
    void tell_map_damage(const CaptureStatus& capture);
    std::optional<AgentItemError> tap_trouble(const CaptureStatus& capture);
    Status save(const DesiredItem& desired);
    Status make_room(const DesiredItem& desired);

    std::string path_of(const DesiredItem& desired, DiskIndex index) const;

    std::string short_id() const;
    std::string item_directory() const;
    std::string tap_directory() const;
    std::string session_lock_path() const;
    std::string pin_directory() const;
    CaptureConfig capture_config(TapMode mode, std::vector<uint64_t> disk_bytes) const;

    const SupervisorOptions options_;
    const ItemId item_;
    const PartyId instance_;
    ThreadExecutor& home_;
    ItemRoute route_;
    FileSystem& files_;
    Clock& clock_;

    // desired_, status_, capture_status_, early_, sending_, quiesce_target_
    mutable std::mutex mutex_;
    QuiesceTarget quiesce_target_;
    std::optional<CaptureStatus> capture_status_;
    std::optional<EarlyItem> early_;
    DesiredItem desired_;
    AgentItemStatus status_;
    // As home has seen it last.
    struct Sending {
        std::string appliance, trouble;
        bool moving = false;
    } sending_;
    std::atomic<bool> removed_{false};
    std::atomic<bool> stopping_{false};
    KeptTap tap_{clock_};

    // On the worker's thread.
    std::optional<InstanceLock> session_lock_;  // one agent for a capture log
    std::unique_ptr<CaptureSession> session_;
    std::optional<CaptureProcess> tracer_;  // instead of a tap, for this machine's own disks
    std::vector<LocalDisk> devices_;
    int64_t tracer_retry_us_ = 0;
    std::optional<Error> tracer_error_;
    std::unique_ptr<QmpClient> qmp_;
    std::unique_ptr<MirrorControl> mirror_;
    bool standing_by_ = false;
    bool return_forgotten_ = false;
    int64_t powered_off_us_ = 0;  // steady, when the machine was asked to shut down last
    bool stood_ = false;          // what the disks have is noted
    std::unique_ptr<DiskReturn> return_;
    std::string return_id_;
    std::vector<DesiredDisk> return_disks_;
    std::unique_ptr<QuestionLine> compare_line_, return_line_;
    std::optional<RecoveryDisks> recovery_;
    MachineDescription machine_;
    bool machine_known_ = false;
    std::vector<MirrorDisk> mirror_disks_;
    uint32_t tracer_restarts_ = 0;
    bool saved_ = false;
    Sequence saved_stored_;    // before there was a log
    Sequence begin_at_least_;  // CaptureSource::must_begin_at()
    std::string saved_document_;
    std::optional<Error> keeping_trouble_, size_trouble_;
    int64_t sizes_checked_us_ = 0;
    std::vector<DesiredDisk> disks_looked_at_;
    std::vector<uint64_t> described_bytes_;  // of the disks that machine_ describes
    std::vector<DiskIndex> fresh_disks_;     // added, and never mirrored yet
    struct Bookmark {
        std::string request_id;
        size_t ticket = 0;
    };
    std::vector<Bookmark> bookmarks_;
    std::vector<BookmarkDone> bookmarks_done_;
    std::string consistent_request_;  // the one that is being made
    std::string guest_agent_;         // the machine's, when its monitor is connected
    std::string resync_done_id_;
    std::string resync_cancel_done_id_;
    std::optional<AgentItemError> resync_cancel_error_;
    uint64_t spill_errors_seen_ = 0;
    std::pair<uint64_t, uint64_t> map_damage_told_{0, 0};
    int64_t spill_error_us_ = 0;
    uint64_t copy_rate_ = 0;
    uint64_t copy_rate_bytes_ = 0;
    int64_t copy_rate_us_ = 0;

    // On the watcher's thread.
    int64_t tap_checked_us_ = 0;

    // On home.
    std::unique_ptr<CaptureSource> source_;
    std::unique_ptr<LogSender> sender_;
    std::unique_ptr<ItemMove> move_;
    std::unique_ptr<CompareClient> compare_;
    std::unique_ptr<PointMaker> points_;

    // On the thread of scripts and freezing.
    std::unique_ptr<Quiesce> quiesce_;
    std::atomic<bool> frozen_{false};  // this machine's disks: nothing here touches them
    std::atomic<bool> freeze_left_over_{false};
    bool looked_for_leftover_ = false;  // on the worker's
    std::atomic<bool> move_posted_{false};
    std::atomic<bool> wake_posted_{false};
    std::atomic<bool> compare_posted_{false};

    // Last, so that their threads end before what they use does.
    std::unique_ptr<ThreadExecutor> watcher_;
    std::unique_ptr<ThreadExecutor> worker_;
    std::unique_ptr<ThreadExecutor> slow_;
};

}  // namespace farshore
