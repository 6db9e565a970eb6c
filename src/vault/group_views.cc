#include "vault/group_views.h"

#include <algorithm>

#include "vault/views.h"

namespace farshore {

using Json = nlohmann::json;

std::string_view shared_kind_name(PointKind kind) {
    return kind == PointKind::kApplication ? "application" : "crash";
}

Json group_view(const GroupRecord& group, const std::optional<ItemError>& trouble) {
    Json members = Json::array();
    for (const GroupMember& member : group.members)
        members.push_back({{"item", member.item_name},
                           {"id", member.item.to_string()},
                           {"joined", to_rfc3339(member.joined)}});
    Json json{{"name", group.name},
              {"crash_interval_s", group.crash_interval_s},
              {"application_interval_s", group.application_interval_s},
              {"created", to_rfc3339(group.created)},
              {"updated", to_rfc3339(group.updated)},
              {"health", trouble ? "warning" : "normal"},
              {"members", std::move(members)}};
    if (trouble) json["error"] = problem_view(*trouble);
    return json;
}

Json shared_point_view(const SharedPointRecord& point) {
    Json members = Json::array();
    for (const SharedPointMember& member : point.members) {
        Json json{{"id", member.item.to_string()}};
        if (member.sequence.v != 0) json["point"] = point_view(member.sequence, member.time);
        members.push_back(std::move(json));
    }
    Json json{{"id", point.id},
              {"number", point.number},
              {"group", point.group},
              {"kind", std::string(shared_kind_name(point.kind))},
              {"label", point.label},
              {"by_policy", point.by_policy},
              {"state", std::string(shared_point_state_name(point.state))},
              {"asked", to_rfc3339(point.asked)},
              {"members", std::move(members)}};
    if (point.made.us != 0) json["made"] = to_rfc3339(point.made);
    if (point.barrier_us != 0) json["barrier_us"] = point.barrier_us;
    if (point.error) json["error"] = problem_view(*point.error);
    return json;
}

Status mark_shared_points(Database& database, const ItemId& item, Json& points) {
    if (points.empty()) return {};
    Sequence from{UINT64_MAX}, to;
    for (const Json& point : points) {
        const Sequence at{point["sequence"].get<uint64_t>()};
        from = std::min(from, at);
        to = std::max(to, at);
    }
    FS_ASSIGN(const auto shared, shared_points_of(database, item, from, to));
    for (const ItemSharedPoint& one : shared)
        for (Json& point : points)
            if (point["sequence"].get<uint64_t>() == one.sequence.v)
                point["shared"] = {{"group", one.group},
                                   {"id", one.id},
                                   {"kind", std::string(shared_kind_name(one.kind))},
                                   {"state", std::string(shared_point_state_name(one.state))}};
    return {};
}

}  // namespace farshore
