// A dirty map with any content is refused by name or used; damaged pages count as dirty.
#include "capture/capture_test_world.h"
#include "capture/dirty_map.h"
#include "codec/crc32c.h"

using namespace farshore;
using namespace farshore::capture_test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    Bytes content(data + 1, data + size);
    // Mended checksums let the fuzzer reach the fields.
    if ((data[0] & 1) != 0) {
        for (size_t page = 0; page + 4096 <= content.size(); page += 4096) {
            store_u32(content.data() + page + 12, 0);
            store_u32(content.data() + page + 12, crc32c(ByteView(content).subspan(page, 4096)));
        }
    }
    TestFiles files;
    files.set("dirty", content);
    auto map = DirtyMap::open(files, "dirty", {}, {3u << 20, 40ull << 30});
    if (!map) return 0;
    { auto mark = (*map)->mark(1, 5u << 20, 1u << 20); }
    for (uint64_t i = 0; i < 6; ++i) (*map)->rotate(true, true, {i}, {i});
    (*map)->for_each_dirty([](DiskIndex disk, ByteRange range) {
        FS_CHECK(range.end() <= (disk == 0 ? 3u << 20 : 40ull << 30));
    });
    (void)(*map)->reserve(1ull << 40);
    return 0;
}
