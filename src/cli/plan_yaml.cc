#include "cli/plan_yaml.h"

#include <fmt/core.h>
#include <yaml-cpp/yaml.h>

#include <charconv>

#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr int kMaxDepth = 20;
constexpr size_t kMaxNodes = 20'000;  // of what aliases stand for, too

// What a scalar without quotes means.
Json plain_value(const std::string& text) {
    if (text.empty() || text == "~" || text == "null") return nullptr;
    if (text == "true") return true;
    if (text == "false") return false;
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
    return text;
}

tl::unexpected<Error> wrong(const YAML::Mark& mark, const std::string& what) {
    return fail(Code::kMalformed,
                fmt::format("line {}, column {}: {}", mark.line + 1, mark.column + 1, what));
}

Result<Json> convert(const YAML::Node& node, int depth, size_t& nodes) {
    if (depth > kMaxDepth || ++nodes > kMaxNodes)
        return fail(Code::kTooLarge, fmt::format("line {}: the YAML is too deep, or its aliases "
                                                 "make too much of it",
                                                 node.Mark().line + 1));
    switch (node.Type()) {
        case YAML::NodeType::Scalar:
            // "?" without quotes, "!" with them.
            if (node.Tag() == "?" || node.Tag().empty()) return plain_value(node.Scalar());
            if (node.Tag() == "!") return Json(node.Scalar());
            return wrong(node.Mark(),
                         fmt::format("the tag {} means nothing here", node.Tag().substr(0, 64)));
        case YAML::NodeType::Sequence: {
            Json list = Json::array();
            for (const YAML::Node& one : node) {
                FS_ASSIGN(Json value, convert(one, depth + 1, nodes));
                list.push_back(std::move(value));
            }
            return list;
        }
        case YAML::NodeType::Map: {
            Json map = Json::object();
            for (const auto& entry : node) {
                if (!entry.first.IsScalar())
                    return wrong(entry.first.Mark(), "a key must be a text");
                const std::string key = entry.first.Scalar();
                if (map.contains(key))
                    return wrong(entry.first.Mark(),
                                 fmt::format("'{}' is there twice", key.substr(0, 64)));
                FS_ASSIGN(Json value, convert(entry.second, depth + 1, nodes));
                map[key] = std::move(value);
            }
            return map;
        }
        default:
            return Json(nullptr);
    }
}

void emit(YAML::Emitter& out, const Json& json) {
    if (json.is_object()) {
        out << YAML::BeginMap;
        // What a thing is called comes first.
        if (json.contains("name")) {
            out << YAML::Key << "name" << YAML::Value;
            emit(out, json["name"]);
        }
        for (const auto& [key, value] : json.items()) {
            if (key == "name") continue;
            out << YAML::Key << key << YAML::Value;
            emit(out, value);
        }
        out << YAML::EndMap;
    } else if (json.is_array()) {
        if (json.empty()) out << YAML::Flow;
        out << YAML::BeginSeq;
        for (const Json& one : json) emit(out, one);
        out << YAML::EndSeq;
    } else if (json.is_string()) {
        const auto& text = json.get_ref<const std::string&>();
        // What would be something else without quotes, or more than a line.
        const bool quote =
            !plain_value(text).is_string() || text.find_first_of("\n\r\t") != std::string::npos;
        if (quote) out << YAML::DoubleQuoted;
        out << text;
    } else if (json.is_boolean()) {
        out << (json.get<bool>() ? "true" : "false");
    } else if (json.is_null()) {
        out << YAML::Null;
    } else {
        out << json.dump();
    }
}

}  // namespace

Result<Json> json_from_yaml(std::string_view text) {
    if (text.size() > kMaxYamlBytes)
        return fail(Code::kTooLarge, fmt::format("the YAML has {} bytes, at most {} are allowed",
                                                 text.size(), kMaxYamlBytes));
    try {
        const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
        if (documents.size() != 1)
            return fail(Code::kMalformed, fmt::format("there are {} YAML documents instead of one",
                                                      documents.size()));
        size_t nodes = 0;
        return convert(documents.front(), 0, nodes);
    } catch (const YAML::Exception& thrown) {
        return wrong(thrown.mark, thrown.msg);
    } catch (const std::exception& thrown) {
        return fail(Code::kMalformed, fmt::format("this is no YAML: {}", thrown.what()));
    }
}

std::string yaml_from_json(const Json& json) {
    YAML::Emitter out;
    out.SetIndent(2);
    emit(out, json);
    return std::string(out.c_str()) + "\n";
}

}  // namespace farshore
