#include "capture/capture_files.h"

#include <gtest/gtest.h>

#include "capture/capture_session.h"
#include "capture/tap_config.h"
#include "capture/todo_map.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

struct Item {
    Item() : shared("/dev/shm") {
        config.item.raw[3] = 9;
        config.shared_memory_path = shared / "log";
        config.spill_path = directory / "spill";
        config.dirty_map_path = directory / "dirty";
        config.ring_bytes = kMinRingBytes;
        config.spill_bytes = 1u << 20;
        config.disk_bytes = {10u << 20, 777};
    }
    TestDirectory directory;
    TestDirectory shared;
    PosixFileSystem files;
    RealClock clock;
    CaptureConfig config;
};

// Broken: a restarted agent or tap begins a new log while the old one is good.
TEST(CaptureFiles, AreMadeOnceAndOpenedAgain) {
    Item item;
    auto first = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(first) << first.error().to_string();
    EXPECT_EQ(first->header.word(LogWord::kTodoGranules).load(), 161u);
    first->header.word(LogWord::kStored).store(77);
    auto second = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(second);
    EXPECT_EQ(second->header.word(LogWord::kStored).load(), 77u);
    // The ring is there twice.
    second->memory.ring()[0] = 5;
    EXPECT_EQ(first->memory.ring()[kMinRingBytes], 5);
}

// Broken: numbers begin again at 1 after the shared memory is gone.
TEST(CaptureFiles, ALostLogGoesOnWithNewNumbers) {
    Item item;
    ASSERT_TRUE(CaptureFiles::open(item.config, item.files));
    {
        auto map = DirtyMap::open(item.files, item.config.dirty_map_path, item.config.item,
                                  item.config.disk_bytes);
        ASSERT_TRUE(map);
        for (int i = 0; i < 4; ++i) (*map)->rotate(i == 0, true, {1}, {1});
        auto mark = (*map)->mark(0, 3u << 20, 1);
    }
    ASSERT_TRUE(item.files.remove(item.config.shared_memory_path));
    auto again = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(again);
    EXPECT_GT(again->header.producer().next_sequence, kSequenceBlock);
    EXPECT_EQ(again->header.producer().gap, GapState::kDropping);
    EXPECT_EQ(again->header.word(LogWord::kTodoGranules).load(), 16u) << "one region of 1 MiB";
    // Damaged: new as well.
    again->memory.data()[20] ^= 1;
    auto mended = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(mended);
    EXPECT_GT(mended->header.producer().next_sequence, 2 * kSequenceBlock);
    // Neither log nor map: above what the agent knows.
    ASSERT_TRUE(CaptureFiles::remove(item.config, item.files));
    item.config.first_at_least = {12345};
    auto known = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(known);
    EXPECT_GE(known->header.producer().next_sequence, 12345u);
}

// Broken: damage of the dirty map is mended in silence, and the disk that makes it is never
// changed.
TEST(CaptureFiles, DamageOfTheDirtyMapIsCounted) {
    Item item;
    auto files = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(files);
    const auto damage = [&](uint64_t offset) {
        auto file = item.files.open(item.config.dirty_map_path, OpenMode::kReadWrite);
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->write_at(offset, Bytes(512, 0x55)));
    };
    damage(8192);
    ASSERT_TRUE(CaptureFiles::open_dirty_map(item.config, item.files, files->header));
    EXPECT_EQ(files->header.word(LogWord::kDirtyMapMended).load(), 1u);
    damage(8192);
    damage(8192 + 12288);
    ASSERT_TRUE(item.files.remove(item.config.shared_memory_path));
    auto again = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->header.word(LogWord::kDirtyMapLost).load(), 1u);
    EXPECT_EQ(again->header.word(LogWord::kDirtyMapMended).load(), 0u);
}

TEST(CaptureFiles, RefuseOtherDisksAndItems) {
    Item item;
    ASSERT_TRUE(CaptureFiles::open(item.config, item.files));
    auto other = item.config;
    other.disk_bytes[0] += 512;
    EXPECT_EQ(CaptureFiles::open(other, item.files).error().code(), Code::kDiskChanged);
    other = item.config;
    other.item.raw[0] = 1;
    EXPECT_EQ(CaptureFiles::open(other, item.files).error().code(), Code::kForeignStore);
}

// Broken: a disk of which something was copied before its mirror is taken for one that is whole to
// copy, or another disk for one that joins.
TEST(CaptureSession, KnowsADiskOfWhichNothingWasCopied) {
    Item item;
    ASSERT_TRUE(CaptureFiles::open(item.config, item.files));
    item.config.disk_bytes.push_back((70 * kTodoGranuleBytes) + 512);
    ASSERT_TRUE(CaptureFiles::reshape(item.config, item.files));
    auto session = CaptureSession::open(item.config, item.files, item.clock);
    ASSERT_TRUE(session) << session.error().to_string();
    EXPECT_FALSE((*session)->all_to_copy(0));
    EXPECT_TRUE((*session)->all_to_copy(2));
    auto files = CaptureFiles::open(item.config, item.files);
    ASSERT_TRUE(files);
    TodoMap todo(files->header.todo_words(2), item.config.disk_bytes[2]);
    todo.clear(70 * kTodoGranuleBytes, 512);
    EXPECT_FALSE((*session)->all_to_copy(2)) << "its last piece was copied";
    todo.set_all();
    EXPECT_TRUE((*session)->all_to_copy(2));
    files->header.word(LogWord::kJoining).store(0);
    EXPECT_FALSE((*session)->all_to_copy(2));
}

// Broken: a session without a tap hangs or lies.
TEST(CaptureSession, WorksWithoutATap) {
    Item item;
    auto session = CaptureSession::open(item.config, item.files, item.clock);
    ASSERT_TRUE(session);
    EXPECT_FALSE((*session)->wait(0));
    const CaptureStatus status = (*session)->status();
    EXPECT_EQ(status.tap_pid, 0u);
    EXPECT_EQ(status.tap_heartbeat_age_us, INT64_MAX);
    EXPECT_EQ(status.copy_total_bytes, 161 * kTodoGranuleBytes);
    EXPECT_EQ(status.copy_done_bytes, 0u);
    EXPECT_EQ((*session)->run({TapCommandKind::kPoint, PointKind::kCrash, ""}, 1000).error().code(),
              Code::kTimeout);
}

// Broken: the plugin does not get what the agent wrote.
TEST(TapConfig, SurvivesItsEncoding) {
    TapConfig config;
    config.mode = ServeMode::kMirror;
    config.capture = Item().config;
    config.capture.first_at_least = {5};
    ServedDisk disk;
    disk.size_bytes = 10;
    disk.backing = BackingKind::kNbd;
    disk.uri = "nbd+unix:///x?socket=/y";
    config.disks.push_back(disk);
    disk.index = 1;
    disk.backing = BackingKind::kReplica;
    disk.uri.clear();
    disk.overlay_path = "/o";
    config.disks.push_back(disk);
    ServedReplica replica;
    replica.store_location = "s3://bucket/s";
    replica.store_settings_file = "/etc/farshore/store.json";
    replica.item_key = Secret(Bytes(32, 0xab));
    replica.sequence = {UINT64_MAX};
    config.replica = std::move(replica);
    auto back = decode_tap_config(encode_tap_config(config));
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(encode_tap_config(*back), encode_tap_config(config));
    EXPECT_EQ(back->capture.mode, TapMode::kMirror);
    EXPECT_EQ(back->capture.disk_bytes, (std::vector<uint64_t>{10, 10}));
    EXPECT_EQ(back->replica->sequence.v, UINT64_MAX);
}

TEST(TapConfig, NamesWhatIsWrong) {
    const auto words = [](const std::string& text) {
        auto config = decode_tap_config(text);
        return config ? std::string("accepted") : config.error().what();
    };
    EXPECT_NE(words("{").find("not JSON"), std::string::npos);
    EXPECT_NE(words("{}").find("mode"), std::string::npos);
    EXPECT_NE(words(R"({"mode":"x"})").find("mode"), std::string::npos);
    EXPECT_NE(words(R"({"mode":"plain","disks":[]})").find("disks"), std::string::npos);
    EXPECT_NE(words(R"({"mode":"plain","disks":[{"index":0,"backing":"file"}]})").find("path"),
              std::string::npos);
    EXPECT_NE(
        words(R"({"mode":"plain","disks":[{"index":0,"backing":"replica"}]})").find("replica"),
        std::string::npos);
    EXPECT_NE(
        words(
            R"({"mode":"tap-inpath","disks":[{"index":0,"backing":"file","path":"/d","size_bytes":1}]})")
            .find("capture"),
        std::string::npos);
}

}  // namespace
}  // namespace farshore
