#include "recovery/plan_run.h"

// What decodes must encode to something that decodes to the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto run = decode_plan_run({reinterpret_cast<const char*>(data), size});
    if (!run) return 0;
    const std::string once = encode_plan_run(*run);
    if (once.size() > kMaxPlanRunBytes) return 0;
    const auto again = decode_plan_run(once);
    // Text that was not UTF-8 has been replaced, and may have become longer than is allowed.
    if (again && encode_plan_run(*again) != once) __builtin_trap();
    return 0;
}
