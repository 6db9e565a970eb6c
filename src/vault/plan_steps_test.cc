#include "vault/plan_steps.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "appliance/appliance_scripts.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "os/waiting.h"
#include "vault/plan_desk.h"
#include "vault/recovery_desk.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

using testing::HasSubstr;
constexpr const char* kHandle = "0123456789abcdef01234567";

// The steps of one run, without its driver.
struct Steps : testing::Test {
    Steps() {
        RecoveryDesk::Options desk_options;
        desk_options.tick_interval_us = 0;
        desk = std::make_unique<RecoveryDesk>(site.vault(), site.files, site.clock, site.random,
                                              desk_options);
        scripts = std::make_unique<ScriptRuns>(site.files, site.directory + "/runs", 1000);
        run.id = 1;
        run.plan = "p";
        run.mode = PlanMode::kFailover;
        step.id = "g1-item-1";
        step.handle = kHandle;
        step.state = StepState::kRunning;
        step.action.kind = StepKind::kItem;
        step.action.name = "web";
    }
    ~Steps() override { (void)scripts->forget(kHandle); }
    std::unique_ptr<PlanSteps> steps(bool taken_up = false) {
        PlanSteps::Options options;
        options.vault = &site.vault();
        options.recovery = desk.get();
        options.files = &site.files;
        options.scripts = scripts.get();
        options.scripts_directory = site.directory;
        options.callback_url = [] { return std::string(); };
        options.answered = &answered;
        options.expect = [](const std::string&, bool) {};
        if (taken_up) options.taken_up.insert(kHandle);
        return std::make_unique<PlanSteps>(options);
    }
    uint64_t add_job_of(const ItemId& item, const std::string& kind, const std::string& input) {
        JobRecord job;
        job.kind = kind;
        job.item = item;
        job.cancellable = true;
        job.input = input;
        return add_job(site.vault().database(), job)->id;
    }
    JobRecord job(uint64_t id) { return *get_job(site.vault().database(), id); }

    Site site;
    ProtectedItem item{site};
    std::unique_ptr<RecoveryDesk> desk;
    std::unique_ptr<ScriptRuns> scripts;
    std::atomic<uint64_t> answered{0};
    PlanRun run;
    PlanStep step;
};

// Broken if a job that never ends (another node has it) held the run for ever, or another attempt
// started the machine beside it.
TEST_F(Steps, AMachineThatIsLateIsGivenUp) {
    const uint64_t id = add_job_of(item.item, "failover", recovery_of_step(kHandle));
    auto running = steps(true);
    running->begin(run, step);
    std::string reference;
    EXPECT_FALSE(running->look(run, step, reference));
    EXPECT_EQ(reference, std::to_string(id));
    step.overdue = true;
    running->end(run, step);
    EXPECT_FALSE(job(id).cancel_requested) << "it may be there any moment";
    const auto late = running->look(run, step, reference);
    ASSERT_TRUE(late && late->error);
    EXPECT_EQ(late->error->code, Code::kTimeout);
    EXPECT_TRUE(late->unknown) << "another attempt would start it twice";
}

// Broken if a machine went on its way home after its time, behind the back of the run.
TEST_F(Steps, AWayHomeThatIsLateIsCancelled) {
    run.mode = PlanMode::kFailback;
    const uint64_t id = add_job_of(item.item, "failback", "{}");
    auto running = steps(true);
    running->begin(run, step);
    std::string reference;
    EXPECT_FALSE(running->look(run, step, reference));
    step.reference = reference;
    step.overdue = true;
    running->end(run, step);
    EXPECT_TRUE(job(id).cancel_requested);
    EXPECT_TRUE(running->look(run, step, reference));
}

// Broken if a planned failover failed for good because its item was catching up for a moment, or
// any other hiccup ended the step.
TEST_F(Steps, WhatPassesIsWaitedFor) {
    ASSERT_TRUE(site.vault().change_state(item.item, ItemState::kCatchingUp, {}));
    step.source = PlanSource::kPlanned;
    auto running = steps();
    running->begin(run, step);
    std::string reference;
    EXPECT_FALSE(running->look(run, step, reference));
    site.clock.us += 10'000'000;
    EXPECT_FALSE(running->look(run, step, reference));
    step.overdue = true;
    const auto late = running->look(run, step, reference);
    ASSERT_TRUE(late && late->error);
    EXPECT_EQ(late->error->code, Code::kUnavailable);
}

// Broken if a script failed, and was killed, because a file of ours could not be read for a moment.
TEST_F(Steps, AScriptOutlivesErrorsOfOurFiles) {
    step.action.kind = StepKind::kScript;
    step.action.program = "wait.sh";
    std::ofstream(site.directory + "/wait.sh") << "#!/bin/sh\nsleep 1000\n";
    std::filesystem::permissions(site.directory + "/wait.sh", std::filesystem::perms::owner_all);
    auto running = steps();
    running->begin(run, step);
    std::string reference;
    EXPECT_FALSE(running->look(run, step, reference));
    // A link to itself: open() says ELOOP.
    const std::string status = site.directory + "/runs/" + kHandle + "/status";
    std::filesystem::create_symlink(status, status);
    ASSERT_FALSE(scripts->look(kHandle));
    EXPECT_FALSE(running->look(run, step, reference));
    step.overdue = true;
    const auto late = running->look(run, step, reference);
    ASSERT_TRUE(late && late->error);
    EXPECT_TRUE(late->unknown);
    std::filesystem::remove(status);
    EXPECT_TRUE(scripts->look(kHandle)) << "it was not killed by that";
}

// Broken if a vault that was killed while it waited for a guest's agent took that for a program
// that may have run; or if one that may have run were started again.
TEST_F(Steps, OnlyWhatWasToBeStartedInsideIsUnknown) {
    step.action.kind = StepKind::kGuestScript;
    step.action.item = "web";
    std::string reference;
    auto next = steps(true);
    next->begin(run, step);
    const auto none = next->look(run, step, reference);
    ASSERT_TRUE(none && none->error);
    EXPECT_FALSE(none->unknown);
    EXPECT_THAT(none->error->what, HasSubstr("has started no machine"));
    next->forget(run, step);
    step.reference = "starting";
    next->begin(run, step);
    const auto unknown = next->look(run, step, reference);
    ASSERT_TRUE(unknown && unknown->error);
    EXPECT_TRUE(unknown->unknown);
}

// Broken if nobody were told that a run waits for a person.
TEST_F(Steps, WhoeverIsWaitedForIsTold) {
    step.action.kind = StepKind::kManual;
    step.action.name = "look at the line";
    steps()->begin(run, step);
    steps(true)->begin(run, step);
    const Json events = site.call("GET", "/v1/events", 200);
    size_t told = 0;
    for (const Json& event : events["events"])
        if (event["code"] == "plan-waits") {
            ++told;
            EXPECT_THAT(event["cause"].get<std::string>(), HasSubstr("look at the line"));
        }
    EXPECT_EQ(told, 1u);
}

// The site's appliance, which hears what is wanted of it once a second.
struct OnAppliance : Steps {
    OnAppliance() {
        step.action.kind = StepKind::kApplianceScript;
        step.action.appliance = "site-a";
        step.action.program = "move.sh";
        step.action.limits.limit_s = 60;
        step.attempt_started = site.clock.now();
        std::filesystem::create_directories(site.directory + "/programs");
        write_script("echo $FARSHORE_STEP >> " + site.directory + "/done; echo moved");
        start_appliance();
    }
    ~OnAppliance() override { there->follow({}); }
    void write_script(const std::string& body) {
        const std::string path = site.directory + "/programs/move.sh";
        std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
        std::filesystem::permissions(path, std::filesystem::perms(0755));
    }
    void start_appliance() {
        there = std::make_unique<ApplianceScripts>(
            site.files, site.clock, site.directory + "/programs", site.directory + "/there");
    }
    std::vector<ScriptOrder> told() {
        ApplianceStatus status;
        status.scripts = there->words();
        status.programs = there->programs();
        auto orders = site.vault().sync_appliance("site-a", status);
        EXPECT_TRUE(orders) << orders.error().to_string();
        return orders ? orders->scripts : std::vector<ScriptOrder>();
    }
    void sync() { there->follow(told()); }
    // What becomes of the step, with a word to the appliance in each round.
    std::optional<StepOutcome> outcome(PlanSteps& running, bool restarts = false) {
        std::optional<StepOutcome> found;
        std::string reference;
        wait_until(30'000, 5, [&] {
            sync();
            if (restarts) {
                sync();  // it says what it has found
                start_appliance();
            }
            found = running.look(run, step, reference);
            return found.has_value();
        });
        return found;
    }
    size_t times_done() {
        std::ifstream file(site.directory + "/done");
        return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
    }
    std::unique_ptr<ApplianceScripts> there;
};

// Broken if a script ran twice, or never, because its order came again, or vault or appliance was
// killed between any two words about it.
TEST_F(OnAppliance, AScriptRunsOnceWhoeverIsKilled) {
    steps()->begin(run, step);
    told();  // an answer that is lost
    auto running = steps(true);
    running->begin(run, step);
    const auto ended = outcome(*running, true);
    ASSERT_TRUE(ended);
    EXPECT_FALSE(ended->error) << ended->error->what;
    EXPECT_EQ(ended->output, "moved\n");
    sync();
    EXPECT_EQ(times_done(), 1u);
    running->forget(run, step);
    sync();
    EXPECT_TRUE(there->words().empty());
    EXPECT_TRUE(std::filesystem::is_empty(site.directory + "/there/runs"));
}

// Broken if an appliance whose disk was put back, or a new one of that name, ran a script that may
// have run.
TEST_F(OnAppliance, WhatItForgotIsNotDoneAgain) {
    auto running = steps();
    running->begin(run, step);
    sync();  // it is ready, and says so
    const auto orders = told();
    ASSERT_EQ(orders.size(), 1u);
    EXPECT_TRUE(orders[0].go);
    std::filesystem::remove_all(site.directory + "/there");
    start_appliance();
    const auto ended = outcome(*running);
    ASSERT_TRUE(ended && ended->error);
    EXPECT_TRUE(ended->unknown) << ended->error->what;
    EXPECT_EQ(times_done(), 0u);

    // The same when its time is over meanwhile: that it never began is not known either.
    running->forget(run, step);
    step.handle = "0123456789abcdef01234568";
    running->begin(run, step);
    sync();
    told();
    std::filesystem::remove_all(site.directory + "/there");
    start_appliance();
    step.overdue = true;
    running->end(run, step);
    const auto late = outcome(*running);
    ASSERT_TRUE(late && late->error);
    EXPECT_TRUE(late->unknown) << late->error->what;
}

// Broken if a vault whose database was put back had what is over done once more.
TEST_F(OnAppliance, WhatIsOverIsNotDoneAgainForAnOlderDatabase) {
    auto running = steps();
    running->begin(run, step);
    ASSERT_TRUE(outcome(*running));
    running->forget(run, step);
    sync();
    start_appliance();
    running->begin(run, step);
    const auto again = outcome(*running);
    ASSERT_TRUE(again && again->error);
    EXPECT_TRUE(again->unknown) << again->error->what;
    EXPECT_EQ(times_done(), 1u);
}

// Broken if a script went on for ever because nobody is there to end it.
TEST_F(OnAppliance, WithoutAVaultItsLimitCountsAllTheSame) {
    write_script("sleep 1000 & wait");
    steps()->begin(run, step);
    const auto state = [&] {
        const auto words = there->words();
        return words.size() == 1 ? std::optional(words[0].state) : std::nullopt;
    };
    ASSERT_TRUE(wait_until(30'000, 5, [&] {
        sync();
        return state() == ScriptState::kRunning;
    }));
    const auto orders = told();
    there->keep_limits();
    there->follow(orders);
    EXPECT_EQ(state(), ScriptState::kRunning);
    site.clock.us += 61'000'000;
    there->keep_limits();
    there->follow(orders);
    EXPECT_EQ(state(), ScriptState::kEnded);
}

// Broken if what a vault left that was killed between a step's end and that went to the appliance
// for ever.
TEST_F(OnAppliance, WhatIsLeftOfStepsThatAreOverIsForgotten) {
    steps()->begin(run, step);
    ASSERT_FALSE(told().empty());
    PlanDesk desk_of_plans(site.vault(), desk.get(), site.files, site.random, {});
    ASSERT_TRUE(desk_of_plans.resume());
    EXPECT_TRUE(told().empty());
}

// Broken if a step that is over were begun later, by an appliance that was away.
TEST_F(OnAppliance, WhatNobodyTookInTimeIsNeverBegun) {
    auto running = steps();
    running->begin(run, step);
    step.overdue = true;
    running->end(run, step);
    std::string reference;
    const auto late = running->look(run, step, reference);
    ASSERT_TRUE(late && late->error);
    EXPECT_EQ(late->error->code, Code::kTimeout);
    EXPECT_FALSE(late->unknown) << "another attempt does no harm";
    for (int i = 0; i < 4; ++i) sync();
    EXPECT_EQ(times_done(), 0u);
}

// Broken if a script that hangs went on behind its step, or an appliance that says nothing any more
// held the run for ever.
TEST_F(OnAppliance, WhatDoesNotEndIsEnded) {
    write_script("echo before; sleep 1000 & wait");
    auto running = steps();
    running->begin(run, step);
    ASSERT_TRUE(wait_until(30'000, 5, [&] {
        sync();
        const auto words = there->words();
        return words.size() == 1 && words[0].state == ScriptState::kRunning;
    }));
    step.overdue = true;
    running->end(run, step);
    std::string reference;
    EXPECT_FALSE(running->look(run, step, reference)) << "it is being ended";
    const auto ended = outcome(*running);
    ASSERT_TRUE(ended && ended->error);
    EXPECT_EQ(ended->error->code, Code::kTimeout);
    EXPECT_FALSE(ended->unknown);

    running->forget(run, step);
    step.handle = "0123456789abcdef01234568";
    step.overdue = false;
    running->begin(run, step);
    sync();
    told();
    step.overdue = true;
    running->end(run, step);
    EXPECT_FALSE(running->look(run, step, reference));
    site.clock.us += 130'000'000;
    const auto silent = running->look(run, step, reference);
    ASSERT_TRUE(silent && silent->error);
    EXPECT_TRUE(silent->unknown);
}

// Broken if the check of a plan did not name a script that is missing over there, or may be changed
// by everybody; or the step failed with something else.
TEST_F(OnAppliance, WhatCannotRunIsNamed) {
    EXPECT_EQ(site.vault().check_appliance_script("site-b", "move.sh").error().code(),
              Code::kNotFound);
    sync();
    EXPECT_TRUE(site.vault().check_appliance_script("site-a", "move.sh"));
    EXPECT_EQ(site.vault().check_appliance_script("site-a", "none.sh").error().code(),
              Code::kNotFound);
    std::filesystem::permissions(site.directory + "/programs/move.sh",
                                 std::filesystem::perms(0757));
    sync();
    EXPECT_EQ(site.vault().check_appliance_script("site-a", "move.sh").error().code(),
              Code::kNotFound);
    auto running = steps();
    running->begin(run, step);
    const auto refused = outcome(*running);
    ASSERT_TRUE(refused && refused->error);
    EXPECT_EQ(refused->error->code, Code::kForbidden);
    EXPECT_FALSE(refused->unknown);
    site.clock.us += 20'000'000;
    EXPECT_EQ(site.vault().check_appliance_script("site-a", "move.sh").error().code(),
              Code::kUnavailable);
}

}  // namespace
}  // namespace farshore
