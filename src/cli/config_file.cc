#include "cli/config_file.h"

#include <fmt/core.h>

#include <algorithm>

// Errors come back as values.
#define TOML_EXCEPTIONS 0
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

}  // namespace

std::string config_place(const std::string& file, uint32_t line, uint32_t column) {
    return fmt::format("{}:{}:{}", file, line, column);
}

Result<std::vector<ConfigSetting>> parse_config(std::string_view text, const std::string& file) {
    if (text.size() > kMaxConfigBytes)
        return fail(Code::kTooLarge, fmt::format("{}:1:1: {} bytes of configuration, at most {}",
                                                 file, text.size(), kMaxConfigBytes));
    const toml::parse_result parsed = toml::parse(text);
    if (!parsed)
        return fail(Code::kMalformed,
                    fmt::format("{}: {}",
                                config_place(file, parsed.error().source().begin.line,
                                             parsed.error().source().begin.column),
                                parsed.error().description()),
                    "correct it there; docs/operations/configuration.md has the keys");
    std::vector<ConfigSetting> settings;
    for (const auto& [key, node] : parsed.table()) {
        FS_ASSIGN(ConfigSetting setting, setting_of(std::string(key.str()), node, file));
        settings.push_back(std::move(setting));
    }
    std::ranges::sort(settings, [](const ConfigSetting& a, const ConfigSetting& b) {
        return std::pair(a.line, a.column) < std::pair(b.line, b.column);
    });
    return settings;
}

}  // namespace farshore
