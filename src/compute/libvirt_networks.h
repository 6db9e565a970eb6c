// Networks of a libvirt host, for libvirt_compute.cc and libvirt_reservations.cc alone.
#pragma once

#include <string>
#include <vector>

#include "compute/libvirt_host.h"

namespace farshore {

// `flags`: of virConnectListAllNetworks; 0: all.
inline Result<std::vector<LibvirtNetwork>> networks_of(const LibvirtHost& host,
                                                       virConnect* connection, unsigned flags) {
    virNetworkPtr* all = nullptr;
    const int n = virConnectListAllNetworks(connection, &all, flags);
    if (n < 0) return fail(host.error("its networks"));
    std::vector<LibvirtNetwork> networks;
    for (int i = 0; i < n; ++i) networks.emplace_back(all[i]);
    free(static_cast<void*>(all));
    return networks;
}

}  // namespace farshore
