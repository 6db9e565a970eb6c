#include "os/script_runs.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "os/process_group.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/remove_directory.h"
#include "os/waiting.h"

namespace farshore {
namespace {

// What holds the program: it waits for the word, notes that it has begun and how it ended. Of the
// output the first bytes are kept at once; the rest is read, so that nobody waits. How it ended is
// on the disk before it has its name: a full disk or a power cut leaves none, never another one.
constexpr const char* kWrapper = R"sh(
d=$1 limit=$2; shift 2
read -r word; [ "$word" = go ] || exit 0
: > "$d/begun" || exit 0
{ "$@" < /dev/null; code=$?
  echo "$code" > "$d/status.new" && sync "$d/status.new" && mv "$d/status.new" "$d/status"; } 2>&1 |
{ stdbuf -o0 head -c "$limit" > "$d/output"; exec cat > /dev/null; }
)sh";

// What a program has left in its pipe when it ends.
constexpr int kDrainMs = 500;
// Until a group that was killed is gone.
constexpr int kKilledMs = 2000;

// Of our own environment a script gets these and no more: the vault's may hold secrets of stores.
constexpr std::array<const char*, 3> kInherited{"PATH", "LANG", "HOME"};
constexpr const char* kUsualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string pid_path(const std::string& directory) { return directory + "/pid"; }

}  // namespace

Status ScriptRuns::begin(const std::string& handle, const ScriptRequest& request) {
    // One that is there is taken up; what is wrong with it, look() says.
    if (const auto known = look(handle); known || known.error().code() != Code::kNotFound)
        return {};
    FS_TRY(check_program_file(request.program));
    const std::string where = directory(handle);
    FS_TRY(remove_directory(files_, where));
    FS_TRY(files_.make_directories(where));
    ProcessOptions options;
    options.arguments = {"/usr/bin/env", "-i"};
    for (const char* name : kInherited) {
        const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
        if (value == nullptr && std::string_view(name) == "PATH") value = kUsualPath;
        if (value != nullptr) options.arguments.push_back(fmt::format("{}={}", name, value));
    }
    for (const auto& [name, value] : request.environment)
        options.arguments.push_back(fmt::format("{}={}", name, value));
    for (const std::string& word :
         {std::string("/bin/sh"), std::string("-c"), std::string(kWrapper), std::string("sh"),
          where, std::to_string(output_bytes_), request.program})
        options.arguments.push_back(word);
    options.arguments.insert(options.arguments.end(), request.arguments.begin(),
                             request.arguments.end());
    options.directory = "/";
    options.input = StdStream::pipe();
    options.new_session = true;
    FS_ASSIGN(Process process, Process::spawn(options));
    FS_TRY(write_pid_file(files_, pid_path(where), process.key()));
    return give_word(process, "go\n");
}

Result<std::optional<ScriptResult>> ScriptRuns::look(const std::string& handle) {
    const std::string where = directory(handle);
    FS_ASSIGN(const bool noted, files_.exists(pid_path(where)));
    if (!noted)
        return fail(Code::kNotFound, fmt::format("nothing runs as '{}'", handle.substr(0, 64)));
    const auto status = [&]() -> Result<std::optional<int>> {
        const auto text = read_whole_file(files_, where + "/status", 64);
        if (!text && text.error().code() == Code::kNotFound) return std::optional<int>();
        FS_TRY(text);
        int code = -1;
        const std::string_view digits = as_text(*text);
        const char* end = digits.data() + digits.size();
        const auto parsed = std::from_chars(digits.data(), end, code);
        if (parsed.ec == std::errc() && code >= 0 && code <= 255 && parsed.ptr + 1 == end &&
            *parsed.ptr == '\n')
            return code;
        return fail(Code::kOutcomeUnknown, "what was noted of the script's end is damaged",
                    "look what it has done");
    };
    const auto result = [&](std::optional<int> code) -> Result<std::optional<ScriptResult>> {
        ScriptResult made{code, {}};
        if (const auto output = read_whole_file(files_, where + "/output"))
            made.output = as_text(*output);
        return made;
    };
    FS_ASSIGN(auto code, status());
    if (code) {
        // What it has left behind in its group ends with it, and does not keep what it said.
        if (auto leader = adopt_from_pid_file(files_, pid_path(where)); leader) {
            if (!wait_until(kDrainMs, 10, [&] { return !leader->is_alive(); })) {
                (void)kill_group(*leader);
                wait_until(kDrainMs, 10, [&] { return !leader->is_alive(); });
            }
        }
        return result(code);
    }
    const auto leader = adopt_from_pid_file(files_, pid_path(where));
    if (leader) return std::optional<ScriptResult>();
    if (leader.error().code() != Code::kNotFound) return tl::unexpected(leader.error());
    FS_ASSIGN(code, status());  // it ended between the two looks
    if (code) return result(code);
    FS_ASSIGN(const bool ended, files_.exists(where + "/ended"));
    if (ended) return result({});
    FS_ASSIGN(const bool begun, files_.exists(where + "/begun"));
    FS_ASSIGN(const ProcessKey key, read_pid_file(files_, pid_path(where)));
    const auto boot = host_boot_id();
    if (!begun && boot && *boot == key.boot)
        return fail(Code::kNotFound, fmt::format("'{}' was not begun", handle.substr(0, 64)));
    return fail(Code::kOutcomeUnknown,
                "the script ended with the machine that it ran on, or was killed: nobody knows how "
                "far it came",
                "look what it has done");
}

Status ScriptRuns::end(const std::string& handle) {
    const std::string where = directory(handle);
    auto leader = adopt_from_pid_file(files_, pid_path(where));
    if (!leader) return leader.error().code() == Code::kNotFound ? Status() : fail(leader.error());
    // First, so that whoever looks then knows why; on a full disk it is ended all the same.
    const Status noted = write_file_durably(files_, where + "/ended", {});
    const Status killed = kill_group(*leader);
    if (!killed && killed.error().code() != Code::kNotFound) return killed;
    wait_until(kKilledMs, 5, [&] { return !leader->is_alive(); });
    return noted;
}

Status ScriptRuns::forget(const std::string& handle) {
    if (const Status ended = end(handle); !ended)
        if (auto left = adopt_from_pid_file(files_, pid_path(directory(handle))); left)
            return ended;
    return remove_directory(files_, directory(handle));
}

}  // namespace farshore
