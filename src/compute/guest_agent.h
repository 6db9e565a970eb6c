// The QEMU guest agent inside a machine, over its channel (a unix socket of QEMU): whether it is
// there, programs run inside, and its file systems brought to rest. docs: QEMU 7.2,
// docs/interop/qemu-ga.rst, qga/qapi-schema.json.
//
// The channel says nothing when no agent reads it, so everything has a limit. One thread; one
// client of a channel at a time. What the agent says is from inside the guest, so not trusted: it
// is bounded (kTooLarge, kMalformed), and after an error the connection is of no use any more.
// Refusals of the agent carry its own words: kUnsupported (it does not know or allow the command),
// kGuestFailed.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

class UnixStream;

// Another way to an agent than a socket of ours: the "return" of one command. Errors as
// GuestAgent::execute.
using AgentExchange = std::function<Result<nlohmann::json>(
    std::string_view command, const nlohmann::json& arguments, int timeout_ms)>;

// One answer. The agent itself keeps at most 16 MiB of a program's output, as base64.
inline constexpr size_t kMaxGuestAnswerBytes = 48u << 20;

// Cuts the byte stream into answers. A byte 0xff, with which the agent marks a fresh start, throws
// away what is before it. No I/O. After an error it must not be used any more.
class GuestAgentFramer {
  public:
    Status feed(ByteView bytes, std::vector<nlohmann::json>& out);

  private:
    std::string line_;
};

struct GuestExit {
    std::optional<int> code;    // it exited with this
    std::optional<int> signal;  // or this ended it
    std::string output;         // both streams, cut at the caller's bound
};

// One answer of an agent, to that command: its "return". kMalformed, kTooLarge; refusals.
Result<nlohmann::json> guest_answer(std::string_view command, const std::string& line);

class GuestAgent {
  public:
    // Returns when the agent has answered. kTimeout: none is there, or it is busy; kNotFound,
    // kUnavailable: no channel.
    static Result<GuestAgent> connect(const std::string& socket_path, int timeout_ms);
    // Asks it whether it is there.
    static Result<GuestAgent> connect(AgentExchange exchange, int timeout_ms);
    GuestAgent(GuestAgent&&) noexcept;
    GuestAgent& operator=(GuestAgent&&) noexcept;
    ~GuestAgent();

    // The "return" of the answer.
    Result<nlohmann::json> execute(std::string_view command, const nlohmann::json& arguments,
                                   int timeout_ms);
    // Starts a program inside, with its output kept; its pid there.
    Result<int64_t> start_program(const std::string& program,
                                  const std::vector<std::string>& arguments,
                                  const std::vector<std::string>& environment, int timeout_ms);
    // None: it runs. Its end is told once: the agent forgets it then.
    Result<std::optional<GuestExit>> program_exit(int64_t pid, size_t output_bytes, int timeout_ms);

    // How many file systems it froze; 0: none can be.
    Result<int64_t> freeze(int timeout_ms);
    // How many were frozen until now.
    Result<int64_t> thaw(int timeout_ms);
    Result<bool> is_frozen(int timeout_ms);

  private:
    explicit GuestAgent(std::unique_ptr<UnixStream> stream, AgentExchange exchange = {});
    Result<nlohmann::json> read_answer(int64_t deadline_us);
    Result<int64_t> count_of(std::string_view command, int timeout_ms);

    std::unique_ptr<UnixStream> stream_;  // null: exchange_ it is
    AgentExchange exchange_;
    GuestAgentFramer framer_;
    std::vector<nlohmann::json> answers_;
};

}  // namespace farshore
