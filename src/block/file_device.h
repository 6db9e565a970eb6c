// A raw file or a block device of the host as a BlockDevice. Buffered (page cache): flush() is what
// makes it durable. Any thread. Errors of the kernel come through as kIo, kNoSpace, ...
#pragma once

#include <memory>
#include <string>

#include "block/block_device.h"

namespace farshore {

struct FileDeviceOptions {
    bool read_only = false;
    // Refuse (kDiskChanged) a file of another size; 0: any.
    uint64_t expect_bytes = 0;
    // A block device that is mounted, or open like this elsewhere, is kWrongState.
    bool exclusive = false;
    // Reads come from the disk, not from what the page cache has of it (what is dirty stays there).
    bool drop_cached = false;
};

// kNotFound, kForbidden, kInvalidArgument (not a file or block device, or empty), kDiskChanged.
Result<std::unique_ptr<BlockDevice>> open_file_device(const std::string& path,
                                                      FileDeviceOptions options = {});
// Whether it is a block device, and not a file. kNotFound, kForbidden.
Result<bool> is_block_device(const std::string& path);

}  // namespace farshore
