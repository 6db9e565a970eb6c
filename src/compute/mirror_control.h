// Makes a running QEMU copy every write of its disks into our tap, and lets the tap read the disks:
// architecture.md §2, docs/design/core.md "Mirror".
//
// For each disk n QEMU gets
//   - a read-only NBD export "source-<n>" of the disk, on one unix socket that QEMU listens on;
//   - a block node on the tap's NBD export, and a mirror job on the disk: sync=none,
//     copy-mode=write-blocking, so that a guest's write is complete when the tap has it.
// The guest needs no restart and notices nothing but latency; its discards are swallowed by QEMU
// while a mirror is attached. When the tap is away, a guest's write waits for `reconnect_delay_s`,
// then QEMU drops the mirror and the guest goes on: every change since is unknown to the tap.
//
// Order of use: export_sources(); start the tap; attach(); only then may the tap's copier begin to
// read (set all bits after attach() has returned): what it read earlier could have been overwritten
// unseen. After a false healthy() the same again with detach() first; ensure_attached() does it.
//
// Borrows the QmpClient, which must outlive it. One thread at a time. Every call is safe to repeat.
// Errors: those of QmpClient; kUnavailable when the tap does not answer or somebody else runs an
// NBD server in this QEMU.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "compute/machine_description.h"

namespace farshore {

class QmpClient;

struct MirrorDisk {
    DiskIndex index = 0;
    std::string node_name;   // the disk's top block node in QEMU
    std::string tap_export;  // the tap's NBD export for it
    uint64_t size_bytes = 0;
};

struct MirrorOptions {
    std::string source_socket;  // made by QEMU
    std::string tap_socket;
    std::vector<MirrorDisk> disks;
    // How long the guest's writes may wait for a tap that is away. QEMU tries to reconnect at once,
    // then after 1, 2, 4 s: with less than 2 s a tap that was restarted in time is missed by
    // chance.
    uint32_t reconnect_delay_s = 5;
    std::vector<DiskIndex> gone{};  // were mirrored once, and are not to be any more
};

struct MirrorDiskState {
    DiskIndex index = 0;
    bool exported = false;
    bool mirrored = false;  // the job is there, runs, and has seen no error
    std::string words;      // why not, for people
};

struct MirrorState {
    std::vector<MirrorDiskState> disks;
    bool healthy() const;
};

// The NBD export name of a source disk on MirrorOptions::source_socket: "source-<n>".
std::string source_export_name(DiskIndex disk);

// Which node is which protected disk, in a QEMU that may have been restarted: by device, else by
// serial number, else by position. kNotFound when one is missing, kDiskChanged when one is smaller
// than it was. `tap_export` is filled in as the disk's index in decimal.
Result<std::vector<MirrorDisk>> match_disks(const MachineDescription& machine,
                                            const MachineDescription& now);

class MirrorControl {
  public:
    MirrorControl(QmpClient& qmp, MirrorOptions options);

    // Starts QEMU's NBD server and exports every disk that is not exported yet.
    Status export_sources();
    // Attaches the mirror of every disk; one that was attached before is taken off first. All of
    // them are attached or none.
    Status attach();
    // Takes off mirrors, exports and the NBD server. What is not there is no error.
    Status detach();
    // Only the mirrors: the tap can still read the sources.
    Status detach_mirrors();
    Result<MirrorState> query();
    // Nothing when all is healthy; else exports and attaches what is not. Which disks were attached
    // anew: everything since they were last healthy is unknown to the tap.
    Result<std::vector<DiskIndex>> ensure_attached();
    // Mirror and export of one disk. What is not there is no error.
    Status take_off(DiskIndex disk);

  private:
    Status attach_disk(const MirrorDisk& disk);
    Status greet_tap();
    Status attach_anew(const MirrorDisk& disk);
    Status ask_to_end(DiskIndex disk);
    Status detach_disk(DiskIndex disk);
    Status end_export(DiskIndex disk);
    Status stop_server();

    QmpClient& qmp_;
    MirrorOptions options_;
    bool gone_taken_off_ = false;
};

}  // namespace farshore
