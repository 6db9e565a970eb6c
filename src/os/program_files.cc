#include "os/program_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "os/fd.h"
#include "os/file_calls.h"

namespace farshore {

std::string own_program_directory() {
    std::array<char, 4096> buffer;
    const ssize_t n = ::readlink("/proc/self/exe", buffer.data(), buffer.size());
    if (n <= 0) return ".";
    const std::string path(buffer.data(), static_cast<size_t>(n));
    const size_t slash = path.rfind('/');
    return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

std::string tail_of_file(const std::string& path, size_t limit_bytes) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return {};
    const off_t size = ::lseek(fd.get(), 0, SEEK_END);
    const auto limit = static_cast<off_t>(limit_bytes);
    std::string text(limit_bytes, '\0');
    const ssize_t n = ::pread(fd.get(), text.data(), text.size(), size > limit ? size - limit : 0);
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    return text;
}

uint64_t file_size_or_zero(const std::string& path) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

Status check_private_file(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return fail(file_error(errno, "look at", path));
    if ((info.st_mode & S_IRWXO) == 0) return {};
    return fail(Code::kForbidden,
                fmt::format("{} holds secrets, and everybody may open it (mode {:o})", path,
                            info.st_mode & 0777),
                fmt::format("chmod 600 {}; if it was so for long, change the secrets", path));
}

Status check_program_file(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return fail(file_error(errno, "look at", path));
    if (!S_ISREG(info.st_mode) || ::access(path.c_str(), X_OK) != 0)
        return fail(Code::kForbidden, fmt::format("{} is no program that can be run", path),
                    fmt::format("chmod 755 {}", path));
    if ((info.st_mode & S_IWOTH) != 0)
        return fail(Code::kForbidden, fmt::format("everybody may change {}", path),
                    fmt::format("chmod o-w {}; look what is in it", path));
    return {};
}

Result<std::string> resolve_links(const std::string& path) {
    struct Free {
        void operator()(char* text) const { std::free(text); }
    };
    const std::unique_ptr<char, Free> resolved(::realpath(path.c_str(), nullptr));
    if (!resolved) return fail(file_error(errno, "resolve", path));
    return std::string(resolved.get());
}

}  // namespace farshore
