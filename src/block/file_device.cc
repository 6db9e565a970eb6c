#include "block/file_device.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace farshore {
namespace {

class FileDevice final : public BlockDevice {
  public:
    FileDevice(int fd, std::string path, uint64_t size_bytes, bool read_only)
        : fd_(fd), path_(std::move(path)), size_bytes_(size_bytes), read_only_(read_only) {}
    ~FileDevice() override { ::close(fd_); }

    uint64_t size_bytes() const override { return size_bytes_; }
    bool read_only() const override { return read_only_; }

    Status read(uint64_t offset, MutableByteView out) override {
        FS_TRY(check(offset, out.size(), false));
        while (!out.empty()) {
            const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
            if (n < 0) {
                if (errno == EINTR) continue;
                return failed("read");
            }
            if (n == 0)
                return fail(Code::kDiskChanged, fmt::format("'{}' has become shorter", path_));
            out = out.subspan(static_cast<size_t>(n));
            offset += static_cast<uint64_t>(n);
        }
        return {};
    }

    Status write(uint64_t offset, ByteView data) override {
        FS_TRY(check(offset, data.size(), true));
        while (!data.empty()) {
            const ssize_t n = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
            if (n < 0) {
                if (errno == EINTR) continue;
                return failed("write");
            }
            data = data.subspan(static_cast<size_t>(n));
            offset += static_cast<uint64_t>(n);
        }
        return {};
    }

    Status zero(uint64_t offset, uint64_t length, bool may_unmap) override {
        FS_TRY(check(offset, length, true));
        if (length == 0) return {};
        if (may_unmap && can_punch_) {
            if (allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)) return {};
            if (errno == EOPNOTSUPP)
                can_punch_ = false;
            else if (errno != EINVAL)
                return failed("punch a hole into");
        }
        if (can_zero_) {
            if (allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)) return {};
            if (errno == EOPNOTSUPP)
                can_zero_ = false;
            else if (errno != EINVAL)
                return failed("zero");
        }
        static const Bytes zeroes(1u << 20);
        while (length > 0) {
            const size_t n = std::min<uint64_t>(length, zeroes.size());
            FS_TRY(write(offset, ByteView(zeroes).first(n)));
            offset += n;
            length -= n;
        }
        return {};
    }

    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }

    Status flush() override {
        if (read_only_) return {};
        if (::fdatasync(fd_) != 0) return failed("flush");
        return {};
    }

    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length, false));
        std::vector<BlockExtent> found;
        const uint64_t end = offset + length;
        // Bounded: who wants more asks again behind the last one.
        while (offset < end && found.size() < 256) {
            const off_t data = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
            if (data < 0 && errno != ENXIO) {
                // Block devices and some file systems cannot say: all of it is data.
                found.push_back({offset, end - offset, false, false});
                break;
            }
            const uint64_t data_at = data < 0 ? end : std::min(static_cast<uint64_t>(data), end);
            if (data_at > offset) {
                found.push_back({offset, data_at - offset, true, true});
                offset = data_at;
                continue;
            }
            const off_t hole = ::lseek(fd_, static_cast<off_t>(offset), SEEK_HOLE);
            const uint64_t hole_at = hole < 0 ? end : std::min(static_cast<uint64_t>(hole), end);
            if (hole_at <= offset) {
                found.push_back({offset, end - offset, false, false});
                break;
            }
            found.push_back({offset, hole_at - offset, false, false});
            offset = hole_at;
        }
        if (found.empty()) found.push_back({offset, length, false, false});
        return found;
    }

  private:
    bool allocate(int mode, uint64_t offset, uint64_t length) {
        int result;
        do {
            result = ::fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
        } while (result != 0 && errno == EINTR);
        return result == 0;
    }
    Status check(uint64_t offset, uint64_t length, bool changes) const {
        if (offset > size_bytes_ || length > size_bytes_ - offset)
            return fail(Code::kInvalidArgument,
                        fmt::format("bytes {} to {} of '{}', which has {}", offset, offset + length,
                                    path_, size_bytes_));
        if (changes && read_only_)
            return fail(Code::kForbidden, fmt::format("'{}' is open for reading only", path_));
        return {};
    }
    tl::unexpected<Error> failed(std::string_view what) const {
        return fail_errno(errno, fmt::format("{} '{}'", what, path_));
    }

    const int fd_;
    const std::string path_;
    const uint64_t size_bytes_;
    const bool read_only_;
    std::atomic<bool> can_punch_{true};
    std::atomic<bool> can_zero_{true};
};

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_file_device(const std::string& path,
                                                      FileDeviceOptions options) {
    // Of a file, O_EXCL without O_CREAT means nothing.
    const int fd = ::open(path.c_str(), (options.read_only ? O_RDONLY : O_RDWR) |
                                            (options.exclusive ? O_EXCL : 0) | O_CLOEXEC);
    if (fd < 0 && errno == EBUSY)
        return fail(Code::kWrongState, fmt::format("'{}' is in use: it is mounted, or held", path),
                    "unmount it, or name another one");
    if (fd < 0) return fail_errno(errno, fmt::format("open disk '{}'", path));
    struct stat info {};
    uint64_t size = 0;
    if (::fstat(fd, &info) != 0) {
        const int error_number = errno;
        ::close(fd);
        return fail_errno(error_number, fmt::format("examine disk '{}'", path));
    }
    if (S_ISREG(info.st_mode)) {
        size = static_cast<uint64_t>(info.st_size);
    } else if (!S_ISBLK(info.st_mode) || ::ioctl(fd, BLKGETSIZE64, &size) != 0) {
        ::close(fd);
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is neither a file nor a block device", path));
    }
    auto device = std::make_unique<FileDevice>(fd, path, size, options.read_only);
    if (options.drop_cached) (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (size == 0) return fail(Code::kInvalidArgument, fmt::format("disk '{}' is empty", path));
    if (options.expect_bytes != 0 && size != options.expect_bytes)
        return fail(Code::kDiskChanged,
                    fmt::format("disk '{}' has {} bytes, {} were expected", path, size,
                                options.expect_bytes),
                    "disable and enable the protection of this machine");
    return std::unique_ptr<BlockDevice>(std::move(device));
}

Result<bool> is_block_device(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
        return fail_errno(errno, fmt::format("examine '{}'", path));
    return S_ISBLK(info.st_mode);
}

}  // namespace farshore
