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
    EXPECT_THAT(json, HasSubstr(R"("level":"warn","part":"tap","message":"a\n2026)"));
    EXPECT_THAT(json, EndsWith("\\u001b[2J \\\"q\\\" \\\\ \xc3\xa9 \\ufffd\"}\n"));
}

// Broken if what a program looks for in the log were not a field of its own, or could be forged by
// the name of an item.
TEST(LogTest, AJsonLineSaysWhoseEventItIs) {
    TestDirectory directory;
    log::Options options;
    options.json = true;
    options.file = directory / "json";
    ASSERT_TRUE(log::set_up(options));
    log::warn("vault", {.item = "web\",\"job\":8", .item_id = "0a", .job = 7, .code = "timeout"},
              "job {} failed", 7);
    log::info("agent", {.appliance = "p", .agent = "a"}, "{}", "hello");
    PosixFileSystem files;
    const std::string text = to_text(read_whole_file(files, options.file).value());
    EXPECT_TRUE(log::set_up({}));
    EXPECT_THAT(text, HasSubstr(R"(,"level":"warn","part":"vault","code":"timeout",)"
                                R"("item":"web\",\"job\":8","item_id":"0a","job":7,)"
                                R"("message":"job 7 failed"})"));
    EXPECT_THAT(text, HasSubstr(R"("level":"info","part":"agent","appliance":"p","agent":"a",)"
                                R"("message":"hello"})"));
    EXPECT_THAT(
        text, testing::MatchesRegex("\\{\"time\":\"....-..-..T..:..:..\\....Z\",\"level\"(.|\n)*"));
}

TEST(LogTest, UnwritableFilesAndUnknownLevelsAreErrors) {
    log::Options options;
    options.file = "/proc/no/such/file";
    EXPECT_FALSE(log::set_up(options));
    EXPECT_EQ(log::level_from_name("warn").value(), log::Level::kWarn);
    EXPECT_FALSE(log::level_from_name("loud"));
    EXPECT_TRUE(log::json_from_name("json").value());
    EXPECT_FALSE(log::json_from_name("text").value());
    EXPECT_FALSE(log::json_from_name("xml"));
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
