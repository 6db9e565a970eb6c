// The version of this build, as programs show it to people and to each other.
#pragma once

namespace farshore {

inline constexpr const char* kFarshoreVersion = "0.1.0";

}  // namespace farshore
