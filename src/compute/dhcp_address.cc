#include "compute/dhcp_address.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "base/text.h"

namespace farshore {
namespace {

// QEMU's user network has addresses of its own beside the guest's: a gateway and a name server.
constexpr uint32_t kLongestUserPrefix = 29;
constexpr uint32_t kShortestUserPrefix = 4;

std::optional<uint32_t> ipv4_of(const std::string& text) {
    in_addr parsed;
    if (::inet_pton(AF_INET, text.c_str(), &parsed) != 1) return std::nullopt;
    return ntohl(parsed.s_addr);
}

std::string ipv4_text(uint32_t address) {
    return fmt::format("{}.{}.{}.{}", address >> 24, address >> 16 & 0xff, address >> 8 & 0xff,
                       address & 0xff);
}

uint32_t mask_of(uint32_t prefix) { return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix); }

struct Ipv4Place {
    uint32_t address = 0;
    uint32_t prefix = 0;
    uint32_t network() const { return address & mask_of(prefix); }
    uint32_t last() const { return network() | ~mask_of(prefix); }
    // A host's: not the network's own address, and nobody's at once.
    bool has_host(uint32_t other) const { return other > network() && other < last(); }
};

std::optional<Ipv4Place> place_of(const std::string& text) {
    const auto address = ipv4_of(without_prefix(text));
    const size_t slash = text.find('/');
    if (!address || slash == text.npos) return std::nullopt;
    Ipv4Place place{*address, 0};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + slash + 1, end, place.prefix);
    if (error != std::errc() || stop != end || place.prefix > 32) return std::nullopt;
    return place;
}

Error wrong(std::string what, std::string remedy) {
    return Error(Code::kInvalidArgument, std::move(what), std::move(remedy));
}

std::string lower(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
}

NetworkAddressing::Block read_block(const pugi::xml_node& ip) {
    NetworkAddressing::Block block;
    block.address = ip.attribute("address").value();
    const std::string_view family = ip.attribute("family").value();
    block.ipv4 = family.empty() || family == "ipv4";
    if (const pugi::xml_attribute prefix = ip.attribute("prefix")) {
        block.prefix = prefix.as_uint();
    } else if (const auto mask = ipv4_of(ip.attribute("netmask").value()); mask && block.ipv4) {
        while (block.prefix < 32 && mask_of(block.prefix) != *mask) ++block.prefix;
    }
    const pugi::xml_node dhcp = ip.child("dhcp");
    block.dhcp = !dhcp.empty();
    for (const pugi::xml_node host : dhcp.children("host"))
        block.reservations.push_back({lower(host.attribute("mac").value()),
                                      host.attribute("name").value(),
                                      host.attribute("ip").value()});
    return block;
}

}  // namespace

std::string without_prefix(const std::string& address) {
    return address.substr(0, address.find('/'));
}

Result<std::string> user_network_options(const GuestAddress& address, NetworkKind kind,
                                         bool exact) {
    const auto place = place_of(address.address);
    if (!place)
        return fail(wrong(fmt::format("'{}' is no IPv4 address: DHCP gives no other here",
                                      plain_text(address.address.substr(0, 64))),
                          "--address-by agent or cloud-init sets IPv6 addresses"));
    if (place->prefix < kShortestUserPrefix || place->prefix > kLongestUserPrefix ||
        !place->has_host(place->address))
        return fail(wrong(
            fmt::format("{} leaves QEMU's user network no place beside the guest", address.address),
            fmt::format("an address of a host, with a prefix from {} to {}", kShortestUserPrefix,
                        kLongestUserPrefix)));
    std::set<uint32_t> taken{place->address};
    std::optional<uint32_t> gateway;
    if (!address.gateway.empty()) {
        gateway = ipv4_of(address.gateway);
        const bool good = gateway && place->has_host(*gateway) && *gateway != place->address;
        if (!good && exact)
            return fail(wrong(
                fmt::format("the gateway {} is no other host of the network of {}",
                            plain_text(address.gateway.substr(0, 64)), address.address),
                "QEMU's user network is a gateway itself, at an address of the guest's network"));
        if (!good) gateway.reset();
    }
    if (gateway) taken.insert(*gateway);
    // A test's network leads nowhere: there QEMU names no server, and wants its own in the network.
    const bool tells = kind == NetworkKind::kUser;
    std::optional<uint32_t> name_server;
    if (!address.name_servers.empty() && (tells || !exact)) {
        name_server = ipv4_of(address.name_servers.front());
        const bool good = name_server && !taken.contains(*name_server) &&
                          (tells || place->has_host(*name_server));
        if ((!good || address.name_servers.size() > 1) && exact)
            return fail(wrong(
                fmt::format("QEMU's user network cannot name {}{} to the guest of {}",
                            plain_text(address.name_servers.front().substr(0, 64)),
                            address.name_servers.size() > 1 ? " and more" : "", address.address),
                "it names one name server, an IPv4 address that is not the gateway's, and "
                "answers there itself as its host would: give one, or none"));
        if (!good) name_server.reset();
    }
    if (name_server) taken.insert(*name_server);
    const auto free_one = [&] {
        uint32_t one = place->network() + 1;
        while (taken.contains(one)) ++one;
        taken.insert(one);
        return one;
    };
    const uint32_t host = gateway ? *gateway : free_one();
    const uint32_t dns = name_server ? *name_server : free_one();
    return fmt::format(",net={}/{},host={},dhcpstart={},dns={}", ipv4_text(place->network()),
                       place->prefix, ipv4_text(host), ipv4_text(place->address), ipv4_text(dns));
}

Status check_dhcp_address(const NetworkChoice& network, const GuestAddress& address) {
    switch (network.kind) {
        case NetworkKind::kIsolated:
        case NetworkKind::kUser:
            FS_TRY(user_network_options(address, network.kind, true));
            return {};
        case NetworkKind::kLibvirt:
            if (!place_of(address.address))
                return fail(wrong(fmt::format("'{}' is no IPv4 address: DHCP gives no other here",
                                              plain_text(address.address.substr(0, 64))),
                                  "--address-by agent or cloud-init sets IPv6 addresses"));
            return {};
        case NetworkKind::kNone:
        case NetworkKind::kSegment:
        case NetworkKind::kBridge:
            break;
    }
    return fail(
        wrong(fmt::format("on '{}' is no DHCP server that could be told to give {}",
                          network_word(network), address.address),
              "--address-by cloud-init or agent sets it inside; DHCP does on isolated, user and "
              "network:NAME"));
}

Result<NetworkAddressing> read_network_addressing(std::string_view xml) {
    if (xml.size() > kMaxNetworkXmlBytes)
        return fail(Code::kTooLarge,
                    fmt::format("a network's description of {} bytes", xml.size()));
    pugi::xml_document document;
    const auto parsed = document.load_buffer(xml.data(), xml.size());
    const pugi::xml_node network = document.child("network");
    if (!parsed || !network)
        return fail(Code::kMalformed, "the network's description is not what libvirt says");
    NetworkAddressing addressing;
    addressing.leads_out = !network.child("forward").empty();
    for (const pugi::xml_node ip : network.children("ip"))
        addressing.blocks.push_back(read_block(ip));
    return addressing;
}

Result<size_t> block_for(const NetworkAddressing& addressing, const std::string& network,
                         const GuestAddress& address) {
    const std::string by = "or --address-by agent or cloud-init, which set it inside";
    const auto no = [&](std::string what, const std::string& remedy) {
        return fail(Error(Code::kUnsupported, std::move(what), remedy + ", " + by));
    };
    const auto place = place_of(address.address);
    if (!place)
        return no(fmt::format("'{}' is no IPv4 address: DHCP gives no other here",
                              plain_text(address.address.substr(0, 64))),
                  "give one");
    std::string there;
    for (size_t i = 0; i < addressing.blocks.size(); ++i) {
        const NetworkAddressing::Block& block = addressing.blocks[i];
        const auto own = ipv4_of(block.address);
        if (!block.ipv4 || !block.dhcp || !own || block.prefix == 0 || block.prefix > 32) continue;
        const Ipv4Place whole{*own, block.prefix};
        there += fmt::format("{}{}/{}", there.empty() ? "" : ", ", ipv4_text(whole.network()),
                             whole.prefix);
        if (!whole.has_host(place->address)) continue;
        if (place->prefix != whole.prefix)
            return no(
                fmt::format("network '{}' gives addresses with the prefix {}, not {}", network,
                            whole.prefix, address.address),
                fmt::format("--address {}/{}", without_prefix(address.address), whole.prefix));
        if (place->address == *own)
            return no(fmt::format("{} is the host's own address on network '{}'",
                                  without_prefix(address.address), network),
                      "take another one");
        if (!address.gateway.empty() && (!addressing.leads_out || ipv4_of(address.gateway) != own))
            return no(fmt::format("network '{}' gives {}, not {}", network,
                                  addressing.leads_out ? "the gateway " + block.address
                                                       : std::string("no gateway"),
                                  plain_text(address.gateway.substr(0, 64))),
                      "--gateway none leaves it to the network");
        for (const std::string& server : address.name_servers)
            if (ipv4_of(server) != own)
                return no(fmt::format("network '{}' names its own name server, {}, not {}", network,
                                      block.address, plain_text(server.substr(0, 64))),
                          "leave dns out");
        return i;
    }
    if (there.empty())
        return no(fmt::format("network '{}' has no DHCP server of libvirt's", network),
                  "give it one (`virsh net-edit`)");
    return no(
        fmt::format("network '{}' gives addresses of {}, not {}", network, there, address.address),
        "give one of those");
}

Status check_free(const NetworkAddressing& addressing, const std::string& network,
                  const DhcpReservation& wanted) {
    for (const NetworkAddressing::Block& block : addressing.blocks)
        for (const DhcpReservation& known : block.reservations) {
            if (known == wanted) continue;
            const bool same_card = !wanted.mac.empty() && known.mac == wanted.mac;
            const auto address = ipv4_of(known.address);
            const bool same_address = address && address == ipv4_of(wanted.address);
            if (!same_card && !same_address) continue;
            const std::string whose =
                known.name.empty() ? std::string() : fmt::format(" ('{}')", known.name);
            return fail(
                Code::kAlreadyExists,
                plain_text(fmt::format(
                    "network '{}' has a reservation{} of {} for the card {} already, which is not "
                    "this machine's",
                    network, whose, known.address.empty() ? "no address" : known.address,
                    known.mac.empty() ? "of nobody" : known.mac)),
                known.name.starts_with("farshore-")
                    ? "it goes with the machine that it is for: clean that up, or take another "
                      "address and --mac"
                    : "take another address (or --mac), or remove it there: `virsh net-update`");
        }
    return {};
}

std::string reservation_xml(const DhcpReservation& reservation) {
    pugi::xml_document document;
    pugi::xml_node host = document.append_child("host");
    const auto set = [&](const char* name, const std::string& value) {
        if (!value.empty()) host.append_attribute(name).set_value(value.c_str());
    };
    set("mac", reservation.mac);
    set("name", reservation.name);
    set("ip", reservation.address);
    std::ostringstream out;
    document.save(out, "", pugi::format_raw | pugi::format_no_declaration);
    return out.str();
}

}  // namespace farshore
