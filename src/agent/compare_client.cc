#include "agent/compare_client.h"

#include <algorithm>
#include <utility>

#include "os/log.h"
#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

constexpr int64_t kNotYetUs = 200'000;
// Reading and summing 64 MiB from a slow store takes its time; nothing is heard of a connection
// that is gone without a word. So each time in vain makes the next one longer.
constexpr int64_t kPatienceUs = 15'000'000, kMostPatienceUs = 300'000'000;
constexpr int64_t kIdleUs = 10'000'000;
// One may be an accident of a version's change; a peer that never makes sense must not hold up a
// resynchronisation.
constexpr unsigned kMaxMisunderstandings = 5;

}  // namespace

CompareClient::CompareClient(Executor& executor, Clock& clock, Dialer& dialer, std::string address,
                             const ItemId& item, LogHeader header, std::function<void()> ring)
    : executor_(executor),
      clock_(clock),
      dialer_(dialer),
      address_(std::move(address)),
      item_(item),
      responder_(std::move(header)),
      ring_(std::move(ring)),
      retry_us_(kRetryFirstUs),
      patience_us_(kPatienceUs) {}

CompareClient::~CompareClient() {
    if (timer_) executor_.cancel(*timer_);
}

void CompareClient::look_again(int64_t delay_us) {
    if (timer_) executor_.cancel(*timer_);
    timer_ = executor_.post_after_us(delay_us, [this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        timer_.reset();
        wake();
    });
}

void CompareClient::wake() {
    const int64_t now_us = clock_.steady_us();
    const auto asked = responder_.asked();
    // What is not asked any more needs no answer; one that is under way comes and is not heard.
    std::erase_if(pending_, [&](const auto& one) {
        return std::ranges::none_of(asked, [&](const CompareResponder::Asked& a) {
            return a.slot == one.second.asked.slot && a.ticket == one.second.asked.ticket;
        });
    });
    for (const CompareResponder::Asked& a : asked) {
        const bool known = std::ranges::any_of(pending_, [&](const auto& one) {
            return one.second.asked.slot == a.slot && one.second.asked.ticket == a.ticket;
        });
        if (!known) pending_[next_request_++] = {a, now_us};
    }
    if (pending_.empty()) {
        if (connection_ && now_us - heard_us_ > kIdleUs)
            connection_.reset();
        else if (connection_)
            look_again(kIdleUs);
        return;
    }
    if (!connection_) return dial();
    send_what_is_due();
}

void CompareClient::dial() {
    if (dialling_) return;
    if (const int64_t wait_us = not_before_us_ - clock_.steady_us(); wait_us > 0)
        return look_again(wait_us);
    dialling_ = true;
    dialer_.dial(executor_, address_,
                 [this, alive = std::weak_ptr(alive_)](Result<std::unique_ptr<Connection>> made) {
                     if (!alive.expired()) dialled(std::move(made));
                 });
}

void CompareClient::dialled(Result<std::unique_ptr<Connection>> made) {
    dialling_ = false;
    if (!made) return disconnected(made.error());
    connection_ = std::move(*made);
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
    send_what_is_due();
}

void CompareClient::send_what_is_due() {
    const int64_t now_us = clock_.steady_us();
    int64_t next_us = kIdleUs;
    bool under_way = false;
    for (auto& [request, pending] : pending_) {
        if (pending.again_us == 0) {
            under_way = true;
        } else if (pending.again_us <= now_us) {
            connection_->send(encode(CompareFrame{request, item_, pending.asked.question}));
            if (!under_way) heard_us_ = std::max(heard_us_, now_us);
            pending.again_us = 0;
            under_way = true;
        } else {
            next_us = std::min(next_us, pending.again_us - now_us);
        }
    }
    if (under_way && now_us - heard_us_ > patience_us_) {
        patience_us_ = std::min(patience_us_ * 2, kMostPatienceUs);
        return disconnected(Error(Code::kTimeout, "no answer to a comparison in time"));
    }
    look_again(next_us);
}

void CompareClient::on_frame(ByteView frame) {
    if (!connection_) return;
    heard_us_ = clock_.steady_us();
    auto view = decode_frame(frame);
    if (!view) return misunderstood(view.error());
    if (view->type == FrameType::kError) {
        const Error error = decode_error(view->body);
        if (error.code() == Code::kMalformed) return misunderstood(error);
        if (error.retry() == Retry::kNever) give_up(error);
        return disconnected(error);
    }
    if (view->type != FrameType::kCompared)
        return misunderstood(Error(Code::kMalformed, "the appliance answered with another frame"));
    auto compared = decode_compared(view->body);
    if (!compared) return misunderstood(compared.error());
    misunderstandings_ = 0;
    retry_us_ = kRetryFirstUs;
    patience_us_ = kPatienceUs;
    last_error_.clear();
    take_answer(compared->request, compared->answer);
}

void CompareClient::take_answer(uint64_t request, const CompareAnswer& answer) {
    const auto found = pending_.find(request);
    if (found == pending_.end()) return;
    if (answer.verdict == CompareVerdict::kNotYet) {
        found->second.again_us = clock_.steady_us() + kNotYetUs;
        return look_again(kNotYetUs);
    }
    (void)responder_.answer(found->second.asked, answer);
    pending_.erase(found);
    ring_();
    if (pending_.empty()) look_again(kIdleUs);
}

void CompareClient::misunderstood(const Error& error) {
    if (++misunderstandings_ >= kMaxMisunderstandings) {
        misunderstandings_ = 0;
        give_up(error);
    }
    disconnected(error);
}

void CompareClient::give_up(const Error& error) {
    log::warn("agent", "nothing is compared, all is copied: {}", error.to_string());
    for (auto& [request, pending] : std::exchange(pending_, {}))
        (void)responder_.answer(pending.asked, {CompareVerdict::kNothing, {}, 0});
    ring_();
}

void CompareClient::disconnected(const Error& error) {
    if (const std::string words = error.to_string(); words != last_error_ && !pending_.empty()) {
        last_error_ = words;
        log::warn("agent", "a comparison waits for {}: {}", address_, words);
    }
    if (connection_)
        executor_.post(
            [old = std::shared_ptr<Connection>(std::move(connection_))] { old->close(); });
    connection_.reset();
    // All that was under way is asked again.
    const int64_t now_us = clock_.steady_us();
    for (auto& [request, pending] : pending_) pending.again_us = now_us;
    not_before_us_ = now_us + retry_us_;
    if (!pending_.empty()) look_again(retry_us_);
    retry_us_ = std::min(retry_us_ * 2, kRetryMaxUs);
}

}  // namespace farshore
