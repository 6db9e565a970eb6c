// Arbitrary bytes as each of the answers of Azure's services. The first byte chooses.
#include "os/http.h"
#include "store/azure_answers.h"
#include "store/azure_page_blob.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    if (size == 0) return 0;
    const std::string_view text = as_text({data + 1, size - 1});
    switch (data[0] % 5) {
        case 0:
            if (const auto page = parse_azure_blob_page(text))
                for (const AzureBlobItem& blob : page->blobs) FS_CHECK(!blob.name.empty());
            break;
        case 1: {
            const AzureErrorText error = parse_azure_error(text);
            for (const std::string* words : {&error.code, &error.message, &error.detail})
                FS_CHECK(words->find_first_of("\r\n") == std::string::npos);
            break;
        }
        case 2:
            (void)parse_azure_token(text, {1'700'000'000'000'000});
            break;
        case 3:
            if (const auto time = from_http_date(text); time && to_http_date(*time) != text) {
                // Another name of the day, or a leap second, reads as the same time.
                FS_CHECK(from_http_date(to_http_date(*time)));
            }
            break;
        default:
            (void)parse_azure_blob_url(text);
    }
    return 0;
}
