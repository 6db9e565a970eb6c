// The agent's side of one item's log: sends what a RecordSource gives to an appliance, goes on at
// the right record after any disconnect, and hands the acknowledgements back.
//
// A state machine over the seams; it lives on one executor. Dialer, executor, clock and source are
// borrowed and outlive it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/buggify.h"
#include "base/seams.h"
#include "base/types.h"
#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {

// The log that capture keeps (capture/), as the sender needs it. Called on the sender's executor.
class RecordSource {
  public:
    virtual ~RecordSource() = default;
    // One past what it was told is stored, by whomever.
    virtual Sequence first_unstored() = 0;
    // The appliance wants the records from `next` on, and has stored up to `stored`. next() goes on
    // there. When they are gone, the source opens a gap over everything that is not known to be
    // stored and gives nothing more before that gap's GAP record.
    virtual Status resume(Sequence next, Sequence stored) = 0;
    // Whole encoded records of at most `max_bytes` (at least one record), and moves on. Empty when
    // there is nothing now. The view is valid until the next call.
    virtual Result<ByteView> next(size_t max_bytes) = 0;
    // Everything up to `received` is durable at the appliance and may be dropped.
    virtual void release(Sequence received) = 0;
    // Everything up to `stored` is in the store: regions need not be remembered for it.
    virtual void set_stored(Sequence stored) = 0;
};

struct LogSenderStatus {
    bool connected = false;
    Sequence sent, received, stored;
    uint64_t sent_bytes = 0;
    uint64_t reconnects = 0;
    std::string last_error;
};

class LogSender {
  public:
    LogSender(Executor& executor, Clock& clock, Dialer& dialer, std::string address, ItemId item,
              PartyId instance, RecordSource& source, Buggify* buggify = nullptr);
    ~LogSender();
    void start();
    void stop();
    // New records are there. Cheap; on the sender's executor.
    void wake();
    // Dials anew at once: where the dialer leads may have changed.
    void reconnect();
    LogSenderStatus status() const { return status_; }
    // Who the appliance has proved to be; empty: there is no connection.
    const std::string& peer_name() const;

  private:
    void dial();
    void give_up_dial();
    void dialled(Result<std::unique_ptr<Connection>> connection);
    void on_frame(ByteView frame);
    Status handle(ByteView frame);
    Status on_welcome(const WelcomeFrame& welcome);
    void acknowledge(Sequence received, Sequence stored);
    void disconnected(const Error& error);
    void watch(int64_t delay_us);
    void pump();

    Executor& executor_;
    Clock& clock_;
    Dialer& dialer_;
    const std::string address_;
    const ItemId item_;
    const PartyId instance_;
    RecordSource& source_;
    Buggify* const buggify_;
    LogSenderStatus status_;

    bool running_ = false;
    bool welcomed_ = false;
    bool dialling_ = false;
    uint64_t dial_ = 0;  // counts dials: what comes of one that was given up is dropped
    bool pumping_ = false;
    bool held_back_ = false;  // by the window or the connection's queue; there may be more to send
    std::unique_ptr<Connection> connection_;
    uint64_t session_ = 0;  // counts connections: an old one's last words are not heard
    std::optional<Executor::TimerId> timer_;
    std::optional<Executor::TimerId> silence_timer_;
    int64_t heard_us_ = 0;  // from the peer, by the steady clock
    int64_t retry_us_ = kRetryFirstUs;
    Sequence may_have_;  // the newest record that was sent, or that it says it had before
    uint64_t window_bytes_ = 0;
    uint64_t in_flight_bytes_ = 0;
    struct InFlight {
        Sequence last;
        uint64_t bytes;
    };
    std::deque<InFlight> in_flight_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
