// Names that are nobody's who is enrolled: of parts of the vault's own.
#pragma once

#include <string>
#include <string_view>

namespace farshore {

// Of the QEMU of a compute host: it may open disks of recovery machines, and nothing else. No agent
// or appliance is enrolled under, or let in with, a name that begins so.
inline constexpr std::string_view kComputeNamePrefix = "compute:";

// Who captures, and takes the records of, machines that run at the recovery site: in the vault's
// own process (vault/recovery_site.h).
inline constexpr const char* kRecoveryAgent = "agent-recovery";
inline constexpr const char* kRecoveryAppliance = "appliance-recovery";

inline bool is_compute_name(std::string_view name) { return name.starts_with(kComputeNamePrefix); }
inline std::string compute_name(std::string_view host) {
    return std::string(kComputeNamePrefix).append(host);
}

}  // namespace farshore
