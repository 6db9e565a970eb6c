// Whatever bytes a peer sends: a frame or a named error.
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
    (void)decode_enrol(frame->body);
    (void)decode_enrolled(frame->body);
    (void)decode_error(frame->body);
    RecordCursor cursor(frame->body, true);
    while (!cursor.done())
        if (!cursor.next()) break;
    return 0;
}
