// The real network: connections that carry frames (frame.h) over TLS 1.3, with certificates of one
// authority on both sides. Implements Dialer and Connection of base/seams.h.
//
// The bytes are moved by the threads of a TlsNetwork; callbacks come on the executor that was
// given. Who dials and who listens may use any thread. An Executor must outlive what was made for
// it, or have ended before it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/seams.h"
#include "os/pki.h"

namespace farshore {

// Whom we trust and who we are. Shared by listeners and dialers. Any thread.
class TlsContext {
  public:
    // The authority's certificate, and our own ones; without them we can only dial to a listener
    // that does not ask for a certificate. kMalformed, kWrongKey.
    static Result<std::shared_ptr<TlsContext>> make(const std::string& authority_pem,
                                                    const std::optional<Credentials>& credentials);
    ~TlsContext();
    // For connections made from now on; after an error the old ones stay in use.
    Status reload(const std::string& authority_pem, const std::optional<Credentials>& credentials);
    // When our own certificate ends; 0: we have none.
    TimePoint certificate_until() const;

    struct Impl;
    Impl& impl() { return *impl_; }

  private:
    TlsContext();
    std::unique_ptr<Impl> impl_;
};

// The threads that move the bytes. Destroyed after listeners and dialers; connections that are left
// are closed with kCancelled, closing ones get up to a second to send what they have.
class TlsNetwork {
  public:
    explicit TlsNetwork(unsigned threads = 1);
    ~TlsNetwork();

    struct Impl;
    const std::shared_ptr<Impl>& impl() const { return impl_; }

  private:
    std::shared_ptr<Impl> impl_;
};

struct TlsOptions {
    // Without frames to send, a keep-alive goes out this often.
    int64_t keepalive_us = 5'000'000;
    // A peer from which nothing came for this long is dead: closed with kTimeout. Longer than the
    // peer's keepalive_us.
    int64_t idle_timeout_us = 20'000'000;
    // From the first byte to the end of the TLS handshake; for dialling, the whole of it.
    int64_t handshake_timeout_us = 10'000'000;
    // close() and the destructor still send what is queued, for at most this long.
    int64_t linger_us = 5'000'000;
    // on_drained comes when queued bytes fall below this.
    size_t low_mark_bytes = 256u << 10;
    // Received and not yet handed over; at this much reading stops, and so, at last, the peer.
    size_t inbox_bytes = 8u << 20;
    // The longest frame of a peer without a certificate.
    size_t unnamed_frame_bytes = 64u << 10;

    // Listener only.
    bool require_client_certificate = true;
    size_t max_handshakes = 64;     // more wait to be accepted
    size_t max_connections = 1024;  // more are closed with kLimitReached

    // Dialler only: the common name that the listener must prove; empty: any of the authority's.
    std::string expected_peer_name;
};

class TlsListener {
  public:
    using OnAccept = std::function<void(std::unique_ptr<Connection>)>;
    // Somebody came and was sent away: who does not speak TLS 1.3, has no or a foreign certificate,
    // or is one too many. Without this it is logged.
    using OnRefused = std::function<void(const Error&)>;

    // `address` is "host:port" or "[v6]:port"; port 0: any. Both functions run on `executor`.
    // With require_client_certificate off, peer_name() is empty for a peer that showed none; one
    // that shows a foreign certificate is refused all the same.
    static Result<std::unique_ptr<TlsListener>> listen(
        TlsNetwork& network, std::shared_ptr<TlsContext> context, Executor& executor,
        const std::string& address, const TlsOptions& options, OnAccept on_accept,
        OnRefused on_refused = {});
    // On the executor, or when it has ended: no function runs afterwards. Connections stay.
    ~TlsListener();

    uint16_t port() const;
    // "host:port" with the real port.
    const std::string& address() const;

    struct Impl;

  private:
    TlsListener() = default;
    std::shared_ptr<Impl> impl_;
};

class TlsDialer final : public Dialer {
  public:
    TlsDialer(TlsNetwork& network, std::shared_ptr<TlsContext> context, TlsOptions options = {});
    // Dials under way are dropped without a call.
    ~TlsDialer() override;

    // kConnectionLost (refused, reset), kTimeout, kUnavailable (no such host), kUnauthenticated
    // (certificates; a listener that refuses ours shows it only as on_closed of the connection),
    // kMalformed (not TLS), kUnsupported (not TLS 1.3), kInvalidArgument (the address).
    void dial(Executor& executor, const std::string& address,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override;

    struct Impl;

  private:
    std::shared_ptr<Impl> impl_;
};

// "host:port" or "[v6]:port" in parts; kInvalidArgument.
struct HostPort {
    std::string host;
    uint16_t port = 0;
};
Result<HostPort> parse_host_port(const std::string& address);

}  // namespace farshore
