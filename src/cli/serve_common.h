// What the server's verbs share: log, authority and tokens from files, errors to exit codes.
#pragma once

#include <string>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

struct AgentOptions;
struct CaptureBounds;
struct LogChoice;

// Its log (empty: info, as text) and as many descriptors as it may have. kInvalidArgument.
Status set_up_server(const LogChoice& choice);
// The authority's certificate: from `ca_file` when given, and then kept in `data`/authority.crt;
// else what was kept.
Result<std::string> remember_authority(FileSystem& files, const std::string& data,
                                       const std::string& ca_file);
// One line; kInvalidArgument when no file was named.
Result<std::string> read_token(FileSystem& files, const std::string& token_file);
// What a party is to be called: `given`, else as the host.
std::string party_name(const std::string& given);
void apply_bounds(const CaptureBounds& bounds, AgentOptions& agent);
// Prints an error to standard error.
int exit_code_of(const Status& status);

// What was asked for, else the zone that Debian keeps as the machine's, else UTC. kInvalidArgument:
// there is no such zone.
Result<std::string> find_time_zone(const std::string& wanted, FileSystem& files);

}  // namespace farshore
