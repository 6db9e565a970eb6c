// The command line's real surroundings: standard streams, environment variables, files, HTTPS.
#pragma once

#include <memory>

#include "cli/environment.h"

namespace farshore {

// HTTPS to a vault, with its authority's certificate and the token from their files.
Result<std::unique_ptr<ApiTransport>> connect_https(const ServerLocation& location);

CliEnvironment local_environment();

}  // namespace farshore
