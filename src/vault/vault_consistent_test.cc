// Consistent points that a policy wants.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <optional>

#include "vault/test_site.h"
#include "vault/vault.h"

namespace farshore {
namespace {

// A machine that its own agent captures, with points of the policy every hour.
struct ConsistentSite : Site {
    ConsistentSite() : agent{*this} {
        EXPECT_TRUE(vault().local_party(PartyKind::kAgent, "agent-1"));
        const Json made = call("POST", "/v1/items", 201,
                               {{"name", "web"},
                                {"devices", {"/dev/vda"}},
                                {"agent", "agent-1"},
                                {"policy", {{"consistent_interval_s", 3600}}},
                                {"wait_s", 0}});
        EXPECT_EQ(made["policy"]["consistent_interval_s"], 3600);
        item = id_of(made);
        EXPECT_TRUE(round().empty()) << "asked before it is protected";
        connect();
        EXPECT_TRUE(appliance->send_first());
        vault().tend();
    }
    void connect() {
        appliance.emplace(FakeAppliance{*this, vault(), item, {}, {}, {}, {1}});
        EXPECT_TRUE(appliance->acquire());
    }
    void restart() {
        start();
        connect();
    }
    // What the agent says and is asked for, then a round of the vault's.
    std::vector<BookmarkRequest> round(std::vector<BookmarkDone> done = {}) {
        AgentItemStatus status = live(item);
        status.bookmarks = std::move(done);
        if (appliance) {
            const Sequence stored = vault().item("web")->replica->stored;
            EXPECT_TRUE(vault().mark_idle(item, appliance->lease.epoch, stored, clock.now()));
        }
        auto down = agent.sync({status});
        EXPECT_TRUE(down) << down.error().to_string();
        vault().tend();
        down = agent.sync({live(item)});
        return down->items.empty() ? std::vector<BookmarkRequest>{} : down->items[0].bookmarks;
    }
    // The same after a time.
    std::vector<BookmarkRequest> later(int64_t seconds) {
        clock.us += seconds * 1'000'000;
        (void)round();  // the state follows
        return round();
    }
    Json shown() { return call("GET", "/v1/items/web", 200); }
    // A point as the agent would make it; known to the vault, but not stored before it is sent.
    BookmarkDone make(const BookmarkRequest& request, Bytes& records) {
        const BookmarkDone done{request.request_id, appliance->next, clock.now(), {}};
        appliance->add(records, RecordKind::kPoint, request.label,
                       static_cast<uint8_t>(request.kind));
        return done;
    }
    size_t failures() {
        const Json events = call("GET", "/v1/events?item=web", 200);
        return static_cast<size_t>(std::ranges::count_if(events["events"], [](const Json& event) {
            return event["code"] == "consistent-point-failed";
        }));
    }
    FakeAgent agent;
    std::optional<FakeAppliance> appliance;
    ItemId item;
};

// Broken if the points that a policy asks for were not made, made too often, counted before they
// are stored, or asked for again after a restart.
TEST(Vault, ConsistentPointsByPolicy) {
    ConsistentSite site;
    auto asked = site.round();
    ASSERT_EQ(asked.size(), 1u);
    EXPECT_EQ(asked[0].kind, PointKind::kApplication);
    EXPECT_EQ(asked[0].label, "consistent");
    EXPECT_EQ(site.round().size(), 1u);
    EXPECT_EQ(site.shown()["consistent_points"]["interval_s"], 3600);
    EXPECT_FALSE(site.shown()["consistent_points"].contains("last_time"));
    Bytes records;
    const BookmarkDone done = site.make(asked[0], records);
    EXPECT_TRUE(site.round({done}).empty());
    EXPECT_FALSE(site.shown()["consistent_points"].contains("last_time"));
    ASSERT_TRUE(site.appliance->send(records));
    EXPECT_TRUE(site.round().empty());
    EXPECT_EQ(site.shown()["consistent_points"]["last_time"], to_rfc3339(done.time));
    const Json points = site.call("GET", "/v1/items/web/points?kind=application", 200);
    ASSERT_EQ(points["points"].size(), 1u) << points;
    EXPECT_EQ(points["points"][0]["label"], "consistent");

    EXPECT_TRUE(site.later(3500).empty());
    site.restart();
    EXPECT_TRUE(site.round().empty());
    asked = site.later(101);
    ASSERT_EQ(asked.size(), 1u);
    site.restart();
    ASSERT_EQ(site.round().size(), 1u);
    EXPECT_EQ(site.round()[0].request_id, asked[0].request_id);
}

// Broken if a failing point were told at every interval, or only once though the cause changed, or
// were not tried again, or its error outlived a point that was made.
TEST(Vault, AFailedConsistentPointIsToldOnce) {
    ConsistentSite site;
    const auto fail_with = [&](const BookmarkRequest& request, const char* what) {
        BookmarkDone done;
        done.request_id = request.request_id;
        done.error = AgentItemError{Code::kTimeout, what, "try again"};
        EXPECT_TRUE(site.round({done}).empty());
    };
    auto asked = site.round();
    ASSERT_EQ(asked.size(), 1u);
    fail_with(asked[0], "not frozen in time");
    EXPECT_EQ(site.failures(), 1u);
    Json shown = site.shown();
    EXPECT_EQ(shown["consistent_points"]["error"]["code"], "timeout");
    EXPECT_EQ(shown["consistent_points"]["error"]["detail"], "not frozen in time");
    EXPECT_EQ(shown["health"], "warning");
    EXPECT_EQ(shown["state"], "protected");
    EXPECT_EQ(shown["troubles"][0]["code"], "consistent-point-failed");
    EXPECT_TRUE(site.later(3599).empty());
    asked = site.later(1);
    ASSERT_EQ(asked.size(), 1u) << "not tried again";
    fail_with(asked[0], "not frozen in time");
    EXPECT_EQ(site.failures(), 1u);
    asked = site.later(3600);
    ASSERT_EQ(asked.size(), 1u);
    fail_with(asked[0], "somebody else froze it");
    EXPECT_EQ(site.failures(), 2u);
    asked = site.later(3600);
    ASSERT_EQ(asked.size(), 1u);
    Bytes records;
    const BookmarkDone done = site.make(asked[0], records);
    ASSERT_TRUE(site.appliance->send(records));
    EXPECT_TRUE(site.round({done}).empty());
    shown = site.shown();
    EXPECT_FALSE(shown["consistent_points"].contains("error"));
    EXPECT_EQ(shown["health"], "normal");
    // An agent that never answers.
    asked = site.later(3600);
    ASSERT_EQ(asked.size(), 1u);
    const auto next = site.later(3600);
    ASSERT_EQ(next.size(), 1u);
    EXPECT_NE(next[0].request_id, asked[0].request_id);
    EXPECT_EQ(site.failures(), 3u);
}

// Broken if points were asked for while there can be none, or an agent that was away were blamed
// for what it could not have answered.
TEST(Vault, ConsistentPointsWaitForAHealthyItem) {
    ConsistentSite site;
    auto asked = site.round();
    ASSERT_EQ(asked.size(), 1u);
    site.clock.us += 7200 * 1'000'000ll;
    site.vault().tend();
    EXPECT_EQ(site.shown()["state"], "catching-up");
    asked = site.round();
    EXPECT_EQ(site.shown()["state"], "protected");
    ASSERT_EQ(asked.size(), 1u);
    EXPECT_EQ(site.failures(), 0u);
    Bytes records;
    const BookmarkDone done = site.make(asked[0], records);
    ASSERT_TRUE(site.appliance->send(records));
    EXPECT_TRUE(site.round({done}).empty());
    AgentItemStatus gap = live(site.item);
    gap.state = AgentItemState::kGap;
    site.clock.us += 3600 * 1'000'000ll;
    for (int i = 0; i < 2; ++i) {
        auto down = site.agent.sync({gap});
        ASSERT_TRUE(down);
        EXPECT_TRUE(down->items[0].bookmarks.empty());
        site.vault().tend();
    }
}

// Broken if a policy could ask for what cannot be made, or could not be changed.
TEST(Vault, ConsistentPointsAreAskedForAndChanged) {
    ConsistentSite site;
    EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"consistent_interval_s", 60}}}}),
              "invalid-argument");
    ASSERT_EQ(site.round().size(), 1u);
    Json changed =
        site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"consistent_interval_s", 0}}}});
    EXPECT_FALSE(changed.contains("consistent_points"));
    EXPECT_TRUE(site.round().empty());
    changed =
        site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"consistent_interval_s", 300}}}});
    EXPECT_EQ(changed["consistent_points"]["interval_s"], 300);
    EXPECT_EQ(changed["policy"]["window_s"], 7'200);
    EXPECT_EQ(site.later(300).size(), 1u);
}

}  // namespace
}  // namespace farshore
