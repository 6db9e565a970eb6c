// What a client asks for is any text: path and query, or one named error; and what is encoded comes
// back.
#include "os/http.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    HttpRequest request;
    request.target.assign(reinterpret_cast<const char*>(data), size);
    if (auto split = split_target(request); !split)
        FS_CHECK(split.error().code() == Code::kMalformed);
    const auto back = percent_decode(percent_encode(request.target));
    FS_CHECK(back && *back == request.target);
    return 0;
}
