#include "agent/group_client.h"

#include <algorithm>
#include <utility>

#include "os/log.h"
#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

// An appliance answers each hello: one that has said nothing for so long is gone.
constexpr int64_t kHelloUs = 5'000'000, kSilenceUs = 16'000'000;

}  // namespace

GroupClient::GroupClient(Executor& executor, Clock& clock, Dialer& dialer, Options options)
    : executor_(executor),
      clock_(clock),
      dialer_(dialer),
      options_(std::move(options)),
      retry_us_(kRetryFirstUs) {}

GroupClient::~GroupClient() {
    if (timer_) executor_.cancel(*timer_);
}

void GroupClient::after(int64_t delay_us, void (GroupClient::*what)()) {
    if (timer_) executor_.cancel(*timer_);
    timer_ = executor_.post_after_us(delay_us, [this, what, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        timer_.reset();
        (this->*what)();
    });
}

void GroupClient::want(bool wanted) {
    if (std::exchange(wanted_, wanted) == wanted) return;
    if (wanted) return dial();
    if (timer_) executor_.cancel(*timer_);
    timer_.reset();
    connection_.reset();
    options_.abandon();
}

void GroupClient::dial() {
    if (!wanted_ || dialling_ || connection_) return;
    dialling_ = true;
    dialer_.dial(executor_, options_.address(),
                 [this, alive = std::weak_ptr(alive_)](Result<std::unique_ptr<Connection>> made) {
                     if (!alive.expired()) dialled(std::move(made));
                 });
}

void GroupClient::dialled(Result<std::unique_ptr<Connection>> made) {
    dialling_ = false;
    if (!wanted_) return;
    if (!made) return disconnected(made.error());
    connection_ = std::move(*made);
    ++connections_;
    heard_us_ = clock_.steady_us();
    Connection::Handlers handlers;
    handlers.on_frame = [this, alive = std::weak_ptr(alive_)](ByteView frame) {
        if (!alive.expired()) on_frame(frame);
    };
    handlers.on_closed = [this, alive = std::weak_ptr(alive_)](const Error& error) {
        if (!alive.expired()) disconnected(error);
    };
    handlers.on_drained = [] {};
    connection_->start(std::move(handlers));
    say_hello();
}

void GroupClient::say_hello() {
    if (!connection_) return;
    if (clock_.steady_us() - heard_us_ > kSilenceUs)
        return disconnected(Error(Code::kTimeout, "the appliance says nothing"));
    connection_->send(encode_barrier_report({}));
    after(kHelloUs, &GroupClient::say_hello);
}

void GroupClient::on_frame(ByteView frame) {
    if (!connection_) return;
    auto view = decode_frame(frame);
    if (!view) return disconnected(view.error());
    if (view->type == FrameType::kError) return disconnected(decode_error(view->body));
    if (view->type != FrameType::kBarrier)
        return disconnected(Error(Code::kMalformed, "the appliance sent another frame"));
    auto order = decode_barrier(view->body);
    if (!order) return disconnected(order.error());
    heard_us_ = clock_.steady_us();
    retry_us_ = kRetryFirstUs;
    last_error_.clear();
    if (order->point.is_nil()) return;
    for (const BarrierMember& member : order->members)
        options_.serve(*order, member.item,
                       [this, alive = std::weak_ptr(alive_), connection = connections_,
                        point = order->point, step = order->step](MemberOutcome outcome) {
                           if (alive.expired() || connection != connections_ || !connection_ ||
                               step == BarrierStep::kAbandon)
                               return;
                           connection_->send(encode_barrier_report({point, step, {outcome}}));
                       });
}

void GroupClient::disconnected(const Error& error) {
    if (const std::string words = error.to_string(); words != last_error_) {
        last_error_ = words;
        log::warn("agent", {.code = code_name(error.code())}, "no shared points by way of {}: {}",
                  options_.address(), words);
    }
    if (connection_)
        executor_.post(
            [old = std::shared_ptr<Connection>(std::move(connection_))] { old->close(); });
    connection_.reset();
    options_.abandon();
    if (!wanted_) return;
    after(retry_us_, &GroupClient::dial);
    retry_us_ = std::min(retry_us_ * 2, kRetryMaxUs);
}

}  // namespace farshore
