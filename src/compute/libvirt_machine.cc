#include "compute/libvirt_machine.h"

#include <fmt/core.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "base/text.h"
#include "os/real.h"

namespace farshore {
namespace {

// Of a tick, which has other machines to look after.
constexpr int kPatienceMs = 500;
constexpr int64_t kListenAgainUs = 5'000'000;
constexpr size_t kMaxScreenBytes = 64u << 20;

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

Status share_disks(const std::string& run_directory, const std::string& group) {
    if (group.empty()) return {};
    FS_ASSIGN(const gid_t id, group_id(group));
    const std::string socket = run_directory + "/nbd.sock";
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

LibvirtMachine::LibvirtMachine(std::shared_ptr<LibvirtHost> host, std::string domain,
                               MachinePlace place, std::string group)
    : host_(std::move(host)),
      domain_(std::move(domain)),
      place_(std::move(place)),
      group_(std::move(group)) {}

Result<LibvirtDomain> LibvirtMachine::domain() { return host_->domain(domain_, kPatienceMs); }

bool LibvirtMachine::alive() {
    const auto now = state();
    return !now || (*now != MachineState::kStopped && *now != MachineState::kLost);
}

Result<MachineState> LibvirtMachine::state() {
    const auto found = domain();
    if (!found && found.error().code() == Code::kNotFound) return MachineState::kStopped;
    if (!found) return fail(found.error());
    int now = 0, reason = 0;
    if (virDomainGetState(found->get(), &now, &reason, 0) != 0)
        return fail(host_->error("the machine's state"));
    switch (now) {
        case VIR_DOMAIN_RUNNING:
        case VIR_DOMAIN_BLOCKED:
        case VIR_DOMAIN_SHUTDOWN:
            return MachineState::kRunning;
        case VIR_DOMAIN_CRASHED:
            return MachineState::kFailed;
        case VIR_DOMAIN_SHUTOFF:
            // libvirt keeps the reason only as long as it runs itself: a guest that shut itself
            // down while neither its libvirt nor we were there looks like this, too.
            return reason == VIR_DOMAIN_SHUTOFF_UNKNOWN || reason == VIR_DOMAIN_SHUTOFF_DAEMON
                       ? MachineState::kLost
                       : MachineState::kStopped;
        default:
            return reason == VIR_DOMAIN_PAUSED_CRASHED ? MachineState::kFailed
                                                       : MachineState::kPaused;
    }
}

Result<MachineActivity> LibvirtMachine::activity() {
    FS_ASSIGN(const LibvirtDomain found, domain());
    virDomainBlockStatsStruct all{};
    // Without a name: of all disks.
    if (virDomainBlockStats(found.get(), "", &all, sizeof all) != 0)
        return fail(host_->error("what the machine reads and writes"));
    const auto count = [](long long n) { return n < 0 ? 0 : static_cast<uint64_t>(n); };
    return MachineActivity{count(all.rd_req), count(all.rd_bytes), count(all.wr_req),
                           count(all.wr_bytes)};
}

Result<TrialSample> LibvirtMachine::trial_sample() {
    return fail(Code::kUnsupported, "machines on libvirt hosts are not on trial");
}

Status LibvirtMachine::let_in() { return share_disks(place_.run_directory, group_); }

Status LibvirtMachine::tend() {
    // A server that was started anew has a new socket.
    FS_TRY(let_in());
    FS_ASSIGN(const LibvirtDomain found, domain());
    int now = 0, reason = 0;
    if (virDomainGetState(found.get(), &now, &reason, 0) != 0)
        return fail(host_->error("the machine's state"));
    if (now == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_IOERROR &&
        virDomainResume(found.get()) != 0)
        return fail(host_->error("going on with the machine"));
    const int64_t now_us = RealClock().steady_us();
    if (now == VIR_DOMAIN_RUNNING && (!serial_ || !serial_->listens()) &&
        now_us >= listen_again_us_) {
        listen_again_us_ = now_us + kListenAgainUs;
        return listen();
    }
    return {};
}

Status LibvirtMachine::listen() {
    FS_ASSIGN(const LibvirtDomain found, domain());
    serial_.reset();
    FS_ASSIGN(serial_,
              SerialListener::open(*host_, found.get(), place_.run_directory + "/serial.log"));
    return {};
}

Status LibvirtMachine::press_power_button() {
    FS_ASSIGN(const LibvirtDomain found, domain());
    if (virDomainShutdownFlags(found.get(), VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) != 0)
        return fail(host_->error("the machine's power button"));
    return {};
}

Status LibvirtMachine::kill() {
    const auto found = domain();
    if (!found && found.error().code() == Code::kNotFound) return {};
    if (!found) return fail(found.error());
    if (virDomainIsActive(found->get()) == 1 && virDomainDestroy(found->get()) != 0 &&
        virDomainIsActive(found->get()) != 0)
        return fail(host_->error("ending the machine"));
    return {};
}

Status LibvirtMachine::screenshot(const std::string& path) {
    FS_ASSIGN(const LibvirtDomain found, domain());
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const LibvirtStream stream(virStreamNew(connection.get(), 0));
    if (!stream) return fail(host_->error("the machine's screen"));
    char* const kind = virDomainScreenshot(found.get(), stream.get(), 0, 0);
    if (kind == nullptr) return fail(host_->error("the machine's screen"));
    const std::string type(kind);
    free(kind);
    Bytes picture;
    char bytes[65536];
    int n = 0;
    while ((n = virStreamRecv(stream.get(), bytes, sizeof bytes)) > 0 &&
           picture.size() < kMaxScreenBytes)
        picture.insert(picture.end(), bytes, bytes + n);
    if (n != 0) {
        Error error = host_->error("the machine's screen");
        (void)virStreamAbort(stream.get());
        return fail(std::move(error));
    }
    (void)virStreamFinish(stream.get());
    if (type != "image/png")
        return fail(Code::kUnsupported,
                    fmt::format("compute host '{}' makes screenshots as {}, not as PNG",
                                host_->name(), plain_text(type.substr(0, 60))),
                    "its QEMU is too old: 7.1 or newer makes them");
    PosixFileSystem files;
    return write_file_durably(files, path, picture);
}

Result<uint16_t> LibvirtMachine::forward_port(uint16_t guest_port) {
    return fail(Code::kUnsupported,
                fmt::format("port {} of the machine cannot be reached: it runs on the libvirt host "
                            "'{}'",
                            guest_port, host_->name()),
                "wait for its agent or its serial port instead, or look at the port by a check "
                "inside of it");
}

Result<size_t> LibvirtMachine::taken_connections(uint16_t guest_port) {
    FS_TRY(forward_port(guest_port));
    return 0;
}

}  // namespace farshore
