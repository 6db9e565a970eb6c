// A file that is written from front to end past the page cache (O_DIRECT). Copying into fresh pages
// of the cache costs more than encryption does (docs/design/core.md), and pushes out of it what
// others will read again; logs and objects are not read again soon.
//
// Bytes gather in one aligned buffer of kStreamStageBytes and leave it in whole blocks; the part of
// a block at the end goes through the page cache at sync(), so that the file's length is always the
// true one. A write anywhere but at the end makes it an ordinary file from there on.
#pragma once

#include <memory>
#include <string>

#include "base/seams.h"
#include "os/fd.h"

namespace farshore {

inline constexpr size_t kStreamStageBytes = 1u << 20;

// `plain` and `direct` are the same file, `size_bytes` long; it streams when that is 0 or becomes 0
// by truncate(). Threads as File says.
std::unique_ptr<File> make_stream_file(std::unique_ptr<File> plain, UniqueFd direct,
                                       uint64_t size_bytes, std::string path);

}  // namespace farshore
