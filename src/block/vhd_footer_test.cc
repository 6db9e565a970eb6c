#include "block/vhd_footer.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

uint64_t number(const std::array<uint8_t, kVhdFooterBytes>& footer, size_t at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value = value << 8 | footer[at + i];
    return value;
}

// Broken if Azure or Hyper-V would refuse the footer, or take another length from it.
TEST(VhdFooter, SaysWhatTheSpecificationWants) {
    const uint64_t bytes = 3ull << 30;
    const auto footer = fixed_vhd_footer(bytes, {1'000'000'000ll * 1'000'000}, {1, 2, 3});
    EXPECT_EQ(std::string(footer.begin(), footer.begin() + 8), "conectix");
    EXPECT_EQ(number(footer, 12, 4), 0x10000u);
    EXPECT_EQ(number(footer, 16, 8), UINT64_MAX);
    EXPECT_EQ(number(footer, 24, 4), 1'000'000'000u - 946'684'800u);
    EXPECT_EQ(number(footer, 40, 8), bytes);
    EXPECT_EQ(number(footer, 48, 8), bytes);
    EXPECT_EQ(number(footer, 60, 4), 2u);
    uint32_t sum = 0;
    for (size_t i = 0; i < footer.size(); ++i)
        if (i < 64 || i >= 68) sum += footer[i];
    EXPECT_EQ(number(footer, 64, 4), static_cast<uint32_t>(~sum));
}

// Broken if the geometry covers more than the disk has, or a field overflows.
TEST(VhdFooter, GeometryFitsTheDisk) {
    for (const uint64_t bytes :
         {uint64_t{512}, uint64_t{1} << 20, uint64_t{9} << 20, uint64_t{504} << 20,
          uint64_t{4} << 30, uint64_t{32} << 30, uint64_t{127} << 30, uint64_t{4} << 40}) {
        const VhdGeometry geometry = vhd_geometry(bytes);
        const uint64_t covered = uint64_t{geometry.cylinders} * geometry.heads *
                                 geometry.sectors_per_track * kVhdSectorBytes;
        EXPECT_LE(covered, bytes) << bytes;
        EXPECT_GE(geometry.heads, 4) << bytes;
        EXPECT_LE(geometry.heads, 16) << bytes;
        if (bytes >= (1u << 20) && bytes < (127ull << 30)) {
            EXPECT_GT(covered * 10, bytes * 9) << bytes;
        }
    }
    EXPECT_EQ(vhd_geometry(4ull << 40).cylinders, 65535);
}

}  // namespace
}  // namespace farshore
