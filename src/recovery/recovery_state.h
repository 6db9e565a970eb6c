// What recovery knows of one thing that it runs: a test failover, a failover, an export. Kept as
// JSON in a file of its own, written before each step, so that whoever starts after a crash knows
// what may run.
//
// Plain values. Decoding names what it refuses (kMalformed, kTooLarge, kNewerVersion); unknown
// fields are ignored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "compute/accelerator.h"
#include "compute/guest_address.h"
#include "compute/machine_description.h"
#include "compute/recovery_machine.h"

namespace farshore {

inline constexpr size_t kMaxRecoveryStateBytes = 256u << 10;
inline constexpr size_t kMaxRecoveryNoteBytes = 1024;

enum class RecoveryKind : uint8_t {
    kTest,      // a machine beside production, thrown away afterwards
    kFailover,  // the machine itself, from now on here
    kExport,    // no machine: disks to look into, read-only
};
std::string_view recovery_kind_name(RecoveryKind kind);  // "test", "failover", "export"
Result<RecoveryKind> recovery_kind_from_name(std::string_view name);

// Stages in order; what a crash leaves in each is in docs/design/recovery.md.
enum class RecoveryStage : uint8_t {
    kPreparing,        // nothing runs; a lease may be held
    kStartingDisks,    // the NBD server may run
    kStartingMachine,  // the machine may run as well
    kRunning,          // all that there is to run runs (an export has no machine)
    kStopped,          // the machine ended by itself; its disks are kept
    kChangingPoint,    // the machine is being ended to start again at `sequence`
    kMoving,           // its disks are on their way to `moved_to`, at another compute host
    kArriving,         // nothing runs, and nothing is its own: `moved_from` brings it
    kFailed,           // `error` says why; nothing runs, the lease is held
    kCleaning,         // everything is being taken away
    kGone,             // only reported, never stored
};
std::string_view recovery_stage_name(RecoveryStage stage);  // "preparing", "starting-disks", ...
Result<RecoveryStage> recovery_stage_from_name(std::string_view name);

// How far the addresses of a machine's network cards are.
enum class AddressStage : uint8_t { kNone, kWaiting, kSet, kFailed };
std::string_view address_stage_name(AddressStage stage);  // "", "waiting", "set", "failed"

// What becomes of a failover that nobody has decided about for a time.
enum class Undecided : uint8_t {
    kWaits,      // it waits for a person
    kCommits,    // its point is final
    kRollsBack,  // it is given up; the source counts again
};
std::string_view undecided_name(Undecided what);  // "", "commit", "roll-back"
// kInvalidArgument.
Result<Undecided> undecided_from_name(std::string_view name);
// How long that may take.
inline constexpr uint32_t kMinUndecidedS = 60, kMaxUndecidedS = 365 * 86'400;

// A disk of the machine that becomes, or is, a file at the machine's host.
enum class OwnStage : uint8_t {
    kCopying,    // it is the overlay still
    kSwitching,  // it is the overlay still; its machine may be held
    kHeld,       // it is the file; its machine may be held still
    kSwitched,   // it is the file
};
struct OwnDisk {
    OwnStage stage = OwnStage::kCopying;
    std::string path;
};

// Milliseconds from the request on; -1: not yet.
struct RecoveryTimings {
    TimePoint requested;
    int64_t disks_ready_ms = -1;
    int64_t machine_started_ms = -1;
    int64_t first_read_ms = -1;  // the guest (or its firmware) read a disk
};

struct RecoveryError {
    Code code = Code::kInternal;
    std::string what;
    std::string remedy;
};

struct RecoveryState {
    std::string id;
    RecoveryKind kind = RecoveryKind::kTest;
    RecoveryStage stage = RecoveryStage::kPreparing;
    bool committed = false;
    bool hydrated = false;  // its overlays are whole disks: nothing is read from the replica
    // Disks that are, or become, files at its host, in `own_directory`. `own_files` of them were
    // begun: each has a name of its own.
    std::map<DiskIndex, OwnDisk> own;
    std::string own_directory;
    DiskFormat own_format = DiskFormat::kQcow2;
    uint32_t own_files = 0;
    bool let_go = false;    // kCleaning: the machine stays, and is not ours any more
    bool captured = false;  // its disks are served by a tap of the vault's agent, not by us
    ItemId item;
    std::string item_name;
    std::string compute;        // the name of the host on which it runs; empty: this one
    std::string compute_where;  // RecoveryCompute::where() of it then
    bool tried = false;         // a machine may be there
    std::string moved_to;       // kMoving: the id of the recovery that goes on there
    std::string moved_from;     // the id of the one whose disks it has got, or gets
    std::string copy;           // the name of the store that is read; empty: the vault's own
    std::string note;           // of whoever asked for it
    Undecided undecided = Undecided::kWaits;
    TimePoint decide_at;  // then, unless a person has decided; without meaning for kWaits
    Sequence sequence;
    TimePoint point_time;
    // The lease that keeps `sequence` readable, and one that a change of point is about to let go
    // of.
    uint64_t lease = 0;
    uint64_t old_lease = 0;
    MachineDescription machine;
    NetworkChoice network;  // of all cards that `networks` does not name
    // Of the machine's cards, by place.
    std::vector<NetworkChoice> networks;
    // What cards are given, by place; after each start anew.
    std::map<uint32_t, GuestAddress> addresses;
    AddressStage address_stage = AddressStage::kNone;  // of those that the guest's agent sets
    std::string address_words;                         // why they are not set
    DiskIndex export_disk = 0;                         // kExport
    std::string export_socket;
    Accelerator accelerator = Accelerator::kTcg;
    bool on_trial = false;
    std::string accelerator_words;
    RecoveryTimings timings;
    uint32_t disk_server_restarts = 0;
    std::string boot;  // of the host, when it was last started
    std::optional<RecoveryError> error;
};

// Whether that disk is a file at the machine's host.
bool is_own(const RecoveryState& state, DiskIndex disk);
// Whether all of a machine's are, and it runs on: it needs neither us nor the store.
bool stands_alone(const RecoveryState& state);

// Of the card at that place.
const NetworkChoice& network_of(const RecoveryState& state, size_t nic);

std::string encode_recovery_state(const RecoveryState& state);
Result<RecoveryState> decode_recovery_state(std::string_view json);

}  // namespace farshore
