#include "meta/json_fields.h"
#include "recovery/drill_policy.h"

// A policy that is taken must come back the same from what is shown of it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto json =
        parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", kMaxDrillPolicyBytes);
    if (!json) return 0;
    const auto policy = drill_policy_from_json(*json);
    if (!policy) return 0;
    const Json once = drill_policy_json(*policy);
    const auto again = drill_policy_from_json(once);
    if (!again || drill_policy_json(*again) != once) __builtin_trap();
    return 0;
}
