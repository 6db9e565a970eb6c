// The inside of TlsContext, for tls_channel.h and tls_gate.h alone.
#pragma once

#include <mutex>

#include "os/openssl.h"
#include "os/tls_connection.h"

namespace farshore {

struct TlsContext::Impl {
    std::mutex mutex;
    SslCtxPtr context;
    bool has_certificate = false;
    TimePoint certificate_until;

    SslPtr make_ssl() {
        std::lock_guard lock(mutex);
        return SslPtr(SSL_new(context.get()));  // keeps its SSL_CTX alive
    }
};

}  // namespace farshore
