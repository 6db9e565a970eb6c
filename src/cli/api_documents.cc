#include "cli/api_documents.h"

#include <fmt/core.h>

#include <algorithm>

#include "cli/format.h"

namespace farshore {

std::string url_encode(std::string_view text) {
    std::string out;
    for (unsigned char c : text) {
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '.' || c == '_' || c == '~')
            out.push_back(static_cast<char>(c));
        else
            out += fmt::format("%{:02X}", c);
    }
    return out;
}

std::string item_target(const std::string& name, std::string_view rest) {
    return fmt::format("/v1/items/{}{}", url_encode(name), rest);
}

std::string text_of(const Json& json, const char* key) {
    if (!json.is_object()) return {};
    const auto at = json.find(key);
    return at != json.end() && at->is_string() ? printable(at->get<std::string>()) : std::string();
}
std::optional<double> number_of(const Json& json, const char* key) {
    if (!json.is_object()) return {};
    const auto at = json.find(key);
    if (at == json.end() || !at->is_number()) return {};
    return at->get<double>();
}
uint64_t count_of(const Json& json, const char* key) {
    if (!json.is_object()) return 0;
    const auto at = json.find(key);
    if (at == json.end() || !at->is_number_integer()) return 0;
    if (at->is_number_unsigned()) return at->get<uint64_t>();
    return 0;
}
const Json& member(const Json& json, const char* key) {
    static const Json none;
    if (!json.is_object()) return none;
    const auto at = json.find(key);
    return at == json.end() ? none : *at;
}

std::string seconds_of(const Json& json, const char* key) {
    const auto value = number_of(json, key);
    return value ? human_seconds(*value) : std::string("-");
}

std::string point_text(const Json& point) {
    if (!point.is_object()) return "none";
    std::string text = human_count(count_of(point, "sequence"));
    if (const std::string time = text_of(point, "time"); !time.empty())
        text += "  " + human_time(time);
    if (const std::string kind = text_of(point, "kind"); !kind.empty()) text += "  " + kind;
    if (const std::string label = text_of(point, "label"); !label.empty())
        text += "  \"" + label + "\"";
    return text;
}

std::string disks_text(const Json& disks) {
    std::string text;
    if (!disks.is_array()) return text;
    for (const Json& disk : disks)
        if (disk.is_number_unsigned())
            text += fmt::format("{}{}", text.empty() ? "" : ", ", disk.get<uint64_t>());
    return text;
}

std::string copy_text(const Json& item) {
    const uint64_t total = count_of(item, "copy_total_bytes");
    if (total == 0) return {};
    const uint64_t done = std::min(count_of(item, "copied_bytes"), total);
    if (done == total) return {};
    return fmt::format("{} of {} at {}/s", human_bytes(done), human_bytes(total),
                       human_bytes(count_of(item, "copy_rate_bytes_per_s")));
}

double copy_fraction(const Json& item) {
    const uint64_t total = count_of(item, "copy_total_bytes");
    return total == 0
               ? 0
               : static_cast<double>(count_of(item, "copied_bytes")) / static_cast<double>(total);
}

bool flag_of(const Json& json, const char* key) {
    const Json& value = member(json, key);
    return value.is_boolean() && value.get<bool>();
}

int64_t eta_of(const Json& json) {
    const auto eta = number_of(json, "eta_s");
    return eta ? static_cast<int64_t>(*eta) : -1;
}

Error error_of_problem(const Json& problem) {
    std::string code = text_of(problem, "code");
    return Error(code_from_name(code), text_of(problem, "detail"), text_of(problem, "remedy"));
}

Json problem_of(const Error& error) {
    Json problem{{"type", fmt::format("urn:farshore:error:{}", code_name(error.code()))},
                 {"code", std::string(code_name(error.code()))},
                 {"detail", error.what()}};
    if (!error.remedy().empty()) problem["remedy"] = error.remedy();
    return problem;
}

}  // namespace farshore
