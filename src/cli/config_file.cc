#include "cli/config_file.h"

#include <fmt/core.h>

#include <algorithm>

// toml++ 3.3 takes some input that is not TOML ("[=") for a mistake of its own and asserts. Here
// that is an error of the file like any other, whatever the build does with assertions.
namespace farshore {
namespace {
struct NotToml {};
}  // namespace
}  // namespace farshore
#undef NDEBUG
#define TOML_ASSERT(expression) ((expression) ? static_cast<void>(0) : throw ::farshore::NotToml{})
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

namespace farshore {
namespace {

Result<std::string> text_of(const toml::node& node, const std::string& place) {
    const std::string& text = node.as_string()->get();
    // Options are words of a command line: neither can be in one.
    if (text.find('\0') != std::string::npos || text.find('\n') != std::string::npos)
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: a zero byte or a line break in a text", place),
                    "write it on one line");
    return text;
}

Result<ConfigSetting> setting_of(std::string key, const toml::node& node, const std::string& file) {
    ConfigSetting setting;
    setting.key = std::move(key);
    setting.line = node.source().begin.line;
    setting.column = node.source().begin.column;
    const std::string place = config_place(file, setting.line, setting.column);
    if (node.is_string()) {
        FS_ASSIGN(std::string text, text_of(node, place));
        setting.values.push_back(std::move(text));
    } else if (node.is_boolean()) {
        setting.kind = ConfigKind::kBoolean;
        setting.values.emplace_back(node.as_boolean()->get() ? "true" : "false");
    } else if (node.is_integer()) {
        setting.kind = ConfigKind::kInteger;
        const int64_t value = node.as_integer()->get();
        if (value < 0)
            return fail(Code::kInvalidArgument,
                        fmt::format("{}: '{}' is {}, which is below 0", place, setting.key, value));
        setting.values.push_back(std::to_string(value));
    } else if (const toml::array* array = node.as_array()) {
        setting.kind = ConfigKind::kTexts;
        for (const toml::node& one : *array) {
            const std::string where =
                config_place(file, one.source().begin.line, one.source().begin.column);
            if (!one.is_string())
                return fail(Code::kInvalidArgument,
                            fmt::format("{}: '{}' is a list of texts", where, setting.key),
                            "write each of them in quotes");
            FS_ASSIGN(std::string text, text_of(one, where));
            setting.values.push_back(std::move(text));
        }
    } else {
        return fail(Code::kInvalidArgument,
                    fmt::format("{}: '{}' is a {}", place, setting.key,
                                node.is_table() ? "table" : "value of a kind that no option has"),
                    "keys stand alone, one a line: no tables, dates or fractions");
    }
    return setting;
}

// Whether toml++ comes to one of its assertions.
bool asserts(std::string_view text) {
    try {
        (void)toml::parse(text);
    } catch (const NotToml&) {
        return true;
    } catch (const toml::parse_error&) {
        return false;
    }
    return false;
}

// The first line, from 1 on, with which it does: what stands behind changes nothing, so halving
// finds it.
uint32_t asserting_line(std::string_view text) {
    std::vector<size_t> ends;
    for (size_t at = 0; at < text.size();) {
        at = std::min(text.find('\n', at), text.size() - 1) + 1;
        ends.push_back(at);
    }
    const auto line = std::ranges::partition_point(
        ends, [&](size_t end) { return !asserts(text.substr(0, end)); });
    return static_cast<uint32_t>(std::min<size_t>(line - ends.begin() + 1, ends.size()));
}

Result<toml::table> parse_table(std::string_view text, const std::string& file) {
    constexpr const char* kRemedy =
        "correct it there; docs/operations/configuration.md has the keys";
    try {
        return toml::parse(text);
    } catch (const toml::parse_error& error) {
        return fail(
            Code::kMalformed,
            fmt::format("{}: {}",
                        config_place(file, error.source().begin.line, error.source().begin.column),
                        error.description()),
            kRemedy);
    } catch (const NotToml&) {
        return fail(
            Code::kMalformed,
            fmt::format("{}: this is not TOML", config_place(file, asserting_line(text), 1)),
            kRemedy);
    }
}

}  // namespace

std::string config_place(const std::string& file, uint32_t line, uint32_t column) {
    return fmt::format("{}:{}:{}", file, line, column);
}

Result<std::vector<ConfigSetting>> parse_config(std::string_view text, const std::string& file) {
    if (text.size() > kMaxConfigBytes)
        return fail(Code::kTooLarge, fmt::format("{}:1:1: {} bytes of configuration, at most {}",
                                                 file, text.size(), kMaxConfigBytes));
    FS_ASSIGN(const toml::table parsed, parse_table(text, file));
    std::vector<ConfigSetting> settings;
    for (const auto& [key, node] : parsed) {
        FS_ASSIGN(ConfigSetting setting, setting_of(std::string(key.str()), node, file));
        settings.push_back(std::move(setting));
    }
    std::ranges::sort(settings, [](const ConfigSetting& a, const ConfigSetting& b) {
        return std::pair(a.line, a.column) < std::pair(b.line, b.column);
    });
    return settings;
}

}  // namespace farshore
