#include "cli/server_location.h"

#include <fmt/core.h>

#include "meta/json_fields.h"

namespace farshore {
namespace {

std::string absolute(const std::string& path, const std::string& directory) {
    if (path.empty() || path[0] == '/') return path;
    return directory + "/" + path;
}

std::string first_of(const std::string& a, const std::string& b) { return a.empty() ? b : a; }

}  // namespace

std::string format_server_file(const ServerLocation& relative) {
    return dump_json({{"format", 1},
                      {"address", relative.url},
                      {"ca", relative.ca_file},
                      {"token_file", relative.token_file}},
                     2) +
           "\n";
}

Result<ServerLocation> parse_server_file(const std::string& text, const std::string& directory) {
    FS_ASSIGN(Json json, parse_json(text, kServerFile, kMaxServerFileBytes));
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, kServerFile));
    FS_ASSIGN(uint64_t format, fields.u64("format", 1));
    if (format > 1)
        return fail(Code::kNewerVersion, fmt::format("{} has format {}", kServerFile, format),
                    "use the farshore command of the version that runs there");
    ServerLocation location;
    FS_ASSIGN(location.url, fields.required_text("address", 4096));
    FS_ASSIGN(location.ca_file, fields.text("ca", 4096));
    FS_ASSIGN(location.token_file, fields.text("token_file", 4096));
    location.ca_file = absolute(location.ca_file, directory);
    location.token_file = absolute(location.token_file, directory);
    return location;
}

Result<ServerLocation> find_server(const CliEnvironment& environment,
                                   const LocationOptions& options, bool needs_token) {
    const std::string server = first_of(options.server, environment.variable("FARSHORE_SERVER"));
    const std::string named_data = first_of(options.data, environment.variable("FARSHORE_DATA"));
    const std::string data =
        absolute(first_of(named_data, kDefaultDataDirectory), environment.working_directory);
    const std::string path = data + "/" + kServerFile;
    ServerLocation location;
    auto text = environment.read_file(path);
    if (text) {
        FS_ASSIGN(location, parse_server_file(*text, data));
    } else if (server.empty()) {
        const bool forbidden = text.error().code() == Code::kForbidden;
        return fail(forbidden ? Code::kForbidden : Code::kUnavailable,
                    forbidden ? fmt::format("{} cannot be read by this user", path)
                              : fmt::format("no server found: there is no {}", path),
                    "start `farshore up --data DIR`, or name one with --data, --server or "
                    "FARSHORE_SERVER");
    }
    if (!server.empty())
        location.url = server.find("://") == std::string::npos ? "https://" + server : server;
    location.ca_file =
        first_of(options.ca_file, first_of(environment.variable("FARSHORE_CA"), location.ca_file));
    const std::string named_token =
        first_of(options.token_file, environment.variable("FARSHORE_TOKEN_FILE"));
    const std::string login = login_file(environment, location.url);
    if (!named_token.empty())
        location.token_file = named_token;
    else if (!login.empty() && environment.read_file(login))
        location.token_file = login;
    if (location.url.rfind("https://", 0) != 0)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not an https address", location.url.substr(0, 200)),
                    "write it like https://host:8443");
    if (needs_token && location.token_file.empty())
        return fail(Code::kUnauthenticated, "no access token is known for this server",
                    "log in with `farshore login`, or name a file with --token-file or "
                    "FARSHORE_TOKEN_FILE");
    return location;
}

std::string login_file(const CliEnvironment& environment, const std::string& url) {
    std::string directory = environment.variable("XDG_CONFIG_HOME");
    if (directory.empty()) {
        const std::string home = environment.variable("HOME");
        if (home.empty()) return {};
        directory = home + "/.config";
    }
    const size_t scheme = url.find("://");
    std::string name = scheme == std::string::npos ? url : url.substr(scheme + 3);
    while (!name.empty() && name.back() == '/') name.pop_back();
    for (char& c : name)
        if (c == '/') c = '_';
    return fmt::format("{}/farshore/login-{}", directory, name);
}

}  // namespace farshore
