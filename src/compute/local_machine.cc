#include "compute/local_machine.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <map>
#include <set>
#include <sstream>

#include "os/program_files.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr uint64_t kMiB = 1u << 20;
constexpr size_t kMaxSysFileBytes = 64u << 10;
constexpr size_t kMaxMountsBytes = 4u << 20;
constexpr size_t kMaxSerialBytes = 256;
// A disk under a file system: volumes on volumes on partitions, at most so deep.
constexpr int kMaxStackDepth = 8;

#if defined(__aarch64__)
constexpr const char* kArchitecture = "aarch64";
#else
constexpr const char* kArchitecture = "x86_64";
#endif

// What one asks of /sys and /proc. A file that is not there or may not be read is an empty text:
// kernels, hypervisors and rights differ in what they show.
class System {
  public:
    explicit System(std::string root) : root_(std::move(root)) {
        while (root_.ends_with('/')) root_.pop_back();
        if (const auto resolved = resolve_links(root_ + "/"); resolved && *resolved != "/")
            root_ = *resolved;
    }

    std::string raw(const std::string& path, size_t limit_bytes = kMaxSysFileBytes) {
        const auto bytes = read_whole_file(files_, root_ + path, limit_bytes);
        if (!bytes) return {};
        return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
    }
    std::string text(const std::string& path) { return trimmed(raw(path)); }
    std::optional<uint64_t> number(const std::string& path, int base = 10) {
        return number_of(text(path), base);
    }
    bool exists(const std::string& path) {
        const auto there = files_.exists(root_ + path);
        return there && *there;
    }
    // Names without the slash of directories; empty when it is not there.
    std::vector<std::string> list(const std::string& path) {
        auto names = files_.list(root_ + path);
        if (!names) return {};
        for (std::string& name : *names)
            if (name.ends_with('/')) name.pop_back();
        return *names;
    }
    // Without links and without the root; empty when it is not there.
    std::string resolved(const std::string& path) {
        const auto found = resolve_links(root_ + path);
        if (!found || !found->starts_with(root_)) return {};
        return found->substr(root_.size());
    }

    static std::string trimmed(std::string text) {
        const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\0'; };
        while (!text.empty() && blank(text.back())) text.pop_back();
        size_t start = 0;
        while (start < text.size() && blank(text[start])) ++start;
        return text.substr(start);
    }
    static std::optional<uint64_t> number_of(std::string_view text, int base = 10) {
        if (base == 16 && text.starts_with("0x")) text.remove_prefix(2);
        uint64_t value = 0;
        const auto [end, error] =
            std::from_chars(text.data(), text.data() + text.size(), value, base);
        if (error != std::errc() || end == text.data()) return std::nullopt;
        return value;
    }

  private:
    std::string root_;
    PosixFileSystem files_;
};

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string parent_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

// "DRIVER=" and the like of a device's uevent.
std::string uevent(System& system, const std::string& device, std::string_view key) {
    std::istringstream lines(system.raw(device + "/uevent"));
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(key) && line.size() > key.size() && line[key.size()] == '=')
            return line.substr(key.size() + 1);
    return {};
}

// "0000:00:1f.2": a PCI function's name in /sys.
bool is_pci_function(const std::string& name) {
    return name.size() == 12 && name[4] == ':' && name[7] == ':' && name[10] == '.';
}

struct Place {
    std::string driver;       // of the device, or of the nearest above it that has one
    std::string pci_address;  // of its PCI function on the root bus, else empty
};

// Slots of the root bus that are the chipset's own: the host bridge and the south bridge.
bool is_chipset_slot(const std::string& slot, bool q35) {
    return slot == "00" || slot == (q35 ? "1f" : "01") || slot >= "20";
}

// Where a device (a path of /sys without links) hangs. `unless` names drivers that are passed over:
// "sd" drives every SCSI disk, whatever its controller.
Place place_of(System& system, const std::string& device, bool q35,
               const std::string& unless = {}) {
    Place place;
    std::string function;
    bool behind_bridge = false;
    for (std::string at = device; at.size() > std::string_view("/sys/devices").size();
         at = parent_of(at)) {
        if (place.driver.empty()) {
            const std::string driver = uevent(system, at, "DRIVER");
            if (driver != unless) place.driver = driver;
        }
        if (const std::string name = base_name(at); is_pci_function(name)) {
            behind_bridge = !function.empty();
            if (function.empty()) function = name;
        }
    }
    // Behind a bridge the address depends on bridges that we do not rebuild.
    if (!behind_bridge && function.starts_with("0000:00:") &&
        !is_chipset_slot(function.substr(8, 2), q35))
        place.pci_address = function.substr(8);
    return place;
}

// ---- the machine -------------------------------------------------------------------------------

// The number of CPUs in a list like "0-3,8".
uint32_t count_of_list(const std::string& list, std::vector<uint64_t>& members) {
    std::istringstream ranges(list);
    for (std::string range; std::getline(ranges, range, ',');) {
        const auto first = System::number_of(range);
        if (!first) continue;
        const size_t dash = range.find('-');
        const auto last = dash == std::string::npos
                              ? first
                              : System::number_of(std::string_view(range).substr(dash + 1));
        for (uint64_t cpu = *first; last && cpu <= *last && members.size() < kMaxMachineCpus; ++cpu)
            members.push_back(cpu);
    }
    return static_cast<uint32_t>(members.size());
}

void describe_cpus(System& system, MachineDescription& machine) {
    std::vector<uint64_t> online;
    const uint32_t count = count_of_list(system.text("/sys/devices/system/cpu/online"), online);
    if (count == 0) return;
    machine.cpus = count;
    std::set<uint64_t> packages;
    std::set<std::pair<uint64_t, uint64_t>> cores;
    for (const uint64_t cpu : online) {
        const std::string topology = fmt::format("/sys/devices/system/cpu/cpu{}/topology/", cpu);
        const auto package = system.number(topology + "physical_package_id");
        const auto core = system.number(topology + "core_id");
        if (!package || !core) return;
        packages.insert(*package);
        cores.insert({*package, *core});
    }
    // Only a topology that makes exactly the CPUs that are online.
    const size_t per_package = cores.size() / packages.size();
    const size_t per_core = count / cores.size();
    if (packages.size() * per_package * per_core != count) return;
    machine.sockets = static_cast<uint32_t>(packages.size());
    machine.cores = static_cast<uint32_t>(per_package);
    machine.threads = static_cast<uint32_t>(per_core);
}

// The kernel says what it has left to use. What it was given is a little more: a sixteenth of the
// next power of two is a step in which machines come (2 GiB in 128 MiB, 64 GiB in 4 GiB).
uint64_t rounded_memory(uint64_t usable_bytes) {
    const uint64_t step = std::max(128 * kMiB, std::bit_ceil(usable_bytes) / 16);
    return (usable_bytes + step - 1) / step * step;
}

void describe_memory(System& system, MachineDescription& machine) {
    uint64_t usable_bytes = 0;
    std::istringstream lines(system.raw("/proc/meminfo"));
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with("MemTotal:"))
            usable_bytes = System::number_of(System::trimmed(line.substr(9))).value_or(0) * 1024;
    if (usable_bytes == 0 || usable_bytes > kMaxMachineMemoryBytes / 2) return;
    machine.memory_bytes = rounded_memory(usable_bytes);
    // Exact where the kernel can plug memory, unless its blocks are too large to say.
    const std::string blocks = "/sys/devices/system/memory";
    const uint64_t block_bytes = system.number(blocks + "/block_size_bytes", 16).value_or(0);
    uint64_t total_bytes = 0;
    for (const std::string& name : system.list(blocks))
        if (name.starts_with("memory") && name.size() > 6 && name[6] >= '0' && name[6] <= '9' &&
            system.text(blocks + "/" + name + "/online") != "0")
            total_bytes += block_bytes;
    if (total_bytes >= usable_bytes && total_bytes <= usable_bytes + usable_bytes / 4)
        machine.memory_bytes = total_bytes;
}

bool has_piix(System& system) {
    for (const std::string& device : system.list("/sys/bus/pci/devices")) {
        const std::string path = "/sys/bus/pci/devices/" + device;
        if (system.text(path + "/vendor") != "0x8086") continue;
        const std::string id = system.text(path + "/device");
        // The ISA bridges of PIIX3 and PIIX4.
        if (id == "0x7000" || id == "0x7110") return true;
    }
    return false;
}

void describe_board(System& system, MachineDescription& machine) {
    const std::string dmi = "/sys/class/dmi/id/";
    machine.uuid = system.text(dmi + "product_uuid");
    if (machine.uuid.size() != 36 ||
        machine.uuid.find_first_not_of("0123456789abcdefABCDEF-") != std::string::npos ||
        machine.uuid.find_first_not_of("0-") == std::string::npos)
        machine.uuid.clear();
    const std::string product = system.text(dmi + "product_name");
    // QEMU writes its machine type there: "pc-q35-7.2".
    const std::string version = system.text(dmi + "product_version");
    if (version.size() < 64 &&
        (version.starts_with("pc-q35-") || version.starts_with("pc-i440fx-")))
        machine.machine_type = version;
    else if (product.find("PIIX") != std::string::npos || has_piix(system))
        machine.machine_type = "pc";
    if (system.exists("/sys/firmware/efi")) machine.firmware = Firmware::kUefi;
}

bool is_q35(const MachineDescription& machine) {
    return machine.machine_type.find("q35") != std::string::npos;
}

// ---- network cards -----------------------------------------------------------------------------

// The QEMU device for the driver that runs the card. A guest with igb has e1000e as well; QEMU has
// igb only from 8.0 on. Every Linux has virtio-net.
std::string nic_model(const std::string& driver) {
    static const std::map<std::string, std::string> models = {
        {"virtio_net", "virtio-net-pci"}, {"e1000e", "e1000e"}, {"e1000", "e1000"},
        {"vmxnet3", "vmxnet3"},           {"igb", "e1000e"},    {"8139cp", "rtl8139"},
        {"8139too", "rtl8139"},           {"pcnet32", "pcnet"},
    };
    const auto found = models.find(driver);
    return found == models.end() ? "virtio-net-pci" : found->second;
}

void describe_nics(System& system, MachineDescription& machine) {
    // By the kernel's number: names sort eth10 before eth2.
    std::map<uint64_t, std::string> cards;
    for (const std::string& name : system.list("/sys/class/net")) {
        const std::string path = "/sys/class/net/" + name;
        if (!system.exists(path + "/device") || system.text(path + "/type") != "1") continue;
        cards.emplace(system.number(path + "/ifindex").value_or(UINT32_MAX + cards.size()), path);
    }
    std::set<std::string> macs;
    for (const auto& [number, path] : cards) {
        if (machine.nics.size() == kMaxMachineNics) return;
        MachineNic nic;
        // The members of a bond all show one address.
        nic.mac = system.text(path + "/bonding_slave/perm_hwaddr");
        if (nic.mac.empty()) nic.mac = system.text(path + "/address");
        if (nic.mac == "00:00:00:00:00:00") nic.mac.clear();
        // A cloud shows one card twice, once as a fast path into the hardware.
        if (!nic.mac.empty() && !macs.insert(nic.mac).second) continue;
        const Place place = place_of(system, system.resolved(path + "/device"), is_q35(machine));
        nic.model = nic_model(place.driver);
        nic.pci_address = place.pci_address;
        machine.nics.push_back(std::move(nic));
    }
}

// ---- disks -------------------------------------------------------------------------------------

// By the driver of the disk's controller: what the system has in its initramfs already.
DiskBus bus_of(const std::string& driver) {
    static const std::map<std::string, DiskBus> buses = {
        {"virtio_blk", DiskBus::kVirtioBlk},
        {"virtio_scsi", DiskBus::kVirtioScsi},
        {"nvme", DiskBus::kNvme},
        {"ahci", DiskBus::kIde},
        {"ata_piix", DiskBus::kIde},
        {"ata_generic", DiskBus::kIde},
        {"sym53c8xx", DiskBus::kScsi},
        {"vmw_pvscsi", DiskBus::kPvscsi},
        {"megaraid_sas", DiskBus::kMegasas},
        {"mptsas", DiskBus::kMptSas},
    };
    const auto found = buses.find(driver);
    if (found != buses.end()) return found->second;
    if (driver.starts_with("sata_") || driver.starts_with("pata_")) return DiskBus::kIde;
    return DiskBus::kVirtioBlk;
}

std::string serial_of(System& system, const std::string& block) {
    std::string serial = system.text(block + "/serial");                 // virtio-blk
    if (serial.empty()) serial = system.text(block + "/device/serial");  // NVMe
    if (serial.empty()) {
        // SCSI's vital product data: four bytes of header, the last two of them the length.
        const std::string page = system.raw(block + "/device/vpd_pg80");
        if (page.size() > 4) serial = System::trimmed(page.substr(4));
    }
    if (serial.empty()) {
        std::istringstream lines(system.raw("/run/udev/data/b" + system.text(block + "/dev")));
        for (std::string line; std::getline(lines, line) && serial.empty();)
            for (const std::string_view key : {"E:ID_SCSI_SERIAL=", "E:ID_SERIAL_SHORT="})
                if (line.starts_with(key)) serial = line.substr(key.size());
    }
    const bool printable = std::all_of(serial.begin(), serial.end(),
                                       [](unsigned char c) { return c >= ' ' && c < 0x7f; });
    return printable ? serial.substr(0, kMaxSerialBytes) : std::string();
}

// The name in /sys of what a path of /dev leads to: "sda" for "/dev/disk/by-id/…".
std::string block_name(System& system, const std::string& path) {
    const std::string device = system.resolved(path);
    if (!device.starts_with("/dev/")) return {};
    std::string name = device.substr(5);
    std::replace(name.begin(), name.end(), '/', '!');
    return system.exists("/sys/class/block/" + name) ? name : std::string();
}

Result<MachineDisk> describe_disk(System& system, const PlainDisk& wanted, bool q35) {
    const std::string name = block_name(system, wanted.path);
    if (name.empty())
        return fail(Code::kNotFound,
                    fmt::format("there is no block device '{}' on this machine", wanted.path),
                    "name a disk that lsblk lists, e.g. /dev/vda");
    const std::string block = "/sys/class/block/" + name;
    const std::string device = system.resolved(block);
    if (system.exists(block + "/partition"))
        return fail(
            Code::kInvalidArgument,
            fmt::format("'{}' is a partition: it does not start without its disk", wanted.path),
            fmt::format("name the whole disk, /dev/{}", base_name(parent_of(device))));
    MachineDisk disk;
    disk.path = wanted.path;
    disk.size_bytes = wanted.size_bytes;
    if (disk.size_bytes == 0) disk.size_bytes = system.number(block + "/size").value_or(0) * 512;
    disk.read_only = system.text(block + "/ro") == "1";
    disk.serial = serial_of(system, block);
    if (system.text(block + "/queue/logical_block_size") == "4096") disk.logical_block_bytes = 4096;
    const Place place = place_of(system, device, q35, "sd");
    // A namespace with several paths hangs from no controller in particular.
    disk.bus = name.starts_with("nvme") ? DiskBus::kNvme : bus_of(place.driver);
    if (disk.bus != DiskBus::kIde) disk.pci_address = place.pci_address;
    return disk;
}

// The disks under a block device: itself, its disk when it is a partition, or those of what it is
// put together from.
void disks_under(System& system, const std::string& name, std::vector<std::string>& out,
                 int depth = 0) {
    if (name.empty() || depth > kMaxStackDepth) return;
    const std::string block = "/sys/class/block/" + name;
    if (system.exists(block + "/partition"))
        return disks_under(system, base_name(parent_of(system.resolved(block))), out, depth + 1);
    const std::vector<std::string> parts = system.list(block + "/slaves");
    if (parts.empty()) out.push_back(name);
    for (const std::string& part : parts) disks_under(system, part, out, depth + 1);
}

// A path of mountinfo, where blanks and the like are "\040".
std::string unescaped(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto code = text[i] == '\\' && i + 3 < text.size()
                              ? System::number_of(text.substr(i + 1, 3), 8)
                              : std::nullopt;
        out.push_back(code ? static_cast<char>(*code) : text[i]);
        if (code) i += 3;
    }
    return out;
}

// The block device mounted at each place (proc(5), mountinfo). A later mount covers an earlier one.
std::map<std::string, std::string> mounts(System& system) {
    std::map<std::string, std::string> by_number;
    for (const std::string& name : system.list("/sys/class/block"))
        by_number.emplace(system.text("/sys/class/block/" + name + "/dev"), name);
    std::map<std::string, std::string> found;
    std::istringstream lines(system.raw("/proc/self/mountinfo", kMaxMountsBytes));
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string id, parent, number, root, where, word, type, source;
        words >> id >> parent >> number >> root >> where;
        while (words >> word && word != "-") {
        }
        words >> type >> source;
        // btrfs and the like have a number of their own and name one of their devices.
        const auto known = by_number.find(number);
        found[unescaped(where)] =
            known != by_number.end() ? known->second : block_name(system, unescaped(source));
    }
    return found;
}

// The disk that the firmware reads comes first, then the root's.
void choose_boot_disks(System& system, MachineDescription& machine) {
    const std::map<std::string, std::string> mounted = mounts(system);
    std::vector<std::string> places = {"/boot", "/"};
    if (machine.firmware == Firmware::kUefi) places.insert(places.begin(), {"/boot/efi", "/efi"});
    uint32_t next = 1;
    for (const std::string& where : places) {
        const auto found = mounted.find(where);
        if (found == mounted.end()) continue;
        std::vector<std::string> under;
        disks_under(system, found->second, under);
        for (const std::string& name : under)
            for (MachineDisk& disk : machine.disks)
                if (!disk.boot_index && block_name(system, disk.path) == name)
                    disk.boot_index = next++;
    }
}

}  // namespace

Result<MachineDescription> describe_local_machine(const LocalMachineOptions& options) {
    if (options.disks.empty())
        return fail(Code::kInvalidArgument, "no disk of this machine is named",
                    "name at least the disk that it starts from, e.g. --device /dev/vda");
    if (options.disks.size() > kMaxMachineDisks)
        return fail(Code::kLimitReached, fmt::format("{} disks are named, a machine can have {}",
                                                     options.disks.size(), kMaxMachineDisks));
    System system(options.root);
    MachineDescription machine;
    machine.name = options.name.empty() ? system.text("/proc/sys/kernel/hostname") : options.name;
    machine.architecture = kArchitecture;
    describe_board(system, machine);
    describe_cpus(system, machine);
    describe_memory(system, machine);
    describe_nics(system, machine);
    const auto hardware_clock_s = system.number("/sys/class/rtc/rtc0/since_epoch");
    if (options.now && hardware_clock_s)
        machine.rtc_offset_s = rtc_offset_of(static_cast<int64_t>(*hardware_clock_s), *options.now);
    std::map<std::string, std::string> path_of;
    for (const PlainDisk& wanted : options.disks) {
        FS_ASSIGN(MachineDisk disk, describe_disk(system, wanted, is_q35(machine)));
        const auto [other, is_new] = path_of.emplace(block_name(system, wanted.path), wanted.path);
        if (!is_new)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' and '{}' are one disk", other->second, wanted.path),
                        "name each disk once");
        disk.index = wanted.index.value_or(static_cast<DiskIndex>(machine.disks.size()));
        machine.disks.push_back(std::move(disk));
    }
    choose_boot_disks(system, machine);
    // What the vault will not take is better known here.
    FS_TRY(decode_machine(encode_machine(machine)));
    return machine;
}

}  // namespace farshore
