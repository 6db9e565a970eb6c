#include "compute/machine_description.h"

// What decodes must encode to something that decodes to the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto machine = farshore::decode_machine({reinterpret_cast<const char*>(data), size});
    if (!machine) return 0;
    const std::string once = farshore::encode_machine(*machine);
    if (once.size() > farshore::kMaxMachineJsonBytes) return 0;  // defaults made it longer
    const auto again = farshore::decode_machine(once);
    if (!again || farshore::encode_machine(*again) != once) __builtin_trap();
    return 0;
}
