// The command line of a recovery machine's QEMU, and what the other computes need of it as well.
// Plain functions; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "compute/recovery_machine.h"

namespace farshore {

// QEMU's descriptor of the port of the first card, when that is on a bridge; the next card's is
// the next.
inline constexpr int kFirstPortFd = 3;

// QEMU's arguments, the program first. For tests and logs. `machine_types`: what this QEMU knows,
// e.g. "pc-q35-7.2"; empty: take the description's word. A card on a bridge has its port as the
// descriptor kFirstPortFd + its place. kUnsupported, kInvalidArgument.
Result<std::vector<std::string>> qemu_arguments(const MachineOrder& order,
                                                const std::vector<std::string>& machine_types);

// The wanted one when it is known; else the newest known of its kind. kUnsupported.
Result<std::string> choose_machine_type(const std::string& wanted,
                                        const std::vector<std::string>& known);
// Rank of each disk, from 1 on, in the order in which the firmware tries them.
std::vector<uint32_t> boot_ranks(const std::vector<MachineDisk>& disks);
// What the card at that place is plugged into.
NetworkChoice network_of(const MachineOrder& order, size_t nic);

// A shell script that starts a machine on files of its own, as qemu_arguments() does, when nobody
// looks after it any more. Ports on bridges are made by QEMU's own helper, which wants its rights.
Result<std::string> start_script(const MachineOrder& order,
                                 const std::vector<std::string>& machine_types);

// QEMU's node for a disk that is a file, as -blockdev and blockdev-add take it.
nlohmann::json own_file_node(const DiskFile& file, const std::string& node_name);

// kUnsupported: QEMU here has no networks of libvirt.
Status no_libvirt_network(const NetworkChoice& network);

struct UefiFiles {
    std::string code, variables;
};
// kDependencyMissing.
Result<UefiFiles> find_uefi();

}  // namespace farshore
