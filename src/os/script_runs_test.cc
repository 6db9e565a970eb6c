#include "os/script_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "os/process_group.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "os/waiting.h"

namespace farshore {
namespace {

class ScriptRunsTest : public testing::Test {
  protected:
    void TearDown() override {
        for (const char* handle : {"a", "b"}) (void)runs_.forget(handle);
    }
    ScriptRequest script(const std::string& body) {
        ScriptRequest request;
        request.program = directory_ / "script.sh";
        std::ofstream(request.program) << "#!/bin/sh\n" << body;
        ::chmod(request.program.c_str(), 0755);
        request.arguments = {"an argument", "*"};
        request.environment = {{"FARSHORE_STEP", "g1-before-1"}};
        return request;
    }
    // Its result, once there is one.
    Result<ScriptResult> result(const std::string& handle) {
        Result<std::optional<ScriptResult>> looked = std::optional<ScriptResult>();
        wait_until(30'000, 5, [&] {
            looked = runs_.look(handle);
            return !looked || looked->has_value();
        });
        if (!looked) return fail(looked.error());
        if (!*looked) return fail(Code::kTimeout, "it still runs");
        return **looked;
    }
    bool there(const std::string& name) { return std::filesystem::exists(directory_ / name); }
    void wait_for_file(const std::string& name) {
        ASSERT_TRUE(wait_until(30'000, 5, [&] { return there(name); })) << name;
    }

    TestDirectory directory_;
    PosixFileSystem files_;
    ScriptRuns runs_{files_, directory_ / "runs", 100};
};

// Broken if a script did not get what it is told, or its end or words got lost.
TEST_F(ScriptRunsTest, RunsAndSaysHowItEnded) {
    ASSERT_TRUE(runs_.begin("a", script("echo \"$1 $2 $FARSHORE_STEP\"; echo bad >&2; exit 7")));
    const auto ended = result("a");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->code, 7);
    EXPECT_EQ(ended->output, "an argument * g1-before-1\nbad\n");
    EXPECT_TRUE(result("a")) << "until it is forgotten";
    ASSERT_TRUE(runs_.forget("a"));
    EXPECT_EQ(runs_.look("a").error().code(), Code::kNotFound);
    EXPECT_TRUE(std::filesystem::is_empty(directory_ / "runs"));
}

// Broken if a vault that comes after one that was killed ran a script again.
TEST_F(ScriptRunsTest, IsTakenUpByWhoeverComesNext) {
    const std::string counter = directory_ / "count";
    const ScriptRequest request = script("echo x >> " + counter + "; cat " +
                                         std::string(directory_ / "fifo") + "; echo heard");
    ASSERT_EQ(::mkfifo((directory_ / "fifo").c_str(), 0600), 0);
    ASSERT_TRUE(runs_.begin("a", request));
    wait_for_file("count");
    ScriptRuns next(files_, directory_ / "runs", 100);
    ASSERT_TRUE(next.begin("a", request));
    ASSERT_TRUE(next.begin("a", request));
    std::ofstream(directory_ / "fifo") << "said\n";
    const auto ended = result("a");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->output, "said\nheard\n");
    EXPECT_EQ(std::filesystem::file_size(counter), 2u);
    ASSERT_TRUE(next.begin("a", request));
    EXPECT_EQ(std::filesystem::file_size(counter), 2u) << "nor after its end";
}

// Broken if a script began before it was noted: a vault that was killed in between would begin it
// again. The wrapper of a vault that died gets an end of file instead of its word.
TEST_F(ScriptRunsTest, WhatGotNoWordIsBegunByTheNext) {
    ProcessOptions options;
    options.arguments = {
        "/bin/sh", "-c",
        "read word; [ \"$word\" = go ] && touch " + std::string(directory_ / "ran")};
    options.input = StdStream::pipe();
    options.new_session = true;
    auto process = Process::spawn(options);
    ASSERT_TRUE(process);
    ASSERT_TRUE(files_.make_directories(directory_ / "runs/a"));
    ASSERT_TRUE(write_pid_file(files_, directory_ / "runs/a/pid", process->key()));
    EXPECT_FALSE(runs_.look("a")->has_value()) << "it may still get its word";
    process->take_input().reset();
    ASSERT_TRUE(process->wait(10'000'000));
    EXPECT_EQ(runs_.look("a").error().code(), Code::kNotFound);
    EXPECT_FALSE(there("ran"));
    ASSERT_TRUE(runs_.begin("a", script("echo ran")));
    EXPECT_EQ(result("a")->output, "ran\n");
}

// Broken if a script that hangs, or its children, went on after their time.
TEST_F(ScriptRunsTest, IsEndedWithAllThatItStarted) {
    ASSERT_TRUE(runs_.begin(
        "a", script("echo begun; (sleep 1000 & echo $! > " + std::string(directory_ / "child.new") +
                    "; mv " + std::string(directory_ / "child.new") + " " +
                    std::string(directory_ / "child") + "; wait)")));
    wait_for_file("child");
    pid_t child = 0;
    std::ifstream(directory_ / "child") >> child;
    ASSERT_EQ(::kill(child, 0), 0);
    // What keeps its output is ended with it.
    ASSERT_TRUE(wait_until(30'000, 5, [&] {
        const auto kept = read_whole_file(files_, directory_ / "runs/a/output");
        return kept && as_text(*kept) == "begun\n";
    }));
    ASSERT_TRUE(runs_.end("a"));
    const auto ended = result("a");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_FALSE(ended->code);
    EXPECT_EQ(ended->output, "begun\n");
    EXPECT_TRUE(wait_until(10'000, 5, [&] {
        const auto key = key_of(child);
        return !key || !Process::adopt(*key);
    }));
}

// Broken if what a script leaves running, with its output open, kept the step from its end.
TEST_F(ScriptRunsTest, WhatItLeavesBehindDoesNotHoldIt) {
    ASSERT_TRUE(runs_.begin("a", script("sleep 1000 & echo done")));
    const auto ended = result("a");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->code, 0);
    EXPECT_EQ(ended->output, "done\n");
}

// Broken if a script that prints megabytes filled the disk, or hung because nobody reads it.
TEST_F(ScriptRunsTest, KeepsTheFirstOfWhatItPrints) {
    ASSERT_TRUE(runs_.begin("a", script("head -c 10000000 /dev/zero | tr '\\0' x")));
    const auto ended = result("a");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->code, 0);
    EXPECT_EQ(ended->output, std::string(100, 'x'));
}

// Broken if a script that was killed from outside passed for one that can be begun again.
TEST_F(ScriptRunsTest, WhatNobodyKnowsIsSaid) {
    ASSERT_TRUE(
        runs_.begin("a", script("touch " + std::string(directory_ / "ran") + "; sleep 1000")));
    wait_for_file("ran");
    auto leader = adopt_from_pid_file(files_, directory_ / "runs/a/pid");
    ASSERT_TRUE(leader);
    ASSERT_TRUE(kill_group(*leader));
    EXPECT_EQ(result("a").error().code(), Code::kOutcomeUnknown);
    ASSERT_TRUE(runs_.begin("a", script("exit 0")));
    EXPECT_EQ(result("a").error().code(), Code::kOutcomeUnknown) << "not begun again";
}

// Broken if a script whose end could not be noted, on a full disk, passed for one that succeeded.
TEST_F(ScriptRunsTest, AnEndThatCouldNotBeNotedIsNoSuccess) {
    const std::string where = directory_ / "runs/a";
    ASSERT_TRUE(runs_.begin("a", script("ln -s /dev/full " + where + "/status.new; exit 7")));
    EXPECT_EQ(result("a").error().code(), Code::kOutcomeUnknown);
    EXPECT_EQ(runs_.look("a").error().code(), Code::kOutcomeUnknown);
}

// Broken if what a power cut leaves of a file passed for an exit code.
TEST_F(ScriptRunsTest, WhatIsNoNumberIsNoExitCode) {
    ASSERT_TRUE(runs_.begin("a", script("exit 7")));
    EXPECT_EQ(result("a")->code, 7);
    for (const std::string bad : {"", "\n", "7", "x\n", "7x\n", "256\n", "-1\n", "7\n\n"}) {
        std::ofstream(directory_ / "runs/a/status") << bad;
        const auto looked = runs_.look("a");
        ASSERT_FALSE(looked) << bad;
        EXPECT_EQ(looked.error().code(), Code::kOutcomeUnknown) << bad;
    }
}

// Broken if a full disk kept a script that hangs alive.
TEST_F(ScriptRunsTest, IsEndedThoughThatCannotBeNoted) {
    ASSERT_TRUE(
        runs_.begin("a", script("touch " + std::string(directory_ / "ran") + "; sleep 1000")));
    wait_for_file("ran");
    // Nothing can be written where a directory is.
    ASSERT_TRUE(files_.make_directories(directory_ / "runs/a/ended"));
    EXPECT_FALSE(runs_.end("a"));
    EXPECT_FALSE(adopt_from_pid_file(files_, directory_ / "runs/a/pid")) << "it still runs";
    EXPECT_TRUE(runs_.forget("a"));
}

// Broken if scripts got to see the secrets that the vault was given in its environment.
TEST_F(ScriptRunsTest, GetsNoneOfTheVaultsSecrets) {
    ::setenv("FARSHORE_TEST_SECRET", "between us", 1);
    ASSERT_TRUE(
        runs_.begin("a", script("echo \"$FARSHORE_TEST_SECRET,$FARSHORE_STEP,${PATH:+p}\"")));
    const auto ended = result("a");
    ::unsetenv("FARSHORE_TEST_SECRET");
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->output, ",g1-before-1,p\n");
}

TEST_F(ScriptRunsTest, WhatIsNoProgramIsRefused) {
    ScriptRequest request = script("exit 0");
    ::chmod(request.program.c_str(), 0644);
    EXPECT_EQ(runs_.begin("a", request).error().code(), Code::kForbidden);
    ::chmod(request.program.c_str(), 0777);
    EXPECT_EQ(runs_.begin("a", request).error().code(), Code::kForbidden);
    request.program = directory_ / "none";
    EXPECT_EQ(runs_.begin("a", request).error().code(), Code::kNotFound);
    request.program = directory_ / "runs";
    (void)files_.make_directories(request.program);
    EXPECT_EQ(runs_.begin("a", request).error().code(), Code::kForbidden);
}

}  // namespace
}  // namespace farshore
