// What a protected machine is made of, so that the same machine can be started elsewhere: read from
// a running QEMU at protection, kept by the vault as JSON, used at failover.
//
// A plain value. Sizes are bytes. JSON: unknown fields are ignored, missing ones take the defaults
// below; decode refuses what is out of range with the field's name (kMalformed, kTooLarge).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

class QmpClient;

inline constexpr size_t kMaxMachineJsonBytes = 64u << 10;
inline constexpr size_t kMaxMachineDisks = 64;  // as kMaxDisks of the record codec
inline constexpr size_t kMaxMachineNics = 32;
inline constexpr uint32_t kMaxMachineCpus = 1024;
inline constexpr uint64_t kMinMachineMemoryBytes = 1u << 20;
inline constexpr uint64_t kMaxMachineMemoryBytes = 64ull << 40;

enum class Firmware : uint8_t { kBios, kUefi };
// The three after kNvme are SCSI host adapters of other hypervisors and of servers: a system that
// was installed on one need not have the driver of another in its initramfs.
enum class DiskBus : uint8_t {
    kVirtioBlk,
    kVirtioScsi,
    kScsi,  // LSI 53C895A
    kIde,   // AHCI on q35
    kNvme,
    kPvscsi,
    kMegasas,
    kMptSas,
};

std::string_view firmware_name(Firmware firmware);  // "bios", "uefi"
// "virtio-blk", "virtio-scsi", "scsi", "ide", "nvme", "pvscsi", "megasas", "mptsas"
std::string_view disk_bus_name(DiskBus bus);

struct MachineDisk {
    DiskIndex index = 0;
    DiskBus bus = DiskBus::kVirtioBlk;
    uint64_t size_bytes = 0;
    bool read_only = false;
    std::string serial;
    uint32_t logical_block_bytes = 512;  // 512 or 4096
    std::optional<uint32_t> boot_index;  // smaller boots first; none: after all that have one
    std::string pci_address;             // "05.0" on the root bus, else empty: QEMU chooses
    // Where it was at the source; of no use elsewhere.
    std::string node_name;  // QEMU's block node
    std::string qdev;       // QEMU's device id or path
    std::string path;
};

struct MachineNic {
    std::string model = "virtio-net-pci";  // a QEMU device
    std::string mac;                       // "52:54:00:12:34:56"; empty: QEMU chooses
    std::string pci_address;
};

struct MachineDescription {
    std::string name;
    std::string uuid;  // SMBIOS; empty: none
    std::string architecture = "x86_64";
    std::string machine_type = "q35";  // QEMU's, possibly with its version
    Firmware firmware = Firmware::kBios;
    uint32_t cpus = 2;
    uint32_t sockets = 0, cores = 0, threads = 0;  // 0: QEMU chooses
    uint64_t memory_bytes = 2048ull << 20;
    int64_t rtc_offset_s = 0;        // the guest's hardware clock minus UTC, e.g. local time
    std::vector<MachineDisk> disks;  // by index, from 0 without a hole
    std::vector<MachineNic> nics;
};

// A machine that is known by its disks only: 2 CPUs, 2 GiB, BIOS, virtio disks, one virtio NIC.
struct PlainDisk {
    std::string path;
    uint64_t size_bytes = 0;
    std::optional<DiskIndex> index{};  // none: its place among them
};
MachineDescription describe_plain_machine(const std::string& name,
                                          const std::vector<PlainDisk>& disks);

// What a person wants otherwise than it was at the source.
struct MachineOverrides {
    std::optional<uint32_t> cpus;
    std::optional<uint64_t> memory_bytes;
    std::optional<Firmware> firmware;
    std::optional<DiskBus> disk_bus;
    std::optional<std::string> nic_model;
};
void apply_overrides(MachineDescription& machine, const MachineOverrides& overrides);

// Reads a running QEMU. Disks: every hard disk with a device in front of it, in QEMU's order;
// CD-ROMs, floppies and firmware flash are left out. `now` is compared with the guest's clock.
// kUnsupported when a disk's device model is none that can be started again.
Result<MachineDescription> capture_machine(QmpClient& qmp, const std::string& name, TimePoint now);

// A hardware clock minus UTC. Time zones are whole quarters of an hour; what is less is a clock
// that is not exact, what is over a day one that was never set: 0.
int64_t rtc_offset_of(int64_t hardware_clock_s, TimePoint now);

std::string encode_machine(const MachineDescription& machine);
Result<MachineDescription> decode_machine(std::string_view json);

}  // namespace farshore
