// Arbitrary text as a key document of a store and as the settings of a key service.
#include "codec/document.h"
#include "keys/azure_key_vault.h"
#include "keys/key_document.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    (void)decode_key_document(in);
    (void)parse_azure_settings(as_text(in));
    std::string json(as_text(in));
    for (char& c : json)
        if (c == '\n') c = ' ';
    (void)decode_key_document(encode_document(json));
    if (auto bytes = from_base64url(as_text(in))) FS_CHECK(to_base64url(*bytes) == as_text(in));
    return 0;
}
