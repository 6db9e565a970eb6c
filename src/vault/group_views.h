// Replication groups and shared points as the API's documents. For .cc files only: it pulls in the
// JSON library. Any thread.
#pragma once

#include <nlohmann/json.hpp>

#include "meta/groups.h"

namespace farshore {

// "crash" or "application": the kind of a shared point, in people's words.
std::string_view shared_kind_name(PointKind kind);

// `trouble`: why the newest point of the policy was not made.
nlohmann::json group_view(const GroupRecord& group, const std::optional<ItemError>& trouble);
nlohmann::json shared_point_view(const SharedPointRecord& point);
// Says of each of an item's points (as the API shows them) which shared point it is a part of.
Status mark_shared_points(Database& database, const ItemId& item, nlohmann::json& points);

}  // namespace farshore
