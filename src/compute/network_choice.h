// What a network card of a recovery machine is plugged into, as people write it: one word.
//
//   isolated       nothing: the guest reaches no one, no one reaches it (but for forwarded ports)
//   user           QEMU's user network: out, but not in
//   none           a card without a cable
//   segment:NAME   a closed segment: all machines of this vault, on this host, on that name
//   bridge:IFNAME  a Linux bridge of the host on which the machine runs
//   network:NAME   a network that the libvirt host knows by that name
//
// Plain values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxSegmentNameBytes = 40;  // a-z, 0-9 and -
inline constexpr size_t kMaxInterfaceNameBytes = 15;
inline constexpr size_t kMaxLibvirtNetworkBytes = 50;  // a-z, A-Z, 0-9, ., _ and -
inline constexpr size_t kMaxNetworkWordBytes = 64;

enum class NetworkKind : uint8_t { kIsolated, kUser, kNone, kSegment, kBridge, kLibvirt };

struct NetworkChoice {
    NetworkKind kind = NetworkKind::kIsolated;
    std::string name{};  // of segment, bridge or network, else empty
    friend bool operator==(const NetworkChoice&, const NetworkChoice&) = default;
};

std::string network_word(const NetworkChoice& network);
// kInvalidArgument.
Result<NetworkChoice> network_from_word(std::string_view word);

// Where the frames of a segment go: an IPv4 multicast group and UDP port, on the loopback only.
// `scope` is the vault's own, so that two vaults on one host do not share a segment by its name.
// The same for the same two texts, always.
struct SegmentAddress {
    std::string group;  // in 239.0.0.0/8, RFC 2365
    uint16_t port = 0;  // 10000..29999: no ephemeral one
};
SegmentAddress segment_address(std::string_view scope, std::string_view segment);

// A MAC address out of QEMU's own range (52:54:00), the same for the same text.
std::string mac_from(std::string_view text);
// "52:54:00:12:34:56", in lower case, of one card: no group address, not all zeros.
// kInvalidArgument.
Result<std::string> check_mac(std::string_view mac);

}  // namespace farshore
