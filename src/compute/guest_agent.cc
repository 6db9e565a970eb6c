#include "compute/guest_agent.h"

#include <fmt/core.h>

#include <algorithm>

#include "compute/json_read.h"
#include "os/real.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr int kMaxDepth = 20;
constexpr char kMark = '\xff';
// A guest that floods us is left alone.
constexpr size_t kMaxSkipped = 1'000;

Error no_answer(std::string_view command) {
    return Error(Code::kTimeout, fmt::format("the guest agent did not answer {}", command),
                 "look whether qemu-guest-agent runs in the machine, and whether another program "
                 "holds its socket");
}

int left_ms(int64_t until_us) {
    return static_cast<int>(
        std::clamp<int64_t>((until_us - RealClock().steady_us()) / 1000, 0, 3'600'000));
}

}  // namespace

Status GuestAgentFramer::feed(ByteView bytes, std::vector<Json>& out) {
    for (const char c : as_text(bytes)) {
        if (c == kMark) {
            line_.clear();
            continue;
        }
        if (c != '\n') {
            if (line_.size() >= kMaxGuestAgentLine)
                return fail(Code::kTooLarge, fmt::format("the guest agent sent a line of over {} "
                                                         "bytes",
                                                         kMaxGuestAgentLine));
            line_ += c;
            continue;
        }
        bool too_deep = false;
        Json message = Json::parse(
            line_,
            [&too_deep](int depth, Json::parse_event_t, Json&) {
                if (depth > kMaxDepth) too_deep = true;
                return !too_deep;
            },
            false);
        line_.clear();
        if (!too_deep && message.is_object()) out.push_back(std::move(message));
    }
    return {};
}

Result<Json> GuestAgent::next(int64_t until_us) {
    Bytes buffer(4096);
    while (waiting_.empty()) {
        const int ms = left_ms(until_us);
        if (ms == 0) return fail(Code::kTimeout, "no answer in time");
        FS_ASSIGN(const size_t n, stream_->read_some(buffer, ms));
        if (n == 0) return fail(Code::kConnectionLost, "the guest agent's socket was closed");
        FS_TRY(framer_.feed(ByteView(buffer).first(n), waiting_));
    }
    Json first = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    return first;
}

// Answers to somebody before us may be on their way.
Status GuestAgent::find_place(int64_t until_us) {
    RealRandom random;
    uint8_t raw[4];
    random.fill(raw);
    const int64_t mark = (int64_t{raw[0]} << 22) | (raw[1] << 14) | (raw[2] << 6) | (raw[3] & 63);
    const std::string asked =
        std::string(1, kMark) +
        Json{{"execute", "guest-sync-delimited"}, {"arguments", {{"id", mark}}}}.dump() + "\n";
    FS_TRY(stream_->write_all(as_bytes(asked), std::max(left_ms(until_us), 1)));
    for (size_t skipped = 0; skipped < kMaxSkipped; ++skipped) {
        auto message = next(until_us);
        if (!message && message.error().code() == Code::kTimeout)
            return fail(no_answer("anything"));
        if (!message) return fail(message.error());
        if (json_i64(*message, "return", -1) == mark) return {};
    }
    return fail(Code::kMalformed, "what answers at the guest agent's socket is none");
}

Result<GuestAgent> GuestAgent::connect(const std::string& socket_path, int timeout_ms) {
    const int64_t until_us = RealClock().steady_us() + int64_t{timeout_ms} * 1000;
    FS_ASSIGN(auto stream, UnixStream::connect(socket_path, timeout_ms));
    GuestAgent agent(std::move(stream));
    FS_TRY(agent.find_place(until_us));
    return agent;
}

Result<Json> GuestAgent::execute(std::string_view command, int timeout_ms) {
    const int64_t until_us = RealClock().steady_us() + int64_t{timeout_ms} * 1000;
    const std::string asked = Json{{"execute", command}}.dump() + "\n";
    FS_TRY(stream_->write_all(as_bytes(asked), timeout_ms));
    auto answer = next(until_us);
    if (!answer && answer.error().code() == Code::kTimeout) return fail(no_answer(command));
    if (!answer) return answer;
    if (answer->contains("return")) return json_at(*answer, "return");
    const Json& error = json_at(*answer, "error");
    const bool unknown = json_text(error, "class") == "CommandNotFound";
    return fail(unknown ? Code::kUnsupported : Code::kWrongState,
                fmt::format("the guest agent refused {}: {}", command,
                            json_text(error, "desc", "no reason given").substr(0, 500)),
                unknown ? "install a newer qemu-guest-agent, or allow the command in its "
                          "configuration"
                        : "look into the machine's log");
}

Result<int64_t> GuestAgent::freeze(int timeout_ms) {
    FS_ASSIGN(const Json count, execute("guest-fsfreeze-freeze", timeout_ms));
    if (!count.is_number_integer())
        return fail(Code::kMalformed, "the guest agent does not say how much it froze");
    return count.get<int64_t>();
}

Result<int64_t> GuestAgent::thaw(int timeout_ms) {
    FS_ASSIGN(const Json count, execute("guest-fsfreeze-thaw", timeout_ms));
    if (!count.is_number_integer())
        return fail(Code::kMalformed, "the guest agent does not say how much it thawed");
    return count.get<int64_t>();
}

Result<bool> GuestAgent::is_frozen(int timeout_ms) {
    FS_ASSIGN(const Json status, execute("guest-fsfreeze-status", timeout_ms));
    if (!status.is_string())
        return fail(Code::kMalformed, "the guest agent does not say whether it froze");
    return status.get<std::string>() == "frozen";
}

}  // namespace farshore
