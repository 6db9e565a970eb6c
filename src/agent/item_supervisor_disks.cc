// The disks of a protected machine, and what becomes of them while it is protected: found,
// measured, added, removed, grown. The capture is set up anew for each change; its log goes on.
#include <fmt/core.h>

#include <algorithm>

#include "agent/item_supervisor.h"
#include "capture/capture_files.h"
#include "capture/tap_config.h"
#include "compute/local_machine.h"
#include "ebpf/block_trace.h"
#include "os/log.h"

namespace farshore {
namespace {

constexpr int64_t kSizesCheckUs = 2'000'000;
constexpr int64_t kTracerRetryUs = 5'000'000;

bool same_disks(const std::vector<DesiredDisk>& a, const std::vector<DesiredDisk>& b) {
    return std::ranges::equal(a, b, [](const DesiredDisk& x, const DesiredDisk& y) {
        return x.path == y.path && x.removed == y.removed;
    });
}

}  // namespace

// ---- what there is
// -------------------------------------------------------------------------------

bool ItemSupervisor::disks_due(const DesiredItem& desired) {
    const int64_t now_us = clock_.steady_us();
    const bool asked = !same_disks(desired.disks, disks_looked_at_);
    if (!asked && now_us - sizes_checked_us_ < kSizesCheckUs) return false;
    sizes_checked_us_ = now_us;
    disks_looked_at_ = desired.disks;
    size_trouble_.reset();
    return true;
}

// One that was added and cannot be had yet must not cost the others their protection.
Result<std::vector<uint64_t>> ItemSupervisor::in_path_sizes(const DesiredItem& desired) {
    const size_t known = session_ ? session_->config().disk_bytes.size() : 0;
    std::vector<uint64_t> sizes;
    for (const DesiredDisk& disk : desired.disks) {
        if (disk.removed) {
            sizes.push_back(0);
            continue;
        }
        auto size = [&]() -> Result<uint64_t> {
            FS_ASSIGN(const std::unique_ptr<File> file, files_.open(disk.path, OpenMode::kRead));
            FS_ASSIGN(const uint64_t bytes, file->size());
            if (bytes == 0)
                return fail(Code::kInvalidArgument, fmt::format("{} is empty", disk.path),
                            "protect a disk that has a size");
            return bytes;
        }();
        if (!size && disk.joining && sizes.size() >= known) {
            size_trouble_ = size.error();
            break;
        }
        if (!size) return fail(size.error());
        sizes.push_back(*size);
    }
    return sizes;
}

// Which disk is which was settled when protection began, or when one was added; their names may be
// others by now.
Status ItemSupervisor::find_devices(const DesiredItem& desired) {
    const std::string path = item_directory() + "/devices.json";
    std::vector<LocalDisk> known, found;
    auto kept = read_whole_file(files_, path, kMaxAgentDocumentBytes);
    if (kept) {
        FS_ASSIGN(known, decode_devices(as_text(*kept)));
    } else if (kept.error().code() != Code::kNotFound) {
        return fail(kept.error());
    }
    const auto removed = [&](size_t i) {
        return i < desired.disks.size() && desired.disks[i].removed;
    };
    for (size_t i = 0; i < known.size(); ++i) {
        // Its place.
        if (removed(i) || known[i].size_bytes == 0) {
            found.emplace_back();
            continue;
        }
        FS_ASSIGN(LocalDisk now, find_disk(known[i].identity, known[i].device));
        found.push_back(std::move(now));
    }
    for (size_t i = known.size(); i < desired.disks.size(); ++i) {
        if (removed(i)) {
            found.emplace_back();
            continue;
        }
        auto now = inspect_disk(desired.disks[i].path);
        if (!now && desired.disks[i].joining) {
            size_trouble_ = now.error();
            break;
        }
        if (!now) return fail(now.error());
        found.push_back(std::move(*now));
    }
    for (size_t i = 0; i < found.size(); ++i)
        for (size_t j = i + 1; j < found.size(); ++j)
            if (found[i].size_bytes != 0 && found[i].device == found[j].device)
                return fail(Code::kInvalidArgument,
                            fmt::format("{} is named twice", found[i].device));
    const std::string document = encode_devices(found);
    if (!kept || as_text(*kept) != document)
        FS_TRY(write_file_durably(files_, path, as_bytes(document)));
    devices_ = std::move(found);
    return {};
}

Status ItemSupervisor::describe_this_machine(const DesiredItem& desired) {
    LocalMachineOptions options;
    options.name = desired.name;
    options.now = clock_.now();
    for (size_t i = 0; i < devices_.size(); ++i)
        if (devices_[i].size_bytes != 0)
            options.disks.push_back(
                {devices_[i].device, devices_[i].size_bytes, static_cast<DiskIndex>(i)});
    FS_ASSIGN(machine_, describe_local_machine(options));
    machine_known_ = true;
    return {};
}

// ---- in the path
// ---------------------------------------------------------------------------------

Status ItemSupervisor::prepare_in_path(const DesiredItem& desired) {
    if (session_ && !disks_due(desired)) return {};
    auto sizes = in_path_sizes(desired);
    if (!sizes) {
        if (!session_) return fail(sizes.error());
        size_trouble_ = sizes.error();
        return {};
    }
    FS_TRY(follow_disks(TapMode::kInPath, *sizes));
    describe_plain(desired, session_->config().disk_bytes);
    return {};
}

void ItemSupervisor::describe_plain(const DesiredItem& desired,
                                    const std::vector<uint64_t>& sizes) {
    if (machine_known_ && described_bytes_ == sizes) return;
    std::vector<PlainDisk> plain;
    for (size_t i = 0; i < sizes.size(); ++i)
        if (sizes[i] != 0)
            plain.push_back({desired.disks[i].path, sizes[i], static_cast<DiskIndex>(i)});
    machine_ = describe_plain_machine(desired.name, plain);
    described_bytes_ = sizes;
    machine_known_ = true;
}

// While its seed is read at the recovery site.
Status ItemSupervisor::describe(const DesiredItem& desired) {
    if (machine_known_) return {};
    switch (desired.mode) {
        case CaptureMode::kInPath: {
            FS_ASSIGN(const auto sizes, in_path_sizes(desired));
            describe_plain(desired, sizes);
            return {};
        }
        case CaptureMode::kMirror: {
            FS_TRY(connect_machine(desired));
            FS_ASSIGN(const MachineDescription now,
                      capture_machine(*qmp_, desired.name, clock_.now()));
            return recall_machine(now);
        }
        case CaptureMode::kDevice:
            FS_TRY(find_devices(desired));
            return describe_this_machine(desired);
        case CaptureMode::kRecovery:
            break;
    }
    return {};
}

// ---- this machine's own disks ------------------------------------------------------------------

std::string ItemSupervisor::pin_directory() const {
    return std::string(kBpfDirectory) + "/" + kPinPrefix + short_id();
}

Status ItemSupervisor::prepare_devices(const DesiredItem& desired) {
    if (session_ && !disks_due(desired)) return {};
    if (auto found = find_devices(desired); !found) {
        if (!session_) return found;
        size_trouble_ = found.error();
        return {};
    }
    FS_TRY(mount_bpf_directory());
    std::vector<uint64_t> sizes;
    for (const LocalDisk& disk : devices_) sizes.push_back(disk.size_bytes);
    FS_TRY(follow_disks(TapMode::kBlock, sizes));
    const auto& now = session_->config().disk_bytes;
    if (machine_known_ && described_bytes_ == now) return {};
    FS_TRY(describe_this_machine(desired));
    described_bytes_ = now;
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
    for (size_t i = 0; i < session_->config().disk_bytes.size(); ++i) {
        ServedDisk disk;
        disk.index = static_cast<DiskIndex>(i);
        disk.size_bytes = session_->config().disk_bytes[i];
        if (disk.size_bytes == 0) {
            disk.backing = BackingKind::kNone;
        } else {
            disk.path = devices_[i].device;
            disk.read_only = true;
        }
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
    if (had_one) ++tracer_restarts_;
    return {};
}

// ---- changes
// -------------------------------------------------------------------------------------

Status ItemSupervisor::follow_disks(TapMode mode, const std::vector<uint64_t>& sizes) {
    if (!session_) return open_session(mode, sizes);
    const std::vector<uint64_t> known = session_->config().disk_bytes;
    if (sizes == known) return {};
    if (auto possible = check_disk_change(known, sizes); !possible) {
        // It goes on with what was protected.
        size_trouble_ = possible.error();
        return {};
    }
    std::string words;
    for (const uint64_t bytes : sizes) words += fmt::format(" {}", bytes);
    log::info("agent", {.item_id = item_.to_string()},
              "item {}: its disks have changed, they have{} bytes now", short_id(), words);
    FS_TRY(end_capture(mode));
    const Status reshaped = CaptureFiles::reshape(capture_config(mode, sizes), files_);
    FS_TRY(open_session(mode, reshaped ? sizes : known));
    if (!reshaped) size_trouble_ = reshaped.error();
    return {};
}

// The machine goes on; in path its writes wait for the next tap.
Status ItemSupervisor::end_capture(TapMode mode) {
    const bool stopping = stopping_.exchange(true);
    if (session_) session_->poke();
    watcher_.reset();
    stopping_ = stopping;
    FS_TRY(home_.run_sync([this] {
        points_.reset();
        compare_.reset();
        move_.reset();
        sender_.reset();
        source_.reset();
    }));
    FS_TRY(end_process(mode));
    // What was posted and not answered is asked again by the vault.
    bookmarks_.clear();
    consistent_request_.clear();
    session_.reset();
    return {};
}

// A tap is not asked to end. nbdkit would answer a request that comes then with an error, which is
// the guest's, or its mirror's end; and it would wait for its clients to leave. One that is killed
// answers nothing: the request comes again, and the next tap finds in the log what was under way.
Status ItemSupervisor::end_process(TapMode mode) {
    tap_.let_go();
    tracer_.reset();
    if (mode == TapMode::kBlock) return CaptureProcess::clean_up(tap_directory());
    if (auto running = NbdServer::adopt(tap_directory(), tap_socket())) FS_TRY(running->kill());
    return NbdServer::clean_up(tap_directory(), tap_socket());
}

}  // namespace farshore
