// The value of If-Match: whatever is taken holds what it was made of.
#include "vault/etag.h"

using namespace farshore;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto list = parse_etags(text);
    if (!list) return 0;
    FS_CHECK(list->any || !list->tags.empty());
    for (const EtagList::Tag& tag : list->tags) {
        FS_CHECK(tag.text.size() >= 2 && text.find(tag.text) != std::string_view::npos);
        FS_CHECK(list->matches(tag.text, false));
    }
    return 0;
}
