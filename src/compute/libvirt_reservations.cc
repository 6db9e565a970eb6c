// Addresses that the DHCP servers of a libvirt host's networks give to our machines.
#include <fmt/core.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "compute/dhcp_address.h"
#include "compute/libvirt_compute.h"
#include "compute/libvirt_host.h"
#include "compute/libvirt_networks.h"

namespace farshore {
namespace {

constexpr int kPatienceMs = 15'000;

// A network is described twice: as it runs, and as it is after its next start.
struct Description {
    unsigned xml_flags;
    unsigned update_flags;
};
constexpr Description kLive{0, VIR_NETWORK_UPDATE_AFFECT_LIVE};
constexpr Description kConfigured{VIR_NETWORK_XML_INACTIVE, VIR_NETWORK_UPDATE_AFFECT_CONFIG};

std::vector<Description> descriptions_of(virNetwork* network) {
    std::vector<Description> all;
    if (virNetworkIsActive(network) == 1) all.push_back(kLive);
    if (virNetworkIsPersistent(network) == 1) all.push_back(kConfigured);
    return all;
}

Result<NetworkAddressing> addressing_of(const LibvirtHost& host, virNetwork* network,
                                        unsigned xml_flags) {
    char* const said = virNetworkGetXMLDesc(network, xml_flags);
    if (said == nullptr) return fail(host.error("a network's description"));
    return read_network_addressing(taken(said));
}

Status update(const LibvirtHost& host, virNetwork* network, virNetworkUpdateCommand command,
              size_t block, const DhcpReservation& reservation, unsigned flags) {
    const std::string xml = reservation_xml(reservation);
    if (virNetworkUpdate(network, command, VIR_NETWORK_SECTION_IP_DHCP_HOST,
                         static_cast<int>(block), xml.c_str(), flags) == 0)
        return {};
    return fail(host.error(fmt::format("the reservation of {} on network '{}'", reservation.address,
                                       virNetworkGetName(network))));
}

// Another card that has the address now keeps it, and the server would give ours another one.
Status check_lease(const LibvirtHost& host, virNetwork* network, const DhcpReservation& wanted) {
    virNetworkDHCPLeasePtr* leases = nullptr;
    const int n = virNetworkGetDHCPLeases(network, nullptr, &leases, 0);
    if (n < 0) return fail(host.error("the leases of a network"));
    Status free_for_us;
    for (int i = 0; i < n; ++i) {
        const std::string mac = leases[i]->mac == nullptr ? "" : leases[i]->mac;
        if (leases[i]->ipaddr != nullptr && leases[i]->ipaddr == wanted.address && !mac.empty() &&
            mac != wanted.mac)
            free_for_us = fail(
                Code::kAlreadyExists,
                plain_text(fmt::format("on network '{}' the card {} has a lease of {} until {}",
                                       virNetworkGetName(network), mac, wanted.address,
                                       to_rfc3339({leases[i]->expirytime * 1'000'000}))),
                "take another address, or the --mac of that card, or wait until then");
        virNetworkDHCPLeaseFree(leases[i]);
    }
    free(static_cast<void*>(leases));
    return free_for_us;
}

LibvirtNetwork find_network(virConnect* connection, const std::string& name) {
    return LibvirtNetwork(virNetworkLookupByName(connection, name.c_str()));
}

}  // namespace

// What is in the names of a machine's reservations, whose end is a card's place.
std::string LibvirtCompute::reservation_prefix(const MachinePlace& place) const {
    return fmt::format("{}-{}-", prefix_, place.id);
}

Status LibvirtCompute::check_addresses(const MachineDescription& machine,
                                       const std::vector<NetworkChoice>& networks,
                                       const CardAddresses& addresses) {
    for (const auto& [nic, address] : addresses) {
        if (address.by != AddressBy::kDhcp) continue;
        const NetworkChoice network = nic < networks.size() ? networks[nic] : NetworkChoice{};
        FS_TRY(check_dhcp_address(network, address));
        if (network.kind != NetworkKind::kLibvirt)
            return fail(
                Code::kUnsupported,
                fmt::format("compute host '{}' gives no addresses that could be set on "
                            "'{}'",
                            options_.name, network_word(network)),
                "network:NAME of its libvirt does; --address-by cloud-init sets one inside");
        FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
        const LibvirtNetwork found = find_network(connection.get(), network.name);
        if (!found) return fail(host_->error(fmt::format("network '{}'", network.name)));
        DhcpReservation wanted{{}, {}, without_prefix(address.address)};
        if (nic < machine.nics.size()) wanted.mac = machine.nics[nic].mac;
        for (const Description& description : descriptions_of(found.get())) {
            FS_ASSIGN(const NetworkAddressing there,
                      addressing_of(*host_, found.get(), description.xml_flags));
            FS_TRY(block_for(there, network.name, address));
            FS_TRY(check_free(there, network.name, wanted));
        }
        FS_TRY(check_lease(*host_, found.get(), wanted));
    }
    return {};
}

// Before the machine starts; what is there already, of a start that was cut short, stays.
Status LibvirtCompute::reserve(const MachineOrder& order) {
    for (const auto& [nic, address] : order.addresses) {
        if (address.by != AddressBy::kDhcp || nic >= order.machine.nics.size()) continue;
        const NetworkChoice network =
            nic < order.networks.size() ? order.networks[nic] : NetworkChoice{};
        FS_TRY(check_dhcp_address(network, address));
        if (network.kind != NetworkKind::kLibvirt)
            return fail(Code::kUnsupported,
                        fmt::format("compute host '{}' gives no addresses that could be set on "
                                    "'{}'",
                                    options_.name, network_word(network)));
        const DhcpReservation wanted{order.machine.nics[nic].mac,
                                     reservation_prefix(order.place) + std::to_string(nic),
                                     without_prefix(address.address)};
        FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
        const LibvirtNetwork found = find_network(connection.get(), network.name);
        if (!found) return fail(host_->error(fmt::format("network '{}'", network.name)));
        for (const Description& description : descriptions_of(found.get())) {
            FS_ASSIGN(const NetworkAddressing there,
                      addressing_of(*host_, found.get(), description.xml_flags));
            FS_ASSIGN(const size_t block, block_for(there, network.name, address));
            FS_TRY(check_free(there, network.name, wanted));
            if (std::ranges::count(there.blocks[block].reservations, wanted) != 0) continue;
            FS_TRY(update(*host_, found.get(), VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, block, wanted,
                          description.update_flags));
        }
    }
    return {};
}

// By their names, on whichever networks there are now: neither a crash nor a change of what is set
// leaves one, and somebody else's is none of ours.
Status LibvirtCompute::remove_reservations(const MachinePlace& place) {
    FS_ASSIGN(const LibvirtConnection connection, host_->connect(kPatienceMs));
    const auto networks = networks_of(*host_, connection.get(), 0);
    // A daemon without networks has none of ours.
    if (!networks && networks.error().code() == Code::kUnsupported) return {};
    if (!networks) return fail(networks.error());
    const std::string prefix = reservation_prefix(place);
    const auto ours = [&](const DhcpReservation& reservation) {
        const std::string_view name = reservation.name;
        return name.size() > prefix.size() && name.starts_with(prefix) &&
               name.find_first_not_of("0123456789", prefix.size()) == name.npos;
    };
    for (const LibvirtNetwork& network : *networks) {
        if (std::string_view(virNetworkGetName(network.get())).starts_with("farshore-")) continue;
        for (const Description& description : descriptions_of(network.get())) {
            const auto there = addressing_of(*host_, network.get(), description.xml_flags);
            // It has gone meanwhile.
            if (!there && there.error().code() == Code::kNotFound) continue;
            if (!there) return fail(there.error());
            for (size_t i = 0; i < there->blocks.size(); ++i)
                for (const DhcpReservation& reservation : there->blocks[i].reservations) {
                    if (!ours(reservation)) continue;
                    const Status removed =
                        update(*host_, network.get(), VIR_NETWORK_UPDATE_COMMAND_DELETE, i,
                               reservation, description.update_flags);
                    if (!removed && removed.error().code() != Code::kNotFound) return removed;
                }
        }
    }
    return {};
}

}  // namespace farshore
