// The place of a disk that the machine does not have any more: 0 bytes, so that there is nothing to
// read or write. Any thread may call.
#pragma once

#include "block/block_device.h"

namespace farshore {

class RemovedDevice final : public BlockDevice {
  public:
    uint64_t size_bytes() const override { return 0; }
    bool read_only() const override { return true; }
    Status read(uint64_t, MutableByteView out) override { return nothing(out.size()); }
    Status write(uint64_t, ByteView data) override { return nothing(data.size()); }
    Status zero(uint64_t, uint64_t length, bool) override { return nothing(length); }
    Status discard(uint64_t, uint64_t length) override { return nothing(length); }
    Status flush() override { return {}; }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t) override {
        return std::vector<BlockExtent>{{offset, 0, true, true}};
    }

  private:
    static Status nothing(uint64_t length) {
        if (length == 0) return {};
        return fail(Code::kInvalidArgument, "the disk was removed from the machine");
    }
};

}  // namespace farshore
