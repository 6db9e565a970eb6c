// Makes the points of an item that take more than a record: application-consistent ones, and the
// item's part of one that its group shares (docs/design/groups.md). One at a time; a second wish is
// refused. The machine is brought to rest on another thread; writes wait in the tap.
//
// A state machine on one executor, where all callbacks run, some of them inside a call. Borrows
// what it is given. Its end lets everything go, and answers what is open with kCancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "capture/tap.h"
#include "replicate/shared_point.h"

namespace farshore {

class PointMaker {
  public:
    // The tap's commands (TapCommands).
    struct Commands {
        std::function<Result<size_t>(const TapCommand&)> post;
        std::function<std::optional<TapCommandResult>(size_t)> take;
    };
    // How the machine comes to rest. Callbacks come on the executor.
    struct Rest {
        // Its scripts. One that fails has undone what it did; each that succeeds is ended.
        std::function<void(const std::string& label, std::function<void(Status)>)> begin;
        // Its file systems: until when they are at rest, steady; INT64_MAX: scripts answer for it.
        std::function<void(std::function<void(Result<int64_t>)>)> freeze;
        // `thawed`: whether it was at rest until then.
        std::function<void(bool made, std::function<void(Status)> thawed)> end;
    };
    struct Options {
        bool holds = true;  // the tap is in the writes' way; else only file systems hold them
        std::function<bool()> in_gap;
        // Behind a point: that no write went past the tap before it. None: none can.
        std::function<void(std::function<void(Status)>)> confirm{};
    };
    using Answer = std::function<void(Result<TapCommandResult>)>;

    PointMaker(Executor& executor, Clock& clock, Commands commands, Rest rest, Options options);
    ~PointMaker();

    // One point of this item alone, at rest.
    void make(const std::string& label, Answer answer);

    // A shared one, step by step; each is answered once. Steps of another one are refused, but a
    // newer one takes the place of one that waits for its next step. What is not followed by its
    // next step is let go after a while.
    void serve(const BarrierOrder& order, Answer answer);
    // Whoever gave the orders is gone.
    void abandon_all();

    bool idle() const { return stage_ == Stage::kIdle; }

  private:
    enum class Stage : uint8_t {
        kIdle,
        kPreparing,
        kPrepared,
        kFreezing,
        kFrozen,
        kHeld,
        kMarking,
        kConfirming,
        kEnding
    };
    void prepare(PointKind kind, const std::string& label);
    void prepared(const Status& begun);
    void freeze();
    void frozen(const Result<int64_t>& until);
    void hold();
    void mark();
    void marked(Result<TapCommandResult> result);
    void confirm(Result<TapCommandResult> result);
    void end_rest();
    void let_go(const Error& why);
    void answer(Result<TapCommandResult> result);
    void run(const TapCommand& command, int64_t until_us, Answer done);
    void poll();
    void give_up_after(int64_t delay_us);

    Executor& executor_;
    Clock& clock_;
    const Commands commands_;
    const Rest rest_;
    const Options options_;

    Stage stage_ = Stage::kIdle;
    std::optional<SharedPointId> shared_;  // none: a point of this item alone
    PointKind kind_ = PointKind::kBookmark;
    std::string label_;
    uint64_t hold_ = 0;
    int64_t until_us_ = INT64_MAX;  // the machine is at rest
    bool resting_ = false;          // what rest_.begin began is to be ended
    uint64_t round_ = 0;            // of points begun
    Answer answer_;                 // of the step that is under way

    struct Waiting {
        size_t ticket = 0;
        int64_t until_us = 0;
        Answer done;
    };
    std::optional<Waiting> waiting_;
    std::vector<size_t> late_;  // commands that nobody waits for
    std::optional<Executor::TimerId> poll_timer_, patience_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
