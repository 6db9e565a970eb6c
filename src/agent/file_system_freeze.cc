#include "agent/file_system_freeze.h"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "agent/program_error.h"
#include "os/log.h"
#include "os/program_files.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr int64_t kThawUs = 15'000'000;
constexpr size_t kMaxNoteBytes = 1u << 20;
constexpr const char* kEndedWithout = "the freezing program ended at once";

// In a note: no mount is called so.
constexpr std::string_view kGuestAgent = "@guest-agent";

ProcessOptions helper_options(const FreezeTarget& target, bool thaw_only,
                              const RestLimits& limits = {}) {
    ProcessOptions options;
    options.arguments = {own_program_directory() + "/farshore", "capture", "freeze", "--timeout-ms",
                         fmt::format("{}", limits.freeze_us / 1000)};
    if (thaw_only) options.arguments.emplace_back("--thaw");
    if (!target.guest_agent.empty()) {
        options.arguments.emplace_back("--guest-agent");
        options.arguments.push_back(target.guest_agent);
        return options;
    }
    options.arguments.emplace_back("--");
    options.arguments.insert(options.arguments.end(), target.mounts.begin(), target.mounts.end());
    return options;
}

// What there is to read when something can be: a line of it, or its end (empty). nullopt: the
// time is over.
std::optional<std::string> read_some(int fd, int64_t timeout_us) {
    pollfd question{fd, POLLIN, 0};
    if (::poll(&question, 1, static_cast<int>(timeout_us / 1000)) <= 0) return std::nullopt;
    char text[4096];
    const ssize_t n = ::read(fd, text, sizeof text);
    return std::string(text, n > 0 ? static_cast<size_t>(n) : 0);
}

}  // namespace

Result<FileSystemFreeze> FileSystemFreeze::begin(const std::string& note,
                                                 const FreezeTarget& target, FileSystem& files,
                                                 Clock& clock, const RestLimits& limits) {
    std::string text;
    if (!target.guest_agent.empty())
        text = std::string(kGuestAgent) + '\0' + target.guest_agent + '\0';
    for (const std::string& mount : target.mounts) text += mount + '\0';
    FS_TRY(write_file_durably(files, note, as_bytes(text)));
    ProcessOptions options = helper_options(target, false, limits);
    options.input = options.output = options.error = StdStream::pipe();
    options.new_session = true;  // signals to our group are not for it
    const int64_t until_us = clock.steady_us() + limits.freeze_us;
    auto helper = Process::spawn(options);
    if (!helper) {
        (void)files.remove(note);
        return fail(helper.error());
    }
    FileSystemFreeze freeze(std::move(*helper), note, files, until_us);
    if (Status frozen = freeze.wait_until_frozen(limits.freezing_us()); !frozen) {
        (void)freeze.end();
        return fail(frozen.error());
    }
    return freeze;
}

Status FileSystemFreeze::wait_until_frozen(int64_t limit_us) {
    output_ = helper_.take_output();
    const auto said = read_some(output_.get(), limit_us);
    said_ = said.value_or("");
    if (said_.starts_with("frozen\n")) return {};
    if (!said)
        return fail(
            Code::kTimeout,
            fmt::format("the file systems were not frozen within {} ms", limit_us / 1000),
            "try again when less is being written; the agent's --freeze-limit gives it more time");
    const UniqueFd error = helper_.take_error();
    return fail(error_from_output(read_some(error.get(), kThawUs).value_or(""), kEndedWithout));
}

Status FileSystemFreeze::end() {
    input_.reset();
    const auto exit = helper_.wait(kThawUs);
    if (!exit)
        return fail(Code::kTimeout, "the freezing program has not ended",
                    "a disk does not answer; fsfreeze --unfreeze thaws a file system by hand");
    for (auto more = read_some(output_.get(), 0); more && !more->empty();
         more = read_some(output_.get(), 0))
        said_ += *more;
    if (exit->success()) {
        (void)files_->remove(note_);
        return {};
    }
    // What it froze it has thawed, says it; what is frozen now is somebody else's. Else it was
    // killed, or could not: whatever it was, nothing may stay frozen.
    if (said_.ends_with("thawed\n"))
        (void)files_->remove(note_);
    else
        FS_TRY(thaw_leftovers(note_, *files_));
    if (exit->signal)
        return fail(Code::kUnavailable,
                    fmt::format("the freezing program ended: {}", exit->to_string()));
    const UniqueFd error = helper_.take_error();
    if (!error) return {};  // wait_until_frozen() has told it
    return fail(error_from_output(read_some(error.get(), 0).value_or(""), kEndedWithout));
}

void FileSystemFreeze::thaw_all_leftovers(const std::string& directory, FileSystem& files) {
    auto names = files.list(directory);
    if (!names) return;
    for (const std::string& name : *names)
        if (name.ends_with(kFreezeNoteSuffix))
            if (auto thawed = thaw_leftovers(directory + "/" + name, files); !thawed)
                log::warn("agent", "{}", thawed.error().to_string());
}

Status FileSystemFreeze::thaw_leftovers(const std::string& note, FileSystem& files) {
    auto text = read_whole_file(files, note, kMaxNoteBytes);
    if (!text) return text.error().code() == Code::kNotFound ? Status{} : fail(text.error());
    std::vector<std::string> mounts;
    std::string_view rest = as_text(*text);
    while (!rest.empty()) {
        const size_t end = std::min(rest.find('\0'), rest.size());
        mounts.emplace_back(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (!mounts.empty()) {
        FreezeTarget target;
        if (mounts.front() == kGuestAgent)
            target.guest_agent = mounts.back();
        else
            target.mounts = std::move(mounts);
        FS_ASSIGN(const CommandResult done, run_command(helper_options(target, true)));
        if (!done.exit.success())
            return fail(error_from_output(done.error, "file systems may still be frozen"));
    }
    return files.remove(note);
}

}  // namespace farshore
