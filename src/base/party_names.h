// Names on certificates of the vault's authority that are nobody's who speaks to it.
#pragma once

#include <string>
#include <string_view>

namespace farshore {

// Of the QEMU of a compute host: it may open disks of recovery machines, and nothing else. No agent
// or appliance is enrolled under, or let in with, a name that begins so.
inline constexpr std::string_view kComputeNamePrefix = "compute:";

inline bool is_compute_name(std::string_view name) { return name.starts_with(kComputeNamePrefix); }
inline std::string compute_name(std::string_view host) {
    return std::string(kComputeNamePrefix).append(host);
}

}  // namespace farshore
