#include "capture/todo_map.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace farshore {
namespace {

// Broken: a granule that is to be copied is never found, or one is copied for ever.
TEST(TodoMap, AgreesWithASet) {
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        SCOPED_TRACE(seed);
        std::mt19937_64 random(seed);
        const uint64_t disk = 1 + random() % (3000 * kTodoGranuleBytes);
        const uint64_t granules = (disk + kTodoGranuleBytes - 1) / kTodoGranuleBytes;
        std::vector<uint64_t> words((granules + 63) / 64);
        TodoMap map(words, disk);
        std::set<uint64_t> model;
        for (int i = 0; i < 300; ++i) {
            const uint64_t from = random() % disk;
            const uint64_t length = random() % (random() % 3 == 0 ? disk : 200'000);
            const uint64_t end = std::min(disk, from + length);
            if (random() % 2 == 0) {
                map.set(from, length);
                if (length > 0)
                    for (uint64_t g = from / kTodoGranuleBytes; g * kTodoGranuleBytes < end; ++g)
                        model.insert(g);
            } else {
                map.clear(from, length);
                for (uint64_t g = 0; g < granules; ++g)
                    if (g * kTodoGranuleBytes >= from &&
                        std::min(disk, (g + 1) * kTodoGranuleBytes) <= end)
                        model.erase(g);
            }
            ASSERT_EQ(map.count(), model.size());
            const uint64_t at = random() % disk;
            const uint64_t limit = (1 + random() % 100) * kTodoGranuleBytes;
            const auto found = map.next(at, limit);
            const auto expected = model.lower_bound(at / kTodoGranuleBytes);
            ASSERT_EQ(found.has_value(), expected != model.end());
            if (!found) continue;
            ASSERT_EQ(found->offset_bytes, *expected * kTodoGranuleBytes);
            uint64_t run = *expected;
            while (model.contains(run) && (run - *expected) * kTodoGranuleBytes < limit) ++run;
            ASSERT_EQ(found->end(), std::min(disk, run * kTodoGranuleBytes));
        }
        // Another process finds the same.
        TodoMap again(words, disk);
        ASSERT_EQ(again.count(), model.size());
    }
}

// Broken: bits of damaged memory beyond the disk's end would be copied for ever.
TEST(TodoMap, IgnoresBitsBeyondTheDisk) {
    std::vector<uint64_t> words = {~0ull};
    TodoMap map(words, 3 * kTodoGranuleBytes - 5);
    EXPECT_EQ(map.count(), 3u);
    EXPECT_EQ(map.next(0, 1u << 30)->end(), 3 * kTodoGranuleBytes - 5);
}

}  // namespace
}  // namespace farshore
