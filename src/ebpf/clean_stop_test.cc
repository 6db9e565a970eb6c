#include "ebpf/clean_stop.h"

#include <gtest/gtest.h>

#include <random>

#include "ebpf/test_loop_disk.h"

namespace farshore {
namespace {

CleanStop some_stop(size_t ranges) {
    CleanStop stop;
    stop.item.raw[3] = 7;
    stop.disk_bytes = {1ull << 40, 10u << 20};
    for (size_t i = 0; i < ranges; ++i) stop.ranges.push_back({0, {i * 1'000'000, 4096}});
    return stop;
}

// Broken if what a shutdown saves is not what the next start reads, or damage is taken for it.
TEST(CleanStop, ReadsWhatWasWritten) {
    const CleanStop stop = some_stop(3);
    const Bytes bytes = encode_clean_stop(stop);
    auto read = decode_clean_stop(bytes);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(read->item, stop.item);
    EXPECT_EQ(read->disk_bytes, stop.disk_bytes);
    ASSERT_EQ(read->ranges.size(), 3u);
    EXPECT_EQ(read->ranges[2].range, (ByteRange{2'000'000, 4096}));
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        Bytes damaged = bytes;
        damaged[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
        EXPECT_FALSE(decode_clean_stop(damaged)) << bit;
    }
    for (size_t length = 0; length < bytes.size(); ++length)
        EXPECT_FALSE(decode_clean_stop(ByteView(bytes).first(length))) << length;
    EXPECT_EQ(decode_clean_stop(Bytes(4096)).error().code(), Code::kNotFound);
}

// Broken if too many ranges do not fit, or one of them gets lost when neighbours become one.
TEST(CleanStop, TooManyRangesBecomeFewerAndLarger) {
    const CleanStop stop = some_stop(200'000);
    const Bytes bytes = encode_clean_stop(stop);
    EXPECT_LE(bytes.size(), kCleanStopBytes);
    auto read = decode_clean_stop(bytes);
    ASSERT_TRUE(read) << read.error().to_string();
    size_t at = 0;
    for (const CleanStop::Range& one : stop.ranges) {
        while (at < read->ranges.size() && read->ranges[at].range.end() <= one.range.offset_bytes)
            ++at;
        ASSERT_LT(at, read->ranges.size());
        EXPECT_LE(read->ranges[at].range.offset_bytes, one.range.offset_bytes);
        EXPECT_GE(read->ranges[at].range.end(), one.range.end());
    }
}

// Broken if blocks that a file has are told wrongly: what is written to them past the file system
// must be in the file.
TEST(CleanStop, TheBlocksOfAFileAreItsBlocks) {
    TestDirectory directory;
    LoopDisk disk(directory.path(), "disk", 64u << 20);
    const std::string mount = directory.path() + "/mnt";
    run_for_test({"mkfs.ext4", "-q", disk.device()});
    run_for_test({"mkdir", mount});
    run_for_test({"mount", disk.device(), mount});
    LocalDisk known;
    known.name = disk.device().substr(5);
    known.device = disk.device();
    known.size_bytes = 64u << 20;
    auto blocks = set_aside_blocks(mount + "/clean-stop", {known});
    ASSERT_TRUE(blocks) << blocks.error().to_string();
    EXPECT_GE(blocks->bytes(), kCleanStopBytes);
    // The same file has the same blocks.
    auto again = set_aside_blocks(mount + "/clean-stop", {known});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->extents, blocks->extents);
    // Where it cannot be, nothing is made.
    LocalDisk other = known;
    other.name = "none";
    EXPECT_FALSE(set_aside_blocks(mount + "/none", {other}));
    EXPECT_FALSE(PosixFileSystem().exists(mount + "/none").value_or(true));
    run_for_test({"umount", mount});

    std::mt19937_64 random(5);
    Bytes content(300'001);
    for (auto& byte : content) byte = static_cast<uint8_t>(random());
    ASSERT_TRUE(write_blocks(disk.device(), *blocks, content));
    auto read = read_blocks(disk.device(), *blocks);
    ASSERT_TRUE(read);
    EXPECT_EQ(Bytes(read->begin(), read->begin() + 300'001), content);
    run_for_test({"mount", "-o", "ro", disk.device(), mount});
    PosixFileSystem files;
    auto file = read_whole_file(files, mount + "/clean-stop");
    ASSERT_TRUE(file);
    EXPECT_EQ(Bytes(file->begin(), file->begin() + 300'001), content);
    run_for_test({"umount", mount});
    EXPECT_EQ(write_blocks(disk.device(), *blocks, Bytes(2u << 20)).error().code(),
              Code::kTooLarge);
}

// Broken if the initramfs gets other disks or blocks than the agent said, or takes damage for them.
TEST(CleanStop, EarlyListReadsBack) {
    EarlyItem item;
    item.item.raw[0] = 1;
    item.config_path = "/a/tap.json";
    item.pin_directory = "/sys/fs/bpf/x";
    item.trace_ring_bytes = 1u << 20;
    LocalDisk disk;
    disk.identity = "serial:1";
    disk.device = "/dev/vda";
    disk.size_bytes = 1u << 30;
    item.disks = {disk};
    item.blocks = {0, {{4096, 8192}, {65536, 4096}}};
    const std::string json = encode_early({item});
    auto read = decode_early(json);
    ASSERT_TRUE(read) << read.error().to_string();
    ASSERT_EQ(read->size(), 1u);
    EXPECT_EQ((*read)[0].item, item.item);
    EXPECT_EQ((*read)[0].blocks.extents, item.blocks.extents);
    EXPECT_EQ((*read)[0].disks[0].identity, "serial:1");
    for (const char* bad : {"", "[]", "{}", R"({"items":[1]})", R"({"items":[{"item":"x"}]})"})
        EXPECT_FALSE(decode_early(bad)) << bad;
    item.blocks.extents.push_back({1u << 30, 4096});
    EXPECT_EQ(decode_early(encode_early({item})).error().code(), Code::kMalformed);
}

}  // namespace
}  // namespace farshore
