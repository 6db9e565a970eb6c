#include "compute/network_choice.h"

// A word that is taken is printed as it was.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto network = farshore::network_from_word(text);
    if (network && farshore::network_word(*network) != text) __builtin_trap();
    const auto mac = farshore::check_mac(text);
    if (mac && farshore::check_mac(*mac).value_or("") != *mac) __builtin_trap();
    return 0;
}
