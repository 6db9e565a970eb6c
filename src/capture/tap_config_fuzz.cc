#include "capture/tap_config.h"

using namespace farshore;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto config = decode_tap_config(as_text({data, size}));
    if (!config) return 0;
    // What we accept we can write, and read again.
    FS_CHECK(decode_tap_config(encode_tap_config(*config)).has_value());
    return 0;
}
