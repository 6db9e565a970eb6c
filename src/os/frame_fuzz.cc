// Any bytes, cut into pieces of any size: frames come out whole and in order, or one named error.
#include <algorithm>
#include <cstdlib>

#include "os/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (size < 1) return 0;
    const size_t piece = data[0] % 37 + 1;
    const ByteView stream(data + 1, size - 1);
    constexpr size_t kLimitBytes = 4096;
    FrameReader reader(kLimitBytes);
    size_t at = 0;
    size_t frame_start = 0;
    while (at < stream.size()) {
        const MutableByteView space = reader.space();
        if (space.empty()) std::abort();
        const size_t n = std::min({piece, space.size(), stream.size() - at});
        std::copy_n(stream.begin() + static_cast<ptrdiff_t>(at), n, space.begin());
        at += n;
        const auto got = reader.filled(n);
        if (!got) {
            if (got.error().code() != Code::kTooLarge) std::abort();
            return 0;
        }
        if (*got == FrameReader::Got::kKeepalive) frame_start = at;
        if (*got != FrameReader::Got::kFrame) continue;
        FrameBuffer frame = reader.take();
        const ByteView expected = stream.subspan(frame_start + kFrameHeaderBytes, frame.size_bytes);
        if (frame_start + kFrameHeaderBytes + frame.size_bytes != at ||
            !std::equal(expected.begin(), expected.end(), frame.view().begin()))
            std::abort();
        frame_start = at;
        reader.recycle(std::move(frame));
    }
    return 0;
}
