// Reading JSON from outside: every fetch names the path of what is wrong, nothing throws, unknown
// fields are ignored (a newer peer may send more) and a missing field takes the given default.
//
// For .cc files only: it pulls in the whole JSON library.
#pragma once

#include <fmt/core.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore {

using Json = nlohmann::json;

// Text that is not UTF-8 is replaced, never thrown over: names come from outside.
inline std::string dump_json(const Json& json, int indent = -1) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// kTooLarge above `limit_bytes`, kMalformed when it is not JSON.
inline Result<Json> parse_json(std::string_view text, std::string_view what, size_t limit_bytes) {
    if (text.size() > limit_bytes)
        return fail(Code::kTooLarge, fmt::format("{} has {} bytes, at most {} are allowed", what,
                                                 text.size(), limit_bytes));
    Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded())
        return fail(Code::kMalformed, fmt::format("{} is not valid JSON", what));
    return json;
}

// A JSON object that was given to us, with the path that led to it. Borrows the object.
class JsonFields {
  public:
    // kMalformed when `json` is not an object.
    static Result<JsonFields> of(const Json& json, std::string path) {
        if (!json.is_object())
            return fail(Code::kMalformed, fmt::format("{} must be an object", path));
        return JsonFields(json, std::move(path));
    }

    const std::string& path() const { return path_; }
    bool has(const char* key) const {
        const auto at = json_->find(key);
        return at != json_->end() && !at->is_null();
    }

    Result<std::string> text(const char* key, size_t limit, std::string otherwise = {}) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_string()) return wrong(key, "must be text");
        const auto& text = value->get_ref<const std::string&>();
        if (text.size() > limit)
            return fail(Code::kTooLarge, fmt::format("{}.{} has {} bytes, at most {} are allowed",
                                                     path_, key, text.size(), limit));
        if (text.find('\0') != text.npos) return wrong(key, "must not hold a null character");
        return text;
    }
    Result<std::string> required_text(const char* key, size_t limit) const {
        if (!has(key)) return wrong(key, "is missing");
        FS_ASSIGN(std::string text, this->text(key, limit));
        if (text.empty()) return wrong(key, "must not be empty");
        return text;
    }
    Result<uint64_t> u64(const char* key, uint64_t otherwise = 0,
                         uint64_t limit = std::numeric_limits<uint64_t>::max()) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_number_integer() ||
            (!value->is_number_unsigned() && value->get<int64_t>() < 0))
            return wrong(key, "must be a whole number, not negative");
        const auto number = value->get<uint64_t>();
        if (number > limit) return wrong(key, fmt::format("must be at most {}", limit));
        return number;
    }
    Result<int64_t> i64(const char* key, int64_t otherwise = 0) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_number_integer() ||
            (value->is_number_unsigned() &&
             value->get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max())))
            return wrong(key, "must be a whole number");
        return value->get<int64_t>();
    }
    Result<bool> boolean(const char* key, bool otherwise = false) const {
        const Json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) return wrong(key, "must be true or false");
        return value->get<bool>();
    }
    // The array, or null when it is missing.
    Result<const Json*> array(const char* key, size_t limit) const {
        const Json* value = find(key);
        if (value == nullptr) return nullptr;
        if (!value->is_array()) return wrong(key, "must be a list");
        if (value->size() > limit)
            return fail(Code::kTooLarge, fmt::format("{}.{} has {} entries, at most {} are allowed",
                                                     path_, key, value->size(), limit));
        return value;
    }
    // The value as it is, or null when it is missing.
    const Json* find(const char* key) const {
        const auto at = json_->find(key);
        return at == json_->end() || at->is_null() ? nullptr : &*at;
    }
    tl::unexpected<Error> wrong(const char* key, std::string_view how) const {
        return fail(Code::kMalformed, fmt::format("{}.{} {}", path_, key, how));
    }

  private:
    JsonFields(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}
    const Json* json_;
    std::string path_;
};

}  // namespace farshore
