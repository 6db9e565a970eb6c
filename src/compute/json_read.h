// Reading JSON that QEMU or a file gave us, without ever throwing: what is missing or of another
// type is the given default. For .cc files only.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace farshore {

// The member, or null (a JSON null that lives for ever) when it is missing or `json` is no object.
inline const nlohmann::json& json_at(const nlohmann::json& json, const char* key) {
    static const nlohmann::json null;
    if (!json.is_object()) return null;
    const auto at = json.find(key);
    return at == json.end() ? null : *at;
}
inline std::string json_text(const nlohmann::json& json, const char* key,
                             const std::string& otherwise = {}) {
    const nlohmann::json& value = json_at(json, key);
    return value.is_string() ? value.get<std::string>() : otherwise;
}
inline bool json_bool(const nlohmann::json& json, const char* key, bool otherwise = false) {
    const nlohmann::json& value = json_at(json, key);
    return value.is_boolean() ? value.get<bool>() : otherwise;
}
inline uint64_t json_u64(const nlohmann::json& json, const char* key, uint64_t otherwise = 0) {
    const nlohmann::json& value = json_at(json, key);
    if (value.is_number_unsigned()) return value.get<uint64_t>();
    if (value.is_number_integer() && value.get<int64_t>() >= 0) return value.get<uint64_t>();
    return otherwise;
}
inline int64_t json_i64(const nlohmann::json& json, const char* key, int64_t otherwise = 0) {
    const nlohmann::json& value = json_at(json, key);
    if (value.is_number_unsigned())
        return value.get<uint64_t>() <= uint64_t(std::numeric_limits<int64_t>::max())
                   ? value.get<int64_t>()
                   : otherwise;
    return value.is_number_integer() ? value.get<int64_t>() : otherwise;
}

}  // namespace farshore
