#include "os/share_socket.h"

#include <fmt/core.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace farshore {
namespace {

Result<gid_t> group_id(const std::string& group) {
    std::vector<char> room(64u << 10);
    struct group entry {
    }, *found = nullptr;
    const int failed = getgrnam_r(group.c_str(), &entry, room.data(), room.size(), &found);
    if (failed != 0 || found == nullptr)
        return fail(Code::kNotFound,
                    fmt::format("there is no group '{}', whose members are to open the machine's "
                                "disks",
                                group),
                    "name the group of the host's QEMU with --disks-group");
    return entry.gr_gid;
}

Status give(const std::string& path, gid_t group, mode_t mode) {
    struct stat now {};
    if (::stat(path.c_str(), &now) != 0) return fail(Error::from_errno(errno, path));
    if (now.st_gid == group && (now.st_mode & 07777) == mode) return {};
    if (::chown(path.c_str(), static_cast<uid_t>(-1), group) != 0)
        return fail(Error::from_errno(errno, path).with_context("the group of a machine's disks"));
    if (::chmod(path.c_str(), mode) != 0) return fail(Error::from_errno(errno, path));
    return {};
}

// As access(2) asks it of directories, for a member of the group who is nobody else.
Status lets_through(std::string path, gid_t group, const std::string& name) {
    for (size_t slash = path.rfind('/'); slash != std::string::npos && slash != 0;
         slash = path.rfind('/')) {
        path.resize(slash);
        struct stat now {};
        if (::stat(path.c_str(), &now) != 0) return fail(Error::from_errno(errno, path));
        const bool through =
            now.st_gid == group ? (now.st_mode & S_IXGRP) != 0 : (now.st_mode & S_IXOTH) != 0;
        if (!through)
            return fail(Code::kForbidden,
                        fmt::format("members of '{}' cannot open the machine's disks: {} does not "
                                    "let them through",
                                    name, path),
                        "start the vault with a --run-directory that everybody may pass, such as "
                        "/run/farshore-vault");
    }
    return {};
}

}  // namespace

Status share_socket(const std::string& socket, const std::string& group) {
    FS_ASSIGN(const gid_t id, group_id(group));
    const std::string run_directory = socket.substr(0, socket.rfind('/'));
    if (::access(socket.c_str(), F_OK) != 0) return {};
    FS_TRY(give(socket, id, 0660));
    FS_TRY(give(run_directory, id, 0710));
    // What is in it beside this machine's directory has rights of its own.
    const std::string all = run_directory.substr(0, run_directory.rfind('/'));
    struct stat now {};
    if (::stat(all.c_str(), &now) == 0 && now.st_uid == ::geteuid() &&
        (now.st_mode & S_IXOTH) == 0 && ::chmod(all.c_str(), (now.st_mode & 07777) | S_IXOTH) != 0)
        return fail(Error::from_errno(errno, all));
    return lets_through(run_directory, id, group);
}

Status can_share(const std::string& root, const std::string& group) {
    FS_ASSIGN(const gid_t id, group_id(group));
    if (::geteuid() != 0 && ::getegid() != id) {
        std::vector<gid_t> ours(static_cast<size_t>(std::max(0, ::getgroups(0, nullptr))));
        if (::getgroups(static_cast<int>(ours.size()), ours.data()) < 0 ||
            std::find(ours.begin(), ours.end(), id) == ours.end())
            return fail(
                Code::kForbidden,
                fmt::format("this program may give nothing to the group '{}', whose members "
                            "are to open the machine's disks",
                            group),
                "add its user to the group, and start it again");
    }
    struct stat now {};
    // One that is ours is opened then.
    if (::stat(root.c_str(), &now) == 0 && now.st_uid != ::geteuid())
        return lets_through(root + "/x", id, group);
    return lets_through(root, id, group);
}

}  // namespace farshore
