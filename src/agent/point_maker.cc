#include "agent/point_maker.h"

#include <algorithm>
#include <utility>

namespace farshore {
namespace {

constexpr int64_t kPollUs = 1'000;
// A little longer than the tap may take, so that its answer is not missed.
constexpr int64_t kAnswerGraceUs = 200'000;
// Between one step and the next: others may still run their scripts, or freeze.
constexpr int64_t kPatienceUs = 45'000'000, kFrozenPatienceUs = 10'000'000;
// For the point, while the machine is at rest.
constexpr int64_t kFrozenUs = 2'500'000;
// A hold has ended by itself long before.
constexpr int64_t kHeldPatienceUs = 2'000'000;

Error refusal_of(Code code) {
    switch (code) {
        case Code::kTimeout:
            return Error(code, "the tap came to the point too late",
                         "try again when less is being written");
        case Code::kPointInGap:
            return Error(code, "there are no points while the machine is copied",
                         "wait until it is protected again");
        case Code::kUnsupported:
            return Error(code, "the tap that runs cannot hold writes",
                         "tap and agent must be of one version: restart the tap");
        default:
            return Error(code, "the tap refused the point", "wait until the machine is protected");
    }
}

}  // namespace

PointMaker::PointMaker(Executor& executor, Clock& clock, Commands commands, Rest rest,
                       Options options)
    : executor_(executor),
      clock_(clock),
      commands_(std::move(commands)),
      rest_(std::move(rest)),
      options_(std::move(options)) {}

PointMaker::~PointMaker() {
    if (poll_timer_) executor_.cancel(*poll_timer_);
    if (patience_) executor_.cancel(*patience_);
    if (stage_ == Stage::kHeld && options_.holds) {
        TapCommand command;
        command.kind = TapCommandKind::kLetGo;
        command.hold = hold_;
        (void)commands_.post(command);
    }
    if (resting_) rest_.end(false, [](const Status&) {});
    if (answer_) answer_(fail(Code::kCancelled, "the capture is set up anew", "try again"));
}

// ---- what others see

void PointMaker::make(const std::string& label, Answer answer) {
    if (stage_ != Stage::kIdle)
        return answer(fail(Code::kWrongState, "another point is being made", "try again"));
    shared_.reset();
    answer_ = [this, label, answer = std::move(answer)](Result<TapCommandResult> prepared) {
        if (!prepared) return answer(std::move(prepared));
        answer_ = [this, answer](Result<TapCommandResult> frozen) {
            if (!frozen) return answer(std::move(frozen));
            answer_ = answer;
            stage_ = Stage::kHeld;  // its rest holds what is to be held
            mark();
        };
        freeze();
    };
    prepare(PointKind::kApplication, label);
}

void PointMaker::serve(const BarrierOrder& order, Answer answer) {
    const bool ours = shared_ == order.point && stage_ != Stage::kIdle;
    if (order.step == BarrierStep::kAbandon) {
        if (ours) let_go(Error(Code::kCancelled, "the shared point was given up"));
        return answer(TapCommandResult{});
    }
    const auto expected = [&](Stage stage) {
        if (ours && stage_ == stage && !answer_) return true;
        answer(fail(Code::kTimeout, "this machine was let go before the point was made",
                    "the next one is tried when it is due"));
        return false;
    };
    switch (order.step) {
        case BarrierStep::kPrepare:
            // That one was given up, and nobody could tell us so.
            if (shared_ && !ours && !answer_ &&
                (stage_ == Stage::kPrepared || stage_ == Stage::kFrozen || stage_ == Stage::kHeld))
                let_go(Error(Code::kCancelled, "a newer shared point is being made"));
            if (stage_ != Stage::kIdle)
                return answer(fail(Code::kWrongState, "another point is being made",
                                   "the next one is tried when it is due"));
            if (!options_.holds && order.kind != PointKind::kApplication)
                return answer(fail(Code::kUnsupported,
                                   "the writes of this machine can be held only by freezing its "
                                   "file systems",
                                   "make application-consistent shared points"));
            shared_ = order.point;
            hold_ = load_u64(order.point.raw.data()) | 1;
            answer_ = std::move(answer);
            return prepare(order.kind, order.label);
        case BarrierStep::kFreeze:
            if (!expected(Stage::kPrepared)) return;
            answer_ = std::move(answer);
            return freeze();
        case BarrierStep::kHold:
            if (!expected(kind_ == PointKind::kApplication ? Stage::kFrozen : Stage::kPrepared))
                return;
            answer_ = std::move(answer);
            return hold();
        case BarrierStep::kMark:
            if (!expected(Stage::kHeld)) return;
            answer_ = std::move(answer);
            return mark();
        default:
            return answer(TapCommandResult{});
    }
}

void PointMaker::abandon_all() {
    if (stage_ != Stage::kIdle && shared_)
        let_go(Error(Code::kConnectionLost, "the appliance is gone"));
}

// ---- steps

void PointMaker::prepare(PointKind kind, const std::string& label) {
    ++round_;
    kind_ = kind;
    label_ = label;
    until_us_ = INT64_MAX;
    stage_ = Stage::kPreparing;
    // Not worth stopping the machine for.
    if (options_.in_gap())
        return let_go(Error(Code::kPointInGap, "there are no points while the machine is copied",
                            "wait until it is protected again"));
    if (kind != PointKind::kApplication) {
        stage_ = Stage::kPrepared;
        give_up_after(kPatienceUs);
        return answer(TapCommandResult{});
    }
    resting_ = true;
    rest_.begin(label, [this, alive = std::weak_ptr(alive_)](const Status& begun) {
        if (!alive.expired()) prepared(begun);
    });
}

void PointMaker::prepared(const Status& begun) {
    if (!begun) resting_ = false;                     // it undid what it did
    if (stage_ == Stage::kEnding) return end_rest();  // given up meanwhile
    if (!begun) return let_go(begun.error());
    stage_ = Stage::kPrepared;
    give_up_after(kPatienceUs);
    answer(TapCommandResult{});
}

void PointMaker::freeze() {
    stage_ = Stage::kFreezing;
    if (patience_) executor_.cancel(*patience_);
    patience_.reset();
    if (!resting_) return frozen(INT64_MAX);
    rest_.freeze([this, alive = std::weak_ptr(alive_)](const Result<int64_t>& until) {
        if (!alive.expired()) frozen(until);
    });
}

void PointMaker::frozen(const Result<int64_t>& until) {
    if (stage_ == Stage::kEnding) return end_rest();
    if (!until) {
        stage_ = Stage::kFrozen;
        return let_go(until.error());
    }
    until_us_ = *until;
    stage_ = Stage::kFrozen;
    give_up_after(std::min(kFrozenPatienceUs, until_us_ - clock_.steady_us()));
    answer(TapCommandResult{});
}

// Whatever rests goes on; then another point can be made.
void PointMaker::end_rest() {
    stage_ = Stage::kEnding;
    if (!std::exchange(resting_, false)) {
        stage_ = Stage::kIdle;
        return;
    }
    rest_.end(false, [this, alive = std::weak_ptr(alive_)](const Status&) {
        if (!alive.expired()) stage_ = Stage::kIdle;
    });
}

void PointMaker::hold() {
    if (!options_.holds) {
        // The file systems are frozen, and nothing else writes what a point must agree about.
        if (clock_.steady_us() >= until_us_) return let_go(refusal_of(Code::kTimeout));
        stage_ = Stage::kHeld;
        return answer(TapCommandResult{});
    }
    stage_ = Stage::kHeld;
    TapCommand command;
    command.kind = TapCommandKind::kHold;
    command.hold = hold_;
    command.not_after_us = clock_.steady_us() + kHoldUs;
    run(command, command.not_after_us, [this](Result<TapCommandResult> held) {
        if (!held) return let_go(held.error());
        give_up_after(kHeldPatienceUs);
        answer(std::move(held));
    });
}

void PointMaker::mark() {
    stage_ = Stage::kMarking;
    if (patience_) executor_.cancel(*patience_);
    patience_.reset();
    TapCommand command;
    command.kind = shared_ && options_.holds ? TapCommandKind::kMark : TapCommandKind::kPoint;
    command.point = kind_;
    command.label = label_;
    command.hold = hold_;
    const int64_t not_after_us = std::min(until_us_, clock_.steady_us() + kFrozenUs);
    command.not_after_us = not_after_us;
    run(command, not_after_us + kAnswerGraceUs,
        [this](Result<TapCommandResult> result) { marked(std::move(result)); });
}

void PointMaker::marked(Result<TapCommandResult> result) {
    if (!result && shared_ && options_.holds) {
        TapCommand command;
        command.kind = TapCommandKind::kLetGo;
        command.hold = hold_;
        if (auto ticket = commands_.post(command)) late_.push_back(*ticket);
    }
    if (!resting_) return confirm(std::move(result));
    resting_ = false;
    stage_ = Stage::kEnding;
    const bool made = result.has_value();
    rest_.end(made, [this, alive = std::weak_ptr(alive_),
                     result = std::move(result)](const Status& thawed) mutable {
        if (alive.expired()) return;
        if (result && !thawed) result = fail(thawed.error());
        confirm(std::move(result));
    });
}

void PointMaker::confirm(Result<TapCommandResult> result) {
    if (!result || !options_.confirm) {
        stage_ = Stage::kIdle;
        return answer(std::move(result));
    }
    stage_ = Stage::kConfirming;
    options_.confirm([this, alive = std::weak_ptr(alive_), round = round_,
                      result = std::move(result)](const Status& good) mutable {
        if (alive.expired() || round != round_ || stage_ != Stage::kConfirming) return;
        stage_ = Stage::kIdle;
        if (!good) result = fail(good.error());
        answer(std::move(result));
    });
}

// Undoes what was done of the point; whoever waits hears why.
void PointMaker::let_go(const Error& why) {
    if (patience_) executor_.cancel(*patience_);
    patience_.reset();
    if (waiting_) late_.push_back(waiting_->ticket);
    waiting_.reset();
    if ((stage_ == Stage::kHeld || stage_ == Stage::kMarking) && options_.holds && shared_) {
        TapCommand command;
        command.kind = TapCommandKind::kLetGo;
        command.hold = hold_;
        if (auto ticket = commands_.post(command)) late_.push_back(*ticket);
        poll();
    }
    if ((stage_ == Stage::kPreparing || stage_ == Stage::kFreezing) && resting_)
        stage_ = Stage::kEnding;  // prepared() or frozen() goes on
    else if (stage_ != Stage::kEnding)
        end_rest();
    answer(fail(why));
}

void PointMaker::answer(Result<TapCommandResult> result) {
    if (auto to = std::exchange(answer_, nullptr)) to(std::move(result));
}

void PointMaker::give_up_after(int64_t delay_us) {
    if (patience_) executor_.cancel(*patience_);
    patience_ = executor_.post_after_us(std::max<int64_t>(delay_us, 0), [this] {
        patience_.reset();
        if (stage_ == Stage::kPrepared || stage_ == Stage::kFrozen || stage_ == Stage::kHeld)
            let_go(Error(Code::kTimeout, "the next order did not come in time"));
    });
}

// ---- the tap's commands

void PointMaker::run(const TapCommand& command, int64_t until_us, Answer done) {
    auto ticket = commands_.post(command);
    if (!ticket) return done(fail(ticket.error()));
    waiting_ = Waiting{*ticket, until_us, std::move(done)};
    poll();
}

void PointMaker::poll() {
    if (poll_timer_) executor_.cancel(*poll_timer_);
    poll_timer_.reset();
    std::erase_if(late_, [&](size_t ticket) { return commands_.take(ticket).has_value(); });
    if (waiting_) {
        if (auto result = commands_.take(waiting_->ticket)) {
            const Answer done = std::move(waiting_->done);
            waiting_.reset();
            done(result->ok ? Result<TapCommandResult>(*result) : fail(refusal_of(result->code)));
        } else if (clock_.steady_us() >= waiting_->until_us) {
            late_.push_back(waiting_->ticket);
            const Answer done = std::move(waiting_->done);
            waiting_.reset();
            done(fail(Code::kTimeout, "the tap did not make the point in time",
                      "try again; `farshore item` shows whether the capture runs"));
        }
    }
    if ((waiting_ || !late_.empty()) && !poll_timer_)
        poll_timer_ = executor_.post_after_us(waiting_ ? kPollUs : 100 * kPollUs, [this] {
            poll_timer_.reset();
            poll();
        });
}

}  // namespace farshore
