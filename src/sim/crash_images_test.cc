#include "sim/crash_images.h"

#include <gtest/gtest.h>

#include <set>

namespace farshore {
namespace {

Bytes filled(size_t bytes, char with) { return Bytes(bytes, static_cast<uint8_t>(with)); }

// The file's letters, one for each 512 bytes; "-" when there is no file.
std::string letters(CrashFiles& files, const std::string& path) {
    auto file = files.open(path, OpenMode::kRead);
    if (!file) return "-";
    Bytes bytes(*(*file)->size());
    EXPECT_TRUE((*file)->read_at(0, bytes));
    std::string text;
    for (size_t i = 0; i < bytes.size(); i += 512)
        text += bytes[i] == 0 ? '0' : static_cast<char>(bytes[i]);
    return text;
}

// What the file may be after a cut at the end.
std::set<std::string> ends(const CrashFiles& files, const std::string& path,
                           CrashBounds bounds = {.torn = 0}) {
    std::set<std::string> seen;
    bounds.first_operation = files.operations();
    const CrashReport report = for_each_crash_image(files, bounds, [&](size_t, CrashFiles& image) {
        seen.insert(letters(image, path));
        return std::string();
    });
    EXPECT_EQ(report.cuts, 1u);
    return seen;
}

struct Fixture : ::testing::Test {
    CrashFiles files;
    std::unique_ptr<File> made(const std::string& path) {
        auto file = files.open(path, OpenMode::kCreate);
        EXPECT_TRUE(file);
        return std::move(*file);
    }
    using Set = std::set<std::string>;
};
using CrashImages = Fixture;

TEST_F(CrashImages, UnsyncedWritesAreThereInAnySubset) {
    auto file = made("f");
    ASSERT_TRUE(file->write_at(0, filled(1536, 'a')));
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(ends(files, "f"), (Set{"-", "aaa"})) << "its name is not durable";
    ASSERT_TRUE(files.sync_directory("/"));
    EXPECT_EQ(ends(files, "f"), (Set{"aaa"}));
    ASSERT_TRUE(file->write_at(0, filled(512, 'b')));
    ASSERT_TRUE(file->write_at(1024, filled(512, 'c')));
    EXPECT_EQ(ends(files, "f"), (Set{"aaa", "baa", "aac", "bac"}));
    ASSERT_TRUE(file->write_at(0, filled(1024, 'd')));
    EXPECT_EQ(ends(files, "f"), (Set{"aaa", "baa", "aac", "bac", "dda", "ddc"}));
    // Each sector on its own.
    EXPECT_EQ(ends(files, "f", {.torn = 400}), (Set{"aaa", "baa", "aac", "bac", "dda", "ddc", "daa",
                                                    "dac", "ada", "adc", "bda", "bdc"}));
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(ends(files, "f"), (Set{"ddc"}));
}

TEST_F(CrashImages, ASectorIsAsItWasAtSomeMoment) {
    auto file = made("f");
    ASSERT_TRUE(files.sync_directory("/"));
    ASSERT_TRUE(file->write_at(0, filled(512, 'a')));
    ASSERT_TRUE(file->sync());
    // The second write of the same sector never without the first one.
    ASSERT_TRUE(file->write_at(0, filled(100, 'b')));
    ASSERT_TRUE(file->write_at(100, filled(100, 'c')));
    (void)for_each_crash_image(files, {.torn = 0}, [&](size_t operations, CrashFiles& image) {
        Bytes bytes(512);
        auto opened = image.open("f", OpenMode::kRead);
        if (operations < 6 || !opened) return std::string();
        EXPECT_TRUE((*opened)->read_at(0, bytes));
        EXPECT_TRUE(bytes[0] == 'b' || bytes[100] == 'a');
        return std::string();
    });
}

TEST_F(CrashImages, SizesGoAheadOfDataAndTruncationsMayBeLost) {
    auto file = made("f");
    ASSERT_TRUE(files.sync_directory("/"));
    ASSERT_TRUE(file->write_at(0, filled(512, 'a')));
    EXPECT_EQ(ends(files, "f"), (Set{"", "0", "a"}));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->truncate(0));
    ASSERT_TRUE(file->write_at(0, filled(1024, 'b')));
    // What was written behind a truncation is not there without it.
    EXPECT_EQ(ends(files, "f"), (Set{"a", "", "00", "bb"}));
}

TEST_F(CrashImages, EntriesBecomeDurableWithTheirDirectory) {
    ASSERT_TRUE(files.make_directories("d"));
    ASSERT_TRUE(made("d/old")->sync());
    ASSERT_TRUE(files.sync_directory("d"));
    auto file = made("d/new");
    ASSERT_TRUE(file->write_at(0, filled(512, 'n')));
    ASSERT_TRUE(files.rename("d/new", "d/old"));
    EXPECT_EQ(ends(files, "d/old"), (Set{"", "0", "n"})) << "renamed without a sync of the data";
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(ends(files, "d/old"), (Set{"", "n"}));
    ASSERT_TRUE(files.sync_directory("d"));
    EXPECT_EQ(ends(files, "d/old"), (Set{"n"}));
    EXPECT_EQ(ends(files, "d/new"), (Set{"-"}));
    ASSERT_TRUE(files.remove("d/old"));
    EXPECT_EQ(ends(files, "d/old"), (Set{"n", "-"}));
}

// What is read from an image is durable there, and its own operations are cut in turn.
TEST_F(CrashImages, AnImageIsFilesToGoOnWith) {
    auto file = made("f");
    ASSERT_TRUE(files.sync_directory("/"));
    ASSERT_TRUE(file->write_at(0, filled(512, 'a')));
    Set seen;
    const CrashReport report = for_each_crash_image(
        files, {.first_operation = files.operations()}, [&](size_t, CrashFiles& image) {
            auto again = image.open("f", OpenMode::kReadWrite);
            EXPECT_TRUE((*again)->write_at(512, filled(512, 'z')));
            const std::string first = letters(image, "f").substr(0, 1);
            for (const std::string& end : ends(image, "f")) seen.insert(end);
            return first == "a" ? "a is there" : "";
        });
    EXPECT_FALSE(report.ok());
    EXPECT_NE(report.text().find("write f [0, 512)"), std::string::npos) << report.text();
    EXPECT_TRUE(seen.contains("az") && seen.contains("0z") && seen.contains(""));
}

TEST_F(CrashImages, OperationsCanBeLeftOutAndFail) {
    auto file = made("f");
    files.interfere = [](DiskOp op, const std::string&) {
        return op == DiskOp::kSync ? CrashFiles::Verdict::kLeftOut : CrashFiles::Verdict::kFails;
    };
    EXPECT_TRUE(file->sync());
    EXPECT_EQ(file->write_at(0, filled(1, 'a')).error().code(), Code::kIo);
    EXPECT_EQ(files.operations(), 1u);
}

}  // namespace
}  // namespace farshore
