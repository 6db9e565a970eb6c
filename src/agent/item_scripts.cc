#include "agent/item_scripts.h"

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "os/process.h"

namespace farshore {
namespace {

constexpr size_t kShownOutput = 300;

Error unsafe(const std::string& path, std::string_view what) {
    return Error(Code::kForbidden, fmt::format("{} {}", path, what),
                 "scripts and their directories belong to root or the agent's user, and nobody "
                 "else may write them: chown, chmod go-w");
}

// False: it is not there.
Result<bool> check(const std::string& path, bool directory) {
    struct stat found {};
    if (::lstat(path.c_str(), &found) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return false;
        return fail(Error::from_errno(errno, fmt::format("look at {}", path)));
    }
    if (directory ? !S_ISDIR(found.st_mode) : !S_ISREG(found.st_mode))
        return fail(unsafe(path, directory ? "is no directory" : "is no file"));
    if (found.st_uid != 0 && found.st_uid != ::geteuid())
        return fail(unsafe(path, "is somebody else's"));
    if ((found.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return fail(unsafe(path, "can be written by others"));
    if (!directory && (found.st_mode & S_IXUSR) == 0)
        return fail(Code::kForbidden, fmt::format("{} cannot be run", path),
                    "chmod u+x, or remove it");
    return true;
}

}  // namespace

Result<ItemScripts> find_scripts(const std::string& directory, const std::string& item_name) {
    ItemScripts scripts;
    if (directory.empty()) return scripts;
    FS_ASSIGN(const bool there, check(directory, true));
    if (!there) return scripts;
    // The vault says what an item is called.
    const bool is_name = !item_name.empty() && item_name.front() != '.' &&
                         item_name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
    std::string place = directory;
    if (is_name) {
        FS_ASSIGN(const bool own, check(directory + "/" + item_name, true));
        if (own) place += "/" + item_name;
    }
    for (auto [name, path] : {std::pair("/pre", &scripts.pre), std::pair("/post", &scripts.post)}) {
        FS_ASSIGN(const bool is_there, check(place + name, false));
        if (is_there) *path = place + name;
    }
    return scripts;
}

Status run_script(const ScriptCall& call) {
    ProcessOptions options;
    options.arguments = {call.path};
    options.directory = "/";
    options.environment = {{"FARSHORE_ITEM", call.item_name},
                           {"FARSHORE_ITEM_ID", call.item.to_string()},
                           {"FARSHORE_POINT", call.label},
                           {"FARSHORE_OUTCOME", call.outcome}};
    CommandLimits limits;
    limits.timeout_us = call.timeout_us;
    limits.output_bytes = kMaxScriptOutputBytes;
    auto done = run_command(options, {}, limits);
    if (!done)
        return fail(Error(done.error().code(),
                          fmt::format("the script {}: {}", call.path, done.error().what()),
                          "run it by hand; it has a bounded time and output"));
    if (done->exit.success()) return {};
    std::string said = done->error.empty() ? done->output : done->error;
    while (!said.empty() && (said.back() == '\n' || said.back() == '\r')) said.pop_back();
    if (said.size() > kShownOutput) said.erase(0, said.size() - kShownOutput);
    said = plain_text(std::move(said));
    return fail(Code::kUnavailable,
                fmt::format("the script {} ended: {}{}{}", call.path, done->exit.to_string(),
                            said.empty() ? "" : ": ", said),
                "run it by hand and mend what it says");
}

}  // namespace farshore
