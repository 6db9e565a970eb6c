// The kernel program on a real kernel and real (loop) disks.
#include "ebpf/block_trace.h"

#include <bpf/bpf.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "ebpf/test_loop_disk.h"

namespace farshore {
namespace {

constexpr uint64_t kDiskBytes = 64u << 20;

TracedDisk traced(const LoopDisk& disk, uint64_t bytes) {
    struct stat info {};
    EXPECT_EQ(::stat(disk.device().c_str(), &info), 0);
    return {disk.device(), major(info.st_rdev), minor(info.st_rdev), bytes};
}

struct Aligned {
    explicit Aligned(size_t bytes) : size(bytes) {
        at = static_cast<uint8_t*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
    }
    ~Aligned() { std::free(at); }
    uint8_t* at;
    size_t size;
};

// Applies what comes out of the trace to an image.
struct Follower {
    BlockTrace& trace;
    Bytes image;
    std::map<int, int> kinds;
    std::map<uint64_t, int> open;
    void drain() {
        while (const auto event = trace.next()) {
            const fs_event& head = event->head;
            ++kinds[head.kind];
            if (head.flags & kFsFirst) open[head.request] = 1;
            if (head.kind == kFsEventComplete) {
                EXPECT_TRUE(open.count(head.request) == 1 || (head.flags & kFsLost));
                open.erase(head.request);
            }
            if (head.kind == kFsEventData)
                std::memcpy(image.data() + head.offset, event->payload.data(),
                            event->payload.size());
            if (head.kind == kFsEventZero || head.kind == kFsEventDiscard)
                std::memset(image.data() + head.offset, 0, head.length);
            trace.release(event->position);
        }
    }
};

Bytes whole(const std::string& path, uint64_t bytes) {
    Bytes data(bytes);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, data.data(), bytes, 0), static_cast<ssize_t>(bytes));
    ::close(fd);
    return data;
}

class BlockTraceTest : public ::testing::Test {
  protected:
    TestDirectory directory_;
};

// Fails when a size, an alignment of memory, a zero, a discard or a multi-page vector is captured
// wrongly, or when events and payload are out of order.
TEST_F(BlockTraceTest, AnImageBuiltFromEventsIsTheDisk) {
    LoopDisk disk(directory_.path(), "disk", kDiskBytes);
    BlockTraceOptions options;
    options.disks = {traced(disk, kDiskBytes)};
    auto trace = BlockTrace::open(options);
    ASSERT_TRUE(trace) << trace.error().to_string();
    Follower follower{**trace, Bytes(kDiskBytes), {}, {}};
    std::mt19937_64 random(7);
    Aligned buffer(4u << 20);
    const int direct = ::open(disk.device().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    const int buffered = ::open(disk.device().c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(direct, 0);
    for (int i = 0; i < 600; ++i) {
        const uint64_t length = 512 * (1 + random() % (i % 10 == 0 ? 4096 : 64));
        const uint64_t offset = random() % ((kDiskBytes - length) / 512) * 512;
        const uint64_t skip = random() % 2 ? 0 : 512 * (random() % 8);
        for (size_t at = 0; at < length; at += 8) {
            const uint64_t word = random();
            std::memcpy(buffer.at + skip + at, &word, 8);
        }
        switch (random() % 8) {
            case 0: {
                uint64_t range[2] = {offset / 4096 * 4096, (length + 4095) / 4096 * 4096};
                ASSERT_EQ(::ioctl(direct, BLKZEROOUT, range), 0);
                break;
            }
            case 1: {
                uint64_t range[2] = {offset / 4096 * 4096, (length + 4095) / 4096 * 4096};
                ASSERT_EQ(::ioctl(direct, BLKDISCARD, range), 0);
                break;
            }
            case 2:
                ASSERT_EQ(::pwrite(buffered, buffer.at, length, static_cast<off_t>(offset)),
                          static_cast<ssize_t>(length));
                ASSERT_EQ(::fsync(buffered), 0);
                break;
            default:
                ASSERT_EQ(::pwrite(direct, buffer.at + skip, length, static_cast<off_t>(offset)),
                          static_cast<ssize_t>(length));
        }
        follower.drain();
    }
    ASSERT_EQ(::fsync(buffered), 0);
    ::close(direct);
    ::close(buffered);
    follower.drain();
    EXPECT_EQ((*trace)->drops(), 0u);
    EXPECT_EQ((*trace)->unreadable(), 0u);
    EXPECT_TRUE(follower.open.empty());
    for (int kind : {kFsEventData, kFsEventZero, kFsEventDiscard, kFsEventComplete})
        EXPECT_GT(follower.kinds[kind], 0) << kind;
    EXPECT_EQ(follower.image, whole(disk.device(), kDiskBytes));
}

// Fails when something that does not fit is neither in the ring nor marked, or when marks are
// handed over twice or never.
TEST_F(BlockTraceTest, WhatDoesNotFitIsMarked) {
    LoopDisk disk(directory_.path(), "disk", kDiskBytes);
    BlockTraceOptions options;
    options.disks = {traced(disk, kDiskBytes)};
    options.ring_bytes = 64u << 10;
    auto trace = BlockTrace::open(options);
    ASSERT_TRUE(trace) << trace.error().to_string();
    Follower follower{**trace, Bytes(kDiskBytes), {}, {}};
    Aligned buffer(1u << 20);
    std::memset(buffer.at, 0x5a, buffer.size);
    const int direct = ::open(disk.device().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    EXPECT_FALSE((*trace)->marked());
    ASSERT_EQ(::pwrite(direct, buffer.at, 1u << 20, 8u << 20), 1 << 20);
    EXPECT_GT((*trace)->drops(), 0u);
    ASSERT_TRUE((*trace)->marked());
    std::vector<ByteRange> ranges;
    (*trace)->harvest([&](DiskIndex, ByteRange range) { ranges.push_back(range); });
    ASSERT_EQ(ranges.size(), 4u);
    EXPECT_EQ(ranges.front().offset_bytes, 8u << 20);
    EXPECT_EQ(ranges.back().end(), 9u << 20);
    EXPECT_FALSE((*trace)->marked());
    // With room again, events come again, and say that something was lost before.
    follower.drain();
    ASSERT_EQ(::pwrite(direct, buffer.at, 4096, 0), 4096);
    const auto event = (*trace)->next();
    ASSERT_TRUE(event);
    EXPECT_EQ(event->head.drops, (*trace)->drops());
    EXPECT_EQ(event->head.kind, kFsEventData);
    ::close(direct);
}

// Fails when a process that takes over a pinned trace misses what was written in between, when it
// reads released events again, or when removal leaves the program attached.
TEST_F(BlockTraceTest, GoesOnWithoutItsProcess) {
    ASSERT_TRUE(mount_bpf_directory());
    LoopDisk disk(directory_.path(), "disk", kDiskBytes);
    BlockTraceOptions options;
    options.disks = {traced(disk, kDiskBytes)};
    options.pin_directory =
        std::string(kBpfDirectory) + "/farshore-test-" + std::to_string(::getpid());
    auto first = BlockTrace::open(options);
    ASSERT_TRUE(first) << first.error().to_string();
    EXPECT_FALSE((*first)->primed());
    (*first)->set_primed();
    Aligned buffer(4096);
    std::memset(buffer.at, 1, 4096);
    const int direct = ::open(disk.device().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    ASSERT_EQ(::pwrite(direct, buffer.at, 4096, 0), 4096);
    auto event = (*first)->next();
    ASSERT_TRUE(event);
    const uint64_t position = event->position;
    (*first)->release(position);
    first->reset();
    ASSERT_EQ(::pwrite(direct, buffer.at, 4096, 8192), 4096);
    auto second = BlockTrace::open(options);
    ASSERT_TRUE(second) << second.error().to_string();
    EXPECT_TRUE((*second)->primed());
    std::vector<uint64_t> offsets;
    while ((event = (*second)->next())) {
        EXPECT_GT(event->position, position);
        if (event->head.kind == kFsEventData) offsets.push_back(event->head.offset);
    }
    EXPECT_EQ(offsets, std::vector<uint64_t>{8192});
    second->reset();
    ASSERT_TRUE(BlockTrace::remove(options.pin_directory));
    EXPECT_FALSE(BlockTrace::exists(options.pin_directory));
    ::close(direct);
}

// Broken if a request whose end the kernel did not tell is hidden by the next one in its place:
// what the disk then really has under it is not read again, and the replica differs there for good.
TEST_F(BlockTraceTest, ARequestInTheStaleEntryOfAnotherMarksTheOther) {
    ASSERT_TRUE(mount_bpf_directory());
    LoopDisk disk(directory_.path(), "disk", kDiskBytes);
    BlockTraceOptions options;
    options.disks = {traced(disk, kDiskBytes)};
    options.pin_directory =
        std::string(kBpfDirectory) + "/farshore-test-stale-" + std::to_string(::getpid());
    auto trace = BlockTrace::open(options);
    ASSERT_TRUE(trace) << trace.error().to_string();
    const int in_flight = bpf_obj_get((options.pin_directory + "/in_flight").c_str());
    ASSERT_GE(in_flight, 0);
    Aligned buffer(4096);
    std::memset(buffer.at, 0x5a, 4096);
    const int direct = ::open(disk.device().c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    // The request that the kernel used for a write.
    const auto write_at = [&](off_t at) -> uint64_t {
        EXPECT_EQ(::pwrite(direct, buffer.at, 4096, at), 4096);
        uint64_t request = 0;
        while (const auto event = (*trace)->next()) {
            if (event->head.kind == kFsEventData) request = event->head.request;
            (*trace)->release(event->position);
        }
        return request;
    };
    // The kernel has some hundred requests for a disk and goes round them.
    std::set<uint64_t> requests;
    for (int i = 0; i < 1000; ++i) requests.insert(write_at(0));
    ASSERT_EQ(requests.count(0), 0u);
    constexpr uint64_t kStale = 40u << 20;
    fs_in_flight stale{};
    stale.offset = kStale;
    stale.length = 128u << 10;
    for (const uint64_t request : requests)
        ASSERT_EQ(bpf_map_update_elem(in_flight, &request, &stale, BPF_ANY), 0);
    const uint64_t drops = (*trace)->drops();
    ASSERT_EQ(requests.count(write_at(4096)), 1u);
    EXPECT_GT((*trace)->drops(), drops);
    std::vector<ByteRange> ranges;
    (*trace)->harvest([&](DiskIndex, ByteRange range) { ranges.push_back(range); });
    ASSERT_EQ(ranges.size(), 1u);
    EXPECT_EQ(ranges.front().offset_bytes, kStale);
    ::close(in_flight);
    ::close(direct);
    trace->reset();
    ASSERT_TRUE(BlockTrace::remove(options.pin_directory));
}

}  // namespace
}  // namespace farshore
