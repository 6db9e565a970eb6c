// The independent reader against stores that the real writer made.
#include "extract/extract.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "codec/envelope.h"
#include "codec/key_file.h"
#include "extract/store_objects.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "os/test_paths.h"
#include "record/record.h"
#include "replica/checkpoint.h"
#include "replica/item_object.h"
#include "replica/manifest.h"
#include "replica/replica_test_model.h"
#include "replica/segment.h"
#include "store/directory_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

class SeededRandom final : public Random {
  public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_;
};

constexpr uint64_t kDiskBytes = (3u << 20) + 1536;
constexpr int64_t kStartUs = 1'700'000'000'000'000;

// An item with two disks, its log in a directory store, and what the disks held at every sequence.
struct World {
    explicit World(uint64_t seed = 1) : random(seed) {
        FS_CHECK(key_path.size() > 0);
        FS_CHECK(save_key_file(files, key_path, key));
        auto opened = DirectoryStore::open(files, random, {directory / "store", true});
        FS_CHECK(opened);
        store = std::move(*opened);
        RealClock clock;
        FS_CHECK(ensure_store_identity(*store, clock, random));
        ItemObject object;
        object.item = item;
        object.name = "web-1";
        object.disks = {{0, "vda", kDiskBytes}, {1, "vdb", kDiskBytes}};
        FS_CHECK(wrap_item_key(object, item_key, key, random));
        FS_CHECK(store->put(item_object_name(item), *encode_item_object(object)));
        for (auto& disk : disks) disk.resize(kDiskBytes);
    }

    RecordHeader next(RecordKind kind) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {++sequence};
        h.time = {kStartUs + static_cast<int64_t>(sequence) * 1000};
        return h;
    }
    void add(RecordHeader h, const Bytes& payload = {}) {
        append_record(pending, h, payload);
        if (h.kind == RecordKind::kWrite)
            std::ranges::copy(payload, disks[h.disk].begin() + static_cast<long>(h.offset_bytes));
        if (h.kind == RecordKind::kZero || h.kind == RecordKind::kDiscard)
            std::fill_n(disks[h.disk].begin() + static_cast<long>(h.offset_bytes), h.length_bytes,
                        uint8_t{0});
        if (h.kind == RecordKind::kGeometry) disks[h.disk].resize(h.offset_bytes);
    }
    void write(DiskIndex disk, uint64_t offset, const Bytes& payload) {
        RecordHeader h = next(RecordKind::kWrite);
        h.disk = disk;
        h.offset_bytes = offset;
        h.length_bytes = static_cast<uint32_t>(payload.size());
        add(h, payload);
    }
    void mark(RecordKind kind) { add(next(kind)); }
    void point(const std::string& label) {
        RecordHeader h = next(RecordKind::kPoint);
        h.flags = 3;
        add(h, to_bytes(as_bytes(label)));
    }
    void random_change() {
        const auto disk = static_cast<DiskIndex>(random.below(2));
        const uint64_t length = 1 + random.below(random.below(8) == 0 ? 200'000 : 9000);
        const uint64_t offset = random.below(disks[disk].size() - length);
        if (random.below(5) == 0) {
            RecordHeader h = next(random.below(2) == 0 ? RecordKind::kZero : RecordKind::kDiscard);
            h.disk = disk;
            h.offset_bytes = offset;
            h.length_bytes = static_cast<uint32_t>(length);
            add(h);
        } else {
            Bytes payload(length);
            if (random.below(2) == 0) random.fill(payload);
            write(disk, offset, payload);
        }
    }
    // Makes a segment of what is pending.
    std::string cut() {
        SegmentWriter writer;
        FS_CHECK(writer.add(pending));
        pending.clear();
        SegmentWriter::BuildOptions options;
        options.item = item;
        options.epoch = epoch;
        options.number = {++number};
        options.previous_header = previous;
        options.item_key = &item_key;
        options.random = &random;
        auto built = writer.build(options);
        FS_CHECK(built);
        previous = built->header.header_hash;
        const std::string name = segment_object_name(built->header);
        FS_CHECK(store->put(name, built->object));
        return name;
    }

    ExtractOptions options(const std::string& point, DiskIndex disk = 0) {
        ExtractOptions o;
        o.store = directory / "store";
        o.key_file = key_path;
        o.item = item.to_string();
        o.point = point;
        o.disk = disk;
        o.out_path = directory / "out.raw";
        o.replace_existing = true;
        return o;
    }
    Result<Bytes> extracted(const std::string& point, DiskIndex disk = 0) {
        FS_TRY(extract(options(point, disk), &report));
        return read_whole_file(files, directory / "out.raw");
    }
    Code refused(const std::string& point) {
        const Status status = extract(options(point));
        FS_CHECK(!std::filesystem::exists(directory / "out.raw.partial"));
        if (status) return Code::kInternal;
        message = status.error().to_string();
        return status.error().code();
    }

    SeededRandom random;
    // In memory where there is such a file system: syncing is not what is tested here.
    TestDirectory directory{std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp"};
    PosixFileSystem files;
    std::string key_path = directory / "key";
    KeyFile key = make_key_file(random);
    Secret item_key = make_key(random);
    ItemId item{{1, 2, 3, 4}};
    std::unique_ptr<DirectoryStore> store;
    Bytes disks[2];
    Bytes pending;
    uint64_t sequence = 0, number = 0;
    Epoch epoch{1};
    Digest previous{};
    ExtractReport report;
    std::string message;
};

// Broken if documents, writer and reader disagreed anywhere: every sequence, both disks.
TEST(Extract, EveryPointOfALogEqualsTheModel) {
    const uint64_t seed = 77;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World w(seed);
    std::map<uint64_t, std::pair<Bytes, Bytes>> at;
    for (int segment = 0; segment < 5; ++segment) {
        for (int i = 0; i < 12; ++i) {
            w.random_change();
            at[w.sequence] = {w.disks[0], w.disks[1]};
        }
        w.cut();
    }
    for (const auto& [sequence, disks] : at) {
        auto first = w.extracted(std::to_string(sequence), 0);
        ASSERT_TRUE(first) << first.error().to_string();
        ASSERT_TRUE(*first == disks.first) << sequence;
        EXPECT_EQ(w.report.sequence.v, sequence);
        EXPECT_EQ(w.report.time.us, kStartUs + static_cast<int64_t>(sequence) * 1000);
        auto second = w.extracted(std::to_string(sequence), 1);
        ASSERT_TRUE(second);
        ASSERT_TRUE(*second == disks.second) << sequence;
    }
    auto latest = w.extracted("latest");
    ASSERT_TRUE(latest);
    EXPECT_TRUE(*latest == w.disks[0]);
    EXPECT_TRUE(w.report.warning.empty());
}

// Broken if a person could not name a point as they think of it, or got another than the one named.
TEST(Extract, FindsPointsByTimeLabelAndLatest) {
    World w;
    w.write(0, 0, Bytes(512, 1));  // 1
    w.point("before update");      // 2
    w.write(0, 0, Bytes(512, 2));  // 3
    w.cut();
    w.write(0, 0, Bytes(512, 3));  // 4
    w.point("before update");      // 5
    w.write(0, 0, Bytes(512, 4));  // 6
    w.cut();
    const auto first_byte = [&](const std::string& point) {
        auto disk = w.extracted(point);
        EXPECT_TRUE(disk) << disk.error().to_string();
        return disk ? (*disk)[0] : 0xff;
    };
    EXPECT_EQ(first_byte("before update"), 3) << "the newest point of a label counts";
    EXPECT_EQ(first_byte("2"), 1);
    EXPECT_EQ(first_byte("latest"), 4);
    EXPECT_EQ(first_byte(to_rfc3339({kStartUs + 3'999})), 2);
    EXPECT_EQ(first_byte(to_rfc3339({kStartUs + 4'000})), 3);
    EXPECT_EQ(first_byte("2100-01-01T00:00:00Z"), 4);
    EXPECT_EQ(w.refused("2001-01-01T00:00:00Z"), Code::kPointOutsideWindow);
    EXPECT_EQ(w.refused("0"), Code::kPointOutsideWindow);
    EXPECT_NE(w.message.find("1 ("), std::string::npos) << w.message;
    EXPECT_EQ(w.refused("7"), Code::kPointNotFound);
    EXPECT_EQ(w.refused("never taken"), Code::kPointNotFound);
    EXPECT_EQ(w.refused("99999999999999999999"), Code::kPointNotFound);
    EXPECT_EQ(first_byte("label:before update"), 3);
    EXPECT_EQ(first_byte("latest-processed"), 4) << "nothing is processed: as latest";
    auto by_name = w.options("latest");
    by_name.item = "web-1";
    EXPECT_TRUE(extract(by_name));
}

// Broken if a state that never was on the source could be had, or the error did not help.
TEST(Extract, NoPointsInsideGaps) {
    World w;
    w.mark(RecordKind::kGap);      // 1: initial replication
    w.write(0, 0, Bytes(512, 1));  // 2
    w.cut();
    EXPECT_EQ(w.refused("latest"), Code::kPointNotFound);
    EXPECT_EQ(w.refused("2"), Code::kPointInGap);
    w.mark(RecordKind::kResynced);  // 3
    w.write(0, 0, Bytes(512, 2));   // 4
    w.cut();
    EXPECT_EQ((*w.extracted("3"))[0], 1);
    w.sequence = 9;                // 5..9 were dropped
    w.mark(RecordKind::kGap);      // 10
    w.write(0, 0, Bytes(512, 3));  // 11
    w.cut();
    EXPECT_EQ((*w.extracted("latest"))[0], 2) << "the newest point is before the open gap";
    EXPECT_EQ(w.report.sequence.v, 4u);
    w.mark(RecordKind::kResynced);  // 12
    w.cut();
    for (const char* point : {"5", "9", "10", "11"}) {
        EXPECT_EQ(w.refused(point), Code::kPointInGap) << point;
        EXPECT_NE(w.message.find("4 before and 12 after"), std::string::npos) << w.message;
    }
    EXPECT_EQ(w.refused("1"), Code::kPointInGap);
    EXPECT_EQ((*w.extracted("4"))[0], 2);
    EXPECT_EQ((*w.extracted("12"))[0], 3);
    EXPECT_EQ((*w.extracted("latest"))[0], 3);
}

TEST(Extract, FollowsADiskThatChangesSize) {
    World w;
    w.write(0, kDiskBytes - 512, Bytes(512, 1));
    const auto resize = [&](uint64_t size) {
        RecordHeader h = w.next(RecordKind::kGeometry);
        h.offset_bytes = size;
        w.add(h);
    };
    resize(1u << 20);
    resize(4u << 20);
    w.write(0, (4u << 20) - 10, Bytes(10, 2));
    w.cut();
    EXPECT_TRUE(*w.extracted("latest") == w.disks[0]);
    EXPECT_EQ(w.extracted("2")->size(), 1u << 20);
    EXPECT_EQ(w.extracted("1")->size(), kDiskBytes);
    EXPECT_EQ(w.extracted("latest", 1)->size(), kDiskBytes);
}

// Broken if what a fenced writer left were taken for the log, or the log's end hid a loss.
TEST(Extract, FollowsTheChainAndSaysWhenItBreaks) {
    World w;
    w.write(0, 0, Bytes(512, 1));
    w.cut();
    const Digest fork = w.previous;
    w.write(0, 0, Bytes(512, 2));
    w.cut();
    w.write(0, 0, Bytes(512, 3));
    w.cut();  // of epoch 1, never acknowledged
    // A new lease goes on behind segment 1.
    w.epoch = {2};
    w.number = 1;
    w.sequence = 1;
    w.previous = fork;
    w.write(0, 0, Bytes(512, 9));
    const std::string second = w.cut();
    EXPECT_EQ((*w.extracted("latest"))[0], 9);
    EXPECT_TRUE(w.report.warning.empty()) << w.report.warning;
    w.write(0, 0, Bytes(512, 10));
    w.cut();
    w.write(0, 0, Bytes(512, 11));
    w.cut();
    EXPECT_EQ((*w.extracted("latest"))[0], 11);
    ASSERT_TRUE(w.store->remove(second));
    EXPECT_EQ((*w.extracted("1"))[0], 1);
    EXPECT_EQ(w.refused("3"), Code::kCorrupt);
    EXPECT_EQ(w.refused("2"), Code::kCorrupt)
        << "what epoch 1 left must not stand in for the segment that is lost";
    EXPECT_EQ((*w.extracted("latest"))[0], 1);
    EXPECT_FALSE(w.report.warning.empty());
}

// Segments that a writer had put ahead when it lost its lease or died are no part of the log, nor a
// loss, unless there are more of them than a writer is ever ahead.
TEST(Extract, SegmentsBehindAHoleAreNotOfTheLog) {
    World w;
    const auto lease = [&](uint64_t epoch, uint64_t start, uint64_t before) {
        const std::string name = fmt::format("items/{}/lease/{:016x}-{:016x}-{:016x}",
                                             w.item.to_string(), epoch, start, before);
        ASSERT_TRUE(w.store->put(name, as_bytes(name)));
    };
    const auto put = [&](uint8_t content) {
        w.write(0, 0, Bytes(512, content));
        return w.cut();
    };
    lease(1, 1, 0);
    put(1);
    put(2);
    const Digest fork = w.previous;
    const std::string third = put(3);
    for (uint8_t n = 4; n <= 10; ++n) put(n);
    const Bytes bytes = *w.store->get(third);
    ASSERT_TRUE(w.store->remove(third));  // it is under way: seven behind it have landed
    EXPECT_EQ((*w.extracted("latest"))[0], 2);
    EXPECT_TRUE(w.report.warning.empty()) << w.report.warning;
    EXPECT_EQ(w.refused("3"), Code::kPointNotFound) << w.message;
    const std::string eleventh = put(11);  // then 3 was registered
    EXPECT_EQ((*w.extracted("latest"))[0], 2);
    EXPECT_FALSE(w.report.warning.empty());
    EXPECT_EQ(w.refused("3"), Code::kCorrupt);
    ASSERT_TRUE(w.store->remove(eleventh));

    // The next lease begins with 3, and the old third lands all the same.
    lease(2, 3, 1);
    ASSERT_TRUE(w.store->put(third, bytes));
    EXPECT_EQ((*w.extracted("latest"))[0], 2) << "nothing of the new one is there yet";
    EXPECT_TRUE(w.report.warning.empty()) << w.report.warning;
    w.epoch = {2};
    w.number = w.sequence = 2;
    w.previous = fork;
    put(33);
    const std::string fourth = put(44);
    EXPECT_EQ((*w.extracted("latest"))[0], 44) << "5 … 10 of the old one follow no more";
    EXPECT_TRUE(w.report.warning.empty()) << w.report.warning;
    // A mark of a lease that no registered segment was written under changes nothing, nor does a
    // segment of it.
    const std::string none =
        fmt::format("items/{}/lease/{:016x}-{:016x}-{:016x}", w.item.to_string(), 2, 1, 0);
    ASSERT_TRUE(w.store->put(none, as_bytes(none)));
    lease(7, 5, 2);
    EXPECT_EQ((*w.extracted("3"))[0], 33);
    // What a lease began behind was of the log.
    ASSERT_TRUE(w.store->remove(fourth));
    EXPECT_EQ((*w.extracted("latest"))[0], 33);
    EXPECT_FALSE(w.report.warning.empty());
    EXPECT_EQ(w.refused("4"), Code::kCorrupt);
}

// A checkpoint of what the model holds now: everything in one base object, as compaction would.
void checkpoint(World& w, Sequence floor, uint64_t generation) {
    Bytes records;
    ExtentMap map;
    uint32_t position = 0;
    for (uint64_t offset = 0; offset < w.disks[0].size(); offset += 65'536) {
        const uint64_t n = std::min<uint64_t>(65'536, w.disks[0].size() - offset);
        const Bytes block(w.disks[0].begin() + static_cast<long>(offset),
                          w.disks[0].begin() + static_cast<long>(offset + n));
        if (all_zero(block)) continue;
        RecordHeader h;
        h.sequence = {w.sequence};
        h.time = {kStartUs};
        h.offset_bytes = offset;
        append_record(records, h, block);
        map.write({static_cast<uint32_t>(offset), static_cast<uint32_t>(n), 0, position});
        position += static_cast<uint32_t>(n);
    }
    SegmentWriter writer;
    ASSERT_TRUE(writer.add(records));
    SegmentWriter::BuildOptions options;
    options.kind = SegmentKind::kBase;
    options.item = w.item;
    options.epoch = {7};
    options.number = {generation};
    options.item_key = &w.item_key;
    options.random = &w.random;
    auto built = writer.build(options);
    ASSERT_TRUE(built);
    ASSERT_TRUE(w.store->put(segment_object_name(built->header), built->object));
    const ObjectRef base{SegmentKind::kBase, {generation}, {7}};

    Manifest m;
    m.sequence = {w.sequence};
    m.time = {kStartUs + static_cast<int64_t>(w.sequence) * 1000};
    m.generation = {{7}, generation};
    m.segment = {w.number};
    m.segment_epoch = w.epoch;
    m.segment_header = w.previous;
    m.floor = floor;
    m.floor_segment = {w.number};
    m.disks = {{0, w.disks[0].size()}, {1, w.disks[1].size()}};
    ShardRef shard{0, 0, m.generation, 0};
    auto object = encode_shard(
        w.item, shard, map, [&](uint32_t) { return base; }, w.item_key, w.random);
    ASSERT_TRUE(object);
    shard.object_bytes = object->size();
    ASSERT_TRUE(w.store->put(shard_name(w.item, shard), *object));
    m.shards = {shard};
    m.objects = {{base, position, position}};
    m.points = {{{w.sequence}, PointKind::kBookmark, m.time, "at the floor"}};
    auto manifest = encode_manifest(w.item, m, w.item_key, w.random);
    ASSERT_TRUE(manifest);
    ASSERT_TRUE(w.store->put(manifest_name(w.item, m.sequence, m.generation), *manifest));
}

// Broken if a store whose old log was folded into base objects could not be read without the vault.
TEST(Extract, StartsFromManifestsWhenTheLogsBeginningIsGone) {
    World w(5);
    std::vector<std::string> old;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 10; ++j) w.random_change();
        old.push_back(w.cut());
    }
    checkpoint(w, {0}, 1);
    const Bytes at_checkpoint = w.disks[0];
    const uint64_t floor = w.sequence;
    EXPECT_TRUE(*w.extracted(std::to_string(floor)) == at_checkpoint);
    EXPECT_TRUE(w.extracted("5")) << "the window still goes back to the start";
    for (int j = 0; j < 10; ++j) w.random_change();
    w.cut();
    EXPECT_TRUE(*w.extracted("latest") == w.disks[0]);
    EXPECT_TRUE(*w.extracted("latest-processed") == at_checkpoint);

    // Retention moves the floor and the old log goes.
    World v(6);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 10; ++j) v.random_change();
        old.push_back(v.cut());
    }
    checkpoint(v, {v.sequence}, 1);
    const uint64_t v_floor = v.sequence;
    const Bytes v_disk = v.disks[0];
    for (int i = 1; i <= 3; ++i)
        ASSERT_TRUE(v.store->remove(
            fmt::format("items/{}/log/{:016x}-{:016x}.seg", v.item.to_string(), i, 1)));
    for (int j = 0; j < 10; ++j) v.random_change();
    v.cut();
    auto got = v.extracted(std::to_string(v_floor));
    ASSERT_TRUE(got) << got.error().to_string();
    EXPECT_TRUE(*got == v_disk);
    EXPECT_TRUE(*v.extracted("at the floor") == v_disk);
    auto latest = v.extracted("latest");
    ASSERT_TRUE(latest) << latest.error().to_string();
    EXPECT_TRUE(*latest == v.disks[0]);
    EXPECT_EQ(v.refused("5"), Code::kPointOutsideWindow);

    // With the floor's manifest damaged, a later one still opens: what lies between is lost, and
    // that is said, instead of that it never was.
    checkpoint(v, {v_floor}, 2);
    const std::string newest = std::to_string(v.sequence);
    for (int j = 0; j < 10; ++j) v.random_change();
    v.cut();
    const auto name = manifest_name(v.item, {v_floor}, {{7}, 1});
    std::filesystem::resize_file(v.directory / ("store/" + name), 200);
    EXPECT_EQ(v.refused(std::to_string(v_floor)), Code::kTruncated);
    EXPECT_EQ(v.refused("a label of that time"), Code::kTruncated);
    ASSERT_TRUE(v.store->remove(name));
    EXPECT_EQ(v.refused(std::to_string(v_floor)), Code::kCorrupt);
    EXPECT_TRUE(v.extracted(newest));
    EXPECT_TRUE(*v.extracted("latest") == v.disks[0]);
}

// Broken if stores that the vault's own upkeep made - checkpoints, a floor that moved, rewritten
// and removed objects, gaps - could not be read without it, or gave another answer than the source.
TEST(Extract, EqualsTheSourceThroughTheVaultsUpkeep) {
    using namespace replica_test;
    uint64_t checked = 0, rewritten = 0, removed = 0, kept_points = 0;
    for (uint64_t seed = 1; seed <= 3; ++seed) {
        SCOPED_TRACE(testing::Message() << "seed " << seed);
        World w(seed);
        TestClock clock;
        Machine machine(seed);
        MemoryLedger ledger;
        ItemReplicaOptions options;
        options.checkpoint_entries = 60;
        options.max_manifests = 3;
        auto replica =
            ItemReplica::open(*w.store, ledger, clock, w.random, test_item(), test_key(), options);
        ASSERT_TRUE(replica);
        Appliance appliance(*w.store, w.random, test_item(), test_key());
        ASSERT_TRUE(appliance.acquire(**replica));
        Bytes records;
        machine.begin(records, clock.now_us, false);
        ItemObject object;
        object.item = test_item();
        object.name = "upkept";
        const auto& first = machine.history().begin()->second;
        for (size_t d = 0; d < first.size(); ++d)
            object.disks.push_back({static_cast<DiskIndex>(d), "disk", first[d].size});
        ASSERT_TRUE(wrap_item_key(object, test_key(), w.key, w.random));
        ASSERT_TRUE(w.store->put(item_object_name(object.item), *encode_item_object(object)));
        RetentionPolicy policy;
        policy.window_us = 3'000'000;
        policy.grace_us = 1'000'000;
        policy.small_objects = 4;
        Rng rng(seed * 77);
        for (int round = 0; round < 60; ++round) {
            ASSERT_TRUE(appliance.send(**replica, records));
            records.clear();
            clock.now_us += 100'000 + static_cast<int64_t>(rng.below(200'000));
            if (round == 50)
                machine.lose(5, records, clock.now_us);
            else if (round == 53)
                machine.resync(records, clock.now_us);
            else
                machine.run(static_cast<int>(1 + rng.below(25)), records, clock.now_us);
            if (rng.below(3) == 0) {
                ASSERT_TRUE((*replica)->maybe_checkpoint());
            }
            if (round % 9 == 4) {
                // Inside a gap there is none to be had.
                (void)(*replica)->hold({{ledger.state()->stored.v - rng.below(4)}, {}}, "test");
            }
            if (rng.below(5) == 0) {
                auto report = (*replica)->run_retention(policy);
                ASSERT_TRUE(report) << report.error().to_string();
                rewritten += report->rewritten_objects;
                removed += report->removed;
            }
        }
        const LedgerState state = *ledger.state();
        ASSERT_GT(state.floor.v, 0u);
        std::set<uint64_t> kept;
        const auto rows = *ledger.list_kept();
        for (const KeptRow& row : rows) kept.insert(row.sequence.v);
        kept_points += kept.size();
        const auto extract_one = [&](uint64_t sequence, DiskIndex disk) {
            auto o = w.options(std::to_string(sequence), disk);
            o.item = "upkept";
            return extract(o, &w.report);
        };
        for (const auto& [sequence, disks] : machine.history()) {
            if (sequence > state.stored.v) break;
            if (sequence < state.floor.v && !kept.contains(sequence)) {
                if (sequence % 50 != 0) continue;
                EXPECT_EQ(extract_one(sequence, 0).error().code(), Code::kPointOutsideWindow);
                continue;
            }
            if (sequence % 13 != 0 && sequence != state.floor.v && sequence != state.stored.v &&
                !kept.contains(sequence))
                continue;
            for (size_t d = 0; d < disks.size(); ++d) {
                const Status status = extract_one(sequence, static_cast<DiskIndex>(d));
                ASSERT_TRUE(status) << sequence << ": " << status.error().to_string();
                auto out = w.files.open(w.directory / "out.raw", OpenMode::kRead);
                ASSERT_EQ(*(*out)->size(), disks[d].size);
                Bytes region(disks[d].bytes.size());
                ASSERT_EQ(*(*out)->read_at(disks[d].region, region), region.size());
                ASSERT_TRUE(region == disks[d].bytes) << "sequence " << sequence << " disk " << d;
                Bytes before(std::min<uint64_t>(disks[d].region, 1u << 20));
                ASSERT_EQ(*(*out)->read_at(disks[d].region - before.size(), before), before.size());
                ASSERT_TRUE(all_zero(before));
                ++checked;
            }
        }
    }
    EXPECT_GT(checked, 50u);
    EXPECT_GT(rewritten, 0u);
    EXPECT_GT(removed, 0u);
    EXPECT_GT(kept_points, 5u);
}

// Broken if this reader, or what it was written from, drifted from what version 1 wrote.
TEST(Extract, ReadsTheGoldenSegment) {
    PosixFileSystem files;
    auto object =
        read_whole_file(files, test_source_directory() + "/src/replica/testdata/v1/segment.bin");
    ASSERT_TRUE(object) << object.error().to_string();
    auto item = ItemId::parse("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    auto segment = extraction::decode_segment(*object, extraction::segment_name(*item, {1, 12, 3}),
                                              *item, Secret(Bytes(32, 0x5a)));
    ASSERT_TRUE(segment) << segment.error().to_string();
    ASSERT_EQ(segment->entries.size(), 11u);
    EXPECT_EQ(segment->entries[7].label, "before the update");
    EXPECT_EQ(segment->entries[8].sequence, 150u);
    EXPECT_EQ(segment->entries[10].position, 71'536u);
    EXPECT_EQ(segment->payload_bytes, 71'537u);
}

// Broken if a mistake of the operator were answered with a riddle, or left half a file.
TEST(Extract, NamesEveryMistake) {
    World w;
    w.write(0, 0, Bytes(512, 1));
    w.cut();
    const auto code = [&](auto change) {
        auto options = w.options("latest");
        change(options);
        const Status status = extract(options);
        EXPECT_FALSE(status);
        EXPECT_FALSE(std::filesystem::exists(options.out_path));
        if (!status) {
            EXPECT_FALSE(status.error().what().empty());
        }
        return status ? Code::kInternal : status.error().code();
    };
    EXPECT_EQ(code([&](auto& o) { o.store = w.directory / "none"; }), Code::kForeignStore);
    EXPECT_EQ(code([&](auto& o) { o.store = w.directory.path(); }), Code::kForeignStore);
    EXPECT_EQ(code([&](auto& o) { o.key_file = w.directory / "nokey"; }), Code::kNotFound);
    EXPECT_EQ(code([&](auto& o) { o.item = std::string(32, 'a'); }), Code::kItemNotFound);
    EXPECT_EQ(code([&](auto& o) { o.item = "nobody"; }), Code::kItemNotFound);
    EXPECT_EQ(code([&](auto& o) { o.disk = 5; }), Code::kInvalidArgument);
    const KeyFile other = make_key_file(w.random);
    ASSERT_TRUE(save_key_file(w.files, w.directory / "other", other));
    EXPECT_EQ(code([&](auto& o) { o.key_file = w.directory / "other"; }), Code::kWrongKey);

    ASSERT_TRUE(w.extracted("latest"));
    auto again = w.options("latest");
    again.replace_existing = false;
    EXPECT_EQ(extract(again).error().code(), Code::kAlreadyExists);
    std::filesystem::remove(again.out_path);

    ASSERT_TRUE(w.store->remove(kStoreObject));
    StoreIdentity newer;
    newer.format = 2;
    ASSERT_TRUE(w.store->put(kStoreObject, encode_store_identity(newer)));
    EXPECT_EQ(code([](auto&) {}), Code::kNewerVersion);
}

// Broken if damage to any object could pass as data: every byte of every object, changed and cut.
TEST(Extract, NoDamageIsEverTakenForData) {
    World w(8);
    for (int i = 0; i < 2; ++i) w.random_change();
    w.write(0, 4096, Bytes(700, 5));
    w.cut();
    checkpoint(w, {w.sequence}, 1);
    w.write(0, 0, Bytes(512, 1));
    w.cut();
    const Bytes good = *w.extracted("latest");
    SeededRandom random(9);
    size_t tried = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(w.directory / "store")) {
        if (!entry.is_regular_file()) continue;
        const std::string path = entry.path();
        const Bytes whole = *read_whole_file(w.files, path);
        const auto put_back = [&](ByteView bytes) {
            std::ofstream out(path, std::ios::binary | std::ios::trunc);
            out << as_text(bytes);
        };
        // All of what is small, and the like of the rest: 120 places in each object.
        const size_t step = std::max<size_t>(1, whole.size() / 120);
        for (size_t i = random.below(step); i < whole.size(); i += step) {
            Bytes bad = whole;
            bad[i] ^= static_cast<uint8_t>(1u << random.below(8));
            put_back(bad);
            auto flipped = w.extracted("latest");
            ASSERT_TRUE(!flipped || *flipped == good) << path << " byte " << i;
            put_back(ByteView(whole).first(i));
            auto cut = w.extracted("latest");
            ASSERT_TRUE(!cut || *cut == good) << path << " cut at " << i;
            ++tried;
        }
        put_back(whole);
    }
    EXPECT_GT(tried, 500u);
}

}  // namespace
}  // namespace farshore
