// Which rows of a list are asked for, out of a request's query. For api*.cc only.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

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
    std::string state, health, agent, appliance, policy, prefix, site;

    bool matches(const ItemReport& report) const {
        const ItemRecord& item = report.record;
        const std::string_view follows =
            item.policy_name.empty() ? std::string_view("custom") : item.policy_name;
        return item.name.starts_with(prefix) && (policy.empty() || policy == follows) &&
               (state.empty() || state == item_state_name(item.state)) &&
               (agent.empty() || agent == item.agent) && (site.empty() || site == report.site) &&
               (health.empty() || health == health_name(report.troubles)) &&
               (appliance.empty() || (report.replica && report.replica->appliance == appliance));
    }
};

template <typename CallType>
Result<ItemFilter> item_filter(const CallType& call) {
    ItemFilter filter{call.query("state"),     call.query("health"), call.query("agent"),
                      call.query("appliance"), call.query("policy"), call.query("prefix"),
                      call.query("site")};
    FS_TRY(one_of("health", filter.health, {"normal", "warning", "critical"}));
    if (!filter.state.empty()) FS_TRY(item_state_from_name(filter.state));
    return filter;
}

}  // namespace farshore
