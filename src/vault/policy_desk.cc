#include "vault/policy_desk.h"

#include <fmt/core.h>

#include <algorithm>

#include "meta/items.h"
#include "meta/json_fields.h"
#include "vault/policy.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

PolicyCheck check_for(Vault& vault) {
    return [zone = vault.info().time_zone](const ItemRecord& item,
                                           const ItemPolicy& values) -> Status {
        const Status checked = check_policy(values, zone);
        return checked ? checked
                       : fail(checked.error().with_context(fmt::format("item '{}'", item.name)));
    };
}

Json changed_values(const ItemPolicy& before, const ItemPolicy& after) {
    const Json old_values = policy_view(before), new_values = policy_view(after);
    Json changed = Json::object();
    for (const auto& [name, value] : new_values.items())
        if (old_values[name] != value) changed[name] = {{"old", old_values[name]}, {"new", value}};
    return changed;
}

Json trouble_view(const Trouble& trouble) {
    return {{"code", trouble.code},
            {"severity", std::string(severity_name(trouble.severity))},
            {"cause", trouble.cause}};
}

// Alarms that the values would raise, or end, at once: of what a policy has a say in.
void show_alarms(const ItemReport& report, const ItemPolicy& values, Json& json) {
    HealthInputs health;
    health.state = report.record.state;
    health.agent = report.record.agent;
    health.rpo_us = report.rpo_us;
    const auto troubles = [&](const ItemPolicy& of) {
        health.rpo_threshold_us = int64_t{of.rpo_threshold_s} * 1'000'000;
        std::vector<Trouble> found = item_troubles(health);
        std::erase_if(found, [](const Trouble& one) { return one.code != "rpo-high"; });
        return found;
    };
    const auto before = troubles(report.record.policy), after = troubles(values);
    json["alarms"] = Json::array();
    json["alarms_over"] = Json::array();
    for (const Trouble& one : after)
        if (before.empty() || before.front().severity < one.severity)
            json["alarms"].push_back(trouble_view(one));
    if (after.empty())
        for (const Trouble& one : before) json["alarms_over"].push_back(trouble_view(one));
}

Json problem_of_item(const Error& error) { return problem_view(error); }

Json preview_item(Vault& vault, const ItemRecord& item, const ItemPolicy& values) {
    Json json{{"item", item.name}};
    const auto report = vault.item(item.id.to_string());
    if (!report) {
        json["refused"] = problem_of_item(report.error());
        return json;
    }
    const ItemPolicy& before = report->record.policy;
    json["changed"] = changed_values(before, values);
    if (const Status checked = check_policy(values, vault.info().time_zone); !checked)
        json["refused"] = problem_of_item(checked.error());
    show_alarms(*report, values, json);
    // What the next retention does anyway is not the change's doing: both are told.
    const auto points = vault.preview_retention(item.id, values);
    const auto anyway = vault.preview_retention(item.id, before);
    if (!points || !anyway) {
        json["points_unknown"] = problem_of_item(points ? anyway.error() : points.error());
        return json;
    }
    Json shown{{"dropped", points->dropped}, {"dropped_anyway", anyway->dropped}};
    if (points->oldest.v != 0)
        shown["oldest_stays"] = point_view(points->oldest, points->oldest_time);
    if (points->window_from.us != 0) shown["window_from"] = to_rfc3339(points->window_from);
    json["points"] = std::move(shown);
    if (before.window_s == values.window_s && before.keep == values.keep) return json;
    const auto cost = [&](const ItemPolicy& of) -> Result<RetentionCost> {
        FS_ASSIGN(const RetentionGrid grid, RetentionGrid::parse(of.keep));
        FS_ASSIGN(const auto replica, vault.replica(item.id));
        return replica->cost(int64_t{of.window_s} * 1'000'000, grid);
    };
    const auto cost_before = cost(before), cost_after = cost(values);
    if (cost_before && cost_after && cost_before->seen_us != 0)
        json["bytes_change"] = static_cast<int64_t>(cost_after->total_bytes) -
                               static_cast<int64_t>(cost_before->total_bytes);
    return json;
}

}  // namespace

Result<PolicyRecord> add_policy(Vault& vault, const PolicyRecord& policy) {
    FS_TRY(check_policy(policy.values, vault.info().time_zone));
    FS_ASSIGN(const PolicyRecord made, create_policy(vault.database(), policy));
    vault.event(Severity::kInformation, "policy-created", nullptr,
                fmt::format("the policy '{}' was made", made.name));
    return made;
}

Result<PolicyRecord> edit_policy(Vault& vault, const std::string& name, const ItemPolicy& values) {
    FS_TRY(check_policy(values, vault.info().time_zone));
    std::string words;
    FS_ASSIGN(const PolicyRecord changed,
              change_policy(
                  vault.database(), name,
                  [&](PolicyRecord& policy) -> Status {
                      const Json changed_ones = changed_values(policy.values, values);
                      for (const auto& [member, change] : changed_ones.items())
                          words += fmt::format("{}{} {} -> {}", words.empty() ? "" : ", ", member,
                                               dump_json(change["old"]), dump_json(change["new"]));
                      policy.values = values;
                      return {};
                  },
                  check_for(vault)));
    vault.event(Severity::kInformation, "policy-changed", nullptr,
                fmt::format("the policy '{}', which {} items follow: {}", changed.name,
                            changed.items, words.empty() ? "nothing is different" : words));
    return changed;
}

Status drop_policy(Vault& vault, const std::string& name) {
    FS_TRY(remove_policy(vault.database(), name, [](const PolicyRecord&) { return Status(); }));
    vault.event(Severity::kInformation, "policy-removed", nullptr,
                fmt::format("the policy '{}' was removed", name));
    return {};
}

Result<PolicyRecord> give_policy(Vault& vault, const std::string& name,
                                 const std::vector<ItemRecord>& items) {
    std::vector<ItemId> ids;
    for (const ItemRecord& item : items) ids.push_back(item.id);
    FS_ASSIGN(const PolicyRecord policy,
              assign_policy(vault.database(), name, ids, check_for(vault)));
    for (const ItemRecord& item : items)
        vault.event(Severity::kInformation, "policy-assigned", &item,
                    fmt::format("it follows the policy '{}'", policy.name));
    return policy;
}

Json policy_record_view(const PolicyRecord& policy) {
    Json json{{"name", policy.name},
              {"built_in", policy.name == kDefaultPolicy},
              {"version", policy.version},
              {"etag", tag_of(policy)},
              {"policy", policy_view(policy.values)},
              {"items", policy.items}};
    if (policy.created.us != 0) json["created"] = to_rfc3339(policy.created);
    if (policy.updated.us != 0) json["updated"] = to_rfc3339(policy.updated);
    return json;
}

Result<Json> preview_policy(Vault& vault, const ItemPolicy& values,
                            const std::vector<ItemRecord>& items) {
    FS_TRY(check_policy(values, vault.info().time_zone));
    Json list = Json::array();
    for (size_t i = 0; i < std::min(items.size(), kMaxPreviewedItems); ++i)
        list.push_back(preview_item(vault, items[i], values));
    return Json{{"policy", policy_view(values)},
                {"more", items.size() - list.size()},
                {"items", std::move(list)}};
}

}  // namespace farshore
