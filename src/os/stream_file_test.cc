#include "os/stream_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

Bytes noise(std::mt19937_64& random, size_t bytes) {
    Bytes out(bytes);
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(random());
    return out;
}

// Breaks when a byte is lost between the buffer, the direct writes and the cached tail, or is read
// from the wrong one of them.
TEST(StreamFileTest, HoldsWhatWasAppendedAtEveryStep) {
    const uint64_t seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    TestDirectory directory;
    PosixFileSystem files;
    const std::string path = directory / "log";
    Bytes model;
    auto file = files.open_stream(path, OpenMode::kCreateNew);
    ASSERT_TRUE(file) << file.error().to_string();
    for (int step = 0; step < 400; ++step) {
        const size_t most = size_t{1} << (random() % 22);
        const Bytes data = noise(random, random() % most + 1);
        ASSERT_TRUE((*file)->write_at(model.size(), data));
        model.insert(model.end(), data.begin(), data.end());
        if (random() % 3 == 0) {
            ASSERT_TRUE((*file)->sync());
            struct stat info {};
            ASSERT_EQ(::stat(path.c_str(), &info), 0);
            ASSERT_EQ(static_cast<uint64_t>(info.st_size), model.size())
                << "the file's length is not the true one after a sync";
        }
        ASSERT_EQ((*file)->size().value(), model.size());
        const size_t at = random() % model.size();
        Bytes read(random() % (2u << 20));
        const size_t got = (*file)->read_at(at, read).value();
        ASSERT_EQ(got, std::min(read.size(), model.size() - at));
        ASSERT_TRUE(std::equal(read.begin(), read.begin() + static_cast<ptrdiff_t>(got),
                               model.begin() + static_cast<ptrdiff_t>(at)));
        if (model.size() > (16u << 20)) {
            ASSERT_TRUE((*file)->truncate(0));
            model.clear();
        }
    }
    ASSERT_TRUE((*file)->sync());
    file->reset();
    EXPECT_EQ(read_whole_file(files, path).value(), model);
}

// Breaks when a writer that goes back, cuts or reopens a log finds other bytes than it wrote.
TEST(StreamFileTest, BecomesAnOrdinaryFileWhenItIsNotAppendedTo) {
    std::mt19937_64 random(7);
    TestDirectory directory;
    PosixFileSystem files;
    const std::string path = directory / "log";
    Bytes model = noise(random, (3u << 20) + 1234);
    {
        auto file = files.open_stream(path, OpenMode::kCreate).value();
        ASSERT_TRUE(file->write_at(0, model));
        const Bytes patch = noise(random, 5000);
        ASSERT_TRUE(file->write_at(70'001, patch));
        std::copy(patch.begin(), patch.end(), model.begin() + 70'001);
        const Bytes more = noise(random, 100'000);
        ASSERT_TRUE(file->write_at(model.size(), more));
        model.insert(model.end(), more.begin(), more.end());
        ASSERT_TRUE(file->truncate(1'000'003));
        model.resize(1'000'003);
        EXPECT_EQ(file->size().value(), model.size());
        Bytes read(model.size());
        EXPECT_EQ(file->read_at(0, read).value(), model.size());
        EXPECT_EQ(read, model);
    }
    {
        auto file = files.open_stream(path, OpenMode::kReadWrite).value();
        const Bytes more = noise(random, 200'000);
        ASSERT_TRUE(file->write_at(model.size(), more));
        model.insert(model.end(), more.begin(), more.end());
        ASSERT_TRUE(file->sync());
    }
    EXPECT_EQ(read_whole_file(files, path).value(), model);
}

// Breaks when cutting back an append that was never flushed writes it first.
TEST(StreamFileTest, CutsWhatIsStillInItsBuffer) {
    std::mt19937_64 random(9);
    TestDirectory directory;
    PosixFileSystem files;
    const std::string path = directory / "log";
    const Bytes model = noise(random, 100'000);
    auto file = files.open_stream(path, OpenMode::kCreate).value();
    ASSERT_TRUE(file->write_at(0, model));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->write_at(model.size(), noise(random, 300'000)));
    ASSERT_TRUE(file->truncate(model.size()));
    file.reset();
    EXPECT_EQ(read_whole_file(files, path).value(), model);
}

}  // namespace
}  // namespace farshore
