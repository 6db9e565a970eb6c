#include "os/process_group.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace farshore {

Status kill_group(const Process& leader) {
    // A leader that ends between the two lines leaves its number to nobody before it is collected
    // or, not being our child, for as long as a member of its group lives.
    if (!leader.is_alive())
        return fail(Code::kNotFound, fmt::format("process {} has ended", leader.pid()));
    if (::kill(-leader.pid(), SIGKILL) == 0 || errno == ESRCH) return {};
    return fail_errno(errno, fmt::format("end the process group {}", leader.pid()));
}

Status give_word(Process& process, std::string_view word) {
    const UniqueFd input = process.take_input();
    if (!input) return fail(Code::kInvalidArgument, "its standard input is no pipe of ours");
    sigset_t pipe_signal, before;  // a reader that is gone is no reason to die
    ::sigemptyset(&pipe_signal);
    ::sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t n = 0;
    do {
        n = ::write(input.get(), word.data(), word.size());
    } while (n < 0 && errno == EINTR);
    const int error = n < 0 ? errno : 0;
    if (error == EPIPE) {
        const timespec now{};
        ::sigtimedwait(&pipe_signal, nullptr, &now);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (n == static_cast<ssize_t>(word.size())) return {};
    return fail(Code::kConnectionLost, fmt::format("process {} does not listen", process.pid()));
}

}  // namespace farshore
