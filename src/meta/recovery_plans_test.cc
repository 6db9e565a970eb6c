#include "meta/recovery_plans.h"

#include <gtest/gtest.h>

#include "meta/drills.h"
#include "meta/items.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

PlanRunRecord run_of(const std::string& mode = "failover") {
    PlanRunRecord run;
    run.plan = "shop";
    run.mode = mode;
    return run;
}

void fill(PlanRunRecord& run) {
    run.state = "running";
    run.document = "run " + std::to_string(run.id);
}

// Broken if a plan or a run were lost with the vault, or two real runs of a plan began.
TEST(RecoveryPlans, PlansAndRunsAreKept) {
    TestDatabase test;
    Database* database = test.database.get();
    EXPECT_EQ(add_plan_run(*database, run_of(), true, fill).error().code(), Code::kNotFound);
    ASSERT_TRUE(add_plan(*database, {"shop", 1, "one", {}, {}}));
    EXPECT_EQ(add_plan(*database, {"shop", 1, "two", {}, {}}).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(change_plan(*database, "shop", "three")->version, 2u);
    EXPECT_EQ(change_plan(*database, "none", "x").error().code(), Code::kNotFound);
    const auto run = add_plan_run(*database, run_of(), true, fill);
    ASSERT_TRUE(run) << run.error().to_string();
    EXPECT_EQ(add_plan_run(*database, run_of(), true, fill).error().code(), Code::kWrongState);
    const auto trial = add_plan_run(*database, run_of("test"), false, fill);
    ASSERT_TRUE(trial) << "a test beside it is none of its business";
    EXPECT_EQ(remove_plan(*database, "shop").error().code(), Code::kWrongState);
    EXPECT_EQ(change_plan_run(*database, run->id,
                              [](PlanRunRecord& to) -> Status {
                                  to.document = "never";
                                  return fail(Code::kWrongState, "no");
                              })
                  .error()
                  .code(),
              Code::kWrongState);
    test.reopen();
    database = test.database.get();
    EXPECT_EQ(get_plan(*database, "shop")->document, "three");
    EXPECT_EQ(get_plan_run(*database, run->id)->document, "run " + std::to_string(run->id));
    EXPECT_EQ(open_plan_runs(*database)->size(), 2u);
    EXPECT_EQ(list_plan_runs(*database, 0, 1)->front().id, trial->id);
    EXPECT_EQ(list_plan_runs(*database, trial->id, 10, "shop")->front().id, run->id);
    for (const uint64_t id : {run->id, trial->id})
        ASSERT_TRUE(change_plan_run(*database, id, [](PlanRunRecord& to) -> Status {
            to.over = true;
            return {};
        }));
    ASSERT_TRUE(remove_plan(*database, "shop"));
    EXPECT_TRUE(get_plan_run(*database, run->id)) << "its report stays";
}

// Broken if an answer could be given twice.
TEST(RecoveryPlans, AnAnswerIsGivenOnce) {
    TestDatabase test;
    EXPECT_EQ(*get_step_answer(*test.database, "h"), std::nullopt);
    ASSERT_TRUE(add_step_answer(*test.database, {"h", 1, true, "done", "alice", {}}));
    EXPECT_EQ(add_step_answer(*test.database, {"h", 1, false, "", "bob", {}}).error().code(),
              Code::kAlreadyExists);
    test.reopen();
    const auto answer = get_step_answer(*test.database, "h");
    ASSERT_TRUE(answer && *answer);
    EXPECT_TRUE((*answer)->good);
    EXPECT_EQ((*answer)->who, "alice");
}

// Broken if drills piled up for ever, or the good one that an item's report is about were
// forgotten.
TEST(Drills, AreKeptAndForgotten) {
    TestDatabase test;
    Database& database = *test.database;
    ItemRecord item;
    item.id.raw[0] = 1;
    item.name = "web";
    EXPECT_EQ(set_drill_policy(database, item.id, "{}").error().code(), Code::kItemNotFound);
    ASSERT_TRUE(create_item(database, item));
    const auto set = set_drill_policy(database, item.id, "{}");
    ASSERT_TRUE(set);
    test.clock.time.us += 5;
    const auto again = set_drill_policy(database, item.id, "{\"agent\":true}");
    ASSERT_TRUE(again);
    EXPECT_EQ(again->created, set->created) << "what is overdue stays overdue";
    EXPECT_EQ(list_drill_policies(database)->front().created, set->created);
    ASSERT_EQ(list_drill_policies(database)->size(), 1u);
    EXPECT_EQ(list_drill_policies(database)->front().document, "{\"agent\":true}");
    uint64_t good = 0;
    for (size_t i = 0; i < kMaxKeptDrills + 5; ++i) {
        DrillRecord drill;
        drill.item = item.id;
        drill.item_name = "web";
        auto added = add_drill(database, drill);
        ASSERT_TRUE(added) << added.error().to_string();
        EXPECT_EQ(add_drill(database, drill).error().code(), Code::kInProgress);
        added->verdict = i == 0 ? "good" : "bad";
        added->sequence = {7};
        if (i == 0) good = added->id;
        ASSERT_TRUE(save_drill(database, *added));
    }
    EXPECT_TRUE(open_drills(database)->empty());
    const auto old = forget_old_drills(database, item.id);
    ASSERT_TRUE(old) << old.error().to_string();
    EXPECT_EQ(old->size(), 4u);
    EXPECT_EQ(get_drill(database, good)->verdict, "good");
    const auto newest = newest_drills(database);
    ASSERT_EQ(newest->size(), 2u);
    EXPECT_EQ(newest->front().id, good);
    // What could not be done pushes out neither.
    for (size_t i = 0; i < kMaxKeptDrills + 5; ++i) {
        DrillRecord drill;
        drill.item = item.id;
        auto added = add_drill(database, drill);
        ASSERT_TRUE(added) << added.error().to_string();
        added->verdict = "none";
        ASSERT_TRUE(save_drill(database, *added));
    }
    EXPECT_EQ(forget_old_drills(database, item.id)->size(),
              kMaxKeptDrills + 5 - kMaxKeptUndoneDrills);
    EXPECT_EQ(newest_drills(database)->size(), 3u);
    ASSERT_TRUE(delete_item(database, item.id));
    EXPECT_TRUE(list_drill_policies(database)->empty());
    EXPECT_EQ(list_drills(database, 0, 1000, item.id)->size(),
              kMaxKeptDrills + 1 + kMaxKeptUndoneDrills);
}

}  // namespace
}  // namespace farshore
