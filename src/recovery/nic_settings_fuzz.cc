#include "meta/json_fields.h"
#include "recovery/nic_settings.h"

// Settings that are taken must come back the same from what is shown of them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto json =
        parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", kMaxNicSettingsBytes);
    if (!json) return 0;
    const auto settings = nic_settings_from_json(*json);
    if (!settings) return 0;
    const auto again = nic_settings_from_json(nic_settings_json(*settings));
    if (!again || !(*again == *settings)) __builtin_trap();
    return 0;
}
