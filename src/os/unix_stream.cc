#include "os/unix_stream.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace farshore {
namespace {

constexpr int64_t kForever = std::numeric_limits<int64_t>::max();

int64_t steady_us() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000LL + now.tv_nsec / 1000;
}

int64_t deadline_after(int timeout_ms) { return steady_us() + timeout_ms * 1000LL; }

// Waits for `events`. False when the deadline passed.
Result<bool> wait_for(int fd, short events, int64_t deadline_us) {
    for (;;) {
        int wait_ms = -1;
        if (deadline_us != kForever) {
            const int64_t left_us = deadline_us - steady_us();
            if (left_us <= 0) return false;
            wait_ms = static_cast<int>(std::min<int64_t>((left_us + 999) / 1000, 1'000'000));
        }
        pollfd polled{fd, events, 0};
        const int ready = ::poll(&polled, 1, wait_ms);
        if (ready > 0) return true;
        if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for a socket");
    }
}

}  // namespace

Result<std::unique_ptr<UnixStream>> UnixStream::connect(const std::string& path, int timeout_ms) {
    if (path.size() > kMaxUnixPathBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("the socket path '{}' has {} bytes, the system takes {}", path,
                                path.size(), kMaxUnixPathBytes),
                    "use a shorter directory");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(path.begin(), path.end(), address.sun_path);
    const int64_t deadline_us = deadline_after(timeout_ms);
    for (;;) {
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!fd) return fail_errno(errno, "cannot make a socket");
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
            return std::unique_ptr<UnixStream>(new UnixStream(std::move(fd)));
        const int error = errno;
        if (error == EINTR) continue;
        if (error == ENOENT)
            return fail(Code::kNotFound, fmt::format("there is no socket {}", path));
        if (error == ECONNREFUSED)
            return fail(Code::kUnavailable, fmt::format("nobody listens on {}", path));
        // The listener's queue is full, and the kernel has nothing to wait on: ask again.
        if (error != EAGAIN) return fail_errno(error, fmt::format("cannot connect to {}", path));
        if (steady_us() >= deadline_us)
            return fail(Code::kTimeout,
                        fmt::format("{} takes no further connection: its queue is full", path));
        const timespec pause{0, 5'000'000};
        ::nanosleep(&pause, nullptr);
    }
}

Result<size_t> UnixStream::read_until(MutableByteView out, int64_t deadline_us) {
    for (;;) {
        const ssize_t n = ::recv(fd_.get(), out.data(), out.size(), 0);
        if (n >= 0) return static_cast<size_t>(n);
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail_errno(errno, "cannot read from a socket");
        FS_ASSIGN(const bool ready, wait_for(fd_.get(), POLLIN, deadline_us));
        if (!ready) return fail(Code::kTimeout, "nothing came from the socket in time");
    }
}

Result<size_t> UnixStream::read_some(MutableByteView out, int timeout_ms) {
    return read_until(out, deadline_after(timeout_ms));
}

Result<size_t> UnixStream::read_some(MutableByteView out) { return read_until(out, kForever); }

Status UnixStream::write_all(ByteView data, int timeout_ms) {
    const int64_t deadline_us = deadline_after(timeout_ms);
    while (!data.empty()) {
        const ssize_t n = ::send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL);
        if (n >= 0) {
            data = data.subspan(static_cast<size_t>(n));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail_errno(errno, "cannot write to a socket");
        FS_ASSIGN(const bool ready, wait_for(fd_.get(), POLLOUT, deadline_us));
        if (!ready) return fail(Code::kTimeout, "the socket took nothing in time");
    }
    return {};
}

void UnixStream::shutdown() { ::shutdown(fd_.get(), SHUT_RDWR); }

Result<int> UnixStream::peer_pid() const {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return fail_errno(errno, "cannot ask for a socket's peer");
    return static_cast<int>(peer.pid);
}

Result<int> unix_socket_server_pid(const std::string& path) {
    FS_ASSIGN(const auto stream, UnixStream::connect(path, 1));
    return stream->peer_pid();
}

bool unix_socket_accepts(const std::string& path) {
    return UnixStream::connect(path, 1).has_value();
}

}  // namespace farshore
