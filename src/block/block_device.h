// A disk of any kind: a file, a replica at a point, an overlay on either, a tap around one.
//
// Offsets and lengths are bytes, any alignment, within size_bytes() (kInvalidArgument otherwise).
// Calls may come from many threads at once; overlapping calls in flight have no defined order
// unless a decorator says that it serialises them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

struct BlockExtent {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    bool hole = false;  // not allocated: reads as zeroes
    bool zero = false;  // reads as zeroes
};

class BlockDevice {
  public:
    virtual ~BlockDevice() = default;
    virtual uint64_t size_bytes() const = 0;
    virtual bool read_only() const = 0;
    virtual Status read(uint64_t offset_bytes, MutableByteView out) = 0;
    virtual Status write(uint64_t offset_bytes, ByteView data) = 0;
    // Afterwards the range reads as zeroes. `may_unmap` allows freeing the space.
    virtual Status zero(uint64_t offset_bytes, uint64_t length_bytes, bool may_unmap) = 0;
    // The content of the range no longer matters; here it always reads as zeroes afterwards.
    virtual Status discard(uint64_t offset_bytes, uint64_t length_bytes) = 0;
    // The range is at hand from now on: what a device takes from farther away is kept near it.
    // Nothing that is read changes. Ok also where there is nothing to keep.
    virtual Status cache(uint64_t /*offset_bytes*/, uint64_t /*length_bytes*/) { return {}; }
    // What was written before is on stable storage when this returns.
    virtual Status flush() = 0;
    // Extents that cover [offset, offset+length) without holes between them, in order. At least
    // one.
    virtual Result<std::vector<BlockExtent>> extents(uint64_t offset_bytes,
                                                     uint64_t length_bytes) = 0;
};

}  // namespace farshore
