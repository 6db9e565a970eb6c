#include <gtest/gtest.h>

#include "compute/nbd_server.h"
#include "os/remove_directory.h"
#include "recovery/recovery_test_site.h"

namespace farshore {
namespace {

class OwnFiles : public RecoverySiteTest {
  protected:
    void SetUp() override {
        RecoverySiteTest::SetUp();
        ASSERT_TRUE(files_.make_directories(own()));
    }
    std::string own() { return directory_ / "own"; }
    // A committed failover that has written.
    void fail_over() {
        const auto started = recoveries_->start(request("f1", RecoveryKind::kFailover, first_));
        ASSERT_TRUE(started) << started.error().to_string();
        ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
        ASSERT_TRUE(recoveries_->commit("f1"));
    }
    Recoveries::OwnFilesOrder to() { return {.directory = own(), .format = DiskFormat::kQcow2}; }
    // To its end, or to the first error that does not pass.
    Status make_files() {
        Status last;
        const bool done = wait_until(30'000, 5, [&] {
            const auto step = recoveries_->make_own_files("f1", to());
            last = step ? Status() : fail(step.error());
            return step ? step->done : last.error().code() != Code::kIo;
        });
        if (!done) return fail(Code::kTimeout, "it is never done");
        return last;
    }
    bool needs_nobody() {
        const auto state = recoveries_->get("f1");
        return state && stands_alone(*state) && state->hydrated && leases_.held.empty() &&
               !*files_.exists(run("f1") + "/nbd.sock") &&
               !*files_.exists((directory_ / "s") + "/f1/disk-0.overlay");
    }
    void expect_what_it_wrote() {
        const std::string said = serial("f1");
        EXPECT_NE(said.find("L00000009 " + hex_of("WWWWWWWWWWWWWWWW")), std::string::npos)
            << "what the machine wrote is lost: " << said;
        EXPECT_NE(said.find("L00000001 " + hex_of("first version.  ")), std::string::npos) << said;
        EXPECT_EQ(said.find("ERROR"), std::string::npos) << said;
    }
    // As after a power cut of this host.
    void cut_the_power() {
        kill_by_file(run("f1") + "/qemu.pid");
        if (*files_.exists(run("f1") + "/nbd.pid")) kill_by_file(run("f1") + "/nbd.pid");
        ASSERT_TRUE(remove_if_there(files_, run("f1") + "/serial.log"));
    }
    void clear_away() {
        ASSERT_TRUE(recoveries_->clean_up("f1", Recoveries::CleanUp::kRemoveCommitted));
        expect_nothing_left();
        const auto names = files_.list(own());
        for (const std::string& name : *names) ASSERT_TRUE(files_.remove(own() + "/" + name));
    }
};

// Broken if the machine needed its store, its lease or our server still, did not start from its
// files, or was taken away with the rest.
TEST_F(OwnFiles, TheMachineNeedsNobodyAndIsLetGo) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    EXPECT_EQ(recoveries_->make_own_files("f1", to()).error().code(), Code::kWrongState)
        << "it is not committed";
    ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
    ASSERT_TRUE(recoveries_->commit("f1"));
    EXPECT_EQ(recoveries_->make_own_files("f1", {.directory = "own"}).error().code(),
              Code::kInvalidArgument);
    EXPECT_EQ(recoveries_->let_go("f1").error().code(), Code::kWrongState);
    const Status made = make_files();
    ASSERT_TRUE(made) << made.error().to_string();
    EXPECT_TRUE(needs_nobody());
    EXPECT_TRUE(recoveries_->disks_to_fill("f1")->empty());
    EXPECT_EQ(recoveries_->hand_over_disks("f1").error().code(), Code::kWrongState);
    MoveRequest move;
    move.id = "f1";
    move.new_id = "f2";
    EXPECT_FALSE(recoveries_->move(move));
    EXPECT_EQ(recoveries_->get("f1")->own.at(1).path, own() + "/machine-f1-disk-1.qcow2");

    // The next vault, the next start.
    const pid_t machine = pid_of(run("f1") + "/qemu.pid");
    restart_vault();
    EXPECT_TRUE(needs_nobody());
    EXPECT_EQ(::kill(machine, 0), 0);
    recoveries_->tick();
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning);
    EXPECT_FALSE(recoveries_->get("f1")->error);
    cut_the_power();
    recoveries_->tick();
    ASSERT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped);
    const Status again = recoveries_->start_again("f1");
    ASSERT_TRUE(again) << again.error().to_string();
    expect_what_it_wrote();
    EXPECT_TRUE(needs_nobody());

    const pid_t kept = pid_of(run("f1") + "/qemu.pid");
    ASSERT_TRUE(recoveries_->let_go("f1"));
    EXPECT_TRUE(recoveries_->list().empty());
    restart_vault();
    EXPECT_TRUE(recoveries_->list().empty());
    EXPECT_EQ(::kill(kept, 0), 0) << "it was ended";
    EXPECT_TRUE(*files_.exists(own() + "/machine-f1-disk-0.qcow2"));
    // Its owner starts it.
    cut_the_power();
    run_tool({"sh", own() + "/f1.start"});
    expect_what_it_wrote();
}

// Broken if a copy that is given up, or that ends with its machine, left the machine on half of its
// disks, or a file that nobody knows.
TEST_F(OwnFiles, ACopyThatEndsLeavesTheMachineAsItWas) {
    fail_over();
    Recoveries::OwnFilesOrder slow = to();
    slow.bytes_per_s = 4096;
    ASSERT_TRUE(recoveries_->make_own_files("f1", slow));
    EXPECT_FALSE(recoveries_->get("f1")->own.empty());
    Recoveries::OwnFilesOrder other = slow;
    other.format = DiskFormat::kRaw;
    EXPECT_EQ(recoveries_->make_own_files("f1", other).error().code(), Code::kWrongState);
    ASSERT_TRUE(recoveries_->stop_own_files("f1"));
    EXPECT_TRUE(recoveries_->get("f1")->own.empty());
    EXPECT_TRUE(files_.list(own())->empty()) << "its file is left";
    ASSERT_TRUE(recoveries_->make_own_files("f1", slow));
    cut_the_power();
    restart_vault();
    ASSERT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped);
    EXPECT_EQ(recoveries_->make_own_files("f1", slow).error().code(), Code::kWrongState);
    ASSERT_TRUE(recoveries_->start_again("f1"));
    expect_what_it_wrote();
    EXPECT_TRUE(files_.list(own())->empty()) << "its file is left";
    ASSERT_TRUE(make_files());
    EXPECT_TRUE(needs_nobody());
    clear_away();
}

// Broken if a guest were held for ever by a vault that ended when its disk was switched: before the
// note, or behind it; or if it went on with something else than what was noted.
TEST_F(OwnFiles, AGuestThatIsHeldIsLetGoOn) {
    for (const auto stage : {OwnStage::kSwitching, OwnStage::kHeld}) {
        SCOPED_TRACE(static_cast<int>(stage));
        fail_over();
        ASSERT_TRUE(make_files());
        recoveries_.reset();
        // As it was just before its end.
        const std::string file = (directory_ / "s") + "/f1/recovery.json";
        RecoveryState state = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
        state.own.at(1).stage = stage;
        ASSERT_TRUE(write_file_durably(files_, file, as_bytes(encode_recovery_state(state))));
        restart_vault();
        EXPECT_TRUE(needs_nobody()) << "nobody asked the machine";
        cut_the_power();
        recoveries_->tick();
        ASSERT_TRUE(recoveries_->start_again("f1"));
        expect_what_it_wrote();
        clear_away();
    }
}

// Broken if a vault that ends between two steps left the machine held, on files that lack a write,
// or on disks that are old; with or without the machine and its host.
TEST_F(OwnFiles, TheVaultEndsBeforeAnyStep) {
    for (int steps = 0;; ++steps) {
        SCOPED_TRACE(steps);
        ASSERT_LT(steps, 100);
        fail_over();
        if (HasFatalFailure()) return;
        disk_.left = steps;
        const bool done = make_files().has_value();
        recoveries_.reset();
        disk_.left = StoppingFiles::kNever;
        // The power fails with every other one: what was noted is what the machine starts on.
        const bool power = steps % 2 == 1;
        if (power) cut_the_power();
        restart_vault();
        ASSERT_FALSE(HasFatalFailure());
        if (power) {
            ASSERT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped);
            const Status again = recoveries_->start_again("f1");
            ASSERT_TRUE(again) << again.error().to_string();
            expect_what_it_wrote();
        }
        const Status made = make_files();
        ASSERT_TRUE(made) << made.error().to_string();
        EXPECT_TRUE(needs_nobody());
        EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning);
        cut_the_power();
        recoveries_->tick();
        ASSERT_TRUE(recoveries_->start_again("f1"));
        expect_what_it_wrote();
        clear_away();
        if (HasFailure() || done) {
            EXPECT_GT(steps, 10);
            return;
        }
    }
}

}  // namespace
}  // namespace farshore
