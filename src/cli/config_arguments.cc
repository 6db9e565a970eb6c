#include "cli/config_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "cli/config_file.h"

namespace farshore {
namespace {

enum class OptionKind : uint8_t { kFlag, kNumber, kText, kTexts };

OptionKind kind_of(const CLI::Option& option) {
    if (option.get_items_expected_max() == 0) return OptionKind::kFlag;
    if (option.get_items_expected_max() > 1) return OptionKind::kTexts;
    // CLI11 names the type of an unsigned integer so, with its bounds behind it.
    return option.get_type_name().starts_with("UINT") ? OptionKind::kNumber : OptionKind::kText;
}

const char* words_for(OptionKind kind) {
    switch (kind) {
        case OptionKind::kFlag:
            return "true or false";
        case OptionKind::kNumber:
            return "a whole number, without quotes";
        case OptionKind::kText:
            return "a text, in quotes";
        case OptionKind::kTexts:
            return "a list of texts, [\"a\", \"b\"]";
    }
    return "";
}

bool fits(OptionKind option, ConfigKind value) {
    switch (option) {
        case OptionKind::kFlag:
            return value == ConfigKind::kBoolean;
        case OptionKind::kNumber:
            return value == ConfigKind::kInteger;
        case OptionKind::kText:
            return value == ConfigKind::kText;
        case OptionKind::kTexts:
            return value == ConfigKind::kTexts || value == ConfigKind::kText;
    }
    return false;
}

const CLI::Option* find_option(const std::vector<const CLI::Option*>& options,
                               const std::string& key) {
    const auto found = std::ranges::find_if(
        options, [&](const CLI::Option* option) { return option->check_lname(key); });
    return found == options.end() ? nullptr : *found;
}

// Whether the option takes these words; what it says when it does not.
Status accepts(CLI::Option& option, const ConfigSetting& setting, const std::string& place) {
    try {
        option.clear();
        for (const std::string& value : setting.values) option.add_result(value);
        option.run_callback();
    } catch (const CLI::ParseError& refused) {
        option.clear();
        std::string why = refused.what();
        // CLI11 begins with the option's name, which stands in the error already.
        const std::string prefix = "--" + setting.key + ": ";
        if (why.starts_with(prefix)) why.erase(0, prefix.size());
        return fail(Code::kInvalidArgument, fmt::format("{}: '{}': {}", place, setting.key, why),
                    fmt::format("--{}: {}", setting.key, option.get_description()));
    }
    option.clear();
    return {};
}

bool named(const std::vector<std::string>& words, const std::string& option) {
    return std::ranges::any_of(words, [&](const std::string& word) {
        return word == option || word.starts_with(option + "=");
    });
}

bool excluded(const CLI::Option& option, const std::vector<std::string>& words) {
    return std::ranges::any_of(option.get_excludes(), [&](const CLI::Option* other) {
        return !other->get_lnames().empty() && named(words, "--" + other->get_lnames().front());
    });
}

}  // namespace

std::vector<const CLI::Option*> config_options(const CLI::App& app) {
    std::vector<const CLI::Option*> options;
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        if (std::ranges::find(kNoConfigKeys, name) == std::end(kNoConfigKeys))
            options.push_back(option);
    }
    return options;
}

Result<std::vector<std::string>> config_arguments(CLI::App& app, std::string_view text,
                                                  const std::string& file,
                                                  const std::vector<std::string>& given) {
    FS_ASSIGN(const std::vector<ConfigSetting> settings, parse_config(text, file));
    const CLI::App& fixed = app;
    const std::vector<const CLI::Option*> options = config_options(fixed);
    std::vector<std::string> words;
    for (const ConfigSetting& setting : settings) {
        const std::string place = config_place(file, setting.line, setting.column);
        const CLI::Option* option = find_option(options, setting.key);
        if (option == nullptr)
            return fail(Code::kInvalidArgument,
                        fmt::format("{}: there is no key '{}'", place, setting.key),
                        "keys are the names of the verb's long options, which --help lists");
        const OptionKind kind = kind_of(*option);
        if (!fits(kind, setting.kind))
            return fail(Code::kInvalidArgument,
                        fmt::format("{}: '{}' has a value of another kind", place, setting.key),
                        fmt::format("write {}", words_for(kind)));
        const std::string name = "--" + setting.key;
        const bool empty = kind == OptionKind::kText && setting.values.front().empty();
        if (empty || (kind == OptionKind::kFlag && setting.values.front() == "false")) continue;
        FS_TRY(accepts(*app.get_option(name), setting, place));
        if (named(given, name) || excluded(*option, given)) continue;
        if (kind == OptionKind::kFlag) {
            words.push_back(name);
            continue;
        }
        for (const std::string& value : setting.values) words.push_back(name + "=" + value);
    }
    return words;
}

}  // namespace farshore
