// What scripts of plans and drills, and their runs, may be called. Any thread.
#pragma once

#include <string_view>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxScriptNameBytes = 128;

// A name in one directory, not a path: letters, digits, '.', '_' and '-', and neither '.' nor '-'
// in front. kInvalidArgument.
Status check_script_name(std::string_view name);

// Of one run: 1 to 64 of a-z, 0-9 and -. It becomes the name of a directory.
bool is_script_handle(std::string_view handle);

}  // namespace farshore
