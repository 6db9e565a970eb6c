// Arbitrary bytes as a location and as the answers of a service.
#include "extract/remote_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore::extraction;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    (void)parse_remote_location(text);
    if (const auto page = parse_s3_page(text))
        if (page->names.size() > size || page->prefixes.size() > size) __builtin_trap();
    (void)parse_azure_page(text);
    return 0;
}
