// What a comparison of source and replica asks and answers, from the tap to the vault
// (docs/design/resync.md): one run of blocks each.
#pragma once

#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "codec/block_sum.h"

namespace farshore {

// A run has at most this many blocks: 64 MiB.
inline constexpr size_t kMaxCompareBlocks = 1024;
inline constexpr uint64_t kMaxCompareBytes = kMaxCompareBlocks * kSumBlockBytes;
// One of which the source has nothing but zeroes may be longer, up to 64 GiB: its sum is kZeroSum,
// and runs of kMaxCompareBytes take the place of blocks.
inline constexpr uint64_t kMaxCompareZeroBytes = kMaxCompareBlocks * kMaxCompareBytes;

// "Does the replica, as it is after `at_least` or later, have these bytes?"
struct CompareQuestion {
    SumKey key{};
    Sequence at_least;
    DiskIndex disk = 0;
    uint64_t offset_bytes = 0;  // a multiple of kSumBlockBytes
    uint64_t length_bytes = 0;  // odd only at the disk's end
    BlockSum sum{};             // of the run, as the source has it
    bool long_zeroes() const { return length_bytes > kMaxCompareBytes; }
    uint64_t block_bytes() const { return long_zeroes() ? kMaxCompareBytes : kSumBlockBytes; }
    size_t blocks() const { return (length_bytes + block_bytes() - 1) / block_bytes(); }
};

enum class CompareVerdict : uint8_t {
    kEqual = 1,
    kSums = 2,     // the sums of the replica's blocks are told
    kNotYet = 3,   // `at_least` is not stored yet: ask again
    kNothing = 4,  // there is no replica to compare with, or none that can be read
};

struct CompareAnswer {
    CompareVerdict verdict = CompareVerdict::kNothing;
    // One a block. Of long zeroes: kZeroSum, or kUnreadableSum where that is not certain without
    // reading.
    std::vector<BlockSum> sums;
    // Blocks of the run that the replica cannot read any more. Their sums are kUnreadableSum.
    uint32_t unreadable = 0;
};

// kMalformed: a range that no question may have.
Status check_question(const CompareQuestion& question);

// Equal to no block's.
inline constexpr BlockSum kUnreadableSum = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

}  // namespace farshore
