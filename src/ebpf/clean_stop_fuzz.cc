#include "ebpf/clean_stop.h"

using namespace farshore;

// What the last shutdown left on a disk, and the lists that the agent keeps for the next start.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const ByteView input{data + 1, size - 1};
    switch (data[0] % 3) {
        case 0:
            if (auto stop = decode_clean_stop(input)) {
                const auto again = decode_clean_stop(encode_clean_stop(*stop));
                FS_CHECK(again && again->item == stop->item);
            }
            break;
        case 1:
            if (auto early = decode_early(as_text(input)))
                FS_CHECK(decode_early(encode_early(*early)).has_value());
            break;
        default:
            if (auto devices = decode_devices(as_text(input)))
                FS_CHECK(decode_devices(encode_devices(*devices)).has_value());
    }
    return 0;
}
