#include <nlohmann/json.hpp>

#include "compute/guest_agent.h"
#include "compute/guest_freezer.h"

// What a guest sends, in pieces: the first byte says how long they are.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (size == 0) return 0;
    (void)socket_of_chardev(std::string_view(reinterpret_cast<const char*>(data), size));
    GuestAgentFramer framer;
    std::vector<nlohmann::json> answers;
    const size_t step = 1 + data[0] % 64;
    for (size_t at = 1; at < size; at += step)
        if (!framer.feed({data + at, std::min(step, size - at)}, answers)) return 0;
    for (const nlohmann::json& answer : answers)
        if (!answer.is_object()) __builtin_trap();
    return 0;
}
