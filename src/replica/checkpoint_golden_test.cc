// A shard and a manifest that version 1 wrote and that every later version must read. They are
// never edited. FARSHORE_WRITE_GOLDEN=1 writes missing ones.
#include <gtest/gtest.h>

#include <cstdlib>

#include "os/real.h"
#include "os/test_paths.h"
#include "replica/checkpoint.h"

namespace farshore {
namespace {

const std::string kFolder = test_source_directory() + "/src/replica/testdata/v1/";
const ItemId kItem{{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3,
                    0xd2, 0xe1, 0xf0}};
const ShardRef kShard{0, 0, {{1}, 7}, 0};
Secret item_key() { return Secret(Bytes(32, 0x5a)); }

class CountingRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = next_++;
    }

  private:
    uint8_t next_ = 0;
};

// docs/format/manifest.md §3, worked example.
ExtentMap golden_map() {
    ExtentMap map;
    map.write({8192, 4096, 0, 100});
    map.write({9000, 1000, 1, 0});
    return map;
}
ObjectRef golden_ref(uint32_t object) { return {SegmentKind::kLog, {5 + object}, {1}}; }
constexpr uint8_t kGoldenBody[] = {0x00, 0x00, 0x02, 0x01, 0x05, 0x01, 0x98, 0x18, 0x01, 0x06, 0x01,
                                   0xe8, 0x07, 0x03, 0x80, 0x40, 0xa8, 0x06, 0x00, 0xc8, 0x01, 0x00,
                                   0xe8, 0x07, 0x01, 0x00, 0x00, 0xf0, 0x11, 0x00, 0xd0, 0x0f};

Manifest golden_manifest() {
    Manifest m;
    m.sequence = {1000};
    m.time = {1'700'000'000'000'000};
    m.generation = {{1}, 8};
    m.segment = {6};
    m.segment_epoch = {1};
    for (size_t i = 0; i < m.segment_header.size(); ++i)
        m.segment_header[i] = static_cast<uint8_t>(i);
    m.floor = {500};
    m.floor_segment = {3};
    m.floor_time = {1'699'999'999'000'000};
    m.written_bytes = 5096;
    m.previous = "items/0f1e2d3c4b5a69788796a5b4c3d2e1f0/manifest/x";
    m.disks = {{0, 1048576}, {2, 4096}};
    m.shards = {{0, 0, {{1}, 7}, 192}};
    m.objects = {{golden_ref(0), 3096, 8192}, {golden_ref(1), 1000, 1000}};
    m.points = {{{600}, PointKind::kCrash, {1'699'999'999'100'000}, "a"},
                {{700}, PointKind::kBookmark, {1'699'999'999'050'000}, "before"}};
    m.gaps = {{{800}, {805}, {810}, {1}, {2}}, {{990}, {991}, {}, {3}, {}}};
    return m;
}

Bytes golden(const std::string& file, const Bytes& made) {
    PosixFileSystem real;
    FileSystem* files = &real;
    auto opened = files->open(kFolder + file, OpenMode::kRead);
    if (!opened && std::getenv("FARSHORE_WRITE_GOLDEN") != nullptr) {
        auto created = files->open(kFolder + file, OpenMode::kCreateNew);
        EXPECT_TRUE(created);
        EXPECT_TRUE((*created)->write_at(0, made));
        opened = files->open(kFolder + file, OpenMode::kRead);
    }
    if (!opened) {
        ADD_FAILURE() << file << ": " << opened.error().to_string();
        return {};
    }
    Bytes out(*(*opened)->size());
    EXPECT_TRUE((*opened)->read_at(0, out));
    return out;
}

TEST(CheckpointGolden, TheWorkedExampleIsAsItStandsInTheFormat) {
    const auto content = decode_shard_body(kGoldenBody, 0, 0);
    ASSERT_TRUE(content) << content.error().to_string();
    std::vector<Extent> extents;
    content->map.for_each([&](const Extent& e) { extents.push_back(e); });
    ASSERT_EQ(extents.size(), 3u);
    EXPECT_EQ(extents[0], (Extent{8192, 808, 0, 100}));
    EXPECT_EQ(extents[1], (Extent{9000, 1000, 1, 0}));
    EXPECT_EQ(extents[2], (Extent{10000, 2288, 0, 1908}));
    EXPECT_EQ(content->objects[1].ref, golden_ref(1));
}

TEST(CheckpointGolden, ReadsWhatVersionOneWrote) {
    CountingRandom random;
    const auto shard = encode_shard(kItem, kShard, golden_map(), golden_ref, item_key(), random);
    ASSERT_TRUE(shard);
    const auto manifest = encode_manifest(kItem, golden_manifest(), item_key(), random);
    ASSERT_TRUE(manifest);
    const Bytes old_shard = golden("shard.bin", *shard);
    const auto content = decode_shard(kItem, kShard, old_shard, item_key());
    ASSERT_TRUE(content) << content.error().to_string();
    EXPECT_EQ(content->map.size(), 3u);
    const Bytes old_manifest = golden("manifest.bin", *manifest);
    const Manifest m = golden_manifest();
    const auto back = decode_manifest(kItem, manifest_name(kItem, m.sequence, m.generation),
                                      old_manifest, item_key());
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->segment_header, m.segment_header);
    EXPECT_EQ(back->floor_time, m.floor_time);
    EXPECT_EQ(back->shards, m.shards);
    EXPECT_EQ(back->objects, m.objects);
    EXPECT_EQ(back->disks, m.disks);
    ASSERT_EQ(back->points.size(), 2u);
    EXPECT_EQ(back->points[1].label, "before");
    EXPECT_EQ(back->points[1].time, m.points[1].time);
    ASSERT_EQ(back->gaps.size(), 2u);
    EXPECT_EQ(back->gaps[0].resynced, m.gaps[0].resynced);
}

}  // namespace
}  // namespace farshore
