// Arbitrary bytes as a store object, and the same with its digest made right.
#include "codec/document.h"
#include "store/store_identity.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    (void)decode_store_identity(in);
    std::string json(as_text(in));
    for (char& c : json)
        if (c == '\n') c = ' ';
    (void)decode_store_identity(encode_document(json));
    return 0;
}
