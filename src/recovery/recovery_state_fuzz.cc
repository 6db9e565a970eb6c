#include "recovery/recovery_state.h"

// What decodes must encode to something that decodes to the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto state = farshore::decode_recovery_state({reinterpret_cast<const char*>(data), size});
    if (!state) return 0;
    const std::string once = farshore::encode_recovery_state(*state);
    if (once.size() > farshore::kMaxRecoveryStateBytes)
        return 0;  // escapes and defaults made it longer
    const auto again = farshore::decode_recovery_state(once);
    if (again && farshore::encode_recovery_state(*again) != once) __builtin_trap();
    return 0;
}
