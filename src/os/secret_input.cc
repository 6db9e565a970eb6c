#include "os/secret_input.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "os/fd.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace farshore {
namespace {

struct Taken {
    std::mutex mutex;
    std::map<std::string, Secret> secrets;
};
Taken& taken() {
    static Taken all;
    return all;
}

// Up to the end, or to the end of the line.
Result<Secret> read_secret(int descriptor, bool line) {
    Bytes text;
    text.reserve(kMaxSecretInputBytes);  // no growth leaves copies behind
    while (true) {
        uint8_t byte = 0;
        const ssize_t n = ::read(descriptor, &byte, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return fail(errno == EBADF ? Code::kInvalidArgument : Code::kIo,
                        fmt::format("descriptor {} cannot be read (errno {})", descriptor, errno));
        if (n == 0 || (line && byte == '\n')) break;
        if (text.size() == kMaxSecretInputBytes)
            return fail(Code::kTooLarge, fmt::format("more than {} bytes", kMaxSecretInputBytes));
        text.push_back(byte);
    }
    return Secret(std::move(text));
}

}  // namespace

Result<Secret> read_secret_descriptor(int descriptor) {
    if (descriptor < 0) return fail(Code::kInvalidArgument, "a descriptor is a number from 0 on");
    auto secret = read_secret(descriptor, false);
    if (secret) ::close(descriptor);
    return secret;
}

Result<Secret> ask_secret(const std::string& prompt) {
    const int terminal = ::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (terminal < 0)
        return fail(Code::kUnsupported, "there is no terminal to ask at",
                    "give the passphrase in a file or through a descriptor");
    termios before{};
    const bool known = ::tcgetattr(terminal, &before) == 0;
    termios silent = before;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    if (known) ::tcsetattr(terminal, TCSAFLUSH, &silent);
    const auto show = [&](const std::string& text) {
        [[maybe_unused]] const ssize_t shown = ::write(terminal, text.data(), text.size());
    };
    show(prompt);
    auto secret = read_secret(terminal, true);
    if (known) ::tcsetattr(terminal, TCSAFLUSH, &before);
    show("\n");
    ::close(terminal);
    return secret;
}

Secret take_secret_variable(const std::string& name) {
    Taken& all = taken();
    const std::lock_guard hold(all.mutex);
    if (char* value = ::secure_getenv(name.c_str())) {
        const std::string_view text(value);
        all.secrets.insert_or_assign(name, Secret(as_bytes(text)));
        for (char* at = value; *at != '\0'; ++at) *at = 'x';  // what /proc shows of it
        ::unsetenv(name.c_str());
    }
    const auto at = all.secrets.find(name);
    return at == all.secrets.end() ? Secret() : at->second;
}

void take_secret_variables(const std::string& prefix) {
    std::vector<std::string> names;
    for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
        const std::string_view entry(*at);
        if (entry.starts_with(prefix)) names.emplace_back(entry.substr(0, entry.find('=')));
    }
    for (const std::string& name : names) (void)take_secret_variable(name);
}

std::string plain_variable(const std::string& name) {
    const char* value = ::secure_getenv(name.c_str());
    return value == nullptr ? std::string() : std::string(value);
}

}  // namespace farshore
