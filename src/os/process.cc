#include "os/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <utility>

#include "os/real.h"
#include "os/waiting.h"

extern char** environ;

namespace farshore {
namespace {

int64_t steady_us() { return RealClock().steady_us(); }

// poll() that counts interruptions against the time-out. Negative: for ever.
int poll_until(pollfd* fds, size_t count, int64_t deadline_us) {
    for (;;) {
        int timeout_ms = -1;
        if (deadline_us >= 0)
            timeout_ms = static_cast<int>(
                std::clamp<int64_t>((deadline_us - steady_us() + 999) / 1000, 0, 1'000'000));
        const int ready = ::poll(fds, count, timeout_ms);
        if (ready > 0 || (ready < 0 && errno != EINTR)) return ready;
        if (deadline_us >= 0 && steady_us() >= deadline_us) return 0;
    }
}

int64_t deadline_after(int64_t timeout_us) {
    return timeout_us < 0 ? -1 : steady_us() + timeout_us;
}

Result<UniqueFd> open_pidfd(pid_t pid) {
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (fd) return fd;
    if (errno == ESRCH || errno == EINVAL)
        return fail(Code::kNotFound, fmt::format("process {} has ended", pid));
    return fail_errno(errno, fmt::format("watch process {}", pid));
}

// Field 22 of /proc/PID/stat, proc(5). The name in field 2 may hold spaces and parentheses.
Result<uint64_t> start_ticks_of(pid_t pid) {
    UniqueFd fd(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
    const Error gone(Code::kNotFound, fmt::format("process {} has ended", pid));
    if (!fd) return fail(gone);
    char buffer[1024];
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n <= 0) return fail(gone);
    std::string_view text(buffer, static_cast<size_t>(n));
    const size_t name_end = text.rfind(')');
    if (name_end == std::string_view::npos) return fail(gone);
    text.remove_prefix(name_end + 1);
    constexpr int kSpacesBefore = 20;  // field 3 follows one space, field 22 twenty
    for (int i = 0; i < kSpacesBefore; ++i) {
        const size_t space = text.find(' ');
        if (space == std::string_view::npos) return fail(gone);
        text.remove_prefix(space + 1);
    }
    uint64_t ticks = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), ticks);
    if (parsed.ec != std::errc()) return fail(gone);
    return ticks;
}

// Children whose handles were dropped: collected when they have ended, lest they stay as zombies.
struct LostChildren {
    std::mutex mutex;
    std::vector<UniqueFd> pidfds;

    static LostChildren& instance() {
        static auto* lost = new LostChildren;  // outlives every static that may hold a Process
        return *lost;
    }
    void add(UniqueFd pidfd) {
        std::lock_guard lock(mutex);
        pidfds.push_back(std::move(pidfd));
        collect_locked();
    }
    void collect() {
        std::lock_guard lock(mutex);
        collect_locked();
    }
    void collect_locked() {
        std::erase_if(pidfds, [](const UniqueFd& fd) {
            siginfo_t info{};
            return ::waitid(P_PIDFD, static_cast<id_t>(fd.get()), &info, WEXITED | WNOHANG) != 0 ||
                   info.si_pid != 0;
        });
    }
};

// The kernel sends the parent-death signal when the *thread* that forked ends. So such children are
// forked on a thread that lives as long as the process.
ThreadExecutor& spawner() {
    static std::mutex mutex;
    static ThreadExecutor* executor = nullptr;
    static pid_t owner = 0;
    std::lock_guard lock(mutex);
    if (owner != ::getpid()) {  // the thread of before a fork() is not in this process
        executor = new ThreadExecutor("spawner");
        owner = ::getpid();
    }
    return *executor;
}

struct Pipe {
    UniqueFd read_end, write_end;
};

Result<Pipe> make_pipe() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
    return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

bool is_executable_file(const std::string& path) {
    struct stat info {};
    return ::access(path.c_str(), X_OK) == 0 && ::stat(path.c_str(), &info) == 0 &&
           S_ISREG(info.st_mode);
}

Result<std::string> find_program(const std::string& name) {
    if (name.find('/') != std::string::npos) {
        if (::access(name.c_str(), F_OK) != 0)
            return fail(Code::kDependencyMissing, fmt::format("no program '{}'", name));
        if (!is_executable_file(name))
            return fail(Code::kForbidden, fmt::format("'{}' may not be run", name));
        return name;
    }
    const char* variable = std::getenv("PATH");
    std::string_view path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
    while (!name.empty()) {
        const size_t colon = path.find(':');
        std::string candidate(path.substr(0, colon));
        if (!candidate.empty()) {
            candidate += '/' + name;
            if (is_executable_file(candidate)) return candidate;
        }
        if (colon == std::string_view::npos) break;
        path.remove_prefix(colon + 1);
    }
    return fail(Code::kDependencyMissing, fmt::format("program '{}' is not in PATH", name),
                fmt::format("install '{}'", name));
}

std::vector<std::string> child_environment(const ProcessOptions& options) {
    std::map<std::string, std::string> replaced(options.environment.begin(),
                                                options.environment.end());
    std::vector<std::string> result;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        if (!replaced.contains(std::string(text.substr(0, text.find('=')))))
            result.emplace_back(text);
    }
    for (const auto& [name, value] : replaced) result.push_back(name + '=' + value);
    return result;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> result;
    result.reserve(strings.size() + 1);
    for (std::string& text : strings) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
}

// All that the child needs between fork and exec, where it may not allocate or lock.
struct ChildPlan {
    const char* program = nullptr;
    char* const* arguments = nullptr;
    char* const* environment = nullptr;
    const char* directory = nullptr;
    std::pair<int, int>* fds = nullptr;  // (now, wanted); `now` is overwritten
    size_t fd_count = 0;
    int report_fd = -1;
    int first_free_fd = 3;  // above every wanted descriptor
    pid_t parent = 0;
    bool new_session = false;
    bool die_with_parent = false;
};

// Async-signal-safe calls only. Never returns.
[[noreturn]] void run_child(ChildPlan plan) {
    const auto give_up = [&] {
        const int error_number = errno;
        (void)!::write(plan.report_fd, &error_number, sizeof error_number);
        ::_exit(127);
    };
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &action, nullptr);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);

    if (plan.new_session && ::setsid() < 0) give_up();
    if (plan.die_with_parent) {
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) give_up();
        if (::getppid() != plan.parent) ::_exit(127);  // it died before the signal was set
    }
    if (plan.directory != nullptr && ::chdir(plan.directory) != 0) give_up();

    // First out of the way of every wanted number, then each to its place.
    const int report = ::fcntl(plan.report_fd, F_DUPFD_CLOEXEC, plan.first_free_fd);
    if (report < 0) give_up();
    plan.report_fd = report;
    for (size_t i = 0; i < plan.fd_count; ++i) {
        plan.fds[i].first = ::fcntl(plan.fds[i].first, F_DUPFD_CLOEXEC, plan.first_free_fd);
        if (plan.fds[i].first < 0) give_up();
    }
    if (::syscall(SYS_close_range, 0u, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        for (int fd = 0; fd < 65'536; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);  // before Linux 5.11
    for (size_t i = 0; i < plan.fd_count; ++i)
        if (::dup2(plan.fds[i].first, plan.fds[i].second) < 0) give_up();  // not close-on-exec
    ::execve(plan.program, plan.arguments, plan.environment);
    give_up();
    ::_exit(127);
}

// Opens what the child sees as descriptor 0, 1 or 2; `ours` is our end when it is a pipe.
Result<UniqueFd> open_stream(const StdStream& stream, int number, UniqueFd& ours) {
    const bool is_input = number == 0;
    switch (stream.kind) {
        case StdStream::Kind::kInherit: {
            UniqueFd fd(::fcntl(number, F_DUPFD_CLOEXEC, 3));
            if (fd) return fd;
            [[fallthrough]];  // ours is closed
        }
        case StdStream::Kind::kNull: {
            UniqueFd fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
            if (!fd) return fail_errno(errno, "open /dev/null");
            return fd;
        }
        case StdStream::Kind::kFile: {
            const int flags = is_input ? O_RDONLY : O_WRONLY | O_CREAT | O_APPEND;
            UniqueFd fd(::open(stream.path.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0600));
            if (!fd) return fail_errno(errno, fmt::format("open '{}'", stream.path));
            return fd;
        }
        case StdStream::Kind::kPipe: {
            FS_ASSIGN(Pipe pipe, make_pipe());
            ours = is_input ? std::move(pipe.write_end) : std::move(pipe.read_end);
            return is_input ? std::move(pipe.read_end) : std::move(pipe.write_end);
        }
    }
    return fail(Code::kInternal, "unknown kind of stream");
}

ExitStatus exit_status_of(const siginfo_t& info) {
    ExitStatus status;
    if (info.si_code == CLD_EXITED)
        status.code = info.si_status;
    else
        status.signal = info.si_status;
    return status;
}

}  // namespace

std::string ExitStatus::to_string() const {
    if (code) return fmt::format("exit status {}", *code);
    if (signal) return fmt::format("killed by signal {} ({})", *signal, ::strsignal(*signal));
    return "ended, status unknown";
}

Result<ProcessKey> key_of(pid_t pid) {
    ProcessKey identity;
    identity.pid = pid;
    FS_ASSIGN(identity.start_ticks, start_ticks_of(pid));
    FS_ASSIGN(identity.boot, host_boot_id());
    return identity;
}

Process::Process(Process&& other) noexcept { *this = std::move(other); }

Process& Process::operator=(Process&& other) noexcept {
    if (this == &other) return *this;
    let_go();
    key_ = other.key_;
    pidfd_ = std::move(other.pidfd_);
    input_ = std::move(other.input_);
    output_ = std::move(other.output_);
    error_ = std::move(other.error_);
    exit_ = other.exit_;
    is_child_ = other.is_child_;
    return *this;
}

Process::~Process() { let_go(); }

void Process::let_go() {
    if (is_child_ && pidfd_ && !exit_) LostChildren::instance().add(std::move(pidfd_));
    pidfd_.reset();
}

Result<Process> Process::spawn(const ProcessOptions& options) {
    LostChildren::instance().collect();
    if (!options.die_with_parent) return spawn_here(options);
    return spawner().call_sync([&] { return spawn_here(options); });
}

Result<Process> Process::spawn_here(const ProcessOptions& options) {
    if (options.arguments.empty())
        return fail(Code::kInvalidArgument, "a program to start has no name");
    FS_ASSIGN(const std::string program, find_program(options.arguments[0]));
    const std::string context = fmt::format("start '{}'", options.arguments[0]);

    Process process;
    UniqueFd streams[3];
    UniqueFd* ours[3] = {&process.input_, &process.output_, &process.error_};
    const StdStream* wanted[3] = {&options.input, &options.output, &options.error};
    std::vector<std::pair<int, int>> fds;
    int highest = 2;
    for (int i = 0; i < 3; ++i) {
        auto opened = open_stream(*wanted[i], i, *ours[i]);
        if (!opened) return fail(opened.error().with_context(context));
        streams[i] = std::move(*opened);
        fds.emplace_back(streams[i].get(), i);
    }
    for (const auto& [here, there] : options.inherit_fds) {
        if (here < 0 || there < 3)
            return fail(
                Code::kInvalidArgument,
                fmt::format("{}: descriptor {} cannot be handed on as {}", context, here, there));
        fds.emplace_back(here, there);
        highest = std::max(highest, there);
    }

    std::vector<std::string> arguments = options.arguments;
    std::vector<std::string> environment = child_environment(options);
    const std::vector<char*> argument_pointers = pointers(arguments);
    const std::vector<char*> environment_pointers = pointers(environment);
    auto report = make_pipe();
    if (!report) return fail(report.error().with_context(context));

    ChildPlan plan;
    plan.program = program.c_str();
    plan.arguments = argument_pointers.data();
    plan.environment = environment_pointers.data();
    plan.directory = options.directory.empty() ? nullptr : options.directory.c_str();
    plan.fds = fds.data();
    plan.fd_count = fds.size();
    plan.report_fd = report->write_end.get();
    plan.first_free_fd = highest + 1;
    plan.parent = ::getpid();
    plan.new_session = options.new_session;
    plan.die_with_parent = options.die_with_parent;

    // No handler of ours may run in the child before it has reset them.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t pid = ::fork();
    if (pid == 0) run_child(plan);
    const int fork_errno = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) {
        if (fork_errno == EAGAIN)
            return fail(Code::kLimitReached, context + ": no more processes may be started",
                        "raise the limit of processes (ulimit -u, pids.max)");
        return fail_errno(fork_errno, context);
    }

    process.is_child_ = true;
    process.key_.pid = pid;
    // The child cannot vanish before it is waited for: pid and pidfd are certain to match.
    auto pidfd = open_pidfd(pid);
    auto identity = key_of(pid);
    if (!pidfd || !identity) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return fail((!pidfd ? pidfd.error() : identity.error()).with_context(context));
    }
    process.pidfd_ = std::move(*pidfd);
    process.key_ = *identity;

    // The pipe closes without a word when exec succeeds.
    report->write_end.reset();
    int child_errno = 0;
    ssize_t n = 0;
    do {
        n = ::read(report->read_end.get(), &child_errno, sizeof child_errno);
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(sizeof child_errno)) {
        (void)process.wait(-1);
        if (child_errno == ENOEXEC || child_errno == ENOENT)
            return fail(Code::kDependencyMissing,
                        fmt::format("{}: {}", context, std::strerror(child_errno)));
        return fail_errno(child_errno, context);
    }
    return process;
}

Result<Process> Process::adopt(const ProcessKey& identity) {
    const Error gone(Code::kNotFound, fmt::format("process {} has ended", identity.pid));
    if (identity.pid <= 0) return fail(gone);
    FS_ASSIGN(UniqueFd pidfd, open_pidfd(identity.pid));
    // After the pidfd holds whatever has the pid: if that is ours, it stays ours.
    FS_ASSIGN(const ProcessKey now, key_of(identity.pid));
    if (!(now == identity)) return fail(gone);
    Process process;
    process.key_ = identity;
    process.pidfd_ = std::move(pidfd);
    if (!process.is_alive()) return fail(gone);
    return process;
}

bool Process::is_alive() const {
    if (!pidfd_ || exit_) return false;
    pollfd fd{pidfd_.get(), POLLIN, 0};
    return ::poll(&fd, 1, 0) == 0;
}

Status Process::kill(int signal) const {
    const Error gone(Code::kNotFound, fmt::format("process {} has ended", key_.pid));
    if (!is_alive()) return fail(gone);
    if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) == 0) return {};
    if (errno == ESRCH) return fail(gone);
    return fail_errno(errno, fmt::format("send signal {} to process {}", signal, key_.pid));
}

Result<ExitStatus> Process::wait(int64_t timeout_us) {
    if (exit_) return *exit_;
    if (!pidfd_) return fail(Code::kInvalidArgument, "no process to wait for");
    pollfd fd{pidfd_.get(), POLLIN, 0};
    const int ready = poll_until(&fd, 1, deadline_after(timeout_us));
    if (ready < 0) return fail_errno(errno, fmt::format("wait for process {}", key_.pid));
    if (ready == 0)
        return fail(Code::kTimeout,
                    fmt::format("process {} still runs after {} ms", key_.pid, timeout_us / 1000));
    siginfo_t info{};
    int result = 0;
    do {
        result = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED);
    } while (result != 0 && errno == EINTR);
    exit_ = result == 0 ? exit_status_of(info) : ExitStatus{};  // ECHILD: not our child
    return *exit_;
}

Result<ExitStatus> Process::terminate(int64_t grace_us) {
    if (auto asked = kill(SIGTERM); asked) {
        auto ended = wait(grace_us);
        if (ended || ended.error().code() != Code::kTimeout) return ended;
        if (auto killed = kill(SIGKILL); !killed && killed.error().code() != Code::kNotFound)
            return fail(killed.error());
    } else if (asked.error().code() != Code::kNotFound) {
        return fail(asked.error());
    }
    return wait(-1);
}

Result<CommandResult> run_command(ProcessOptions options, ByteView input,
                                  const CommandLimits& limits) {
    options.input = input.empty() ? StdStream::null() : StdStream::pipe();
    options.output = options.error = StdStream::pipe();
    options.new_session = true;  // so that the whole group can be killed
    options.die_with_parent = true;
    const int64_t deadline_us = deadline_after(limits.timeout_us);
    FS_ASSIGN(Process process, Process::spawn(options));
    UniqueFd in = process.take_input(), out = process.take_output(), err = process.take_error();
    for (const UniqueFd* fd : {&in, &out, &err})
        if (*fd) ::fcntl(fd->get(), F_SETFL, ::fcntl(fd->get(), F_GETFL) | O_NONBLOCK);

    // Its pid cannot be reused before wait() has collected it, so the group is still its own.
    const auto end_group = [&] {
        ::kill(-process.pid(), SIGKILL);
        (void)process.wait(-1);
    };
    CommandResult result;
    enum class Read : uint8_t { kMore, kEnd, kTooMuch };
    const auto read_some = [&](UniqueFd& fd, std::string& to) {
        char buffer[65'536];
        for (;;) {
            const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN) return Read::kMore;
            if (n <= 0) {
                fd.reset();
                return Read::kEnd;
            }
            if (to.size() + static_cast<size_t>(n) > limits.output_bytes) return Read::kTooMuch;
            to.append(buffer, static_cast<size_t>(n));
        }
    };
    UniqueFd ended(static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0)));
    for (;;) {
        pollfd fds[4] = {{in ? in.get() : -1, POLLOUT, 0},
                         {out ? out.get() : -1, POLLIN, 0},
                         {err ? err.get() : -1, POLLIN, 0},
                         {ended.get(), POLLIN, 0}};
        const int ready = poll_until(fds, 4, deadline_us);
        if (ready <= 0) {
            end_group();
            return fail(Code::kTimeout,
                        fmt::format("'{}' was ended after {} ms", options.arguments[0],
                                    limits.timeout_us / 1000));
        }
        if (fds[0].revents != 0) {
            sigset_t pipe_signal, before;  // a reader that closed early is no reason to die
            ::sigemptyset(&pipe_signal);
            ::sigaddset(&pipe_signal, SIGPIPE);
            ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
            const ssize_t n = ::write(in.get(), input.data(), input.size());
            const bool broken = n < 0 && errno == EPIPE;
            if (n > 0) input = input.subspan(static_cast<size_t>(n));
            if (broken) {
                const timespec now{};
                ::sigtimedwait(&pipe_signal, nullptr, &now);
            }
            ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
            if (input.empty() || broken) in.reset();
        }
        for (auto* stream : {&out, &err}) {
            if (!*stream) continue;
            std::string& to = stream == &out ? result.output : result.error;
            if (read_some(*stream, to) == Read::kTooMuch) {
                end_group();
                return fail(Code::kTooLarge,
                            fmt::format("'{}' wrote more than {} bytes", options.arguments[0],
                                        limits.output_bytes));
            }
        }
        // Something it left behind may hold the pipes open: its own end counts. What it wrote was
        // in the pipes before it ended; one more turn reads that.
        if (fds[3].revents != 0) {
            for (auto* stream : {&out, &err})
                if (*stream)
                    (void)read_some(*stream, stream == &out ? result.output : result.error);
            break;
        }
    }
    FS_ASSIGN(result.exit, process.wait(-1));
    return result;
}

Status write_pid_file(FileSystem& files, const std::string& path, const ProcessKey& identity) {
    const std::string text = fmt::format("pid {}\nstart-ticks {}\nboot {}\n", identity.pid,
                                         identity.start_ticks, identity.boot.to_string());
    return write_file_durably(files, path, as_bytes(text));
}

Result<ProcessKey> read_pid_file(FileSystem& files, const std::string& path) {
    FS_ASSIGN(const Bytes bytes, read_whole_file(files, path, 4096));
    const std::string text = to_text(bytes);
    ProcessKey identity;
    char boot[33] = {};
    int pid = 0;
    unsigned long long ticks = 0;
    if (std::sscanf(text.c_str(), "pid %d\nstart-ticks %llu\nboot %32[0-9a-f]", &pid, &ticks,
                    boot) != 3 ||
        pid <= 0)
        return fail(Code::kMalformed, fmt::format("'{}' is not a pid file", path));
    identity.pid = pid;
    identity.start_ticks = ticks;
    FS_ASSIGN(identity.boot, BootId::parse(boot));
    return identity;
}

Result<Process> adopt_from_pid_file(FileSystem& files, const std::string& path) {
    FS_ASSIGN(const ProcessKey identity, read_pid_file(files, path));
    return Process::adopt(identity);
}

Result<InstanceLock> InstanceLock::acquire(const std::string& path, int patience_ms) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, fmt::format("open lock '{}'", path));
    const auto locked = [&] { return ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0; };
    (void)wait_until(patience_ms, 50, [&] { return locked() || errno != EWOULDBLOCK; });
    if (!locked()) {
        if (errno != EWOULDBLOCK) return fail_errno(errno, fmt::format("lock '{}'", path));
        char text[32] = {};
        const ssize_t n = ::pread(fd.get(), text, sizeof text - 1, 0);
        int pid = 0;
        if (n > 0) std::from_chars(text, text + n, pid);
        return fail(Code::kDuplicateIdentity,
                    pid > 0 ? fmt::format("'{}' is held by process {}", path, pid)
                            : fmt::format("'{}' is held by another process", path),
                    "end that process first, or use another data directory");
    }
    const std::string text = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
        return fail_errno(errno, fmt::format("write lock '{}'", path));
    return InstanceLock(std::move(fd));
}

uint64_t raise_descriptor_limit(uint64_t wanted) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    const rlim_t most = std::min<rlim_t>(wanted, limit.rlim_max);
    if (limit.rlim_cur >= most) return limit.rlim_cur;
    const rlim_t before = std::exchange(limit.rlim_cur, most);
    return ::setrlimit(RLIMIT_NOFILE, &limit) == 0 ? most : before;
}

ShutdownSignals::ShutdownSignals() {
    sigset_t set;
    ::sigemptyset(&set);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, signal);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
    event_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    FS_CHECK(signals_ && event_);
}

int ShutdownSignals::wait() {
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {event_.get(), POLLIN, 0}};
    FS_CHECK(poll_until(fds, 2, -1) > 0);
    if (fds[0].revents == 0) {
        uint64_t requests = 0;
        (void)!::read(event_.get(), &requests, sizeof requests);
        return 0;
    }
    signalfd_siginfo info{};
    const ssize_t n = ::read(signals_.get(), &info, sizeof info);
    return n == static_cast<ssize_t>(sizeof info) ? static_cast<int>(info.ssi_signo) : 0;
}

void ShutdownSignals::request() {
    const uint64_t one = 1;
    (void)!::write(event_.get(), &one, sizeof one);
}

}  // namespace farshore
