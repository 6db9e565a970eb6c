#include "compute/libvirt_machine.h"

#include <fmt/core.h>

#include <vector>

#include "base/text.h"
#include "os/real.h"

namespace farshore {
namespace {

// Of a tick, which has other machines to look after.
constexpr int kPatienceMs = 500;
constexpr int64_t kListenAgainUs = 5'000'000;
constexpr size_t kMaxScreenBytes = 64u << 20;

}  // namespace

LibvirtMachine::LibvirtMachine(std::shared_ptr<LibvirtHost> host, std::string domain,
                               MachinePlace place, std::shared_ptr<const DiskDoor> door)
    : host_(std::move(host)),
      domain_(std::move(domain)),
      place_(std::move(place)),
      door_(std::move(door)) {}

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

Status LibvirtMachine::tend(bool served) {
    if (served) FS_TRY(door_->open(place_, domain_));
    FS_ASSIGN(const LibvirtDomain found, domain());
    int now = 0, reason = 0;
    if (virDomainGetState(found.get(), &now, &reason, 0) != 0)
        return fail(host_->error("the machine's state"));
    if (now == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_IOERROR &&
        virDomainResume(found.get()) != 0)
        return fail(host_->error("going on with the machine"));
    const int64_t now_us = RealClock().steady_us();
    if (now == VIR_DOMAIN_RUNNING && (!serial_ || !serial_->is_open()) &&
        now_us >= listen_again_us_) {
        listen_again_us_ = now_us + kListenAgainUs;
        return listen();
    }
    return {};
}

Status LibvirtMachine::listen() {
    FS_ASSIGN(const LibvirtDomain found, domain());
    serial_.reset();
    const std::string& run = place_.run_directory;
    FS_ASSIGN(serial_,
              SerialPort::open(*host_, found.get(), run + "/serial.log", run + "/serial.sock"));
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
    const std::string type = taken(kind);
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
