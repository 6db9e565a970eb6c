// Arbitrary bytes as the objects of keys and the escrows that the independent reader takes in.
#include "codec/document.h"
#include "extract/item_keys.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    using namespace farshore::extraction;
    std::string json(reinterpret_cast<const char*>(data), size);
    for (char& c : json)
        if (c == '\n') c = ' ';
    const Bytes document = encode_document(json);
    for (const ByteView in : {ByteView(data, size), ByteView(document)}) {
        (void)decode_sealed_kek(in, "keys/0");
        (void)decode_key_generation(in, "items/0/key/0", ItemId{}, 1, 1);
        // Without what opens it: how much work a passphrase makes is the cost's matter.
        (void)open_escrow(in, Secret(), Secret());
    }
    return 0;
}
