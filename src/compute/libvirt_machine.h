// A recovery machine on a libvirt host, for libvirt_compute.cc: see there, and recovery_machine.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compute/disk_door.h"
#include "compute/libvirt_host.h"
#include "compute/recovery_machine.h"

namespace farshore {

class LibvirtMachine final : public RecoveryMachine {
  public:
    LibvirtMachine(std::shared_ptr<LibvirtHost> host, std::string domain, MachinePlace place,
                   std::shared_ptr<const DiskDoor> door);

    bool alive() override;
    Result<MachineState> state() override;
    Result<MachineActivity> activity() override;
    Result<TrialSample> trial_sample() override;
    Status tend(bool served) override;
    Status press_power_button() override;
    Status kill() override;
    Status screenshot(const std::string& path) override;
    Result<uint16_t> forward_port(uint16_t guest_port) override;
    Result<size_t> taken_connections(uint16_t guest_port) override;
    Status begin_copy(const DiskCopyOrder& order) override;
    Result<CopyState> copy_state(const DiskCopyOrder& order) override;
    Result<int64_t> switch_over(const DiskCopyOrder& order, const std::function<Status()>& note,
                                int timeout_ms) override;
    Status end_copy(const DiskCopyOrder& order) override;

    // Has its serial port from now on: serial.log and serial.sock in the run directory.
    Status listen();

  private:
    Result<LibvirtDomain> domain();

    std::shared_ptr<LibvirtHost> host_;
    std::string domain_;
    MachinePlace place_;
    std::shared_ptr<const DiskDoor> door_;
    std::unique_ptr<SerialPort> serial_;
    int64_t listen_again_us_ = 0;
};

}  // namespace farshore
