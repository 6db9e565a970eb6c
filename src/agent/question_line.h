// Questions to an appliance and their answers, for a thread that waits: COMPARE or RETURN frames
// on a connection that is made when it is needed and stays while it serves.
//
// ask() blocks, one thread at a time; stop() may come from any and ends it. The connection lives on
// `home`, which outlives this, as all that is borrowed.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/seams.h"
#include "os/real.h"
#include "replicate/frames.h"

namespace farshore {

class QuestionLine {
  public:
    // `answer`: the type of the frames that come back.
    QuestionLine(ThreadExecutor& home, Dialer& dialer, FrameType answer);
    ~QuestionLine();
    QuestionLine(const QuestionLine&) = delete;
    QuestionLine& operator=(const QuestionLine&) = delete;

    // A frame with that request's number.
    using Question = std::function<Bytes(uint64_t request)>;
    // The bodies of the answers, in the order of the questions (at most kMaxCompareQuestions). The
    // peer's error; kTimeout, kConnectionLost, kMalformed, kCancelled.
    Result<std::vector<Bytes>> ask(const std::vector<Question>& questions, int64_t patience_us);
    // ask() answers kCancelled, now and from now on.
    void stop();

  private:
    struct State;
    ThreadExecutor& home_;
    Dialer& dialer_;
    std::shared_ptr<State> state_;
};

}  // namespace farshore
