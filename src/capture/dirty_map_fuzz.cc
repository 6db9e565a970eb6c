// A dirty map with any content is refused by name or used; damage of both copies counts as dirty.
#include "capture/capture_test_world.h"
#include "capture/dirty_map.h"
#include "codec/crc32c.h"

using namespace farshore;
using namespace farshore::capture_test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    TestFiles files;
    const std::vector<uint64_t> disks = {3u << 20, 40ull << 30};
    Bytes content(data + 1, data + size);
    if ((data[0] & 2) != 0) {
        // A real one, of which the input changes bytes: place (two bytes) and value each.
        FS_CHECK(DirtyMap::create(files, "dirty", {}, disks));
        Bytes real = files.durable("dirty");
        for (size_t i = 0; i + 3 <= content.size(); i += 3)
            real[load_u16(content.data() + i) % real.size()] ^= content[i + 2];
        content = std::move(real);
    }
    // Mended checksums let the fuzzer reach the fields.
    if ((data[0] & 1) != 0) {
        const auto seal = [&](size_t at, size_t bytes, size_t crc_at) {
            if (at + bytes > content.size()) return;
            store_u32(content.data() + at + crc_at, 0);
            store_u32(content.data() + at + crc_at, crc32c(ByteView(content).subspan(at, bytes)));
        };
        // As the two disks below have it: 12 units in two pages behind the headers of each copy.
        for (size_t copy = 0; copy < 2; ++copy) {
            const size_t base = copy * 16384;
            for (size_t page = 0; page < 2; ++page) seal(base + page * 4096, 4096, 12);
            for (size_t unit = 0; unit < 12; ++unit) seal(base + 8192 + unit * 512, 512, 0);
        }
    }
    files.set("dirty", content);
    auto map = DirtyMap::open(files, "dirty", {}, disks);
    if (!map) return 0;
    { auto mark = (*map)->mark(1, 5u << 20, 1u << 20); }
    for (uint64_t i = 0; i < 6; ++i) (*map)->rotate(true, true, {i}, {i});
    (*map)->for_each_dirty([](DiskIndex disk, ByteRange range) {
        FS_CHECK(range.end() <= (disk == 0 ? 3u << 20 : 40ull << 30));
    });
    (void)(*map)->reserve(1ull << 40);
    return 0;
}
