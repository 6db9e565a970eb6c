// What Recoveries holds of each of its recoveries, for failover.cc, recovery_upkeep.cc,
// captured_machine.cc, moved_machine.cc and own_files.cc alone.
#pragma once

#include <algorithm>
#include <cctype>
#include <mutex>
#include <optional>
#include <string>

#include "compute/nbd_server.h"
#include "os/shared_memory.h"
#include "recovery/failover.h"

namespace farshore {

struct Recoveries::Entry {
    std::mutex mutex;
    RecoveryState state;
    // The state as it was last saved, for those who only look: a start may hold `mutex` for
    // seconds.
    std::mutex seen_mutex;
    RecoveryState seen;  // guarded by seen_mutex
    std::optional<NbdServer> disks;
    std::unique_ptr<RecoveryMachine> machine;
    TrialWatch trial;
    int64_t machine_started_us = 0;  // steady clock
    int64_t lease_renewed_us = 0;
    // Taken up after a restart, and its machine not found yet: nothing is concluded from that.
    bool unadopted = false;
    // Of one on another host: that could not be reached when it was to be taken up.
    bool resume_again = false;
    int64_t resume_us = 0;      // not before, by the steady clock
    uint64_t own_speed = 0;     // what the copy of a disk into its file was told
    bool own_trouble = false;   // and state.error says so
    bool stands_alone = false;  // what it does not need any more is gone
    bool host_away = false;     // and state.error says so
    bool forgotten = false;     // cleaned up while somebody waited for the mutex
};

// Of the host, now.
inline std::string this_boot() {
    const auto boot = host_boot_id();
    return boot ? boot->to_string() : std::string();
}

inline bool has_machine(const RecoveryState& state) { return state.kind != RecoveryKind::kExport; }

inline bool has_address_by(const RecoveryState& state, AddressBy by) {
    return std::ranges::any_of(state.addresses,
                               [by](const auto& one) { return one.second.by == by; });
}

// One more disk, for cloud-init.
inline bool has_seed(const RecoveryState& state) {
    return has_machine(state) && has_address_by(state, AddressBy::kCloudInit);
}

inline std::string overlay_path(const std::string& state_directory, size_t disk) {
    return state_directory + "/disk-" + std::to_string(disk) + ".overlay";
}

// Whether something of it is served over NBD by us.
inline bool needs_server(const RecoveryState& state) {
    return !has_machine(state) || (has_seed(state) && !state.captured) ||
           std::ranges::any_of(state.machine.disks,
                               [&](const MachineDisk& disk) { return !is_own(state, disk.index); });
}

// The caller saves it. After an error: again.
inline Status release_leases(const PointLeases& leases, RecoveryState& state) {
    for (uint64_t* lease : {&state.old_lease, &state.lease}) {
        if (*lease == 0) continue;
        FS_TRY(leases.release(state.item, state.copy, *lease));
        *lease = 0;
    }
    return {};
}

inline bool valid_id(const std::string& id) {
    return !id.empty() && id.size() <= 40 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return std::islower(c) || std::isdigit(c) || c == '-';
    });
}

inline RecoveryError describe(const Error& error) {
    return {error.code(), error.what(), error.remedy()};
}

}  // namespace farshore
