#include "compute/nbd_server.h"

#include <fmt/core.h>
#include <signal.h>

#include <cstdlib>

#include "compute/child_files.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kPollMs = 5;

std::string pid_path(const std::string& directory) { return directory + "/nbd.pid"; }
std::string config_path(const std::string& directory) { return directory + "/nbd.json"; }
std::string socket_or_default(const std::string& directory, const std::string& socket_path) {
    return socket_path.empty() ? directory + "/nbd.sock" : socket_path;
}

Status remove_files(const std::string& directory, const std::string& socket_path) {
    FS_TRY(remove_if_there(socket_path));
    FS_TRY(remove_if_there(config_path(directory)));
    return remove_if_there(pid_path(directory));
}

}  // namespace

Status nbd_server_greets(const std::string& socket_path, int timeout_ms) {
    auto stream = UnixStream::connect(socket_path, timeout_ms);
    if (!stream) return fail(Code::kUnavailable, stream.error().what());
    Bytes greeting(8);
    for (size_t got = 0; got < greeting.size();) {
        const auto n = (*stream)->read_some(MutableByteView(greeting).subspan(got), timeout_ms);
        if (!n || *n == 0)
            return fail(Code::kUnavailable,
                        fmt::format("the server at {} accepts and says nothing", socket_path));
        got += *n;
    }
    if (as_text(greeting) != "NBDMAGIC")
        return fail(Code::kMalformed, fmt::format("{} is not an NBD server", socket_path));
    return {};
}

Result<std::string> find_plugin() {
    PosixFileSystem files;
    if (const char* given = std::getenv("FARSHORE_PLUGIN"); given != nullptr && *given != '\0')
        return std::string(given);
    const std::string own = own_program_directory();
    for (const std::string& path : {own + "/../lib/nbdkit-farshore-plugin.so",
                                    own + "/../lib/farshore/nbdkit-farshore-plugin.so",
                                    std::string("/usr/lib/farshore/nbdkit-farshore-plugin.so")}) {
        FS_ASSIGN(const bool there, files.exists(path));
        if (there) return path;
    }
    return fail(
        Code::kDependencyMissing,
        fmt::format("nbdkit-farshore-plugin.so is neither in {}/../lib nor in /usr/lib/farshore",
                    own),
        "set FARSHORE_PLUGIN to its path");
}

Result<NbdServer> NbdServer::start(const NbdServerOptions& options) {
    PosixFileSystem files;
    const std::string& directory = options.run_directory;
    const std::string socket_path = socket_or_default(directory, options.socket_path);
    if (socket_path.size() > kMaxUnixPathBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("the socket path '{}' has {} bytes, the system takes {}",
                                socket_path, socket_path.size(), kMaxUnixPathBytes),
                    "use a shorter run directory");
    if (adopt_from_pid_file(files, pid_path(directory)))
        return fail(Code::kAlreadyExists,
                    fmt::format("an NBD server already runs in {}", directory));
    FS_TRY(remove_if_there(socket_path));

    // --exit-with-parent must not be here: a tap outlives the agent that started it.
    ProcessOptions process;
    process.arguments = {"nbdkit",    "-f", "--unix",
                         socket_path, "-t", std::to_string(options.threads)};
    if (options.read_only) process.arguments.push_back("-r");
    for (const std::string& filter : options.filters)
        process.arguments.push_back("--filter=" + filter);
    process.arguments.push_back(options.plugin);
    if (!options.config_json.empty()) {
        FS_TRY(write_file_durably(files, config_path(directory), as_bytes(options.config_json)));
        process.arguments.push_back("config=" + config_path(directory));
    }
    for (const auto& [key, value] : options.parameters)
        process.arguments.push_back(key + "=" + value);
    process.output = process.error = StdStream::file(directory + "/nbd.log");
    process.new_session = true;
    FS_ASSIGN(Process running, Process::spawn(process));
    NbdServer server(std::move(running), directory, socket_path);
    if (Status written = write_pid_file(files, pid_path(directory), server.process_.key());
        !written) {
        (void)server.kill();
        return fail(written.error());
    }
    const RealClock clock;
    const int64_t deadline_us = clock.steady_us() + int64_t(options.start_timeout_ms) * 1000;
    bool greets = false;
    while (!greets && server.alive()) {
        const int64_t left_ms = (deadline_us - clock.steady_us()) / 1000;
        if (left_ms <= 0) break;
        greets = nbd_server_greets(socket_path, static_cast<int>(left_ms)).has_value();
        if (!greets) pause_ms(kPollMs);
    }
    if (!server.alive()) {
        (void)remove_files(directory, socket_path);
        const std::string log = tail_of_file(server.log_path());
        return fail(code_of_last_error(log), fmt::format("nbdkit ended at once: {}", log));
    }
    if (!greets) {
        (void)server.kill();
        (void)remove_files(directory, socket_path);
        return fail(Code::kTimeout,
                    fmt::format("nbdkit did not open {} within {} ms: {}", socket_path,
                                options.start_timeout_ms, tail_of_file(server.log_path())));
    }
    return server;
}

Result<NbdServer> NbdServer::adopt(const std::string& run_directory,
                                   const std::string& socket_path) {
    PosixFileSystem files;
    FS_ASSIGN(Process process, adopt_from_pid_file(files, pid_path(run_directory)));
    return NbdServer(std::move(process), run_directory,
                     socket_or_default(run_directory, socket_path));
}

Status NbdServer::clean_up(const std::string& run_directory, const std::string& socket_path) {
    auto server = adopt(run_directory, socket_path);
    if (server) return server->stop();
    if (server.error().code() != Code::kNotFound && server.error().code() != Code::kMalformed)
        return fail(server.error());
    // We may have died between starting it and noting its id: then the socket knows who it is.
    if (const auto pid = unix_socket_server_pid(socket_or_default(run_directory, socket_path)))
        if (const auto key = key_of(*pid))
            if (auto process = Process::adopt(*key)) FS_TRY(process->terminate(5'000'000));
    return remove_files(run_directory, socket_or_default(run_directory, socket_path));
}

Status NbdServer::stop(int grace_ms) {
    FS_TRY(process_.terminate(int64_t(grace_ms) * 1000));
    return remove_files(run_directory_, socket_path_);
}

Status NbdServer::kill() {
    const Status killed = process_.kill(SIGKILL);
    if (!killed && killed.error().code() != Code::kNotFound) return killed;
    FS_TRY(process_.wait(10'000'000));
    return {};
}

}  // namespace farshore
