// The file calls that PosixFile and StreamFile share; for src/os alone.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

// Errors of file calls, finer than Error::from_errno where a caller reacts differently.
Error file_error(int error_number, std::string_view verb, const std::string& path,
                 std::source_location where = std::source_location::current());
// Until `out` is full or the file ends.
Result<size_t> read_fully(int fd, uint64_t offset_bytes, MutableByteView out,
                          const std::string& path);
// All of it or an error.
Status write_fully(int fd, uint64_t offset_bytes, ByteView data, const std::string& path);

}  // namespace farshore
