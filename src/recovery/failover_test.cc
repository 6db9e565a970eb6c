#include "recovery/failover.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "compute/nbd_server.h"
#include "compute/test_support.h"
#include "recovery/hydration.h"
#include "recovery/recovery_test_site.h"

namespace farshore {
namespace {

using replica_test::Appliance;
using replica_test::test_item;
using replica_test::test_key;

class FailoverTest : public RecoverySiteTest {
  protected:
    Result<HydrationReport> hydrated() {
        hydration_.files = &files_;
        hydration_.clock = &clock_;
        return hydrate(*recoveries_, "f1", hydration_);
    }

    HydrationOptions hydration_{.report = [](uint64_t, uint64_t) -> Status { return {}; }};
};

TEST_F(FailoverTest, TestFailoverBootsThePointAndLeavesNothing) {
    const auto state = recoveries_->start(request("t1", RecoveryKind::kTest, first_));
    ASSERT_TRUE(state) << state.error().to_string();
    EXPECT_EQ(state->stage, RecoveryStage::kRunning);
    EXPECT_GE(state->timings.first_read_ms, state->timings.machine_started_ms - 1);
    EXPECT_GE(state->timings.machine_started_ms, state->timings.disks_ready_ms);
    EXPECT_GE(state->timings.disks_ready_ms, 0);
    const std::string said = serial("t1");
    EXPECT_NE(said.find("D80 L00000001 " + hex_of("first version.  ")), std::string::npos) << said;
    EXPECT_NE(said.find("D81 L00000001 " + hex_of("the second disk.")), std::string::npos) << said;
    EXPECT_NE(said.find("WROTE"), std::string::npos) << "the guest cannot write: " << said;
    EXPECT_EQ(leases_.held.size(), 1u);
    const pid_t qemu = pid_of(run("t1") + "/qemu.pid"), nbdkit = pid_of(run("t1") + "/nbd.pid");
    ASSERT_TRUE(recoveries_->clean_up("t1"));
    expect_nothing_left();
    EXPECT_EQ(::kill(qemu, 0), -1);
    EXPECT_EQ(::kill(nbdkit, 0), -1);
    EXPECT_TRUE(recoveries_->clean_up("t1")) << "a repeated clean-up is an error";
    EXPECT_EQ(stages_,
              (std::vector<std::string>{"preparing", "preparing", "starting-disks",
                                        "starting-machine", "running", "cleaning", "gone"}));
}

TEST_F(FailoverTest, AnyNumberAtOnceAtDifferentPointsDoNotTouchEachOther) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    serial("t1");  // it has written its sector 9
    ASSERT_TRUE(recoveries_->start(request("t2", RecoveryKind::kTest, second_)));
    ASSERT_TRUE(recoveries_->start(request("t3", RecoveryKind::kTest, first_)));
    const std::string two = serial("t2"), three = serial("t3");
    EXPECT_NE(two.find(hex_of("second version. ")), std::string::npos) << two;
    EXPECT_NE(three.find(hex_of("first version.  ")), std::string::npos) << three;
    EXPECT_NE(three.find("L00000009 " + std::string(32, '0')), std::string::npos)
        << "one test sees what another has written: " << three;
    EXPECT_EQ(recoveries_->start(request("t2", RecoveryKind::kTest, first_)).error().code(),
              Code::kAlreadyExists);
    for (const char* id : {"t1", "t2", "t3"}) ASSERT_TRUE(recoveries_->clean_up(id));
    expect_nothing_left();
}

TEST_F(FailoverTest, FailoverChangesItsPointUntilItIsCommitted) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, second_)));
    EXPECT_NE(serial("f1").find(hex_of("second version. ")), std::string::npos);
    leases_.gone.insert(99);
    EXPECT_EQ(recoveries_->change_point("f1", {99}, {}).error().code(), Code::kPointOutsideWindow);
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning)
        << "a refused change ended the machine";
    const auto changed = recoveries_->change_point("f1", first_, {});
    ASSERT_TRUE(changed) << changed.error().to_string();
    EXPECT_EQ(changed->sequence, first_);
    const std::string said = serial("f1");
    EXPECT_NE(said.find(hex_of("first version.  ")), std::string::npos) << said;
    EXPECT_NE(said.find("L00000009 " + std::string(32, '0')), std::string::npos)
        << "what the machine wrote at the other point is still there: " << said;
    ASSERT_EQ(leases_.held.size(), 1u) << "the lease on the old point is held";
    EXPECT_EQ(leases_.held.begin()->second, first_.v);

    ASSERT_TRUE(recoveries_->commit("f1"));
    ASSERT_TRUE(recoveries_->commit("f1"));
    EXPECT_EQ(recoveries_->change_point("f1", second_, {}).error().code(), Code::kWrongState);
    EXPECT_EQ(recoveries_->clean_up("f1").error().code(), Code::kWrongState);
    EXPECT_EQ(leases_.held.size(), 1u) << "the committed machine still reads from the replica";
    restart_vault();
    EXPECT_TRUE(recoveries_->get("f1")->committed);
    ASSERT_TRUE(recoveries_->clean_up("f1", Recoveries::CleanUp::kRemoveCommitted));
    expect_nothing_left();
}

TEST_F(FailoverTest, LookingDoesNotWaitForAStart) {
    bool seen = false;
    on_change_ = [&](const RecoveryState& state) {
        if (state.stage != RecoveryStage::kStartingMachine) return;
        // From within the start, which holds the recovery: waiting for it would never end.
        const auto now = recoveries_->get("t1");
        seen =
            now && now->stage == RecoveryStage::kStartingMachine && recoveries_->list().size() == 1;
    };
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    EXPECT_TRUE(seen);
}

TEST_F(FailoverTest, RequestsThatDoNotFitTheStateAreRefused) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    EXPECT_EQ(recoveries_->commit("t1").error().code(), Code::kWrongState);
    EXPECT_EQ(recoveries_->change_point("t1", second_, {}).error().code(), Code::kWrongState);
    EXPECT_EQ(recoveries_->commit("nothing").error().code(), Code::kNotFound);
    EXPECT_EQ(recoveries_->start(request("../x", RecoveryKind::kTest, first_)).error().code(),
              Code::kInvalidArgument);
    RecoveryRequest diskless = request("t2", RecoveryKind::kTest, first_);
    diskless.machine.disks.clear();
    EXPECT_EQ(recoveries_->start(diskless).error().code(), Code::kInvalidArgument);
}

TEST_F(FailoverTest, StartThatFailsLeavesNothing) {
    leases_.gone.insert(first_.v);
    EXPECT_EQ(recoveries_->start(request("t1", RecoveryKind::kTest, first_)).error().code(),
              Code::kPointOutsideWindow);
    expect_nothing_left();
    leases_.gone.clear();
    // The lease is given, but the store has no such sequence: nbdkit ends.
    const auto unstored = recoveries_->start(request("t1", RecoveryKind::kTest, {last_ + 100}));
    ASSERT_FALSE(unstored);
    EXPECT_NE(unstored.error().what().find("nbdkit"), std::string::npos) << unstored.error().what();
    expect_nothing_left();
    // The disks start, QEMU does not.
    RecoveryRequest impossible = request("t1", RecoveryKind::kTest, first_);
    impossible.machine.nics[0].model = "no-such-card";
    const auto started = recoveries_->start(impossible);
    ASSERT_FALSE(started);
    EXPECT_NE(started.error().what().find("no-such-card"), std::string::npos)
        << started.error().what();
    expect_nothing_left();
}

TEST_F(FailoverTest, RestartedVaultAdoptsWhatRuns) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    serial("t1");
    const pid_t qemu = pid_of(run("t1") + "/qemu.pid");
    restart_vault();
    const auto state = recoveries_->get("t1");
    ASSERT_TRUE(state);
    EXPECT_EQ(state->stage, RecoveryStage::kRunning);
    EXPECT_EQ(pid_of(run("t1") + "/qemu.pid"), qemu) << "the machine was started anew";
    EXPECT_GT(leases_.renewals, 0) << "the lease may expire under the machine";
    ASSERT_TRUE(recoveries_->clean_up("t1"));
    expect_nothing_left();
}

// The vault is killed before each step in turn; whoever starts after it ends with the machine
// running or with nothing, and can clean up.
TEST_F(FailoverTest, VaultKilledBeforeAnyStepIsTakenUp) {
    for (const char* last_stage : {"preparing", "starting-disks", "starting-machine", "cleaning"}) {
        SCOPED_TRACE(last_stage);
        // A copy of the state file as it was at that stage is what a killed vault leaves. The
        // processes are those that were running a moment later: the worst case.
        const std::string file = (directory_ / "s") + "/t1/recovery.json";
        Bytes kept;
        on_change_ = [&](const RecoveryState& state) {
            if (recovery_stage_name(state.stage) == last_stage && kept.empty())
                kept = *read_whole_file(files_, file);
        };
        ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
        if (std::string(last_stage) == "cleaning") {
            RecoveryState state = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
            state.stage = RecoveryStage::kCleaning;
            const std::string json = encode_recovery_state(state);
            kept.assign(json.begin(), json.end());
        }
        on_change_ = nullptr;
        ASSERT_FALSE(kept.empty());
        recoveries_.reset();
        ASSERT_TRUE(write_file_durably(files_, file, kept));
        restart_vault();
        if (std::string(last_stage) == "cleaning") {
            expect_nothing_left();
        } else {
            const auto state = recoveries_->get("t1");
            ASSERT_TRUE(state);
            EXPECT_EQ(state->stage, RecoveryStage::kRunning)
                << (state->error ? state->error->what : "");
            EXPECT_NE(serial("t1").find(hex_of("first version.  ")), std::string::npos);
            ASSERT_TRUE(recoveries_->clean_up("t1"));
            // A lease that was taken and not noted expires by itself.
            leases_.held.clear();
            expect_nothing_left();
        }
    }
}

TEST_F(FailoverTest, ProcessesWhoseIdWasNotNotedAreFoundByTheirSockets) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    const pid_t qemu = pid_of(run("t1") + "/qemu.pid"), nbdkit = pid_of(run("t1") + "/nbd.pid");
    recoveries_.reset();  // lets go of the monitor, as a killed vault does
    ASSERT_TRUE(files_.remove(run("t1") + "/qemu.pid"));
    ASSERT_TRUE(files_.remove(run("t1") + "/nbd.pid"));
    restart_vault();
    ASSERT_TRUE(recoveries_->clean_up("t1"));
    EXPECT_EQ(::kill(qemu, 0), -1);
    EXPECT_EQ(::kill(nbdkit, 0), -1);
    expect_nothing_left();
}

TEST_F(FailoverTest, HostThatWasRestartedStartsTheMachineOnItsOverlay) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    serial("f1", "DONE");
    recoveries_.reset();
    kill_by_file(run("f1") + "/qemu.pid");
    kill_by_file(run("f1") + "/nbd.pid");
    ASSERT_TRUE(files_.remove(run("f1") + "/serial.log"));
    const std::string file = (directory_ / "s") + "/f1/recovery.json";
    RecoveryState state = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
    state.boot = "the boot before";
    ASSERT_TRUE(write_file_durably(files_, file, as_bytes(encode_recovery_state(state))));
    restart_vault();
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning);
    const std::string said = serial("f1");
    EXPECT_NE(said.find("L00000009 " + hex_of("WWWWWWWWWWWWWWWW")), std::string::npos)
        << "what the machine wrote before the host went down is lost: " << said;
}

TEST_F(FailoverTest, HydratedMachineNeedsNeitherStoreNorLease) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    serial("f1");
    EXPECT_EQ(hydrated().error().code(), Code::kWrongState) << "its point may change still";
    ASSERT_TRUE(recoveries_->commit("f1"));
    hydration_.reserve_bytes = UINT64_MAX;
    EXPECT_EQ(hydrated().error().code(), Code::kNoSpace);
    EXPECT_FALSE(recoveries_->get("f1")->hydrated);
    EXPECT_EQ(leases_.held.size(), 1u);
    hydration_.reserve_bytes = 0;
    const auto done = hydrated();
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(done->disk_bytes, 2 * kRecoveredDiskBytes);
    EXPECT_TRUE(recoveries_->get("f1")->hydrated);
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning);
    EXPECT_TRUE(leases_.held.empty());
    ASSERT_TRUE(hydrated()) << "once more is an error";

    std::filesystem::rename(directory_ / "store", directory_ / "away");
    clock_.skipped_us += 7200ll * 1'000'000;
    kill_by_file(run("f1") + "/nbd.pid");
    recoveries_->tick();
    EXPECT_FALSE(recoveries_->get("f1")->error) << recoveries_->get("f1")->error->what;
    kill_by_file(run("f1") + "/qemu.pid");
    recoveries_->tick();
    restart_vault();
    ASSERT_TRUE(files_.remove(run("f1") + "/serial.log"));
    const Status again = recoveries_->start_again("f1");
    ASSERT_TRUE(again) << again.error().to_string();
    const std::string said = serial("f1");
    EXPECT_NE(said.find("D80 L00000001 " + hex_of("first version.  ")), std::string::npos) << said;
    EXPECT_NE(said.find("D81 L00000001 " + hex_of("the second disk.")), std::string::npos) << said;
    EXPECT_NE(said.find("L00000009 " + hex_of("WWWWWWWWWWWWWWWW")), std::string::npos) << said;
    EXPECT_TRUE(leases_.held.empty());
    ASSERT_TRUE(recoveries_->clean_up("f1", Recoveries::CleanUp::kRemoveCommitted));
    expect_nothing_left();
}

TEST_F(FailoverTest, HydrationGoesOnWhereItWasKilled) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    serial("f1");
    ASSERT_TRUE(recoveries_->commit("f1"));
    // Whoever asked dies.
    hydration_.report = [](uint64_t, uint64_t) -> Status { return fail(Code::kCancelled, "end"); };
    EXPECT_EQ(hydrated().error().code(), Code::kCancelled);
    EXPECT_FALSE(recoveries_->get("f1")->hydrated);
    restart_vault();
    // Whoever copies dies, in the middle of it.
    int reports = 0;
    hydration_.report = [&](uint64_t, uint64_t) -> Status {
        if (++reports == 1) kill_by_file(run("f1") + "/nbd.pid");
        recoveries_->tick();
        return {};
    };
    const auto done = hydrated();
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_TRUE(recoveries_->get("f1")->hydrated);
    EXPECT_EQ(recoveries_->get("f1")->disk_server_restarts, 1u);
    std::filesystem::rename(directory_ / "store", directory_ / "away");
    const std::string socket = recoveries_->access("f1")->nbd_socket;
    for (const char* read : {"read -P 0x57 4608 512", "read -P 0 1M 1M"}) {
        const std::string said =
            run_tool({"qemu-io", "-r", "-f", "raw", "-c", read, "nbd+unix:///0?socket=" + socket});
        EXPECT_EQ(said.find("verification failed"), std::string::npos) << said;
    }
}

TEST_F(FailoverTest, DiskServerThatDiesIsStartedAgainWithWhatWasWritten) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    serial("t1");
    kill_by_file(run("t1") + "/nbd.pid");
    recoveries_->tick();
    const auto state = recoveries_->get("t1");
    ASSERT_TRUE(state);
    EXPECT_EQ(state->disk_server_restarts, 1u);
    EXPECT_FALSE(state->error) << state->error->what;
    const std::string socket = recoveries_->access("t1")->nbd_socket;
    const std::string read = run_tool({"qemu-io", "-r", "-f", "raw", "-c", "read -P 0x57 4608 512",
                                       "nbd+unix:///0?socket=" + socket});
    EXPECT_EQ(read.find("verification failed"), std::string::npos) << read;
}

// Broken if cloud-init found no disk, or another one after the vault, the disk server or the host
// was started anew, if a captured machine's tap were asked for it, or if it stayed.
TEST_F(FailoverTest, CloudInitHasItsDiskAsLongAsTheMachineIsThere) {
    RecoveryRequest asked = request("f1", RecoveryKind::kFailover, first_);
    asked.machine.nics[0].mac = "52:54:00:aa:00:01";
    asked.addresses = {{0, {"10.77.0.3/24", "", {}, AddressBy::kCloudInit}}};
    const auto state = recoveries_->start(asked);
    ASSERT_TRUE(state) << state.error().to_string();
    EXPECT_EQ(state->address_stage, AddressStage::kNone) << "no agent is asked";
    EXPECT_EQ(state->machine.disks.size(), 2u) << "it is none of the machine's own";
    const std::string socket = recoveries_->access("f1")->nbd_socket;
    const auto seed = [&] {
        const std::string copy = directory_ / "copy";
        std::filesystem::remove(copy);
        run_tool({"nbdcopy", "nbd+unix:///2?socket=" + socket, copy});
        return to_text(read_whole_file(files_, copy, 16u << 20).value_or(Bytes{}));
    };
    const std::string first = seed();
    EXPECT_NE(first.find("\"52:54:00:aa:00:01\""), std::string::npos);
    EXPECT_NE(first.find("\"10.77.0.3/24\""), std::string::npos);
    kill_by_file(run("f1") + "/nbd.pid");
    recoveries_->tick();
    EXPECT_EQ(seed(), first) << "its server was started anew";
    recoveries_.reset();
    kill_by_file(run("f1") + "/qemu.pid");
    kill_by_file(run("f1") + "/nbd.pid");
    std::filesystem::remove_all(run("f1"));
    restart_vault();
    ASSERT_TRUE(recoveries_->get("f1"));
    ASSERT_TRUE(recoveries_->start_again("f1"));
    EXPECT_EQ(seed(), first) << "the host was started anew";
    ASSERT_TRUE(recoveries_->commit("f1"));
    ASSERT_TRUE(recoveries_->hand_over_disks("f1"));
    const auto handed = recoveries_->handed_disks(test_item());
    ASSERT_TRUE(handed) << handed.error().to_string();
    EXPECT_EQ(handed->config.disks.size(), 2u);
    ASSERT_TRUE(recoveries_->clean_up("f1", Recoveries::CleanUp::kRemoveCommitted));
    expect_nothing_left();
}

TEST_F(FailoverTest, MachineThatEndsIsNoticedAndItsDisksAreKept) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    serial("f1");
    kill_by_file(run("f1") + "/qemu.pid");
    recoveries_->tick();
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped);
    restart_vault();
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped)
        << "a machine that was shut down is started again by a restart of the vault";
    EXPECT_EQ(leases_.held.size(), 1u);
    ASSERT_TRUE(recoveries_->commit("f1"));
}

TEST_F(FailoverTest, LeasesAreRenewedAndTakenAnewWhenLost) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    recoveries_->tick();
    EXPECT_EQ(leases_.renewals, 0);
    clock_.skipped_us += 1300ll * 1'000'000;
    recoveries_->tick();
    EXPECT_EQ(leases_.renewals, 1);
    leases_.held.clear();
    clock_.skipped_us += 1300ll * 1'000'000;
    recoveries_->tick();
    EXPECT_EQ(leases_.held.size(), 1u) << "a lost lease was not taken anew";
    leases_.held.clear();
    leases_.gone.insert(first_.v);
    clock_.skipped_us += 1300ll * 1'000'000;
    recoveries_->tick();
    const auto state = recoveries_->get("t1");
    EXPECT_EQ(state->stage, RecoveryStage::kRunning);
    ASSERT_TRUE(state->error) << "nobody is told that the machine's point is gone";
    EXPECT_EQ(state->error->code, Code::kPointOutsideWindow);
}

// A guest that reads, says its words and halts: what a kernel that dies early looks like.
class SilentGuestTest : public FailoverTest {
  protected:
    uint32_t write_sector() const override { return 0; }
};

TEST_F(SilentGuestTest, GuestThatKvmDoesNotCarryIsStartedAgainEmulated) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    serial("t1");
    // KVM is not everywhere that tests run: a machine that is said to run under it does as well.
    recoveries_.reset();
    const std::string file = (directory_ / "s") + "/t1/recovery.json";
    RecoveryState claimed = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
    claimed.accelerator = Accelerator::kKvm;
    claimed.on_trial = true;
    ASSERT_TRUE(write_file_durably(files_, file, as_bytes(encode_recovery_state(claimed))));
    const pid_t first_process = pid_of(run("t1") + "/qemu.pid");
    accelerator_ = "";
    restart_vault();
    for (int i = 0; i < 20 && recoveries_->get("t1")->on_trial; ++i) {
        clock_.skipped_us += 1'000'000;
        recoveries_->tick();
    }
    const auto state = recoveries_->get("t1");
    ASSERT_TRUE(state);
    EXPECT_FALSE(state->on_trial);
    EXPECT_EQ(state->stage, RecoveryStage::kRunning);
    EXPECT_EQ(state->accelerator, Accelerator::kTcg) << state->accelerator_words;
    EXPECT_NE(pid_of(run("t1") + "/qemu.pid"), first_process);
    EXPECT_NE(serial("t1").find("DONE"), std::string::npos);
    EXPECT_TRUE(*files_.exists((directory_ / "s") + "/accelerator.json"))
        << "every machine is started twice";
}

TEST_F(FailoverTest, WithoutBeingToldHowItStartsSomehow) {
    accelerator_ = "";
    restart_vault();
    const auto first = recoveries_->start(request("t1", RecoveryKind::kTest, first_));
    ASSERT_TRUE(first) << first.error().to_string();
    EXPECT_NE(serial("t1").find("DONE"), std::string::npos) << first->accelerator_words;
    EXPECT_FALSE(first->accelerator_words.empty());
}

TEST_F(FailoverTest, ExportServesOneDiskReadOnlyAndEnds) {
    const std::string socket = directory_ / "export.sock";
    ExportRequest wanted;
    wanted.id = "e1";
    wanted.item = test_item();
    wanted.sequence = first_;
    wanted.disk = 1;
    wanted.socket_path = socket;
    const auto state = recoveries_->start_export(wanted);
    ASSERT_TRUE(state) << state.error().to_string();
    const std::string info = run_tool({"nbdinfo", "--json", "nbd+unix://?socket=" + socket});
    EXPECT_NE(info.find("\"export-size\": 2097152"), std::string::npos) << info;
    EXPECT_NE(info.find("\"is_read_only\": true"), std::string::npos) << info;
    run_tool({"nbdcopy", "nbd+unix://?socket=" + socket, directory_ / "copy"});
    const auto copy = read_whole_file(files_, directory_ / "copy");
    ASSERT_TRUE(copy);
    EXPECT_EQ(as_text(ByteView(*copy).subspan(512, 16)), "the second disk.");
    EXPECT_EQ(recoveries_->start_export(wanted).error().code(), Code::kAlreadyExists);
    restart_vault();
    EXPECT_TRUE(unix_socket_accepts(socket)) << "the export ended with the vault";
    ASSERT_TRUE(recoveries_->clean_up("e1"));
    EXPECT_FALSE(*files_.exists(socket));
    expect_nothing_left();
    wanted.disk = 7;
    EXPECT_FALSE(recoveries_->start_export(wanted));
    expect_nothing_left();
}

TEST_F(FailoverTest, StateOfANewerFarshoreIsLeftAlone) {
    ASSERT_TRUE(recoveries_->start(request("t2", RecoveryKind::kTest, first_)));
    ASSERT_TRUE(files_.make_directories((directory_ / "s") + "/t1"));
    ASSERT_TRUE(write_file_durably(files_, (directory_ / "s") + "/t1/recovery.json",
                                   as_bytes("{\"version\": 3}")));
    recoveries_.reset();
    new_recoveries();
    const Status resumed = recoveries_->resume();
    ASSERT_FALSE(resumed);
    EXPECT_EQ(resumed.error().code(), Code::kNewerVersion);
    EXPECT_TRUE(recoveries_->get("t2")) << "one bad state kept the vault from finding its machines";
    EXPECT_TRUE(*files_.exists((directory_ / "s") + "/t1/recovery.json"));
}

}  // namespace
}  // namespace farshore
