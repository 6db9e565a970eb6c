#include "compute/machine_description.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "compute/json_read.h"
#include "compute/qmp_client.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr size_t kMaxTextBytes = 256;
constexpr size_t kMaxPathTextBytes = 4096;
constexpr std::string_view kBusNames[] = {"virtio-blk", "virtio-scsi", "scsi",    "ide",
                                          "nvme",       "pvscsi",      "megasas", "mptsas"};

tl::unexpected<Error> wrong(std::string_view field, std::string_view how) {
    return fail(Code::kMalformed, fmt::format("machine description: {} {}", field, how));
}

// These words end up on QEMU's command line, inside options that commas and equals signs structure.
bool is_plain_word(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
    });
}

// A member that must be text when it is there.
Status get_text(const Json& json, const char* key, size_t limit, std::string& out) {
    const Json& value = json_at(json, key);
    if (value.is_null()) return {};
    if (!value.is_string()) return wrong(key, "must be text");
    const auto& text = value.get_ref<const std::string&>();
    if (text.size() > limit)
        return fail(Code::kTooLarge, fmt::format("machine description: {} has {} bytes, at most {} "
                                                 "are allowed",
                                                 key, text.size(), limit));
    out = text;
    return {};
}

Status get_word(const Json& json, const char* key, std::string& out) {
    FS_TRY(get_text(json, key, kMaxTextBytes, out));
    if (!is_plain_word(out)) return wrong(key, "may have letters, digits and -_.: only");
    return {};
}

template <typename Number>
Status get_number(const Json& json, const char* key, uint64_t least, uint64_t most, Number& out) {
    const Json& value = json_at(json, key);
    if (value.is_null()) return {};
    if (!value.is_number_integer()) return wrong(key, "must be a whole number");
    if (!value.is_number_unsigned() && value.get<int64_t>() < 0)
        return wrong(key, "must not be negative");
    const auto number = value.get<uint64_t>();
    if (number < least || number > most)
        return wrong(key, fmt::format("is {}, it must be {} to {}", number, least, most));
    out = static_cast<Number>(number);
    return {};
}

Result<DiskBus> bus_from_name(const std::string& name) {
    for (size_t i = 0; i < std::size(kBusNames); ++i)
        if (kBusNames[i] == name) return static_cast<DiskBus>(i);
    return wrong("bus",
                 "is '" + name.substr(0, 64) +
                     "', known are virtio-blk, virtio-scsi, scsi, ide, nvme, pvscsi, megasas, "
                     "mptsas");
}

bool valid_mac(const std::string& mac) {
    if (mac.empty()) return true;
    if (mac.size() != 17) return false;
    for (size_t i = 0; i < mac.size(); ++i)
        if (i % 3 == 2 ? mac[i] != ':' : !std::isxdigit(static_cast<unsigned char>(mac[i])))
            return false;
    return true;
}

// "1f.3": what QEMU's `addr` takes.
bool valid_pci_address(const std::string& address) {
    return address.empty() ||
           (address.size() == 4 && std::isxdigit(static_cast<unsigned char>(address[0])) &&
            std::isxdigit(static_cast<unsigned char>(address[1])) && address[2] == '.' &&
            address[3] >= '0' && address[3] <= '7');
}

// `position`: the least index that it may have, and the one that it has without one.
Result<MachineDisk> decode_disk(const Json& json, size_t position) {
    if (!json.is_object()) return wrong("disks", "must hold objects");
    MachineDisk disk;
    disk.index = static_cast<DiskIndex>(position);
    uint64_t index = position;
    FS_TRY(get_number(json, "index", 0, kMaxMachineDisks - 1, index));
    if (index < position) return wrong("disks", "must be in the order of their index");
    disk.index = static_cast<DiskIndex>(index);
    std::string bus = "virtio-blk";
    FS_TRY(get_text(json, "bus", kMaxTextBytes, bus));
    FS_ASSIGN(disk.bus, bus_from_name(bus));
    FS_TRY(get_number(json, "size_bytes", 0, 64ull << 40, disk.size_bytes));
    disk.read_only = json_bool(json, "read_only");
    FS_TRY(get_text(json, "serial", kMaxTextBytes, disk.serial));
    FS_TRY(get_number(json, "logical_block_bytes", 512, 4096, disk.logical_block_bytes));
    if (disk.logical_block_bytes != 512 && disk.logical_block_bytes != 4096)
        return wrong("logical_block_bytes", "must be 512 or 4096");
    if (!json_at(json, "boot_index").is_null()) {
        uint32_t boot_index = 0;
        FS_TRY(get_number(json, "boot_index", 0, 1'000'000, boot_index));
        disk.boot_index = boot_index;
    }
    FS_TRY(get_text(json, "pci_address", 16, disk.pci_address));
    if (!valid_pci_address(disk.pci_address)) return wrong("pci_address", "must be like 05.0");
    FS_TRY(get_text(json, "node_name", kMaxTextBytes, disk.node_name));
    FS_TRY(get_text(json, "qdev", kMaxPathTextBytes, disk.qdev));
    FS_TRY(get_text(json, "path", kMaxPathTextBytes, disk.path));
    return disk;
}

Result<MachineNic> decode_nic(const Json& json) {
    if (!json.is_object()) return wrong("nics", "must hold objects");
    MachineNic nic;
    FS_TRY(get_word(json, "model", nic.model));
    if (nic.model.empty()) return wrong("model", "must not be empty");
    FS_TRY(get_text(json, "mac", 32, nic.mac));
    if (!valid_mac(nic.mac)) return wrong("mac", "must be like 52:54:00:12:34:56");
    FS_TRY(get_text(json, "pci_address", 16, nic.pci_address));
    if (!valid_pci_address(nic.pci_address)) return wrong("pci_address", "must be like 05.0");
    return nic;
}

// ---- capture ---------------------------------------------------------------------------------

// A property of an object in QEMU's tree; null when it has none.
Result<Json> property(QmpClient& qmp, const std::string& path, const char* name) {
    auto value = qmp.execute("qom-get", {{"path", path}, {"property", name}});
    if (value) return std::move(*value);
    // QEMU answers GenericError or DeviceNotFound for what is not there: both are refusals.
    if (value.error().code() == Code::kWrongState || value.error().code() == Code::kNotFound)
        return Json();
    return fail(value.error());
}

// Where on the root bus a PCI device sits: its guest names interfaces by that. Behind a bridge the
// name depends on bridges that we do not rebuild, so nothing is kept.
Result<std::string> root_bus_address(QmpClient& qmp, const std::string& path) {
    FS_ASSIGN(const Json bus, property(qmp, path, "parent_bus"));
    if (!bus.is_string()) return std::string();
    const std::string bus_path = bus.get<std::string>();
    const bool root = bus_path.ends_with("/pcie.0") || bus_path.ends_with("/pci.0");
    if (!root) return std::string();
    FS_ASSIGN(const Json slot, property(qmp, path, "addr"));
    if (!slot.is_number_integer()) return std::string();
    const int64_t number = slot.get<int64_t>();
    if (number < 0 || number > 255) return std::string();
    return fmt::format("{:02x}.{}", number >> 3, number & 7);
}

std::string parent_path(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

// The innermost ancestor that is a PCI device, e.g. the controller of a SCSI disk.
Result<std::pair<std::string, std::string>> controller_of(QmpClient& qmp, const std::string& path) {
    FS_ASSIGN(const Json bus, property(qmp, path, "parent_bus"));
    if (!bus.is_string()) return std::pair<std::string, std::string>();
    // ".../vs0/virtio-backend/vs0.0" -> ".../vs0/virtio-backend"
    const std::string owner = parent_path(bus.get<std::string>());
    FS_ASSIGN(const Json type, property(qmp, owner, "type"));
    return std::pair(owner, type.is_string() ? type.get<std::string>() : std::string());
}

DiskBus scsi_bus(const std::string& controller) {
    if (controller.starts_with("virtio-scsi")) return DiskBus::kVirtioScsi;
    if (controller == "pvscsi") return DiskBus::kPvscsi;
    if (controller.starts_with("megasas")) return DiskBus::kMegasas;
    if (controller.starts_with("mptsas")) return DiskBus::kMptSas;
    return DiskBus::kScsi;
}

// One entry of query-block. False: not a disk of ours.
Result<bool> capture_disk(QmpClient& qmp, const Json& entry, MachineDisk& disk) {
    const Json& inserted = json_at(entry, "inserted");
    disk.qdev = json_text(entry, "qdev");
    if (!inserted.is_object() || disk.qdev.empty() || json_bool(entry, "removable")) return false;
    if (disk.qdev.starts_with("/machine/system.flash")) return false;
    // QEMU gives an id or, for want of one, a path. An id alone can be ambiguous as a path.
    const std::string device =
        disk.qdev.starts_with('/') ? disk.qdev : "/machine/peripheral/" + disk.qdev;
    FS_ASSIGN(const Json type_json, property(qmp, device, "type"));
    const std::string type = type_json.is_string() ? type_json.get<std::string>() : std::string();
    if (type.starts_with("cfi.pflash") || type == "floppy" || type == "scsi-cd" || type == "ide-cd")
        return false;

    std::string pci_device = device;
    if (type.starts_with("virtio-blk")) {
        disk.bus = DiskBus::kVirtioBlk;
        // The disk's path may be that of the virtio device inside the PCI device.
        if (device.ends_with("/virtio-backend")) pci_device = parent_path(device);
    } else if (type == "scsi-hd" || type == "scsi-block" || type == "scsi-disk") {
        FS_ASSIGN(auto controller, controller_of(qmp, device));
        disk.bus = scsi_bus(controller.second);
        pci_device = controller.first.ends_with("/virtio-backend") ? parent_path(controller.first)
                                                                   : controller.first;
    } else if (type == "ide-hd") {
        disk.bus = DiskBus::kIde;
        pci_device.clear();
    } else if (type == "nvme" || type == "nvme-ns") {
        disk.bus = DiskBus::kNvme;
        if (type == "nvme-ns") {
            FS_ASSIGN(auto controller, controller_of(qmp, device));
            pci_device = controller.first;
        }
    } else {
        return fail(
            Code::kUnsupported,
            fmt::format("disk '{}' is a '{}', which Farshore cannot start elsewhere", disk.qdev,
                        type),
            "protect the machine by --disk, or attach the disk as virtio, SCSI, IDE or NVMe");
    }
    disk.node_name = json_text(inserted, "node-name");
    disk.read_only = json_bool(inserted, "ro");
    const Json& image = json_at(inserted, "image");
    disk.size_bytes = json_u64(image, "virtual-size");
    disk.path = json_text(inserted, "file");
    if (disk.path.size() > kMaxPathTextBytes) disk.path.resize(kMaxPathTextBytes);
    FS_ASSIGN(Json serial, property(qmp, device, "serial"));
    if (!serial.is_string() && disk.bus == DiskBus::kNvme) {
        FS_ASSIGN(serial, property(qmp, pci_device, "serial"));
    }
    if (serial.is_string()) disk.serial = serial.get<std::string>().substr(0, kMaxTextBytes);
    FS_ASSIGN(const Json block, property(qmp, device, "logical_block_size"));
    if (block.is_number_unsigned() && block.get<uint64_t>() == 4096)
        disk.logical_block_bytes = 4096;
    // The boot index belongs to the outer device of a virtio disk.
    for (const std::string& owner : {device, pci_device}) {
        if (owner.empty() || disk.boot_index) continue;
        FS_ASSIGN(const Json boot, property(qmp, owner, "bootindex"));
        if (boot.is_number_integer() && boot.get<int64_t>() >= 0 &&
            boot.get<int64_t>() <= 1'000'000)
            disk.boot_index = static_cast<uint32_t>(boot.get<int64_t>());
    }
    if (!pci_device.empty()) {
        FS_ASSIGN(disk.pci_address, root_bus_address(qmp, pci_device));
    }
    return true;
}

bool is_nic_type(std::string_view type) {
    for (const std::string_view known :
         {"virtio-net-pci", "virtio-net-pci-transitional", "virtio-net-pci-non-transitional",
          "e1000", "e1000e", "e1000-82544gc", "e1000-82545em", "rtl8139", "vmxnet3", "pcnet",
          "ne2k_pci", "i82559c", "i82559er", "i82550", "i82551", "i82557b", "i82562", "tulip"})
        if (type == known) return true;
    return false;
}

Status capture_nics(QmpClient& qmp, std::vector<MachineNic>& nics) {
    for (const char* holder :
         {"/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"}) {
        auto listed = qmp.execute("qom-list", {{"path", holder}});
        if (!listed) {
            if (listed.error().code() == Code::kWrongState ||
                listed.error().code() == Code::kNotFound)
                continue;
            return fail(listed.error());
        }
        if (!listed->is_array()) continue;
        for (const Json& child : *listed) {
            const std::string type = json_text(child, "type");
            if (!type.starts_with("child<") || !type.ends_with(">")) continue;
            const std::string model = type.substr(6, type.size() - 7);
            if (!is_nic_type(model) || nics.size() == kMaxMachineNics) continue;
            const std::string path = std::string(holder) + "/" + json_text(child, "name");
            MachineNic nic;
            nic.model = model;
            FS_ASSIGN(const Json mac, property(qmp, path, "mac"));
            if (mac.is_string() && valid_mac(mac.get<std::string>()))
                nic.mac = mac.get<std::string>();
            FS_ASSIGN(nic.pci_address, root_bus_address(qmp, path));
            nics.push_back(std::move(nic));
        }
    }
    return {};
}

// Days from 1970-01-01 of a civil date (Howard Hinnant's algorithm).
int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    const int64_t era = (year >= 0 ? year : year - 399) / 400;
    const int64_t year_of_era = year - era * 400;
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

}  // namespace

std::string_view firmware_name(Firmware firmware) {
    return firmware == Firmware::kUefi ? "uefi" : "bios";
}
std::string_view disk_bus_name(DiskBus bus) { return kBusNames[static_cast<size_t>(bus)]; }

int64_t rtc_offset_of(int64_t hardware_clock_s, TimePoint now) {
    const int64_t off_s = hardware_clock_s - now.us / 1'000'000;
    const int64_t quarters = (off_s + (off_s >= 0 ? 450 : -450)) / 900;
    return quarters * 900 >= -86400 && quarters * 900 <= 86400 ? quarters * 900 : 0;
}

MachineDescription describe_plain_machine(const std::string& name,
                                          const std::vector<PlainDisk>& disks) {
    MachineDescription machine;
    machine.name = name;
    for (const PlainDisk& plain : disks) {
        MachineDisk disk;
        disk.index = plain.index.value_or(static_cast<DiskIndex>(machine.disks.size()));
        disk.size_bytes = plain.size_bytes;
        disk.path = plain.path;
        machine.disks.push_back(std::move(disk));
    }
    machine.nics.emplace_back();
    return machine;
}

void apply_overrides(MachineDescription& machine, const MachineOverrides& overrides) {
    if (overrides.cpus) {
        machine.cpus = *overrides.cpus;
        machine.sockets = machine.cores = machine.threads = 0;
    }
    if (overrides.memory_bytes) machine.memory_bytes = *overrides.memory_bytes;
    if (overrides.firmware) machine.firmware = *overrides.firmware;
    if (overrides.disk_bus)
        for (MachineDisk& disk : machine.disks) {
            disk.bus = *overrides.disk_bus;
            disk.pci_address.clear();
        }
    if (overrides.nic_model)
        for (MachineNic& nic : machine.nics) nic.model = *overrides.nic_model;
}

Result<MachineDescription> capture_machine(QmpClient& qmp, const std::string& name, TimePoint now) {
    MachineDescription machine;
    machine.name = name;
    FS_ASSIGN(const Json target, qmp.execute("query-target"));
    machine.architecture = json_text(target, "arch", "x86_64");
    FS_ASSIGN(const Json uuid, qmp.execute("query-uuid"));
    machine.uuid = json_text(uuid, "UUID");
    if (machine.uuid.find_first_not_of("0-") == std::string::npos) machine.uuid.clear();
    FS_ASSIGN(const Json type, property(qmp, "/machine", "type"));
    if (type.is_string()) {
        machine.machine_type = type.get<std::string>();
        if (machine.machine_type.ends_with("-machine"))
            machine.machine_type.resize(machine.machine_type.size() - 8);
    }
    if (!is_plain_word(machine.machine_type)) machine.machine_type = "q35";
    FS_ASSIGN(const Json cpus, qmp.execute("query-cpus-fast"));
    machine.cpus = static_cast<uint32_t>(std::clamp<size_t>(cpus.size(), 1, kMaxMachineCpus));
    FS_ASSIGN(const Json smp, property(qmp, "/machine", "smp"));
    // Only a topology that makes exactly the CPUs that are there now: others could be plugged
    // later.
    const uint64_t sockets = json_u64(smp, "sockets"), cores = json_u64(smp, "cores"),
                   threads = json_u64(smp, "threads");
    if (sockets <= kMaxMachineCpus && cores <= kMaxMachineCpus && threads <= kMaxMachineCpus &&
        sockets * cores * threads == machine.cpus) {
        machine.sockets = static_cast<uint32_t>(sockets);
        machine.cores = static_cast<uint32_t>(cores);
        machine.threads = static_cast<uint32_t>(threads);
    }
    FS_ASSIGN(const Json memory, qmp.execute("query-memory-size-summary"));
    const uint64_t memory_bytes =
        json_u64(memory, "base-memory") + json_u64(memory, "plugged-memory");
    if (memory_bytes >= kMinMachineMemoryBytes && memory_bytes <= kMaxMachineMemoryBytes)
        machine.memory_bytes = memory_bytes;

    FS_ASSIGN(const Json firmware, property(qmp, "/machine", "firmware"));
    if (firmware.is_string()) {
        const std::string file = firmware.get<std::string>();
        if (file.find("OVMF") != std::string::npos || file.find("edk2") != std::string::npos)
            machine.firmware = Firmware::kUefi;
    }
    FS_ASSIGN(const Json clock, property(qmp, "/machine", "rtc-time"));
    if (clock.is_object()) {
        const int64_t guest_s =
            days_from_civil(json_i64(clock, "tm_year") + 1900, json_i64(clock, "tm_mon") + 1,
                            json_i64(clock, "tm_mday")) *
                86400 +
            json_i64(clock, "tm_hour") * 3600 + json_i64(clock, "tm_min") * 60 +
            json_i64(clock, "tm_sec");
        machine.rtc_offset_s = rtc_offset_of(guest_s, now);
    }

    FS_ASSIGN(const Json blocks, qmp.execute("query-block"));
    for (const Json& entry : blocks) {
        const std::string qdev = json_text(entry, "qdev");
        if (json_text(entry, "device").starts_with("pflash") ||
            qdev.starts_with("/machine/system.flash")) {
            if (json_at(entry, "inserted").is_object()) machine.firmware = Firmware::kUefi;
            continue;
        }
        MachineDisk disk;
        FS_ASSIGN(const bool is_disk, capture_disk(qmp, entry, disk));
        if (!is_disk) continue;
        if (machine.disks.size() == kMaxMachineDisks)
            return fail(Code::kLimitReached,
                        fmt::format("the machine has more than {} disks", kMaxMachineDisks));
        disk.index = static_cast<DiskIndex>(machine.disks.size());
        machine.disks.push_back(std::move(disk));
    }
    FS_TRY(capture_nics(qmp, machine.nics));
    return machine;
}

std::string encode_machine(const MachineDescription& machine) {
    Json disks = Json::array();
    for (const MachineDisk& disk : machine.disks) {
        Json json = {{"index", disk.index},
                     {"bus", disk_bus_name(disk.bus)},
                     {"size_bytes", disk.size_bytes},
                     {"read_only", disk.read_only},
                     {"serial", disk.serial},
                     {"logical_block_bytes", disk.logical_block_bytes},
                     {"pci_address", disk.pci_address},
                     {"node_name", disk.node_name},
                     {"qdev", disk.qdev},
                     {"path", disk.path}};
        if (disk.boot_index) json["boot_index"] = *disk.boot_index;
        disks.push_back(std::move(json));
    }
    Json nics = Json::array();
    for (const MachineNic& nic : machine.nics)
        nics.push_back({{"model", nic.model}, {"mac", nic.mac}, {"pci_address", nic.pci_address}});
    const Json json = {{"name", machine.name},
                       {"uuid", machine.uuid},
                       {"architecture", machine.architecture},
                       {"machine_type", machine.machine_type},
                       {"firmware", firmware_name(machine.firmware)},
                       {"cpus", machine.cpus},
                       {"sockets", machine.sockets},
                       {"cores", machine.cores},
                       {"threads", machine.threads},
                       {"memory_bytes", machine.memory_bytes},
                       {"rtc_offset_s", machine.rtc_offset_s},
                       {"disks", std::move(disks)},
                       {"nics", std::move(nics)}};
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<MachineDescription> decode_machine(std::string_view text) {
    if (text.size() > kMaxMachineJsonBytes)
        return fail(Code::kTooLarge,
                    fmt::format("a machine description of {} bytes; at most {} are allowed",
                                text.size(), kMaxMachineJsonBytes));
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object())
        return fail(Code::kMalformed, "the machine description is not a JSON object");
    MachineDescription machine;
    FS_TRY(get_text(json, "name", kMaxTextBytes, machine.name));
    FS_TRY(get_word(json, "uuid", machine.uuid));
    FS_TRY(get_word(json, "architecture", machine.architecture));
    FS_TRY(get_word(json, "machine_type", machine.machine_type));
    std::string firmware = "bios";
    FS_TRY(get_text(json, "firmware", kMaxTextBytes, firmware));
    if (firmware != "bios" && firmware != "uefi") return wrong("firmware", "must be bios or uefi");
    machine.firmware = firmware == "uefi" ? Firmware::kUefi : Firmware::kBios;
    FS_TRY(get_number(json, "cpus", 1, kMaxMachineCpus, machine.cpus));
    FS_TRY(get_number(json, "sockets", 0, kMaxMachineCpus, machine.sockets));
    FS_TRY(get_number(json, "cores", 0, kMaxMachineCpus, machine.cores));
    FS_TRY(get_number(json, "threads", 0, kMaxMachineCpus, machine.threads));
    FS_TRY(get_number(json, "memory_bytes", kMinMachineMemoryBytes, kMaxMachineMemoryBytes,
                      machine.memory_bytes));
    machine.rtc_offset_s = json_i64(json, "rtc_offset_s");
    if (machine.rtc_offset_s < -86400 || machine.rtc_offset_s > 86400)
        return wrong("rtc_offset_s", "must be within a day");
    const Json& disks = json_at(json, "disks");
    if (!disks.is_null() && !disks.is_array()) return wrong("disks", "must be a list");
    if (disks.size() > kMaxMachineDisks)
        return fail(Code::kTooLarge, "machine description: too many disks");
    for (const Json& disk : disks) {
        FS_ASSIGN(MachineDisk decoded,
                  decode_disk(disk, machine.disks.empty() ? 0 : machine.disks.back().index + 1u));
        machine.disks.push_back(std::move(decoded));
    }
    const Json& nics = json_at(json, "nics");
    if (!nics.is_null() && !nics.is_array()) return wrong("nics", "must be a list");
    if (nics.size() > kMaxMachineNics)
        return fail(Code::kTooLarge, "machine description: too many NICs");
    for (const Json& nic : nics) {
        FS_ASSIGN(MachineNic decoded, decode_nic(nic));
        machine.nics.push_back(std::move(decoded));
    }
    return machine;
}

}  // namespace farshore
