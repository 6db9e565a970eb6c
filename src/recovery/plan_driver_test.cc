#include "recovery/plan_driver.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <set>

#include "meta/json_fields.h"

namespace farshore {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Two groups with an action of each kind around them.
RecoveryPlan small_plan() {
    const auto plan = plan_from_json(Json::parse(R"({
      "name": "p",
      "shutdown": [{"name": "s", "kind": "script", "program": "down", "for": ["failover"]}],
      "groups": [
        {"name": "one",
         "before": [{"name": "hook", "kind": "webhook", "url": "https://x/", "settings": "/s",
                     "for": ["failover", "test"]}],
         "items": [{"name": "db", "retries": 2, "retry_pause_s": 0}, {"name": "cache"}],
         "after": [{"name": "in", "kind": "guest-script", "item": "db", "program": "/x",
                    "for": ["failover"]}]},
        {"name": "two",
         "before": [{"name": "ask", "kind": "manual", "instructions": "?", "limit_s": 60,
                     "for": ["failover"]}],
         "items": [{"name": "web", "on_failure": "skip"}]}]})"));
    EXPECT_TRUE(plan) << plan.error().to_string();
    return *plan;
}

// The vault is killed here.
struct Killed {};

// What there is besides the vault: it stays when the vault is killed.
struct World {
    struct Attempt {
        std::string step;
        bool ended = false;
        std::optional<StepOutcome> outcome;
        TimePoint stamped;  // of the attempt, when it was begun
    };
    std::map<std::string, Attempt> attempts;   // by handle
    std::vector<std::string> begun;            // ids of steps, in order
    std::map<std::string, std::string> fails;  // the first attempt of the step fails so
    std::set<std::string> hangs;               // until it is told to end
    int deaf = 0;                              // so many times nobody is ended
    std::string saved;                         // the run, durably
    int calls = 0, kill_at = -1;               // of all that is called
    std::string killed_in;
    bool disk_full = false;
    int handles = 0;
    TimePoint now{1'000'000};

    void call(const std::string& what) {
        if (calls++ != kill_at) return;
        killed_in = what;
        throw Killed();
    }
};

class FakeRunner final : public StepRunner {
  public:
    explicit FakeRunner(World& world) : world_(world) {}
    void begin(const PlanRun&, const PlanStep& step) override {
        world_.call("before the begin of " + step.id);
        auto [at, is_new] =
            world_.attempts.emplace(step.handle, World::Attempt{step.id, {}, {}, {}});
        if (is_new) {
            EXPECT_NE(world_.saved.find(step.handle), std::string::npos)
                << step.id << " was begun with a handle that is saved nowhere";
            world_.begun.push_back(step.id);
            at->second.stamped = step.attempt_started;
            if (!world_.hangs.contains(step.id)) {
                at->second.outcome.emplace();
                if (const auto bad = world_.fails.find(step.id); bad != world_.fails.end()) {
                    at->second.outcome->error = RecoveryError{Code::kGuestFailed, bad->second, ""};
                    world_.fails.erase(bad);
                }
            }
        }
        world_.call("after the begin of " + step.id);
    }
    std::optional<StepOutcome> look(const PlanRun&, const PlanStep& step,
                                    std::string& reference) override {
        world_.call("a look at " + step.id);
        reference = "seen";
        const World::Attempt& attempt = world_.attempts.at(step.handle);
        if (!attempt.ended) return attempt.outcome;
        return StepOutcome{RecoveryError{Code::kTimeout, "it was ended", ""}, {}, {}, {}, false};
    }
    void end(const PlanRun&, const PlanStep& step) override {
        world_.call("the end of " + step.id);
        if (world_.deaf > 0)
            --world_.deaf;
        else
            world_.attempts.at(step.handle).ended = true;
    }
    void forget(const PlanRun&, const PlanStep& step) override {
        world_.call("forgetting " + step.id);
        EXPECT_TRUE(world_.attempts.contains(step.handle));
    }

  private:
    World& world_;
};

struct Vault {
    explicit Vault(World& world_in) : world(world_in), runner(world_in) {
        auto run = decode_plan_run(world.saved);
        EXPECT_TRUE(run) << run.error().to_string();
        PlanDriver::Options options;
        options.runner = &runner;
        options.save = [this](const PlanRun& now) -> Status {
            world.call("before a save");
            if (world.disk_full) return fail(Code::kNoSpace, "full");
            world.saved = encode_plan_run(now);
            world.call("after a save");
            return {};
        };
        options.draw_handle = [this] { return fmt::format("{:024x}", ++world.handles); };
        driver.emplace(std::move(*run), options);
    }
    // Until nothing changes any more.
    void work() {
        for (int quiet = 0; quiet < 2;) {
            const auto changed = driver->round(world.now);
            ASSERT_TRUE(changed) << changed.error().to_string();
            quiet = *changed ? 0 : quiet + 1;
        }
    }
    const PlanStep& step(const std::string& id) { return *find_step(driver->run(), id); }
    World& world;
    FakeRunner runner;
    std::optional<PlanDriver> driver;
};

World world_of(PlanMode mode = PlanMode::kFailover) {
    World world;
    PlanRun run = make_plan_run(small_plan(), mode);
    run.id = 7;
    world.saved = encode_plan_run(run);
    return world;
}

const std::vector<std::string> kAllSteps{"shutdown-1", "g1-before-1", "g1-item-1", "g1-item-2",
                                         "g1-after-1", "g2-before-1", "g2-item-1"};

// Broken if steps began out of their order, twice, or before the run was saved.
TEST(PlanDriver, DoesTheStepsInOrder) {
    World world = world_of();
    Vault vault(world);
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kSucceeded);
    EXPECT_EQ(world.begun, kAllSteps);
}

// Broken if a test shut the machines at home down, or did what is for real failovers only.
TEST(PlanDriver, ATestDoesOnlyWhatIsForTests) {
    World world = world_of(PlanMode::kTest);
    Vault vault(world);
    vault.work();
    EXPECT_THAT(world.begun, ElementsAre("g1-before-1", "g1-item-1", "g1-item-2", "g2-item-1"));
}

// Broken if a vault that is killed, wherever that is, were followed by one that begins a step
// twice, forgets one, or does not come to the end. What it prints is a table of all the places.
TEST(PlanDriver, KilledAtEveryPlaceItGoesOn) {
    std::map<std::string, int> places;
    for (int kill_at = 0;; ++kill_at) {
        World world = world_of();
        world.fails["g1-item-1"] = "the first time";
        world.fails["g2-item-1"] = "for good, which is to be skipped";
        world.kill_at = kill_at;
        try {
            Vault vault(world);
            vault.work();
        } catch (const Killed&) {
        }
        world.kill_at = -1;
        Vault next(world);
        next.work();
        std::vector<std::string> wanted = kAllSteps;
        // Once more, after it has failed.
        wanted.insert(wanted.begin() + 4, "g1-item-1");
        EXPECT_EQ(world.begun, wanted) << "killed at " << world.killed_in;
        EXPECT_EQ(next.driver->run().state, PlanRunState::kIncomplete) << world.killed_in;
        EXPECT_EQ(next.step("g2-item-1").state, StepState::kFailed);
        EXPECT_EQ(next.step("g1-item-1").attempts, 2u);
        if (world.killed_in.empty()) break;
        ++places[world.killed_in];
    }
    for (const auto& [place, times] : places)
        std::cout << fmt::format("  killed at {:32} {:3} times: every step once, in order\n", place,
                                 times);
    EXPECT_GT(places.size(), 20u);
}

// Broken if what could not be saved were begun all the same, or were never begun.
TEST(PlanDriver, AFullDiskOnlyDelays) {
    World world = world_of();
    Vault vault(world);
    world.disk_full = true;
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(vault.driver->round(world.now).error().code(), Code::kNoSpace);
    EXPECT_TRUE(world.begun.empty());
    world.disk_full = false;
    vault.work();
    EXPECT_EQ(world.begun, kAllSteps);
}

// Broken if a step were ended at once because its run could not be saved for long.
TEST(PlanDriver, AFullDiskTakesNoTimeAway) {
    World world = world_of();
    world.hangs = {"shutdown-1"};
    Vault vault(world);
    world.disk_full = true;
    for (int i = 0; i < 3; ++i) {
        EXPECT_FALSE(vault.driver->round(world.now));
        world.now.us += 601'000'000;
    }
    world.disk_full = false;
    vault.work();
    const PlanStep& step = vault.step("shutdown-1");
    EXPECT_EQ(step.state, StepState::kRunning);
    EXPECT_FALSE(step.overdue);
    EXPECT_EQ(step.started, world.now);
    EXPECT_EQ(world.attempts.at(step.handle).stamped, world.now);
    // One that an earlier vault may have begun keeps its time.
    world.now.us += 601'000'000;
    Vault next(world);
    next.work();
    EXPECT_EQ(next.step("shutdown-1").state, StepState::kFailed);
}

// Broken if a step that could not be ended, on a full disk, were never ended.
TEST(PlanDriver, WhatCouldNotBeEndedIsEndedAgain) {
    World world = world_of();
    world.hangs = {"shutdown-1"};
    world.deaf = 3;
    Vault vault(world);
    vault.work();
    world.now.us += 601'000'000;
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(vault.driver->round(world.now));
    EXPECT_EQ(vault.step("shutdown-1").state, StepState::kFailed);
}

// Broken if somebody outside were told twice of one step because the run was stopped meanwhile.
TEST(PlanDriver, WhoeverWasToldIsToldOnce) {
    World world = world_of();
    world.hangs = {"g1-before-1"};
    Vault vault(world);
    vault.work();
    const std::string handle = vault.step("g1-before-1").handle;
    ASSERT_TRUE(vault.driver->apply([](PlanMachine& m) { return m.stop("alice"); }));
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopped);
    EXPECT_TRUE(vault.step("g1-before-1").withdrawn);
    Vault next(world);
    ASSERT_TRUE(
        next.driver->apply([&](PlanMachine& m) { return m.resume({}, "alice", world.now); }));
    next.work();
    EXPECT_EQ(next.step("g1-before-1").handle, handle);
    EXPECT_EQ(next.step("g1-before-1").reference, "seen");
    EXPECT_EQ(next.step("g1-before-1").attempts, 1u);
    // But another attempt is another one.
    StepOutcome bad;
    bad.error = RecoveryError{Code::kGuestFailed, "no", ""};
    world.attempts.at(handle).outcome = bad;
    next.work();
    ASSERT_TRUE(
        next.driver->apply([&](PlanMachine& m) { return m.resume({}, "alice", world.now); }));
    next.work();
    EXPECT_NE(next.step("g1-before-1").handle, handle);
}

// Broken if a step that hangs held the run for ever, or its retries were not counted.
TEST(PlanDriver, WhatHangsIsEndedAndTriedAgain) {
    World world = world_of();
    world.hangs = {"g1-item-1"};
    Vault vault(world);
    vault.work();
    EXPECT_EQ(vault.step("g1-item-2").state, StepState::kSucceeded);
    for (int attempt = 1; attempt <= 3; ++attempt) {
        EXPECT_EQ(vault.step("g1-item-1").attempts, static_cast<uint32_t>(attempt));
        EXPECT_EQ(vault.driver->run().state, PlanRunState::kRunning);
        world.now.us += 601'000'000;
        vault.work();
    }
    EXPECT_EQ(vault.step("g1-item-1").state, StepState::kFailed);
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopped);
    EXPECT_THAT(vault.driver->run().why, HasSubstr("g1-item-1"));
    EXPECT_THAT(world.begun, testing::Not(testing::Contains("g2-item-1")));

    // Somebody mends it, and the run goes on from there.
    world.hangs.clear();
    ASSERT_TRUE(vault.driver->apply(
        [&](PlanMachine& machine) { return machine.resume({}, "alice", world.now); }));
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kSucceeded);
    EXPECT_EQ(std::ranges::count(world.begun, "g1-item-2"), 1);
    EXPECT_EQ(std::ranges::count(world.begun, "shutdown-1"), 1);
}

// Broken if a run that was stopped went on by itself, lost what it had done, or began again what
// had come to its end meanwhile.
TEST(PlanDriver, StopsAndGoesOnFromThere) {
    World world = world_of();
    world.hangs = {"g1-before-1", "g1-item-2"};
    Vault vault(world);
    vault.work();
    const auto wish = [&](auto&& what) { return vault.driver->apply(what); };
    ASSERT_TRUE(wish([](PlanMachine& m) { return m.stop("alice"); }));
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopped);
    EXPECT_EQ(vault.step("g1-before-1").state, StepState::kWaiting) << "nobody waits for a webhook";
    EXPECT_TRUE(wish([](PlanMachine& m) { return m.stop("bob"); }));
    EXPECT_EQ(
        wish([&](PlanMachine& m) { return m.resume({"g9"}, "bob", world.now); }).error().code(),
        Code::kNotFound);
    EXPECT_EQ(wish([&](PlanMachine& m) { return m.resume({"shutdown-1"}, "bob", world.now); })
                  .error()
                  .code(),
              Code::kWrongState);
    ASSERT_TRUE(wish([&](PlanMachine& m) { return m.resume({"g1-before-1"}, "bob", world.now); }));
    vault.work();
    EXPECT_EQ(vault.step("g1-before-1").state, StepState::kSkipped);
    EXPECT_EQ(vault.step("g1-before-1").by, "bob");
    // A machine that is being started is waited for.
    ASSERT_TRUE(wish([](PlanMachine& m) { return m.stop("alice"); }));
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopping);
    world.attempts.at(vault.step("g1-item-2").handle).outcome.emplace();
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopped);
    ASSERT_TRUE(wish([&](PlanMachine& m) { return m.resume({}, "bob", world.now); }));
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kIncomplete) << "a step was skipped";
    EXPECT_EQ(std::ranges::count(world.begun, "g1-item-2"), 1);
    EXPECT_EQ(wish([&](PlanMachine& m) { return m.resume({}, "bob", world.now); }).error().code(),
              Code::kWrongState);
    EXPECT_EQ(wish([&](PlanMachine& m) { return m.cancel("bob", world.now); }).error().code(),
              Code::kWrongState);
}

// Broken if a step were done again of which nobody knows whether it was done.
TEST(PlanDriver, WhatMayHaveBeenDoneIsNotTriedAgain) {
    World world = world_of();
    world.hangs = {"g1-item-1"};
    Vault vault(world);
    vault.work();
    StepOutcome unknown{RecoveryError{Code::kOutcomeUnknown, "who knows", ""}, {}, {}, {}, true};
    world.attempts.at(vault.step("g1-item-1").handle).outcome = unknown;
    vault.work();
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kStopped);
    EXPECT_EQ(std::ranges::count(world.begun, "g1-item-1"), 1);
}

// Broken if a run kept what a program printed so that it could not be read again.
TEST(PlanDriver, OutputIsBoundedAndHarmless) {
    World world = world_of();
    world.hangs = {"shutdown-1"};
    Vault vault(world);
    vault.work();
    StepOutcome said;
    said.output = std::string(1 << 20, '\xff') + "end";
    said.note = std::string("a\0b\x1b[2J", 7);
    world.attempts.at(vault.step("shutdown-1").handle).outcome = said;
    vault.work();
    const auto run = decode_plan_run(world.saved);
    ASSERT_TRUE(run) << run.error().to_string();
    EXPECT_LE(run->steps[0].output.size(), 3 * kMaxStepOutputBytes);
    EXPECT_EQ(run->steps[0].note, "a?b?[2J");
}

// Broken if the reason why a run stopped could hold what no document does: the run could never be
// read again.
TEST(PlanDriver, TheReasonIsHarmless) {
    World world = world_of();
    world.fails["shutdown-1"] = std::string("no\0\x1b[2J", 7);
    Vault vault(world);
    vault.work();
    const auto run = decode_plan_run(world.saved);
    ASSERT_TRUE(run) << run.error().to_string();
    EXPECT_THAT(run->why, HasSubstr("no??[2J"));
    EXPECT_EQ(run->state, PlanRunState::kStopped);
}

// Broken if a large group took all that the machine has at once.
TEST(PlanDriver, OnlySoManyAtOnce) {
    RecoveryPlan plan;
    plan.name = "many";
    plan.groups.resize(1);
    plan.groups[0].name = "g";
    for (size_t i = 0; i < kMaxParallelSteps + 5; ++i)
        plan.groups[0].items.push_back({fmt::format("vm{}", i), {}});
    World world;
    world.saved = encode_plan_run(make_plan_run(plan, PlanMode::kTest));
    for (size_t i = 0; i < kMaxParallelSteps; ++i)
        world.hangs.insert(fmt::format("g1-item-{}", i + 1));
    Vault vault(world);
    vault.work();
    EXPECT_EQ(world.begun.size(), kMaxParallelSteps);
    for (auto& [handle, attempt] : world.attempts) attempt.outcome.emplace();
    vault.work();
    EXPECT_EQ(world.begun.size(), kMaxParallelSteps + 5);
    EXPECT_EQ(vault.driver->run().state, PlanRunState::kSucceeded);
}

TEST(PlanRun, BadDocumentsAreRefusedByName) {
    for (const std::string bad :
         {"", "[]", "{}", R"({"version":1})", R"({"version":1,"mode":"x"})"})
        EXPECT_EQ(decode_plan_run(bad).error().code(), Code::kMalformed) << bad;
    EXPECT_EQ(decode_plan_run(R"({"version":9})").error().code(), Code::kNewerVersion);
}

}  // namespace
}  // namespace farshore
