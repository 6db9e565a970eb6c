// A block device of the running machine, read past the page cache: what the disk has, not what a
// file system or a buffered reader has of it in memory. The page cache of /dev/vda knows nothing of
// what a file system on /dev/vda1 writes.
//
// Reading only; write, zero and discard are kForbidden. Any thread. kNotFound, kForbidden;
// kInvalidArgument: no block device; kDiskChanged: another size than `expect_bytes` (0: any).
#pragma once

#include <memory>
#include <string>

#include "block/block_device.h"

namespace farshore {

Result<std::unique_ptr<BlockDevice>> open_direct_device(const std::string& path,
                                                        uint64_t expect_bytes);

}  // namespace farshore
