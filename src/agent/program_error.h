// What one of our own programs said when it failed: the last line of its standard error,
// "farshore: CODE: what; remedy". Pure.
#pragma once

#include <string>

#include "base/error.h"

namespace farshore {

// kUnavailable with `without` and the line, when it is no such line.
Error error_from_output(std::string output, const std::string& without);

}  // namespace farshore
