// A configuration file of a server verb without its secrets, for a support bundle.
//
// What may be shown is known by key, not guessed from a value: a key that is not in the table, a
// misspelt one too, has "(not shown)". Pure; any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/config_file.h"
#include "store/store_settings.h"

namespace farshore {

inline constexpr const char* kNotShown = "(not shown)";

// How the value of a key is shown.
enum class Shown : uint8_t {
    kWhole,    // paths, sizes, names, times
    kAddress,  // whole, unless it holds what stands in front of an '@': a user and a password
    kKind,     // up to the first ':', since people write secrets behind it
    kNot,      // only that it is set
};

// kNot when there is no such key.
Shown how_shown(std::string_view key);
// Whether somebody has decided about it (a test asks for every option).
bool is_decided(std::string_view key);

// {key: value}; lists stay lists.
nlohmann::json shown_configuration(const std::vector<ConfigSetting>& settings);
// All but the secrets, and of these whether they are set.
nlohmann::json shown_store_settings(const StoreSettings& settings);

}  // namespace farshore
