// Small questions about files around running programs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"

namespace farshore {

// The directory of the running program's binary.
std::string own_program_directory();
// The last `limit_bytes` of a file without trailing line ends, for error messages. Empty when it
// cannot be read.
std::string tail_of_file(const std::string& path, size_t limit_bytes = 1000);
// The size of a file, 0 when it is not there.
uint64_t file_size_or_zero(const std::string& path);
// Ok when nobody but the file's owner and group may read it; kForbidden with what to do otherwise;
// kNotFound, kIo.
Status check_private_file(const std::string& path);
// Ok for a file that we may run and that not everybody may change; kForbidden with what to do
// otherwise; kNotFound, kIo.
Status check_program_file(const std::string& path);
// The path without symbolic links, absolute. kNotFound when nothing is there.
Result<std::string> resolve_links(const std::string& path);

}  // namespace farshore
