// The last 512 bytes of a fixed VHD, which make a raw image one: what Azure takes as a managed
// disk, and what Hyper-V attaches. Source: Microsoft, "Virtual Hard Disk Image Format
// Specification" 1.0.
#pragma once

#include <array>

#include "base/bytes.h"
#include "base/types.h"

namespace farshore {

inline constexpr uint64_t kVhdFooterBytes = 512;
inline constexpr uint64_t kVhdSectorBytes = 512;

struct VhdGeometry {
    uint16_t cylinders = 0;
    uint8_t heads = 0;
    uint8_t sectors_per_track = 0;
};
// Of old interfaces; covers at most `disk_bytes`, and never more than 127 GiB.
VhdGeometry vhd_geometry(uint64_t disk_bytes);

// `disk_bytes` is a multiple of 512: the length of the image before the footer. `id` is any.
std::array<uint8_t, kVhdFooterBytes> fixed_vhd_footer(uint64_t disk_bytes, TimePoint made,
                                                      const std::array<uint8_t, 16>& id);

}  // namespace farshore
