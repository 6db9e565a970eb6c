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

    // The database has answered the query, but does not know of health.
    bool matches(const ItemReport& report) const {
        return health.empty() || health == health_name(report.troubles);
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
