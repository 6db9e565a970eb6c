#include "replicate/log_sender.h"

#include <fmt/core.h>

#include <algorithm>

#include "record/record.h"

namespace farshore {
namespace {

// How much may wait in a connection's own queue; more only delays acknowledgement handling.
constexpr size_t kQueuedBytes = 4u << 20;

Result<Sequence> last_sequence(ByteView records) {
    RecordCursor cursor(records, false);
    Sequence last;
    while (!cursor.done()) {
        FS_ASSIGN(RecordView record, cursor.next());
        last = record.header.sequence;
    }
    return last;
}

}  // namespace

LogSender::LogSender(Executor& executor, Clock& clock, Dialer& dialer, std::string address,
                     ItemId item, PartyId instance, RecordSource& source, Buggify* buggify)
    : executor_(executor),
      clock_(clock),
      dialer_(dialer),
      address_(std::move(address)),
      item_(item),
      instance_(instance),
      source_(source),
      buggify_(buggify) {}

LogSender::~LogSender() { stop(); }

void LogSender::start() {
    if (running_) return;
    running_ = true;
    dial();
}

void LogSender::stop() {
    running_ = false;
    give_up_dial();
    if (timer_) executor_.cancel(*timer_);
    timer_.reset();
    if (silence_timer_) executor_.cancel(*silence_timer_);
    silence_timer_.reset();
    connection_.reset();
    welcomed_ = false;
    status_.connected = false;
}

void LogSender::dial() {
    if (!running_ || dialling_ || connection_) return;
    dialling_ = true;
    dialer_.dial(executor_, address_,
                 [this, number = dial_,
                  alive = std::weak_ptr(alive_)](Result<std::unique_ptr<Connection>> made) {
                     if (alive.expired() || number != dial_) return;
                     dialling_ = false;
                     dialled(std::move(made));
                 });
}

void LogSender::give_up_dial() {
    ++dial_;
    dialling_ = false;
}

void LogSender::dialled(Result<std::unique_ptr<Connection>> made) {
    if (!running_) return;
    if (!made) {
        disconnected(made.error());
        return;
    }
    connection_ = std::move(*made);
    Connection::Handlers handlers;
    const auto current = [this, session = ++session_, alive = std::weak_ptr(alive_)] {
        return !alive.expired() && session == session_ && connection_ != nullptr;
    };
    handlers.on_frame = [this, current](ByteView frame) {
        if (current()) on_frame(frame);
    };
    handlers.on_closed = [this, current](const Error& error) {
        if (current()) disconnected(error);
    };
    handlers.on_drained = [this, current] {
        if (current()) pump();
    };
    connection_->start(std::move(handlers));
    HelloFrame hello;
    hello.item = item_;
    hello.instance = instance_;
    hello.first_unstored = source_.first_unstored();
    connection_->send(encode(hello));
    heard_us_ = clock_.steady_us();
    watch(kPeerSilenceUs);
}

// A connection whose other end is gone without a word shows it only to who sends. So who waits for
// an answer and sends nothing must not wait for ever.
void LogSender::watch(int64_t delay_us) {
    if (silence_timer_) executor_.cancel(*silence_timer_);
    silence_timer_ = executor_.post_after_us(delay_us, [this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        silence_timer_.reset();
        if (!connection_) return;
        const int64_t silent_us = clock_.steady_us() - heard_us_;
        const bool waits = !welcomed_ || in_flight_bytes_ > 0 || window_bytes_ == 0;
        if (waits && silent_us >= kPeerSilenceUs) {
            disconnected(Error(
                Code::kTimeout,
                fmt::format("the appliance has said nothing for {} s", silent_us / 1'000'000)));
            return;
        }
        watch(waits ? kPeerSilenceUs - silent_us : kPeerSilenceUs);
    });
}

void LogSender::disconnected(const Error& error) {
    status_.last_error = error.to_string();
    status_.connected = false;
    welcomed_ = false;
    in_flight_.clear();
    in_flight_bytes_ = 0;
    if (connection_) {
        // It may be calling us: it ends after this task.
        executor_.post(
            [old = std::shared_ptr<Connection>(std::move(connection_))] { old->close(); });
        connection_.reset();
    }
    if (!running_ || timer_) return;
    const int64_t delay = retry_us_;
    retry_us_ = std::min(retry_us_ * 2, kRetryMaxUs);
    timer_ = executor_.post_after_us(delay, [this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        timer_.reset();
        dial();
    });
}

void LogSender::on_frame(ByteView frame) {
    if (!connection_) return;
    heard_us_ = clock_.steady_us();
    if (Status handled = handle(frame); !handled) disconnected(handled.error());
}

Status LogSender::handle(ByteView frame) {
    FS_ASSIGN(FrameView view, decode_frame(frame));
    switch (view.type) {
        case FrameType::kWelcome: {
            FS_ASSIGN(WelcomeFrame welcome, decode_welcome(view.body));
            return on_welcome(welcome);
        }
        case FrameType::kAck: {
            FS_ASSIGN(AckFrame ack, decode_ack(view.body));
            // Nothing is let go of on the word of one who says more than it can know.
            if (!welcomed_ || ack.received > may_have_ || ack.stored > may_have_)
                return fail(
                    Code::kMalformed,
                    fmt::format("the appliance acknowledges records up to {}, it can have "
                                "them up to {}",
                                std::max(ack.received, ack.stored).v, welcomed_ ? may_have_.v : 0));
            window_bytes_ = ack.window_bytes;
            acknowledge(ack.received, ack.stored);
            if (buggify(buggify_, "sender.hang_up"))
                return fail(Code::kConnectionLost, "nothing was wrong");
            // New records come with wake(), which gathers them for a moment. To send whatever has
            // come whenever an answer does would make a frame, and an fsync, of every few records.
            if (held_back_) pump();
            return {};
        }
        case FrameType::kError:
            return fail(decode_error(view.body));
        default:
            return fail(Code::kMalformed, fmt::format("frame of type {} from an appliance",
                                                      static_cast<int>(view.type)));
    }
}

Status LogSender::on_welcome(const WelcomeFrame& welcome) {
    if (welcome.stored >= welcome.next)
        return fail(Code::kMalformed,
                    fmt::format("the appliance has stored record {} and wants those from {} on",
                                welcome.stored.v, welcome.next.v));
    const bool fresh = !welcomed_;
    welcomed_ = true;
    status_.connected = true;
    if (fresh) ++status_.reconnects;
    status_.last_error.clear();
    retry_us_ = kRetryFirstUs;
    window_bytes_ = welcome.window_bytes;
    in_flight_.clear();
    in_flight_bytes_ = 0;
    // `next` may be ahead of what is durable there: only an ACK lets go of records. What another
    // appliance had received says nothing.
    status_.received = welcome.stored;
    acknowledge({}, welcome.stored);
    FS_TRY(source_.resume(welcome.next, welcome.stored));
    may_have_ = {welcome.next.v - 1};
    pump();
    return {};
}

void LogSender::acknowledge(Sequence received, Sequence stored) {
    while (!in_flight_.empty() && in_flight_.front().last <= received) {
        in_flight_bytes_ -= in_flight_.front().bytes;
        in_flight_.pop_front();
    }
    if (received > status_.received) {
        status_.received = received;
        source_.release(received);
    }
    if (stored > status_.stored) {
        status_.stored = stored;
        source_.set_stored(stored);
    }
}

void LogSender::wake() { pump(); }

const std::string& LogSender::peer_name() const {
    static const std::string nobody;
    return connection_ ? connection_->peer_name() : nobody;
}

void LogSender::reconnect() {
    if (!running_) return;
    give_up_dial();  // it may go to the one before
    if (connection_)
        disconnected(Error(Code::kConnectionLost, "the records go to another appliance"));
    retry_us_ = kRetryFirstUs;
    if (timer_) executor_.cancel(*timer_);
    timer_.reset();
    dial();
}

void LogSender::pump() {
    if (!welcomed_ || !connection_ || pumping_) return;
    pumping_ = true;
    held_back_ = false;
    while (connection_) {
        if (in_flight_bytes_ >= window_bytes_ || connection_->queued_bytes() >= kQueuedBytes) {
            held_back_ = true;
            break;
        }
        // A record to a frame.
        const size_t most = buggify(buggify_, "sender.small_frame") ? 1 : kDataFrameBytes;
        auto records = source_.next(most);
        if (!records) {
            status_.last_error = records.error().to_string();
            disconnected(records.error());
            break;
        }
        if (records->empty()) break;
        auto last = last_sequence(*records);
        if (!last) {
            disconnected(last.error());
            break;
        }
        in_flight_.push_back({*last, records->size()});
        in_flight_bytes_ += records->size();
        status_.sent = *last;
        may_have_ = std::max(may_have_, *last);
        status_.sent_bytes += records->size();
        connection_->send(encode_data(*records));
    }
    pumping_ = false;
}

}  // namespace farshore
