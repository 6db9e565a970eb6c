// A gate: whoever comes over TCP, says a little in the clear and then proves over TLS 1.3 who it
// is, has its bytes moved to and from a new connection to a unix socket. What is said in the clear,
// and to the unix socket's server before bytes are moved, is a GateTalk: no protocol is known here.
//
// One thread moves everything. Bounded: kMaxGated connections at a time, further ones are closed;
// kGatePatienceMs from the accepting to the moving; buffers of kGateBufferBytes, five a connection,
// their memory touched only as far as bytes come (at most 330 MiB for all of them). A side that
// does not read holds the other one up through its buffers. When the client ends, both ends are
// closed at once: what it had sent and the server has not yet taken is dropped, since a client that
// has come again sends it again, and then the older must not come after the newer. When the server
// ends, the client still gets what the server had said, for kGateLastWordsMs at most.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "os/tls_connection.h"

namespace farshore {

inline constexpr size_t kMaxGated = 256;
inline constexpr size_t kGateBufferBytes = 256u << 10;
inline constexpr int kGatePatienceMs = 10'000;
inline constexpr int kGateLastWordsMs = 5'000;

// What is said on one connection before its bytes are moved. Used by the gate's thread alone.
class GateTalk {
  public:
    enum class Next : uint8_t {
        kMore,      // more is wanted
        kStartTls,  // what follows is TLS, once `send` has gone out
        kClose,     // once `send` has gone out
    };
    struct Answer {
        Next next = Next::kMore;
        Bytes send;
        std::string why;  // of kClose, for the log
    };
    virtual ~GateTalk() = default;

    // Said to a client that has come.
    virtual Bytes greeting() = 0;
    // What the client says in the clear, in pieces as they come. Not called after kStartTls or
    // kClose.
    virtual Answer hear(ByteView bytes) = 0;
    // How much the server behind the unix socket says by itself, at least 1.
    virtual size_t target_greeting_bytes() const = 0;
    // What it is answered; an error closes the connection.
    virtual Result<Bytes> answer_target(ByteView greeting) = 0;
};

struct TlsGateOptions {
    // Of one host; the first free one of the ports is taken.
    std::string host;  // an IP address without brackets, or a name
    std::vector<uint16_t> ports;
    std::string target_socket;  // connected to anew for each client
    std::string client_name;    // common name that a client's certificate must have
};

class TlsGate {
  public:
    // `talk` makes what is said on a connection, `refused` hears of each connection that ended
    // before its bytes were moved; both are called on the gate's thread. `context` needs
    // credentials. kInvalidArgument, kUnavailable (no such address here), kLimitReached (no port is
    // free).
    static Result<std::unique_ptr<TlsGate>> start(
        const TlsGateOptions& options, std::shared_ptr<TlsContext> context,
        std::function<std::unique_ptr<GateTalk>()> talk,
        std::function<void(const std::string& peer, const std::string& why)> refused);
    // Clients that come before this wait in the kernel's queue. Once.
    void open();
    // Ends all connections.
    ~TlsGate();
    TlsGate(const TlsGate&) = delete;
    TlsGate& operator=(const TlsGate&) = delete;

    uint16_t port() const;

  private:
    struct Impl;
    explicit TlsGate(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
