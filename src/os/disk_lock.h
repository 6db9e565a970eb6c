// A disk image's file for one program alone, by the locks that QEMU takes on the images that it
// opens: bytes 100 to 263 of the file (QEMU 7.2, block/file-posix.c: RAW_LOCK_PERM_BASE,
// RAW_LOCK_SHARED_BASE). While it is held no QEMU opens the image, and it is not had while one
// does. Block devices have no such locks: they are opened exclusively instead.
#pragma once

#include <string>

#include "base/error.h"
#include "os/fd.h"

namespace farshore {

class DiskLock {
  public:
    // kWrongState: somebody uses it; kNotFound, kForbidden.
    static Result<DiskLock> take(const std::string& path);
    DiskLock(DiskLock&&) = default;
    DiskLock& operator=(DiskLock&&) = default;

  private:
    explicit DiskLock(UniqueFd file) : file_(std::move(file)) {}
    UniqueFd file_;
};

}  // namespace farshore
