// The whole main path of Farshore on the simulator: a guest on a protected machine with tap and
// agent, appliances, vaults, an object store; faults drawn from the seed; an oracle that compares
// what is offered with what the machine's disks were. docs/design/simulation.md §11.
#pragma once

#include <cstdint>
#include <string>

#include "sim/buggify.h"

namespace farshore::system_sim {

// Bugs that the oracle must find.
enum class Plant : uint8_t {
    kNone,
    kAckBeforeSync,
    kStoredBeforeRegistered,
    kSwapSegments,
    kMarkTooLate,
    kLostGap,
    kWrongOrder,
    kDeleteTooEarly,
    kSkippedSum,
    kEarlyEnd,
    kStaleCompare,
    kUnmarkTooEarly,
    kWrongDisk,
    kWrongDiskSet,
    kForeignAck,
    kStoredOutOfOrder,
};
inline constexpr Plant kPlants[] = {Plant::kAckBeforeSync,   Plant::kStoredBeforeRegistered,
                                    Plant::kSwapSegments,    Plant::kMarkTooLate,
                                    Plant::kLostGap,         Plant::kWrongOrder,
                                    Plant::kDeleteTooEarly,  Plant::kSkippedSum,
                                    Plant::kEarlyEnd,        Plant::kStaleCompare,
                                    Plant::kUnmarkTooEarly,  Plant::kWrongDisk,
                                    Plant::kWrongDiskSet,    Plant::kForeignAck,
                                    Plant::kStoredOutOfOrder};
std::string plant_name(Plant plant);

struct SystemOutcome {
    uint64_t comparisons = 0;  // that came to their end
    uint64_t answers = 0;
    std::string broken;  // empty: every promise held
    uint64_t hash = 0;
    FaultSites faults{0};
    // How much was exercised.
    uint64_t deaths = 0, power_losses = 0, gaps = 0, checks = 0, points_compared = 0, removed = 0,
             fenced_vaults = 0, machines = 0, take_overs = 0, lost_appliances = 0, writes = 0,
             floors_moved = 0, bytes_compared = 0, points_kept = 0;
    uint64_t leftovers = 0;  // rebuilds with segments of no log behind its end
    int64_t calm_us = 0;     // virtual time until it was protected again
};

// Every item is protected again within this much virtual time after the last fault.
inline constexpr int64_t kProtectedAgainUs = 180'000'000;

SystemOutcome run_system(uint64_t seed, Plant plant);

}  // namespace farshore::system_sim
