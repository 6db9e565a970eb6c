#include <nlohmann/json.hpp>

#include "compute/qmp_client.h"

// The monitor's bytes, in two pieces cut where the first byte says: cutting must change nothing.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const farshore::ByteView bytes(data + 1, size - 1);
    const size_t cut = bytes.empty() ? 0 : data[0] % bytes.size();
    std::vector<nlohmann::json> whole, pieces;
    farshore::QmpFramer one, two;
    const bool first = one.feed(bytes, whole).has_value();
    const bool second = two.feed(bytes.first(cut), pieces).has_value() &&
                        two.feed(bytes.subspan(cut), pieces).has_value();
    if (first != second || whole != pieces) __builtin_trap();
    return 0;
}
