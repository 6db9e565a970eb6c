#include "os/frame.h"

#include <fmt/core.h>

namespace farshore {

MutableByteView FrameReader::space() {
    if (header_filled_ < kFrameHeaderBytes) return MutableByteView(header_).subspan(header_filled_);
    return {frame_.data.get() + body_filled_, frame_.size_bytes - body_filled_};
}

Result<FrameReader::Got> FrameReader::filled(size_t count) {
    FS_CHECK(count <= space().size());
    if (header_filled_ < kFrameHeaderBytes) {
        header_filled_ += count;
        if (header_filled_ < kFrameHeaderBytes) return Got::kPart;
        const uint32_t length = load_u32(header_);
        if (length == kKeepaliveLength) {
            header_filled_ = 0;
            return Got::kKeepalive;
        }
        if (length > limit_bytes_)
            return fail(Code::kTooLarge, fmt::format("a frame of {} bytes, at most {} are allowed",
                                                     length, limit_bytes_));
        if (length > frame_.capacity_bytes || !frame_.data) {
            frame_.data = std::make_unique_for_overwrite<uint8_t[]>(length);
            frame_.capacity_bytes = length;
        }
        frame_.size_bytes = length;
        body_filled_ = 0;
    } else {
        body_filled_ += count;
    }
    return body_filled_ == frame_.size_bytes ? Got::kFrame : Got::kPart;
}

FrameBuffer FrameReader::take() {
    header_filled_ = 0;
    body_filled_ = 0;
    return std::move(frame_);
}

void FrameReader::recycle(FrameBuffer buffer) {
    // Only between frames: frame_ may hold part of one.
    if (header_filled_ == 0 && buffer.capacity_bytes > frame_.capacity_bytes)
        frame_ = std::move(buffer);
}

}  // namespace farshore
