// A disk copied to another device: what reads as zeroes is left out, several pieces at once,
// resumed behind what was written and flushed, and read back in a second pass.
//
// The source must not change meanwhile: a point of a replica does not. What was written is kept as
// sums in a file beside the target, 32 bytes a piece of at most 1 MiB, so that neither a resumption
// nor the second pass has to read the source again. Memory: 1 MiB a thread, and 2 KiB of sums.
//
// Blocks; one call at a time on one target. Borrows everything. Errors: those of the two devices
// and of the sums' file; kCorrupt when the second pass finds something else than was written.
#pragma once

#include <functional>

#include "base/seams.h"
#include "block/block_device.h"
#include "os/worker_pool.h"

namespace farshore {

// Where a copy stands. Everything before is written and durable, and its sums are.
struct ImageCopyPosition {
    uint64_t copied_bytes = 0;   // of the disk, from its beginning
    uint64_t pieces = 0;         // sums in the file
    uint64_t written_bytes = 0;  // by the pieces
    uint64_t verified_pieces = 0;
    uint64_t verified_bytes = 0;  // of the disk
};

struct ImageCopy {
    BlockDevice* from = nullptr;
    BlockDevice* to = nullptr;
    File* sums = nullptr;  // of begin_sums()
    WorkerPool* pool = nullptr;
    Clock* clock = nullptr;
    uint64_t disk_bytes = 0;  // at most what both devices have
    // `to` reads as zeroes where this copy, or the one that it resumes, wrote nothing.
    bool blank = true;
    ImageCopyPosition position;
    // Keeps the position for a resumption: each 64 MiB or ten seconds, and at the end of a pass.
    std::function<Status(const ImageCopyPosition&)> save;
    // After each stretch (32 to 64 MiB): how far of the disk, and what was written or read back
    // since this pass was called. An error (kCancelled) ends the pass with it.
    std::function<Status(uint64_t done_bytes, uint64_t moved_bytes)> report;
};

// Makes the file anew, with a key of its own for the sums.
Status begin_sums(File& sums, Random& random);

// Both go on from `position` and move it. After copy_image() the target is flushed.
Status copy_image(ImageCopy& copy);
Status verify_image(ImageCopy& copy);

}  // namespace farshore
