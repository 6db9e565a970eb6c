// Named policies (meta/policies.h) with what the vault knows of their items: checked, shown, told
// of, and what a change would do before it is made. docs/operations/policies.md. Any thread may
// call; a preview reads the ledgers of up to kMaxPreviewedItems.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "meta/policies.h"
#include "vault/vault.h"

namespace farshore {

inline constexpr size_t kMaxPreviewedItems = 100;
inline constexpr size_t kMaxAssignedItems = 1000;  // in one request

// kInvalidArgument, kAlreadyExists, kLimitReached.
Result<PolicyRecord> add_policy(Vault& vault, const PolicyRecord& policy);
// The policy and every item that follows it, at once. kNotFound; kUnsupported, kInvalidArgument:
// the values cannot be, or an item that is named cannot have them.
Result<PolicyRecord> edit_policy(Vault& vault, const std::string& name, const ItemPolicy& values);
// kForbidden (built in), kWrongState (followed).
Status drop_policy(Vault& vault, const std::string& name);
// kNotFound, kItemNotFound, kUnsupported (an item that is named cannot have the values).
Result<PolicyRecord> give_policy(Vault& vault, const std::string& name,
                                 const std::vector<ItemRecord>& items);

nlohmann::json policy_record_view(const PolicyRecord& policy);
// What it would do to give `values` to `items`, of which the first kMaxPreviewedItems are looked
// at: what changes, points that go, alarms. Changes nothing.
Result<nlohmann::json> preview_policy(Vault& vault, const ItemPolicy& values,
                                      const std::vector<ItemRecord>& items);

}  // namespace farshore
