// A recovery machine: QEMU started from a MachineDescription on disks that NBD servers give it.
//
// QEMU outlives us: a QemuMachine is a handle, letting go of it leaves the machine running, adopt()
// finds it again after our restart. Its files are in its run directory, which the caller makes and
// owns: qmp.sock, serial.sock (one client at a time), serial.log (all that the serial port ever
// said), qga.sock (the guest agent: compute/guest_agent.h), vnc.sock, qemu.pid, qemu.log,
// efivars.fd. One thread at a time. Blocking.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "compute/accelerator.h"
#include "compute/machine_description.h"
#include "compute/network_choice.h"
#include "os/process.h"

namespace farshore {

class QmpClient;

struct NbdDisk {
    std::string socket_path;
    std::string export_name;
};

struct QemuOptions {
    std::string run_directory;
    MachineDescription machine;
    std::vector<NbdDisk> disks;           // one for each of machine.disks
    std::vector<NetworkChoice> networks;  // of machine.nics, by place; the others are isolated
    std::string segment_scope;            // segment_address()
    Accelerator accelerator = Accelerator::kTcg;
    bool vnc = true;
    // How long the guest's requests wait for an NBD server that is being restarted.
    uint32_t reconnect_delay_s = 60;
    int start_timeout_ms = 30000;
};

enum class MachineState : uint8_t {
    kRunning,
    kPaused,
    kFailed,   // panicked, internal error, I/O error
    kStopped,  // shut down, or the process is gone
};
std::string_view machine_state_name(MachineState state);

struct MachineActivity {
    uint64_t read_operations = 0;  // of all disks
    uint64_t read_bytes = 0;
    uint64_t write_operations = 0;
    uint64_t write_bytes = 0;
};

// QEMU's arguments, the program first. For tests and logs. `machine_types`: what this QEMU knows,
// e.g. "pc-q35-7.2"; empty: take the description's word. A card on a bridge has its port as the
// descriptor 3 + its place. kUnsupported, kInvalidArgument.
Result<std::vector<std::string>> qemu_arguments(const QemuOptions& options,
                                                const std::vector<std::string>& machine_types);

// Of what QEMU's monitor says to `info usernet`: the host's port that leads to that of the guest;
// how many connections to it the guest has taken.
std::optional<uint16_t> usernet_forward(std::string_view text, uint16_t guest_port);
size_t usernet_taken(std::string_view text, uint16_t guest_port);

class QemuMachine {
  public:
    // Returns when the machine runs. kAlreadyExists when one runs in the directory, kGuestFailed
    // with QEMU's own words when it ends at once, kLimitReached when that was for want of memory,
    // kDependencyMissing (QEMU, UEFI firmware, a bridge), kForbidden (a bridge).
    static Result<QemuMachine> start(const QemuOptions& options);
    // The machine that runs in that directory. kNotFound when it has ended.
    static Result<QemuMachine> adopt(const std::string& run_directory);
    // Ends whatever machine runs in the directory and removes its files (the logs too). Ok when
    // there is nothing.
    static Status clean_up(const std::string& run_directory);

    QemuMachine(QemuMachine&&) noexcept;
    QemuMachine& operator=(QemuMachine&&) noexcept;
    ~QemuMachine();

    bool alive() const { return process_.is_alive(); }
    const ProcessKey& process_key() const { return process_.key(); }
    Result<MachineState> state();
    Result<MachineActivity> activity();
    // What TrialWatch wants; `age_ms` is the caller's.
    Result<TrialSample> trial_sample();
    // The power button, which a guest may ignore.
    Status press_power_button();
    // The power button; after `grace_ms` QEMU ends, its disks flushed. Then SIGKILL.
    Status stop(int grace_ms);
    Status kill();

    // What its first screen shows, as PNG, into a file that is made.
    Status screenshot(const std::string& path);
    // Lets the host reach a TCP port of the guest, which still reaches nothing: the port at
    // 127.0.0.1. The guest must have its address by DHCP. kUnsupported unless its first card is on
    // an isolated or a user network.
    Result<uint16_t> forward_port(uint16_t guest_port);
    // Of connections through forward_port(): how many the guest has taken.
    Result<size_t> taken_connections(uint16_t guest_port);

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

}  // namespace farshore
