#include "agent/capture_process.h"

#include <fmt/core.h>

#include "agent/program_error.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kStartTimeoutMs = 60'000;  // the kernel's verifier, on a slow machine
constexpr int kPollMs = 20;
constexpr int64_t kEndUs = 5'000'000;

std::string at(const std::string& directory, const char* name) {
    return directory + "/tap." + name;
}

Status remove_files(const std::string& directory) {
    PosixFileSystem files;
    for (const char* name : {"ready", "json", "pid"})
        if (auto removed = files.remove(at(directory, name));
            !removed && removed.error().code() != Code::kNotFound)
            return removed;
    return {};
}

}  // namespace

Result<CaptureProcess> CaptureProcess::start(const std::string& run_directory,
                                             const std::string& config_json) {
    PosixFileSystem files;
    if (adopt(run_directory))
        return fail(Code::kAlreadyExists,
                    fmt::format("a capture process already runs in {}", run_directory));
    FS_TRY(remove_files(run_directory));
    (void)files.remove(at(run_directory, "log"));
    FS_TRY(write_file_durably(files, at(run_directory, "json"), as_bytes(config_json)));
    ProcessOptions options;
    options.arguments = {own_program_directory() + "/farshore",
                         "capture",
                         "serve",
                         "--config",
                         at(run_directory, "json"),
                         "--ready",
                         at(run_directory, "ready")};
    options.output = options.error = StdStream::file(at(run_directory, "log"));
    options.new_session = true;  // it outlives the agent
    FS_ASSIGN(Process process, Process::spawn(options));
    CaptureProcess started(std::move(process));
    if (Status written = write_pid_file(files, at(run_directory, "pid"), started.process_.key());
        !written) {
        (void)started.process_.terminate(kEndUs);
        return fail(written.error());
    }
    bool ready = false;
    wait_until(kStartTimeoutMs, kPollMs, [&] {
        ready = files.exists(at(run_directory, "ready")).value_or(false);
        return ready || !started.alive();
    });
    if (ready) return started;
    const bool hangs = started.alive();
    (void)started.process_.terminate(kEndUs);
    (void)remove_files(run_directory);
    if (hangs)
        return fail(Code::kTimeout, fmt::format("the capture process was not ready after {} s",
                                                kStartTimeoutMs / 1000));
    return fail(error_from_output(tail_of_file(at(run_directory, "log"), 4000),
                                  "the capture process ended at once"));
}

Result<CaptureProcess> CaptureProcess::adopt(const std::string& run_directory) {
    PosixFileSystem files;
    FS_ASSIGN(Process process, adopt_from_pid_file(files, at(run_directory, "pid")));
    return CaptureProcess(std::move(process));
}

Status CaptureProcess::clean_up(const std::string& run_directory) {
    if (auto running = adopt(run_directory)) FS_TRY(running->process_.terminate(kEndUs));
    PosixFileSystem files;
    (void)files.remove(at(run_directory, "log"));
    return remove_files(run_directory);
}

}  // namespace farshore
