// How long a machine may be brought to rest for an application-consistent point.
#pragma once

#include <cstdint>

namespace farshore {

struct RestLimits {
    // Its file systems are frozen no longer, thawed whatever happens: 1 s to 60 s.
    int64_t freeze_us = 10'000'000;
    // One script of its owner's: 1 s to 600 s.
    int64_t script_us = 30'000'000;

    // Of freeze_us: for freezing. A quarter is the point's.
    int64_t freezing_us() const { return freeze_us / 100 * 65; }
};
inline constexpr uint32_t kMaxFreezeS = 60, kMaxScriptS = 600;

}  // namespace farshore
