// Finding the server: --server, FARSHORE_SERVER, or the server.json that `up` and `vault serve`
// write into their data directory (--data, FARSHORE_DATA, default /var/lib/farshore).
#pragma once

#include <string>

#include "cli/environment.h"

namespace farshore {

inline constexpr const char* kDefaultDataDirectory = "/var/lib/farshore";
inline constexpr const char* kServerFile = "server.json";
inline constexpr size_t kMaxServerFileBytes = 64u << 10;

// As given on the command line; empty: not given.
struct LocationOptions {
    std::string server;  // https://host:port or host:port
    std::string data;
    std::string ca_file;  // else FARSHORE_CA, else the one in server.json
    // Else FARSHORE_TOKEN_FILE, else that of a login (login_file()), else the one in server.json.
    std::string token_file;
};

// kUnavailable, saying how to name a server, when none can be found; kMalformed; kUnauthenticated:
// no token is known, which is needed.
Result<ServerLocation> find_server(const CliEnvironment& environment,
                                   const LocationOptions& options, bool needs_token = true);

// Where the token of a login at that server is kept: below XDG_CONFIG_HOME or HOME/.config. Empty:
// there is neither.
std::string login_file(const CliEnvironment& environment, const std::string& url);

// The text of server.json. Paths are relative to the data directory, so that it can be moved.
std::string format_server_file(const ServerLocation& relative);
Result<ServerLocation> parse_server_file(const std::string& text, const std::string& directory);

}  // namespace farshore
