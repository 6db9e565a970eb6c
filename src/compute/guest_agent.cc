#include "compute/guest_agent.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "codec/hash.h"
#include "compute/json_read.h"
#include "compute/qmp_client.h"
#include "os/real.h"
#include "os/unix_stream.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr char kFreshStart = '\xff';

std::optional<Json> parse_answer(const std::string& line) {
    bool too_deep = false;
    Json answer = Json::parse(
        line,
        [&too_deep](int depth, Json::parse_event_t, Json&) {
            if (depth > kMaxQmpDepth) too_deep = true;
            return !too_deep;
        },
        false);
    if (too_deep || answer.is_discarded() || !answer.is_object()) return std::nullopt;
    return answer;
}

Error refusal_of(std::string_view command, const Json& error) {
    const std::string kind = json_text(error, "class");
    const std::string words =
        plain_text(json_text(error, "desc", "no reason given").substr(0, 500));
    const bool unknown = kind == "CommandNotFound" || words.find("disabled") != words.npos;
    return Error(unknown ? Code::kUnsupported : Code::kGuestFailed,
                 fmt::format("the guest agent refused {}: {}", command, words));
}

Result<Json> inside_of(std::string_view command, Json answer) {
    if (answer.contains("error")) return fail(refusal_of(command, answer["error"]));
    if (!answer.contains("return"))
        return fail(Code::kMalformed, "the guest agent answers without an answer");
    return std::move(answer["return"]);
}

}  // namespace

Status GuestAgentFramer::feed(ByteView bytes, std::vector<Json>& out) {
    for (std::string_view rest = as_text(bytes); !rest.empty();) {
        if (const size_t fresh = rest.rfind(kFreshStart); fresh != rest.npos) {
            line_.clear();
            rest.remove_prefix(fresh + 1);
            continue;
        }
        const size_t end = rest.find('\n');
        const std::string_view part = rest.substr(0, end);
        if (line_.size() + part.size() > kMaxGuestAnswerBytes)
            return fail(Code::kTooLarge, fmt::format("the guest agent answers with over {} bytes",
                                                     kMaxGuestAnswerBytes));
        line_.append(part);
        if (end == rest.npos) return {};
        rest.remove_prefix(end + 1);
        if (line_.find_first_not_of(" \r\t") == line_.npos) {
            line_.clear();
            continue;
        }
        auto answer = parse_answer(line_);
        line_.clear();
        if (!answer)
            return fail(Code::kMalformed, "the guest agent sent something that is no JSON object");
        out.push_back(std::move(*answer));
    }
    return {};
}

GuestAgent::GuestAgent(std::unique_ptr<UnixStream> stream, AgentExchange exchange)
    : stream_(std::move(stream)), exchange_(std::move(exchange)) {}
GuestAgent::GuestAgent(GuestAgent&&) noexcept = default;
GuestAgent& GuestAgent::operator=(GuestAgent&&) noexcept = default;
GuestAgent::~GuestAgent() = default;

Result<GuestAgent> GuestAgent::connect(const std::string& socket_path, int timeout_ms) {
    FS_ASSIGN(auto stream, UnixStream::connect(socket_path, timeout_ms));
    GuestAgent agent(std::move(stream));
    const RealClock clock;
    const int64_t deadline_us = clock.steady_us() + int64_t{timeout_ms} * 1000;
    // What an earlier client has asked may still be answered: our number comes back behind it.
    const int64_t number = clock.steady_us() % 1'000'000'007;
    const std::string ask =
        fmt::format("{}{{\"execute\":\"guest-sync-delimited\",\"arguments\":{{\"id\":{}}}}}\n",
                    kFreshStart, number);
    FS_TRY(agent.stream_->write_all(as_bytes(ask), timeout_ms));
    while (true) {
        const auto answer = agent.read_answer(deadline_us);
        if (!answer && answer.error().code() == Code::kMalformed) {
            // Half an answer that was meant for somebody else; the framer starts afresh.
            agent.framer_ = GuestAgentFramer();
            continue;
        }
        FS_TRY(answer);
        if (json_i64(*answer, "return", -1) == number) return agent;
    }
}

Result<GuestAgent> GuestAgent::connect(AgentExchange exchange, int timeout_ms) {
    GuestAgent agent(nullptr, std::move(exchange));
    FS_TRY(agent.execute("guest-ping", nullptr, timeout_ms));
    return agent;
}

Result<Json> GuestAgent::read_answer(int64_t deadline_us) {
    const RealClock clock;
    Bytes buffer(65536);
    while (answers_.empty()) {
        const int64_t left_ms = (deadline_us - clock.steady_us()) / 1000;
        if (left_ms <= 0)
            return fail(Code::kTimeout, "no guest agent answers",
                        "it must be installed in the machine, and be running");
        auto n = stream_->read_some(buffer, static_cast<int>(left_ms));
        if (!n && n.error().code() == Code::kTimeout) continue;
        FS_TRY(n);
        if (*n == 0) return fail(Code::kConnectionLost, "the guest agent's channel was closed");
        FS_TRY(framer_.feed(ByteView(buffer).first(*n), answers_));
    }
    Json first = std::move(answers_.front());
    answers_.erase(answers_.begin());
    return first;
}

Result<Json> GuestAgent::execute(std::string_view command, const Json& arguments, int timeout_ms) {
    if (!stream_) return exchange_(command, arguments, timeout_ms);
    Json ask{{"execute", std::string(command)}};
    if (!arguments.is_null()) ask["arguments"] = arguments;
    const std::string line = ask.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    const int64_t deadline_us = RealClock().steady_us() + int64_t{timeout_ms} * 1000;
    FS_TRY(stream_->write_all(as_bytes(line), timeout_ms));
    FS_ASSIGN(Json answer, read_answer(deadline_us));
    return inside_of(command, std::move(answer));
}

Result<Json> guest_answer(std::string_view command, const std::string& line) {
    if (line.size() > kMaxGuestAnswerBytes)
        return fail(Code::kTooLarge, "the guest agent's answer is too long");
    auto answer = parse_answer(line);
    if (!answer) return fail(Code::kMalformed, "the guest agent's answer is not JSON");
    return inside_of(command, std::move(*answer));
}

Result<int64_t> GuestAgent::start_program(const std::string& program,
                                          const std::vector<std::string>& arguments,
                                          const std::vector<std::string>& environment,
                                          int timeout_ms) {
    Json ask{{"path", program}, {"arg", arguments}, {"capture-output", true}};
    if (!environment.empty()) ask["env"] = environment;
    FS_ASSIGN(const Json answer, execute("guest-exec", ask, timeout_ms));
    const int64_t pid = json_i64(answer, "pid", -1);
    if (pid < 0) return fail(Code::kMalformed, "the guest agent started a program without a pid");
    return pid;
}

Result<std::optional<GuestExit>> GuestAgent::program_exit(int64_t pid, size_t output_bytes,
                                                          int timeout_ms) {
    FS_ASSIGN(const Json answer, execute("guest-exec-status", {{"pid", pid}}, timeout_ms));
    if (!json_bool(answer, "exited")) return std::optional<GuestExit>();
    GuestExit ended;
    if (answer.contains("exitcode"))
        ended.code = static_cast<int>(json_i64(answer, "exitcode", -1));
    if (answer.contains("signal")) ended.signal = static_cast<int>(json_i64(answer, "signal", -1));
    for (const char* stream : {"out-data", "err-data"}) {
        const auto data = from_base64(json_text(answer, stream));
        if (data) ended.output += as_text(*data);
    }
    if (ended.output.size() > output_bytes) ended.output.resize(output_bytes);
    return ended;
}

Result<int64_t> GuestAgent::count_of(std::string_view command, int timeout_ms) {
    FS_ASSIGN(const Json count, execute(command, nullptr, timeout_ms));
    if (!count.is_number_integer())
        return fail(Code::kMalformed,
                    fmt::format("the guest agent answers {} without a number", command));
    return count.get<int64_t>();
}

Result<int64_t> GuestAgent::freeze(int timeout_ms) {
    return count_of("guest-fsfreeze-freeze", timeout_ms);
}

Result<int64_t> GuestAgent::thaw(int timeout_ms) {
    return count_of("guest-fsfreeze-thaw", timeout_ms);
}

Result<bool> GuestAgent::is_frozen(int timeout_ms) {
    FS_ASSIGN(const Json status, execute("guest-fsfreeze-status", nullptr, timeout_ms));
    if (!status.is_string())
        return fail(Code::kMalformed, "the guest agent does not say whether it froze");
    return status.get<std::string>() == "frozen";
}

}  // namespace farshore
