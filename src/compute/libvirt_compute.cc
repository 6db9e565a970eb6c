#include "compute/libvirt_compute.h"

#include <fmt/core.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <shared_mutex>

#include "codec/hash.h"
#include "compute/child_files.h"
#include "compute/domain_xml.h"
#include "compute/libvirt_host.h"
#include "compute/libvirt_machine.h"
#include "compute/libvirt_networks.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

// Of somebody who waits for a start or an end.
constexpr int kPatienceMs = 15'000;
constexpr int kSerialHeardMs = 1'050;
constexpr unsigned kUndefineFlags = VIR_DOMAIN_UNDEFINE_NVRAM | VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
                                    VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                    VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;

Digest digest_of(std::string_view scope, std::string_view id) {
    Sha256 hash;
    for (const std::string_view part : {std::string_view("farshore domain"), scope, id}) {
        hash.update(as_bytes(part));
        hash.update(as_bytes(std::string_view("\0", 1)));
    }
    return hash.finish();
}

// RFC 9562, version 8.
std::string uuid_of(const Digest& digest) {
    Bytes raw(digest.begin(), digest.begin() + 16);
    raw[6] = static_cast<uint8_t>((raw[6] & 0x0f) | 0x80);
    raw[8] = static_cast<uint8_t>((raw[8] & 0x3f) | 0x80);
    const std::string hex = to_hex(raw);
    return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                       hex.substr(16, 4), hex.substr(20));
}

std::string version_text(unsigned long version) {
    return fmt::format("{}.{}.{}", version / 1'000'000, version / 1000 % 1000, version % 1000);
}

Result<HostOffer> offer_of(const LibvirtHost& host, virConnect* connection) {
    char* const said = virConnectGetCapabilities(connection);
    if (said == nullptr) return fail(host.error("what it offers"));
    return read_host_offer(taken(said));
}

}  // namespace

LibvirtCompute::LibvirtCompute(LibvirtOptions options)
    : options_(std::move(options)),
      prefix_("farshore-" + to_hex(digest_of(options_.scope, "")).substr(0, 6)),
      door_(std::make_shared<DiskDoor>(options_.disks_group, options_.disks_over_tls)),
      host_(std::make_shared<LibvirtHost>(options_.name, options_.uri)) {}

LibvirtCompute::~LibvirtCompute() = default;

std::string LibvirtCompute::domain_name(const MachinePlace& place) const {
    return prefix_ + "." + place.id;
}

Result<LibvirtReport> LibvirtCompute::report() {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const RealClock clock;
    const int64_t from_us = clock.steady_us();
    LibvirtReport report;
    report.hostname = taken(virConnectGetHostname(connection.get()));
    report.round_trip_us = clock.steady_us() - from_us;
    unsigned long version = 0;
    if (virConnectGetLibVersion(connection.get(), &version) == 0)
        report.libvirt_version = version_text(version);
    version = 0;
    if (virConnectGetVersion(connection.get(), &version) == 0)
        report.hypervisor_version = version_text(version);
    FS_ASSIGN(const HostOffer offer, offer_of(*host_, connection.get()));
    report.kvm = offer.kvm;
    virNodeInfo node{};
    if (virNodeGetInfo(connection.get(), &node) == 0) {
        report.cpus = node.cpus;
        report.memory_bytes = uint64_t{node.memory} * 1024;
    }
    report.free_memory_bytes = virNodeGetFreeMemory(connection.get());
    if (const auto networks =
            networks_of(*host_, connection.get(), VIR_CONNECT_LIST_NETWORKS_ACTIVE))
        for (const LibvirtNetwork& network : *networks)
            if (const std::string name = virNetworkGetName(network.get());
                !name.starts_with("farshore-"))
                report.networks.push_back(name);
    std::ranges::sort(report.networks);
    return report;
}

Result<AcceleratorVerdict> LibvirtCompute::accelerator() {
    AcceleratorVerdict verdict;
    if (options_.accelerator) {
        verdict.accelerator = *options_.accelerator;
        verdict.words = fmt::format("set for compute host '{}'", options_.name);
        return verdict;
    }
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    FS_ASSIGN(const HostOffer offer, offer_of(*host_, connection.get()));
    verdict.accelerator = offer.kvm ? Accelerator::kKvm : Accelerator::kTcg;
    verdict.words = fmt::format("compute host '{}' {}", options_.name,
                                offer.kvm ? "offers KVM" : "has no KVM: the machine is emulated");
    return verdict;
}

Result<HostCapacity> LibvirtCompute::room() {
    FS_ASSIGN(const LibvirtReport host, report());
    return HostCapacity{host.cpus, host.memory_bytes, host.free_memory_bytes};
}

Status LibvirtCompute::check(const MachineDescription& machine,
                             const std::vector<NetworkChoice>& networks) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    FS_ASSIGN(const HostOffer offer, offer_of(*host_, connection.get()));
    DomainOrder trial;
    trial.machine = machine;
    trial.disks.resize(machine.disks.size());
    trial.cards.resize(machine.nics.size());
    trial.machine_types = offer.machine_types;
    FS_TRY(domain_xml(trial));
    if (machine.firmware == Firmware::kUefi) {
        char* const said = virConnectGetDomainCapabilities(connection.get(), nullptr, "x86_64",
                                                           nullptr, nullptr, 0);
        if (said == nullptr) return fail(host_->error("its firmware"));
        const std::string can = taken(said);
        if (can.find("<value>efi</value>") == can.npos)
            return fail(Code::kDependencyMissing,
                        fmt::format("the machine boots by UEFI, and compute host '{}' has no UEFI "
                                    "firmware",
                                    options_.name),
                        "install it there: apt-get install ovmf");
    }
    if (!options_.run_root.empty()) FS_TRY(door_->check(options_.run_root));
    for (const NetworkChoice& network : networks) {
        if (network.kind == NetworkKind::kIsolated || network.kind == NetworkKind::kSegment) {
            if (virConnectNumOfNetworks(connection.get()) < 0)
                return fail(host_->error("it makes no networks"));
            if (options_.uri.find("/session") != std::string::npos)
                return fail(Code::kUnsupported,
                            fmt::format("compute host '{}' is a session daemon: it makes no closed "
                                        "networks",
                                        options_.name),
                            "`user` and `none` it has; or use its system daemon");
        } else if (network.kind == NetworkKind::kLibvirt) {
            const LibvirtNetwork found(
                virNetworkLookupByName(connection.get(), network.name.c_str()));
            if (!found || virNetworkIsActive(found.get()) != 1)
                return fail(Code::kDependencyMissing,
                            fmt::format("compute host '{}' has no network '{}' that runs",
                                        options_.name, network.name),
                            "`virsh net-list --all` shows them there, `virsh net-start` starts "
                            "one");
        } else if (network.kind == NetworkKind::kBridge) {
            const std::unique_ptr<virInterface, LibvirtFree<virInterfaceFree>> found(
                virInterfaceLookupByName(connection.get(), network.name.c_str()));
            // A host that cannot tell its interfaces says so at the start.
            if (!found && host_->error("").code() == Code::kNotFound)
                return fail(Code::kDependencyMissing,
                            fmt::format("compute host '{}' has no bridge '{}'", options_.name,
                                        network.name),
                            "`ip link show type bridge` shows them there");
        }
    }
    return {};
}

Status LibvirtCompute::make_network(const std::string& name) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const LibvirtNetwork known(virNetworkLookupByName(connection.get(), name.c_str()));
    if (known) return {};
    const LibvirtNetwork made(
        virNetworkCreateXML(connection.get(), closed_network_xml(name).c_str()));
    if (made) return {};
    Error error = host_->error("a closed network");
    if (error.code() == Code::kAlreadyExists) return {};
    return fail(Error(error.code(), error.what(),
                      "closed networks need the host's system daemon; `user` and `none` do not"));
}

Result<std::vector<DomainCard>> LibvirtCompute::plug_in(const MachineOrder& order) {
    std::vector<DomainCard> cards;
    for (size_t i = 0; i < order.machine.nics.size(); ++i) {
        const NetworkChoice network =
            i < order.networks.size() ? order.networks[i] : NetworkChoice{};
        DomainCard card;
        switch (network.kind) {
            case NetworkKind::kIsolated:
                // Of its own: nobody else is on it, and it leads nowhere.
                card = {DomainCard::Plug::kNetwork,
                        fmt::format("{}.{}", domain_name(order.place), i)};
                FS_TRY(make_network(card.name));
                break;
            case NetworkKind::kSegment:
                card = {DomainCard::Plug::kNetwork, prefix_ + "-segment." + network.name};
                FS_TRY(make_network(card.name));
                break;
            case NetworkKind::kUser:
                card.plug = DomainCard::Plug::kUser;
                break;
            case NetworkKind::kNone:
                break;
            case NetworkKind::kBridge:
                card = {DomainCard::Plug::kBridge, network.name};
                break;
            case NetworkKind::kLibvirt:
                card = {DomainCard::Plug::kNetwork, network.name};
                break;
        }
        cards.push_back(std::move(card));
    }
    return cards;
}

// Its own ones, and segments on which nobody is any more.
Status LibvirtCompute::remove_networks(const MachinePlace& place) {
    const std::lock_guard lock(networks_mutex_);
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const auto networks = networks_of(*host_, connection.get(), VIR_CONNECT_LIST_NETWORKS_ACTIVE);
    // A daemon without networks has none of ours.
    if (!networks && networks.error().code() == Code::kUnsupported) return {};
    if (!networks) return fail(networks.error());
    for (const LibvirtNetwork& network : *networks) {
        const std::string name = virNetworkGetName(network.get());
        const bool own = name.starts_with(domain_name(place) + ".");
        const bool segment = name.starts_with(prefix_ + "-segment.");
        if (!own && !segment) continue;
        if (segment && virNetworkListAllPorts(network.get(), nullptr, 0) != 0) continue;
        if (virNetworkDestroy(network.get()) != 0 && virNetworkIsActive(network.get()) == 1)
            return fail(host_->error(fmt::format("removing network {}", name)));
    }
    return {};
}

Result<std::unique_ptr<RecoveryMachine>> LibvirtCompute::start(const MachineOrder& order) {
    // A segment that is made must not go before the machine is on it.
    const std::shared_lock lock(networks_mutex_);
    return run(order);
}

Result<std::unique_ptr<RecoveryMachine>> LibvirtCompute::run(const MachineOrder& order) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const std::string name = domain_name(order.place);
    const auto known = host_->domain(name, kPatienceMs);
    if (!known && known.error().code() != Code::kNotFound) return fail(known.error());
    if (known) {
        if (virDomainIsActive(known->get()) != 0)
            return fail(
                Code::kAlreadyExists,
                fmt::format("compute host '{}': the machine {} runs already", options_.name, name));
        if (virDomainUndefineFlags(known->get(), kUndefineFlags) != 0)
            return fail(host_->error("what is left of an earlier machine"));
    }
    FS_ASSIGN(const std::string xml, definition(order));
    const LibvirtDomain defined(virDomainDefineXML(connection.get(), xml.c_str()));
    if (!defined) return fail(host_->error("the machine"));
    // Paused at first: what is to hear it is there before it speaks.
    if (virDomainCreateWithFlags(defined.get(), VIR_DOMAIN_START_PAUSED) != 0) {
        Error error = host_->error("starting the machine");
        (void)virDomainUndefineFlags(defined.get(), kUndefineFlags);
        return fail(std::move(error));
    }
    auto machine = std::make_unique<LibvirtMachine>(host_, name, order.place, door_);
    // Else tend() tries again. QEMU looks once a second whether anybody holds the other end of its
    // pseudo terminal, and says nothing to it before (char-pty.c).
    if (machine->listen() && order.whole_serial) pause_ms(kSerialHeardMs);
    if (virDomainResume(defined.get()) != 0) {
        Error error = host_->error("starting the machine");
        (void)virDomainDestroy(defined.get());
        (void)virDomainUndefineFlags(defined.get(), kUndefineFlags);
        return fail(std::move(error));
    }
    return machine;
}

// With what it is plugged into, and what its disks are reached through.
Result<std::string> LibvirtCompute::definition(const MachineOrder& order) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const std::string name = domain_name(order.place);
    DomainOrder domain;
    domain.name = name;
    domain.title = order.title;
    domain.machine = order.machine;
    domain.accelerator = order.accelerator;
    FS_ASSIGN(const HostOffer offer, offer_of(*host_, connection.get()));
    domain.machine_types = offer.machine_types;
    // The source's own, which licences and cloud-init go by, unless somebody has it there: the
    // source itself, or another test.
    domain.uuid = order.machine.uuid;
    if (domain.uuid.empty() ||
        LibvirtDomain(virDomainLookupByUUIDString(connection.get(), domain.uuid.c_str())))
        domain.uuid = uuid_of(digest_of(options_.scope, order.place.id));
    DomainDisk served;
    if (std::ranges::any_of(order.disks, [](const DiskSource& disk) { return !disk.file; })) {
        FS_ASSIGN(served, door_->open(order.place, name));
    }
    for (const DiskSource& disk : order.disks) {
        served.file = disk.file;
        served.export_name = disk.export_name;
        served.spare = disk.spare;
        domain.disks.push_back(served);
    }
    FS_TRY(reserve(order));
    FS_ASSIGN(domain.cards, plug_in(order));
    return domain_xml(domain);
}

Result<std::unique_ptr<RecoveryMachine>> LibvirtCompute::adopt(const MachinePlace& place) {
    auto machine = std::make_unique<LibvirtMachine>(host_, domain_name(place), place, door_);
    const auto now = machine->state();
    if (now && *now == MachineState::kStopped)
        return fail(Code::kNotFound, fmt::format("compute host '{}': no machine {} runs",
                                                 options_.name, domain_name(place)));
    if (now && *now != MachineState::kLost) (void)machine->listen();
    return machine;
}

Status LibvirtCompute::clean_up(const MachinePlace& place) {
    const auto found = host_->domain(domain_name(place), kPatienceMs);
    if (!found && found.error().code() != Code::kNotFound) return fail(found.error());
    if (found) {
        if (virDomainIsActive(found->get()) == 1 && virDomainDestroy(found->get()) != 0 &&
            virDomainIsActive(found->get()) != 0)
            return fail(host_->error("ending the machine"));
        if (virDomainUndefineFlags(found->get(), kUndefineFlags) != 0) {
            Error error = host_->error("removing the machine");
            if (error.code() != Code::kNotFound) return fail(std::move(error));
        }
    }
    FS_TRY(remove_reservations(place));
    FS_TRY(remove_networks(place));
    FS_TRY(door_->close(place));
    FS_TRY(remove_if_there(place.run_directory + "/serial.sock"));
    return remove_if_there(place.run_directory + "/serial.log");
}

Result<GuestAgent> LibvirtCompute::guest_agent(const MachinePlace& place, int timeout_ms) {
    return GuestAgent::connect(
        [host = host_, name = domain_name(place)](std::string_view command, const Json& arguments,
                                                  int limit_ms) -> Result<Json> {
            FS_ASSIGN(const LibvirtDomain domain, host->domain(name, limit_ms));
            Json ask{{"execute", std::string(command)}};
            if (!arguments.is_null()) ask["arguments"] = arguments;
            const std::string line = ask.dump(-1, ' ', false, Json::error_handler_t::replace);
            const std::string answer = taken(virDomainQemuAgentCommand(
                domain.get(), line.c_str(), std::max(1, (limit_ms + 999) / 1000), 0));
            if (!answer.empty()) return guest_answer(command, answer);
            Error error = host->error(fmt::format("the guest agent's {}", command));
            const std::string& words = error.what();
            // libvirt tells refusals of the agent by their words only.
            if (words.find("has not been found") != words.npos ||
                words.find("has been disabled") != words.npos)
                return fail(Code::kUnsupported, words);
            if (words.find("is not connected") != words.npos)
                return fail(Code::kTimeout, "no guest agent answers",
                            "it must be installed in the machine, and be running");
            return fail(std::move(error));
        },
        timeout_ms);
}

// What is defined is what it runs on, but for disks that are served; a machine that was off has
// been undefined.
Status LibvirtCompute::let_go(const MachineOrder& order, const std::string& /*script*/) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const auto found = host_->domain(domain_name(order.place), kPatienceMs);
    if (!found && found.error().code() != Code::kNotFound) return fail(found.error());
    std::string xml;
    if (found) {
        char* const said = virDomainGetXMLDesc(found->get(), VIR_DOMAIN_XML_INACTIVE);
        if (said == nullptr) return fail(host_->error("the machine's definition"));
        FS_ASSIGN(xml, without_served_disks(taken(said)));
    } else {
        FS_ASSIGN(xml, definition(order));
    }
    if (!LibvirtDomain(virDomainDefineXML(connection.get(), xml.c_str())))
        return fail(host_->error("the machine's definition"));
    FS_TRY(door_->close(order.place));
    FS_TRY(remove_if_there(order.place.run_directory + "/serial.sock"));
    return remove_if_there(order.place.run_directory + "/serial.log");
}

MachineDoors LibvirtCompute::doors(const MachinePlace& place) const {
    MachineDoors doors;
    doors.serial_log = place.run_directory + "/serial.log";
    doors.serial_socket = place.run_directory + "/serial.sock";
    doors.domain = domain_name(place);
    return doors;
}

}  // namespace farshore
