// CRC-32C (Castagnoli, RFC 3720 appendix B.4), through ISA-L. Any thread may call.
#pragma once

#include "base/bytes.h"

namespace farshore {

// `seed` is the checksum of the bytes before, so crc32c(b, crc32c(a)) is that of a followed by b.
uint32_t crc32c(ByteView bytes, uint32_t seed = 0);

}  // namespace farshore
