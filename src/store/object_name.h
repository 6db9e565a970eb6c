// The one rule for object names, for every kind of store.
#pragma once

#include <string_view>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxObjectNameBytes = 512;

// Parts of [a-z0-9._-] joined by single '/', no part "." or ".." or empty, no part longer than 255
// bytes, at most kMaxObjectNameBytes in all. kInvalidArgument.
Status check_object_name(std::string_view name);
// Whether the name could be the start of one.
bool is_object_name_prefix(std::string_view prefix);

}  // namespace farshore
