#include "compute/nbd_front.h"

#include <fmt/core.h>
#include <signal.h>

#include <cstdlib>

#include "compute/child_files.h"
#include "compute/nbd_front_loop.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kPollMs = 5;
constexpr int64_t kGraceUs = 5'000'000;
constexpr size_t kMaxConfigBytes = 1u << 20;

Status kill_and_wait(Process& process) {
    const Status killed = process.kill(SIGKILL);
    if (!killed && killed.error().code() != Code::kNotFound) return killed;
    FS_TRY(process.wait(10'000'000));
    return {};
}

std::string address_of(const std::string& host, uint16_t port) {
    return host.find(':') == host.npos ? fmt::format("{}:{}", host, port)
                                       : fmt::format("[{}]:{}", host, port);
}

// The key is of no use to anybody when the front does not run.
Status remove_after_end(const std::string& directory) {
    FS_TRY(remove_if_there(nbd_front_file(directory, "json")));
    return remove_if_there(nbd_front_file(directory, "pid"));
}

}  // namespace

Result<std::string> find_nbd_front() {
    PosixFileSystem files;
    if (const char* given = std::getenv("FARSHORE_NBD_FRONT"); given != nullptr && *given != '\0')
        return std::string(given);
    const std::string own = own_program_directory();
    for (const std::string& path :
         {own + "/farshore-nbd-front", own + "/../lib/farshore/farshore-nbd-front",
          std::string("/usr/lib/farshore/bin/farshore-nbd-front")}) {
        FS_ASSIGN(const bool there, files.exists(path));
        if (there) return path;
    }
    return fail(
        Code::kDependencyMissing,
        fmt::format("farshore-nbd-front is neither in {} nor in /usr/lib/farshore/bin", own),
        "set FARSHORE_NBD_FRONT to its path");
}

Result<NbdFront> NbdFront::start(const NbdFrontOptions& options) {
    PosixFileSystem files;
    const std::string& directory = options.run_directory;
    const NbdFrontConfig config{.run_directory = directory,
                                .listen_address = options.listen_address,
                                .first_port = options.first_port,
                                .last_port = options.last_port,
                                .target_socket = options.target_socket,
                                .server = options.server,
                                .authority_pem = options.authority_pem,
                                .client_name = options.client_name};
    FS_TRY(check_nbd_front_config(config));
    const std::string pid_path = nbd_front_file(directory, "pid");
    const std::string log_path = nbd_front_file(directory, "log");
    if (adopt_from_pid_file(files, pid_path))
        return fail(Code::kAlreadyExists,
                    fmt::format("an NBD front already runs in {}", directory));
    FS_ASSIGN(const std::string program, find_nbd_front());
    const std::string config_path = nbd_front_file(directory, "json");
    FS_TRY(write_file_durably(files, config_path, nbd_front_config_text(config).reveal()));

    // It must not end with us: machines read their disks through it. It notes its process itself,
    // so that it is found even if we end in the next moment.
    ProcessOptions process;
    process.arguments = {program, config_path};
    process.output = process.error = StdStream::file(log_path);
    process.new_session = true;
    auto spawned = Process::spawn(process);
    if (!spawned) {
        (void)remove_after_end(directory);
        return fail(spawned.error());
    }
    Process running = std::move(*spawned);
    const RealClock clock;
    const int64_t deadline_us = clock.steady_us() + int64_t(options.start_timeout_ms) * 1000;
    // An earlier front's word has another process in it.
    const auto listens = [&]() -> uint16_t {
        const auto found = read_nbd_front_port(directory);
        return found && found->is_of(running.key()) ? found->port : 0;
    };
    uint16_t port = 0;
    while ((port = listens()) == 0 && running.is_alive() && clock.steady_us() < deadline_us)
        pause_ms(kPollMs);
    if (!running.is_alive()) {
        (void)remove_after_end(directory);
        const std::string log = tail_of_file(log_path);
        return fail(code_of_last_error(log), fmt::format("the NBD front ended at once: {}", log));
    }
    if (port == 0) {
        (void)kill_and_wait(running);
        (void)remove_after_end(directory);
        return fail(Code::kTimeout, fmt::format("the NBD front did not listen within {} ms: {}",
                                                options.start_timeout_ms, tail_of_file(log_path)));
    }
    return NbdFront(std::move(running), address_of(options.listen_address, port), port);
}

Result<NbdFront> NbdFront::adopt(const std::string& run_directory) {
    PosixFileSystem files;
    FS_ASSIGN(Process process, adopt_from_pid_file(files, nbd_front_file(run_directory, "pid")));
    const auto found = read_nbd_front_port(run_directory);
    if (!found || !found->is_of(process.key()))
        return fail(Code::kInProgress,
                    fmt::format("the NBD front in {} does not listen yet", run_directory),
                    "ask again, or clean it up");
    FS_ASSIGN(Bytes text,
              read_whole_file(files, nbd_front_file(run_directory, "json"), kMaxConfigBytes));
    const Secret held(std::move(text));
    FS_ASSIGN(const NbdFrontConfig config, parse_nbd_front_config(held.reveal()));
    return NbdFront(std::move(process), address_of(config.listen_address, found->port),
                    found->port);
}

Status NbdFront::clean_up(const std::string& run_directory) {
    PosixFileSystem files;
    auto process = adopt_from_pid_file(files, nbd_front_file(run_directory, "pid"));
    if (process) {
        FS_TRY(process->terminate(kGraceUs));
    } else if (process.error().code() != Code::kNotFound &&
               process.error().code() != Code::kMalformed) {
        return fail(process.error());
    }
    FS_TRY(remove_after_end(run_directory));
    for (const char* kind : {"port", "log", "log.1"})
        FS_TRY(remove_if_there(nbd_front_file(run_directory, kind)));
    return {};
}

Status NbdFront::kill() { return kill_and_wait(process_); }

}  // namespace farshore
