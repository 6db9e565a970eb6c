#include "recovery/recovery_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "meta/json_fields.h"

namespace farshore {
namespace {

const char* const kShop = R"({
  "name": "shop", "description": "the shop and its database",
  "shutdown": [{"name": "stop it", "kind": "script", "program": "stop.sh", "for": ["failover"]},
               {"name": "there", "kind": "appliance-script", "appliance": "site-a", "program": "off.sh",
                "arguments": ["now"], "for": ["failover"]}],
  "groups": [
    {"name": "databases",
     "items": [{"name": "db", "limit_s": 900, "retries": 1}, {"name": "cache", "on_failure": "skip"}],
     "after": [{"name": "check", "kind": "guest-script", "item": "db", "program": "/usr/bin/check",
                "arguments": ["-v"], "for": ["test", "failover"], "limit_s": 30}]},
    {"name": "shop",
     "before": [{"name": "dns", "kind": "webhook", "url": "https://runbooks/dns",
                 "settings": "/etc/farshore/hook.json", "for": ["failover", "failback"]},
                {"name": "look", "kind": "manual", "instructions": "Is it up?", "for": ["failover"]}],
     "items": [{"name": "web"}]}]})";

Result<RecoveryPlan> plan_of(const Json& json) { return plan_from_json(json); }

// Broken if a plan lost something on its way through the API, a file or the database.
TEST(RecoveryPlan, ComesBackAsItWasGiven) {
    const auto plan = plan_of(Json::parse(kShop));
    ASSERT_TRUE(plan) << plan.error().to_string();
    EXPECT_EQ(plan->groups[0].items[0].limits.limit_s, 900u);
    EXPECT_EQ(plan->groups[0].items[1].limits.on_failure, OnFailure::kSkip);
    EXPECT_FALSE(plan->groups[1].before[0].modes[0]);
    EXPECT_TRUE(plan->groups[1].before[0].modes[2]);
    EXPECT_EQ(plan->shutdown.at(1).appliance, "site-a");
    EXPECT_EQ(plan->shutdown.at(1).arguments, std::vector<std::string>{"now"});
    EXPECT_FALSE(plan->network);
    EXPECT_FALSE(plan_json(*plan).contains("network")) << "what is not said is not shown as said";
    Json networks = Json::parse(kShop);
    networks["network"] = "bridge:br-dr";
    networks["test_network"] = "segment:lab";
    const auto with_networks = plan_of(plan_json(*plan_of(networks)));
    ASSERT_TRUE(with_networks) << with_networks.error().to_string();
    EXPECT_EQ(network_word(*with_networks->network), "bridge:br-dr");
    EXPECT_EQ(network_word(*with_networks->test_network), "segment:lab");
    const auto again = plan_of(plan_json(*plan));
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(plan_json(*again), plan_json(*plan));
}

// Broken if a plan that cannot work, or is misspelt, were taken and only failed on the worst day.
TEST(RecoveryPlan, WhatCannotWorkIsRefusedByName) {
    const auto refused = [](const std::function<void(Json&)>& change) {
        Json json = Json::parse(kShop);
        change(json);
        const auto plan = plan_from_json(json);
        return plan ? std::string("taken") : plan.error().to_string();
    };
    const auto action = [](Json& json) -> Json& { return json["shutdown"][0]; };
    using testing::HasSubstr;
    EXPECT_THAT(refused([](Json& j) { j["groups"][1]["items"][0]["name"] = "db"; }),
                HasSubstr("'db' is in the plan twice"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["program"] = "../bin/sh"; }),
                HasSubstr("not the name of a script"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["for"] = Json::array(); }), HasSubstr("for"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["limit_s"] = 0; }), HasSubstr("limit_s"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["limits"] = 5; }), HasSubstr("'limits'"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["kind"] = "item"; }), HasSubstr("'item'"));
    EXPECT_THAT(refused([&](Json& j) { action(j)["on_failure"] = "retry"; }),
                HasSubstr("stop, skip"));
    EXPECT_THAT(refused([](Json& j) { j["groups"][0]["after"][0]["item"] = "web"; }),
                HasSubstr("not started before it"));
    EXPECT_THAT(refused([](Json& j) { j["groups"][1]["before"][0]["url"] = "http://x/"; }),
                HasSubstr("https://"));
    const auto url = [&](const char* text) {
        return refused([&](Json& j) { j["groups"][1]["before"][0]["url"] = text; });
    };
    EXPECT_THAT(url("http://127.0.0.1:x@evil/"), HasSubstr("user name"));
    EXPECT_THAT(url("https://me:secret@host/"), HasSubstr("user name"));
    EXPECT_EQ(url("https://host/a@b?c@d"), "taken");
    EXPECT_EQ(url("http://127.0.0.1:80/"), "taken");
    EXPECT_THAT(refused([](Json& j) { j["network"] = "br0"; }),
                HasSubstr("plan.network: 'br0' is no network"));
    EXPECT_THAT(refused([](Json& j) { j["test_network"] = "segment:A"; }),
                HasSubstr("plan.test_network"));
    EXPECT_THAT(refused([](Json& j) { j["groups"] = Json::array(); }), HasSubstr("no items"));
    EXPECT_THAT(refused([](Json& j) { j["name"] = "Shop"; }), HasSubstr("cannot be"));
    EXPECT_THAT(refused([](Json& j) { j["groups"][1]["name"] = "databases"; }),
                HasSubstr("two groups"));
    EXPECT_THAT(plan_from_json(Json::array()).error().to_string(), HasSubstr("must be an object"));
}

}  // namespace
}  // namespace farshore
