// The agent's end of its control conversation: once a round the status goes up and instructions
// come down, through the appliance. A state machine on one executor; a lost round costs nothing.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/seams.h"

namespace farshore {

class ControlClient {
  public:
    struct Options {
        // Where the dialer leads by now, for people.
        std::function<std::string()> address;
        std::function<void()> failed;  // before it is tried again
        int64_t interval_us = 200'000;
        int64_t reply_timeout_us = 10'000'000;
        std::function<std::string()> status;                   // JSON to send
        std::function<void(const std::string&)> instructions;  // JSON that came
    };
    // Executor and dialer are borrowed and outlive it.
    ControlClient(Executor& executor, Dialer& dialer, Options options);
    ~ControlClient();
    void start();
    void stop();
    bool connected() const { return connection_ != nullptr; }
    uint64_t connections() const { return connections_; }  // that were made
    const std::string& last_error() const { return last_error_; }

  private:
    void dial();
    void round();
    void on_frame(ByteView frame);
    void disconnected(const Error& error);
    void after(int64_t delay_us, void (ControlClient::*what)());

    Executor& executor_;
    Dialer& dialer_;
    Options options_;
    bool running_ = false;
    std::unique_ptr<Connection> connection_;
    uint64_t request_ = 0;
    uint64_t connections_ = 0;
    bool waiting_ = false;
    int64_t retry_us_;
    std::optional<Executor::TimerId> timer_;
    std::string last_error_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
