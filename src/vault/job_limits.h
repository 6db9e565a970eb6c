// How many jobs of one vault run at once; each has a thread.
#pragma once

#include <cstddef>

namespace farshore {

inline constexpr size_t kMaxRunningJobs = 64;

}  // namespace farshore
