#include "vault/plan_steps.h"

#include <gmock/gmock.h>

#include <fstream>

#include "meta/items.h"
#include "meta/jobs.h"
#include "os/waiting.h"
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

}  // namespace
}  // namespace farshore
