#include "compute/dhcp_address.h"

// What a libvirt host says of a network is read without harm; a block that is chosen is one of it,
// and what is free is not taken.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto network = read_network_addressing({reinterpret_cast<const char*>(data), size});
    if (!network) return 0;
    const GuestAddress address{"10.1.2.3/24", "10.1.2.1", {}, AddressBy::kDhcp};
    const auto block = block_for(*network, "lan", address);
    if (block && (*block >= network->blocks.size() || !network->blocks[*block].dhcp))
        __builtin_trap();
    const DhcpReservation wanted{"52:54:00:00:00:01", "farshore-0a0b0c-t1-0", "10.1.2.3"};
    const bool is_free = check_free(*network, "lan", wanted).has_value();
    for (const auto& one : network->blocks)
        for (const DhcpReservation& known : one.reservations)
            if (is_free && known.mac == wanted.mac && !(known == wanted)) __builtin_trap();
    return 0;
}
