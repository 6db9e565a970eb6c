#include "compute/cloud_seed.h"
#include "compute/dhcp_address.h"
#include "meta/json_fields.h"
#include "recovery/nic_settings.h"

// Settings that are taken must come back the same from what is shown of them; an address that is
// taken can be said to QEMU, and in YAML without a character that is not its own.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto json =
        parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", kMaxNicSettingsBytes);
    if (!json) return 0;
    const auto settings = nic_settings_from_json(*json);
    if (!settings) return 0;
    const auto again = nic_settings_from_json(nic_settings_json(*settings));
    if (!again || !(*again == *settings)) __builtin_trap();
    if (!settings->address) return 0;
    const GuestAddress& address = *settings->address;
    for (const NetworkKind kind : {NetworkKind::kIsolated, NetworkKind::kUser}) {
        const auto options = user_network_options(address, kind, false);
        if (options &&
            options->find_first_not_of(",=/.0123456789abcdefghijklmnopqrstuvwxyz") != options->npos)
            __builtin_trap();
    }
    const auto seed = seed_files({{"52:54:00:00:00:01", address}});
    if (!seed || seed->network_config.size() > kMaxSeedFileBytes) __builtin_trap();
    const auto read = parse_json(seed->network_config, "fuzz", kMaxSeedFileBytes);
    if (!read || (*read)["ethernets"]["card0"]["addresses"] != Json::array({address.address}))
        __builtin_trap();
    return 0;
}
