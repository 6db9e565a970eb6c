// Whatever a guest sends on its agent's port: no crash, no growth beyond the bounds.
#include <nlohmann/json.hpp>

#include "compute/guest_agent.h"
#include "compute/guest_freezer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (size == 0) return 0;
    GuestAgentFramer framer;
    std::vector<nlohmann::json> out;
    // In pieces, so that lines are cut anywhere.
    const size_t piece = 1 + data[0] % 64;
    for (size_t at = 1; at < size; at += piece)
        if (!framer.feed(ByteView(data + at, std::min(piece, size - at)), out)) break;
    for (const nlohmann::json& message : out)
        if (!message.is_object()) __builtin_trap();
    (void)socket_of_chardev(std::string_view(reinterpret_cast<const char*>(data), size));
    return 0;
}
