// Whatever text: windows that open and close in order, or an error with a remedy.
#include "base/weekly_windows.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto windows =
        WeeklyWindows::parse({reinterpret_cast<const char*>(data), size}, "Europe/Berlin");
    if (!windows) {
        FS_CHECK(windows.error().code() == Code::kInvalidArgument);
        FS_CHECK(!windows.error().remedy().empty());
        return 0;
    }
    TimePoint time{1'774'700'000'000'000};
    for (int i = 0; i < 20; ++i) {
        const auto next = windows->next_change(time);
        if (!next) {
            FS_CHECK(windows->always_open());
            break;
        }
        FS_CHECK(next->us > time.us);
        FS_CHECK(windows->contains(*next) != windows->contains(time));
        FS_CHECK(windows->contains({next->us - 1}) == windows->contains(time));
        time = *next;
    }
    return 0;
}
