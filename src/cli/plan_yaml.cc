#include "cli/plan_yaml.h"

#include <fmt/core.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <map>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr size_t kMaxDepth = 20;
// Of what aliases stand for, too.
constexpr size_t kMaxNodes = 20'000;
constexpr size_t kMaxTextBytes = 4 * kMaxYamlBytes;

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

// Thrown through the parser by what is handed its events, and caught around it.
struct Refused {
    Error error;
};

[[noreturn]] void refuse(Code code, const YAML::Mark& mark, const std::string& what) {
    throw Refused{
        Error(code, fmt::format("line {}, column {}: {}", mark.line + 1, mark.column + 1, what))};
}

// Makes JSON of the parser's events, as they come: what is too deep or too much ends the parser
// where it is met, and what an alias stands for is counted again.
class JsonBuilder : public YAML::EventHandler {
  public:
    Json take() { return std::move(root_); }

    void OnDocumentStart(const YAML::Mark& mark) override {
        if (std::exchange(begun_, true))
            refuse(Code::kMalformed, mark, "a second YAML document begins instead of the end");
    }
    void OnDocumentEnd() override {}

    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        if (expects_key()) refuse(Code::kMalformed, mark, "a key must be a text");
        put(mark, anchor, nullptr, {1, 0});
    }

    void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        if (expects_key()) refuse(Code::kMalformed, mark, "a key must be a text");
        const auto known = anchored_.find(anchor);
        if (known == anchored_.end())
            refuse(Code::kMalformed, mark, "an alias must not stand for what it is in");
        // Counted before it is copied.
        count(mark, known->second.size);
        add(Json(known->second.value));
    }

    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& text) override {
        if (expects_key()) {
            Level& map = levels_.back();
            if (map.value.contains(text))
                refuse(Code::kMalformed, mark,
                       fmt::format("'{}' is there twice", text.substr(0, 64)));
            count(mark, {0, text.size()});
            map.key = text;
            return;
        }
        // "?" without quotes, "!" with them.
        if (tag == "?" || tag.empty())
            put(mark, anchor, plain_value(text), {1, text.size()});
        else if (tag == "!")
            put(mark, anchor, text, {1, text.size()});
        else
            refuse(Code::kMalformed, mark,
                   fmt::format("the tag {} means nothing here", tag.substr(0, 64)));
    }

    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        begin(mark, anchor, Json::array());
    }
    void OnSequenceEnd() override { end(); }
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        begin(mark, anchor, Json::object());
    }
    void OnMapEnd() override { end(); }

  private:
    struct Size {
        size_t nodes = 0;
        size_t bytes = 0;  // of texts and keys
    };
    // A list or map that has begun.
    struct Level {
        Json value;
        YAML::anchor_t anchor = YAML::NullAnchor;
        Size before;                     // of the document when it began
        std::optional<std::string> key;  // whose value comes next
    };
    struct Anchored {
        Json value;
        Size size;
    };

    bool expects_key() const {
        return !levels_.empty() && levels_.back().value.is_object() && !levels_.back().key;
    }

    void count(const YAML::Mark& mark, Size more) {
        size_.nodes += more.nodes;
        size_.bytes += more.bytes;
        if (size_.nodes > kMaxNodes || size_.bytes > kMaxTextBytes)
            refuse(Code::kTooLarge, mark, "the YAML, or what its aliases make of it, is too much");
    }

    void put(const YAML::Mark& mark, YAML::anchor_t anchor, Json value, Size size) {
        count(mark, size);
        if (anchor != YAML::NullAnchor) anchored_[anchor] = {value, size};
        add(std::move(value));
    }

    void add(Json value) {
        if (levels_.empty()) {
            root_ = std::move(value);
            return;
        }
        Level& level = levels_.back();
        if (level.value.is_array()) {
            level.value.push_back(std::move(value));
        } else {
            level.value[*level.key] = std::move(value);
            level.key.reset();
        }
    }

    void begin(const YAML::Mark& mark, YAML::anchor_t anchor, Json value) {
        if (expects_key()) refuse(Code::kMalformed, mark, "a key must be a text");
        if (levels_.size() >= kMaxDepth) refuse(Code::kTooLarge, mark, "the YAML is too deep");
        const Size before = size_;
        count(mark, {1, 0});
        levels_.push_back({std::move(value), anchor, before, {}});
    }

    void end() {
        Level level = std::move(levels_.back());
        levels_.pop_back();
        if (level.anchor != YAML::NullAnchor)
            anchored_[level.anchor] = {
                level.value, {size_.nodes - level.before.nodes, size_.bytes - level.before.bytes}};
        add(std::move(level.value));
    }

    bool begun_ = false;
    Json root_;
    std::vector<Level> levels_;
    std::map<YAML::anchor_t, Anchored> anchored_;
    Size size_;
};

void emit_text(YAML::Emitter& out, const std::string& text) {
    // What would be something else without quotes, or more than a line. The library writes the
    // marks of a document's begin and end as they are.
    const bool quote = !plain_value(text).is_string() ||
                       text.find_first_of("\n\r\t") != std::string::npos ||
                       text.starts_with("---") || text.starts_with("...");
    if (quote) out << YAML::DoubleQuoted;
    out << text;
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
            out << YAML::Key;
            emit_text(out, key);
            out << YAML::Value;
            emit(out, value);
        }
        out << YAML::EndMap;
    } else if (json.is_array()) {
        if (json.empty()) out << YAML::Flow;
        out << YAML::BeginSeq;
        for (const Json& one : json) emit(out, one);
        out << YAML::EndSeq;
    } else if (json.is_string()) {
        emit_text(out, json.get_ref<const std::string&>());
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
    // Else the library guesses UTF-16 or UTF-32.
    int line = 1;
    for (const char c : text) {
        line += c == '\n';
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t')
            return fail(
                Code::kMalformed,
                fmt::format("line {}: there is a control character; YAML is UTF-8 text", line));
    }
    try {
        Json(text).dump();  // throws of what is no UTF-8
        std::istringstream stream{std::string(text)};
        YAML::Parser parser(stream);
        JsonBuilder builder;
        if (!parser.HandleNextDocument(builder))
            return fail(Code::kMalformed, "there is no YAML document");
        // yaml-cpp 0.7 takes a lone ',' for document after document, without an end: the second is
        // refused, not collected.
        parser.HandleNextDocument(builder);
        return builder.take();
    } catch (const Refused& refused) {
        return tl::unexpected(refused.error);
    } catch (const YAML::Exception& thrown) {
        return fail(Code::kMalformed, fmt::format("line {}, column {}: {}", thrown.mark.line + 1,
                                                  thrown.mark.column + 1, thrown.msg));
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
