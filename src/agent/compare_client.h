// The agent's part of a comparison: carries what the tap asks (capture/compare_board.h) to the
// recovery site, and the answers back, on a connection of its own that is open while there is
// something to ask. What gets no answer yet is asked again; where the recovery site says
// that it cannot compare, or never makes sense, the tap is told so, and copies.
//
// A state machine on one executor; everything borrowed outlives it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/seams.h"
#include "capture/compare_board.h"

namespace farshore {

class CompareClient {
  public:
    // `ring` wakes the tap.
    CompareClient(Executor& executor, Clock& clock, Dialer& dialer, std::string address,
                  const ItemId& item, LogHeader header, std::function<void()> ring);
    ~CompareClient();
    // Something was asked. Cheap; on the executor.
    void wake();

  private:
    struct Pending {
        CompareResponder::Asked asked;
        int64_t again_us = 0;  // when it is asked again, steady; 0: it is under way
    };
    void dial();
    void dialled(Result<std::unique_ptr<Connection>> connection);
    void send_what_is_due();
    void on_frame(ByteView frame);
    void take_answer(uint64_t request, const CompareAnswer& answer);
    void disconnected(const Error& error);
    // The peer talks nonsense, or says that the agent does.
    void misunderstood(const Error& error);
    void give_up(const Error& error);
    void look_again(int64_t delay_us);

    Executor& executor_;
    Clock& clock_;
    Dialer& dialer_;
    const std::string address_;
    const ItemId item_;
    CompareResponder responder_;
    const std::function<void()> ring_;
    std::unique_ptr<Connection> connection_;
    bool dialling_ = false;
    uint64_t next_request_ = 1;
    std::map<uint64_t, Pending> pending_;
    int64_t heard_us_ = 0;
    int64_t retry_us_;
    int64_t patience_us_;
    int64_t not_before_us_ = 0;
    std::optional<Executor::TimerId> timer_;
    std::string last_error_;
    unsigned misunderstandings_ = 0;  // without an answer between them
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
