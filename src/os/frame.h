// Frames on a byte stream: u32 little-endian length, then that many bytes. The length 0xffffffff is
// a keep-alive without bytes, which is not handed on. See docs/format/frames.md for what is in
// frames.
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/seams.h"

namespace farshore {

inline constexpr size_t kFrameHeaderBytes = 4;
inline constexpr uint32_t kKeepaliveLength = 0xffffffff;

// Bytes that are not set before they are read into. Movable.
struct FrameBuffer {
    std::unique_ptr<uint8_t[]> data;
    size_t capacity_bytes = 0;
    size_t size_bytes = 0;
    ByteView view() const { return {data.get(), size_bytes}; }
};

// Takes the bytes of a stream as they come and cuts frames from them. One thread.
class FrameReader {
  public:
    enum class Got : uint8_t { kPart, kFrame, kKeepalive };

    explicit FrameReader(size_t limit_bytes = kMaxFrameBytes) : limit_bytes_(limit_bytes) {}

    // Where the next bytes go; never empty. Valid until the next call of another function.
    MutableByteView space();
    // The first `count` bytes of space() were filled. kFrame: take() it before going on. kTooLarge:
    // the stream is lost, the reader must not be used any more.
    Result<Got> filled(size_t count);
    // The frame that is complete.
    FrameBuffer take();
    // A buffer to use again. At most one is kept.
    void recycle(FrameBuffer buffer);

  private:
    size_t limit_bytes_;
    uint8_t header_[kFrameHeaderBytes];
    size_t header_filled_ = 0;
    FrameBuffer frame_;
    size_t body_filled_ = 0;
};

}  // namespace farshore
