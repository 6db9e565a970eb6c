#include "os/tcp_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

namespace farshore {

TcpProbe::TcpProbe(uint16_t port, int timeout_ms) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        if (errno != EINPROGRESS) return;
        pollfd wait{fd.get(), POLLOUT, 0};
        if (::poll(&wait, 1, timeout_ms) <= 0) return;
        int error = 0;
        socklen_t size = sizeof error;
        if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return;
    }
    fd_ = std::move(fd);
}

bool TcpProbe::stays_open(int timeout_ms) const {
    pollfd wait{fd_.get(), POLLIN, 0};
    if (::poll(&wait, 1, timeout_ms) <= 0) return true;
    char byte = 0;
    return ::recv(fd_.get(), &byte, 1, MSG_PEEK) > 0;
}

}  // namespace farshore
