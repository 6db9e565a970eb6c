#include "codec/block_sum.h"

#include <gtest/gtest.h>

#include <set>

namespace farshore {
namespace {

SumKey key_of(uint8_t value) {
    SumKey key;
    key.fill(value);
    return key;
}

// Broken: a difference anywhere in a block, or a block at another place, has the same sum.
TEST(BlockSum, EveryByteDiskPlaceAndKeyCounts) {
    Bytes data(kSumBlockBytes);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7 + i / 256);
    BlockSummer summer(key_of(1)), other(key_of(2));
    std::set<BlockSum> seen{kZeroSum, summer.block(0, 0, data), summer.block(1, 0, data),
                            summer.block(0, kSumBlockBytes, data), other.block(0, 0, data)};
    EXPECT_EQ(seen.size(), 5u);
    for (size_t at = 0; at < data.size(); at += 997) {
        data[at] ^= 1;
        EXPECT_TRUE(seen.insert(summer.block(0, 0, data)).second) << at;
        data[at] ^= 1;
    }
    EXPECT_EQ(BlockSummer(key_of(1)).block(0, 0, data), summer.block(0, 0, data));
    EXPECT_NE(summer.block(0, 0, ByteView(data).first(512)),
              summer.block(0, 0, ByteView(data).first(1024)));
}

TEST(BlockSum, ZeroesHaveTheSumOfZeroesAndARunTellsItsBlocks) {
    const Bytes zeroes(4096);
    BlockSummer summer(key_of(3));
    EXPECT_EQ(summer.block(0, 0, zeroes), kZeroSum);
    std::array<BlockSum, 3> blocks{};
    const BlockSum none = summer.run(0, 0, blocks);
    EXPECT_NE(none, kZeroSum);
    blocks[2][15] = 1;
    EXPECT_NE(summer.run(0, 0, blocks), none);
    EXPECT_NE(summer.run(0, 0, std::span(blocks).first(2)), none);
}

}  // namespace
}  // namespace farshore
