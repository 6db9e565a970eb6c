// Arbitrary text as the JSON of a key object, behind a digest that is right.
#include "codec/document.h"
#include "replica/item_key.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    const ItemKeyName name{1, {1}};
    (void)decode_item_key(in, ItemId{}, name);
    (void)parse_item_key_name(ItemId{}, item_key_prefix(ItemId{}) + std::string(as_text(in)));
    std::string json(as_text(in));
    for (char& c : json)
        if (c == '\n') c = ' ';
    (void)decode_item_key(encode_document(json), ItemId{}, name);
    return 0;
}
