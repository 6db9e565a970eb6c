// A grid that can be read is written so that it reads the same again, and chooses within bounds.
#include <cstdlib>

#include "base/retention_grid.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto grid =
        RetentionGrid::parse(std::string_view(reinterpret_cast<const char*>(data), size));
    if (!grid) return 0;
    const auto again = RetentionGrid::parse(grid->text());
    if (!again || again->steps() != grid->steps()) std::abort();
    const RetentionGrid::Point points[] = {{{-1}, 0}, {{0}, 1}, {{INT64_MAX / 2}, 0}};
    if (grid->choose(points, {0}).size() != 3) std::abort();
    return 0;
}
