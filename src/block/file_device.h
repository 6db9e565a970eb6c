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
};

// kNotFound, kForbidden, kInvalidArgument (not a file or block device, or empty), kDiskChanged.
Result<std::unique_ptr<BlockDevice>> open_file_device(const std::string& path,
                                                      FileDeviceOptions options = {});

}  // namespace farshore
