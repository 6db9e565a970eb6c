// The log of a program: one line an event, to standard error or a file, as text or JSON.
//
//     log::warn("tap", "disk {} answers slowly: {} ms", disk, ms);
//     log::warn("vault", {.item = name, .job = id}, "it failed: {}", why);
//
// The second form also says whose event it is, for programs: fields of a JSON line. They are handed
// over with each line, never kept by a thread: work moves between threads. What a person is to read
// stands in the words, too.
//
// Any thread. Before set_up() lines of info and above go to standard error as text. Control
// characters are escaped, so an event stays one line whatever a peer put into it. Secrets and
// payload cannot be formatted. A line that cannot be written is lost: the log never stops the work.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore::log {

enum class Level : uint8_t { kDebug, kInfo, kWarn, kError, kOff };

struct Options {
    Level level = Level::kInfo;
    bool json = false;                    // docs/operations/logs.md
    std::string file;                     // empty: standard error
    uint64_t max_file_bytes = 64u << 20;  // then FILE.1 and so on
    unsigned max_files = 5;
};

// Whose event a line is; what is empty, or 0, is left out.
struct About {
    std::string item, item_id;  // its name; its id in hexadecimal
    uint64_t job = 0;
    std::string appliance, agent;  // their names
    std::string_view code;         // of an error or an event; lives until the line is written
};

// Replaces what was set up before.
Status set_up(const Options& options);
// Hands each line to `sink` instead, in tests. Empty: back to what was set up.
void capture(std::function<void(Level, std::string_view line)> sink);

// "debug", "info", "warn", "error", "off"; kInvalidArgument.
Result<Level> level_from_name(std::string_view name);
// Whether it is "json" and not "text"; kInvalidArgument.
Result<bool> json_from_name(std::string_view name);

bool enabled(Level level);
void write(Level level, std::string_view part, std::string_view message, const About& about = {});

template <typename... Args>
void debug(std::string_view part, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kDebug))
        write(Level::kDebug, part, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(std::string_view part, const About& about, fmt::format_string<Args...> format,
           Args&&... args) {
    if (enabled(Level::kDebug))
        write(Level::kDebug, part, fmt::format(format, std::forward<Args>(args)...), about);
}
template <typename... Args>
void info(std::string_view part, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kInfo))
        write(Level::kInfo, part, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(std::string_view part, const About& about, fmt::format_string<Args...> format,
          Args&&... args) {
    if (enabled(Level::kInfo))
        write(Level::kInfo, part, fmt::format(format, std::forward<Args>(args)...), about);
}
template <typename... Args>
void warn(std::string_view part, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kWarn))
        write(Level::kWarn, part, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(std::string_view part, const About& about, fmt::format_string<Args...> format,
          Args&&... args) {
    if (enabled(Level::kWarn))
        write(Level::kWarn, part, fmt::format(format, std::forward<Args>(args)...), about);
}
template <typename... Args>
void error(std::string_view part, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kError))
        write(Level::kError, part, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(std::string_view part, const About& about, fmt::format_string<Args...> format,
           Args&&... args) {
    if (enabled(Level::kError))
        write(Level::kError, part, fmt::format(format, std::forward<Args>(args)...), about);
}

// For lines that a stranger can cause as often as he likes: of each window only the first few are
// written, the others are counted, and the next line that is written says how many there were. Any
// thread; owned by whoever writes such lines.
class Limit {
  public:
    static constexpr unsigned kLinesAWindow = 5;
    static constexpr int64_t kWindowUs = 10'000'000;

    template <typename... Args>
    void warn(std::string_view part, fmt::format_string<Args...> format, Args&&... args) {
        uint64_t left_out = 0;
        if (!enabled(Level::kWarn) || !admit(now_us(), left_out)) return;
        std::string line = fmt::format(format, std::forward<Args>(args)...);
        if (left_out != 0) line += fmt::format(" ({} such lines were left out)", left_out);
        write(Level::kWarn, part, line);
    }
    // Whether a line may be written now; `left_out`: how many were not since the last one.
    bool admit(int64_t steady_us, uint64_t& left_out);

  private:
    static int64_t now_us();
    std::mutex mutex_;
    int64_t window_us_ = 0;
    unsigned lines_ = kLinesAWindow;
    uint64_t left_out_ = 0;
};

}  // namespace farshore::log
