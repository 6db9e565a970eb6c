// The agent's end of shared points (docs/design/groups.md): a connection to its appliance on which
// orders come at once, open while one of its items is in a replication group.
//
// A state machine on one executor; everything borrowed outlives it. A lost connection costs the
// point that was being made: its members are let go.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/seams.h"
#include "replicate/shared_point.h"

namespace farshore {

class GroupClient {
  public:
    struct Options {
        // One member's part of an order; answered once, at once or later.
        std::function<void(const BarrierOrder&, const ItemId&, std::function<void(MemberOutcome)>)>
            serve;
        // Nobody is there any more to go on with what was begun.
        std::function<void()> abandon;
        std::function<std::string()> address;  // where the dialer leads by now, for people
    };
    GroupClient(Executor& executor, Clock& clock, Dialer& dialer, Options options);
    ~GroupClient();

    // Whether a connection is wanted. On the executor.
    void want(bool wanted);
    bool connected() const { return connection_ != nullptr; }

  private:
    void dial();
    void dialled(Result<std::unique_ptr<Connection>> made);
    void on_frame(ByteView frame);
    void say_hello();
    void disconnected(const Error& error);
    void after(int64_t delay_us, void (GroupClient::*what)());

    Executor& executor_;
    Clock& clock_;
    Dialer& dialer_;
    const Options options_;
    bool wanted_ = false, dialling_ = false;
    std::unique_ptr<Connection> connection_;
    uint64_t connections_ = 0;  // an answer goes where its order came from
    int64_t heard_us_ = 0;
    int64_t retry_us_;
    std::optional<Executor::TimerId> timer_;
    std::string last_error_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
