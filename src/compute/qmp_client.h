// QEMU's machine protocol over its unix socket: commands, their answers, and events.
//
// A QMP socket serves one client at a time: a second one is let in by the kernel and then hears
// nothing, so a greeting that stays away is reported as kUnavailable ("in use").
//
// Any thread may call; commands of several threads do not wait for each other's answers. A reader
// thread of its own takes what QEMU says. Answers of QEMU that refuse a command carry its own
// words:
//   CommandNotFound -> kUnsupported, DeviceNotFound -> kNotFound, everything else -> kWrongState.
// A peer that speaks something else than QMP is kMalformed, and the connection ends. kTimeout: the
// command may nevertheless have happened.
// Source: QEMU 7.2, docs/interop/qmp-spec.txt.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

// One message of QEMU (query-block of a machine with 64 disks is under 1 MiB). A longer one ends
// the connection.
inline constexpr size_t kMaxQmpMessageBytes = 8u << 20;
// Events that nobody took; past that the oldest are dropped.
inline constexpr size_t kMaxQmpEventsKept = 1024;
// JSON nested deeper is refused: our own parser's stack is not the peer's to use.
inline constexpr int kMaxQmpDepth = 100;

// Cuts the byte stream into messages. No I/O. After an error it must not be used any more.
class QmpFramer {
  public:
    // Appends the messages that are complete now to `out`; blank lines are skipped. kMalformed,
    // kTooLarge.
    Status feed(ByteView bytes, std::vector<nlohmann::json>& out);

  private:
    std::string line_;
};

class QmpClient {
  public:
    struct Options {
        int connect_timeout_ms = 5000;   // until the greeting was answered
        int command_timeout_ms = 30000;  // unless execute() says otherwise
        // Called on the reader thread for each event, before it is kept for take_events(). Must
        // return soon and must not execute() commands.
        std::function<void(const nlohmann::json& event)> on_event;
    };
    static Result<std::unique_ptr<QmpClient>> connect(const std::string& socket_path,
                                                      Options options);
    static Result<std::unique_ptr<QmpClient>> connect(const std::string& socket_path);
    ~QmpClient();
    QmpClient(const QmpClient&) = delete;
    QmpClient& operator=(const QmpClient&) = delete;

    // The "return" of the answer. `arguments` is an object or null.
    Result<nlohmann::json> execute(std::string_view command, const nlohmann::json& arguments);
    Result<nlohmann::json> execute(std::string_view command);
    Result<nlohmann::json> execute(std::string_view command, const nlohmann::json& arguments,
                                   int timeout_ms);
    // A line of the human monitor; its output. For tests and for what QMP lacks.
    Result<std::string> human(const std::string& line);

    // Whether the connection stands, as far as the reader knows.
    bool connected() const;
    // The events since the last call, in order, each as QEMU sent it.
    std::vector<nlohmann::json> take_events();
    // Waits until an event with that name is among those kept, takes it and every one before it.
    // kTimeout, kConnectionLost.
    Result<nlohmann::json> wait_event(std::string_view name, int timeout_ms);
    // "7.2.22", from the greeting.
    const std::string& qemu_version() const;

  private:
    struct Impl;
    explicit QmpClient(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
