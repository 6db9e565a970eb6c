// Hydration: what a failed-over machine's disks still read from the replica is copied into their
// overlays behind it, until each overlay is the whole disk. The machine is not stopped and not
// asked: nothing is switched over. docs/design/recovery.md, "Hydration".
//
// Blocking, minutes to hours; any thread. Borrows what Options names.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/seams.h"
#include "recovery/failover.h"

namespace farshore {

struct HydrationOptions {
    FileSystem* files = nullptr;
    Clock* clock = nullptr;
    uint64_t bytes_per_s = 0;  // of data; 0: as fast as it goes
    // Left free where the overlays are: the machine writes there, too.
    uint64_t reserve_bytes = 1ull << 30;
    // How long it waits for disks that nobody serves, e.g. while the machine is shut down.
    int64_t patience_us = 120'000'000;
    // Bytes of all disks that are at hand. Called several times a second; an error ends it.
    std::function<Status(uint64_t done_bytes, uint64_t total_bytes)> report;
};

struct HydrationReport {
    uint64_t disk_bytes = 0;    // of all disks
    uint64_t copied_bytes = 0;  // data that this run asked for
};

// Of a committed failover. It may end anywhere, killed too: the next call goes on. Ok again when it
// is done. kNotFound, kWrongState (not committed, failed), kNoSpace, kUnavailable (nobody serves
// its disks), what `report` gives.
Result<HydrationReport> hydrate(Recoveries& recoveries, const std::string& id,
                                const HydrationOptions& options);

}  // namespace farshore
