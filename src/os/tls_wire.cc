#include "os/tls_wire.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace farshore::tls {
namespace {

// Read from the socket at once: fewer system calls than a record each.
constexpr size_t kReadAheadBytes = 256u << 10;

int wire_read(BIO* bio, char* out, int size) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (wire->begin == wire->end) {
        if (!wire->buffer)
            wire->buffer = std::make_unique_for_overwrite<uint8_t[]>(kReadAheadBytes);
        ssize_t n = 0;
        do {
            n = ::recv(wire->fd, wire->buffer.get(), kReadAheadBytes, 0);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            BIO_set_retry_read(bio);
            return -1;
        }
        if (n <= 0) {
            wire->at_end = n == 0;
            wire->error_number = n < 0 ? errno : 0;
            return n == 0 ? 0 : -1;
        }
        wire->begin = 0;
        wire->end = static_cast<size_t>(n);
    }
    const size_t n = std::min(wire->end - wire->begin, static_cast<size_t>(size));
    std::memcpy(out, wire->buffer.get() + wire->begin, n);
    wire->begin += n;
    return static_cast<int>(n);
}

int wire_write(BIO* bio, const char* data, int size) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    ssize_t n = 0;
    do {
        n = ::send(wire->fd, data, static_cast<size_t>(size), MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return static_cast<int>(n);
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        BIO_set_retry_write(bio);
    else
        wire->error_number = errno;
    return -1;
}

long wire_control(BIO* bio, int command, long, void*) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    switch (command) {
        case BIO_CTRL_EOF:
            return wire->at_end ? 1 : 0;
        case BIO_CTRL_FLUSH:
            return 1;
        default:
            return 0;
    }
}

}  // namespace

BIO_METHOD* wire_method() {
    static BIO_METHOD* method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
        BIO_meth_set_read(made, wire_read);
        BIO_meth_set_write(made, wire_write);
        BIO_meth_set_ctrl(made, wire_control);
        return made;
    }();
    return method;
}

}  // namespace farshore::tls
