#include "agent/question_line.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>

#include "replicate/limits.h"

namespace farshore {

struct QuestionLine::State {
    FrameType answer;

    std::mutex mutex;  // down to the blank line
    std::condition_variable changed;
    bool stopped = false;
    uint64_t next_request = 1;
    std::optional<Error> failed;     // of what is open
    std::map<uint64_t, Bytes> open;  // frames without an answer
    std::map<uint64_t, Bytes> answers;

    // On home.
    std::unique_ptr<Connection> connection;
    uint64_t dialled = 0;  // which one that is; what an older one says does not count

    void break_off(uint64_t which, const Error& error) {
        if (which != dialled) return;
        // Not inside its own callback.
        ++dialled;
        const std::lock_guard hold(mutex);
        failed = error;
        changed.notify_all();
    }
    // The peer's bytes.
    void take(uint64_t which, ByteView frame) {
        if (which != dialled) return;
        auto view = decode_frame(frame);
        if (!view) return break_off(which, view.error());
        if (view->type == FrameType::kError) return break_off(which, decode_error(view->body));
        if (view->type != answer || view->body.size() < sizeof(uint64_t))
            return break_off(which, Error(Code::kMalformed, "the appliance answered nonsense"));
        const uint64_t request = load_u64(view->body.data());
        const std::lock_guard hold(mutex);
        if (open.erase(request) == 0) return;
        answers[request].assign(view->body.begin(), view->body.end());
        if (open.empty()) changed.notify_all();
    }
    void send_open() {
        const std::lock_guard hold(mutex);
        for (const auto& [request, frame] : open) connection->send(frame);
    }
    void dial(const std::shared_ptr<State>& self, ThreadExecutor& home, Dialer& dialer) {
        connection.reset();
        const uint64_t which = ++dialled;
        dialer.dial(home, "", [self, which](Result<std::unique_ptr<Connection>> made) {
            if (which != self->dialled) return;
            if (!made) return self->break_off(which, made.error());
            self->connection = std::move(*made);
            Connection::Handlers handlers;
            handlers.on_frame = [weak = std::weak_ptr(self), which](ByteView frame) {
                if (const auto to = weak.lock()) to->take(which, frame);
            };
            handlers.on_closed = [weak = std::weak_ptr(self), which](const Error& error) {
                if (const auto to = weak.lock()) to->break_off(which, error);
            };
            handlers.on_drained = [] {};
            self->connection->start(std::move(handlers));
            self->send_open();
        });
    }
};

QuestionLine::QuestionLine(ThreadExecutor& home, Dialer& dialer, FrameType answer)
    : home_(home), dialer_(dialer), state_(std::make_shared<State>()) {
    state_->answer = answer;
}

QuestionLine::~QuestionLine() {
    stop();
    (void)home_.run_sync([state = state_] {
        ++state->dialled;
        state->connection.reset();
    });
}

void QuestionLine::stop() {
    const std::lock_guard hold(state_->mutex);
    state_->stopped = true;
    state_->changed.notify_all();
}

Result<std::vector<Bytes>> QuestionLine::ask(const std::vector<Question>& questions,
                                             int64_t patience_us) {
    const std::shared_ptr<State> state = state_;
    uint64_t first = 0;
    bool afresh = false;
    {
        const std::lock_guard hold(state->mutex);
        // Of an ask() that lost patience, answers may still come.
        afresh = state->failed || !state->open.empty();
        state->failed.reset();
        state->open.clear();
        state->answers.clear();
        first = state->next_request;
        for (const Question& question : questions) {
            const uint64_t request = state->next_request++;
            state->open[request] = question(request);
        }
    }
    home_.post([state, afresh, dialer = &dialer_, home = &home_] {
        if (afresh || !state->connection)
            state->dial(state, *home, *dialer);
        else
            state->send_open();
    });
    std::unique_lock hold(state->mutex);
    const bool in_time = state->changed.wait_for(hold, std::chrono::microseconds(patience_us), [&] {
        return state->stopped || state->failed || state->open.empty();
    });
    if (state->stopped) return fail(Code::kCancelled, "the agent ends");
    if (state->failed) return fail(*state->failed);
    if (!in_time) return fail(Code::kTimeout, "the appliance does not answer");
    std::vector<Bytes> answers;
    for (uint64_t request = first; request < first + questions.size(); ++request)
        answers.push_back(std::move(state->answers[request]));
    return answers;
}

}  // namespace farshore
