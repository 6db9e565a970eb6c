#include "os/shared_memory.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace farshore {
namespace {

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4,
              "a futex is a plain 32-bit word");

Status allocate(int fd, uint64_t size_bytes, const std::string& path) {
    for (;;) {
        if (::fallocate(fd, 0, 0, static_cast<off_t>(size_bytes)) == 0) return {};
        if (errno == EINTR) continue;
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            // Not a tmpfs. Sparse then: whoever puts it there takes the risk.
            if (::ftruncate(fd, static_cast<off_t>(size_bytes)) == 0) return {};
        }
        if (errno == ENOSPC)
            return fail(Code::kNoSpace,
                        fmt::format("shared memory '{}' needs {} bytes, the file system has less",
                                    path, size_bytes),
                        "enlarge the tmpfs, choose another run directory or a smaller ring");
        return fail_errno(errno, fmt::format("set aside {} bytes for '{}'", size_bytes, path));
    }
}

}  // namespace

SharedMemory::SharedMemory(SharedMemory&& other) noexcept { *this = std::move(other); }

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
    if (this == &other) return *this;
    unmap();
    fd_ = std::move(other.fd_);
    path_ = std::move(other.path_);
    data_ = std::exchange(other.data_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
    ring_ = std::exchange(other.ring_, nullptr);
    ring_bytes_ = std::exchange(other.ring_bytes_, 0);
    return *this;
}

SharedMemory::~SharedMemory() { unmap(); }

void SharedMemory::unmap_ring() {
    if (ring_ != nullptr) ::munmap(ring_, 2 * ring_bytes_);
    ring_ = nullptr;
    ring_bytes_ = 0;
}

void SharedMemory::unmap() {
    unmap_ring();
    if (data_ != nullptr) ::munmap(data_, size_bytes_);
    data_ = nullptr;
    size_bytes_ = 0;
}

Result<SharedMemory> SharedMemory::create(const std::string& path, uint64_t size_bytes,
                                          SharedRing ring) {
    if (size_bytes == 0) return fail(Code::kInvalidArgument, "shared memory of no bytes");
    {
        UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!fd) return fail_errno(errno, fmt::format("make shared memory '{}'", path));
        if (auto allocated = allocate(fd.get(), size_bytes, path); !allocated) {
            ::unlink(path.c_str());
            return fail(allocated.error());
        }
    }
    auto memory = open(path, ring);
    if (!memory) ::unlink(path.c_str());
    return memory;
}

Result<SharedMemory> SharedMemory::open(const std::string& path, SharedRing ring) {
    SharedMemory memory;
    memory.path_ = path;
    memory.fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (!memory.fd_) return fail_errno(errno, fmt::format("open shared memory '{}'", path));
    struct stat info {};
    if (::fstat(memory.fd_.get(), &info) != 0)
        return fail_errno(errno, fmt::format("examine shared memory '{}'", path));
    if (!S_ISREG(info.st_mode))
        return fail(Code::kMalformed, fmt::format("shared memory '{}' is not a file", path));
    if (info.st_uid != ::geteuid() && info.st_uid != 0)
        return fail(Code::kForbidden,
                    fmt::format("shared memory '{}' belongs to user {}", path, info.st_uid));
    if (info.st_size == 0)
        return fail(Code::kTruncated, fmt::format("shared memory '{}' is empty", path));
    void* data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ | PROT_WRITE,
                        MAP_SHARED, memory.fd_.get(), 0);
    if (data == MAP_FAILED) return fail_errno(errno, fmt::format("map shared memory '{}'", path));
    memory.data_ = static_cast<uint8_t*>(data);
    memory.size_bytes_ = static_cast<uint64_t>(info.st_size);
    FS_TRY(memory.map_ring(ring));
    return memory;
}

Status SharedMemory::map_ring(SharedRing ring) {
    unmap_ring();
    if (ring.length_bytes == 0) return {};
    const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    if (ring.offset_bytes % page != 0 || ring.length_bytes % page != 0 ||
        ring.offset_bytes > size_bytes_ || ring.length_bytes > size_bytes_ - ring.offset_bytes)
        return fail(
            Code::kMalformed,
            fmt::format("shared memory '{}': a ring of {} bytes at {} does not lie in whole "
                        "pages within {} bytes",
                        path_, ring.length_bytes, ring.offset_bytes, size_bytes_));
    // Set the addresses aside first: the two maps then replace them and nothing can come between.
    const auto length = static_cast<size_t>(ring.length_bytes);
    void* place =
        ::mmap(nullptr, 2 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return fail_errno(errno, fmt::format("map the ring of shared memory '{}'", path_));
    auto* first = static_cast<uint8_t*>(place);
    for (uint8_t* half : {first, first + length}) {
        if (::mmap(half, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd_.get(),
                   static_cast<off_t>(ring.offset_bytes)) == MAP_FAILED) {
            const int error_number = errno;
            ::munmap(place, 2 * length);
            return fail_errno(error_number,
                              fmt::format("map the ring of shared memory '{}'", path_));
        }
    }
    ring_ = first;
    ring_bytes_ = ring.length_bytes;
    return {};
}

Result<BootId> host_boot_id() {
    constexpr const char* kPath = "/proc/sys/kernel/random/boot_id";
    UniqueFd fd(::open(kPath, O_RDONLY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open '{}'", kPath));
    char text[64];
    const ssize_t n = ::read(fd.get(), text, sizeof text);
    if (n < 0) return fail_errno(errno, fmt::format("read '{}'", kPath));
    std::string digits;
    for (ssize_t i = 0; i < n; ++i)
        if (text[i] != '-' && text[i] != '\n') digits += text[i];
    return BootId::parse(digits);
}

bool futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_us) {
    timespec time{};
    if (timeout_us >= 0) {
        time.tv_sec = timeout_us / 1'000'000;
        time.tv_nsec = timeout_us % 1'000'000 * 1'000;
    }
    // Not FUTEX_PRIVATE_FLAG: the other side may be another process.
    const long result = ::syscall(SYS_futex, &word, FUTEX_WAIT, expected,
                                  timeout_us < 0 ? nullptr : &time, nullptr, 0);
    return !(result != 0 && errno == ETIMEDOUT);
}

int futex_wake(std::atomic<uint32_t>& word, int count) {
    return static_cast<int>(::syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0));
}

}  // namespace farshore
