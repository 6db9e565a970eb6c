// How many jobs of one vault run at once; each has a thread.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "meta/records.h"

namespace farshore {

inline constexpr size_t kMaxRunningJobs = 64;

// Whether one more job can run, by those that are open: of some nobody has a thread here.
inline Status check_room(const std::vector<JobRecord>& open) {
    const auto threads = std::ranges::count_if(
        open, [](const JobRecord& job) { return job.kind != "initial-replication"; });
    if (static_cast<size_t>(threads) < kMaxRunningJobs) return {};
    return fail(Code::kLimitReached, fmt::format("{} jobs run already", threads),
                "wait until some have ended");
}

}  // namespace farshore
