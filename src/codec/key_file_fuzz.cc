// Arbitrary text as a key file, arbitrary bytes as compressed data.
#include "codec/compress.h"
#include "codec/key_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    (void)parse_key_file(as_text(in));
    if (size > 2) {
        const size_t plain = load_u16(data);
        (void)decompress(Compression::kZstd, in.subspan(2), plain);
        (void)decompress(Compression::kLz4, in.subspan(2), plain);
    }
    return 0;
}
