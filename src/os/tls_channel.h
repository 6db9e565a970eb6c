// The inside of one connection: handshake, TLS records, queues, keep-alive and lingering. Made by
// the listener and the dialler of tls_connection.cc, and handed out as a Connection.
#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <mutex>
#include <optional>

#include "os/frame.h"
#include "os/tls_context.h"
#include "os/tls_loop.h"
#include "os/tls_wire.h"

namespace farshore::tls {

// Counts one of a bounded number for as long as it lives.
class Slot {
  public:
    explicit Slot(std::shared_ptr<std::atomic<size_t>> counter) : counter_(std::move(counter)) {
        ++*counter_;
    }
    ~Slot() { --*counter_; }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

  private:
    std::shared_ptr<std::atomic<size_t>> counter_;
};

// A connection's socket, TLS and queues. Its user (TlsConnection) is on the executor, all else on
// the loop's thread; what both touch is under `mutex_` or atomic.
class Channel : public std::enable_shared_from_this<Channel> {
  public:
    Channel(std::shared_ptr<Loop> loop, tcp::socket socket, const TlsOptions& options)
        : loop_(std::move(loop)),
          socket_(std::move(socket)),
          timer_(loop_->io),
          options_(options) {}
    ~Channel() = default;

    // -- loop's thread

    tcp::socket& socket() { return socket_; }
    const std::string& peer_name() const { return peer_name_; }
    const std::string& peer_address() const { return peer_address_; }
    void keep(std::shared_ptr<Slot> slot) { slot_ = std::move(slot); }

    // Calls back once, on the loop's thread, unless the whole network ends.
    void handshake(TlsContext::Impl& context, bool is_server, int64_t deadline_us,
                   std::function<void(Status)> done);
    void give_up(Error error) { end(std::move(error)); }
    // The network ends.
    void shut();

    // -- user's side, on its executor

    void attach(Executor& executor) {
        std::lock_guard lock(mutex_);
        executor_ = &executor;
    }
    void start(Connection::Handlers handlers);
    void send(Bytes frame);
    size_t queued_bytes() const { return queued_bytes_; }
    void close(bool tell);
    void release() {
        close(false);
        handlers_.reset();
    }

  private:
    enum class State : uint8_t { kNew, kHandshake, kOpen, kFlushing, kDraining, kDead };

    void arm_read();
    void arm_write();
    void arm_timer(int64_t at_us);
    void on_timer();
    void on_ready();
    void drive_handshake();
    Status finish_handshake();
    void pump();
    bool read_some(size_t& budget);
    bool write_some(size_t& budget);
    void begin_linger();
    void end(Error error);
    void abandon_socket();
    Error tls_error(int ssl_error, std::string_view doing);
    // With mutex_ held.
    void wake_user();
    void deliver();
    template <void (Channel::*method)()>
    void post_to_loop() {
        loop_->post([self = shared_from_this()] { (self.get()->*method)(); });
    }

    const std::shared_ptr<Loop> loop_;  // first: outlives what lives on its io_context
    tcp::socket socket_;
    asio::steady_timer timer_;
    const TlsOptions options_;
    std::string peer_name_;
    std::string peer_address_;
    bool is_server_ = false;

    // The loop's thread.
    Wire wire_;
    SslPtr ssl_;
    State state_ = State::kNew;
    bool read_armed_ = false, write_armed_ = false;
    bool reading_ = false;
    bool turn_posted_ = false;
    bool write_blocked_ = false;  // a started record must be finished before anything else
    bool read_wants_write_ = false;
    std::function<void(Status)> handshake_done_;
    int64_t deadline_us_ = 0;  // of handshake or linger
    int64_t last_heard_us_ = 0, last_sent_us_ = 0;
    FrameReader reader_;
    std::deque<Bytes> sending_;
    size_t sent_of_front_ = 0;  // header and body bytes of sending_.front() that are in records
    Bytes staged_;              // small frames and the starts of large ones, up to one record
    size_t staged_done_ = 0;
    std::shared_ptr<Slot> slot_;

    std::atomic<size_t> queued_bytes_{0};

    mutable std::mutex mutex_;
    Executor* executor_ = nullptr;
    std::deque<FrameBuffer> inbox_;
    size_t inbox_bytes_ = 0;
    bool read_paused_ = false;
    bool deliver_posted_ = false;
    bool started_ = false;
    bool drained_ = false;
    std::deque<Bytes> outbox_;
    bool send_posted_ = false;
    bool above_mark_ = false;
    bool user_closed_ = false;
    std::optional<Error> closed_;
    bool closed_told_ = false;
    std::vector<FrameBuffer> spare_;

    // The executor.
    std::shared_ptr<Connection::Handlers> handlers_;
};

}  // namespace farshore::tls
