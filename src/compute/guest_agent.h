// QEMU's guest agent (qemu-ga) over the socket that QEMU has for it: what is asked of it to bring a
// machine's file systems to rest. Whatever answers there is inside the machine and is believed
// nothing: sizes, depth and time are bounded, and an answer counts only behind our own mark.
//
// Blocking; one thread. Errors: those of UnixStream; kTimeout (no answer: no agent runs in the
// machine, or somebody else holds the socket), kMalformed, kTooLarge; what the agent refuses is
// kUnsupported (it does not know the command) or kWrongState, with its words.
// Source: QEMU 7.2, docs/interop/qemu-ga, qga/qapi-schema.json.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "os/unix_stream.h"

namespace farshore {

// The answers that we ask for are a few hundred bytes.
inline constexpr size_t kMaxGuestAgentLine = 64u << 10;

// Cuts what comes from the guest into JSON objects. 0xFF, which is in no text, begins anew; lines
// that are none are passed over. No I/O. After an error it must not be used any more.
class GuestAgentFramer {
  public:
    // Appends the objects that are complete now. kTooLarge.
    Status feed(ByteView bytes, std::vector<nlohmann::json>& out);

  private:
    std::string line_;
};

class GuestAgent {
  public:
    // Connects, and finds the place from which on answers are ours.
    static Result<GuestAgent> connect(const std::string& socket_path, int timeout_ms);

    // How many file systems: 0: none can be.
    Result<int64_t> freeze(int timeout_ms);
    // How many were frozen until now.
    Result<int64_t> thaw(int timeout_ms);
    Result<bool> is_frozen(int timeout_ms);

  private:
    GuestAgent(std::unique_ptr<UnixStream> stream) : stream_(std::move(stream)) {}
    Result<nlohmann::json> execute(std::string_view command, int timeout_ms);
    Result<nlohmann::json> next(int64_t until_us);
    Status find_place(int64_t until_us);

    std::unique_ptr<UnixStream> stream_;
    GuestAgentFramer framer_;
    std::vector<nlohmann::json> waiting_;
};

}  // namespace farshore
