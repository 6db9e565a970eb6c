// Whatever bytes a peer sends: a frame or a named error.
#include <algorithm>

#include "record/record.h"
#include "replicate/frames.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    auto frame = decode_frame({data, size});
    if (!frame) return 0;
    (void)decode_hello(frame->body);
    (void)decode_welcome(frame->body);
    (void)decode_ack(frame->body);
    (void)decode_sync(frame->body);
    // What is taken is in its bounds, and comes back as it was.
    if (auto asked = decode_compare(frame->body)) {
        FS_CHECK(asked->question.blocks() >= 1 && asked->question.blocks() <= kMaxCompareBlocks);
        const Bytes again = encode(*asked);
        FS_CHECK(std::ranges::equal(ByteView(again).subspan(1), frame->body));
    }
    if (auto answer = decode_compared(frame->body)) {
        FS_CHECK(answer->answer.sums.size() <= kMaxCompareBlocks);
        const Bytes again = encode(*answer);
        FS_CHECK(std::ranges::equal(ByteView(again).subspan(1), frame->body));
    }
    if (auto asked = decode_return(frame->body)) {
        FS_CHECK(asked->question.ranges.size() <= kMaxReturnRanges);
        const Bytes again = encode(*asked);
        FS_CHECK(std::ranges::equal(ByteView(again).subspan(1), frame->body));
    }
    if (auto answer = decode_returned(frame->body)) {
        FS_CHECK(answer->answer.data.size() <= kMaxReturnBytes);
        const Bytes again = encode(*answer);
        FS_CHECK(std::ranges::equal(ByteView(again).subspan(1), frame->body));
    }
    (void)decode_enrol(frame->body);
    (void)decode_enrolled(frame->body);
    (void)decode_error(frame->body);
    RecordCursor cursor(frame->body, true);
    while (!cursor.done())
        if (!cursor.next()) break;
    return 0;
}
