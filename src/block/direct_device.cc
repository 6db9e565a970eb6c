#include "block/direct_device.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "os/fd.h"

namespace farshore {
namespace {

constexpr uint64_t kAlignment = 4096;
constexpr uint64_t kBounceBytes = 1u << 20;

struct Free {
    void operator()(uint8_t* at) const { std::free(at); }
};

class DirectDevice final : public BlockDevice {
  public:
    DirectDevice(UniqueFd fd, std::string path, uint64_t size_bytes, uint64_t block_bytes)
        : fd_(std::move(fd)),
          path_(std::move(path)),
          size_bytes_(size_bytes),
          block_bytes_(block_bytes) {}

    uint64_t size_bytes() const override { return size_bytes_; }
    bool read_only() const override { return true; }

    Status read(uint64_t offset, MutableByteView out) override {
        if (offset > size_bytes_ || out.size() > size_bytes_ - offset)
            return fail(Code::kInvalidArgument,
                        fmt::format("bytes {} to {} of '{}', which has {}", offset,
                                    offset + out.size(), path_, size_bytes_));
        const std::unique_ptr<uint8_t, Free> bounce(
            static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kBounceBytes)));
        if (!bounce) return fail(Code::kLimitReached, "no memory to read a disk");
        while (!out.empty()) {
            // Whole blocks around what is wanted; a disk's size is whole blocks.
            const uint64_t from = offset / block_bytes_ * block_bytes_;
            const uint64_t to =
                std::min(from + kBounceBytes,
                         (offset + out.size() + block_bytes_ - 1) / block_bytes_ * block_bytes_);
            const ssize_t n = ::pread(fd_.get(), bounce.get(), to - from, static_cast<off_t>(from));
            if (n < 0) {
                if (errno == EINTR) continue;
                return fail_errno(errno, fmt::format("read '{}' at {}", path_, from));
            }
            const uint64_t skip = offset - from;
            if (static_cast<uint64_t>(n) <= skip)
                return fail(Code::kDiskChanged, fmt::format("'{}' has become shorter", path_));
            const size_t got = std::min<uint64_t>(static_cast<uint64_t>(n) - skip, out.size());
            std::memcpy(out.data(), bounce.get() + skip, got);
            out = out.subspan(got);
            offset += got;
        }
        return {};
    }

    Status write(uint64_t, ByteView) override { return refused(); }
    Status zero(uint64_t, uint64_t, bool) override { return refused(); }
    Status discard(uint64_t, uint64_t) override { return refused(); }
    Status flush() override { return {}; }

    // A disk does not say which of its blocks were never written.
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        return std::vector<BlockExtent>{{offset, length, false, false}};
    }

  private:
    tl::unexpected<Error> refused() const {
        return fail(Code::kForbidden, fmt::format("'{}' is open for reading only", path_));
    }

    const UniqueFd fd_;
    const std::string path_;
    const uint64_t size_bytes_;
    const uint64_t block_bytes_;
};

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_direct_device(const std::string& path,
                                                        uint64_t expect_bytes) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open disk '{}'", path));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, fmt::format("examine '{}'", path));
    uint64_t size = 0;
    int block = 0;
    if (!S_ISBLK(info.st_mode) || ::ioctl(fd.get(), BLKGETSIZE64, &size) != 0 ||
        ::ioctl(fd.get(), BLKSSZGET, &block) != 0 || block <= 0)
        return fail(Code::kInvalidArgument, fmt::format("'{}' is no block device", path));
    if (expect_bytes != 0 && size != expect_bytes)
        return fail(
            Code::kDiskChanged,
            fmt::format("disk '{}' has {} bytes, {} were expected", path, size, expect_bytes),
            "disable and enable the protection of this machine");
    return std::unique_ptr<BlockDevice>(
        std::make_unique<DirectDevice>(std::move(fd), path, size, static_cast<uint64_t>(block)));
}

}  // namespace farshore
