// Recovery machines on a libvirt host: domains that are defined there, so that the host's people
// see them, and go when they are cleaned up. One interface with QEMU here: recovery_machine.h.
//
// What is ours at the host is named "farshore-SCOPE.ID", SCOPE being six hexadecimal digits of
// LibvirtOptions::scope: two vaults share a host without meeting; a reservation on a network of the
// host's people "farshore-SCOPE-ID-CARD". A domain runs without us; while
// nobody hears its serial port, what it says is lost. Disks that cannot be read or written for a
// while pause it, and tend() lets it go on with the same request.
#pragma once

#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "compute/disk_door.h"
#include "compute/recovery_machine.h"

namespace farshore {

class LibvirtHost;

struct LibvirtOptions {
    std::string name;  // of the compute host
    std::string uri;   // as virConnectOpen takes it
    std::string scope;
    std::optional<Accelerator> accelerator;  // none: KVM when the host offers it
    // The group whose members may open the disks' sockets: the host's QEMU. Empty: nobody but us.
    std::string disks_group;
    std::optional<DisksOverTls> disks_over_tls;  // instead of sockets
    std::string
        run_root;  // in which the machines' run directories are, for check(); empty: unknown
};

// What `check_host` finds.
struct LibvirtReport {
    std::string hostname;
    std::string libvirt_version, hypervisor_version;  // "9.0.0"
    bool kvm = false;
    uint32_t cpus = 0;
    uint64_t memory_bytes = 0, free_memory_bytes = 0;
    std::vector<std::string> networks;  // that run
    int64_t round_trip_us = 0;
};

class LibvirtCompute final : public RecoveryCompute {
  public:
    explicit LibvirtCompute(LibvirtOptions options);
    ~LibvirtCompute() override;

    Result<LibvirtReport> report();

    std::string where() const override { return options_.uri; }
    Result<AcceleratorVerdict> accelerator() override;
    Result<HostCapacity> room() override;
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
    std::string domain_name(const MachinePlace& place) const;
    Result<std::vector<DomainCard>> plug_in(const MachineOrder& order);
    Status make_network(const std::string& name);
    Status remove_networks(const MachinePlace& place);
    std::string reservation_prefix(const MachinePlace& place) const;
    Status reserve(const MachineOrder& order);
    Status remove_reservations(const MachinePlace& place);
    Result<std::unique_ptr<RecoveryMachine>> run(const MachineOrder& order);
    Result<std::string> definition(const MachineOrder& order);

    const LibvirtOptions options_;
    const std::string prefix_;  // of all names: "farshore-3fa9c1"
    const std::shared_ptr<const DiskDoor> door_;
    const std::shared_ptr<LibvirtHost> host_;
    // Shared: from the making of a network until a machine is on it. Alone: while those go on
    // which nobody is.
    std::shared_mutex networks_mutex_;
};

}  // namespace farshore
