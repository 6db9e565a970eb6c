#include "meta/json_fields.h"
#include "recovery/recovery_plan.h"

// A plan that is taken must come back the same from what is shown of it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto json =
        parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", kMaxPlanBytes);
    if (!json) return 0;
    const auto plan = plan_from_json(*json);
    if (!plan) return 0;
    const Json once = plan_json(*plan);
    const auto again = plan_from_json(once);
    if (!again || plan_json(*again) != once) __builtin_trap();
    return 0;
}
