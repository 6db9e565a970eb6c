// Other programs: started, found again after our own restart, watched, ended. A process is named by
// its pid *and* its start time, and held by a pidfd, so that a recycled pid is never signalled.
// Linux 5.4 or newer.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "os/fd.h"
#include "os/shared_memory.h"

namespace farshore {

// Names one process of one boot of this host, for ever.
struct ProcessKey {
    pid_t pid = 0;
    uint64_t start_ticks = 0;  // clock ticks between the boot and the process's start
    BootId boot;
    friend bool operator==(const ProcessKey&, const ProcessKey&) = default;
};

// kNotFound when there is no such process.
Result<ProcessKey> key_of(pid_t pid);

struct ExitStatus {
    // All empty: it ended, but only its parent knows how.
    std::optional<int> code;    // it exited with this
    std::optional<int> signal;  // this signal ended it
    bool success() const { return code == 0; }
    std::string to_string() const;
};

// Where a standard stream of a child goes to or comes from.
struct StdStream {
    enum class Kind : uint8_t { kNull, kInherit, kPipe, kFile } kind = Kind::kNull;
    std::string path;  // kFile: read for input; made (0600) and appended to for output and error
    static StdStream null() { return {}; }
    static StdStream inherit() { return {Kind::kInherit, {}}; }
    static StdStream pipe() { return {Kind::kPipe, {}}; }
    static StdStream file(std::string path) { return {Kind::kFile, std::move(path)}; }
};

struct ProcessOptions {
    // [0] is the program: a path, or a name that is looked for in PATH.
    std::vector<std::string> arguments;
    // Set or replaced in the environment that the child inherits.
    std::vector<std::pair<std::string, std::string>> environment;
    std::string directory;  // to work in; empty: ours
    StdStream input, output, error;
    // (descriptor here, descriptor there): all that the child has besides 0, 1 and 2.
    std::vector<std::pair<int, int>> inherit_fds;
    // Its own session and process group: signals of our terminal do not reach it.
    bool new_session = false;
    // SIGKILL when this process ends, however it ends. Does not reach grandchildren.
    bool die_with_parent = false;
};

// A handle on a process. Any thread may call the const functions; wait() one thread at a time.
// Letting go of the handle leaves the process alone (who started it may lose it on purpose, to
// adopt it later); the remains of a lost child are collected at a later spawn.
class Process {
  public:
    // Returns when the program runs. kDependencyMissing when the program is not there, kForbidden
    // when it may not be run, kLimitReached when no more processes may be started.
    static Result<Process> spawn(const ProcessOptions& options);
    // Holds a process that somebody else, or an earlier run of us, started. kNotFound when it has
    // ended, whatever has its pid now.
    static Result<Process> adopt(const ProcessKey& key);

    Process(Process&&) noexcept;
    Process& operator=(Process&&) noexcept;
    ~Process();

    const ProcessKey& key() const { return key_; }
    pid_t pid() const { return key_.pid; }
    bool is_alive() const;
    // kNotFound when it has ended.
    Status kill(int signal) const;
    // Negative: waits for ever. kTimeout when it still runs then. Can be asked again.
    Result<ExitStatus> wait(int64_t timeout_us);
    // SIGTERM, then after `grace_us` SIGKILL, then waits.
    Result<ExitStatus> terminate(int64_t grace_us);

    // Our ends of the pipes asked for, once. Non-blocking is for the taker to set.
    UniqueFd take_input() { return std::move(input_); }
    UniqueFd take_output() { return std::move(output_); }
    UniqueFd take_error() { return std::move(error_); }

  private:
    Process() = default;
    static Result<Process> spawn_here(const ProcessOptions& options);
    void let_go();

    ProcessKey key_;
    UniqueFd pidfd_;
    UniqueFd input_, output_, error_;
    std::optional<ExitStatus> exit_;
    bool is_child_ = false;
};

struct CommandResult {
    ExitStatus exit;
    std::string output;
    std::string error;
};

struct CommandLimits {
    int64_t timeout_us = 60'000'000;
    size_t output_bytes = 1u << 20;  // of each stream
};

// Runs a program to its end with `input` as its standard input. A program that fails is not an
// error here: look at `exit`. kTimeout and kTooLarge: it was killed, with what it had started in
// its process group. The streams, new_session and die_with_parent of `options` are not looked at.
Result<CommandResult> run_command(ProcessOptions options, ByteView input = {},
                                  const CommandLimits& limits = {});

// The file that lets a later run find a process again.
Status write_pid_file(FileSystem& files, const std::string& path, const ProcessKey& key);
// kNotFound, kMalformed.
Result<ProcessKey> read_pid_file(FileSystem& files, const std::string& path);
// kNotFound when there is no file or its process has ended.
Result<Process> adopt_from_pid_file(FileSystem& files, const std::string& path);

// "Only one of me on this data directory": held until destroyed, and freed by the kernel when the
// process ends in any way.
inline constexpr int kInstanceLockPatienceMs = 3000;
class InstanceLock {
  public:
    // kDuplicateIdentity names the pid of the holder. A holder that was killed a moment ago may
    // still be dying, and the kernel frees its lock when it is gone: a program that starts right
    // behind it waits for `patience_ms`.
    static Result<InstanceLock> acquire(const std::string& path, int patience_ms = 0);

  private:
    explicit InstanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

// As many open files as servers here want. Raises this process's own limit to that, or to what its
// hard limit lets it have; programs that it starts later inherit it. Returns what it is then.
inline constexpr uint64_t kWantedDescriptors = 65'536;
uint64_t raise_descriptor_limit(uint64_t wanted = kWantedDescriptors);

// Takes SIGTERM, SIGINT and SIGHUP away from the process and hands them to whoever waits; makes
// SIGPIPE harmless. Made once, in main(), before any other thread.
class ShutdownSignals {
  public:
    ShutdownSignals();
    // Returns the signal that came, or 0 after request().
    int wait();
    // Lets wait() return, this one or the next. Any thread.
    void request();

  private:
    UniqueFd signals_;
    UniqueFd event_;
};

}  // namespace farshore
