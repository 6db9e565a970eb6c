#include "compute/qmp_client.h"

#include <fmt/core.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "compute/json_read.h"
#include "os/real.h"
#include "os/unix_stream.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

// Parses one line; nullopt is "not a message of QMP", which is always an object.
std::optional<Json> parse_message(const std::string& line) {
    bool too_deep = false;
    Json message = Json::parse(
        line,
        [&too_deep](int depth, Json::parse_event_t, Json&) {
            if (depth > kMaxQmpDepth) too_deep = true;
            return !too_deep;
        },
        false);
    if (too_deep || message.is_discarded() || !message.is_object()) return std::nullopt;
    return message;
}

Error map_error(std::string_view command, const Json& error) {
    const std::string words = json_text(error, "desc", "no reason given");
    const std::string kind = json_text(error, "class");
    Code code = Code::kWrongState;
    if (kind == "CommandNotFound") code = Code::kUnsupported;
    if (kind == "DeviceNotFound") code = Code::kNotFound;
    return Error(code, fmt::format("QEMU refused {}: {}", command, words));
}

}  // namespace

Status QmpFramer::feed(ByteView bytes, std::vector<Json>& out) {
    for (std::string_view rest = as_text(bytes); !rest.empty();) {
        const size_t end = rest.find('\n');
        const std::string_view part = rest.substr(0, end);
        if (line_.size() + part.size() > kMaxQmpMessageBytes)
            return fail(Code::kTooLarge, fmt::format("the monitor sent a message of over {} bytes",
                                                     kMaxQmpMessageBytes));
        line_.append(part);
        if (end == std::string_view::npos) return {};
        rest.remove_prefix(end + 1);
        if (!line_.empty() && line_.back() == '\r') line_.pop_back();
        if (line_.empty()) continue;
        auto message = parse_message(line_);
        if (!message)
            return fail(
                Code::kMalformed,
                "the peer does not speak QMP: it sent something that is not a JSON object",
                "check that the socket is a QMP monitor (-qmp unix:PATH,server=on,wait=off)");
        line_.clear();
        out.push_back(std::move(*message));
    }
    return {};
}

struct QmpClient::Impl {
    std::string path;
    Options options;
    std::unique_ptr<UnixStream> stream;
    std::string version;
    std::thread reader;

    std::mutex write_mutex;  // one command's bytes at a time

    std::mutex mutex;
    std::condition_variable changed;
    uint64_t next_id = 1;                          // guarded by mutex, like all below
    std::map<uint64_t, std::optional<Json>> wait;  // commands in flight and their answers
    std::deque<Json> events;
    std::optional<Error> ended;

    ~Impl() {
        if (stream) stream->shutdown();
        if (reader.joinable()) reader.join();
    }

    Status greet() {
        QmpFramer framer;
        std::vector<Json> messages;
        Bytes buffer(16384);
        const auto read_one = [&]() -> Result<Json> {
            while (messages.empty()) {
                FS_ASSIGN(const size_t n, stream->read_some(buffer, options.connect_timeout_ms));
                if (n == 0)
                    return fail(Code::kConnectionLost, fmt::format("{} closed at once", path));
                FS_TRY(framer.feed(ByteView(buffer).first(n), messages));
            }
            Json first = std::move(messages.front());
            messages.erase(messages.begin());
            return first;
        };
        // What QEMU still had to say to the client before us comes first.
        constexpr int kMaxLeftOver = 64;
        const auto is_left_over = [](const Json& message) {
            return message.contains("event") || message.contains("return") ||
                   message.contains("error");
        };
        auto greeting = read_one();
        for (int i = 0; i < kMaxLeftOver && greeting && is_left_over(*greeting); ++i)
            greeting = read_one();
        if (!greeting && greeting.error().code() == Code::kTimeout)
            return fail(Code::kUnavailable,
                        fmt::format("the monitor {} does not greet: another client holds it", path),
                        "give the machine a second monitor for Farshore "
                        "(-qmp unix:PATH,server=on,wait=off), or disconnect the other client");
        FS_TRY(greeting);
        const Json& qmp = json_at(*greeting, "QMP");
        if (!qmp.is_object())
            return fail(Code::kMalformed, fmt::format("{} is not a QMP monitor", path));
        const Json& numbers = json_at(json_at(qmp, "version"), "qemu");
        version = fmt::format("{}.{}.{}", json_u64(numbers, "major"), json_u64(numbers, "minor"),
                              json_u64(numbers, "micro"));
        FS_TRY(stream->write_all(as_bytes("{\"execute\":\"qmp_capabilities\",\"id\":0}\n"),
                                 options.connect_timeout_ms));
        for (;;) {
            FS_ASSIGN(const Json answer, read_one());
            if (answer.contains("event")) continue;
            if (answer.contains("error"))
                return fail(map_error("qmp_capabilities", answer["error"]));
            if (answer.contains("return")) break;
            return fail(Code::kMalformed, fmt::format("{} answers without an answer", path));
        }
        reader =
            std::thread([this, framer = std::move(framer), rest = std::move(messages)]() mutable {
                for (Json& message : rest) take(std::move(message));
                read_loop(std::move(framer));
            });
        return {};
    }

    void read_loop(QmpFramer framer) {
        Bytes buffer(65536);
        std::vector<Json> messages;
        for (;;) {
            auto n = stream->read_some(buffer);
            if (!n) return end(n.error());
            if (*n == 0)
                return end(
                    Error(Code::kConnectionLost, fmt::format("QEMU closed the monitor {}", path)));
            const auto fed = framer.feed(ByteView(buffer).first(*n), messages);
            for (Json& message : messages) take(std::move(message));
            messages.clear();
            if (!fed) return end(fed.error());
        }
    }

    void take(Json message) {
        if (message.contains("event")) {
            if (options.on_event) options.on_event(message);
            const std::lock_guard lock(mutex);
            if (events.size() == kMaxQmpEventsKept) events.pop_front();
            events.push_back(std::move(message));
            changed.notify_all();
            return;
        }
        // An answer without an id that we wait for is late (its waiter gave up) or garbage:
        // dropped.
        const auto id = message.find("id");
        if (id == message.end() || !id->is_number_unsigned()) return;
        const std::lock_guard lock(mutex);
        const auto waiting = wait.find(id->get<uint64_t>());
        if (waiting == wait.end()) return;
        waiting->second = std::move(message);
        changed.notify_all();
    }

    void end(Error error) {
        stream->shutdown();
        const std::lock_guard lock(mutex);
        ended = std::move(error);
        changed.notify_all();
    }
};

QmpClient::QmpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
QmpClient::~QmpClient() = default;

Result<std::unique_ptr<QmpClient>> QmpClient::connect(const std::string& socket_path) {
    return connect(socket_path, Options{});
}

Result<std::unique_ptr<QmpClient>> QmpClient::connect(const std::string& socket_path,
                                                      Options options) {
    auto impl = std::make_unique<Impl>();
    impl->path = socket_path;
    impl->options = std::move(options);
    FS_ASSIGN(impl->stream, UnixStream::connect(socket_path, impl->options.connect_timeout_ms));
    FS_TRY(impl->greet());
    return std::unique_ptr<QmpClient>(new QmpClient(std::move(impl)));
}

Result<Json> QmpClient::execute(std::string_view command) { return execute(command, Json()); }

Result<Json> QmpClient::execute(std::string_view command, const Json& arguments) {
    return execute(command, arguments, impl_->options.command_timeout_ms);
}

Result<Json> QmpClient::execute(std::string_view command, const Json& arguments, int timeout_ms) {
    Impl& impl = *impl_;
    uint64_t id = 0;
    {
        const std::lock_guard lock(impl.mutex);
        if (impl.ended) return fail(*impl.ended);
        id = impl.next_id++;
        impl.wait.emplace(id, std::nullopt);
    }
    Json request = {{"execute", command}, {"id", id}};
    if (!arguments.is_null()) request["arguments"] = arguments;
    const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    Status written;
    {
        const std::lock_guard lock(impl.write_mutex);
        written = impl.stream->write_all(as_bytes(line), timeout_ms);
    }
    std::unique_lock lock(impl.mutex);
    if (!written) {
        impl.wait.erase(id);
        return fail(impl.ended ? *impl.ended : written.error());
    }
    const bool answered = impl.changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] {
        return impl.wait[id].has_value() || impl.ended.has_value();
    });
    std::optional<Json> answer = std::move(impl.wait[id]);
    impl.wait.erase(id);
    if (!answer) {
        if (impl.ended) return fail(*impl.ended);
        FS_CHECK(!answered);
        return fail(Code::kTimeout,
                    fmt::format("QEMU did not answer {} within {} ms", command, timeout_ms));
    }
    lock.unlock();
    if (const auto error = answer->find("error"); error != answer->end())
        return fail(map_error(command, *error));
    const auto value = answer->find("return");
    if (value == answer->end())
        return fail(Code::kMalformed, fmt::format("QEMU answered {} without an answer", command));
    return std::move(*value);
}

Result<std::string> QmpClient::human(const std::string& line) {
    FS_ASSIGN(const Json answer, execute("human-monitor-command", {{"command-line", line}}));
    if (!answer.is_string()) return fail(Code::kMalformed, "the human monitor answered no text");
    return answer.get<std::string>();
}

bool QmpClient::connected() const {
    const std::lock_guard lock(impl_->mutex);
    return !impl_->ended;
}

std::vector<Json> QmpClient::take_events() {
    const std::lock_guard lock(impl_->mutex);
    std::vector<Json> events(std::make_move_iterator(impl_->events.begin()),
                             std::make_move_iterator(impl_->events.end()));
    impl_->events.clear();
    return events;
}

Result<Json> QmpClient::wait_event(std::string_view name, int timeout_ms) {
    Impl& impl = *impl_;
    const RealClock clock;
    const int64_t deadline_us = clock.steady_us() + timeout_ms * 1000LL;
    std::unique_lock lock(impl.mutex);
    for (;;) {
        while (!impl.events.empty()) {
            Json event = std::move(impl.events.front());
            impl.events.pop_front();
            if (json_text(event, "event") == name) return event;
        }
        if (impl.ended) return fail(*impl.ended);
        const int64_t left_us = deadline_us - clock.steady_us();
        if (left_us <= 0)
            return fail(Code::kTimeout,
                        fmt::format("QEMU did not report {} within {} ms", name, timeout_ms));
        impl.changed.wait_for(lock, std::chrono::microseconds(left_us));
    }
}

const std::string& QmpClient::qemu_version() const { return impl_->version; }

}  // namespace farshore
