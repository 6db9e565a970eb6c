// The 512-byte guest of README.md for C++ tests.
#pragma once

#include <fstream>
#include <iterator>
#include <vector>

#include "base/bytes.h"
#include "os/test_paths.h"

namespace farshore {

struct BootSectorOptions {
    uint8_t disks = 1;
    std::vector<uint32_t> sectors = {1, 2};  // at most 8
    uint32_t write_sector = 0;               // 0: none
};

inline Bytes boot_sector(const BootSectorOptions& options = {}) {
    std::ifstream file(test_source_directory() + "/tests/e2e/bootsector/bootsector.bin",
                       std::ios::binary);
    Bytes sector{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    FS_CHECK(sector.size() == 512 && options.sectors.size() <= 8);
    sector[0x1a0] = options.disks;
    sector[0x1a1] = static_cast<uint8_t>(options.sectors.size());
    for (size_t i = 0; i < options.sectors.size(); ++i)
        store_u32(&sector[0x1a4 + 4 * i], options.sectors[i]);
    store_u32(&sector[0x1c4], options.write_sector);
    return sector;
}

}  // namespace farshore
