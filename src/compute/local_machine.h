// The machine that this process runs on, described from its own /sys and /proc, so that an agent
// inside a machine can say what is to be started elsewhere.
//
// Blocking; any thread. Only the disks are required: every other fact that cannot be read takes the
// default of MachineDescription.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "compute/machine_description.h"

namespace farshore {

struct LocalMachineOptions {
    std::string root = "/";        // of /sys, /proc, /dev and /run; another one in tests
    std::string name;              // empty: the host's name
    std::vector<PlainDisk> disks;  // in the order of their index; size 0: what /sys says
    // Compared with the hardware clock; none: it is taken to run on UTC.
    std::optional<TimePoint> now;
};

// kInvalidArgument: no disk, one twice, a partition. kNotFound: no such block device.
// kLimitReached: more than kMaxMachineDisks. What comes back decode_machine takes.
Result<MachineDescription> describe_local_machine(const LocalMachineOptions& options);

}  // namespace farshore
