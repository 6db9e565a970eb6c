#include "compute/domain_xml.h"

#include <fmt/core.h>

#include <map>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "compute/qemu_arguments.h"

namespace farshore {
namespace {

// Control characters are not for XML, and of no use in a name.
std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text)
        if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) out.push_back(c);
    return out;
}

pugi::xml_node add(pugi::xml_node to, const char* name, const std::string& text = {}) {
    pugi::xml_node node = to.append_child(name);
    if (!text.empty()) node.text().set(text.c_str());
    return node;
}

void set(pugi::xml_node node, const char* name, const std::string& value) {
    node.append_attribute(name).set_value(value.c_str());
}

std::string text_of(const pugi::xml_document& document) {
    std::ostringstream out;
    document.save(out, " ", pugi::format_default | pugi::format_no_declaration);
    return out.str();
}

// "vda", ..., "vdz", "vdaa", ...
std::string device_name(const char* prefix, size_t number) {
    std::string letters;
    for (size_t n = number + 1; n > 0; n = (n - 1) / 26)
        letters.insert(letters.begin(), static_cast<char>('a' + (n - 1) % 26));
    return prefix + letters;
}

const char* scsi_model(DiskBus bus) {
    switch (bus) {
        case DiskBus::kVirtioScsi:
            return "virtio-scsi";
        case DiskBus::kPvscsi:
            return "vmpvscsi";
        case DiskBus::kMegasas:
            return "lsisas1078";
        case DiskBus::kMptSas:
            return "lsisas1068";
        default:
            return "lsilogic";
    }
}

// libvirt's name of QEMU's device.
std::string card_model(const std::string& device) {
    return device == "virtio-net-pci" ? "virtio" : device;
}

class Devices {
  public:
    Devices(pugi::xml_node devices, const DomainOrder& order, bool q35)
        : devices_(devices), order_(order), q35_(q35) {
        for (const MachineDisk& disk : order.machine.disks) note(disk.pci_address);
        for (const MachineNic& nic : order.machine.nics) note(nic.pci_address);
    }

    Status add_all() {
        set(add(devices_, "controller"), "type", "usb");
        set(devices_.last_child(), "model", "none");
        const std::vector<uint32_t> ranks = boot_ranks(order_.machine.disks);
        for (size_t i = 0; i < order_.machine.disks.size(); ++i) FS_TRY(add_disk(i, ranks[i]));
        for (size_t i = 0; i < order_.machine.nics.size(); ++i) add_card(i);
        add_doors();
        return {};
    }

  private:
    void note(const std::string& address) {
        if (!address.empty()) used_.insert(address);
    }

    // Slot 00 is the host bridge's, 1f that of the chipset on q35, 01 on i440fx.
    bool usable(const std::string& address) const {
        return !address.empty() && !address.starts_with("00") &&
               !address.starts_with(q35_ ? "1f" : "01") &&
               // Function 0 must be there for a guest to look at the others.
               (address[3] == '0' || used_.contains(address.substr(0, 3) + "0"));
    }

    void place(pugi::xml_node device, const std::string& address) {
        if (!usable(address) || !taken_.insert(address).second) return;
        pugi::xml_node at = add(device, "address");
        set(at, "type", "pci");
        set(at, "domain", "0x0000");
        set(at, "bus", "0x00");
        set(at, "slot", "0x" + address.substr(0, 2));
        set(at, "function", "0x" + address.substr(3));
        if (address[3] != '0') return;
        for (const std::string& other : used_)
            if (other.starts_with(address.substr(0, 3)) && other != address) {
                set(at, "multifunction", "on");
                return;
            }
    }

    static void drive(pugi::xml_node disk, size_t controller, size_t bus, size_t target,
                      size_t unit) {
        pugi::xml_node at = add(disk, "address");
        set(at, "type", "drive");
        set(at, "controller", std::to_string(controller));
        set(at, "bus", std::to_string(bus));
        set(at, "target", std::to_string(target));
        set(at, "unit", std::to_string(unit));
    }

    static void add_source(pugi::xml_node source, const DomainDisk& disk) {
        if (disk.file) return set(source, "file", disk.file->path);
        set(source, "protocol", "nbd");
        set(source, "name", disk.export_name);
        if (disk.socket_path.empty()) {
            set(source, "tls", "yes");
            if (!disk.server_name.empty()) set(source, "tlsHostname", disk.server_name);
        }
        pugi::xml_node host = add(source, "host");
        if (disk.socket_path.empty()) {
            set(host, "name", disk.address);
            set(host, "port", std::to_string(disk.port));
        } else {
            set(host, "transport", "unix");
            set(host, "socket", disk.socket_path);
        }
    }

    Status add_disk(size_t position, uint32_t rank) {
        const MachineDisk& disk = order_.machine.disks[position];
        const DomainDisk& served = order_.disks[position];
        if (disk.bus == DiskBus::kNvme)
            return fail(
                Code::kUnsupported,
                fmt::format("disk {} is on NVMe, which libvirt cannot give a machine", disk.index),
                "start it with --disk-bus virtio-scsi, or on the vault's own machine");
        pugi::xml_node node = add(devices_, "disk");
        set(node, "type", served.file ? "file" : "network");
        set(node, "device", "disk");
        pugi::xml_node driver = add(node, "driver");
        set(driver, "name", "qemu");
        set(driver, "type",
            served.file ? std::string(disk_format_name(served.file->format)) : "raw");
        // A request that fails since its server is gone stops the machine, which goes on with the
        // same request once the server is back: the guest never sees an error.
        set(driver, "error_policy", served.spare ? "report" : "stop");
        set(driver, "rerror_policy", served.spare ? "report" : "stop");
        set(driver, "discard", "unmap");
        add_source(add(node, "source"), served);
        pugi::xml_node target = add(node, "target");
        pugi::xml_node blocks = add(node, "blockio");
        set(blocks, "logical_block_size", std::to_string(disk.logical_block_bytes));
        set(blocks, "physical_block_size",
            std::to_string(std::max<uint32_t>(disk.logical_block_bytes, 512)));
        if (disk.read_only && disk.bus != DiskBus::kIde) add(node, "readonly");
        if (!disk.serial.empty()) add(node, "serial", printable(disk.serial));
        set(add(node, "boot"), "order", std::to_string(rank));
        switch (disk.bus) {
            case DiskBus::kVirtioBlk:
                set(target, "dev", device_name("vd", virtio_++));
                set(target, "bus", "virtio");
                place(node, disk.pci_address);
                return {};
            case DiskBus::kIde:
                add_ide(node, target);
                return {};
            default:
                add_scsi(node, target, disk);
                return {};
        }
    }

    void add_ide(pugi::xml_node node, pugi::xml_node target) {
        const size_t number = ide_++;
        if (!q35_ && number < 4) {
            set(target, "dev", device_name("hd", number));
            set(target, "bus", "ide");
            drive(node, 0, number / 2, 0, number % 2);
            return;
        }
        const size_t own = q35_ ? number : number - 4;
        set(target, "dev", device_name("sd", sd_++));
        set(target, "bus", "sata");
        drive(node, own / 6, 0, 0, own % 6);
    }

    void add_scsi(pugi::xml_node node, pugi::xml_node target, const MachineDisk& disk) {
        const auto key = std::pair(disk.bus, disk.pci_address);
        auto at = scsi_.find(key);
        if (at == scsi_.end()) {
            at = scsi_.emplace(key, Controller{scsi_.size(), 0}).first;
            pugi::xml_node controller = devices_.insert_child_before("controller", node);
            set(controller, "type", "scsi");
            set(controller, "index", std::to_string(at->second.number));
            set(controller, "model", scsi_model(disk.bus));
            place(controller, disk.pci_address);
        }
        set(target, "dev", device_name("sd", sd_++));
        set(target, "bus", "scsi");
        const size_t id = at->second.next++;
        // LSI's adapter has its SCSI id in the unit.
        if (disk.bus == DiskBus::kScsi)
            drive(node, at->second.number, 0, 0, id);
        else
            drive(node, at->second.number, 0, id, 0);
    }

    void add_card(size_t position) {
        const MachineNic& nic = order_.machine.nics[position];
        const DomainCard& card = order_.cards[position];
        pugi::xml_node node = add(devices_, "interface");
        switch (card.plug) {
            case DomainCard::Plug::kNetwork:
                set(node, "type", "network");
                set(add(node, "source"), "network", card.name);
                break;
            case DomainCard::Plug::kBridge:
                set(node, "type", "bridge");
                set(add(node, "source"), "bridge", card.name);
                break;
            case DomainCard::Plug::kUser:
            case DomainCard::Plug::kNone:
                set(node, "type", "user");
                break;
        }
        if (!nic.mac.empty()) set(add(node, "mac"), "address", nic.mac);
        set(add(node, "model"), "type", card_model(nic.model));
        // No cable from the first moment on.
        if (card.plug == DomainCard::Plug::kNone) set(add(node, "link"), "state", "down");
        place(node, nic.pci_address);
    }

    // What people and we look at the machine through; no port listens.
    void add_doors() {
        set(add(devices_, "serial"), "type", "pty");
        set(add(devices_, "console"), "type", "pty");
        pugi::xml_node channel = add(devices_, "channel");
        set(channel, "type", "unix");
        pugi::xml_node target = add(channel, "target");
        set(target, "type", "virtio");
        set(target, "name", "org.qemu.guest_agent.0");
        pugi::xml_node graphics = add(devices_, "graphics");
        set(graphics, "type", "vnc");
        set(add(graphics, "listen"), "type", "socket");
        pugi::xml_node video = add(devices_, "video");
        set(add(video, "model"), "type", "vga");
        place(video, used_.contains("1e.0") ? "" : "1e.0");
        set(add(devices_, "memballoon"), "model", "none");
    }

    struct Controller {
        size_t number = 0;
        size_t next = 0;
    };
    pugi::xml_node devices_;
    const DomainOrder& order_;
    bool q35_;
    std::set<std::string> used_;   // addresses that the description names
    std::set<std::string> taken_;  // of those, by a device already
    std::map<std::pair<DiskBus, std::string>, Controller> scsi_;
    size_t virtio_ = 0, ide_ = 0, sd_ = 0;
};

void add_firmware(pugi::xml_node os) {
    set(os, "firmware", "efi");
    pugi::xml_node firmware = add(os, "firmware");
    // The source's keys are not on its disks: one that was started with secure boot would not be.
    for (const char* feature : {"secure-boot", "enrolled-keys"}) {
        pugi::xml_node node = add(firmware, "feature");
        set(node, "enabled", "no");
        set(node, "name", feature);
    }
}

}  // namespace

Result<std::string> domain_xml(const DomainOrder& order) {
    const MachineDescription& machine = order.machine;
    if (machine.architecture != "x86_64" && machine.architecture != "i386")
        return fail(Code::kUnsupported,
                    fmt::format("machines of architecture '{}' cannot be started there",
                                machine.architecture));
    if (machine.disks.size() != order.disks.size() || machine.nics.size() != order.cards.size())
        return fail(Code::kInvalidArgument,
                    fmt::format("the machine has {} disks and {} cards, {} and {} are given",
                                machine.disks.size(), machine.nics.size(), order.disks.size(),
                                order.cards.size()));
    FS_ASSIGN(const std::string type,
              choose_machine_type(machine.machine_type, order.machine_types));
    const bool kvm = order.accelerator == Accelerator::kKvm;

    pugi::xml_document document;
    pugi::xml_node domain = document.append_child("domain");
    set(domain, "type", kvm ? "kvm" : "qemu");
    add(domain, "name", order.name);
    if (!order.uuid.empty()) add(domain, "uuid", order.uuid);
    if (const std::string title = printable(order.title); !title.empty())
        add(domain, "title", title);
    pugi::xml_node memory = add(domain, "memory", std::to_string(machine.memory_bytes / 1024));
    set(memory, "unit", "KiB");
    add(domain, "vcpu", std::to_string(machine.cpus));
    pugi::xml_node os = add(domain, "os");
    if (machine.firmware == Firmware::kUefi) add_firmware(os);
    pugi::xml_node os_type = add(os, "type", "hvm");
    set(os_type, "arch", "x86_64");
    set(os_type, "machine", type);
    pugi::xml_node features = add(domain, "features");
    add(features, "acpi");
    add(features, "apic");
    pugi::xml_node cpu = add(domain, "cpu");
    set(cpu, "mode", kvm ? "host-passthrough" : "maximum");
    if (uint64_t(machine.sockets) * machine.cores * machine.threads == machine.cpus) {
        pugi::xml_node topology = add(cpu, "topology");
        set(topology, "sockets", std::to_string(machine.sockets));
        set(topology, "cores", std::to_string(machine.cores));
        set(topology, "threads", std::to_string(machine.threads));
    }
    pugi::xml_node clock = add(domain, "clock");
    if (machine.rtc_offset_s == 0) {
        set(clock, "offset", "utc");
    } else {
        set(clock, "offset", "variable");
        set(clock, "adjustment", std::to_string(machine.rtc_offset_s));
        set(clock, "basis", "utc");
    }
    add(domain, "on_poweroff", "destroy");
    add(domain, "on_reboot", "restart");
    add(domain, "on_crash", "destroy");
    Devices devices(add(domain, "devices"), order, type.find("q35") != std::string::npos);
    FS_TRY(devices.add_all());
    return text_of(document);
}

std::string copy_target_xml(const DiskFile& file) {
    pugi::xml_document document;
    pugi::xml_node disk = document.append_child("disk");
    set(disk, "type", "file");
    pugi::xml_node driver = add(disk, "driver");
    set(driver, "name", "qemu");
    set(driver, "type", std::string(disk_format_name(file.format)));
    set(driver, "discard", "unmap");
    set(add(disk, "source"), "file", file.path);
    return text_of(document);
}

Result<std::string> without_served_disks(const std::string& xml) {
    pugi::xml_document document;
    const auto parsed = document.load_buffer(xml.data(), xml.size());
    pugi::xml_node devices = document.child("domain").child("devices");
    if (!parsed || !devices)
        return fail(Code::kMalformed, "the machine's definition is not what libvirt writes");
    for (pugi::xml_node disk = devices.child("disk"); disk;) {
        const pugi::xml_node next = disk.next_sibling("disk");
        if (std::string_view(disk.child("source").attribute("protocol").value()) == "nbd")
            devices.remove_child(disk);
        disk = next;
    }
    return text_of(document);
}

std::string closed_network_xml(const std::string& name) {
    pugi::xml_document document;
    pugi::xml_node network = document.append_child("network");
    add(network, "name", name);
    set(add(network, "bridge"), "stp", "off");
    return text_of(document);
}

Result<HostOffer> read_host_offer(const std::string& capabilities_xml) {
    pugi::xml_document document;
    const auto parsed = document.load_buffer(capabilities_xml.data(), capabilities_xml.size());
    const pugi::xml_node top = document.child("capabilities");
    if (!parsed || !top)
        return fail(Code::kMalformed, "the host's capabilities are not what libvirt says");
    HostOffer offer;
    for (const pugi::xml_node guest : top.children("guest")) {
        const pugi::xml_node arch = guest.child("arch");
        if (std::string_view(arch.attribute("name").value()) != "x86_64") continue;
        for (const pugi::xml_node machine : arch.children("machine"))
            offer.machine_types.emplace_back(machine.text().get());
        for (const pugi::xml_node domain : arch.children("domain"))
            offer.kvm = offer.kvm || std::string_view(domain.attribute("type").value()) == "kvm";
    }
    return offer;
}

}  // namespace farshore
