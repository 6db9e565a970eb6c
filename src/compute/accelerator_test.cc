#include "compute/accelerator.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

TEST(TrialWatch, GuestThatWritesIsAlive) {
    TrialWatch watch;
    EXPECT_EQ(watch.feed({.age_ms = 500, .read_operations = 10}), TrialVerdict::kUndecided);
    EXPECT_EQ(watch.feed({.age_ms = 900, .read_operations = 10, .write_operations = 1}),
              TrialVerdict::kAlive);
}

TEST(TrialWatch, GuestThatStillWorksAfterItsStartIsAlive) {
    TrialWatch watch;
    for (int64_t age_ms = 0; age_ms < TrialWatch::kAliveAfterMs; age_ms += 1000)
        EXPECT_EQ(watch.feed({.age_ms = age_ms, .serial_bytes = uint64_t(age_ms) + 1}),
                  TrialVerdict::kUndecided);
    EXPECT_EQ(watch.feed({.age_ms = TrialWatch::kAliveAfterMs, .serial_bytes = 99999}),
              TrialVerdict::kUndecided);
    EXPECT_EQ(watch.feed({.age_ms = TrialWatch::kAliveAfterMs + 1000, .serial_bytes = 999999}),
              TrialVerdict::kAlive);
}

TEST(TrialWatch, FirstSampleThatComesLateIsNoSignOfLife) {
    TrialWatch watch;
    EXPECT_EQ(watch.feed({.age_ms = 60'000, .serial_bytes = 900, .read_operations = 9}),
              TrialVerdict::kUndecided);
    EXPECT_EQ(watch.feed({.age_ms = 70'000, .serial_bytes = 900, .read_operations = 9}),
              TrialVerdict::kDead);
}

// A kernel that dies early: the boot loader has read it, then nothing comes any more.
TEST(TrialWatch, KernelThatDiesSilentlyIsDead) {
    TrialWatch watch;
    int64_t age_ms = 0;
    for (; age_ms < 2000; age_ms += 100)
        EXPECT_EQ(watch.feed({.age_ms = age_ms, .read_operations = uint64_t(age_ms)}),
                  TrialVerdict::kUndecided);
    TrialVerdict verdict = TrialVerdict::kUndecided;
    for (; verdict == TrialVerdict::kUndecided && age_ms < 60'000; age_ms += 100)
        verdict = watch.feed({.age_ms = age_ms, .read_operations = 1900});
    EXPECT_EQ(verdict, TrialVerdict::kDead);
    EXPECT_LT(age_ms, 11'000) << "a failover waits too long for a dead machine";
    EXPECT_FALSE(watch.words().empty());
}

TEST(TrialWatch, InternalErrorResetsAndAnEndAreDead) {
    EXPECT_EQ(TrialWatch().feed({.age_ms = 100, .internal_error = true}), TrialVerdict::kDead);
    EXPECT_EQ(TrialWatch().feed({.age_ms = 100, .resets = 2}), TrialVerdict::kDead);
    EXPECT_EQ(TrialWatch().feed({.age_ms = 100, .resets = 1}), TrialVerdict::kUndecided)
        << "installers restart a machine once";
    EXPECT_EQ(TrialWatch().feed({.age_ms = 100, .ended = true}), TrialVerdict::kDead);
}

class ProbeTest : public testing::Test {
  protected:
    void SetUp() override { ::unsetenv("FARSHORE_ACCEL"); }
    void TearDown() override { ::unsetenv("FARSHORE_ACCEL"); }
    PosixFileSystem files_;
    TestDirectory directory_;
};

TEST_F(ProbeTest, EnvironmentGoesBeforeConfigurationBeforeMemory) {
    const std::string state = directory_ / "accelerator.json";
    ASSERT_TRUE(remember_accelerator(files_, state, Accelerator::kTcg, "a kernel died \xff"));
    ProbeOptions options{.state_path = state};
    EXPECT_EQ(probe_accelerator(files_, options).accelerator, Accelerator::kTcg);
    EXPECT_FALSE(probe_accelerator(files_, options).on_trial) << "every machine is on trial again";
    options.configured = "kvm";
    EXPECT_EQ(probe_accelerator(files_, options).accelerator, Accelerator::kKvm);
    ::setenv("FARSHORE_ACCEL", "tcg", 1);
    EXPECT_EQ(probe_accelerator(files_, options).accelerator, Accelerator::kTcg);
}

TEST_F(ProbeTest, VerdictOfAnotherBootOrGarbageIsNotBelieved) {
    const std::string state = directory_ / "accelerator.json";
    for (const std::string text : {"{\"boot\":\"00000000000000000000000000000000\",\"accelerator\":"
                                   "\"kvm\",\"words\":\"old\"}",
                                   "garbage", "[1]", "{\"boot\":5}"}) {
        ASSERT_TRUE(write_file_durably(files_, state, as_bytes(text)));
        // No kernel to probe with: whatever this host has, the answer is not the file's.
        const AcceleratorVerdict verdict =
            probe_accelerator(files_, {.state_path = state, .kernels = {directory_ / "no-kernel"}});
        EXPECT_NE(verdict.words, "old");
    }
}

}  // namespace
}  // namespace farshore
