// How many jobs of one vault run at once; each has a thread.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "meta/records.h"

namespace farshore {

inline constexpr size_t kMaxRunningJobs = 64;

// That only the vault node that began it can go on with; others can go on anywhere.
inline bool is_of_another_node(const JobRecord& job, const std::string& node) {
    static constexpr std::array<std::string_view, 10> kBound{
        "failover",  "test-failover",    "hydrate",  "materialise",     "seed",
        "reprotect", "cancel-reprotect", "failback", "cancel-failback", "commit-failback"};
    return !job.node.empty() && job.node != node &&
           std::ranges::find(kBound, job.kind) != kBound.end();
}

// Whether one more job can run at `node`, by those that are open: of some nobody has a thread here.
inline Status check_room(const std::vector<JobRecord>& open, const std::string& node) {
    const auto threads = std::ranges::count_if(open, [&](const JobRecord& job) {
        return job.kind != "initial-replication" && !is_of_another_node(job, node);
    });
    if (static_cast<size_t>(threads) < kMaxRunningJobs) return {};
    return fail(Code::kLimitReached, fmt::format("{} jobs run already", threads),
                "wait until some have ended");
}

}  // namespace farshore
