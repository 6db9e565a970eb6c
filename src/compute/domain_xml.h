// A recovery machine as libvirt is told of it: https://libvirt.org/formatdomain.html (libvirt 9.0).
// The hardware is what qemu_arguments.h gives QEMU, so that the guest finds the same machine.
//
// Plain functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "compute/recovery_machine.h"

namespace farshore {

// Where the host's QEMU reads a disk.
struct DomainDisk {
    std::string export_name;
    std::string socket_path;  // of the host; or, empty, over TLS:
    std::string address;
    uint16_t port = 0;
    std::string server_name;  // that its certificate must have
    bool spare = false;       // as DiskSource's
    std::optional<DiskFile> file = {};
};

struct DomainCard {
    enum class Plug : uint8_t { kUser, kNetwork, kBridge, kNone } plug = Plug::kNone;
    std::string name;  // of the network or the bridge
};

struct DomainOrder {
    std::string name;   // of the domain, at its host
    std::string uuid;   // of the domain, and SMBIOS
    std::string title;  // for people
    MachineDescription machine;
    std::vector<DomainDisk> disks;  // one for each of machine.disks
    std::vector<DomainCard> cards;  // one for each of machine.nics
    Accelerator accelerator = Accelerator::kTcg;
    std::vector<std::string> machine_types;  // what the host knows
};

// kUnsupported (architecture, machine type, a disk bus that libvirt has not), kInvalidArgument.
Result<std::string> domain_xml(const DomainOrder& order);

// The disk of a domain that becomes that file, as virDomainBlockCopy() is told.
std::string copy_target_xml(const DiskFile& file);

// A domain as libvirt writes it, without the disks that come from an NBD server. kMalformed.
Result<std::string> without_served_disks(const std::string& xml);

// A network of that name with nothing in it: no address of the host, no DHCP, no way out.
std::string closed_network_xml(const std::string& name);

// Of virConnectGetCapabilities(): what the host offers for x86_64. kMalformed.
struct HostOffer {
    bool kvm = false;
    std::vector<std::string> machine_types;
};
Result<HostOffer> read_host_offer(const std::string& capabilities_xml);

}  // namespace farshore
