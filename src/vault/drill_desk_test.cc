#include <gmock/gmock.h>

#include "meta/drills.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/recovery_plans.h"
#include "os/waiting.h"
#include "vault/drill_desk.h"
#include "vault/recovery_desk.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// A vault with a recovery desk, that nobody lets start a machine.
struct DrillSite : Site {
    DrillSite() { start(); }
    VaultServerOptions options() const override {
        VaultServerOptions options = Site::options();
        options.recovery = true;
        return options;
    }
};

DrillRecord ended(Site& site, const ItemId& item, const std::string& verdict) {
    DrillRecord drill;
    drill.item = item;
    drill.item_name = "web";
    auto added = add_drill(site.vault().database(), drill);
    EXPECT_TRUE(added) << added.error().to_string();
    added->verdict = verdict;
    added->ended = site.clock.now();
    EXPECT_TRUE(save_drill(site.vault().database(), *added));
    return *added;
}

bool alarmed(Site& site) {
    for (int i = 0; i < 10; ++i) {
        site.vault().tend();
        site.clock.us += 6'000'000;
    }
    const Json standing = site.call("GET", "/v1/alarms", 200);
    for (const Json& alarm : standing["alarms"])
        if (alarm["code"] == "drill-overdue" && !alarm.contains("cleared")) return true;
    return false;
}

// Broken if nobody were told that an item's points have not been tried for too long, or it stood
// for ever; or if the age of the last good test were not to be seen.
TEST(DrillDesk, WhatIsOverdueIsAnAlarmThatClears) {
    DrillSite site;
    const ProtectedItem item(site);
    EXPECT_FALSE(site.call("GET", "/v1/items/web", 200).contains("drill"));
    site.call("PUT", "/v1/items/web/drill-policy", 200,
              {{"policy", {{"serial", "up"}, {"overdue_s", 3600}}}});
    EXPECT_FALSE(alarmed(site));
    site.clock.us += 3'600'000'000;
    EXPECT_TRUE(alarmed(site));
    ended(site, item.item, "bad");
    site.start();
    EXPECT_TRUE(alarmed(site)) << "a bad one is no good one";
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["drill"]["verdict"], "bad");
    const DrillRecord good = ended(site, item.item, "good");
    site.start();
    EXPECT_FALSE(alarmed(site));
    const Json drill = site.call("GET", "/v1/items/web", 200)["drill"];
    EXPECT_EQ(drill["verdict"], "good");
    EXPECT_EQ(drill["last_good_drill"], good.id);
    EXPECT_GE(drill["last_good_age_s"], 60);
    ended(site, item.item, "none");
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["drill"]["verdict"], "good")
        << "one that could not be done says nothing";
    site.call("DELETE", "/v1/items/web/drill-policy", 204);
    site.clock.us += 7'200'000'000;
    EXPECT_FALSE(alarmed(site));
}

// A vault beside which the test has the desks, and moves the clock.
struct Clockwork {
    Clockwork() {
        RecoveryDesk::Options of_recovery;
        of_recovery.tick_interval_us = 0;
        recovery = std::make_unique<RecoveryDesk>(site.vault(), site.files, site.clock, site.random,
                                                  of_recovery);
    }
    // From then on with what the database holds.
    void start() {
        desk = std::make_unique<DrillDesk>(site.vault(), *recovery, site.files, site.random,
                                           DrillDesk::Options{0});
        // No machine fits, so that none is started.
        EXPECT_TRUE(desk->set_budget({1, 16u << 20}));
        EXPECT_TRUE(desk->resume());
    }
    void set_policy(const DrillPolicy& policy) {
        EXPECT_TRUE(set_drill_policy(site.vault().database(), item.item,
                                     dump_json(drill_policy_json(policy))));
    }
    // How many there are once all that began are over.
    size_t drills_after(int64_t us) {
        site.clock.us += us;
        desk->tick();
        EXPECT_TRUE(wait_until(60'000, 5, [&] {
            const auto open = open_jobs(site.vault().database());
            return open && std::ranges::none_of(
                               *open, [](const JobRecord& job) { return job.kind == "drill"; });
        }));
        return list_drills(site.vault().database(), 0, 100)->size();
    }
    size_t told(const std::string& code) {
        const Json events = site.call("GET", "/v1/events", 200);
        return static_cast<size_t>(std::ranges::count_if(
            events["events"], [&](const Json& event) { return event["code"] == code; }));
    }
    Site site;
    ProtectedItem item{site};
    std::unique_ptr<RecoveryDesk> recovery;
    std::unique_ptr<DrillDesk> desk;
};
constexpr int64_t kMinuteUs = 60'000'000;

// Broken if what cannot be done were tried, and told of, every few minutes for ever.
TEST(DrillDesk, WhatCannotBeDoneIsToldOnceAndTriedLessAndLess) {
    Clockwork site;
    DrillPolicy policy;
    policy.serial = "up";
    policy.interval_s = 60;
    site.set_policy(policy);
    site.start();
    EXPECT_EQ(site.drills_after(0), 1u);
    EXPECT_EQ(site.drills_after(4 * kMinuteUs), 1u);
    EXPECT_EQ(site.drills_after(2 * kMinuteUs), 2u);
    EXPECT_EQ(site.drills_after(6 * kMinuteUs), 2u) << "twice as long";
    EXPECT_EQ(site.drills_after(5 * kMinuteUs), 3u);
    EXPECT_EQ(site.told("drill-not-done"), 1u);
}

// Broken if drills took the room that a recovery needs, or never came back.
TEST(DrillDesk, WhileSomethingIsRecoveredForRealNoneBegins) {
    Clockwork site;
    DrillPolicy policy;
    policy.serial = "up";
    policy.interval_s = 60;
    site.set_policy(policy);
    site.start();
    Database& database = site.site.vault().database();
    ASSERT_TRUE(add_plan(database, {"p", 1, "{}", {}, {}}));
    PlanRunRecord run;
    run.plan = "p";
    run.mode = "failover";
    run = *add_plan_run(database, run, true, [](PlanRunRecord& made) { made.state = "running"; });
    EXPECT_EQ(site.drills_after(0), 0u);
    ASSERT_TRUE(change_plan_run(database, run.id, [](PlanRunRecord& now) -> Status {
        now.over = true;
        return {};
    }));
    const ProtectedItem other(site.site, "db", "/disks/b");
    ASSERT_TRUE(site.site.vault().change_state(other.item, ItemState::kFailingOver, {}));
    EXPECT_EQ(site.drills_after(kMinuteUs), 0u);
    ASSERT_TRUE(site.site.vault().change_state(other.item, ItemState::kFailedOver, {}));
    EXPECT_EQ(site.drills_after(kMinuteUs), 1u);
}

// Broken if drills began when nobody wants them, or what became due meanwhile never did.
TEST(DrillDesk, OutsideOfItsWindowsNoneBegins) {
    Clockwork site;
    DrillPolicy policy;
    policy.serial = "up";
    policy.interval_s = 60;
    const int64_t minute = site.site.clock.now().us / kMinuteUs % 1440;
    const auto clock = [&](int64_t later) {
        return fmt::format("{:02}:{:02}", (minute + later) % 1440 / 60, (minute + later) % 60);
    };
    policy.windows = fmt::format("{}-{} UTC", clock(60), clock(180));
    site.set_policy(policy);
    site.start();
    EXPECT_EQ(site.drills_after(0), 0u);
    EXPECT_EQ(site.drills_after(50 * kMinuteUs), 0u);
    EXPECT_EQ(site.drills_after(40 * kMinuteUs), 1u);
}

// Broken if a consistent point were tried again and again, because what is booted is an earlier
// one.
TEST(DrillDesk, AConsistentPointIsTriedOnce) {
    for (const bool was_tried : {true, false}) {
        Clockwork site;
        DrillPolicy policy;
        policy.serial = "up";
        policy.after_consistent = true;
        site.set_policy(policy);
        const TimePoint made = site.site.clock.now();
        Database& database = site.site.vault().database();
        ASSERT_TRUE(change_consistent_state(database, site.item.item,
                                            [&](ConsistentState& state) { state.made = made; }));
        // One that was judged, of a point a little before; for this one, or the one before it.
        DrillRecord drill;
        drill.item = site.item.item;
        drill.document = dump_json({{"made_us", was_tried ? made.us : made.us - 1}});
        drill = *add_drill(database, drill);
        drill.verdict = "good";
        drill.point_time = {made.us - 1};
        drill.ended = made;
        ASSERT_TRUE(save_drill(database, drill));
        site.start();
        EXPECT_EQ(site.drills_after(kMinuteUs), was_tried ? 1u : 2u);
    }
}

// Broken if what cannot be were begun, or refused without a word about why.
TEST(DrillDesk, WhatCannotBeIsRefused) {
    DrillSite site;
    const ProtectedItem item(site);
    EXPECT_EQ(site.refused("GET", "/v1/items/web/drill-policy"), "not-found");
    EXPECT_EQ(site.refused("POST", "/v1/items/web/drills", Json::object()), "wrong-state")
        << "there is no policy";
    EXPECT_EQ(site.refused("PUT", "/v1/items/web/drill-policy", {{"policy", Json::object()}}),
              "invalid-argument");
    site.call("PUT", "/v1/items/web/drill-policy", 200, {{"policy", {{"serial", "up"}}}});
    EXPECT_EQ(site.refused("POST", "/v1/items/web/drills", {{"point", "999999"}}),
              "point-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/drills/7"), "not-found");
    EXPECT_EQ(site.refused("GET", "/v1/drills/x/screenshot"), "not-found");
    EXPECT_EQ(site.refused("PUT", "/v1/drill-budget", {{"cpus", 1}, {"memory_bytes", 1}}),
              "malformed");
    site.call("PUT", "/v1/drill-budget", 200, {{"cpus", 3}, {"memory_bytes", 1 << 30}});
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/drill-budget", 200)["cpus"], 3);
}

}  // namespace
}  // namespace farshore
