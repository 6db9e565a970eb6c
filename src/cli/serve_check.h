// `--check` of the server verbs: what the options name is there and can be read. Starts nothing,
// asks nobody over the network, and writes nothing. Errors are those of the files, as a start would
// tell them.
#pragma once

#include "base/error.h"
#include "cli/serve.h"

namespace farshore {

Status check_options(const UpOptions& options);
Status check_options(const VaultServeOptions& options);
Status check_options(const ApplianceServeOptions& options);
Status check_options(const AgentServeOptions& options);

}  // namespace farshore
