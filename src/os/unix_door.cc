#include "os/unix_door.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/unix_stream.h"

namespace farshore {

Result<UnixDoor> UnixDoor::make(const std::string& path) {
    if (path.size() > kMaxUnixPathBytes)
        return fail(Code::kInvalidArgument, fmt::format("'{}' is too long for a socket", path),
                    "use a shorter directory");
    UnixDoor door;
    door.listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!door.listener_) return fail(Error::from_errno(errno, "a socket"));
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail(Error::from_errno(errno, path));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    // Nobody can connect before it listens, and then its rights are as they shall be.
    if (::bind(door.listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
            0 ||
        ::chmod(path.c_str(), 0600) != 0 || ::listen(door.listener_.get(), 4) != 0)
        return fail(Error::from_errno(errno, path));
    return door;
}

bool UnixDoor::let_in() {
    UniqueFd next(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!next || client_) return false;
    client_ = std::move(next);
    return true;
}

std::optional<size_t> UnixDoor::hear(MutableByteView out) {
    const ssize_t n = ::recv(client_.get(), out.data(), out.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return std::nullopt;
    return static_cast<size_t>(n);
}

void UnixDoor::say(ByteView words) {
    if (client_)
        (void)!::send(client_.get(), words.data(), words.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace farshore
