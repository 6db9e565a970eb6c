// Whatever is in the file of a return: progress that comes back as it was, or a named error.
#include <string_view>

#include "agent/disk_return.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto progress =
        decode_return_progress(std::string_view(reinterpret_cast<const char*>(data), size));
    if (!progress) return 0;
    const auto again = decode_return_progress(encode_return_progress(*progress));
    FS_CHECK(again && again->have == progress->have &&
             again->offset_bytes == progress->offset_bytes);
    return 0;
}
