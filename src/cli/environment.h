// Everything that the command line takes from outside, so that tests can hand it over.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace farshore {

// One request to the API. `body` and the answer are JSON text (empty: none). An answer that is a
// problem document comes back as that error. Calls block, up to `timeout_s` plus what a connection
// takes.
class ApiTransport {
  public:
    virtual ~ApiTransport() = default;
    virtual Result<std::string> call(const std::string& method, const std::string& target,
                                     const std::string& body, int timeout_s) = 0;
    // The same for the version `etag` of what is named (If-Match).
    virtual Result<std::string> call_if_match(const std::string& etag, const std::string& method,
                                              const std::string& target, const std::string& body,
                                              int timeout_s) {
        (void)etag;
        return call(method, target, body, timeout_s);
    }
    // A stream, from behind the event `after` on (empty: from now on), until it ends or `on_text`
    // says false (kCancelled).
    virtual Status follow(const std::string& target, const std::string& after,
                          const std::function<bool(std::string_view)>& on_text) {
        (void)target, (void)after, (void)on_text;
        return fail(Code::kUnsupported, "this cannot be followed");
    }
};

// Where the server is and how to prove who asks (cli/server_location.h).
struct ServerLocation {
    std::string url;  // https://host:port
    std::string ca_file;
    std::string token_file;
};

struct CliEnvironment {
    std::ostream* out = nullptr;
    std::ostream* err = nullptr;
    bool out_is_terminal = false;
    bool err_is_terminal = false;
    size_t columns = 80;
    std::string working_directory;
    // The value of an environment variable, or empty.
    std::function<std::string(const std::string&)> variable;
    // A small file's text.
    std::function<Result<std::string>(const std::string&)> read_file;
    // Writes a file that only this user can read, and the directories above it.
    std::function<Status(const std::string& path, const std::string& text)> keep_secret;
    std::function<Status(const std::string&)> remove_file;
    // A program's standard output. kDependencyMissing, kTimeout; kIo with what it said when it
    // fails.
    std::function<Result<std::string>(const std::vector<std::string>& command, int64_t timeout_us)>
        run;
    // The answer to a GET without anybody's name; kUnavailable when its status is another than 200.
    std::function<Result<std::string>(const std::string& url)> fetch;
    // A line from the terminal that is not shown.
    std::function<Result<std::string>(const std::string& prompt)> ask_secret;
    // A line from the terminal; none is set where nobody can answer.
    std::function<Result<std::string>(const std::string& prompt)> ask;
    // `token_file` empty: nobody asks.
    std::function<Result<std::unique_ptr<ApiTransport>>(const ServerLocation&)> connect;
    // Waits; true when the user wants to stop (SIGINT, SIGTERM).
    std::function<bool(int64_t milliseconds)> pause;
};

// Runs one command line (argv[0] is the program's name); returns the exit code
// (docs/operations/cli.md).
int run_cli(CliEnvironment& environment, int argc, const char* const* argv);

}  // namespace farshore
