#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>

#include "compute/nbd_server.h"
#include "compute/test_support.h"
#include "recovery/recovery_test_site.h"

namespace farshore {
namespace {

// The place of a machine at a host that may be away.
class RackMachine final : public RecoveryMachine {
  public:
    RackMachine(std::unique_ptr<RecoveryMachine> machine, const std::atomic<bool>& away)
        : machine_(std::move(machine)), away_(away) {}
    bool alive() override { return away_ || machine_->alive(); }
    Result<MachineState> state() override {
        if (away_) return gone();
        return machine_->state();
    }
    Result<MachineActivity> activity() override {
        if (away_) return gone();
        return machine_->activity();
    }
    Result<TrialSample> trial_sample() override { return fail(Code::kUnsupported, "no trials"); }
    Status tend(bool) override { return {}; }
    Status press_power_button() override { return gone(); }
    Status kill() override {
        if (away_) return gone();
        return machine_->kill();
    }
    Status screenshot(const std::string&) override { return gone(); }
    Result<uint16_t> forward_port(uint16_t) override { return gone(); }
    Result<size_t> taken_connections(uint16_t) override { return gone(); }
    static tl::unexpected<Error> gone() {
        return fail(Code::kUnavailable, "the host cannot be reached");
    }

  private:
    std::unique_ptr<RecoveryMachine> machine_;
    const std::atomic<bool>& away_;
};

class Rack final : public RecoveryCompute {
  public:
    Rack(FileSystem& files, const std::string& verdict_path) : qemu_(files, verdict_path, "tcg") {}
    std::string where() const override { return "rack"; }
    Result<AcceleratorVerdict> accelerator() override { return qemu_.accelerator(); }
    Result<HostCapacity> room() override { return qemu_.room(); }
    Status check(const MachineDescription& machine,
                 const std::vector<NetworkChoice>& networks) override {
        return qemu_.check(machine, networks);
    }
    Status check_addresses(const MachineDescription&, const std::vector<NetworkChoice>&,
                           const CardAddresses&) override {
        return {};
    }
    Result<std::unique_ptr<RecoveryMachine>> start(const MachineOrder& order) override {
        if (away) return RackMachine::gone();
        FS_ASSIGN(auto machine, qemu_.start(order));
        return std::make_unique<RackMachine>(std::move(machine), away);
    }
    Result<std::unique_ptr<RecoveryMachine>> adopt(const MachinePlace& place) override {
        FS_ASSIGN(auto machine, qemu_.adopt(place));
        return std::make_unique<RackMachine>(std::move(machine), away);
    }
    Status clean_up(const MachinePlace& place) override {
        if (away) return RackMachine::gone();
        return qemu_.clean_up(place);
    }
    Result<GuestAgent> guest_agent(const MachinePlace& place, int timeout_ms) override {
        return qemu_.guest_agent(place, timeout_ms);
    }
    MachineDoors doors(const MachinePlace& place) const override { return qemu_.doors(place); }

    std::atomic<bool> away = false;

  private:
    QemuCompute qemu_;
};

class MovedMachine : public RecoverySiteTest {
  protected:
    void SetUp() override {
        rack_ = std::make_shared<Rack>(files_, directory_ / "rack.json");
        compute_ = [this](const std::string& name) -> Result<std::shared_ptr<RecoveryCompute>> {
            if (name != "rack" || !rack_is_known_) return fail(Code::kNotFound, "no such host");
            return rack_;
        };
        RecoverySiteTest::SetUp();
    }
    // A failover at the rack, which has written, whose rack is lost then.
    void lose_the_rack() {
        RecoveryRequest wanted = request("f1", RecoveryKind::kFailover, first_);
        wanted.compute = "rack";
        const auto started = recoveries_->start(wanted);
        ASSERT_TRUE(started) << started.error().to_string();
        ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
        left_ = pid_of(run("f1") + "/qemu.pid");
        rack_->away = true;
    }
    MoveRequest to(const std::string& compute) {
        MoveRequest move;
        move.id = "f1";
        move.new_id = "f2";
        move.compute = compute;
        move.network = {NetworkKind::kUser};
        return move;
    }
    void expect_it_went_on(const std::string& id) {
        const auto state = recoveries_->get(id);
        ASSERT_TRUE(state) << state.error().to_string();
        EXPECT_EQ(state->stage, RecoveryStage::kRunning)
            << (state->error ? state->error->what : "");
        const std::string said = serial(id);
        EXPECT_NE(said.find("L00000009 " + hex_of("WWWWWWWWWWWWWWWW")), std::string::npos)
            << "what the machine wrote before it was moved is lost: " << said;
        EXPECT_EQ(leases_.held.size(), 1u);
    }
    void expect_the_rack_is_cleared() {
        clock_.skipped_us += 10'000'000;
        recoveries_->tick_elsewhere();
        EXPECT_EQ(recoveries_->get("f1").error().code(), Code::kNotFound);
        EXPECT_FALSE(*files_.exists(run("f1")));
    }

    std::shared_ptr<Rack> rack_;
    bool rack_is_known_ = true;
    pid_t left_ = 0;
};

// Broken if what the machine wrote were lost with its host, if the one that was left there could
// write to its disks, or were left there for ever.
TEST_F(MovedMachine, GoesOnWhenItsHostIsLost) {
    lose_the_rack();
    ASSERT_TRUE(recoveries_->commit("f1"));
    EXPECT_EQ(recoveries_->move(to("rack")).error().code(), Code::kInvalidArgument);
    const auto moved = recoveries_->move(to(""));
    ASSERT_TRUE(moved) << moved.error().to_string();
    EXPECT_TRUE(moved->committed);
    expect_it_went_on("f2");
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kCleaning);
    EXPECT_EQ(::kill(left_, 0), 0) << "nobody can have ended it";
    EXPECT_FALSE(*files_.exists(run("f1") + "/nbd.sock")) << "it still has its disks";
    ASSERT_TRUE(recoveries_->move(to(""))) << "the same once more";
    restart_vault();
    expect_it_went_on("f2");
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kCleaning);
    rack_->away = false;
    expect_the_rack_is_cleared();
    EXPECT_EQ(::kill(left_, 0), -1);
    expect_it_went_on("f2");
    ASSERT_TRUE(recoveries_->clean_up("f2", Recoveries::CleanUp::kRemoveCommitted));
    expect_nothing_left();
}

// Broken if a host that is gone for good were waited for after it was forgotten.
TEST_F(MovedMachine, AHostThatIsForgottenIsNotWaitedFor) {
    lose_the_rack();
    ASSERT_TRUE(recoveries_->move(to("")));
    clock_.skipped_us += 10'000'000;
    recoveries_->tick_elsewhere();
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kCleaning);
    rack_is_known_ = false;
    expect_the_rack_is_cleared();
    expect_it_went_on("f2");
    ASSERT_TRUE(::kill(left_, SIGKILL) == 0);
    ASSERT_TRUE(recoveries_->clean_up("f2"));
    expect_nothing_left();
}

// Broken if a machine on this host could not go to another one, or were left here.
TEST_F(MovedMachine, GoesFromHereToAnotherHost) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
    const auto moved = recoveries_->move(to("rack"));
    ASSERT_TRUE(moved) << moved.error().to_string();
    EXPECT_EQ(moved->compute, "rack");
    expect_it_went_on("f2");
    EXPECT_EQ(recoveries_->get("f1").error().code(), Code::kNotFound);
    EXPECT_EQ(recoveries_->change_point("f2", first_, {})->sequence, first_);
    ASSERT_TRUE(recoveries_->clean_up("f2"));
    expect_nothing_left();
}

// Broken if a move to where the machine does not start lost what it had written.
TEST_F(MovedMachine, WhatDoesNotStartThereIsMovedAgain) {
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
    rack_->away = true;
    EXPECT_FALSE(recoveries_->move(to("rack")));
    EXPECT_EQ(recoveries_->get("f2")->stage, RecoveryStage::kFailed);
    MoveRequest back = to("");
    back.id = "f2";
    back.new_id = "f3";
    const auto moved = recoveries_->move(back);
    ASSERT_TRUE(moved) << moved.error().to_string();
    expect_it_went_on("f3");
    ASSERT_TRUE(recoveries_->clean_up("f3"));
}

TEST_F(MovedMachine, WhatCannotBeMovedIsRefused) {
    ASSERT_TRUE(recoveries_->start(request("t1", RecoveryKind::kTest, first_)));
    MoveRequest move = to("rack");
    move.id = "t1";
    EXPECT_EQ(recoveries_->move(move).error().code(), Code::kWrongState);
    move = to("nowhere");
    EXPECT_EQ(recoveries_->move(move).error().code(), Code::kNotFound) << "no such recovery";
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    EXPECT_EQ(recoveries_->move(move).error().code(), Code::kNotFound) << "no such host";
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kRunning);
    EXPECT_EQ(recoveries_->get("f2").error().code(), Code::kNotFound) << "something was begun";
}

// Broken if the disks went with what was to get them, when it is gone before it got any.
TEST_F(MovedMachine, WhatWasToGetTheDisksMayBeGone) {
    const std::string file = (directory_ / "s") + "/f1/recovery.json";
    for (const bool half_gone : {false, true}) {
        SCOPED_TRACE(half_gone);
        ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
        ASSERT_NE(serial("f1").find("WROTE"), std::string::npos);
        recoveries_.reset();
        RecoveryState state = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
        if (half_gone) {
            RecoveryState next = state;
            next.id = "f2";
            next.stage = RecoveryStage::kCleaning;
            next.lease = 0;
            ASSERT_TRUE(files_.make_directories((directory_ / "s") + "/f2"));
            ASSERT_TRUE(write_file_durably(files_, (directory_ / "s") + "/f2/recovery.json",
                                           as_bytes(encode_recovery_state(next))));
        }
        state.stage = RecoveryStage::kMoving;
        state.moved_to = "f2";
        ASSERT_TRUE(write_file_durably(files_, file, as_bytes(encode_recovery_state(state))));
        // Also when the host was restarted since.
        kill_by_file(run("f1") + "/qemu.pid");
        kill_by_file(run("f1") + "/nbd.pid");
        restart_vault();
        EXPECT_EQ(recoveries_->get("f2").error().code(), Code::kNotFound);
        ASSERT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kStopped);
        ASSERT_TRUE(recoveries_->start_again("f1"));
        expect_it_went_on("f1");
        ASSERT_TRUE(recoveries_->clean_up("f1"));
        expect_nothing_left();
    }
    // One whose state cannot be read has them, perhaps.
    ASSERT_TRUE(recoveries_->start(request("f1", RecoveryKind::kFailover, first_)));
    serial("f1");
    recoveries_.reset();
    RecoveryState state = *decode_recovery_state(as_text(*read_whole_file(files_, file)));
    state.stage = RecoveryStage::kMoving;
    state.moved_to = "f2";
    ASSERT_TRUE(write_file_durably(files_, file, as_bytes(encode_recovery_state(state))));
    ASSERT_TRUE(files_.make_directories((directory_ / "s") + "/f2"));
    ASSERT_TRUE(write_file_durably(files_, (directory_ / "s") + "/f2/recovery.json",
                                   as_bytes("not the state of anything")));
    new_recoveries();
    EXPECT_FALSE(recoveries_->resume());
    EXPECT_EQ(recoveries_->get("f1")->stage, RecoveryStage::kMoving);
    EXPECT_EQ(recoveries_->get("f1")->error->code, Code::kCorrupt);
    EXPECT_TRUE(*files_.exists((directory_ / "s") + "/f1/disk-0.overlay"));
}

// Broken if a vault that ends between two steps of a move left half of the disks behind, started
// the machine on what is not all of them, or started it twice.
TEST_F(MovedMachine, TheVaultEndsBeforeAnyStep) {
    for (int steps = 0;; ++steps) {
        SCOPED_TRACE(steps);
        ASSERT_LT(steps, 100);
        lose_the_rack();
        if (HasFatalFailure()) return;
        disk_.left = steps;
        const bool done = recoveries_->move(to("")).has_value();
        // From there on it is a start like any other.
        const auto second = recoveries_->get("f2");
        if (second && second->stage != RecoveryStage::kArriving &&
            second->stage != RecoveryStage::kPreparing) {
            EXPECT_GT(steps, 10);
            return;
        }
        recoveries_.reset();
        disk_.left = StoppingFiles::kNever;
        restart_vault();
        ASSERT_FALSE(HasFatalFailure());
        const auto first = recoveries_->get("f1");
        if (first && first->stage == RecoveryStage::kRunning) {
            EXPECT_FALSE(recoveries_->get("f2")) << "it was started twice";
            EXPECT_FALSE(done);
            ASSERT_TRUE(recoveries_->move(to("")));
        } else {
            EXPECT_TRUE(!first || first->stage == RecoveryStage::kCleaning)
                << recovery_stage_name(first->stage);
        }
        expect_it_went_on("f2");
        rack_->away = false;
        expect_the_rack_is_cleared();
        ASSERT_TRUE(recoveries_->clean_up("f2"));
        expect_nothing_left();
        if (HasFailure()) return;
    }
}

}  // namespace
}  // namespace farshore
