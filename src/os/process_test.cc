#include "os/process.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <thread>

#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ProcessOptions shell(const std::string& script) {
    ProcessOptions options;
    options.arguments = {"sh", "-c", script};
    return options;
}

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

// Blocks until the other end says something or is closed.
std::string read_line(const UniqueFd& fd) {
    std::string line;
    char c = 0;
    while (::read(fd.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
}

TEST(RunCommandTest, GivesOutputErrorAndExitStatus) {
    auto result = run_command(shell("cat; echo oops >&2; exit 3"), as_bytes("in and out"));
    ASSERT_TRUE(result) << result.error().to_string();
    EXPECT_EQ(result->output, "in and out");
    EXPECT_EQ(result->error, "oops\n");
    EXPECT_EQ(result->exit.code, 3);
    EXPECT_FALSE(result->exit.success());
    EXPECT_EQ(run_command(shell("kill -9 $$"))->exit.signal, SIGKILL);
}

TEST(RunCommandTest, MoreInputThanAPipeHoldsAndAReaderThatStopsAreFine) {
    const Bytes large(3 << 20, 'x');
    CommandLimits limits;
    limits.output_bytes = 4 << 20;
    auto echoed = run_command(shell("cat"), large, limits);
    ASSERT_TRUE(echoed);
    EXPECT_EQ(echoed->output.size(), large.size());
    auto deaf = run_command(shell("exec <&-; exit 0"), large);
    ASSERT_TRUE(deaf);
    EXPECT_TRUE(deaf->exit.success());
}

TEST(RunCommandTest, OutputIsBounded) {
    CommandLimits limits;
    limits.output_bytes = 1000;
    EXPECT_EQ(code_of(run_command(shell("yes"), {}, limits)), Code::kTooLarge);
}

TEST(RunCommandTest, TimeOutKillsTheWholeGroup) {
    TestDirectory directory;
    // The grandchild holds a lock; once it is gone the lock can be had.
    const std::string fifo = directory / "fifo";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    UniqueFd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    CommandLimits limits;
    limits.timeout_us = 300'000;
    EXPECT_EQ(
        code_of(run_command(shell(fmt::format("(echo here; sleep 1000) > {} & sleep 1000", fifo)),
                            {}, limits)),
        Code::kTimeout);
    ::fcntl(reader.get(), F_SETFL, 0);
    while (!read_line(reader).empty()) {
    }  // ends only when no writer is left
}

TEST(RunCommandTest, WhatItLeavesBehindDoesNotHoldItUp) {
    auto result = run_command(shell("(trap '' HUP; sleep 1000) & echo $!"));
    ASSERT_TRUE(result);
    const pid_t left = std::stoi(result->output);
    ::kill(left, SIGKILL);
}

TEST(ProcessTest, MissingProgramsAreNamed) {
    ProcessOptions options;
    options.arguments = {"no-such-program-here"};
    auto missing = Process::spawn(options);
    EXPECT_EQ(code_of(missing), Code::kDependencyMissing);
    EXPECT_THAT(missing.error().what(), HasSubstr("no-such-program-here"));
    options.arguments = {"/no/such/program"};
    EXPECT_EQ(code_of(Process::spawn(options)), Code::kDependencyMissing);
    options.arguments = {"/etc/passwd"};
    EXPECT_EQ(code_of(Process::spawn(options)), Code::kForbidden);
    options.arguments = {};
    EXPECT_EQ(code_of(Process::spawn(options)), Code::kInvalidArgument);
    options = shell("true");
    options.directory = "/no/such/directory";
    EXPECT_FALSE(Process::spawn(options));
}

TEST(ProcessTest, TheChildHasOnlyTheDescriptorsGivenToIt) {
    UniqueFd leak(::open("/dev/null", O_RDONLY));  // not close-on-exec, as a library may do
    int pipe_fds[2];
    ASSERT_EQ(::pipe(pipe_fds), 0);
    UniqueFd read_end(pipe_fds[0]), write_end(pipe_fds[1]);
    ProcessOptions options = shell("ls -m /proc/self/fd >&7");
    // 7 and 3 are in use on both sides in the opposite sense: they must not overwrite each other.
    options.inherit_fds = {{write_end.get(), 7}, {leak.get(), 3}};
    auto process = Process::spawn(options);
    ASSERT_TRUE(process) << process.error().to_string();
    write_end.reset();
    // `ls` itself opens the directory with the first number that is free.
    EXPECT_EQ(read_line(read_end), "0, 1, 2, 3, 4, 7");
    EXPECT_TRUE(process->wait(-1)->success());
}

TEST(ProcessTest, EnvironmentDirectoryAndFiles) {
    TestDirectory directory;
    PosixFileSystem files;
    ProcessOptions options = shell("echo $FARSHORE_X; pwd; echo err >&2");
    options.environment = {{"FARSHORE_X", "a b"}};
    options.directory = directory.path();
    options.output = StdStream::file(directory / "out");
    options.error = StdStream::file(directory / "out");
    ASSERT_TRUE(Process::spawn(options)->wait(-1)->success());
    EXPECT_EQ(as_text(read_whole_file(files, directory / "out").value()),
              "a b\n" + directory.path() + "\nerr\n");
}

TEST(ProcessTest, IgnoredSignalsAreNotInherited) {
    auto* before = ::signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(run_command(shell("kill -PIPE $$"))->exit.signal, SIGPIPE);
    ::signal(SIGPIPE, before);
}

TEST(ProcessTest, WaitTellsARunningProcessFromAnEndedOne) {
    ProcessOptions options = shell("read line; exit 5");
    options.input = StdStream::pipe();
    auto process = Process::spawn(options).value();
    EXPECT_TRUE(process.is_alive());
    EXPECT_EQ(code_of(process.wait(0)), Code::kTimeout);
    process.take_input().reset();
    EXPECT_EQ(process.wait(-1)->code, 5);
    EXPECT_EQ(process.wait(0)->code, 5) << "the status must be there a second time";
    EXPECT_FALSE(process.is_alive());
    EXPECT_EQ(code_of(process.kill(SIGTERM)), Code::kNotFound);
}

TEST(ProcessTest, TerminateKillsWhatDoesNotListen) {
    ProcessOptions options = shell("trap '' TERM; echo ready; while :; do read x; done");
    options.output = StdStream::pipe();
    options.input = StdStream::pipe();
    auto process = Process::spawn(options).value();
    UniqueFd output = process.take_output();
    ASSERT_EQ(read_line(output), "ready");
    EXPECT_EQ(process.terminate(1'000)->signal, SIGKILL);
    auto polite = Process::spawn(shell("exec sleep 1000")).value();
    EXPECT_EQ(polite.terminate(60'000'000)->signal, SIGTERM);
}

TEST(ProcessTest, APidFileFindsTheProcessAgainAndNeverAnotherOne) {
    TestDirectory directory;
    PosixFileSystem files;
    const std::string path = directory / "tap.pid";
    EXPECT_EQ(code_of(adopt_from_pid_file(files, path)), Code::kNotFound);
    auto process = Process::spawn(shell("exec sleep 1000")).value();
    ASSERT_TRUE(write_pid_file(files, path, process.key()));
    {
        auto adopted = adopt_from_pid_file(files, path);
        ASSERT_TRUE(adopted) << adopted.error().to_string();
        EXPECT_TRUE(adopted->is_alive());
        EXPECT_EQ(adopted->key(), process.key());
    }
    EXPECT_TRUE(process.is_alive()) << "letting go of a handle must not end the process";
    // The same pid with another start or of another boot is somebody else.
    ProcessKey other = process.key();
    ++other.start_ticks;
    EXPECT_EQ(code_of(Process::adopt(other)), Code::kNotFound);
    other = process.key();
    other.boot.raw[0] ^= 1;
    EXPECT_EQ(code_of(Process::adopt(other)), Code::kNotFound);

    auto adopted = adopt_from_pid_file(files, path).value();
    ASSERT_TRUE(adopted.kill(SIGKILL));
    EXPECT_TRUE(adopted.wait(-1));
    EXPECT_EQ(code_of(adopt_from_pid_file(files, path)), Code::kNotFound);
    ASSERT_TRUE(write_file_durably(files, path, as_bytes("garbage")));
    EXPECT_EQ(code_of(adopt_from_pid_file(files, path)), Code::kMalformed);
}

TEST(ProcessTest, AChildThatMayNotOutliveUsDiesWithUs) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the thread sanitizer has no threads after a fork";
#endif
    int pipe_fds[2];
    ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
    UniqueFd read_end(pipe_fds[0]), write_end(pipe_fds[1]);
    const pid_t middle = ::fork();
    ASSERT_GE(middle, 0);
    if (middle == 0) {
        ProcessOptions options = shell("echo started >&5; read x");
        options.input = StdStream::pipe();
        options.die_with_parent = true;
        options.inherit_fds = {{write_end.get(), 5}};
        // From a thread that ends at once: the child must not die with the thread.
        std::thread([&] {
            auto process = Process::spawn(options);
            if (!process) ::_exit(1);
            new Process(std::move(*process));  // kept, with its input, until we are gone
        }).join();
        for (;;) ::pause();
    }
    write_end.reset();
    EXPECT_EQ(read_line(read_end), "started");
    ::kill(middle, SIGKILL);
    ::waitpid(middle, nullptr, 0);
    EXPECT_EQ(read_line(read_end), "") << "the pipe closes when the grandchild is gone";
}

TEST(ProcessTest, LostChildrenDoNotStayAsZombies) {
    ProcessKey identity;
    {
        ProcessOptions options = shell("exit 0");
        options.output = StdStream::pipe();
        auto process = Process::spawn(options).value();
        identity = process.key();
        UniqueFd output = process.take_output();
        read_line(output);
    }
    // Each later spawn collects; the child is about to end, so this comes to an end.
    for (;;) {
        const auto now = key_of(identity.pid);
        if (!now || !(*now == identity)) break;
        ASSERT_TRUE(run_command(shell("true")));
    }
}

TEST(InstanceLockTest, TheSecondOneIsToldWhoHoldsIt) {
    TestDirectory directory;
    const std::string path = directory / "lock";
    {
        auto first = InstanceLock::acquire(path);
        ASSERT_TRUE(first);
        auto second = InstanceLock::acquire(path);
        EXPECT_EQ(code_of(second), Code::kDuplicateIdentity);
        EXPECT_THAT(second.error().what(), HasSubstr(std::to_string(::getpid())));
        // A child started meanwhile does not take the lock with it.
        auto child = Process::spawn(shell("exec sleep 1000")).value();
        first = fail(Code::kCancelled, "let go");
        EXPECT_TRUE(InstanceLock::acquire(path));
        EXPECT_TRUE(child.terminate(-1));
    }
    EXPECT_TRUE(InstanceLock::acquire(path));
}

// Broken if a server that was started with the soft limit of a shell could not have more than a
// few hundred disks, or if one that has more lost it.
TEST(DescriptorLimit, IsRaisedToWhatMayBeHad) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit low = before;
    low.rlim_cur = 256;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    EXPECT_EQ(raise_descriptor_limit(300), 300u);
    EXPECT_EQ(raise_descriptor_limit(200), 300u);
    EXPECT_EQ(raise_descriptor_limit(UINT64_MAX - 1), before.rlim_max);
    rlimit now{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &now), 0);
    EXPECT_EQ(now.rlim_cur, before.rlim_max);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace farshore
