// Files of the programs that outlive us: shared by the handles on them. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore {

// Ok when it is not there.
Status remove_if_there(const std::string& path);

// What a program of ours, or nbdkit with our plugin, ended with, by the last line of its log, which
// earlier runs wrote too. Our errors begin with their code's name ("nbdkit: error: corrupt: …"): a
// damaged store is not to be called something that comes back when it is tried again. kUnavailable
// when the line names no code.
Code code_of_last_error(std::string_view log);

}  // namespace farshore
