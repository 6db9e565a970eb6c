// Arbitrary text as a file of proxy settings.
#include "appliance/proxy_settings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (const auto settings = parse_proxy_settings(as_text({data, size}))) {
        FS_CHECK(!settings->user.empty() && settings->url.empty());
        FS_CHECK(settings->user.find_first_of(":\r\n") == std::string::npos);
    }
    return 0;
}
