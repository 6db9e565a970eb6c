// A recovery machine: QEMU started from a MachineDescription on disks that NBD servers give it.
//
// QEMU outlives us: a QemuMachine is a handle, letting go of it leaves the machine running, adopt()
// finds it again after our restart. Its files are in its run directory: qmp.sock, serial.sock (one
// client at a time), serial.log (all that the serial port ever said), qga.sock (the guest agent:
// compute/guest_agent.h), vnc.sock, qemu.pid, qemu.log, efivars.fd. One thread at a time. Blocking.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "compute/recovery_machine.h"
#include "os/process.h"

namespace farshore {

class QmpClient;

// Of what QEMU's monitor says to `info usernet`: the host's port that leads to that of the guest;
// how many connections to it the guest has taken.
std::optional<uint16_t> usernet_forward(std::string_view text, uint16_t guest_port);
size_t usernet_taken(std::string_view text, uint16_t guest_port);

class QemuMachine final : public RecoveryMachine {
  public:
    // Returns when the machine runs. kAlreadyExists when one runs in the directory, kGuestFailed
    // with QEMU's own words when it ends at once, kLimitReached when that was for want of memory,
    // kDependencyMissing (QEMU, UEFI firmware, a bridge), kForbidden (a bridge).
    static Result<QemuMachine> start(const MachineOrder& order);
    // The machine that runs in that directory. kNotFound when it has ended.
    static Result<QemuMachine> adopt(const std::string& run_directory);
    // Ends whatever machine runs in the directory and removes its files (the logs too). Ok when
    // there is nothing.
    static Status clean_up(const std::string& run_directory);

    QemuMachine(QemuMachine&&) noexcept;
    QemuMachine& operator=(QemuMachine&&) noexcept;
    ~QemuMachine() override;

    bool alive() override { return process_.is_alive(); }
    const ProcessKey& process_key() const { return process_.key(); }
    Result<MachineState> state() override;
    Result<MachineActivity> activity() override;
    Result<TrialSample> trial_sample() override;
    Status tend(bool /*served*/) override { return {}; }
    Status press_power_button() override;
    // The power button; after `grace_ms` QEMU ends, its disks flushed. Then SIGKILL.
    Status stop(int grace_ms);
    Status kill() override;
    Status screenshot(const std::string& path) override;
    // kUnsupported unless its first card is on an isolated or a user network.
    Result<uint16_t> forward_port(uint16_t guest_port) override;
    Result<size_t> taken_connections(uint16_t guest_port) override;
    Status begin_copy(const DiskCopyOrder& order) override;
    Result<CopyState> copy_state(const DiskCopyOrder& order) override;
    Result<int64_t> switch_over(const DiskCopyOrder& order, const std::function<Status()>& note,
                                int timeout_ms) override;
    Status end_copy(const DiskCopyOrder& order) override;

    std::string serial_log() const { return run_directory_ + "/serial.log"; }
    std::string vnc_socket() const { return run_directory_ + "/vnc.sock"; }
    std::string qmp_socket() const { return run_directory_ + "/qmp.sock"; }
    std::string agent_socket() const { return run_directory_ + "/qga.sock"; }

  private:
    QemuMachine(Process process, std::string run_directory);
    Result<QmpClient*> qmp();
    Status remove_sockets();

    Process process_;
    std::string run_directory_;
    std::unique_ptr<QmpClient> qmp_;
    uint32_t resets_ = 0;
};

// QEMU on this machine.
class QemuCompute final : public RecoveryCompute {
  public:
    // As ProbeOptions; `verdict_path`: its state_path. `files` is borrowed.
    QemuCompute(FileSystem& files, std::string verdict_path, std::string configured);

    std::string where() const override { return {}; }
    // At once, by what is known.
    Result<AcceleratorVerdict> accelerator() override;
    Result<HostCapacity> room() override { return host_capacity(); }
    Status check(const MachineDescription& machine,
                 const std::vector<NetworkChoice>& networks) override;
    Status check_addresses(const MachineDescription& machine,
                           const std::vector<NetworkChoice>& networks,
                           const CardAddresses& addresses) override;
    Result<std::unique_ptr<RecoveryMachine>> start(const MachineOrder& order) override;
    Result<std::unique_ptr<RecoveryMachine>> adopt(const MachinePlace& place) override;
    Status clean_up(const MachinePlace& place) override;
    Result<GuestAgent> guest_agent(const MachinePlace& place, int timeout_ms) override;
    MachineDoors doors(const MachinePlace& place) const override;
    Status let_go(const MachineOrder& order, const std::string& script) override;

  private:
    FileSystem& files_;
    std::string verdict_path_, configured_;
};

}  // namespace farshore
