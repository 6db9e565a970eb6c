// Arbitrary bytes as each of S3's answers.
#include "store/s3_xml.h"

#include "base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string_view text = as_text({data, size});
    if (const auto error = parse_s3_error(text)) {
        FS_CHECK(!error->code.empty() && error->message.size() <= 300);
        FS_CHECK(error->message.find('\n') == std::string::npos);
    }
    if (const auto listing = parse_s3_listing(text))
        for (const S3Entry& entry : listing->entries) FS_CHECK(!entry.key.empty());
    (void)parse_s3_versioning(text);
    (void)parse_s3_expiry(text);
    (void)parse_s3_lock_configuration(text);
    return 0;
}
