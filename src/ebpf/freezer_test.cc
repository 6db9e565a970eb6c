#include "ebpf/freezer.h"

#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include <cerrno>
#include <thread>

#include "ebpf/test_loop_disk.h"
#include "os/fd.h"

namespace farshore {
namespace {

// Broken if a mount is overlooked because its line has optional fields, escapes or none of them.
TEST(Freezer, ReadsMountinfo) {
    const auto mounts = parse_mounts(
        "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=x\n"
        "37 35 0:40 / /b ro - btrfs /dev/vdb ro\n"
        "nonsense\n"
        "38 35 254:1 / /c ro,relatime - xfs /dev/vda1 rw");
    ASSERT_EQ(mounts.size(), 3u);
    EXPECT_EQ(mounts[0].id, 36u);
    EXPECT_EQ(mounts[0].major, 98u);
    EXPECT_EQ(mounts[0].path, "/mnt 2");
    EXPECT_EQ(mounts[0].kind, "ext3");
    EXPECT_EQ(mounts[0].source, "/dev/root");
    EXPECT_TRUE(mounts[0].writable);
    EXPECT_FALSE(mounts[1].writable);
    EXPECT_TRUE(mounts[2].writable) << "a read-only mount of a file system that others write";
}

// A file system on a loop disk, never left frozen.
struct FrozenDisk {
    TestDirectory directory;
    LoopDisk disk{directory.path(), "disk", 16u << 20};
    std::string place = directory.path() + "/mount point";

    FrozenDisk() {
        run_for_test({"mkfs.ext4", "-q", disk.device()});
        EXPECT_TRUE(PosixFileSystem().make_directories(place));
        run_for_test({"mount", disk.device(), place});
    }
    ~FrozenDisk() {
        (void)thaw();
        EXPECT_EQ(::umount2(place.c_str(), 0), 0);
        ::munlockall();
    }
    int at(unsigned long request) const {
        const UniqueFd fd(::open(place.c_str(), O_RDONLY | O_CLOEXEC));
        return ::ioctl(fd.get(), request, 0) == 0 ? 0 : errno;
    }
    int freeze() const { return at(FIFREEZE); }
    int thaw() const { return at(FITHAW); }
};

struct Pipe {
    UniqueFd out, in;
    Pipe() {
        int ends[2] = {-1, -1};
        EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        out = UniqueFd(ends[0]);
        in = UniqueFd(ends[1]);
    }
};

// Broken if a file system of the disk is not found, or one of another disk is.
TEST(Freezer, FindsWhatLiesOnTheDisks) {
    const FrozenDisk frozen;
    const auto disk = inspect_disk(frozen.disk.device());
    ASSERT_TRUE(disk);
    const auto mounts = find_mounts_to_freeze({*disk});
    ASSERT_TRUE(mounts) << mounts.error().to_string();
    EXPECT_EQ(*mounts, std::vector<std::string>{frozen.place});
    LocalDisk other = *disk;
    other.minor += 1000;
    EXPECT_EQ(find_mounts_to_freeze({other}).error().code(), Code::kUnsupported);
}

// Broken if it says frozen when nothing is, or something stays frozen after the end of its input.
TEST(Freezer, FreezesUntilItsInputEnds) {
    const FrozenDisk frozen;
    Pipe input, output;
    Status result;
    std::thread program([&] {
        result = freeze_until_told({.mounts = {frozen.place}}, input.out.get(), output.in.get());
    });
    char said[8] = {};
    EXPECT_EQ(::read(output.out.get(), said, 7), 7);
    EXPECT_STREQ(said, "frozen\n");
    EXPECT_EQ(frozen.freeze(), EBUSY);
    input.in.reset();
    program.join();
    EXPECT_TRUE(result) << result.error().to_string();
    EXPECT_EQ(frozen.thaw(), EINVAL);
}

// Broken if somebody who never answers keeps a machine frozen, or is told that all went well.
TEST(Freezer, ThawsWhenTheTimeIsOver) {
    const FrozenDisk frozen;
    const Pipe input, output;
    const Status result = freeze_until_told({.mounts = {frozen.place}, .timeout_ms = 200},
                                            input.out.get(), output.in.get());
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), Code::kTimeout);
    EXPECT_EQ(frozen.thaw(), EINVAL);
}

// Broken if what somebody else froze is thawed, or what an earlier program left is not.
TEST(Freezer, LeavesOthersAloneAndThawsLeftovers) {
    const FrozenDisk frozen;
    const Pipe input, output;
    ASSERT_EQ(frozen.freeze(), 0);
    const Status busy =
        freeze_until_told({.mounts = {frozen.place}}, input.out.get(), output.in.get());
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().code(), Code::kWrongState);
    EXPECT_EQ(frozen.freeze(), EBUSY);
    EXPECT_TRUE(freeze_until_told({.mounts = {"/not/there", frozen.place}, .thaw_only = true},
                                  input.out.get(), output.in.get()));
    EXPECT_EQ(frozen.thaw(), EINVAL);
}

}  // namespace
}  // namespace farshore
