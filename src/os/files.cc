// The file system of the kernel behind the FileSystem seam.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>

#include "os/fd.h"
#include "os/file_calls.h"
#include "os/real.h"
#include "os/stream_file.h"

namespace farshore {
namespace {

template <typename Call>
auto retry_interrupted(Call call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;
// The kernel moves at most 2 GiB - 4 KiB at once.
constexpr size_t kMostAtOnce = 1u << 30;

}  // namespace

Error file_error(int error_number, std::string_view verb, const std::string& path,
                 std::source_location where) {
    const std::string what = fmt::format("{} '{}'", verb, path);
    switch (error_number) {
        case ENOTDIR:  // a part of the path is a file: nothing can be there
            return Error(Code::kNotFound, what + ": a part of the path is not a directory", {},
                         where);
        case EISDIR:
            return Error(Code::kInvalidArgument, what + ": it is a directory", {}, where);
        case EROFS:
            return Error(Code::kForbidden, what + ": read-only file system", {}, where);
        case EMFILE:
        case ENFILE:
            return Error(Code::kLimitReached, what + ": too many open files",
                         "raise the limit of open files (ulimit -n)", where);
        case EFBIG:
            return Error(Code::kTooLarge, what + ": the file system has no files this large", {},
                         where);
        case EOPNOTSUPP:
        case ENOSYS:
            return Error(Code::kUnsupported, what + ": the file system cannot", {}, where);
        case ENOTEMPTY:
            return Error(Code::kWrongState, what + ": the directory is not empty", {}, where);
        default:
            return Error::from_errno(error_number, what, where);
    }
}

Result<size_t> read_fully(int fd, uint64_t offset_bytes, MutableByteView out,
                          const std::string& path) {
    size_t done = 0;
    while (done < out.size()) {
        const ssize_t n = retry_interrupted([&] {
            return ::pread(fd, out.data() + done, std::min(out.size() - done, kMostAtOnce),
                           static_cast<off_t>(offset_bytes + done));
        });
        if (n < 0) return fail(file_error(errno, "read", path));
        if (n == 0) break;
        done += static_cast<size_t>(n);
    }
    return done;
}

Status write_fully(int fd, uint64_t offset_bytes, ByteView data, const std::string& path) {
    size_t done = 0;
    while (done < data.size()) {
        const ssize_t n = retry_interrupted([&] {
            return ::pwrite(fd, data.data() + done, std::min(data.size() - done, kMostAtOnce),
                            static_cast<off_t>(offset_bytes + done));
        });
        if (n < 0) return fail(file_error(errno, "write", path));
        // Zero for a non-empty write would loop for ever; no file system should do it.
        if (n == 0) return fail(file_error(EIO, "write", path));
        done += static_cast<size_t>(n);
    }
    return {};
}

namespace {

class PosixFile final : public File {
  public:
    PosixFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

    Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
        return read_fully(fd_.get(), offset_bytes, out, path_);
    }

    Status write_at(uint64_t offset_bytes, ByteView data) override {
        return write_fully(fd_.get(), offset_bytes, data, path_);
    }

    Status sync() override {
        if (retry_interrupted([&] { return ::fdatasync(fd_.get()); }) != 0)
            return fail(file_error(errno, "sync", path_));
        return {};
    }

    Status truncate(uint64_t size_bytes) override {
        if (retry_interrupted(
                [&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)); }) != 0)
            return fail(file_error(errno, "resize", path_));
        return {};
    }

    Result<uint64_t> size() override {
        struct stat info {};
        if (::fstat(fd_.get(), &info) != 0) return fail(file_error(errno, "examine", path_));
        if (!S_ISBLK(info.st_mode)) return static_cast<uint64_t>(info.st_size);
        // A block device's stat has no size. Moving the position is harmless: pread and pwrite
        // do not use it.
        const off_t end = ::lseek(fd_.get(), 0, SEEK_END);
        if (end < 0) return fail(file_error(errno, "examine", path_));
        return static_cast<uint64_t>(end);
    }

    Status punch_hole(uint64_t offset_bytes, uint64_t length_bytes) override {
        if (length_bytes == 0) return {};
        if (retry_interrupted([&] {
                return ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   static_cast<off_t>(offset_bytes),
                                   static_cast<off_t>(length_bytes));
            }) != 0)
            return fail(file_error(errno, "punch a hole into", path_));
        return {};
    }

  private:
    UniqueFd fd_;
    std::string path_;
};

int open_flags(OpenMode mode) {
    switch (mode) {
        case OpenMode::kRead:
            return O_RDONLY;
        case OpenMode::kReadWrite:
            return O_RDWR;
        case OpenMode::kCreate:
            return O_RDWR | O_CREAT;
        case OpenMode::kCreateNew:
            return O_RDWR | O_CREAT | O_EXCL;
    }
    return O_RDONLY;
}

}  // namespace

Result<std::unique_ptr<File>> PosixFileSystem::open(const std::string& path, OpenMode mode) {
    UniqueFd fd(retry_interrupted(
        [&] { return ::open(path.c_str(), open_flags(mode) | O_CLOEXEC | O_NOCTTY, kFileMode); }));
    if (!fd) return fail(file_error(errno, "open", path));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return fail(file_error(errno, "examine", path));
    if (S_ISDIR(info.st_mode)) return fail(file_error(EISDIR, "open", path));
    return std::make_unique<PosixFile>(std::move(fd), path);
}

Result<std::unique_ptr<File>> PosixFileSystem::open_stream(const std::string& path, OpenMode mode) {
    FS_ASSIGN(std::unique_ptr<File> plain, open(path, mode));
    if (mode == OpenMode::kRead) return plain;
    FS_ASSIGN(const uint64_t size, plain->size());
    // The same file again, by the path that was just opened or made. Where the file system has no
    // direct writes (tmpfs), the page cache it is.
    UniqueFd direct(retry_interrupted(
        [&] { return ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC | O_NOCTTY); }));
    if (!direct) return plain;
    return make_stream_file(std::move(plain), std::move(direct), size, path);
}

Status PosixFileSystem::remove(const std::string& path) {
    if (::unlink(path.c_str()) == 0) return {};
    if (errno == EISDIR && ::rmdir(path.c_str()) == 0) return {};
    return fail(file_error(errno, "remove", path));
}

Status PosixFileSystem::rename(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0)
        return fail(file_error(errno, fmt::format("rename to '{}' from", to), from));
    return {};
}

Status PosixFileSystem::link(const std::string& from, const std::string& to) {
    if (::link(from.c_str(), to.c_str()) != 0)
        return fail(file_error(errno, fmt::format("link to '{}' from", to), from));
    return {};
}

Status PosixFileSystem::make_directories(const std::string& path) {
    if (path.empty()) return fail(Code::kInvalidArgument, "an empty path is no directory");
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) {
        if (S_ISDIR(info.st_mode)) return {};
        return fail(Code::kAlreadyExists,
                    fmt::format("make directory '{}': a file is there", path));
    }
    if (errno != ENOENT) return fail(file_error(errno, "examine", path));
    const std::string parent = parent_directory(path);
    if (parent != path) FS_TRY(make_directories(parent));
    // Somebody else may make it at the same time.
    if (::mkdir(path.c_str(), kDirectoryMode) != 0 && errno != EEXIST)
        return fail(file_error(errno, "make directory", path));
    return sync_directory(parent);
}

Status PosixFileSystem::sync_directory(const std::string& path) {
    UniqueFd fd(retry_interrupted(
        [&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (!fd) return fail(file_error(errno, "open directory", path));
    if (retry_interrupted([&] { return ::fsync(fd.get()); }) != 0)
        return fail(file_error(errno, "sync directory", path));
    return {};
}

Result<std::vector<std::string>> PosixFileSystem::list(const std::string& path) {
    struct Close {
        void operator()(DIR* directory) const { ::closedir(directory); }
    };
    std::unique_ptr<DIR, Close> directory(::opendir(path.c_str()));
    if (!directory) return fail(file_error(errno, "list", path));
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(directory.get());
        if (entry == nullptr) {
            if (errno != 0) return fail(file_error(errno, "list", path));
            break;
        }
        std::string name = entry->d_name;
        if (name == "." || name == "..") continue;
        bool is_directory = entry->d_type == DT_DIR;
        if (entry->d_type == DT_UNKNOWN || entry->d_type == DT_LNK) {
            struct stat info {};
            if (::fstatat(::dirfd(directory.get()), name.c_str(), &info, 0) == 0)
                is_directory = S_ISDIR(info.st_mode);
            else if (errno == ENOENT && entry->d_type == DT_UNKNOWN)
                continue;  // removed since it was listed
        }
        if (is_directory) name += '/';
        names.push_back(std::move(name));
    }
    std::sort(names.begin(), names.end());
    return names;
}

Result<bool> PosixFileSystem::exists(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return fail(file_error(errno, "examine", path));
}

Result<uint64_t> PosixFileSystem::free_bytes(const std::string& path) {
    struct statvfs info {};
    if (retry_interrupted([&] { return ::statvfs(path.c_str(), &info); }) != 0)
        return fail(file_error(errno, "examine", path));
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

Status PosixFileSystem::set_mode(const std::string& path, unsigned mode) {
    if (::chmod(path.c_str(), static_cast<mode_t>(mode)) != 0)
        return fail(file_error(errno, "change the rights of", path));
    return {};
}

Result<Bytes> read_whole_file(FileSystem& files, const std::string& path, size_t limit_bytes) {
    FS_ASSIGN(auto file, files.open(path, OpenMode::kRead));
    FS_ASSIGN(const uint64_t size, file->size());
    if (size > limit_bytes)
        return fail(Code::kTooLarge,
                    fmt::format("'{}' has {} bytes, at most {} are read", path, size, limit_bytes));
    // Files of /proc and /sys say 0 and have content, and a file may grow: read until the end.
    Bytes bytes(std::max<uint64_t>(size, 4096));
    size_t done = 0;
    for (;;) {
        FS_ASSIGN(const size_t n, file->read_at(done, MutableByteView(bytes).subspan(done)));
        done += n;
        if (done < bytes.size()) break;
        if (done > limit_bytes)
            return fail(Code::kTooLarge,
                        fmt::format("'{}' has more than {} bytes", path, limit_bytes));
        bytes.resize(std::min<size_t>(bytes.size() * 2, limit_bytes + 1));
    }
    bytes.resize(done);
    return bytes;
}

Status write_file_durably(FileSystem& files, const std::string& path, ByteView bytes,
                          FileAccess access) {
    const std::string temporary = path + ".tmp";
    // What an earlier crash left: removed rather than reused, so that its rights are not inherited.
    if (auto removed = files.remove(temporary);
        !removed && removed.error().code() != Code::kNotFound)
        return removed;
    auto write = [&]() -> Status {
        FS_ASSIGN(auto file, files.open(temporary, OpenMode::kCreateNew));
        FS_TRY(file->write_at(0, bytes));
        if (access == FileAccess::kPublic)
            if (auto* posix = dynamic_cast<PosixFileSystem*>(&files))
                FS_TRY(posix->set_mode(temporary, 0644));
        FS_TRY(file->sync());
        FS_TRY(files.rename(temporary, path));
        return files.sync_directory(parent_directory(path));
    };
    Status written = write();
    if (!written) (void)files.remove(temporary);
    return written;
}

std::string parent_directory(const std::string& path) {
    size_t end = path.size();
    while (end > 1 && path[end - 1] == '/') --end;
    const size_t slash = path.rfind('/', end == 0 ? 0 : end - 1);
    if (slash == std::string::npos || end == 0) return ".";
    size_t keep = slash;
    while (keep > 0 && path[keep - 1] == '/') --keep;
    return keep == 0 ? "/" : path.substr(0, keep);
}

}  // namespace farshore
