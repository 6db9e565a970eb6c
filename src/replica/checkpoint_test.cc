#include "replica/checkpoint.h"

#include <gtest/gtest.h>

#include "codec/crc32c.h"
#include "replica/replica_test_model.h"
#include "replica/sealed_object.h"

namespace farshore {
namespace {

using replica_test::test_item;
using replica_test::test_key;
using replica_test::TestRandom;

constexpr ShardRef kShard{3, 17, {{2}, 9}, 0};

ExtentMap some_map(Rng& rng, int extents) {
    ExtentMap map;
    for (int i = 0; i < extents; ++i) {
        const auto start = static_cast<uint32_t>(rng.below(kShardBytes - 9000));
        const auto length = static_cast<uint32_t>(1 + rng.below(8192));
        map.write({start, length, static_cast<uint32_t>(rng.below(5)),
                   static_cast<uint32_t>(rng.below(kMaxSegmentPayloadBytes - length))});
    }
    return map;
}
ObjectRef ref_of(uint32_t object) {
    return {object % 2 ? SegmentKind::kLog : SegmentKind::kBase, {1000 - object}, {object}};
}

Manifest some_manifest() {
    Manifest m;
    m.sequence = {1000};
    m.time = {-5};
    m.generation = {{2}, 77};
    m.segment = {12};
    m.segment_epoch = {1ull << 33};
    m.segment_header.fill(7);
    m.floor = {500};
    m.floor_segment = {8};
    m.floor_time = {1'700'000'000'000'000};
    m.written_bytes = 123456789;
    m.previous = "items/x";
    m.disks = {{0, 1}, {5, kMaxDiskBytes}};
    m.shards = {{0, 1, {{1}, 2}, 100}, {5, 65535, {{2}, 77}, 200}};
    m.objects = {{{SegmentKind::kLog, {3}, {1}}, 10, 4096}, {{SegmentKind::kBase, {9}, {2}}, 1, 1}};
    m.points = {{{500}, PointKind::kCrash, {10}, ""},
                {{700}, PointKind::kBookmark, {-10}, std::string(kMaxLabelBytes, 'x')}};
    m.gaps = {{{510}, {515}, {520}, {1}, {2}}, {{990}, {991}, {}, {3}, {}}};
    return m;
}

bool is_named(Code code) {
    switch (code) {
        case Code::kCorrupt:
        case Code::kTruncated:
        case Code::kMalformed:
        case Code::kNewerVersion:
        case Code::kForeignStore:
        case Code::kWrongKey:
        case Code::kTooLarge:
            return true;
        default:
            return false;
    }
}

TEST(Checkpoint, ShardsComeBackAsTheyWere) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        TestRandom random(seed);
        const ExtentMap map = some_map(rng, static_cast<int>(rng.below(300)));
        std::vector<ShardContent::Object> objects;
        const auto object =
            encode_shard(test_item(), kShard, map, ref_of, test_key(), random, &objects);
        ASSERT_TRUE(object);
        const auto content = decode_shard(test_item(), kShard, *object, test_key());
        ASSERT_TRUE(content) << content.error().to_string();
        EXPECT_EQ(content->objects, objects);
        std::vector<std::pair<Extent, ObjectRef>> a, b;
        const auto without = [](Extent e) { return e.object = 0, e; };
        map.for_each([&](const Extent& e) { a.emplace_back(without(e), ref_of(e.object)); });
        content->map.for_each(
            [&](const Extent& e) { b.emplace_back(without(e), content->objects[e.object].ref); });
        EXPECT_EQ(a, b);
    }
}

TEST(Manifest, ComesBackAsItWas) {
    TestRandom random(1);
    const Manifest m = some_manifest();
    const std::string name = manifest_name(test_item(), m.sequence, m.generation);
    const auto object = encode_manifest(test_item(), m, test_key(), random);
    ASSERT_TRUE(object);
    const auto back = decode_manifest(test_item(), name, *object, test_key());
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->sequence, m.sequence);
    EXPECT_EQ(back->time, m.time);
    EXPECT_EQ(back->generation, m.generation);
    EXPECT_EQ(back->segment, m.segment);
    EXPECT_EQ(back->segment_epoch, m.segment_epoch);
    EXPECT_EQ(back->segment_header, m.segment_header);
    EXPECT_EQ(back->floor, m.floor);
    EXPECT_EQ(back->floor_segment, m.floor_segment);
    EXPECT_EQ(back->floor_time, m.floor_time);
    EXPECT_EQ(back->written_bytes, m.written_bytes);
    EXPECT_EQ(back->previous, m.previous);
    EXPECT_EQ(back->disks, m.disks);
    EXPECT_EQ(back->shards, m.shards);
    EXPECT_EQ(back->objects, m.objects);
    ASSERT_EQ(back->points.size(), 2u);
    EXPECT_EQ(back->points[1].sequence, m.points[1].sequence);
    EXPECT_EQ(back->points[1].time, m.points[1].time);
    EXPECT_EQ(back->points[1].label, m.points[1].label);
    EXPECT_EQ(back->points[1].kind, m.points[1].kind);
    ASSERT_EQ(back->gaps.size(), 2u);
    EXPECT_EQ(back->gaps[0].resynced, m.gaps[0].resynced);
    EXPECT_TRUE(back->gaps[1].open());
}

// Would break: a damaged store read as data, or a crash on it.
TEST(SealedObject, EveryFlippedBitAndEveryCutIsANamedError) {
    TestRandom random(2);
    Rng rng(3);
    const Manifest m = some_manifest();
    const std::string name = manifest_name(test_item(), m.sequence, m.generation);
    const Bytes manifest = *encode_manifest(test_item(), m, test_key(), random);
    const Bytes shard =
        *encode_shard(test_item(), kShard, some_map(rng, 40), ref_of, test_key(), random);
    const auto open = [&](bool is_manifest, const Bytes& bytes) {
        if (is_manifest) {
            const auto r = decode_manifest(test_item(), name, bytes, test_key());
            return r ? std::optional<Code>() : r.error().code();
        }
        const auto r = decode_shard(test_item(), kShard, bytes, test_key());
        return r ? std::optional<Code>() : r.error().code();
    };
    for (const bool is_manifest : {true, false}) {
        const Bytes& good = is_manifest ? manifest : shard;
        ASSERT_FALSE(open(is_manifest, good));
        for (size_t bit = 0; bit < good.size() * 8; ++bit) {
            Bytes bad = good;
            bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
            const auto code = open(is_manifest, bad);
            ASSERT_TRUE(code && is_named(*code)) << "bit " << bit;
        }
        for (size_t size = 0; size < good.size(); ++size) {
            const auto code =
                open(is_manifest, Bytes(good.begin(), good.begin() + static_cast<long>(size)));
            ASSERT_TRUE(code == Code::kTruncated) << "cut to " << size;
        }
        Bytes longer = good;
        longer.push_back(0);
        EXPECT_EQ(open(is_manifest, longer), Code::kCorrupt);
    }
}

TEST(SealedObject, SaysWhoseItIsAndWhatOpensIt) {
    TestRandom random(2);
    const Bytes body(1000, 5);
    const Bytes object = *seal_object(kShardMagic, "a", test_item(), body, test_key(), random);
    EXPECT_EQ(*open_object(kShardMagic, "a", test_item(), object, test_key()), body);
    const auto code = [](const auto& result) { return result.error().code(); };
    EXPECT_EQ(code(open_object(kManifestMagic, "a", test_item(), object, test_key())),
              Code::kMalformed);
    EXPECT_EQ(code(open_object(kShardMagic, "b", test_item(), object, test_key())), Code::kCorrupt);
    EXPECT_EQ(code(open_object(kShardMagic, "a", ItemId{}, object, test_key())),
              Code::kForeignStore);
    EXPECT_EQ(code(open_object(kShardMagic, "a", test_item(), object, Secret(Bytes(32, 1)))),
              Code::kWrongKey);
    Bytes newer = object;
    store_u16(&newer[12], 2);
    store_u32(&newer[8], crc32c(ByteView(newer).subspan(12, 128 - 12)));
    EXPECT_EQ(code(open_object(kShardMagic, "a", test_item(), newer, test_key())),
              Code::kNewerVersion);
}

// Would break: an allocation or a loop that bad counts decide.
TEST(SealedObject, RandomBodiesNeverCrashTheDecoders) {
    Rng rng(11);
    TestRandom random(2);
    // Good bodies with a few bytes changed get further than noise.
    const Bytes object = *encode_manifest(test_item(), some_manifest(), test_key(), random);
    const Bytes manifest = *open_object(
        kManifestMagic,
        manifest_name(test_item(), some_manifest().sequence, some_manifest().generation),
        test_item(), object, test_key());
    const Bytes shard_object =
        *encode_shard(test_item(), kShard, some_map(rng, 30), ref_of, test_key(), random);
    const Bytes shard = *open_object(kShardMagic, shard_name(test_item(), kShard), test_item(),
                                     shard_object, test_key());
    for (int i = 0; i < 20'000; ++i) {
        Bytes bad = i % 2 ? manifest : shard;
        for (uint64_t n = 1 + rng.below(4); n > 0; --n)
            bad[rng.below(bad.size())] = static_cast<uint8_t>(rng.next());
        const auto m = decode_manifest_body(bad);
        EXPECT_TRUE(m || is_named(m.error().code()));
        const auto s = decode_shard_body(bad, kShard.disk, kShard.shard);
        if (!s) {
            EXPECT_TRUE(is_named(s.error().code()));
            continue;
        }
        // What was taken is a map all the same.
        uint64_t at = 0;
        s->map.for_each([&](const Extent& e) {
            EXPECT_GE(e.start, at);
            at = e.end();
            EXPECT_LT(e.object, s->objects.size());
        });
        EXPECT_LE(at, kShardBytes);
    }
}

TEST(ObjectNames, ParseToWhatTheyWereMadeOf) {
    const ItemId item = test_item();
    for (const ObjectRef ref : {ObjectRef{SegmentKind::kLog, {1}, {2}},
                                ObjectRef{SegmentKind::kBase, {~0ull}, {1ull << 40}}}) {
        EXPECT_EQ(parse_object_name(item, object_name(item, ref)), ref);
        EXPECT_FALSE(parse_object_name(ItemId{}, object_name(item, ref)));
    }
    EXPECT_EQ(parse_shard_name(item, shard_name(item, kShard)), kShard);
    const auto name = parse_manifest_name(item, manifest_name(item, {9}, {{3}, 4}));
    ASSERT_TRUE(name);
    EXPECT_EQ(name->sequence.v, 9u);
    EXPECT_EQ(name->generation, (Generation{{3}, 4}));
    for (const char* bad : {"", "items/", "x.seg", "0000000000000001-000000000000000g.seg",
                            "0000000000000001-0000000000000001.segx"}) {
        EXPECT_FALSE(parse_object_name(item, log_prefix(item) + bad));
        EXPECT_FALSE(parse_manifest_name(item, manifest_prefix(item) + bad));
        EXPECT_FALSE(parse_shard_name(item, shard_prefix(item) + bad));
    }
    // The place to list from leaves out the segment itself, whatever its epoch, and no later one.
    EXPECT_LT(object_name(item, {SegmentKind::kLog, {16}, {~0ull}}), after_segment(item, {16}));
    EXPECT_GT(object_name(item, {SegmentKind::kLog, {17}, {0}}), after_segment(item, {16}));
}

}  // namespace
}  // namespace farshore
