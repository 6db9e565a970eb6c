// A failed-over machine whose disks become files at its host. docs/design/recovery.md, "Files of
// its own", has the steps and what a crash between them leaves.
#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "capture/tap_config.h"
#include "compute/nbd_front.h"
#include "os/remove_directory.h"
#include "recovery/recovery_entry.h"

namespace farshore {
namespace {

constexpr int kSwitchTimeoutMs = 30'000;
constexpr int kFinishTimeoutMs = 500;
// Left free where the files are, and the vault's own disk may be.
constexpr uint64_t kReserveBytes = 1ull << 30;

// "web-1a2b3c4d5e6f-disk-0.qcow2": of the item's name what is good in a file's. With the recovery's
// own digits it is nobody else's, so that it may be removed when it was not made for certain.
std::string file_name(const RecoveryState& state, DiskIndex disk) {
    std::string name = state.item_name.substr(0, 64);
    for (char& c : name)
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_') c = '_';
    // A copy that ended may have left its file at a host that cannot be asked.
    const std::string again =
        state.own_files == state.own.size() ? "" : fmt::format("-{}", state.own_files);
    return fmt::format("{}/{}-{}-disk-{}{}.{}", state.own_directory, name,
                       state.id.substr(state.id.rfind('-') + 1), disk, again,
                       disk_format_name(state.own_format));
}

// Whether what was asked for may have been done all the same.
bool may_have_begun(const Error& error) {
    return error.retry() == Retry::kSoon || error.code() == Code::kTimeout ||
           error.code() == Code::kConnectionLost;
}

}  // namespace

DiskCopyOrder Recoveries::copy_of(const RecoveryState& state, size_t place,
                                  uint64_t bytes_per_s) const {
    const MachineDisk& disk = state.machine.disks[place];
    DiskCopyOrder order;
    order.place = place;
    order.export_name = sole_export_name(disk.index);
    order.size_bytes = disk.size_bytes;
    order.bytes_per_s = bytes_per_s;
    if (const auto at = state.own.find(disk.index); at != state.own.end())
        order.file = {at->second.path, state.own_format};
    return order;
}

// At this host, which may be full before the disks' own files are: the vault's are there, too.
Status Recoveries::check_room(const RecoveryState& state, const std::string& directory) {
    if (!state.compute.empty()) return {};
    FS_ASSIGN(const uint64_t free, options_.files->free_bytes(directory));
    if (free >= kReserveBytes) return {};
    return fail(Code::kNoSpace,
                fmt::format("{} MiB are free in {}; {} are left for others", free >> 20, directory,
                            kReserveBytes >> 20),
                "make room and try it again");
}

// With the entry's mutex held, and a machine: the disk is being copied after it, or was.
Result<CopyState> Recoveries::begin_own(Entry& entry, size_t place, const OwnFilesOrder& order) {
    RecoveryState& state = entry.state;
    const DiskIndex index = state.machine.disks[place].index;
    const bool known = state.own.contains(index);
    if (!known) {
        const RecoveryState before = state;
        if (state.own.empty()) {
            state.own_directory = order.directory;
            state.own_format = order.format;
        }
        std::string path = file_name(state, index);
        state.own[index].path = std::move(path);
        ++state.own_files;
        // Noted before: what is there is found again.
        if (Status saved = save(entry); !saved) {
            state = before;
            return fail(saved.error());
        }
    }
    const DiskCopyOrder copy = copy_of(state, place, order.bytes_per_s);
    if (known) {
        FS_ASSIGN(CopyState now, entry.machine->copy_state(copy));
        if (now.stage == CopyStage::kReady || now.stage == CopyStage::kSwitched ||
            (now.stage == CopyStage::kStuck && !order.go_on) ||
            (now.stage == CopyStage::kCopying && entry.own_speed == order.bytes_per_s))
            return now;
        if (now.stage == CopyStage::kNone) {
            // Its machine was started anew, or could not go on.
            (void)entry.machine->end_copy(copy);
            state.own.erase(index);
            FS_TRY(save(entry));
            return fail(Code::kIo,
                        fmt::format("the copy of disk {} to {} ended{}{}", index, copy.file.path,
                                    now.words.empty() ? "" : ": ", now.words));
        }
    }
    Status begun = entry.machine->begin_copy(copy);
    if (!begun) {
        if (!known && !may_have_begun(begun.error())) {
            state.own.erase(index);
            (void)save(entry);
        }
        return fail(begun.error());
    }
    entry.own_speed = order.bytes_per_s;
    return entry.machine->copy_state(copy);
}

// With the entry's mutex held: the machine goes on with the file alone.
Result<int64_t> Recoveries::switch_own(Entry& entry, size_t place, int timeout_ms) {
    RecoveryState& state = entry.state;
    const DiskIndex index = state.machine.disks[place].index;
    OwnDisk& disk = state.own.at(index);
    if (disk.stage == OwnStage::kCopying) {
        // One that its owner holds is let go by nobody else.
        FS_ASSIGN(const MachineState now, entry.machine->state());
        if (now != MachineState::kRunning)
            return fail(Code::kUnavailable,
                        fmt::format("the machine is {}", machine_state_name(now)));
        // What is dirty of the overlay is flushed when the guest is held: let that be little.
        if (auto overlay = options_.files->open(overlay_path(state_directory(state.id), index),
                                                OpenMode::kReadWrite))
            (void)(*overlay)->sync();
        disk.stage = OwnStage::kSwitching;
        if (Status saved = save(entry); !saved) {
            disk.stage = OwnStage::kCopying;
            return fail(saved.error());
        }
    }
    auto held = entry.machine->switch_over(
        copy_of(state, place, entry.own_speed),
        [&]() -> Status {
            const OwnStage before = std::exchange(disk.stage, OwnStage::kHeld);
            Status saved = save(entry);
            // It may be noted all the same: the guest is held until it surely is.
            if (!saved) disk.stage = before;
            return saved;
        },
        timeout_ms);
    if (held) {
        disk.stage = OwnStage::kSwitched;
        FS_TRY(save(entry));
    } else if (held.error().code() == Code::kWrongState) {
        // There is no such copy any more, and the guest has the overlay. Until that is noted it is
        // asked again.
        const OwnStage before = std::exchange(disk.stage, OwnStage::kCopying);
        if (Status saved = save(entry); !saved) {
            disk.stage = before;
            return fail(saved.error());
        }
    }
    return held;
}

// With the entry's mutex held: a copy that is surely not switched is given up.
Status Recoveries::end_own(Entry& entry, size_t place) {
    RecoveryState& state = entry.state;
    const auto at = state.own.find(state.machine.disks[place].index);
    if (at == state.own.end() || at->second.stage >= OwnStage::kHeld) return {};
    if (entry.machine) {
        const DiskCopyOrder copy = copy_of(state, place, 0);
        FS_ASSIGN(const CopyState now, entry.machine->copy_state(copy));
        const bool may_be_held =
            at->second.stage == OwnStage::kSwitching &&
            (now.stage == CopyStage::kReady || now.stage == CopyStage::kSwitched);
        if (may_be_held || now.stage == CopyStage::kSwitched) return {};
        FS_TRY(entry.machine->end_copy(copy));
    } else if (state.stage == RecoveryStage::kRunning) {
        return fail(Code::kUnavailable, "the machine cannot be asked just now");
    }
    state.own.erase(at);
    return save(entry);
}

// With the entry's mutex held, and a machine: what another vault began, or could not note; and what
// is left when the last disk is switched.
void Recoveries::finish_switch(Entry& entry) {
    RecoveryState& state = entry.state;
    for (size_t place = 0; place < state.machine.disks.size(); ++place) {
        const auto at = state.own.find(state.machine.disks[place].index);
        if (at == state.own.end() || at->second.stage == OwnStage::kCopying ||
            at->second.stage == OwnStage::kSwitched)
            continue;
        const auto switched = switch_own(entry, place, kFinishTimeoutMs);
        if (!switched && !state.error) {
            entry.own_trouble = true;
            state.error = describe(switched.error());
            (void)save(entry);
        }
        if (switched && std::exchange(entry.own_trouble, false)) {
            state.error.reset();
            (void)save(entry);
        }
    }
    if (farshore::stands_alone(state) && !entry.stands_alone) (void)stand_alone(entry);
}

// With the entry's mutex held, and no machine: a copy ends with its machine, and so does what held
// it. The caller saves it.
void Recoveries::drop_unfinished(Entry& entry) {
    for (auto at = entry.state.own.begin(); at != entry.state.own.end();) {
        if (at->second.stage >= OwnStage::kHeld) {
            at->second.stage = OwnStage::kSwitched;
            ++at;
            continue;
        }
        if (entry.state.compute.empty()) (void)remove_if_there(*options_.files, at->second.path);
        at = entry.state.own.erase(at);
    }
}

// With the entry's mutex held, and all of its disks switched. After an error: again.
Status Recoveries::stand_alone(Entry& entry) {
    RecoveryState& state = entry.state;
    if (!state.hydrated) {
        state.hydrated = true;
        if (Status saved = save(entry); !saved) {
            state.hydrated = false;
            return saved;
        }
    }
    if (!needs_server(state)) {
        entry.disks.reset();
        FS_TRY(NbdServer::clean_up(run_directory(state.id), nbd_socket(state)));
        FS_TRY(NbdFront::clean_up(run_directory(state.id)));
    }
    FS_TRY(remove_overlays(entry));
    FS_TRY(release_leases(options_.leases, state));
    FS_TRY(save(entry));
    entry.stands_alone = true;
    return {};
}

Result<Recoveries::OwnFilesStep> Recoveries::make_own_files(const std::string& id,
                                                            const OwnFilesOrder& order) {
    if (!order.directory.starts_with('/') || order.directory.size() > 1024)
        return fail(Code::kInvalidArgument, "the directory for the disks' files must be absolute");
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    OwnFilesStep step;
    for (const MachineDisk& disk : state.machine.disks) step.total_bytes += disk.size_bytes;
    if (farshore::stands_alone(state)) {
        if (!entry->stands_alone) FS_TRY(stand_alone(*entry));
        step.done_bytes = step.total_bytes;
        step.done = true;
        return step;
    }
    if (state.kind != RecoveryKind::kFailover || !state.committed || state.captured ||
        state.stage != RecoveryStage::kRunning || !entry->machine)
        return fail(Code::kWrongState,
                    fmt::format("the {} is {}{}{}: disks become files of a failover that is "
                                "committed, running, and not captured",
                                recovery_kind_name(state.kind), recovery_stage_name(state.stage),
                                state.committed ? "" : " and not committed",
                                state.captured ? " and captured" : ""));
    if (!state.own.empty() &&
        (state.own_directory != order.directory || state.own_format != order.format))
        return fail(Code::kWrongState,
                    fmt::format("some of its disks are files in {} already, as {}",
                                state.own_directory, disk_format_name(state.own_format)),
                    "name the same directory and format");
    for (size_t place = 0; place < state.machine.disks.size(); ++place) {
        const MachineDisk& disk = state.machine.disks[place];
        const auto at = state.own.find(disk.index);
        const OwnStage stage = at == state.own.end() ? OwnStage::kCopying : at->second.stage;
        if (stage == OwnStage::kSwitched) {
            step.done_bytes += disk.size_bytes;
            continue;
        }
        if (stage == OwnStage::kHeld) {
            FS_ASSIGN(step.held_us, switch_own(*entry, place, kSwitchTimeoutMs));
            step.done_bytes += disk.size_bytes;
            break;
        }
        FS_TRY(check_room(state, order.directory));
        FS_ASSIGN(const CopyState now, begin_own(*entry, place, order));
        if (now.stage == CopyStage::kStuck)
            return fail(now.no_space ? Code::kNoSpace : Code::kUnavailable, now.words,
                        now.no_space ? "make room and try it again" : "");
        if (now.stage == CopyStage::kReady || now.stage == CopyStage::kSwitched) {
            FS_ASSIGN(step.held_us, switch_own(*entry, place, kSwitchTimeoutMs));
            step.done_bytes += disk.size_bytes;
            break;
        }
        step.copied_bytes = now.done_bytes;
        // Of a copy more than the disk's size has to be copied when the guest writes meanwhile.
        if (now.total_bytes > 0)
            step.done_bytes += static_cast<uint64_t>(static_cast<double>(disk.size_bytes) *
                                                     static_cast<double>(now.done_bytes) /
                                                     static_cast<double>(now.total_bytes));
        break;
    }
    return step;
}

Status Recoveries::stop_own_files(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return {};
    for (size_t place = 0; place < state.machine.disks.size(); ++place)
        FS_TRY(end_own(*entry, place));
    return {};
}

Status Recoveries::let_go(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return {};
    if (!farshore::stands_alone(state))
        return fail(Code::kWrongState, "the machine's disks are not files of its own");
    if (!state.let_go) {
        FS_ASSIGN(const auto compute, compute_of(state));
        FS_ASSIGN(const MachineOrder order, order_of(state, false));
        FS_TRY(compute->let_go(order, state.own_directory + "/" + state.id + ".start"));
        state.let_go = true;
    }
    return remove_everything(*entry);
}

}  // namespace farshore
