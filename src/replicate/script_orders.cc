#include "replicate/script_orders.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 4> kStates{"ready", "running", "ended", "failed"};
constexpr size_t kMaxHandleBytes = 64;
constexpr size_t kMaxWords = 64;  // arguments, variables
constexpr size_t kMaxWordBytes = 4096;
constexpr size_t kMaxErrorBytes = 1024;
constexpr uint64_t kMaxLimitS = 7 * 86'400;

tl::unexpected<Error> malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("a script's document: {}", what));
}

Result<std::string> text_member(const json& document, const char* name, size_t limit) {
    const auto found = document.find(name);
    if (found == document.end() || !found->is_string())
        return malformed(fmt::format("'{}' must be a text", name));
    const auto& text = found->get_ref<const std::string&>();
    if (text.size() > limit)
        return fail(Code::kTooLarge, fmt::format("a script's document: '{}' is too long", name));
    return text;
}

bool flag_member(const json& document, const char* name) {
    const auto found = document.find(name);
    return found != document.end() && found->is_boolean() && found->get<bool>();
}

// Neither an argument nor a variable can hold a NUL, and a name ends at the first '='.
bool is_word(const std::string& text) {
    return text.size() <= kMaxWordBytes && text.find('\0') == text.npos;
}

Result<std::string> handle_of(const json& document) {
    if (!document.is_object()) return malformed("no JSON object");
    FS_ASSIGN(std::string handle, text_member(document, "handle", kMaxHandleBytes));
    // It becomes the name of a directory.
    if (!is_script_handle(handle)) return malformed("'handle' must be of a-z, 0-9 and -");
    return handle;
}

}  // namespace

json script_order_json(const ScriptOrder& order) {
    json environment = json::object();
    for (const auto& [name, value] : order.environment) environment[name] = value;
    return {{"handle", order.handle},
            {"program", order.program},
            {"arguments", order.arguments},
            {"environment", std::move(environment)},
            {"limit_s", order.limit_s},
            {"go", order.go},
            {"end", order.end}};
}

Result<ScriptOrder> script_order_of(const json& document) {
    ScriptOrder order;
    FS_ASSIGN(order.handle, handle_of(document));
    FS_ASSIGN(order.program, text_member(document, "program", kMaxScriptNameBytes));
    FS_TRY(check_script_name(order.program));
    const auto arguments = document.find("arguments");
    if (arguments != document.end()) {
        if (!arguments->is_array() || arguments->size() > kMaxWords)
            return malformed("'arguments' is no short list");
        for (const json& one : *arguments) {
            if (!one.is_string() || !is_word(one.get_ref<const std::string&>()))
                return malformed("an argument is no text that can be one");
            order.arguments.push_back(one.get<std::string>());
        }
    }
    const auto environment = document.find("environment");
    if (environment != document.end()) {
        if (!environment->is_object() || environment->size() > kMaxWords)
            return malformed("'environment' is no short object");
        for (const auto& [name, value] : environment->items()) {
            // No other names: PATH or LD_PRELOAD would be more than a word about the step.
            if (!name.starts_with("FARSHORE_") || !is_word(name) ||
                name.find('=') != std::string::npos || !value.is_string() ||
                !is_word(value.get_ref<const std::string&>()))
                return malformed("a variable is none of ours");
            order.environment.emplace_back(name, value.get<std::string>());
        }
    }
    const auto limit = document.find("limit_s");
    if (limit == document.end() || !limit->is_number_unsigned() ||
        limit->get<uint64_t>() - 1 >= kMaxLimitS)
        return malformed("'limit_s' must be a number of seconds");
    order.limit_s = limit->get<uint32_t>();
    order.go = flag_member(document, "go");
    order.end = flag_member(document, "end");
    return order;
}

json script_word_json(const ScriptWord& word) {
    json document{{"handle", word.handle},
                  {"state", std::string(kStates.at(static_cast<size_t>(word.state)))}};
    if (word.state == ScriptState::kEnded) {
        if (word.code) document["exit_code"] = *word.code;
        document["output"] = plain_text(word.output);
    }
    if (word.error) {
        document["code"] = code_name(word.error->code());
        document["what"] = plain_text(word.error->what()).substr(0, kMaxErrorBytes);
        document["remedy"] = plain_text(word.error->remedy()).substr(0, kMaxErrorBytes);
    }
    return document;
}

Result<ScriptWord> script_word_of(const json& document) {
    ScriptWord word;
    FS_ASSIGN(word.handle, handle_of(document));
    FS_ASSIGN(const std::string state, text_member(document, "state", 16));
    const auto known = std::ranges::find(kStates, state);
    if (known == kStates.end()) return malformed("'state' is none");
    word.state = static_cast<ScriptState>(known - kStates.begin());
    if (word.state == ScriptState::kEnded) {
        if (const auto code = document.find("exit_code"); code != document.end()) {
            if (!code->is_number_integer() || code->get<int64_t>() < 0 ||
                code->get<int64_t>() > 255)
                return malformed("'exit_code' must be 0 to 255");
            word.code = code->get<int>();
        }
        // Replaced bytes make it longer.
        FS_ASSIGN(const std::string output,
                  text_member(document, "output", 4 * kMaxOrderedOutputBytes));
        word.output = plain_text(output);
    }
    if (word.state == ScriptState::kFailed) {
        FS_ASSIGN(const std::string code, text_member(document, "code", 64));
        FS_ASSIGN(const std::string what, text_member(document, "what", 4 * kMaxErrorBytes));
        FS_ASSIGN(const std::string remedy, text_member(document, "remedy", 4 * kMaxErrorBytes));
        word.error = Error(code_from_name(code), plain_text(what), plain_text(remedy));
    }
    return word;
}

}  // namespace farshore
