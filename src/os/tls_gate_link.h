// One connection through a gate, and its other half. A part of tls_gate.h; lives on the gate's
// thread.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "os/openssl.h"
#include "os/tls_gate.h"

namespace farshore::gate {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// TLS records on their way: OpenSSL reads and writes them here, never at a socket.
struct Records {
    std::unique_ptr<uint8_t[]> in;
    size_t in_begin = 0, in_end = 0;
    Bytes out;
};

// Plain bytes that were read and not yet sent on.
struct Plain {
    std::unique_ptr<uint8_t[]> bytes;
    size_t begin = 0, end = 0;
    void reset() { begin = end = 0; }
};

class Link : public std::enable_shared_from_this<Link> {
  public:
    struct Owner {
        std::function<void(Link*)> ended;
        std::function<void(const std::string& peer, const std::string& why)> refused;
    };
    Link(tcp::socket client, const Owner& owner, const TlsGateOptions& options, SslPtr ssl,
         std::unique_ptr<GateTalk> talk);
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    void start();
    void close();

  private:
    enum class State : uint8_t { kTalk, kHandshake, kTarget, kOpen, kLastWords, kDead };

    void set_timer(int milliseconds);
    void refuse(const std::string& why);
    // Sends what is left for the client, then closes.
    void close_after_last_words();

    void hear();
    void heard(ByteView bytes);
    void begin_handshake();
    void drive_handshake();
    void connect_target();
    void greet_target();
    void begin_moving();

    void read_client();
    void decrypt();
    void write_target();
    void read_target();
    // Starts to send records_.out, unless it is empty or a send is under way.
    void send_records();
    void drop_what_comes();

    tcp::socket client_;
    asio::local::stream_protocol::socket target_;
    asio::steady_timer timer_;
    const Owner& owner_;
    const TlsGateOptions& options_;
    std::unique_ptr<GateTalk> talk_;
    SslPtr ssl_;
    Records records_;
    std::string peer_;
    State state_ = State::kTalk;
    Bytes said_;  // in the clear, or to the target
    std::array<uint8_t, 4096> dropped_;
    Bytes sending_;  // records; those that are made meanwhile wait in records_.out
    Plain up_, down_;
    bool client_reading_ = false, target_reading_ = false;
    bool target_writing_ = false, client_writing_ = false;
};

}  // namespace farshore::gate
