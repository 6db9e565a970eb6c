// A hold that can be read is written to the same bytes again, by way of its lease.
#include <cstdlib>

#include "replica/hold.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto hold = decode_hold_body(ByteView(data, size));
    if (!hold) return 0;
    const auto again = hold_of_holder(hold_holder(*hold));
    if (!again || !(*again == *hold)) std::abort();
    return 0;
}
