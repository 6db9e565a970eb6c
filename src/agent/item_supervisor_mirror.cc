// A protected machine that runs in a QEMU: its disks, its monitor, its mirrors.
#include <fmt/core.h>

#include <algorithm>

#include "agent/item_supervisor.h"
#include "capture/capture_files.h"
#include "compute/guest_freezer.h"
#include "os/log.h"

namespace farshore {

Status ItemSupervisor::connect_machine(const DesiredItem& desired) {
    // A monitor that is gone means a QEMU that is gone, or about to be.
    if (qmp_ && qmp_->connected()) return {};
    mirror_.reset();
    qmp_.reset();
    auto connected = QmpClient::connect(desired.qmp_socket);
    if (!connected) {
        // Without its machine a tap would go on saying that nothing is written.
        (void)tap_.kill();
        return fail(connected.error().with_context("the machine can't be reached"));
    }
    qmp_ = std::move(*connected);
    auto agent = find_guest_agent(*qmp_);
    guest_agent_ = agent ? *agent : std::string();
    return {};
}

// QEMU lets nobody resize a disk that is mirrored, so sizes are looked at when its monitor is new.
Status ItemSupervisor::prepare_mirror(const DesiredItem& desired) {
    FS_TRY(connect_machine(desired));
    if (mirror_ && !disks_due(desired)) return {};
    FS_ASSIGN(const MachineDescription now, capture_machine(*qmp_, desired.name, clock_.now()));
    if (!machine_known_) FS_TRY(recall_machine(now));
    FS_TRY(adapt_machine(desired, now));
    std::vector<uint64_t> sizes(desired.disks.size());
    for (const MachineDisk& disk : machine_.disks) {
        if (sizes.size() <= disk.index) sizes.resize(disk.index + 1u);
        sizes[disk.index] = disk.size_bytes;
    }
    // One that was added and could not be found yet is not one that was removed: it and what comes
    // behind it wait.
    for (size_t i = 0; i < desired.disks.size(); ++i)
        if (sizes[i] == 0 && !desired.disks[i].removed) {
            sizes.resize(i);
            break;
        }
    const std::vector<uint64_t> before =
        session_ ? session_->config().disk_bytes : std::vector<uint64_t>();
    if (mirror_ && before == sizes) return {};
    // All that QEMU is asked for comes before the tap goes. Then the guest's writes wait for the
    // next one; a QEMU that drains its disks meanwhile (it does for most changes) waits for them,
    // and answers nobody.
    if (mirror_)
        for (size_t i = 0; i < before.size(); ++i)
            if (before[i] != 0 && i < sizes.size() && sizes[i] == 0)
                FS_TRY(mirror_->take_off(static_cast<DiskIndex>(i)));
    FS_TRY(MirrorControl(*qmp_, mirror_options(sizes)).export_sources());
    FS_TRY(follow_disks(TapMode::kMirror, sizes));
    const auto& taken = session_->config().disk_bytes;
    // Of an agent before this one: a disk that was added then, or meanwhile, and was not mirrored.
    // Its tap has copied nothing either.
    const bool idle =
        before.empty() && (session_->status().copy_paused || !NbdServer::adopt(tap_directory()));
    for (size_t i = 0; i < taken.size(); ++i) {
        const auto disk = static_cast<DiskIndex>(i);
        const bool fresh =
            before.empty() ? idle && session_->all_to_copy(disk) : i >= before.size();
        if (taken[i] != 0 && fresh) fresh_disks_.push_back(disk);
    }
    // A mirror must be attached before anything is copied (mirror_control.h).
    if (!fresh_disks_.empty()) session_->set_copy_paused(true);
    mirror_ = std::make_unique<MirrorControl>(*qmp_, mirror_options(taken));
    return {};
}

// Of the disks that have a size there.
MirrorOptions ItemSupervisor::mirror_options(const std::vector<uint64_t>& sizes) const {
    MirrorOptions options;
    options.source_socket = tap_directory() + "/source.sock";
    options.tap_socket = tap_directory() + "/nbd.sock";
    for (const MirrorDisk& disk : mirror_disks_)
        if (disk.index < sizes.size() && sizes[disk.index] != 0) options.disks.push_back(disk);
    for (size_t i = 0; i < sizes.size(); ++i)
        if (sizes[i] == 0) options.gone.push_back(static_cast<DiskIndex>(i));
    return options;
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

// Disks that were added to it or removed from it, and those that have grown.
Status ItemSupervisor::adapt_machine(const DesiredItem& desired, const MachineDescription& now) {
    MachineDescription wanted = machine_;
    std::erase_if(wanted.disks, [&](const MachineDisk& disk) {
        return disk.index < desired.disks.size() && desired.disks[disk.index].removed;
    });
    for (size_t i = 0; i < desired.disks.size(); ++i) {
        const DesiredDisk& disk = desired.disks[i];
        const auto has_index = [&](const MachineDisk& one) { return one.index == i; };
        if (disk.removed || std::ranges::any_of(wanted.disks, has_index)) continue;
        const auto found = std::ranges::find_if(now.disks, [&](const MachineDisk& one) {
            return !disk.path.empty() &&
                   (one.qdev == disk.path || one.node_name == disk.path ||
                    one.serial == disk.path || one.path == disk.path ||
                    one.qdev.ends_with("/" + disk.path) ||
                    one.qdev.find("/" + disk.path + "/") != std::string::npos);
        });
        if (found == now.disks.end()) {
            size_trouble_ =
                Error(Code::kNotFound,
                      fmt::format("the machine has no disk '{}', which was added to it", disk.path),
                      "name it by its device id, node name, serial number or file; or attach it");
            break;
        }
        MachineDisk added = *found;
        added.index = static_cast<DiskIndex>(i);
        wanted.disks.push_back(std::move(added));
    }
    FS_ASSIGN(mirror_disks_, match_disks(wanted, now));
    for (size_t i = 0; i < wanted.disks.size(); ++i)
        wanted.disks[i].size_bytes = mirror_disks_[i].size_bytes;
    const std::string document = encode_machine(wanted);
    if (document != encode_machine(machine_))
        FS_TRY(write_file_durably(files_, item_directory() + "/machine.json", as_bytes(document)));
    machine_ = std::move(wanted);
    return {};
}

Status ItemSupervisor::ensure_mirror() {
    // Of one that was just added all is to be copied, and nothing is before this.
    const auto is_fresh = [&](DiskIndex disk) {
        return std::ranges::find(fresh_disks_, disk) != fresh_disks_.end();
    };
    const TapCommand resync{TapCommandKind::kResyncAll, PointKind::kBookmark, {}};
    FS_ASSIGN(const MirrorState before, mirror_->query());
    bool broken = false;
    for (const MirrorDiskState& disk : before.disks) {
        if (disk.mirrored || is_fresh(disk.index)) continue;
        broken = true;
        // At the first time there was none.
        if (session_->status().gap == GapState::kNone)
            log::warn("agent", {.item_id = item_.to_string()},
                      "item {}: disk {} was not mirrored: {}; everything is compared", short_id(),
                      disk.index, disk.words);
    }
    // Writes pass the tap by already: no point may be made from here on.
    if (broken && session_->status().gap == GapState::kNone)
        FS_TRY(session_->run(resync, 5'000'000));
    FS_ASSIGN(const std::vector<DiskIndex> anew, mirror_->ensure_attached());
    // What was written until a mirror was attached is unknown, also where it was copied meanwhile.
    if (!std::ranges::all_of(anew, is_fresh)) FS_TRY(session_->run(resync, 5'000'000));
    fresh_disks_.clear();
    if (session_->status().copy_paused) session_->set_copy_paused(false);
    return {};
}

}  // namespace farshore
