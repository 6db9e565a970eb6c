// server.json may have been written by anybody who could write into the data directory: whatever
// the bytes, reading them ends in a location or an error.
#include "cli/server_location.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string text(reinterpret_cast<const char*>(data), size);
    if (auto location = parse_server_file(text, "/data"))
        FS_CHECK(parse_server_file(format_server_file(*location), "/data").has_value());
    return 0;
}
