#include "compute/disk_door.h"

#include <fmt/core.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "compute/nbd_front.h"

namespace farshore {
namespace {

std::string socket_in(const std::string& run_directory) { return run_directory + "/nbd.sock"; }

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
                        "/run/farshore");
    }
    return {};
}

}  // namespace

DiskDoor::DiskDoor(std::string group, std::optional<DisksOverTls> tls)
    : group_(std::move(group)), tls_(std::move(tls)) {}

Result<DomainDisk> DiskDoor::open(const std::string& run_directory) const {
    DomainDisk disk;
    if (!tls_) {
        FS_TRY(share(run_directory));
        disk.socket_path = socket_in(run_directory);
        return disk;
    }
    auto front = NbdFront::adopt(run_directory);
    if (!front)
        front = NbdFront::start({.run_directory = run_directory,
                                 .listen_address = tls_->address,
                                 .first_port = tls_->first_port,
                                 .last_port = tls_->last_port,
                                 .target_socket = socket_in(run_directory),
                                 .server = tls_->server,
                                 .authority_pem = tls_->authority_pem,
                                 .client_name = tls_->client_name});
    if (!front) return fail(front.error());
    disk.address = tls_->address;
    disk.port = front->port();
    return disk;
}

Status DiskDoor::close(const std::string& run_directory) const {
    // Also one that was opened when the host was set otherwise.
    return NbdFront::clean_up(run_directory);
}

Status DiskDoor::share(const std::string& run_directory) const {
    if (group_.empty()) return {};
    FS_ASSIGN(const gid_t id, group_id(group_));
    const std::string socket = socket_in(run_directory);
    if (::access(socket.c_str(), F_OK) != 0) return {};
    FS_TRY(give(socket, id, 0660));
    FS_TRY(give(run_directory, id, 0710));
    // What is in it beside this machine's directory has rights of its own.
    const std::string all = run_directory.substr(0, run_directory.rfind('/'));
    struct stat now {};
    if (::stat(all.c_str(), &now) == 0 && now.st_uid == ::geteuid() &&
        (now.st_mode & S_IXOTH) == 0 && ::chmod(all.c_str(), (now.st_mode & 07777) | S_IXOTH) != 0)
        return fail(Error::from_errno(errno, all));
    return lets_through(run_directory, id, group_);
}

}  // namespace farshore
