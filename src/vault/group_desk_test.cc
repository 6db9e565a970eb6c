// Replication groups as a person and an appliance see them: over the API and the link.
#include "vault/group_desk.h"

#include <gtest/gtest.h>

#include "meta/items.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

struct Shop : Site {
    Shop() : left(*this, "left", "/disks/l"), right(*this, "right", "/disks/r") {
        call("POST", "/v1/groups", 201,
             {{"name", "shop"}, {"items", {"left", "right"}}, {"crash_interval_s", 0}});
    }
    // Everything is stored up to now, and the vault has had a round.
    void round() {
        vault().tend();
        clock.us += 1'000'000;
    }
    // What an appliance says of members; the vault's answer.
    Result<BarrierOrder> say(const BarrierOrder& point, BarrierStep step,
                             std::vector<MemberOutcome> outcomes) {
        return vault().shared_point_step("appliance-1", {point.point, step, std::move(outcomes)});
    }
    MemberOutcome well(const ItemId& item, Sequence sequence = {}) {
        return {item, {}, sequence, clock.now()};
    }
    // Both go through all steps but the last.
    BarrierOrder until_mark() {
        const auto orders = vault().sync_appliance("appliance-1", {})->points;
        EXPECT_EQ(orders.size(), 1u);
        for (const BarrierStep step :
             {BarrierStep::kReady, BarrierStep::kPrepare, BarrierStep::kHold}) {
            const auto next = say(orders[0], step, {well(left.item), well(right.item)});
            EXPECT_TRUE(next) << next.error().to_string();
            EXPECT_GT(next->step, step);
        }
        return orders[0];
    }
    // A POINT record in each machine's log, stored.
    Sequence store_point(ProtectedItem& item, const std::string& label) {
        Bytes records;
        const Sequence at = item.appliance.next;
        item.appliance.add(records, RecordKind::kPoint, label,
                           static_cast<uint8_t>(PointKind::kBookmark));
        EXPECT_TRUE(item.appliance.send(records));
        return at;
    }
    Json newest() { return call("GET", "/v1/groups/shop/points?limit=1", 200)["points"][0]; }

    ProtectedItem left, right;
};

// Broken if a point counted before both machines had it stored, could not be named, or members were
// not told that they are in a group.
TEST(GroupDesk, APointIsMadeStoredAndNamed) {
    Shop site;
    EXPECT_TRUE(site.left.agent.sync()->grouped);
    site.call("POST", "/v1/groups/shop/points", 201, {{"label", "first"}, {"wait_s", 0}});
    const BarrierOrder order = site.until_mark();
    EXPECT_EQ(order.label, "first");
    ASSERT_EQ(order.members.size(), 2u);
    EXPECT_EQ(order.members[0].agent, "agent-1");
    EXPECT_TRUE(site.vault().sync_appliance("appliance-2", {})->points.size() == 1)
        << "whoever has an agent of it takes part";
    const Sequence at = site.store_point(site.left, "first");
    ASSERT_TRUE(site.say(
        order, BarrierStep::kMark,
        {site.well(site.left.item, at), site.well(site.right.item, site.right.appliance.next)}));
    site.round();
    EXPECT_EQ(site.newest()["state"], "made");
    EXPECT_EQ(site.refused("GET", "/v1/items/left/points/latest-multi-vm"), "point-not-found");
    const Sequence other = site.store_point(site.right, "first");
    site.round();
    const Json stored = site.newest();
    EXPECT_EQ(stored["state"], "stored");
    EXPECT_EQ(stored["kind"], "crash");
    const std::string id = stored["id"];
    const std::vector<std::string> names{"latest-multi-vm", "shared:" + id, "first"};
    for (const std::string& name : names) {
        EXPECT_EQ(site.call("GET", "/v1/items/left/points/" + name, 200)["sequence"], at.v) << name;
        EXPECT_EQ(site.call("GET", "/v1/items/right/points/" + name, 200)["sequence"], other.v);
    }
    EXPECT_EQ(site.refused("GET", "/v1/items/left/points/latest-multi-vm-app"), "point-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/items/left/points/shared:00"), "point-not-found");
    const Json listed = site.call("GET", "/v1/items/left/points", 200)["points"][0];
    EXPECT_EQ(listed["shared"]["id"], id);
    EXPECT_EQ(listed["shared"]["group"], "shop");
    // Nobody makes it any more.
    EXPECT_EQ(site.say(order, BarrierStep::kMark, {}).error().code(), Code::kNotFound);
    EXPECT_TRUE(site.vault().sync_appliance("appliance-1", {})->points.empty());
}

// Broken if a member that cannot, or says nothing, were not told of; if a failing policy told of
// each failure; or if a vault that starts again made a point that it knows nothing of.
TEST(GroupDesk, WhatFailsIsToldAndForgotten) {
    Shop site;
    const auto failures = [&] {
        int found = 0;
        const Json all = site.call("GET", "/v1/events?limit=1000", 200);
        for (const Json& event : all["events"])
            if (event["code"] == "shared-point-failed") ++found;
        return found;
    };
    site.call("POST", "/v1/groups/shop/points", 201, {{"wait_s", 0}});
    const auto order = site.vault().sync_appliance("appliance-1", {})->points.front();
    MemberOutcome wrong = site.well(site.right.item);
    wrong.error = Error(Code::kConnectionLost, "the agent's connection was lost");
    auto next = site.say(order, BarrierStep::kReady,
                         {site.well(site.left.item), site.well(site.right.item)});
    ASSERT_TRUE(next);
    next = site.say(order, BarrierStep::kPrepare, {site.well(site.left.item), wrong});
    ASSERT_TRUE(next);
    EXPECT_EQ(next->step, BarrierStep::kAbandon);
    EXPECT_EQ(site.newest()["state"], "void");
    EXPECT_EQ(site.newest()["error"]["code"], "connection-lost");
    EXPECT_EQ(failures(), 1);
    // Silence. By policy, told once.
    site.call("PATCH", "/v1/groups/shop", 200, {{"crash_interval_s", 10}});
    for (int i = 0; i < 18; ++i) site.round();
    EXPECT_EQ(failures(), 2);
    EXPECT_EQ(site.newest()["error"]["code"], "timeout");
    EXPECT_EQ(site.call("GET", "/v1/groups/shop", 200)["health"], "warning");
    const auto alarmed = [&] {
        const Json standing = site.call("GET", "/v1/alarms", 200);
        return std::ranges::any_of(standing["alarms"], [](const Json& alarm) {
            return alarm["code"] == "shared-points-failing" && alarm["component"] == "group shop" &&
                   !alarm.contains("cleared");
        });
    };
    EXPECT_EQ(site.call("GET", "/v1/items/left", 200)["state"], "protected");
    for (int i = 0; i < 60; ++i) site.round();
    EXPECT_TRUE(alarmed());
    site.call("PATCH", "/v1/groups/shop", 200, {{"crash_interval_s", 0}});
    EXPECT_EQ(site.call("GET", "/v1/groups/shop", 200)["health"], "normal");
    for (int i = 0; i < 120; ++i) site.round();
    EXPECT_FALSE(alarmed());
    // A vault that ends in the middle.
    site.call("POST", "/v1/groups/shop/points", 201, {{"wait_s", 0}});
    site.until_mark();
    site.clock.us += 1'000'000;
    site.start();
    site.vault().tend();
    EXPECT_EQ(site.newest()["state"], "void");
    EXPECT_EQ(site.newest()["error"]["code"], "cancelled");
    EXPECT_EQ(site.newest()["group"], "shop");
}

// Broken if mistakes were not refused by name.
TEST(GroupDesk, MistakesAreNamed) {
    Shop site;
    EXPECT_EQ(site.refused("POST", "/v1/groups", {{"name", "Shop"}}), "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/groups", {{"name", "shop"}}), "already-exists");
    EXPECT_EQ(site.refused("POST", "/v1/groups", {{"name", "x"}, {"crash_interval_s", 5}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/groups", {{"name", "x"}, {"items", {"left"}}}),
              "already-exists");
    EXPECT_EQ(site.refused("GET", "/v1/groups/x"), "not-found") << "and no half of a group is left";
    EXPECT_EQ(site.refused("POST", "/v1/groups/shop/members", {{"items", {"nobody"}}}),
              "item-not-found");
    EXPECT_EQ(site.refused("POST", "/v1/groups/shop/members", Json::object()), "malformed");
    EXPECT_EQ(site.refused("POST", "/v1/groups/nothing/points"), "not-found");
    EXPECT_EQ(site.refused("POST", "/v1/groups/shop/points", {{"kind", "bookmark"}}), "malformed");
    EXPECT_EQ(site.refused("GET", "/v1/groups/shop/points/x"), "not-found");
    site.call("DELETE", "/v1/groups/shop/members/left", 200);
    site.call("DELETE", "/v1/groups/shop/members/right", 200);
    EXPECT_FALSE(site.left.agent.sync()->grouped);
    EXPECT_EQ(site.refused("POST", "/v1/groups/shop/points"), "wrong-state") << "of nobody";
    site.call("DELETE", "/v1/groups/shop", 204);
    EXPECT_EQ(site.refused("DELETE", "/v1/groups/shop"), "not-found");
}

}  // namespace
}  // namespace farshore
