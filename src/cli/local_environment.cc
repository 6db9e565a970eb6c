#include "cli/local_environment.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "cli/server_location.h"
#include "meta/json_fields.h"
#include "os/http.h"
#include "os/process.h"
#include "os/real.h"
#include "os/secret_input.h"

namespace farshore {
namespace {

constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxCertificateBytes = 1u << 20;
constexpr size_t kMaxProblemBytes = 1u << 20;
constexpr size_t kMaxProgramBytes = 64u << 20;

class HttpsTransport final : public ApiTransport {
  public:
    HttpsTransport(std::string url, HttpClientOptions options)
        : url_(std::move(url)), client_(std::move(options)) {}

    Result<std::string> call(const std::string& method, const std::string& target,
                             const std::string& body, int timeout_s) override {
        return call_if_match({}, method, target, body, timeout_s);
    }
    Result<std::string> call_if_match(const std::string& etag, const std::string& method,
                                      const std::string& target, const std::string& body,
                                      int timeout_s) override {
        HttpClientRequest request;
        request.method = method;
        request.url = url_ + target;
        request.body = body;
        request.timeout_us = int64_t{timeout_s} * 1'000'000;
        if (!body.empty()) request.headers.push_back({"Content-Type", "application/json"});
        if (!etag.empty()) request.headers.push_back({"If-Match", etag});
        FS_ASSIGN(HttpResponse response, client_.request(request));
        if (response.status >= 200 && response.status < 300) return std::move(response.body);
        return fail(problem(response));
    }
    Status follow(const std::string& target, const std::string& after,
                  const std::function<bool(std::string_view)>& on_text) override {
        HttpClientRequest request;
        request.url = url_ + target;
        request.on_data = on_text;
        if (!after.empty()) request.headers.push_back({"Last-Event-ID", after});
        FS_ASSIGN(const HttpResponse response, client_.request(request));
        if (response.status >= 200 && response.status < 300) return {};
        return fail(problem(response));
    }

  private:
    static Error problem(const HttpResponse& response) {
        auto json = parse_json(response.body, "the answer", kMaxProblemBytes);
        if (json && json->is_object() && json->contains("code") && (*json)["code"].is_string()) {
            const auto text = [&](const char* key) {
                const auto at = json->find(key);
                return at != json->end() && at->is_string() ? at->get<std::string>()
                                                            : std::string();
            };
            return Error(code_from_name(text("code")), text("detail"), text("remedy"));
        }
        return Error(response.status == 401 ? Code::kUnauthenticated : Code::kUnavailable,
                     fmt::format("the server answered with status {}", response.status),
                     "is this the address of a Farshore vault?");
    }

    const std::string url_;
    HttpClient client_;
};

Result<std::string> read_text(const std::string& path, size_t limit_bytes) {
    PosixFileSystem files;
    FS_ASSIGN(const Bytes bytes, read_whole_file(files, path, limit_bytes));
    return to_text(bytes);
}

// From the first wait on, an interruption ends the wait instead of the program.
bool wait_for_signal(int64_t milliseconds) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    const timespec timeout{milliseconds / 1000, (milliseconds % 1000) * 1'000'000};
    return sigtimedwait(&set, nullptr, &timeout) > 0;
}

Result<std::string> run_program(const std::vector<std::string>& command, int64_t timeout_us) {
    ProcessOptions options;
    options.arguments = command;
    CommandLimits limits;
    limits.timeout_us = timeout_us;
    limits.output_bytes = kMaxProgramBytes;
    FS_ASSIGN(CommandResult done, run_command(std::move(options), {}, limits));
    if (done.exit.success()) return std::move(done.output);
    return fail(Code::kIo, fmt::format("{} ended with {}: {}", command.front(),
                                       done.exit.to_string(), done.error.substr(0, 1000)));
}

Result<std::string> fetch_plain(const std::string& url) {
    HttpClient client(HttpClientOptions{});
    HttpClientRequest request;
    request.url = url;
    FS_ASSIGN(HttpResponse response, client.request(request));
    if (response.status == 200) return std::move(response.body);
    return fail(Code::kUnavailable, fmt::format("{} answers {}", url, response.status));
}

}  // namespace

Result<std::unique_ptr<ApiTransport>> connect_https(const ServerLocation& location) {
    HttpClientOptions options;
    if (!location.ca_file.empty()) {
        FS_ASSIGN(options.authority_pem, read_text(location.ca_file, kMaxCertificateBytes));
    }
    if (location.token_file.empty())
        return std::make_unique<HttpsTransport>(location.url, std::move(options));
    PosixFileSystem files;
    auto token = read_whole_file(files, location.token_file, kMaxTokenBytes);
    if (!token)
        return fail(
            token.error().code() == Code::kForbidden ? Code::kForbidden : Code::kUnauthenticated,
            fmt::format("the access token cannot be read: {}", token.error().what()),
            "be the user that runs the server, or name a token with --token-file");
    while (!token->empty() && (token->back() == '\n' || token->back() == ' ')) token->pop_back();
    options.bearer_token = Secret(std::move(*token));
    return std::make_unique<HttpsTransport>(location.url, std::move(options));
}

CliEnvironment local_environment() {
    CliEnvironment environment;
    environment.out = &std::cout;
    environment.err = &std::cerr;
    environment.out_is_terminal = ::isatty(1) == 1;
    environment.err_is_terminal = ::isatty(2) == 1;
    winsize size{};
    if (environment.err_is_terminal && ::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        environment.columns = size.ws_col;
    char here[4096];
    if (::getcwd(here, sizeof here) != nullptr) environment.working_directory = here;
    environment.variable = [](const std::string& name) {
        const char* value = std::getenv(name.c_str());
        return std::string(value == nullptr ? "" : value);
    };
    environment.read_file = [](const std::string& path) {
        return read_text(path, kMaxServerFileBytes);
    };
    environment.keep_secret = [](const std::string& path, const std::string& text) -> Status {
        PosixFileSystem files;
        FS_TRY(files.make_directories(parent_directory(path)));
        return write_file_durably(files, path, as_bytes(text));
    };
    environment.remove_file = [](const std::string& path) {
        PosixFileSystem files;
        return files.remove(path);
    };
    environment.ask_secret = [](const std::string& prompt) -> Result<std::string> {
        FS_ASSIGN(const Secret secret, farshore::ask_secret(prompt));
        return std::string(as_text(secret.reveal()));
    };
    if (::isatty(0) == 1)
        environment.ask = [](const std::string& prompt) -> Result<std::string> {
            std::cerr << prompt << std::flush;
            std::string line;
            if (!std::getline(std::cin, line)) return fail(Code::kCancelled, "there was no answer");
            return line;
        };
    environment.run = run_program;
    environment.fetch = fetch_plain;
    environment.connect = connect_https;
    environment.pause = wait_for_signal;
    return environment;
}

}  // namespace farshore
