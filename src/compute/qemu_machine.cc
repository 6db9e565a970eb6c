#include "compute/qemu_machine.h"

#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "compute/child_files.h"
#include "compute/json_read.h"
#include "compute/qmp_client.h"
#include "os/bridge_port.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr std::string_view kStateNames[] = {"running", "paused", "failed", "stopped"};
constexpr int kPollMs = 5;
constexpr int kQmpTimeoutMs = 5000;
constexpr int kFirstPortFd = 3;  // of cards on bridges
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

struct UefiFiles {
    std::string code, variables;
};

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

// Rank of each disk in the order in which the firmware tries them.
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

Result<std::vector<std::string>> known_machine_types() {
    static const Result<std::vector<std::string>> known = []() -> Result<std::vector<std::string>> {
        ProcessOptions options;
        options.arguments = {"qemu-system-x86_64", "-machine", "help"};
        FS_ASSIGN(const CommandResult said, run_command(options));
        std::vector<std::string> types;
        for (size_t at = 0; at < said.output.size();) {
            const size_t end = std::min(said.output.find('\n', at), said.output.size());
            const std::string line = said.output.substr(at, end - at);
            if (const size_t blank = line.find(' '); blank != std::string::npos)
                types.push_back(line.substr(0, blank));
            at = end + 1;
        }
        return types;
    }();
    return known;
}

std::string pid_path(const std::string& directory) { return directory + "/qemu.pid"; }

}  // namespace

namespace {

NetworkChoice network_of(const QemuOptions& options, size_t nic) {
    return nic < options.networks.size() ? options.networks[nic] : NetworkChoice{};
}

// What -netdev takes for the card; empty: it has no cable.
std::string netdev_of(const QemuOptions& options, size_t nic) {
    const NetworkChoice network = network_of(options, nic);
    switch (network.kind) {
        case NetworkKind::kIsolated:
            return fmt::format("user,id=net{},restrict=on", nic);
        case NetworkKind::kUser:
            return fmt::format("user,id=net{}", nic);
        case NetworkKind::kNone:
            break;
        case NetworkKind::kSegment: {
            const SegmentAddress at = segment_address(options.segment_scope, network.name);
            return fmt::format("socket,id=net{},mcast={}:{},localaddr=127.0.0.1", nic, at.group,
                               at.port);
        }
        case NetworkKind::kBridge:
            return fmt::format("tap,id=net{},fd={},vhost=off", nic,
                               kFirstPortFd + static_cast<int>(nic));
    }
    return {};
}

struct UsernetRow {
    std::string_view state;  // "HOST_FORWARD", "ESTABLISHED", "SYN_SENT", ...
    uint16_t source_port = 0, destination_port = 0;
};

// "  TCP[ESTABLISHED]  15  127.0.0.1 40112  10.0.2.15 22  0  0"
std::vector<UsernetRow> usernet_rows(std::string_view text) {
    std::vector<UsernetRow> rows;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        std::string_view line = text.substr(at, end - at);
        at = end + 1;
        std::vector<std::string_view> words;
        while (!line.empty()) {
            const size_t from = line.find_first_not_of(" \t\r");
            if (from == line.npos) break;
            const size_t until = std::min(line.find_first_of(" \t\r", from), line.size());
            words.push_back(line.substr(from, until - from));
            line.remove_prefix(until);
        }
        if (words.size() < 6 || !words[0].starts_with("TCP[") || !words[0].ends_with("]")) continue;
        UsernetRow row{words[0].substr(4, words[0].size() - 5), 0, 0};
        const auto number = [](std::string_view word, uint16_t& to) {
            const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), to);
            return error == std::errc() && stop == word.data() + word.size();
        };
        if (number(words[3], row.source_port) && number(words[5], row.destination_port))
            rows.push_back(row);
    }
    return rows;
}

}  // namespace

std::optional<uint16_t> usernet_forward(std::string_view text, uint16_t guest_port) {
    for (const UsernetRow& row : usernet_rows(text))
        if (row.state == "HOST_FORWARD" && row.destination_port == guest_port &&
            row.source_port != 0)
            return row.source_port;
    return {};
}

size_t usernet_taken(std::string_view text, uint16_t guest_port) {
    // Before the guest has answered, its side is only asked for.
    size_t taken = 0;
    for (const UsernetRow& row : usernet_rows(text))
        if (row.destination_port == guest_port && row.state != "HOST_FORWARD" &&
            row.state != "SYN_SENT" && row.state != "SYN_RCVD" && row.state != "CLOSED" &&
            row.state != "NONE")
            ++taken;
    return taken;
}

std::string_view machine_state_name(MachineState state) {
    return kStateNames[static_cast<size_t>(state)];
}

Result<std::vector<std::string>> qemu_arguments(const QemuOptions& options,
                                                const std::vector<std::string>& machine_types) {
    const MachineDescription& machine = options.machine;
    const std::string& directory = options.run_directory;
    if (machine.architecture != "x86_64" && machine.architecture != "i386")
        return fail(Code::kUnsupported,
                    fmt::format("machines of architecture '{}' cannot be started here",
                                machine.architecture));
    if (machine.disks.size() != options.disks.size())
        return fail(Code::kInvalidArgument,
                    fmt::format("the machine has {} disks, {} are given", machine.disks.size(),
                                options.disks.size()));
    FS_ASSIGN(const std::string type, choose_machine_type(machine.machine_type, machine_types));
    const bool q35 = type.find("q35") != std::string::npos;
    const bool kvm = options.accelerator == Accelerator::kKvm;

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
    if (options.vnc) add("-vnc", "unix:" + escaped(directory + "/vnc.sock"));
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
        add("-blockdev",
            dump({{"driver", "nbd"},
                  {"node-name", fmt::format("disk{}", i)},
                  {"server", {{"type", "unix"}, {"path", options.disks[i].socket_path}}},
                  {"export", options.disks[i].export_name},
                  {"reconnect-delay", options.reconnect_delay_s},
                  {"discard", "unmap"},
                  {"read-only", machine.disks[i].read_only && takes_read_only}}));
        devices.add_disk(i, ranks[i]);
    }
    for (size_t i = 0; i < machine.nics.size(); ++i) {
        const std::string netdev = netdev_of(options, i);
        if (!netdev.empty()) add("-netdev", netdev);
        devices.add_nic(i, !netdev.empty());
    }
    for (const Json& device : devices.take()) add("-device", dump(device));
    return arguments;
}

QemuMachine::QemuMachine(Process process, std::string run_directory)
    : process_(std::move(process)), run_directory_(std::move(run_directory)) {}
QemuMachine::QemuMachine(QemuMachine&&) noexcept = default;
QemuMachine& QemuMachine::operator=(QemuMachine&&) noexcept = default;
QemuMachine::~QemuMachine() = default;

Result<QemuMachine> QemuMachine::start(const QemuOptions& options) {
    PosixFileSystem files;
    const std::string& directory = options.run_directory;
    if (directory.size() + std::string_view("/serial.sock").size() > kMaxUnixPathBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("the run directory '{}' is too long for sockets", directory),
                    "use a shorter run directory");
    if (adopt_from_pid_file(files, pid_path(directory)))
        return fail(Code::kAlreadyExists, fmt::format("a machine already runs in {}", directory));
    FS_ASSIGN(const std::vector<std::string> types, known_machine_types());
    ProcessOptions process;
    FS_ASSIGN(process.arguments, qemu_arguments(options, types));
    if (options.machine.firmware == Firmware::kUefi) {
        // The guest's own boot entries are not on its disks, so not in the replica: an empty store
        // makes the firmware take the disk's fallback loader. One that is there is of this very
        // machine.
        const std::string variables = directory + "/efivars.fd";
        FS_ASSIGN(const bool there, files.exists(variables));
        if (!there) {
            FS_ASSIGN(const UefiFiles uefi, find_uefi());
            FS_ASSIGN(const Bytes empty, read_whole_file(files, uefi.variables));
            FS_TRY(write_file_durably(files, variables, empty));
        }
    }
    // QEMU holds them from then on, and they go with it.
    std::vector<UniqueFd> ports;
    for (size_t i = 0; i < options.machine.nics.size(); ++i) {
        const NetworkChoice network = network_of(options, i);
        if (network.kind != NetworkKind::kBridge) continue;
        FS_ASSIGN(UniqueFd port, open_bridge_port(network.name));
        process.inherit_fds.emplace_back(port.get(), kFirstPortFd + static_cast<int>(i));
        ports.push_back(std::move(port));
    }
    const std::string log = directory + "/qemu.log";
    process.output = process.error = StdStream::file(log);
    process.new_session = true;
    auto spawned = [&] {
        const WithoutNetworkRight without;  // what makes a port is not the guest's
        return Process::spawn(process);
    }();
    FS_ASSIGN(Process running, std::move(spawned));
    QemuMachine started(std::move(running), directory);
    if (Status written = write_pid_file(files, pid_path(directory), started.process_.key());
        !written) {
        (void)started.kill();
        return fail(written.error());
    }
    Error last(Code::kTimeout, "it does not open its monitor");
    const bool up = wait_until(options.start_timeout_ms, kPollMs, [&] {
        if (!started.alive()) return true;
        const auto connected = started.qmp();
        if (!connected) last = connected.error();
        return connected.has_value();
    });
    if (!started.alive() || !up) {
        const bool ended = !started.alive();
        (void)started.kill();
        (void)started.remove_sockets();
        if (ended) {
            const std::string words = tail_of_file(log);
            const bool no_room = words.find("Cannot allocate memory") != words.npos;
            return fail(no_room ? Code::kLimitReached : Code::kGuestFailed,
                        fmt::format("QEMU ended at once: {}", words));
        }
        return fail(last.with_context("QEMU did not start in time"));
    }
    return started;
}

Result<QemuMachine> QemuMachine::adopt(const std::string& run_directory) {
    PosixFileSystem files;
    FS_ASSIGN(Process process, adopt_from_pid_file(files, pid_path(run_directory)));
    return QemuMachine(std::move(process), run_directory);
}

Status QemuMachine::clean_up(const std::string& run_directory) {
    auto running = adopt(run_directory);
    if (running) {
        FS_TRY(running->kill());
    } else if (running.error().code() != Code::kNotFound &&
               running.error().code() != Code::kMalformed) {
        return fail(running.error());
    } else if (const auto pid = unix_socket_server_pid(run_directory + "/qmp.sock")) {
        // We died between starting it and noting its id: the socket knows who it is.
        if (const auto key = key_of(*pid))
            if (auto process = Process::adopt(*key)) FS_TRY(process->terminate(0));
    }
    for (const char* name : {"/qmp.sock", "/serial.sock", "/vnc.sock", "/qga.sock", "/serial.log",
                             "/qemu.log", "/efivars.fd", "/qemu.pid"})
        FS_TRY(remove_if_there(run_directory + name));
    return {};
}

Status QemuMachine::remove_sockets() {
    for (const char* name : {"/qmp.sock", "/serial.sock", "/vnc.sock", "/qga.sock", "/qemu.pid"})
        FS_TRY(remove_if_there(run_directory_ + name));
    return {};
}

Result<QmpClient*> QemuMachine::qmp() {
    if (qmp_ && !qmp_->connected()) qmp_.reset();
    if (!qmp_) {
        FS_ASSIGN(qmp_, QmpClient::connect(qmp_socket(), {.connect_timeout_ms = kQmpTimeoutMs,
                                                          .command_timeout_ms = kQmpTimeoutMs}));
    }
    return qmp_.get();
}

Result<MachineState> QemuMachine::state() {
    if (!alive()) return MachineState::kStopped;
    FS_ASSIGN(QmpClient * client, qmp());
    auto answer = client->execute("query-status");
    // It ended in the middle of the question.
    if (!answer && !alive()) return MachineState::kStopped;
    FS_TRY(answer);
    const std::string status = json_text(*answer, "status");
    if (status == "running") return MachineState::kRunning;
    if (status == "shutdown") return MachineState::kStopped;
    if (status == "guest-panicked" || status == "internal-error" || status == "io-error" ||
        status == "watchdog")
        return MachineState::kFailed;
    return MachineState::kPaused;
}

Result<MachineActivity> QemuMachine::activity() {
    FS_ASSIGN(QmpClient * client, qmp());
    FS_ASSIGN(const Json answer, client->execute("query-blockstats"));
    MachineActivity sum;
    for (const Json& entry : answer) {
        // The firmware's flash is no disk.
        if (!json_text(entry, "node-name").starts_with("disk")) continue;
        const Json& stats = json_at(entry, "stats");
        sum.read_operations += json_u64(stats, "rd_operations");
        sum.read_bytes += json_u64(stats, "rd_bytes");
        sum.write_operations += json_u64(stats, "wr_operations");
        sum.write_bytes += json_u64(stats, "wr_bytes");
    }
    return sum;
}

Result<TrialSample> QemuMachine::trial_sample() {
    TrialSample sample;
    sample.serial_bytes = file_size_or_zero(serial_log());
    FS_ASSIGN(const MachineState now, state());
    sample.ended = now == MachineState::kStopped;
    if (sample.ended) return sample;
    FS_ASSIGN(QmpClient * client, qmp());
    FS_ASSIGN(const Json status, client->execute("query-status"));
    sample.internal_error = json_text(status, "status") == "internal-error";
    FS_ASSIGN(const MachineActivity done, activity());
    sample.read_operations = done.read_operations;
    sample.write_operations = done.write_operations;
    for (const Json& event : client->take_events())
        if (json_text(event, "event") == "RESET" && json_bool(json_at(event, "data"), "guest"))
            ++resets_;
    sample.resets = resets_;
    return sample;
}

Status QemuMachine::screenshot(const std::string& path) {
    FS_ASSIGN(QmpClient * client, qmp());
    FS_TRY(client->execute("screendump", Json{{"filename", path}, {"format", "png"}}));
    return {};
}

Result<uint16_t> QemuMachine::forward_port(uint16_t guest_port) {
    FS_ASSIGN(QmpClient * client, qmp());
    FS_ASSIGN(std::string said, client->human("info usernet"));
    std::optional<uint16_t> port = usernet_forward(said, guest_port);
    if (port) return *port;
    if (said.find("(net0):") == said.npos && said.find("net0:") == said.npos)
        return fail(Code::kUnsupported,
                    fmt::format("port {} of the machine cannot be reached: its first network card "
                                "is on no network of QEMU's own",
                                guest_port),
                    "ports lead to machines on the networks isolated and user only");
    FS_ASSIGN(const std::string refused,
              client->human(fmt::format("hostfwd_add net0 tcp:127.0.0.1:0-:{}", guest_port)));
    FS_ASSIGN(said, client->human("info usernet"));
    port = usernet_forward(said, guest_port);
    if (port) return *port;
    return fail(Code::kUnsupported,
                fmt::format("port {} of the machine cannot be reached: {}", guest_port,
                            refused.empty() ? said.substr(0, 200) : refused.substr(0, 200)),
                "it needs a network card with a cable");
}

Result<size_t> QemuMachine::taken_connections(uint16_t guest_port) {
    FS_ASSIGN(QmpClient * client, qmp());
    FS_ASSIGN(const std::string said, client->human("info usernet"));
    return usernet_taken(said, guest_port);
}

Status QemuMachine::press_power_button() {
    FS_ASSIGN(QmpClient * client, qmp());
    FS_TRY(client->execute("system_powerdown"));
    return {};
}

Status QemuMachine::stop(int grace_ms) {
    if (alive() && grace_ms > 0 && press_power_button()) {
        // A guest that shuts down ends QEMU.
        (void)process_.wait(int64_t(grace_ms) * 1000);
    }
    if (alive())
        if (auto client = qmp()) {
            (void)(*client)->execute("quit");
            (void)process_.wait(10'000'000);
        }
    FS_TRY(kill());
    return remove_sockets();
}

Status QemuMachine::kill() {
    qmp_.reset();
    const Status killed = process_.kill(SIGKILL);
    if (!killed && killed.error().code() != Code::kNotFound) return killed;
    FS_TRY(process_.wait(10'000'000));
    return {};
}

}  // namespace farshore
