// Hands TCP connections on to another address, byte for byte: TLS stays between the two ends. What
// a vault node does that does not lead.
//
// Bounded: kMaxRelayed connections at a time, further ones are closed; each has two buffers of
// kRelayBufferBytes. A connection that nobody can be found for is closed at once.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxRelayed = 4096;
inline constexpr size_t kRelayBufferBytes = 16u << 10;

class TcpRelay {
  public:
    // Listens on `address` (host:port). `target`: host:port to connect to now, empty: nobody;
    // called for each connection, from the relay's own thread. kInvalidArgument, kUnavailable (the
    // address is taken).
    static Result<std::unique_ptr<TcpRelay>> start(const std::string& address,
                                                   std::function<std::string()> target);
    // Ends all connections.
    ~TcpRelay();
    TcpRelay(const TcpRelay&) = delete;
    TcpRelay& operator=(const TcpRelay&) = delete;

    const std::string& address() const;  // with the real port

  private:
    struct Impl;
    explicit TcpRelay(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;
};

}  // namespace farshore
