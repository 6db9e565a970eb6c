// Whatever text: a limit that sends at some time and changes in order, or an error with a remedy.
#include "base/bandwidth_limit.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto limit =
        BandwidthLimit::parse({reinterpret_cast<const char*>(data), size}, "Europe/Berlin");
    if (!limit) {
        FS_CHECK(limit.error().code() == Code::kInvalidArgument);
        FS_CHECK(!limit.error().remedy().empty());
        return 0;
    }
    TimePoint time{1'774'700'000'000'000};
    for (int i = 0; i < 8; ++i) {
        const auto next = limit->next_change(time);
        if (!next) break;
        FS_CHECK(next->us > time.us);
        FS_CHECK(limit->at(*next) != limit->at(time));
        time = *next;
    }
    return 0;
}
