#include "compute/qemu_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "compute/dhcp_address.h"
#include "os/real.h"

namespace farshore {

using Json = nlohmann::json;

Result<std::string> choose_machine_type(const std::string& wanted,
                                        const std::vector<std::string>& known) {
    if (known.empty() || std::find(known.begin(), known.end(), wanted) != known.end())
        return wanted;
    // A version that this QEMU does not have: its newest of the same kind.
    for (const auto& [prefix, alias] : {std::pair<std::string_view, const char*>{"pc-q35", "q35"},
                                        {"q35", "q35"},
                                        {"pc-i440fx", "pc"},
                                        {"pc", "pc"}})
        if (wanted.starts_with(prefix)) return std::string(alias);
    return fail(Code::kUnsupported, fmt::format("this QEMU has no machine type '{}'", wanted),
                "install a QEMU that has it, or override the machine type");
}

Result<UefiFiles> find_uefi() {
    PosixFileSystem files;
    for (const auto& [code, variables] :
         {std::pair<std::string, std::string>{"/usr/share/OVMF/OVMF_CODE_4M.fd",
                                              "/usr/share/OVMF/OVMF_VARS_4M.fd"},
          {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
          {"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"}}) {
        FS_ASSIGN(const bool code_there, files.exists(code));
        FS_ASSIGN(const bool variables_there, files.exists(variables));
        if (code_there && variables_there) return UefiFiles{code, variables};
    }
    return fail(Code::kDependencyMissing,
                "the machine boots by UEFI, and there is no UEFI firmware here",
                "install it: apt-get install ovmf");
}

std::vector<uint32_t> boot_ranks(const std::vector<MachineDisk>& disks) {
    std::vector<size_t> order(disks.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return disks[a].boot_index.value_or(UINT32_MAX) < disks[b].boot_index.value_or(UINT32_MAX);
    });
    std::vector<uint32_t> ranks(disks.size());
    for (size_t i = 0; i < order.size(); ++i) ranks[order[i]] = static_cast<uint32_t>(i + 1);
    return ranks;
}

NetworkChoice network_of(const MachineOrder& order, size_t nic) {
    return nic < order.networks.size() ? order.networks[nic] : NetworkChoice{};
}

Status no_libvirt_network(const NetworkChoice& network) {
    return fail(Code::kUnsupported,
                fmt::format("'{}' is a network of a libvirt host, and the machine is to run on the "
                            "vault's own",
                            network_word(network)),
                "name a compute host, or another network");
}

namespace {

// Virtio disks that QEMU may place one to a slot of the root bus; more of them share slots, since
// the bus has 32.
constexpr size_t kMaxLooseDisks = 8;

std::string dump(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// In QEMU's own option syntax a comma ends a value unless it is doubled.
std::string escaped(const std::string& value) {
    std::string out;
    for (const char c : value) {
        out.push_back(c);
        if (c == ',') out.push_back(',');
    }
    return out;
}

const char* scsi_controller(DiskBus bus) {
    switch (bus) {
        case DiskBus::kVirtioScsi:
            return "virtio-scsi-pci";
        case DiskBus::kPvscsi:
            return "pvscsi";
        case DiskBus::kMegasas:
            return "megasas";
        case DiskBus::kMptSas:
            return "mptsas1068";
        default:
            return "lsi";
    }
}

// The devices of one machine, each as the JSON that -device takes.
class Devices {
  public:
    explicit Devices(const MachineDescription& machine, bool q35) : machine_(machine), q35_(q35) {
        for (const MachineDisk& disk : machine.disks) note(disk.pci_address);
        for (const MachineNic& nic : machine.nics) note(nic.pci_address);
    }

    // Devices with an address come first: QEMU gives the others the lowest slot that is free then.
    std::vector<Json> take() {
        std::vector<Json> all = std::move(placed_);
        all.insert(all.end(), std::make_move_iterator(loose_.begin()),
                   std::make_move_iterator(loose_.end()));
        return all;
    }

    void add_display() {
        if (used_.contains("1e.0")) return;
        // Far up, so that it does not take a slot that the source's devices had.
        placed_.push_back({{"driver", "VGA"}, {"addr", "1e.0"}});
    }

    // The channel of the guest agent, far up as well.
    void add_agent() {
        Json serial = {{"driver", "virtio-serial-pci"}, {"id", "farshore-agent"}};
        if (!used_.contains("1d.0")) {
            serial["addr"] = "1d.0";
            placed_.push_back(std::move(serial));
        } else {
            loose_.push_back(std::move(serial));
        }
        loose_.push_back({{"driver", "virtserialport"},
                          {"bus", "farshore-agent.0"},
                          {"chardev", "agent0"},
                          {"name", "org.qemu.guest_agent.0"}});
    }

    void add_disk(size_t position, uint32_t boot_rank) {
        const MachineDisk& disk = machine_.disks[position];
        Json device = {{"drive", fmt::format("disk{}", position)},
                       {"id", fmt::format("farshore-disk{}", position)},
                       {"bootindex", boot_rank},
                       {"logical_block_size", disk.logical_block_bytes},
                       {"physical_block_size", std::max<uint32_t>(disk.logical_block_bytes, 512)}};
        if (!disk.serial.empty()) device["serial"] = disk.serial;
        switch (disk.bus) {
            case DiskBus::kVirtioBlk:
                device["driver"] = "virtio-blk-pci";
                place(std::move(device), disk.pci_address, true);
                return;
            case DiskBus::kVirtioScsi:
            case DiskBus::kScsi:
            case DiskBus::kPvscsi:
            case DiskBus::kMegasas:
            case DiskBus::kMptSas:
                add_scsi(std::move(device), disk);
                return;
            case DiskBus::kIde:
                add_ide(std::move(device));
                return;
            case DiskBus::kNvme:
                device["driver"] = "nvme";
                // NVMe has no disk without a serial number.
                if (disk.serial.empty()) device["serial"] = fmt::format("farshore-{}", position);
                place(std::move(device), disk.pci_address, true);
                return;
        }
    }

    void add_nic(size_t position, bool cable) {
        const MachineNic& nic = machine_.nics[position];
        Json device = {{"driver", nic.model}, {"id", fmt::format("farshore-nic{}", position)}};
        if (!nic.mac.empty()) device["mac"] = nic.mac;
        if (cable) device["netdev"] = fmt::format("net{}", position);
        place(std::move(device), nic.pci_address, false);
    }

  private:
    void note(const std::string& address) {
        if (!address.empty()) used_.insert(address);
    }

    // Function 0 must be there for a guest to look at the others.
    bool usable(const std::string& address) const {
        return !address.empty() &&
               (address[3] == '0' || used_.contains(address.substr(0, 3) + "0"));
    }

    void place(Json device, const std::string& address, bool may_share_slot) {
        if (usable(address) && taken_.insert(address).second) {
            device["addr"] = address;
            const std::string slot = address.substr(0, 3);
            if (address[3] == '0' &&
                std::any_of(used_.begin(), used_.end(), [&](const std::string& other) {
                    return other.starts_with(slot) && other != address;
                }))
                device["multifunction"] = true;
            placed_.push_back(std::move(device));
            return;
        }
        if (may_share_slot && loose_disks_++ >= kMaxLooseDisks) {
            device["addr"] = fmt::format("{:02x}.{}", shared_slot(), shared_function_);
            if (shared_function_ == 0) device["multifunction"] = true;
            shared_function_ = (shared_function_ + 1) % 8;
            placed_.push_back(std::move(device));
            return;
        }
        loose_.push_back(std::move(device));
    }

    // The slot that overflowing disks share now; a new one, from the middle of the bus on, after
    // eight.
    int shared_slot() {
        if (shared_function_ != 0) return slot_;
        for (++slot_; std::any_of(used_.begin(), used_.end(), [&](const std::string& address) {
                 return address.starts_with(fmt::format("{:02x}.", slot_));
             });)
            ++slot_;
        return slot_;
    }

    void add_scsi(Json device, const MachineDisk& disk) {
        const auto key = std::pair(disk.bus, disk.pci_address);
        auto controller = scsi_.find(key);
        if (controller == scsi_.end()) {
            const std::string id = fmt::format("farshore-scsi{}", scsi_.size());
            controller = scsi_.emplace(key, Controller{id, 0}).first;
            place({{"driver", scsi_controller(disk.bus)}, {"id", id}}, disk.pci_address, false);
        }
        device["driver"] = "scsi-hd";
        device["bus"] = controller->second.id + ".0";
        device["scsi-id"] = controller->second.next++;
        loose_.push_back(std::move(device));
    }

    void add_ide(Json device) {
        device["driver"] = "ide-hd";
        const int number = ide_++;
        if (q35_ ? number < 6 : number < 4) {
            device["bus"] = fmt::format("ide.{}", q35_ ? number : number / 2);
            device["unit"] = q35_ ? 0 : number % 2;
        } else {
            const int extra = number - (q35_ ? 6 : 4);
            const std::string id = fmt::format("farshore-ahci{}", extra / 6);
            if (extra % 6 == 0) loose_.push_back({{"driver", "ich9-ahci"}, {"id", id}});
            device["bus"] = fmt::format("{}.{}", id, extra % 6);
        }
        loose_.push_back(std::move(device));
    }

    struct Controller {
        std::string id;
        int next = 0;
    };
    const MachineDescription& machine_;
    bool q35_;
    std::set<std::string> used_;   // addresses that the description names
    std::set<std::string> taken_;  // of those, by a device already
    std::vector<Json> placed_, loose_;
    std::map<std::pair<DiskBus, std::string>, Controller> scsi_;
    size_t loose_disks_ = 0;
    int ide_ = 0;
    int slot_ = 0x0f;
    int shared_function_ = 0;
};

// What QEMU's own network of the card is, besides what it always is.
Result<std::string> addressing_of(const MachineOrder& order, size_t nic) {
    const auto at = order.addresses.find(static_cast<uint32_t>(nic));
    if (at == order.addresses.end() || at->second.by == AddressBy::kAgent) return std::string();
    const bool exact = at->second.by == AddressBy::kDhcp;
    auto options = user_network_options(at->second, network_of(order, nic).kind, exact);
    // What the guest sets itself it has in any case: then a gateway and forwarded ports fit.
    if (!options && !exact) return std::string();
    return options;
}

// What -netdev takes for the card; empty: it has no cable.
Result<std::string> netdev_of(const MachineOrder& order, size_t nic) {
    const NetworkChoice network = network_of(order, nic);
    switch (network.kind) {
        case NetworkKind::kIsolated:
        case NetworkKind::kUser: {
            FS_ASSIGN(const std::string addressing, addressing_of(order, nic));
            return fmt::format("user,id=net{}{}{}", nic,
                               network.kind == NetworkKind::kIsolated ? ",restrict=on" : "",
                               addressing);
        }
        case NetworkKind::kNone:
        case NetworkKind::kLibvirt:
            break;
        case NetworkKind::kSegment: {
            const SegmentAddress at = segment_address(order.segment_scope, network.name);
            return fmt::format("socket,id=net{},mcast={}:{},localaddr=127.0.0.1", nic, at.group,
                               at.port);
        }
        case NetworkKind::kBridge:
            return fmt::format("tap,id=net{},fd={},vhost=off", nic,
                               kFirstPortFd + static_cast<int>(nic));
    }
    return std::string();
}

}  // namespace

Json own_file_node(const DiskFile& file, const std::string& node_name) {
    return {{"driver", std::string(disk_format_name(file.format))},
            {"node-name", node_name},
            {"discard", "unmap"},
            {"file", {{"driver", "file"}, {"filename", file.path}, {"discard", "unmap"}}}};
}

Result<std::vector<std::string>> qemu_arguments(const MachineOrder& order,
                                                const std::vector<std::string>& machine_types) {
    const MachineDescription& machine = order.machine;
    const std::string& directory = order.place.run_directory;
    if (machine.architecture != "x86_64" && machine.architecture != "i386")
        return fail(Code::kUnsupported,
                    fmt::format("machines of architecture '{}' cannot be started here",
                                machine.architecture));
    if (machine.disks.size() != order.disks.size())
        return fail(Code::kInvalidArgument, fmt::format("the machine has {} disks, {} are given",
                                                        machine.disks.size(), order.disks.size()));
    FS_ASSIGN(const std::string type, choose_machine_type(machine.machine_type, machine_types));
    const bool q35 = type.find("q35") != std::string::npos;
    const bool kvm = order.accelerator == Accelerator::kKvm;

    std::vector<std::string> arguments = {"qemu-system-x86_64", "-no-user-config", "-nodefaults"};
    const auto add = [&](std::string name, std::string value) {
        arguments.push_back(std::move(name));
        arguments.push_back(std::move(value));
    };
    add("-name", "guest=" + escaped(machine.name));
    if (!machine.uuid.empty()) add("-uuid", machine.uuid);
    std::string machine_option = type;
    if (machine.firmware == Firmware::kUefi) {
        FS_ASSIGN(const UefiFiles uefi, find_uefi());
        add("-blockdev", dump({{"driver", "file"},
                               {"node-name", "efi-code"},
                               {"read-only", true},
                               {"filename", uefi.code}}));
        add("-blockdev", dump({{"driver", "file"},
                               {"node-name", "efi-vars"},
                               {"filename", directory + "/efivars.fd"}}));
        machine_option += ",pflash0=efi-code,pflash1=efi-vars";
    }
    add("-machine", machine_option);
    add("-accel", kvm ? "kvm" : "tcg,thread=multi");
    add("-cpu", kvm ? "host" : "max");
    std::string smp = std::to_string(machine.cpus);
    if (uint64_t(machine.sockets) * machine.cores * machine.threads == machine.cpus)
        smp += fmt::format(",sockets={},cores={},threads={}", machine.sockets, machine.cores,
                           machine.threads);
    add("-smp", smp);
    add("-m", fmt::format("{}k", machine.memory_bytes / 1024));
    if (machine.rtc_offset_s == 0) {
        add("-rtc", "base=utc");
    } else {
        const TimePoint guest{RealClock().now().us + machine.rtc_offset_s * 1'000'000};
        add("-rtc", "base=" + to_rfc3339(guest).substr(0, 19));
    }
    add("-display", "none");
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    if (order.vnc) add("-vnc", "unix:" + escaped(directory + "/vnc.sock"));
    add("-qmp", "unix:" + escaped(directory + "/qmp.sock") + ",server=on,wait=off");
    add("-chardev",
        fmt::format("socket,id=serial0,path={},server=on,wait=off,logfile={},logappend=on",
                    escaped(directory + "/serial.sock"), escaped(directory + "/serial.log")));
    add("-serial", "chardev:serial0");

    add("-chardev", fmt::format("socket,id=agent0,path={},server=on,wait=off",
                                escaped(directory + "/qga.sock")));

    Devices devices(machine, q35);
    devices.add_display();
    devices.add_agent();
    const std::vector<uint32_t> ranks = boot_ranks(machine.disks);
    for (size_t i = 0; i < machine.disks.size(); ++i) {
        const bool takes_read_only =
            machine.disks[i].bus != DiskBus::kIde && machine.disks[i].bus != DiskBus::kNvme;
        const std::string name = fmt::format("disk{}", i);
        const DiskSource& source = order.disks[i];
        Json node = source.file ? own_file_node(*source.file, name)
                                : Json{{"driver", "nbd"},
                                       {"node-name", name},
                                       {"server", {{"type", "unix"}, {"path", source.socket_path}}},
                                       {"export", source.export_name},
                                       {"reconnect-delay", order.reconnect_delay_s},
                                       {"discard", "unmap"}};
        node["read-only"] = machine.disks[i].read_only && takes_read_only;
        add("-blockdev", dump(node));
        devices.add_disk(i, ranks[i]);
    }
    for (size_t i = 0; i < machine.nics.size(); ++i) {
        if (network_of(order, i).kind == NetworkKind::kLibvirt)
            return tl::unexpected(no_libvirt_network(network_of(order, i)).error());
        if (const auto at = order.addresses.find(static_cast<uint32_t>(i));
            at != order.addresses.end() && at->second.by == AddressBy::kDhcp)
            FS_TRY(check_dhcp_address(network_of(order, i), at->second));
        FS_ASSIGN(const std::string netdev, netdev_of(order, i));
        if (!netdev.empty()) add("-netdev", netdev);
        devices.add_nic(i, !netdev.empty());
    }
    for (const Json& device : devices.take()) add("-device", dump(device));
    return arguments;
}

namespace {

std::string shell_word(const std::string& text) {
    std::string word = "'";
    for (const char c : text) {
        if (c == '\'')
            word += "'\\''";
        else
            word += c;
    }
    return word + "'";
}

}  // namespace

Result<std::string> start_script(const MachineOrder& order,
                                 const std::vector<std::string>& machine_types) {
    FS_ASSIGN(std::vector<std::string> arguments, qemu_arguments(order, machine_types));
    for (size_t i = 0; i + 1 < arguments.size(); ++i) {
        std::string& value = arguments[i + 1];
        if (arguments[i] == "-netdev" && value.starts_with("tap,id=net")) {
            const auto nic = static_cast<size_t>(std::stoul(value.substr(10)));
            value = fmt::format("bridge,id=net{},br={}", nic, network_of(order, nic).name);
        } else if (arguments[i] == "-sandbox") {
            value = "on,obsolete=deny";
        }
    }
    const std::string run = shell_word(order.place.run_directory);
    std::string text = fmt::format(
        "#!/bin/sh\n# Starts the machine whose disks are files in this directory.\n"
        "set -e\n[ -d {0} ] || install -d -m 700 {0}\n",
        run);
    if (order.machine.firmware == Firmware::kUefi) {
        FS_ASSIGN(const UefiFiles uefi, find_uefi());
        text += fmt::format("[ -e {0}/efivars.fd ] || cp {1} {0}/efivars.fd\n", run,
                            shell_word(uefi.variables));
    }
    text += "exec";
    for (size_t i = 0; i < arguments.size(); ++i) {
        const bool clock = i > 0 && arguments[i - 1] == "-rtc" && order.machine.rtc_offset_s != 0;
        // As far from UTC then as now.
        text += " \\\n  " + (clock ? fmt::format("\"base=$(date -u -d \"@$(($(date +%s) + {}))\" "
                                                 "+%Y-%m-%dT%H:%M:%S)\"",
                                                 order.machine.rtc_offset_s)
                                   : shell_word(arguments[i]));
    }
    return text + " \\\n  -daemonize\n";
}

}  // namespace farshore
