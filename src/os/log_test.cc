#include "os/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string logged(const TestDirectory& directory, bool json, const std::string& message) {
    log::Options options;
    options.json = json;
    options.file = directory / (json ? "json" : "text");
    EXPECT_TRUE(log::set_up(options));
    log::debug("x", "below the level");
    log::warn("tap", "{}", message);
    PosixFileSystem files;
    std::string text = to_text(read_whole_file(files, options.file).value());
    EXPECT_TRUE(log::set_up({}));
    return text;
}

TEST(LogTest, AnEventIsOneLineWhateverAPeerPutsIntoIt) {
    TestDirectory directory;
    const std::string evil = "a\n2026 error: forged \x1b[2J \"q\" \\ \xc3\xa9 \xff";
    const std::string text = logged(directory, false, evil);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_THAT(text, HasSubstr("warn  tap: a\\n2026"));
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
    const std::string json = logged(directory, true, evil);
    EXPECT_EQ(std::count(json.begin(), json.end(), '\n'), 1);
    EXPECT_THAT(json, HasSubstr(R"("level":"warn","component":"tap","message":"a\n2026)"));
    EXPECT_THAT(json, EndsWith("\\u001b[2J \\\"q\\\" \\\\ \xc3\xa9 \\ufffd\"}\n"));
}

TEST(LogTest, UnwritableFilesAndUnknownLevelsAreErrors) {
    log::Options options;
    options.file = "/proc/no/such/file";
    EXPECT_FALSE(log::set_up(options));
    EXPECT_EQ(log::level_from_name("warn").value(), log::Level::kWarn);
    EXPECT_FALSE(log::level_from_name("loud"));
}

// Broken if a stranger who connects again and again could fill the log, or its reader could not
// tell that he did.
TEST(LogTest, RepeatedLinesAreCountedInsteadOfWritten) {
    log::Limit limit;
    uint64_t left_out = 0;
    int64_t now_us = 5'000'000;
    for (unsigned i = 0; i < log::Limit::kLinesAWindow; ++i)
        EXPECT_TRUE(limit.admit(now_us, left_out));
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(limit.admit(++now_us, left_out));
    now_us += log::Limit::kWindowUs;
    EXPECT_TRUE(limit.admit(now_us, left_out));
    EXPECT_EQ(left_out, 100u);
    EXPECT_TRUE(limit.admit(now_us, left_out));
    EXPECT_EQ(left_out, 0u);
}

}  // namespace
}  // namespace farshore
