// Whatever bytes: records or a named error; what decodes encodes to the same bytes.
#include <cstring>

#include "record/record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (auto header = decode_record_header({data, size})) {
        uint8_t again[kRecordHeaderBytes];
        encode_record_header(*header, again);
        FS_CHECK(std::memcmp(again, data, kRecordHeaderBytes) == 0);
    }
    RecordCursor cursor({data, size}, true);
    while (!cursor.done())
        if (!cursor.next()) break;
    return 0;
}
