// An address that a guest is given by a DHCP server: what QEMU's own is told, and the reservations
// of a libvirt network (https://libvirt.org/formatnetwork.html#addressing, libvirt 9.0).
//
// Plain values and functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "compute/guest_address.h"
#include "compute/network_choice.h"

namespace farshore {

inline constexpr size_t kMaxNetworkXmlBytes = 4u << 20;

// Whether a DHCP server gives addresses on such a network that we can tell: kInvalidArgument, with
// what to do, where there is none, or where it cannot give this one.
Status check_dhcp_address(const NetworkChoice& network, const GuestAddress& address);

// What -netdev user takes after its other options, so that the first machine that asks is given
// that address: ",net=10.1.2.0/24,host=10.1.2.1,…". `exact`: what cannot be said as it is given is
// kInvalidArgument; else it is left to QEMU. Name servers count where QEMU's server names any, on
// `user`. An IPv6 address, and a network without room for QEMU itself, are kInvalidArgument always.
Result<std::string> user_network_options(const GuestAddress& address, NetworkKind kind, bool exact);

// A host that a libvirt network's DHCP server knows.
struct DhcpReservation {
    std::string mac;      // in lower case; may be empty, as name and address, in somebody else's
    std::string name;     // by which its maker knows it
    std::string address;  // "10.1.2.3"
    friend bool operator==(const DhcpReservation&, const DhcpReservation&) = default;
};

// What a libvirt network says of its addresses.
struct NetworkAddressing {
    struct Block {  // one <ip>
        std::string address;
        uint32_t prefix = 0;
        bool ipv4 = false;
        bool dhcp = false;
        std::vector<DhcpReservation> reservations;
    };
    std::vector<Block> blocks;  // in the order of the document: an index is libvirt's parentIndex
    bool leads_out = false;     // its server names a gateway
};
// kMalformed, kTooLarge.
Result<NetworkAddressing> read_network_addressing(std::string_view xml);

// The block that gives that address with the settings' gateway and name servers. kUnsupported when
// none does, with what to do. `network`: its name, for words.
Result<size_t> block_for(const NetworkAddressing& addressing, const std::string& network,
                         const GuestAddress& address);
// kAlreadyExists: somebody else's reservation is in the way. One that is `wanted` is not.
Status check_free(const NetworkAddressing& addressing, const std::string& network,
                  const DhcpReservation& wanted);

// As virNetworkUpdate takes it.
std::string reservation_xml(const DhcpReservation& reservation);

// "10.1.2.3" of "10.1.2.3/24".
std::string without_prefix(const std::string& address);

}  // namespace farshore
