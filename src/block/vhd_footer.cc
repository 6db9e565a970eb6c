#include "block/vhd_footer.h"

#include <algorithm>

namespace farshore {
namespace {

constexpr int64_t kVhdEpochS = 946'684'800;  // 2000-01-01T00:00:00Z
constexpr uint64_t kMostSectors = 65535ull * 16 * 255;

// VHD numbers are big-endian.
template <typename Number>
void put(uint8_t* at, Number value) {
    for (size_t i = 0; i < sizeof value; ++i)
        at[i] = static_cast<uint8_t>(value >> (8 * (sizeof value - 1 - i)));
}

}  // namespace

VhdGeometry vhd_geometry(uint64_t disk_bytes) {
    const uint64_t sectors = std::min(disk_bytes / kVhdSectorBytes, kMostSectors);
    uint64_t per_track = 17, heads = 0, tracks = 0;
    if (sectors >= 65535ull * 16 * 63) {
        per_track = 255;
        heads = 16;
    } else {
        tracks = sectors / per_track;
        heads = std::max<uint64_t>((tracks + 1023) / 1024, 4);
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
        }
        if (sectors / per_track >= heads * 1024) {
            per_track = 63;
            heads = 16;
        }
    }
    tracks = sectors / per_track;
    return {static_cast<uint16_t>(tracks / heads), static_cast<uint8_t>(heads),
            static_cast<uint8_t>(per_track)};
}

std::array<uint8_t, kVhdFooterBytes> fixed_vhd_footer(uint64_t disk_bytes, TimePoint made,
                                                      const std::array<uint8_t, 16>& id) {
    std::array<uint8_t, kVhdFooterBytes> footer{};
    uint8_t* const at = footer.data();
    const auto text = [&](size_t offset, std::string_view words) {
        std::copy(words.begin(), words.end(), at + offset);
    };
    text(0, "conectix");
    put(at + 8, uint32_t{2});             // features: the bit that is always set
    put(at + 12, uint32_t{0x0001'0000});  // version
    put(at + 16, UINT64_MAX);             // no further header: fixed
    put(at + 24, static_cast<uint32_t>(std::max<int64_t>(made.us / 1'000'000 - kVhdEpochS, 0)));
    // Readers take the length from the footer, not from the geometry, of what Windows wrote.
    text(28, "win ");
    put(at + 32, uint32_t{0x0006'0001});
    text(36, "Wi2k");
    put(at + 40, disk_bytes);
    put(at + 48, disk_bytes);
    const VhdGeometry geometry = vhd_geometry(disk_bytes);
    put(at + 56, geometry.cylinders);
    at[58] = geometry.heads;
    at[59] = geometry.sectors_per_track;
    put(at + 60, uint32_t{2});  // fixed
    std::copy(id.begin(), id.end(), at + 68);
    uint32_t sum = 0;
    for (const uint8_t byte : footer) sum += byte;
    put(at + 64, ~sum);
    return footer;
}

}  // namespace farshore
