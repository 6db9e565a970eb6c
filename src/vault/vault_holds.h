// Legal holds of an item and what a policy would cost it, as the API's documents. For .cc files
// only: it pulls in the JSON library. Any thread; calls block on database and store.
#pragma once

#include <nlohmann/json.hpp>

#include "vault/vault.h"

namespace farshore {

// The errors of ItemReplica::hold() and resolve().
Result<nlohmann::json> place_hold(Vault& vault, const std::string& item, const std::string& point,
                                  const std::string& reason);
Result<nlohmann::json> list_holds(Vault& vault, const std::string& item);
Status release_hold(Vault& vault, const std::string& item, const std::string& id);

// `keep` empty: nothing stays behind the window.
Result<nlohmann::json> cost_of(Vault& vault, const std::string& item, uint32_t window_s,
                               const std::string& keep);

}  // namespace farshore
