#include "agent/control_client.h"

#include <algorithm>

#include "os/log.h"
#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {

ControlClient::ControlClient(Executor& executor, Dialer& dialer, Options options)
    : executor_(executor),
      dialer_(dialer),
      options_(std::move(options)),
      retry_us_(kRetryFirstUs) {}

ControlClient::~ControlClient() { stop(); }

void ControlClient::start() {
    running_ = true;
    dial();
}

void ControlClient::stop() {
    running_ = false;
    if (timer_) executor_.cancel(*timer_);
    timer_.reset();
    connection_.reset();
}

void ControlClient::after(int64_t delay_us, void (ControlClient::*what)()) {
    if (timer_) executor_.cancel(*timer_);
    timer_ = executor_.post_after_us(delay_us, [this, what, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        timer_.reset();
        if (running_) (this->*what)();
    });
}

void ControlClient::dial() {
    dialer_.dial(executor_, options_.address(),
                 [this, alive = std::weak_ptr(alive_)](Result<std::unique_ptr<Connection>> made) {
                     if (alive.expired() || !running_) return;
                     if (!made) {
                         disconnected(made.error());
                         return;
                     }
                     connection_ = std::move(*made);
                     ++connections_;
                     Connection::Handlers handlers;
                     handlers.on_frame = [this, alive](ByteView frame) {
                         if (!alive.expired()) on_frame(frame);
                     };
                     handlers.on_closed = [this, alive](const Error& error) {
                         if (!alive.expired()) disconnected(error);
                     };
                     handlers.on_drained = [] {};
                     connection_->start(std::move(handlers));
                     round();
                 });
}

void ControlClient::round() {
    if (!connection_) return;
    if (waiting_) {
        disconnected(Error(Code::kTimeout, "the appliance did not answer in time"));
        return;
    }
    waiting_ = true;
    connection_->send(encode_sync({++request_, options_.status()}));
    after(options_.reply_timeout_us, &ControlClient::round);
}

void ControlClient::on_frame(ByteView frame) {
    if (!connection_) return;
    auto view = decode_frame(frame);
    if (!view) return disconnected(view.error());
    if (view->type == FrameType::kError) return disconnected(decode_error(view->body));
    if (view->type != FrameType::kSyncReply)
        return disconnected(Error(Code::kMalformed, "the appliance answered with another frame"));
    auto reply = decode_sync(view->body);
    if (!reply) return disconnected(reply.error());
    if (reply->request != request_) return;
    waiting_ = false;
    retry_us_ = kRetryFirstUs;
    last_error_.clear();
    options_.instructions(reply->document);
    after(options_.interval_us, &ControlClient::round);
}

void ControlClient::disconnected(const Error& error) {
    // Tried again for ever, told once.
    if (const std::string words = error.to_string(); words != last_error_) {
        last_error_ = words;
        log::warn("agent", {.code = code_name(error.code())},
                  "no conversation with the vault by way of {}: {}", options_.address(), words);
    }
    options_.failed();
    waiting_ = false;
    if (connection_) {
        executor_.post(
            [old = std::shared_ptr<Connection>(std::move(connection_))] { old->close(); });
        connection_.reset();
    }
    if (!running_) return;
    after(retry_us_, &ControlClient::dial);
    retry_us_ = std::min(retry_us_ * 2, kRetryMaxUs);
}

}  // namespace farshore
