#include "replica/extent_map.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <random>

namespace farshore {
namespace {

struct Cell {
    uint32_t object = kNoObject, position = 0;
    bool operator==(const Cell&) const = default;
};

// Would break: any replica that was overwritten in part, split, or zeroed.
TEST(ExtentMap, EqualsAnArrayOfBytesAfterEveryChange) {
    for (uint32_t seed = 1; seed <= 30; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937 random(seed);
        const uint32_t size = seed % 3 == 0 ? 64 : 700;
        std::vector<Cell> oracle(size);
        ExtentMap map;
        for (int step = 0; step < 400; ++step) {
            const uint32_t start = random() % size;
            const uint32_t length =
                1 + random() % std::min<uint32_t>(size - start, 1 + random() % size);
            if (random() % 4 == 0) {
                map.erase(start, length);
                for (uint32_t i = 0; i < length; ++i) oracle[start + i] = {};
            } else {
                const Extent extent{start, length, static_cast<uint32_t>(random() % 3),
                                    static_cast<uint32_t>(random() % 2 ? start : random() % 5000)};
                map.write(extent);
                for (uint32_t i = 0; i < length; ++i)
                    oracle[start + i] = {extent.object, extent.position + i};
            }
            const uint32_t from = random() % size;
            const uint32_t count = 1 + random() % (size - from);
            std::vector<Extent> pieces;
            map.lookup(from, count, pieces);
            uint32_t at = from;
            for (const Extent& piece : pieces) {
                ASSERT_EQ(piece.start, at);
                ASSERT_GT(piece.length, 0u);
                for (uint32_t i = 0; i < piece.length; ++i) {
                    const Cell cell{piece.object,
                                    piece.object == kNoObject ? 0 : piece.position + i};
                    ASSERT_EQ(cell, oracle[at + i]) << "byte " << at + i << " step " << step;
                }
                at += piece.length;
            }
            ASSERT_EQ(at, from + count);
        }
        // What for_each gives is the same map.
        ExtentMap copy;
        map.for_each([&](const Extent& e) { ASSERT_TRUE(copy.append(e)); });
        ASSERT_EQ(copy.size(), map.size());
        std::vector<Extent> a, b;
        map.lookup(0, size, a);
        copy.lookup(0, size, b);
        ASSERT_EQ(a, b);
    }
}

// Would break: one entry a guest write instead of one a run of them.
TEST(ExtentMap, SequentialWritesOfOneObjectAreOneExtent) {
    ExtentMap map;
    for (uint32_t i = 0; i < 1000; ++i) map.write({i * 4096, 4096, 7, i * 4096});
    EXPECT_EQ(map.size(), 1u);
}

TEST(ExtentMap, TakesTheWholeShard) {
    ExtentMap map;
    const uint32_t whole = static_cast<uint32_t>(kShardBytes);
    map.write({0, whole, 1, 0});
    map.erase(whole - 1, 1);
    std::vector<Extent> pieces;
    map.lookup(0, whole, pieces);
    ASSERT_EQ(pieces.size(), 2u);
    EXPECT_EQ(pieces[1].object, kNoObject);
    map.erase(0, whole);
    EXPECT_TRUE(map.empty());
}

// Would break: the memory bound of an opened replica.
TEST(ExtentMap, RandomExtentsTakeAtMostFortyBytesEach) {
    std::mt19937 random(1);
    const size_t before = mallinfo2().uordblks;
    ExtentMap map;
    for (int i = 0; i < 200'000; ++i)
        map.write({static_cast<uint32_t>(random() % (kShardBytes / 4096)) * 4096, 4096,
                   static_cast<uint32_t>(i), 0});
    EXPECT_LE((mallinfo2().uordblks - before) / map.size(), kMaxBytesPerExtent);
}

TEST(ExtentMap, AppendRefusesWhatOverlaps) {
    ExtentMap map;
    EXPECT_TRUE(map.append({0, 10, 1, 0}));
    EXPECT_FALSE(map.append({9, 10, 1, 0}));
    EXPECT_TRUE(map.append({10, 10, 1, 0}));
}

}  // namespace
}  // namespace farshore
