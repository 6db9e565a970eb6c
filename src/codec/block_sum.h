// Sums by which two sides find out where their blocks differ without sending them: GMAC (NIST SP
// 800-38D) with AES-256 under a key that one side draws anew for each comparison. Who writes the
// blocks does not know the key, so nothing that he writes can hide a difference: two different
// blocks have one sum with a probability of less than 2^-110.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/types.h"

namespace farshore {

inline constexpr uint64_t kSumBlockBytes = 64u << 10;
using BlockSum = std::array<uint8_t, 16>;
using SumKey = std::array<uint8_t, 32>;
// Of a block of zeroes, which is not summed: holes cost nothing.
inline constexpr BlockSum kZeroSum{};

// One thread at a time.
class BlockSummer {
  public:
    explicit BlockSummer(const SumKey& key);
    ~BlockSummer();
    BlockSummer(const BlockSummer&) = delete;
    BlockSummer& operator=(const BlockSummer&) = delete;

    // Of the block at `offset_bytes` of a disk; its place is part of the sum.
    BlockSum block(DiskIndex disk, uint64_t offset_bytes, ByteView data);
    // Of a run of blocks, from their sums.
    BlockSum run(DiskIndex disk, uint64_t offset_bytes, std::span<const BlockSum> blocks);

  private:
    BlockSum sum(uint32_t what, uint64_t offset_bytes, ByteView data);
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace farshore
