// Ports of Linux bridges of this host, for the network cards of machines: a tap device each, which
// the program that holds its descriptor reads and writes frames through
// (Documentation/networking/tuntap.rst). Needs CAP_NET_ADMIN.
//
// Any thread may call. Blocking, but for moments only.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "os/fd.h"

namespace farshore {

// By name; in our network namespace.
Result<std::vector<std::string>> list_bridges();
// Whether a port could be made there now; changes nothing. kDependencyMissing: there is no such
// interface, it is no bridge, or this host has no tap devices; kForbidden: no right.
Status check_bridge(const std::string& bridge);
// A new port of the bridge, up; frames have the header of virtio (IFF_VNET_HDR). It goes with the
// last copy of the descriptor. Errors of check_bridge().
Result<UniqueFd> open_bridge_port(const std::string& bridge);

// While it lives, programs that this thread starts do not inherit the right to administer networks
// that a service without root was given (capabilities(7), ambient). Root's stay root's.
class WithoutNetworkRight {
  public:
    WithoutNetworkRight();
    ~WithoutNetworkRight();
    WithoutNetworkRight(const WithoutNetworkRight&) = delete;
    WithoutNetworkRight& operator=(const WithoutNetworkRight&) = delete;

  private:
    bool had_ = false;
};

}  // namespace farshore
