// A recovery machine on a libvirt host, for libvirt_compute.cc: see there, and recovery_machine.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compute/libvirt_host.h"
#include "compute/recovery_machine.h"

namespace farshore {

class LibvirtMachine final : public RecoveryMachine {
  public:
    // `sockets`: of its disks, which the members of `group` may open; see LibvirtOptions.
    LibvirtMachine(std::shared_ptr<LibvirtHost> host, std::string domain, MachinePlace place,
                   std::string group);

    bool alive() override;
    Result<MachineState> state() override;
    Result<MachineActivity> activity() override;
    Result<TrialSample> trial_sample() override;
    Status tend() override;
    Status press_power_button() override;
    Status kill() override;
    Status screenshot(const std::string& path) override;
    Result<uint16_t> forward_port(uint16_t guest_port) override;
    Result<size_t> taken_connections(uint16_t guest_port) override;

    // Hears its serial port from now on.
    Status listen();

  private:
    Result<LibvirtDomain> domain();
    Status let_in();

    std::shared_ptr<LibvirtHost> host_;
    std::string domain_;
    MachinePlace place_;
    std::string group_;
    std::unique_ptr<SerialListener> serial_;
    int64_t listen_again_us_ = 0;
};

// The disks' socket in the run directory can be opened by the group's members, and nobody else but
// us; the directory above, when it is ours, lets everybody through. Ok for no group, and without a
// socket. kNotFound (the group), kForbidden (we are not in it; a directory above lets nobody
// through).
Status share_disks(const std::string& run_directory, const std::string& group);

}  // namespace farshore
