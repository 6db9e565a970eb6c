#include "os/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "os/real.h"

namespace farshore::log {
namespace {

constexpr std::array<std::string_view, 5> kNames{"debug", "info", "warn", "error", "off"};

struct State {
    std::atomic<Level> level{Level::kInfo};
    std::mutex mutex;
    bool json = false;
    std::shared_ptr<spdlog::logger> logger;
    std::function<void(Level, std::string_view)> sink;
};

// Never destroyed: threads may log while the program ends.
State& state() {
    static auto* shared = new State;
    return *shared;
}

std::shared_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink) {
    auto logger = std::make_shared<spdlog::logger>("farshore", std::move(sink));
    logger->set_pattern("%v");
    logger->set_level(spdlog::level::trace);
    logger->flush_on(spdlog::level::info);
    logger->set_error_handler([](const std::string&) {});
    return logger;
}

// The length of the well-formed UTF-8 character at the start of `text`, 0 when there is none.
size_t utf8_length(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    size_t length = 0;
    if (byte(0) >= 0xc2 && byte(0) <= 0xdf) length = 2;
    if (byte(0) >= 0xe0 && byte(0) <= 0xef) length = 3;
    if (byte(0) >= 0xf0 && byte(0) <= 0xf4) length = 4;
    if (length == 0 || text.size() < length) return 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xc0) != 0x80) return 0;
    const bool overlong =
        (byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xf0 && byte(1) < 0x90);
    const bool surrogate = byte(0) == 0xed && byte(1) >= 0xa0;
    const bool too_large = byte(0) == 0xf4 && byte(1) >= 0x90;
    return overlong || surrogate || too_large ? 0 : length;
}

// Control characters and what is not UTF-8 become escapes that JSON knows as well.
void append_escaped(std::string& out, std::string_view text, bool json) {
    for (size_t i = 0; i < text.size();) {
        const auto c = static_cast<uint8_t>(text[i]);
        if (c == '\n') {
            out += "\\n";
        } else if (json && (c == '"' || c == '\\')) {
            out += '\\';
            out += text[i];
        } else if (c < 0x20 || c == 0x7f) {
            out += fmt::format("\\u{:04x}", c);
        } else if (c < 0x80) {
            out += text[i];
        } else if (const size_t length = utf8_length(text.substr(i)); length > 0) {
            out += text.substr(i, length);
            i += length;
            continue;
        } else {
            out += "\\ufffd";
        }
        ++i;
    }
}

// "2026-01-02T03:04:05.678Z": what a log is read by knows milliseconds.
std::string to_milliseconds(std::string time) {
    constexpr size_t kMicroseconds = 3;
    time.erase(time.size() - 1 - kMicroseconds, kMicroseconds);
    return time;
}

void append_field(std::string& line, std::string_view name, std::string_view value) {
    if (value.empty()) return;
    line += fmt::format(R"(,"{}":")", name);
    append_escaped(line, value, true);
    line += '"';
}

std::string make_line(bool json, Level level, std::string_view part, std::string_view message,
                      const About& about) {
    const std::string time = to_rfc3339(RealClock().now());
    const std::string_view name = kNames[static_cast<size_t>(level)];
    std::string line;
    line.reserve(message.size() + 96);
    if (json) {
        line += fmt::format(R"({{"time":"{}","level":"{}")", to_milliseconds(time), name);
        append_field(line, "part", part);
        append_field(line, "code", about.code);
        append_field(line, "item", about.item);
        append_field(line, "item_id", about.item_id);
        if (about.job != 0) line += fmt::format(R"(,"job":{})", about.job);
        append_field(line, "appliance", about.appliance);
        append_field(line, "agent", about.agent);
        append_field(line, "message", message);
        line += '}';
    } else {
        line += fmt::format("{} {:<5} ", time, name);
        append_escaped(line, part, false);
        line += ": ";
        append_escaped(line, message, false);
    }
    return line;
}

}  // namespace

Status set_up(const Options& options) {
    std::shared_ptr<spdlog::logger> logger;
    try {
        if (options.file.empty())
            logger = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
        else
            logger = make_logger(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
                options.file, options.max_file_bytes, options.max_files));
    } catch (const spdlog::spdlog_ex& thrown) {
        return fail(Code::kIo, fmt::format("open the log '{}': {}", options.file, thrown.what()));
    }
    std::lock_guard lock(state().mutex);
    state().logger = std::move(logger);
    state().json = options.json;
    state().level = options.level;
    return {};
}

void capture(std::function<void(Level, std::string_view)> sink) {
    std::lock_guard lock(state().mutex);
    state().sink = std::move(sink);
}

Result<Level> level_from_name(std::string_view name) {
    for (size_t i = 0; i < kNames.size(); ++i)
        if (kNames[i] == name) return static_cast<Level>(i);
    return fail(Code::kInvalidArgument, fmt::format("no log level '{}'", name),
                "use debug, info, warn, error or off");
}

Result<bool> json_from_name(std::string_view name) {
    if (name == "json" || name == "text") return name == "json";
    return fail(Code::kInvalidArgument, fmt::format("no log format '{}'", name),
                "use text or json");
}

bool enabled(Level level) {
    return level != Level::kOff && level >= state().level.load(std::memory_order_relaxed);
}

void write(Level level, std::string_view part, std::string_view message, const About& about) {
    if (!enabled(level)) return;
    std::shared_ptr<spdlog::logger> logger;
    std::string line;
    {
        std::lock_guard lock(state().mutex);
        if (!state().logger)
            state().logger = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
        logger = state().logger;
        line = make_line(state().json, level, part, message, about);
        if (state().sink) return state().sink(level, line);
    }
    logger->log(spdlog::level::info, line);
}

bool Limit::admit(int64_t steady_us, uint64_t& left_out) {
    const std::lock_guard lock(mutex_);
    if (lines_ >= kLinesAWindow && (window_us_ == 0 || steady_us - window_us_ >= kWindowUs)) {
        window_us_ = steady_us;
        lines_ = 0;
    }
    if (lines_ >= kLinesAWindow) {
        ++left_out_;
        return false;
    }
    ++lines_;
    left_out = std::exchange(left_out_, 0);
    return true;
}

int64_t Limit::now_us() { return RealClock().steady_us(); }

}  // namespace farshore::log
