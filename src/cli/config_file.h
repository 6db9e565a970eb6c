// The configuration of a server verb in TOML: `--config FILE`.
//
//     listen = "0.0.0.0:8443"
//     spool-mib = 16384
//     take-over = true
//     server-name = ["vault.example.org", "192.0.2.7"]
//
// One flat table whose keys are the names of the verb's long options. What a key may hold, and
// which there are, is the options' own business (cli/config_arguments.h): here is only the syntax.
// Source: TOML 1.0 (toml.io), read by toml++.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxConfigBytes = 256u << 10;

enum class ConfigKind : uint8_t { kText, kInteger, kBoolean, kTexts };

struct ConfigSetting {
    std::string key;
    ConfigKind kind = ConfigKind::kText;
    // As an option would have it: "true"/"false", decimal digits, or the text; several only of
    // kTexts.
    std::vector<std::string> values;
    // Where its value begins, from 1 on.
    uint32_t line = 0;
    uint32_t column = 0;
};

// In the order of the file. `file` is for errors, which all begin with FILE:LINE:COLUMN:
// kMalformed (not TOML, or a key twice), kInvalidArgument (a table, a date, a fraction, a number
// below 0, a text with a zero byte or a line break), kTooLarge. Any thread.
Result<std::vector<ConfigSetting>> parse_config(std::string_view text, const std::string& file);

// "FILE:LINE:COLUMN".
std::string config_place(const std::string& file, uint32_t line, uint32_t column);

}  // namespace farshore
