// `farshore agent check`: whether the in-guest capture will work on this machine.
#pragma once

#include "cli/environment.h"
#include "ebpf/capture_check.h"

namespace farshore {

// A line a check or, with `json`, one document. 0 when capture will work, else that of
// kUnsupported.
int run_agent_check(CliEnvironment& environment, const CaptureCheckOptions& options, bool json);

}  // namespace farshore
