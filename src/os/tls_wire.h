// OpenSSL's view of a non-blocking socket, as a BIO of our own. Used by one thread at a time. A
// part of tls_channel.h.
#pragma once

#include <openssl/bio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace farshore::tls {

// The socket under OpenSSL: reads a lot at once, and a peer that is gone raises no SIGPIPE.
struct Wire {
    int fd = -1;
    std::unique_ptr<uint8_t[]> buffer;
    size_t begin = 0, end = 0;
    bool at_end = false;
    int error_number = 0;
};

// The BIO's data is the Wire, which must outlive it.
BIO_METHOD* wire_method();

}  // namespace farshore::tls
