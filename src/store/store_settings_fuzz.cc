// Arbitrary text as a settings file and as a location.
#include "store/store_settings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string_view text = as_text({data, size});
    if (const auto location = parse_store_location(text)) {
        FS_CHECK(location->prefix.empty() || location->prefix.ends_with('/'));
        FS_CHECK(location->remote() == location->directory.empty());
    }
    if (auto settings = parse_store_settings(text)) {
        for (const char* location : {"/d", "s3://bucket/p", "azure://account/container"}) {
            settings->location = location;
            (void)check_store_settings(*settings);
        }
    }
    return 0;
}
