// Both documents come from other machines: whatever the bytes, decoding ends in a value or an
// error, and a value survives its own round trip.
#include "base/error.h"
#include "meta/agent_documents.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (auto status = decode_status(text))
        FS_CHECK(decode_status(encode_status(*status)).has_value());
    if (auto down = decode_instructions(text))
        FS_CHECK(decode_instructions(encode_instructions(*down)).has_value());
    return 0;
}
