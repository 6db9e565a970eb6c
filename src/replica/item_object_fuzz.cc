// Arbitrary text as the JSON of an item object, behind a digest that is right.
#include "codec/document.h"
#include "replica/item_object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    (void)decode_item_object(in, ItemId{});
    std::string json(as_text(in));
    for (char& c : json)
        if (c == '\n') c = ' ';
    (void)decode_item_object(encode_document(json), ItemId{});
    return 0;
}
