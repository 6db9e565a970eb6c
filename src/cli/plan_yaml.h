// Recovery plans as YAML files: what people write and keep beside their other configuration. Only
// what JSON can say: maps with text keys, lists, texts, whole numbers, true, false, null.
// For .cc files only: it pulls in the JSON library.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxYamlBytes = 256u << 10;

// One document. kMalformed with line and column, kTooLarge (bytes, depth, or what aliases make of
// it).
Result<nlohmann::json> json_from_yaml(std::string_view text);
// json_from_yaml() gives the same back.
std::string yaml_from_json(const nlohmann::json& json);

}  // namespace farshore
