// Orders and reports of shared points, whoever sends them: refused, or the same when they are
// written and read again.
#include "replicate/shared_point.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto order = decode_order(text)) {
        const auto again = decode_order(encode_order(*order));
        if (!again || again->members.size() != order->members.size() || again->step != order->step)
            __builtin_trap();
    }
    if (const auto report = decode_report(text)) {
        const auto again = decode_report(encode_report(*report));
        if (!again || again->members.size() != report->members.size()) __builtin_trap();
    }
    return 0;
}
