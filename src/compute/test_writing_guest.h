// For tests: the guest of tests/e2e/bootsector that never stops writing, and whether a disk holds
// all that it wrote.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "base/bytes.h"
#include "compute/test_support.h"
#include "os/test_paths.h"

namespace farshore {

// As writer.S has them.
inline constexpr uint64_t kWritingGuestDiskBytes = 16 << 20;
inline constexpr uint32_t kWritingGuestRing = 16384, kWritingGuestFirst = 64;

inline Bytes writing_guest() {
    std::ifstream file(test_source_directory() + "/tests/e2e/bootsector/writer.bin",
                       std::ios::binary);
    return Bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The last number on an image of the disk; a write that is not there fails the test.
inline uint32_t last_write_on(const std::string& image, const std::string& format) {
    const std::string raw = image + ".as-raw";
    run_tool({"qemu-img", "convert", "-U", "-f", format, "-O", "raw", image, raw});
    std::ifstream file(raw, std::ios::binary);
    const Bytes disk{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    EXPECT_EQ(disk.size(), kWritingGuestDiskBytes);
    if (disk.size() != kWritingGuestDiskBytes) return 0;
    const auto at = [&](uint32_t slot) {
        return load_u32(&disk[size_t{512} * (kWritingGuestFirst + slot)]);
    };
    uint32_t last = 0;
    for (uint32_t slot = 0; slot < kWritingGuestRing; ++slot) last = std::max(last, at(slot));
    for (uint32_t back = 0; back < std::min(last, kWritingGuestRing); ++back)
        EXPECT_EQ(at((last - back) % kWritingGuestRing), last - back)
            << "a write before " << last << " is not on the disk";
    return last;
}

}  // namespace farshore
