#include "os/disk_lock.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <cerrno>

namespace farshore {
namespace {

constexpr off_t kFirst = 100, kBytes = 164;

}  // namespace

Result<DiskLock> DiskLock::take(const std::string& path) {
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (file.get() < 0) return fail_errno(errno, path);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = kFirst;
    lock.l_len = kBytes;
    if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES)
            return fail(Code::kWrongState, fmt::format("{} is in use by another program", path),
                        "end the machine that has it open");
        return fail_errno(errno, path);
    }
    return DiskLock(std::move(file));
}

}  // namespace farshore
