// What becomes of one network card of an item when its machine is recovered: what it is plugged
// into, and which MAC address it has. Kept as JSON (meta/item_nics.h).
//
// Plain values; any thread. Decoding refuses by name (kMalformed, kTooLarge, kInvalidArgument).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/error.h"
#include "compute/guest_address.h"
#include "compute/network_choice.h"

namespace farshore {

inline constexpr size_t kMaxNicSettingsBytes = 4096;  // of the JSON document

enum class MacRule : uint8_t {
    kKeep,   // as at the source
    kNew,    // another one for each test and failover
    kGiven,  // `mac`
};

struct NicSettings {
    std::optional<NetworkChoice> failover, test;  // none: as of the whole
    MacRule mac_rule = MacRule::kKeep;
    std::string mac;  // kGiven: check_mac()
    // Given to the guest: by its agent on a segment, a bridge or a network of a libvirt host; by
    // DHCP where its server can be told; by cloud-init everywhere.
    std::optional<GuestAddress> address;
    friend bool operator==(const NicSettings&, const NicSettings&) = default;
};

nlohmann::json nic_settings_json(const NicSettings& settings);
// Members that are not there are as in a NicSettings{}; unknown ones are ignored.
Result<NicSettings> nic_settings_from_json(const nlohmann::json& json);

// The MAC address of the card in the recovery with that id; `source`: what it has at the source.
std::string recovery_mac(const NicSettings& settings, const std::string& source,
                         const std::string& recovery, uint32_t nic);

}  // namespace farshore
