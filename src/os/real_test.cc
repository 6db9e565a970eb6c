#include "os/real.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <future>
#include <thread>

#include "os/shared_memory.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using ::testing::ElementsAre;

TEST(ThreadExecutorTest, RunsTasksOfAThreadInTheOrderPosted) {
    ThreadExecutor executor("test");
    std::vector<int> seen;
    for (int i = 0; i < 1000; ++i) executor.post([&seen, i] { seen.push_back(i); });
    ASSERT_TRUE(executor.run_sync([] {}));
    ASSERT_EQ(seen.size(), 1000u);
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[i], i);
}

TEST(ThreadExecutorTest, TimersRunInOrderOfTheirTimes) {
    ThreadExecutor executor("test");
    std::promise<void> done;
    std::vector<int> seen;
    executor.post([&] {
        executor.post_after_us(20'000, [&] {
            seen.push_back(3);
            done.set_value();
        });
        executor.post_after_us(10'000, [&] { seen.push_back(2); });
        executor.post_after_us(0, [&] { seen.push_back(1); });
    });
    done.get_future().wait();
    EXPECT_THAT(seen, ElementsAre(1, 2, 3));
}

TEST(ThreadExecutorTest, ATimerCancelledFromATaskNeverRuns) {
    ThreadExecutor executor("test");
    std::promise<void> done;
    bool ran = false;
    executor.post([&] {
        // Both are due at once; the first cancels the second.
        auto second = std::make_shared<Executor::TimerId>();
        executor.post_after_us(0, [&, second] { executor.cancel(*second); });
        *second = executor.post_after_us(0, [&] { ran = true; });
        executor.post_after_us(1'000, [&] { done.set_value(); });
    });
    done.get_future().wait();
    EXPECT_FALSE(ran);
}

TEST(ThreadExecutorTest, TasksDoNotStarveTimers) {
    ThreadExecutor executor("test");
    std::atomic<bool> fired = false;
    std::promise<void> done;
    std::function<void()> again = [&] {
        if (fired)
            done.set_value();
        else
            executor.post(again);
    };
    executor.post_after_us(1'000, [&] { fired = true; });
    executor.post(again);
    done.get_future().wait();
}

TEST(ThreadExecutorTest, StopDropsWhatHasNotRunAndDestroysIt) {
    auto held = std::make_shared<int>(1);
    ThreadExecutor executor("test");
    std::promise<void> entered;
    bool ran = false;
    executor.post([&] {
        entered.set_value();
        // Runs until stop() has begun: from then on a post drops its task at once.
        for (;;) {
            auto probe = std::make_shared<int>(0);
            executor.post([probe] {});
            if (probe.use_count() == 1) return;
            std::this_thread::yield();
        }
    });
    entered.get_future().wait();
    executor.post([held, &ran] { ran = true; });
    executor.post_after_us(1'000'000'000, [held] {});
    executor.stop();
    EXPECT_FALSE(ran);
    EXPECT_EQ(held.use_count(), 1);
    auto late = executor.run_sync([&] { ran = true; });
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code(), Code::kCancelled);
    EXPECT_FALSE(ran);
}

TEST(ThreadExecutorTest, RunSyncOnItsOwnThreadDoesNotWaitForItself) {
    ThreadExecutor executor("test");
    auto result = executor.call_sync(
        [&]() -> Result<int> { return executor.call_sync([]() -> Result<int> { return 7; }); });
    ASSERT_TRUE(result);
    EXPECT_EQ(*result, 7);
}

TEST(RealRandomTest, FillsAllAndNeverRepeats) {
    RealRandom random;
    Bytes a(64), b(64);
    random.fill(a);
    random.fill(b);
    EXPECT_NE(a, b);
    EXPECT_FALSE(all_zero(a));
}

TEST(RealClockTest, SteadyClockNeverStepsBack) {
    RealClock clock;
    int64_t last = clock.steady_us();
    for (int i = 0; i < 10'000; ++i) {
        const int64_t now = clock.steady_us();
        ASSERT_GE(now, last);
        last = now;
    }
    EXPECT_GT(clock.now().us, int64_t{1'600'000'000} * 1'000'000);
}

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

TEST(PosixFileSystemTest, ReadsAndWritesWhereAsked) {
    TestDirectory directory;
    PosixFileSystem files;
    auto file = files.open(directory / "a", OpenMode::kCreateNew).value();
    ASSERT_TRUE(file->write_at(10, as_bytes("hello")));
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(file->size().value(), 15u);
    Bytes out(20, 0xff);
    EXPECT_EQ(file->read_at(8, out).value(), 7u);
    EXPECT_EQ(as_text(ByteView(out).first(7)), std::string_view("\0\0hello", 7));
    EXPECT_EQ(file->read_at(100, out).value(), 0u);
    ASSERT_TRUE(file->truncate(1 << 20));
    EXPECT_EQ(file->size().value(), 1u << 20);
    if (auto punched = file->punch_hole(10, 5); punched) {
        EXPECT_EQ(file->read_at(10, MutableByteView(out).first(5)).value(), 5u);
        EXPECT_TRUE(all_zero(ByteView(out).first(5)));
    } else {
        EXPECT_EQ(punched.error().code(), Code::kUnsupported);
    }
}

TEST(PosixFileSystemTest, ErrorsHaveTheCodesThatCallersReactTo) {
    TestDirectory directory;
    PosixFileSystem files;
    EXPECT_EQ(code_of(files.open(directory / "none", OpenMode::kRead)), Code::kNotFound);
    EXPECT_EQ(code_of(files.open(directory / "none", OpenMode::kReadWrite)), Code::kNotFound);
    EXPECT_EQ(code_of(files.open(directory / "no/dir", OpenMode::kCreate)), Code::kNotFound);
    ASSERT_TRUE(files.open(directory / "a", OpenMode::kCreateNew));
    EXPECT_EQ(code_of(files.open(directory / "a", OpenMode::kCreateNew)), Code::kAlreadyExists);
    EXPECT_EQ(code_of(files.open(directory / "a/b", OpenMode::kRead)), Code::kNotFound);
    EXPECT_EQ(code_of(files.open(directory.path(), OpenMode::kRead)), Code::kInvalidArgument);
    ASSERT_TRUE(files.link(directory / "a", directory / "b"));
    EXPECT_EQ(code_of(files.link(directory / "a", directory / "b")), Code::kAlreadyExists);
    EXPECT_EQ(code_of(files.link(directory / "none", directory / "c")), Code::kNotFound);
    EXPECT_EQ(code_of(files.list(directory / "none")), Code::kNotFound);
    EXPECT_EQ(code_of(files.remove(directory / "none")), Code::kNotFound);
    EXPECT_EQ(code_of(files.make_directories(directory / "a")), Code::kAlreadyExists);
    EXPECT_EQ(code_of(files.make_directories(directory / "a/b")), Code::kNotFound);
    EXPECT_EQ(code_of(files.rename(directory / "none", directory / "x")), Code::kNotFound);
    EXPECT_EQ(code_of(files.free_bytes(directory / "none")), Code::kNotFound);
    EXPECT_FALSE(files.exists(directory / "a/b").value());
    // Where the device is full: the one error that callers hold up for.
    auto full = files.open("/dev/full", OpenMode::kReadWrite);
    ASSERT_TRUE(full);
    EXPECT_EQ(code_of((*full)->write_at(0, as_bytes("x"))), Code::kNoSpace);
}

TEST(PosixFileSystemTest, ListsSortedWithDirectoriesMarked) {
    TestDirectory directory;
    PosixFileSystem files;
    ASSERT_TRUE(files.make_directories(directory / "m/n/o"));
    ASSERT_TRUE(files.make_directories(directory / "m/n/o"));
    ASSERT_TRUE(files.open(directory / "z", OpenMode::kCreate));
    ASSERT_TRUE(files.open(directory / "a", OpenMode::kCreate));
    EXPECT_THAT(files.list(directory.path()).value(), ElementsAre("a", "m/", "z"));
    EXPECT_THAT(files.list(directory / "m").value(), ElementsAre("n/"));
    EXPECT_EQ(code_of(files.remove(directory / "m")), Code::kWrongState);
    ASSERT_TRUE(files.remove(directory / "m/n/o"));
    EXPECT_TRUE(files.list(directory / "m/n").value().empty());
    EXPECT_GT(files.free_bytes(directory.path()).value(), 0u);
}

unsigned mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_mode & 0777;
}

TEST(WriteFileDurablyTest, ReplacesTheFileAndKeepsSecretsPrivate) {
    TestDirectory directory;
    PosixFileSystem files;
    // A left-over of a crash, readable by all: its rights must not leak to the secret.
    ASSERT_TRUE(files.open(directory / "key.tmp", OpenMode::kCreateNew));
    ASSERT_TRUE(files.set_mode(directory / "key.tmp", 0666));
    ASSERT_TRUE(write_file_durably(files, directory / "key", as_bytes("one, longer")));
    ASSERT_TRUE(write_file_durably(files, directory / "key", as_bytes("two")));
    EXPECT_EQ(as_text(read_whole_file(files, directory / "key").value()), "two");
    EXPECT_EQ(mode_of(directory / "key"), 0600u);
    ASSERT_TRUE(
        write_file_durably(files, directory / "public", as_bytes("x"), FileAccess::kPublic));
    EXPECT_EQ(mode_of(directory / "public"), 0644u);
    EXPECT_THAT(files.list(directory.path()).value(), ElementsAre("key", "public"));
    EXPECT_EQ(code_of(write_file_durably(files, directory / "no/key", as_bytes("x"))),
              Code::kNotFound);
}

TEST(ReadWholeFileTest, KeepsItsLimitAndReadsFilesWithoutASize) {
    TestDirectory directory;
    PosixFileSystem files;
    ASSERT_TRUE(write_file_durably(files, directory / "a", Bytes(10'000, 7)));
    EXPECT_EQ(read_whole_file(files, directory / "a", 10'000).value().size(), 10'000u);
    EXPECT_EQ(code_of(read_whole_file(files, directory / "a", 9'999)), Code::kTooLarge);
    EXPECT_FALSE(read_whole_file(files, "/proc/self/status").value().empty());
    ASSERT_TRUE(write_file_durably(files, directory / "empty", {}));
    EXPECT_TRUE(read_whole_file(files, directory / "empty").value().empty());
}

TEST(ParentDirectoryTest, OfAllShapesOfPath) {
    EXPECT_EQ(parent_directory("/a/b"), "/a");
    EXPECT_EQ(parent_directory("/a/b/"), "/a");
    EXPECT_EQ(parent_directory("/a//b"), "/a");
    EXPECT_EQ(parent_directory("/a"), "/");
    EXPECT_EQ(parent_directory("/"), "/");
    EXPECT_EQ(parent_directory("a/b"), "a");
    EXPECT_EQ(parent_directory("a"), ".");
    EXPECT_EQ(parent_directory(""), ".");
}

TEST(SharedMemoryTest, TheRingIsTheSameBytesTwiceAndBothMappingsAgree) {
    TestDirectory directory("/dev/shm");
    const std::string path = directory / "ring";
    auto writer = SharedMemory::create(path, 64 << 10, {8 << 10, 16 << 10}).value();
    EXPECT_EQ(mode_of(path), 0600u);
    EXPECT_TRUE(all_zero({writer.data(), writer.size_bytes()}));
    auto reader = SharedMemory::open(path).value();
    EXPECT_EQ(reader.size_bytes(), 64u << 10);
    EXPECT_EQ(reader.ring(), nullptr);
    ASSERT_TRUE(reader.map_ring({8 << 10, 16 << 10}));
    // A text over the end of the ring.
    std::memcpy(writer.ring() + (16 << 10) - 3, "abcdef", 6);
    EXPECT_EQ(std::memcmp(reader.ring() + (16 << 10) - 3, "abcdef", 6), 0);
    EXPECT_EQ(std::memcmp(reader.data() + (8 << 10), "def", 3), 0);
    EXPECT_EQ(std::memcmp(reader.data() + (24 << 10) - 3, "abc", 3), 0);
    auto moved = std::move(reader);
    // NOLINTNEXTLINE(bugprone-use-after-move): that the moved-from one holds nothing is the point
    EXPECT_EQ(reader.data(), nullptr);
    EXPECT_EQ(moved.ring()[0], 'd');
}

TEST(SharedMemoryTest, ItsErrorsAreNamed) {
    TestDirectory directory("/dev/shm");
    const std::string path = directory / "ring";
    EXPECT_EQ(code_of(SharedMemory::open(path)), Code::kNotFound);
    ASSERT_TRUE(SharedMemory::create(path, 4096));
    EXPECT_EQ(code_of(SharedMemory::create(path, 4096)), Code::kAlreadyExists);
    EXPECT_EQ(code_of(SharedMemory::open(path, {0, 8192})), Code::kMalformed);
    EXPECT_EQ(code_of(SharedMemory::open(path, {1, 100})), Code::kMalformed);
    // More than the tmpfs has: an error now instead of SIGBUS later, and nothing is left behind.
    const std::string large = directory / "large";
    EXPECT_EQ(code_of(SharedMemory::create(large, uint64_t{1} << 50)), Code::kNoSpace);
    EXPECT_EQ(code_of(SharedMemory::open(large)), Code::kNotFound);
}

TEST(SharedMemoryTest, AnotherProcessWakesASleeper) {
    TestDirectory directory("/dev/shm");
    auto memory = SharedMemory::create(directory / "word", 4096).value();
    auto* word = new (memory.data()) std::atomic<uint32_t>(0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        auto* own = reinterpret_cast<std::atomic<uint32_t>*>(memory.data());
        own->store(1);
        futex_wake(*own);
        ::_exit(0);
    }
    while (word->load() == 0) futex_wait(*word, 0, -1);
    EXPECT_EQ(word->load(), 1u);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(futex_wait(*word, 0, -1)) << "a word that differs must not be waited for";
    EXPECT_FALSE(futex_wait(*word, 1, 1'000)) << "nobody wakes: the time-out must be told";
}

TEST(HostBootIdTest, IsTheSameWithinABoot) {
    auto id = host_boot_id();
    ASSERT_TRUE(id);
    EXPECT_FALSE(id->is_nil());
    EXPECT_EQ(*id, host_boot_id().value());
}

}  // namespace
}  // namespace farshore
