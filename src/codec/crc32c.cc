#include "codec/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace farshore {

uint32_t crc32c(ByteView bytes, uint32_t seed) {
    uint32_t crc = ~seed;
    while (!bytes.empty()) {
        // ISA-L takes an int; 1 GiB at a time keeps it positive.
        const size_t n = std::min<size_t>(bytes.size(), 1u << 30);
        crc = crc32_iscsi(const_cast<unsigned char*>(bytes.data()), static_cast<int>(n), crc);
        bytes = bytes.subspan(n);
    }
    return ~crc;
}

}  // namespace farshore
