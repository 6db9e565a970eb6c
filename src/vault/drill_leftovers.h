// Machines of drills on a vault node that leads no more: whoever leads begins such a drill anew, on
// its own host, so here nobody waits for them.
#pragma once

#include <string>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

// Ends what runs of drills, by the names in the directory of recoveries, whose machines run in
// `run_directory`. Their files stay for the vault that leads here next, which takes them away.
// Blocking, for seconds; while no vault leads here. The first error, after all of them.
Status end_drill_machines(FileSystem& files, const std::string& recoveries_directory,
                          const std::string& run_directory);

}  // namespace farshore
