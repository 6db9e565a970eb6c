// The files of one item's capture, and how they come to be: shared memory, spill, dirty map. The
// shell that joins the core (capture_log.h, tap.h) to the system. Used by the tap's process and by
// the agent (capture_session.h); whichever is first makes them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "capture/capture_log.h"
#include "capture/dirty_map.h"
#include "capture/tap.h"
#include "os/shared_memory.h"

namespace farshore {

struct CaptureConfig {
    ItemId item;
    TapMode mode = TapMode::kInPath;
    std::string shared_memory_path;  // on a tmpfs
    std::string spill_path;          // its directory must exist; unused when spill_bytes is 0
    std::string dirty_map_path;      // its directory must exist
    uint64_t ring_bytes = 256ull << 20;
    uint64_t spill_bytes = 4ull << 30;
    std::vector<uint64_t> disk_bytes;  // by disk index; 0: removed
    // Bit by disk index. Read when the log is new: added, and not known to be copied.
    uint64_t joining = 0;
    // When everything is new: the first sequence is at least this. For an item whose files were
    // lost but whose log exists at the recovery site.
    Sequence first_at_least{1};
};

// Open files; movable. Whoever opens it decides whether it is the tap (one process, which then
// opens the dirty map) or the agent (one process).
struct CaptureFiles {
    SharedMemory memory;
    LogHeader header;
    std::unique_ptr<File> spill;

    // Opens what is there. What an earlier start of the host left, and what is damaged, is replaced
    // by an empty log with a gap over what the dirty map says (without one: over everything).
    // kDiskChanged when the disks are not those that were protected; kForeignStore when the files
    // are another item's.
    static Result<CaptureFiles> open(const CaptureConfig& config, FileSystem& files);
    // For the tap. Made new (everything counts as different) when it is missing.
    static Result<std::unique_ptr<DirtyMap>> open_dirty_map(const CaptureConfig& config,
                                                            FileSystem& files,
                                                            const LogHeader& header);
    // Whether the log that is there is of this start of the host and of these disks. kDiskChanged
    // when it is of disks that cannot have become these; kForeignStore.
    static Result<bool> fits(const CaptureConfig& config);
    // Makes what is there fit the disks of `config` when that can be done without losing anything:
    // disks at the end that are new (they join), some that are gone (0 bytes), some that have grown
    // (a gap, until what they gained is copied). Does nothing when they are the same, or when there
    // is nothing. No tap runs and no session is open. A crash in between leaves what was, or what
    // is wanted. kDiskChanged, with what would be lost; kDuplicateIdentity when a tap runs.
    static Status reshape(const CaptureConfig& config, FileSystem& files);
    // Removes all of them: protection has ended and no tap runs.
    static Status remove(const CaptureConfig& config, FileSystem& files);
};

// What reshape() does to the new log, which format_like() has made from one of disks that `was`.
// For tests, too.
void reshape_log(const LogHeader& log, const std::vector<uint64_t>& was);

// futex_wake, for CaptureProducer and CaptureConsumer.
WakeFunction real_wake();

}  // namespace farshore
