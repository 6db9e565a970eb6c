// Which rows of a list are asked for, out of a request's query. For api*.cc only.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "meta/items.h"
#include "vault/vault.h"

namespace farshore {

// kInvalidArgument: `value` is said, and none of `known`.
inline Status one_of(std::string_view name, std::string_view value,
                     std::initializer_list<std::string_view> known) {
    if (value.empty() || std::ranges::find(known, value) != known.end()) return {};
    std::string all;
    for (const std::string_view one : known)
        all += fmt::format("{}{}", all.empty() ? "" : ", ", one);
    return fail(Code::kInvalidArgument, fmt::format("{} must be one of {}", name, all));
}

// Empty: any.
struct ItemFilter {
    ItemQuery query;
    std::string health;

    // What the database says of the query is looked at again.
    bool matches(const ItemReport& report) const {
        const ItemRecord& item = report.record;
        const std::string_view follows =
            item.policy_name.empty() ? std::string_view("custom") : item.policy_name;
        return item.name.starts_with(query.prefix) &&
               (query.policy.empty() || query.policy == follows) &&
               (query.state.empty() || query.state == item_state_name(item.state)) &&
               (query.agent.empty() || query.agent == item.agent) &&
               (query.site.empty() || query.site == report.site) &&
               (health.empty() || health == health_name(report.troubles)) &&
               (query.appliance.empty() ||
                (report.replica && report.replica->appliance == query.appliance));
    }
};

template <typename CallType>
Result<ItemFilter> item_filter(const CallType& call) {
    const ItemFilter filter{{.state = call.query("state"),
                             .agent = call.query("agent"),
                             .prefix = call.query("prefix"),
                             .policy = call.query("policy"),
                             .appliance = call.query("appliance"),
                             .site = call.query("site")},
                            call.query("health")};
    FS_TRY(one_of("health", filter.health, {"normal", "warning", "critical"}));
    if (!filter.query.state.empty()) FS_TRY(item_state_from_name(filter.query.state));
    return filter;
}

}  // namespace farshore
