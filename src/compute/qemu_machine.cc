#include "compute/qemu_machine.h"

#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "compute/child_files.h"
#include "compute/dhcp_address.h"
#include "compute/json_read.h"
#include "compute/qemu_arguments.h"
#include "compute/qemu_disk_copy.h"
#include "compute/qmp_client.h"
#include "os/bridge_port.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr int kPollMs = 5;
constexpr int kQmpTimeoutMs = 5000;

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

QemuMachine::QemuMachine(Process process, std::string run_directory)
    : process_(std::move(process)), run_directory_(std::move(run_directory)) {}
QemuMachine::QemuMachine(QemuMachine&&) noexcept = default;
QemuMachine& QemuMachine::operator=(QemuMachine&&) noexcept = default;
QemuMachine::~QemuMachine() = default;

Result<QemuMachine> QemuMachine::start(const MachineOrder& order) {
    PosixFileSystem files;
    const std::string& directory = order.place.run_directory;
    if (directory.size() + std::string_view("/serial.sock").size() > kMaxUnixPathBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("the run directory '{}' is too long for sockets", directory),
                    "use a shorter run directory");
    if (adopt_from_pid_file(files, pid_path(directory)))
        return fail(Code::kAlreadyExists, fmt::format("a machine already runs in {}", directory));
    FS_ASSIGN(const std::vector<std::string> types, known_machine_types());
    ProcessOptions process;
    FS_ASSIGN(process.arguments, qemu_arguments(order, types));
    if (order.machine.firmware == Firmware::kUefi) {
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
    for (size_t i = 0; i < order.machine.nics.size(); ++i) {
        const NetworkChoice network = network_of(order, i);
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
    const bool up = wait_until(order.start_timeout_ms, kPollMs, [&] {
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

Status QemuMachine::begin_copy(const DiskCopyOrder& order) {
    FS_ASSIGN(QmpClient * client, qmp());
    return QemuDiskCopy(*client, order).begin();
}

Result<CopyState> QemuMachine::copy_state(const DiskCopyOrder& order) {
    FS_ASSIGN(QmpClient * client, qmp());
    return QemuDiskCopy(*client, order).state();
}

Result<int64_t> QemuMachine::switch_over(const DiskCopyOrder& order,
                                         const std::function<Status()>& note, int timeout_ms) {
    FS_ASSIGN(QmpClient * client, qmp());
    return QemuDiskCopy(*client, order).switch_over(note, timeout_ms);
}

Status QemuMachine::end_copy(const DiskCopyOrder& order) {
    FS_ASSIGN(QmpClient * client, qmp());
    return QemuDiskCopy(*client, order).end();
}

Status QemuMachine::kill() {
    qmp_.reset();
    const Status killed = process_.kill(SIGKILL);
    if (!killed && killed.error().code() != Code::kNotFound) return killed;
    FS_TRY(process_.wait(10'000'000));
    return {};
}

// ---- QEMU as a compute -----------------------------------------------------------------------

QemuCompute::QemuCompute(FileSystem& files, std::string verdict_path, std::string configured)
    : files_(files), verdict_path_(std::move(verdict_path)), configured_(std::move(configured)) {}

Result<AcceleratorVerdict> QemuCompute::accelerator() {
    return probe_accelerator(
        files_, {.state_path = verdict_path_, .configured = configured_, .may_boot_kernel = false});
}

Status QemuCompute::check(const MachineDescription& machine,
                          const std::vector<NetworkChoice>& networks) {
    if (machine.firmware == Firmware::kUefi) FS_TRY(find_uefi());
    for (const NetworkChoice& network : networks) {
        if (network.kind == NetworkKind::kBridge) FS_TRY(check_bridge(network.name));
        if (network.kind == NetworkKind::kLibvirt) return no_libvirt_network(network);
    }
    return {};
}

Status QemuCompute::check_addresses(const MachineDescription& /*machine*/,
                                    const std::vector<NetworkChoice>& networks,
                                    const CardAddresses& addresses) {
    for (const auto& [nic, address] : addresses)
        if (address.by == AddressBy::kDhcp)
            FS_TRY(check_dhcp_address(nic < networks.size() ? networks[nic] : NetworkChoice{},
                                      address));
    return {};
}

Result<std::unique_ptr<RecoveryMachine>> QemuCompute::start(const MachineOrder& order) {
    FS_ASSIGN(QemuMachine machine, QemuMachine::start(order));
    return std::make_unique<QemuMachine>(std::move(machine));
}

Result<std::unique_ptr<RecoveryMachine>> QemuCompute::adopt(const MachinePlace& place) {
    FS_ASSIGN(QemuMachine machine, QemuMachine::adopt(place.run_directory));
    return std::make_unique<QemuMachine>(std::move(machine));
}

Status QemuCompute::clean_up(const MachinePlace& place) {
    return QemuMachine::clean_up(place.run_directory);
}

Result<GuestAgent> QemuCompute::guest_agent(const MachinePlace& place, int timeout_ms) {
    return GuestAgent::connect(place.run_directory + "/qga.sock", timeout_ms);
}

// Nothing here starts it after a restart of the host but what its owner is given.
Status QemuCompute::let_go(const MachineOrder& order, const std::string& script) {
    FS_ASSIGN(const std::vector<std::string> types, known_machine_types());
    FS_ASSIGN(const std::string text, start_script(order, types));
    return write_file_durably(files_, script, as_bytes(text));
}

MachineDoors QemuCompute::doors(const MachinePlace& place) const {
    const std::string& run = place.run_directory;
    return {.serial_log = run + "/serial.log",
            .serial_socket = run + "/serial.sock",
            .vnc_socket = run + "/vnc.sock",
            .agent_socket = run + "/qga.sock",
            .domain = {}};
}

}  // namespace farshore
