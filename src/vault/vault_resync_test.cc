#include <gtest/gtest.h>

#include "replicate/limits.h"
#include "vault/resync_plan.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kHourUs = 3'600'000'000;

// A protected item whose agent says what a test wants; time stands on a Monday, 12:00 UTC.
struct ResyncTest : ::testing::Test {
    ResyncTest() : item(site) {
        // Points must not be older than the clock.
        const int64_t week_us = 168 * kHourUs;
        const int64_t monday_us = 1'767'571'200'000'000 + 36 * kHourUs / 3;
        site.clock.us = monday_us + (site.clock.us - monday_us) / week_us * week_us + week_us;
        said = live(item.item);
        round();
    }
    // The agent speaks, time goes on a second, the vault looks after the item.
    DesiredItem round(int64_t us = 1'000'000) {
        site.clock.us += us;
        EXPECT_TRUE(
            site.vault().mark_idle(item.item, item.appliance.lease.epoch, {5}, site.clock.now()));
        EXPECT_TRUE(item.agent.sync({said}));
        site.vault().tend();
        auto down = item.agent.sync({said});
        EXPECT_TRUE(down) << down.error().to_string();
        EXPECT_EQ(down->items.size(), 1u);
        return down ? down->items.at(0) : DesiredItem();
    }
    void begins(const DesiredItem& told) {
        said.resync_done_id = told.resync_request_id;
        said.resync.state = ResyncState::kComparing;
        said.resync.total = 100;
    }
    void set_policy(const Json& policy) {
        site.call("PATCH", "/v1/items/web", 200, {{"policy", policy}});
    }
    Json shown() { return site.call("GET", "/v1/items/web", 200); }
    Json plan() { return shown()["resync_plan"]; }
    bool trouble(const std::string& code) {
        const Json now = shown();
        for (const Json& one : now["troubles"])
            if (one["code"] == code) return true;
        return false;
    }
    bool event(const std::string& code) {
        const Json all = site.call("GET", "/v1/events", 200);
        for (const Json& one : all["events"])
            if (one["code"] == code) return true;
        return false;
    }

    Site site;
    ProtectedItem item;
    AgentItemStatus said;
};

// Broken if what somebody asked to wait began in office hours, were forgotten by a restart, or ran
// on when its window closed.
TEST_F(ResyncTest, WaitsForItsWindowAndIsKept) {
    EXPECT_EQ(plan()["window_open"], false);
    const Json asked =
        site.call("POST", "/v1/items/web/resynchronise", 202, {{"when", "in-window"}});
    EXPECT_EQ(asked["resync_plan"]["stage"], "waiting");
    EXPECT_EQ(asked["resync_plan"]["kind"], "in-window");
    EXPECT_TRUE(round().resync_request_id.empty());
    EXPECT_EQ(round().resync_hold, ResyncHold::kWithoutGap);
    site.start();
    EXPECT_EQ(plan()["stage"], "waiting");
    // 20:00 has come.
    DesiredItem told = round(8 * kHourUs);
    EXPECT_FALSE(told.resync_request_id.empty());
    EXPECT_EQ(told.resync_hold, ResyncHold::kNone);
    EXPECT_EQ(plan()["stage"], "asked");
    begins(told);
    EXPECT_TRUE(round().resync_request_id.empty());
    EXPECT_EQ(plan()["stage"], "running");
    EXPECT_EQ(shown()["state"], "protected");
    // 06:00 comes before it has ended: it waits for the evening, over a restart as well.
    said.resync.held = true;
    EXPECT_EQ(round(10 * kHourUs).resync_hold, ResyncHold::kWithoutGap);
    EXPECT_EQ(plan()["held"], true);
    site.start();
    EXPECT_EQ(round().resync_hold, ResyncHold::kWithoutGap);
    EXPECT_EQ(plan()["stage"], "running");
    EXPECT_FALSE(trouble("resync-failing"));
    // An agent that is being started knows nothing of it, which is no end.
    const AgentItemStatus before = said;
    said.state = AgentItemState::kStarting;
    said.resync = {};
    round();
    EXPECT_EQ(plan()["stage"], "running");
    said = before;
    said.resync.held = false;
    EXPECT_EQ(round(14 * kHourUs).resync_hold, ResyncHold::kNone);
    said.resync.state = ResyncState::kDone;
    round();
    EXPECT_EQ(plan()["stage"], "none");
    EXPECT_TRUE(plan().contains("finished"));
}

// Broken if a check by policy came at once or never, or an item lost its points for it.
TEST_F(ResyncTest, ChecksByPolicyInTheWindow) {
    EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"verify_interval_s", 60}}}}),
              "invalid-argument");
    set_policy(
        {{"verify_interval_s", 7 * 86'400}, {"resync_windows", "Wed 01:00-03:00 Europe/Berlin"}});
    EXPECT_NE(plan()["windows"].get<std::string>().find("Europe/Berlin"), std::string::npos);
    round(24 * kHourUs);
    EXPECT_EQ(plan()["stage"], "none") << "it is younger than a week";
    DesiredItem told = round(7 * 24 * kHourUs);  // Tuesday, 12:00
    EXPECT_EQ(plan()["stage"], "waiting");
    EXPECT_EQ(plan()["kind"], "verify");
    EXPECT_TRUE(event("resynchronisation-requested"));
    EXPECT_TRUE(round().resync_request_id.empty());
    told = round(13 * kHourUs);  // Wednesday, 01:00 UTC: 02:00 or 03:00 in Berlin
    if (told.resync_request_id.empty()) told = round(-kHourUs + 1);
    ASSERT_FALSE(told.resync_request_id.empty());
    begins(told);
    round();
    EXPECT_EQ(shown()["state"], "protected");
    said.resync.state = ResyncState::kDone;
    round();
    EXPECT_EQ(plan()["stage"], "none");
    round(24 * kHourUs);
    EXPECT_EQ(plan()["stage"], "none") << "the next one is due in a week";
}

// Broken if an item without order waited for a window that nobody set for that, or did not where
// its policy says so.
TEST_F(ResyncTest, WhatIsNeededWaitsOnlyIfThePolicySaysSo) {
    said.state = AgentItemState::kCopying;
    said.gap_open = true;
    said.resync.state = ResyncState::kComparing;
    DesiredItem told = round();
    EXPECT_EQ(shown()["state"], "resynchronising");
    EXPECT_EQ(told.resync_hold, ResyncHold::kWithoutGap);
    EXPECT_EQ(site.refused("PATCH", "/v1/items/web",
                           {{"policy", {{"resync_windows_for", "everything"}}}}),
              "malformed");
    set_policy({{"resync_windows_for", "all"}});
    EXPECT_EQ(round().resync_hold, ResyncHold::kAlways);
    // Who asks for it at once gets it at once.
    site.call("POST", "/v1/items/web/resynchronise", 202);
    told = round();
    EXPECT_EQ(told.resync_hold, ResyncHold::kNone);
    EXPECT_FALSE(told.resync_request_id.empty());
}

// Broken if what nobody needs could not be cancelled, or what the item needs could.
TEST_F(ResyncTest, IsCancelledOnlyWhileNothingDepends) {
    EXPECT_EQ(site.refused("POST", "/v1/items/web/resynchronise/cancel"), "wrong-state");
    site.call("POST", "/v1/items/web/resynchronise", 202, {{"when", "in-window"}});
    EXPECT_EQ(site.call("POST", "/v1/items/web/resynchronise/cancel", 200)["resync_plan"]["stage"],
              "none");
    EXPECT_TRUE(event("resynchronisation-cancelled"));
    // One that runs: its agent has the word.
    site.call("POST", "/v1/items/web/resynchronise", 202);
    begins(round());
    round();
    auto refused = site.vault().cancel_resync("web", 0);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kTimeout);
    DesiredItem told = round();
    ASSERT_FALSE(told.resync_cancel_id.empty());
    site.start();
    EXPECT_EQ(round().resync_cancel_id, told.resync_cancel_id) << "over a restart, too";
    said.resync_cancel_done_id = told.resync_cancel_id;
    said.resync_cancel_error = AgentItemError{Code::kWrongState, "a difference was found", "wait"};
    EXPECT_TRUE(round().resync_cancel_id.empty());
    EXPECT_EQ(plan()["stage"], "running");
    ASSERT_FALSE(site.vault().cancel_resync("web", 0));
    told = round();
    said.resync_cancel_done_id = told.resync_cancel_id;
    said.resync_cancel_error.reset();
    said.resync.state = ResyncState::kNone;
    round();
    EXPECT_EQ(plan()["stage"], "none");
    // Needed to be protected again.
    said.state = AgentItemState::kCopying;
    said.gap_open = true;
    said.resync.state = ResyncState::kComparing;
    round();
    refused = site.vault().cancel_resync("web", 0);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kWrongState);
    EXPECT_NE(refused.error().what().find("to be protected again"), std::string::npos);
    EXPECT_FALSE(refused.error().remedy().empty());
}

// Broken if who asks again, right after an agent began, got the comparison that is half done.
TEST_F(ResyncTest, WhoAsksAgainGetsAnother) {
    site.call("POST", "/v1/items/web/resynchronise", 202);
    const std::string first = round().resync_request_id;
    ASSERT_FALSE(first.empty());
    site.call("POST", "/v1/items/web/resynchronise", 202);
    auto down = item.agent.sync({said});
    EXPECT_EQ(down->items.at(0).resync_request_id, first) << "it has not begun";
    begins(down->items.at(0));
    ASSERT_TRUE(item.agent.sync({said}));
    site.call("POST", "/v1/items/web/resynchronise", 202);
    const std::string second = item.agent.sync({said})->items.at(0).resync_request_id;
    EXPECT_FALSE(second.empty());
    EXPECT_NE(second, first);
}

// Broken if an item that is failing over were compared, or refused without its state.
TEST_F(ResyncTest, AnItemThatFailsOverIsRefused) {
    ASSERT_TRUE(site.vault().change_state(item.item, ItemState::kFailingOver, ""));
    for (const bool in_window : {false, true}) {
        auto refused = site.vault().resynchronise("web", in_window);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code(), Code::kWrongState);
        EXPECT_NE(refused.error().what().find("failing-over"), std::string::npos);
    }
    EXPECT_EQ(plan()["stage"], "none");
}

// Broken if a comparison that stands still were not told with its cause, or told for ever.
TEST_F(ResyncTest, OneThatStandsStillIsToldAndForgotten) {
    site.call("POST", "/v1/items/web/resynchronise", 202);
    begins(round());
    said.resync.compared = 10;
    round();
    EXPECT_FALSE(trouble("resync-failing"));
    for (int64_t us = 0; us <= kResyncStuckUs; us += 10'000'000) round(10'000'000);
    ASSERT_TRUE(trouble("resync-failing"));
    EXPECT_EQ(shown()["health"], "warning") << "it only checks";
    said.resync.read_errors = 3;
    round();
    const Json now = shown();
    for (const Json& one : now["troubles"]) {
        if (one["code"] != "resync-failing") continue;
        EXPECT_NE(one["cause"].get<std::string>().find("source cannot be read"), std::string::npos);
        EXPECT_FALSE(one["remedy"].get<std::string>().empty());
    }
    EXPECT_TRUE(event("resync-failing"));
    said.resync.compared = 20;
    round();
    EXPECT_FALSE(trouble("resync-failing"));
    EXPECT_TRUE(event("resync-goes-on"));
}

// Broken if windows that never open, or limits that never send, were taken.
TEST_F(ResyncTest, PoliciesThatCannotBeAreRefused) {
    for (const char* windows : {"Mon 20:00-20:00", "Mon 20:00-21:00 Europe/Nowhere", "always"})
        EXPECT_EQ(
            site.refused("PATCH", "/v1/items/web", {{"policy", {{"resync_windows", windows}}}}),
            "invalid-argument")
            << windows;
    for (const char* limit : {"0", "paused", "5 bananas"})
        EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"bandwidth", limit}}}}),
                  "invalid-argument")
            << limit;
    EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"rpo_threshold_s", 0}}}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items/web/resynchronise", {{"when", "later"}}),
              "invalid-argument");
    set_policy({{"rpo_threshold_s", 5}, {"bandwidth", "1MB/s"}});
    EXPECT_EQ(shown()["policy"]["bandwidth"], "1MB/s");
    site.clock.us += 6'000'000;
    EXPECT_TRUE(trouble("rpo-high"));
}

ApplianceStatus appliance_with(std::vector<UploadStatus> uploads) {
    ApplianceStatus status;
    status.uploads = std::move(uploads);
    return status;
}

// Broken if an appliance did not learn of a limit, or people not of what it holds back; or if
// either outlived its cause.
TEST_F(ResyncTest, BandwidthLimitsGoDownAndWhatWaitsComesUp) {
    UploadStatus upload;
    upload.item = item.item;
    auto policies = site.vault().sync_appliance("appliance-1", appliance_with({upload}));
    ASSERT_TRUE(policies) << policies.error().to_string();
    EXPECT_TRUE(policies->items.empty());
    set_policy({{"bandwidth", "20kB/s Mon-Fri 08:00-18:00; 2MB/s"}});
    upload.rate = 20'000;
    upload.limited = true;
    upload.waiting_bytes = 30'000'000;
    upload.eta_s = 1500;
    ItemId unknown{{9}};
    policies = site.vault().sync_appliance(
        "appliance-1", appliance_with({upload, {unknown, 5, true, true, 1, 1, 1}}));
    ASSERT_TRUE(policies);
    ASSERT_EQ(policies->items.size(), 1u);
    EXPECT_EQ(policies->items[0].item, item.item);
    EXPECT_EQ(policies->items[0].bandwidth, "20kB/s Mon-Fri 08:00-18:00; 2MB/s");
    EXPECT_EQ(policies->time_zone, "UTC");
    ASSERT_TRUE(item.appliance.acquire());
    EXPECT_EQ(item.appliance.lease.bandwidth, policies->items[0].bandwidth)
        << "before the first word";
    Json now = shown();
    EXPECT_EQ(now["upload"]["limit_bytes_per_s"], 20'000);
    EXPECT_EQ(now["upload"]["limit_of"], "item");
    EXPECT_EQ(now["upload"]["eta_s"], 1500);
    EXPECT_EQ(now["upload"]["limit_changes"].get<std::string>().substr(10, 9), "T18:00:00");
    ASSERT_TRUE(trouble("bandwidth-limited")) << now;
    EXPECT_TRUE(event("bandwidth-limited"));
    upload.limited = false;
    ASSERT_TRUE(site.vault().sync_appliance("appliance-1", appliance_with({upload})));
    EXPECT_FALSE(trouble("bandwidth-limited"));
    EXPECT_TRUE(event("bandwidth-sufficient"));
    // An appliance that says nothing any more says nothing of limits either.
    upload.limited = true;
    ASSERT_TRUE(site.vault().sync_appliance("appliance-1", appliance_with({upload})));
    site.clock.us += kTroubleForgottenUs;
    EXPECT_FALSE(trouble("bandwidth-limited"));
    EXPECT_FALSE(shown().contains("upload"));
}

}  // namespace
}  // namespace farshore
