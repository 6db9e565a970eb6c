// A source that gives its machine up, and gets it back (docs/design/return.md).
#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/item_supervisor.h"
#include "block/file_device.h"
#include "capture/capture_files.h"
#include "ebpf/block_trace.h"
#include "os/log.h"

namespace farshore {
namespace {

// A guest may miss the power button while it boots.
constexpr int64_t kPressAgainUs = 20'000'000;
constexpr int64_t kReturnSliceUs = 500'000;
// Reading and summing 64 MiB from a slow store takes its time.
constexpr int64_t kAnswerUs = 120'000'000;

bool same_return_disks(const std::vector<DesiredDisk>& a, const std::vector<DesiredDisk>& b) {
    return std::ranges::equal(a, b, [](const DesiredDisk& x, const DesiredDisk& y) {
        return x.index == y.index && x.path == y.path && x.size_bytes == y.size_bytes &&
               x.removed == y.removed;
    });
}

}  // namespace

// ---- given up ----------------------------------------------------------------------------------

Status ItemSupervisor::stand_by(const DesiredItem& desired) {
    FS_TRY(make_room(desired));
    if (desired.mode == CaptureMode::kDevice)
        return fail(Code::kUnsupported, "an agent does not shut its own machine down",
                    "shut the machine down there; what it wrote until then is sent");
    if (desired.mode == CaptureMode::kMirror) FS_TRY(power_off(desired));
    // A way home that was given up: nothing is captured here.
    FS_ASSIGN(const bool written_back, files_.exists(return_path()));
    if (written_back && !session_) {
        drop_return();
        standing_by_ = true;
        return {};
    }
    if (!standing_by_) {
        if (!session_) {
            // What is in the log of an agent before this one is sent all the same.
            std::vector<uint64_t> sizes;
            for (const DesiredDisk& disk : desired.disks)
                sizes.push_back(disk.removed ? 0 : disk.size_bytes);
            FS_TRY(open_session(
                desired.mode == CaptureMode::kMirror ? TapMode::kMirror : TapMode::kInPath, sizes));
        }
        mirror_.reset();
        qmp_.reset();
        FS_TRY(end_process(TapMode::kInPath));
        standing_by_ = true;
        log::info("agent", {.item = desired.name, .item_id = item_.to_string()},
                  "item {}: stands by, nobody has its disks", desired.name);
    }
    follow_appliance(desired);
    return note_standing(desired);
}

// Ok when the machine is off.
Status ItemSupervisor::power_off(const DesiredItem& desired) {
    if (!qmp_ || !qmp_->connected()) {
        mirror_.reset();
        qmp_.reset();
        auto connected = QmpClient::connect(desired.qmp_socket);
        if (!connected) return {};
        qmp_ = std::move(*connected);
    }
    const int64_t now_us = clock_.steady_us();
    if (desired.power_off) {
        FS_TRY(qmp_->execute("quit"));
        powered_off_us_ = now_us;
    } else if (powered_off_us_ == 0 || now_us - powered_off_us_ > kPressAgainUs) {
        FS_TRY(qmp_->execute("system_powerdown"));
        powered_off_us_ = now_us;
    }
    return fail(Code::kUnavailable, "the machine was asked to shut down, and still runs",
                "wait, or fail over with --power-off");
}

// Once all is stored, the disks of a machine that was served in the path are known: a way home
// needs no comparison. (A mirrored one's may have bytes that no guest wrote.)
Status ItemSupervisor::note_standing(const DesiredItem& desired) {
    if (stood_ || !desired.all_stored || desired.mode != CaptureMode::kInPath) return {};
    if (session_->status().gap != GapState::kNone || desired.stored.v == 0) return {};
    for (const DesiredDisk& disk : desired.disks) {
        if (disk.removed) continue;
        FS_ASSIGN(const auto device, open_file_device(disk.path));
        FS_TRY(device->flush());
    }
    ReturnProgress progress;
    progress.have = desired.stored;
    progress.paths = return_paths(desired.disks);
    FS_TRY(write_file_durably(files_, return_path(), as_bytes(encode_return_progress(progress))));
    return_forgotten_ = false;
    stood_ = true;
    return {};
}

// ---- and back ----------------------------------------------------------------------------------

// What was captured there is of no use any more: the disks become something else.
Status ItemSupervisor::forget_capture(const DesiredItem& desired) {
    mirror_.reset();
    qmp_.reset();
    std::vector<uint64_t> sizes;
    for (const DesiredDisk& disk : desired.disks)
        sizes.push_back(disk.removed ? 0 : disk.size_bytes);
    const bool device = desired.mode == CaptureMode::kDevice;
    const TapMode mode = device                                 ? TapMode::kBlock
                         : desired.mode == CaptureMode::kMirror ? TapMode::kMirror
                                                                : TapMode::kInPath;
    const CaptureConfig config = session_ ? session_->config() : capture_config(mode, sizes);
    FS_TRY(end_capture(mode));
    if (device) FS_TRY(BlockTrace::remove(pin_directory()));
    FS_TRY(CaptureFiles::remove(config, files_));
    standing_by_ = false;
    machine_known_ = false;
    disks_looked_at_.clear();
    return {};
}

ReturnPeers ItemSupervisor::return_peers() {
    ReturnPeers peers;
    peers.compare =
        [this](
            const std::vector<CompareQuestion>& questions) -> Result<std::vector<CompareAnswer>> {
        std::vector<QuestionLine::Question> asked;
        for (const CompareQuestion& question : questions)
            asked.push_back([this, &question](uint64_t request) {
                return encode(CompareFrame{request, item_, question});
            });
        FS_ASSIGN(const auto bodies, compare_line_->ask(asked, kAnswerUs));
        std::vector<CompareAnswer> answers;
        for (const Bytes& body : bodies) {
            FS_ASSIGN(ComparedFrame frame, decode_compared(body));
            answers.push_back(std::move(frame.answer));
        }
        return answers;
    };
    peers.ask =
        [this](const std::vector<ReturnQuestion>& questions) -> Result<std::vector<ReturnAnswer>> {
        std::vector<QuestionLine::Question> asked;
        for (const ReturnQuestion& question : questions)
            asked.push_back([this, &question](uint64_t request) {
                return encode(ReturnFrame{request, item_, question});
            });
        FS_ASSIGN(const auto bodies, return_line_->ask(asked, kAnswerUs));
        std::vector<ReturnAnswer> answers;
        for (const Bytes& body : bodies) {
            FS_ASSIGN(ReturnedFrame frame, decode_returned(body));
            answers.push_back(std::move(frame.answer));
        }
        return answers;
    };
    return peers;
}

Status ItemSupervisor::go_home(const DesiredItem& desired) {
    FS_TRY(make_room(desired));
    if (desired.mode == CaptureMode::kDevice)
        return fail(Code::kUnsupported, "an agent cannot write the disks that it runs from",
                    "name disks of another agent: `farshore reprotect NAME --to-agent AGENT "
                    "--disk PATH`");
    if (desired.mode == CaptureMode::kMirror && QmpClient::connect(desired.qmp_socket))
        return fail(Code::kWrongState, "the machine still runs here, and has its disks open",
                    "end it: its disks become what the machine at the recovery site has");
    if (return_ &&
        (return_id_ != desired.way_home.id || !same_return_disks(return_disks_, desired.disks)))
        return_.reset();
    if (!return_) {
        FS_TRY(forget_capture(desired));
        RealRandom random;
        FS_ASSIGN(return_, DiskReturn::open(desired.way_home, desired.disks, return_path(), files_,
                                            clock_, random));
        return_id_ = desired.way_home.id;
        return_disks_ = desired.disks;
        return_forgotten_ = false;
    }
    if (!compare_line_) {
        const std::lock_guard lock(mutex_);
        compare_line_ = std::make_unique<QuestionLine>(home_, route_, FrameType::kCompared);
        return_line_ = std::make_unique<QuestionLine>(home_, route_, FrameType::kReturned);
    }
    route_.set(desired.appliance);
    return return_->work(desired.way_home, return_peers(), kReturnSliceUs);
}

void ItemSupervisor::drop_return() {
    return_.reset();
    std::unique_ptr<QuestionLine> compare, back;
    const std::lock_guard lock(mutex_);
    compare.swap(compare_line_);
    back.swap(return_line_);
}

// Before anybody else writes to the disks: what was noted of them holds no more.
Status ItemSupervisor::end_return() {
    standing_by_ = false;
    stood_ = false;
    drop_return();
    if (return_forgotten_) return {};
    if (auto removed = files_.remove(return_path());
        !removed && removed.error().code() != Code::kNotFound)
        return removed;
    FS_ASSIGN(const bool there, files_.exists(item_directory()));
    if (there) FS_TRY(files_.sync_directory(item_directory()));
    return_forgotten_ = true;
    return {};
}

// ---- at the recovery site ----------------------------------------------------------------------

// Empty: the usual place.
std::string ItemSupervisor::tap_socket() const {
    return recovery_ ? recovery_->socket_path : std::string();
}

Status ItemSupervisor::ask_recovery_disks(const ItemId& item) {
    FS_ASSIGN(RecoveryDisks disks, options_.recovery_disks(item));
    // By index: those that there are not have their place.
    RecoveryDisks known;
    known.replica = std::move(disks.replica);
    known.socket_path = std::move(disks.socket_path);
    for (ServedDisk& disk : disks.disks) {
        if (known.disks.size() <= disk.index) known.disks.resize(size_t{disk.index} + 1);
        known.disks[disk.index] = std::move(disk);
    }
    recovery_ = std::move(known);
    return {};
}

Status ItemSupervisor::prepare_recovery(const DesiredItem& desired) {
    if (session_) return {};
    if (!options_.recovery_disks)
        return fail(Code::kUnsupported, "this agent is at no recovery site");
    FS_TRY(ask_recovery_disks(desired.item));
    std::vector<uint64_t> sizes;
    for (const ServedDisk& disk : recovery_->disks) sizes.push_back(disk.size_bytes);
    return follow_disks(TapMode::kInPath, sizes);
}

}  // namespace farshore
