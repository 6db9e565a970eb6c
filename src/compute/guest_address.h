// A static IP address for a network card of a guest, and who gives it: the guest agent inside, the
// network's DHCP server (dhcp_address.h), or cloud-init inside (cloud_seed.h).
//
// What the agent of a Linux guest sets lasts until the guest starts again or something inside sets
// another one: no configuration of the guest is changed, but for the name servers in
// /etc/resolv.conf where systemd-resolved does not have them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

class GuestAgent;

inline constexpr size_t kMaxNameServers = 3;  // resolv.conf(5)

enum class AddressBy : uint8_t { kAgent, kDhcp, kCloudInit };
std::string_view address_by_name(AddressBy by);  // "agent", "dhcp", "cloud-init"
// kInvalidArgument.
Result<AddressBy> address_by_from_name(std::string_view name);

struct GuestAddress {
    std::string address;                    // "10.1.2.3/24", "2001:db8::3/64"
    std::string gateway;                    // of the same family; empty: the guest keeps its own
    std::vector<std::string> name_servers;  // empty: the guest keeps its own
    AddressBy by = AddressBy::kAgent;
    friend bool operator==(const GuestAddress&, const GuestAddress&) = default;
};

// kInvalidArgument.
Status check_guest_address(const GuestAddress& address);

// What /bin/sh inside is given; `resolv_conf`: the file of name servers there. For tests as well.
std::vector<std::string> guest_address_arguments(
    const std::string& mac, const GuestAddress& address,
    const std::string& resolv_conf = "/etc/resolv.conf");

// Sets it, anew when it is set; flushes what else the card has of that family. Blocking, for
// `timeout_ms` at the most. kGuestFailed with the guest's own words (there is no such card, no
// `ip`), kUnsupported (the agent may not run programs), errors of GuestAgent.
Status set_guest_address(GuestAgent& agent, const std::string& mac, const GuestAddress& address,
                         int timeout_ms);

}  // namespace farshore
