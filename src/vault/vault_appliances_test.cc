#include <gtest/gtest.h>

#include "meta/alarms.h"
#include "meta/parties.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// A vault with protected machines, of an agent that says it is well.
class Appliances : public ::testing::Test {
  protected:
    ItemId protect(const std::string& name) {
        const Json item = site.call("POST", "/v1/items", 201,
                                    {{"name", name}, {"disks", {"/disks/" + name}}, {"wait_s", 0}});
        const ItemId id = id_of(item);
        items.push_back(id);
        sync();  // it is told of it,
        sync();  // and describes it
        return id;
    }
    AgentInstructions sync() {
        std::vector<AgentItemStatus> all;
        for (const ItemId& item : items) all.push_back(live(item));
        auto down = agent.sync(std::move(all));
        EXPECT_TRUE(down) << down.error().to_string();
        return down.value_or(AgentInstructions{});
    }
    DesiredItem wanted(const ItemId& item) {
        const AgentInstructions down = sync();
        for (const DesiredItem& one : down.items)
            if (one.item == item) return one;
        return {};
    }
    ApplianceOrders say(const std::string& name, std::vector<ItemId> holds = {}) {
        ApplianceStatus status = said;
        status.address = name + ".example:9443";
        for (const ItemId& item : holds) {
            status.uploads.emplace_back();
            status.uploads.back().item = item;
        }
        auto orders = site.vault().sync_appliance(name, status);
        EXPECT_TRUE(orders) << orders.error().to_string();
        return orders.value_or(ApplianceOrders{});
    }
    // Empty: it has it.
    std::string take(const std::string& name, const ItemId& item) {
        const auto lease = site.vault().acquire_log(item, name);
        return lease ? std::string() : std::string(code_name(lease.error().code()));
    }
    Json move(const std::string& item, const std::string& to, int status = 202, bool lost = false) {
        return site.call("POST", "/v1/items/" + item + "/appliance", status,
                         {{"appliance", to}, {"lost", lost}});
    }
    std::vector<std::string> alarms_of(const std::string& component) {
        std::vector<std::string> codes;
        const auto standing = list_component_alarms(site.vault().database(), component);
        EXPECT_TRUE(standing);
        for (const AlarmRecord& alarm : *standing) codes.push_back(alarm.code);
        return codes;
    }

    void SetUp() override { ASSERT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1")); }
    Site site;
    FakeAgent agent{site};
    std::vector<ItemId> items;
    ApplianceStatus said;
};

// Broken if every heartbeat carried the list of all appliances, or an agent kept an old one.
TEST_F(Appliances, AreToldToWhomDoesNotKnowThem) {
    using Addresses = std::vector<ApplianceAddress>;
    say("one");
    const AgentInstructions first = sync();
    EXPECT_EQ(first.appliances, (Addresses{{"one", "one.example:9443"}}));
    agent.appliances_id = first.appliances_id;
    EXPECT_EQ(sync().appliances, Addresses{});
    EXPECT_EQ(sync().appliances_id, first.appliances_id);
    site.start();  // nor is it news because the vault is a new one
    EXPECT_EQ(sync().appliances, Addresses{});
    say("two");
    const AgentInstructions second = sync();
    EXPECT_EQ(second.appliances,
              (Addresses{{"one", "one.example:9443"}, {"two", "two.example:9443"}}));
    EXPECT_NE(second.appliances_id, first.appliances_id);
    agent.appliances_id = second.appliances_id;
    EXPECT_EQ(sync().appliances, Addresses{});
    agent.appliances_id = "another vault's";
    EXPECT_EQ(sync().appliances, second.appliances);
}

// Broken if two appliances had one item, if the old one could take it back, or if the agent went to
// the new one before the vault let it, or never heard where that is.
TEST_F(Appliances, AnItemGoesFromOneToTheOther) {
    const ItemId web = protect("web");
    EXPECT_EQ(wanted(web).appliance, ApplianceAddress{});
    say("one");
    say("two");
    EXPECT_EQ(take("one", web), "");
    EXPECT_EQ(take("two", web), "forbidden");
    EXPECT_EQ(wanted(web).appliance, (ApplianceAddress{"one", "one.example:9443"}));
    EXPECT_EQ(sync().appliances, (std::vector<ApplianceAddress>{{"one", "one.example:9443"},
                                                                {"two", "two.example:9443"}}));
    const Json moving = move("web", "two");
    EXPECT_EQ(moving["appliance"]["name"], "one");
    EXPECT_EQ(moving["appliance"]["next"], "two");
    EXPECT_EQ(wanted(web).next_appliance, (ApplianceAddress{"two", "two.example:9443"}));
    // Both may until the new one has: the old one may be started again meanwhile.
    EXPECT_EQ(take("one", web), "");
    EXPECT_TRUE(say("one", {web}).gone.empty());
    EXPECT_TRUE(say("two", {web}).gone.empty());
    EXPECT_EQ(take("two", web), "");
    EXPECT_EQ(take("one", web), "forbidden");
    EXPECT_EQ(say("one", {web}).gone, std::vector{web});
    EXPECT_TRUE(say("two", {web}).gone.empty());
    EXPECT_EQ(wanted(web).appliance.name, "two");
    EXPECT_EQ(wanted(web).next_appliance.name, "");
    // It is known by the next vault.
    site.start();
    EXPECT_EQ(take("one", web), "forbidden");
    EXPECT_EQ(wanted(web).appliance, (ApplianceAddress{"two", "two.example:9443"}));
    // Taken back before it went.
    say("one");
    say("two");
    move("web", "one");
    EXPECT_FALSE(move("web", "two")["appliance"].contains("next"));
    EXPECT_EQ(take("one", web), "forbidden");
}

// Broken if an item were given to nobody, or to one that agents cannot find.
TEST_F(Appliances, OnlyThoseThatAreThereTake) {
    protect("web");
    say("one");
    EXPECT_EQ(site.refused("POST", "/v1/items/web/appliance", {{"appliance", "nobody"}}),
              "not-found");
    EXPECT_EQ(site.refused("POST", "/v1/items/none/appliance", {{"appliance", "one"}}),
              "item-not-found");
    ASSERT_TRUE(site.vault().sync_appliance("hidden", {}));
    EXPECT_EQ(site.refused("POST", "/v1/items/web/appliance", {{"appliance", "hidden"}}),
              "wrong-state");
    EXPECT_EQ(move("web", "one")["appliance"]["name"], "one");
    site.clock.us += 60'000'000;
    say("two");
    move("web", "one");  // where it is it may stay
    EXPECT_EQ(site.refused("POST", "/v1/appliances/two/evacuate", {{"to", "one"}}), "wrong-state");
    EXPECT_EQ(site.refused("POST", "/v1/appliances/nobody/evacuate", Json::object()), "not-found");
    EXPECT_EQ(site.refused("POST", "/v1/appliances/balance", {{"site", "nowhere"}}), "not-found");
}

// Broken if a lost appliance's items stayed with it, went to another site, or all to one.
TEST_F(Appliances, ALostOnesItemsGoToTheOthersOfItsSite) {
    for (const char* name : {"one", "two", "three"}) say(name);
    said.site = "elsewhere";
    say("far");
    said.site.clear();
    for (int i = 0; i < 4; ++i) take("one", protect("item-" + std::to_string(i)));
    EXPECT_EQ(site.refused("POST", "/v1/appliances/far/evacuate", Json::object()), "limit-reached");
    const Json moves =
        site.call("POST", "/v1/appliances/one/evacuate", 200, {{"lost", true}})["moves"];
    std::map<std::string, int> to;
    for (const Json& one : moves) ++to[one["to"]];
    EXPECT_EQ(to, (std::map<std::string, int>{{"two", 2}, {"three", 2}}));
    for (const ItemId& item : items) {
        EXPECT_EQ(take("one", item), "forbidden");
        EXPECT_EQ(wanted(item).next_appliance.name, "");
    }
    const Json back = site.call("POST", "/v1/appliances/balance", 200, Json::object())["moves"];
    EXPECT_EQ(back.size(), 1u);
    EXPECT_EQ(back[0]["to"], "one");
    EXPECT_TRUE(site.call("POST", "/v1/appliances/balance", 200, Json::object())["moves"].empty());
}

// Broken if a busy, full or silent appliance were nobody's trouble, a peak were an alarm, or an
// alarm stayed when its cause had gone.
TEST_F(Appliances, TheirTroublesAreAlarms) {
    const auto pass = [&](int64_t s) {
        for (; s > 0; s -= 5) {
            site.clock.us += 5'000'000;
            say("one");
            site.vault().tend();
        }
    };
    said.load = {990, 500, 1};
    said.spool_free_permille = 500;
    pass(600);
    EXPECT_TRUE(alarms_of("appliance one").empty());
    pass(400);
    EXPECT_EQ(alarms_of("appliance one"), std::vector<std::string>{"cpu-high"});
    const Json shown = site.call("GET", "/v1/appliances", 200)["appliances"][0];
    EXPECT_EQ(shown["health"], "critical");
    EXPECT_EQ(shown["troubles"][0]["code"], "cpu-high");
    EXPECT_EQ(shown["load"]["cpu_percent"], 99.0);
    EXPECT_EQ(site.call("GET", "/v1/alarms", 200)["alarms"][0]["component"], "appliance one");
    EXPECT_EQ(site.refused("PATCH", "/v1/health-limits", {{"lasting_s", 99'999'999}}), "malformed");
    EXPECT_EQ(site.refused("PATCH", "/v1/health-limits",
                           {{"cpu_percent", {{"warning", 90}, {"critical", 20}}}}),
              "invalid-argument");
    EXPECT_EQ(site.call("PATCH", "/v1/health-limits", 200,
                        {{"cpu_percent", {{"warning", 100}, {"critical", 100}}},
                         {"spool_free_percent", {{"warning", 60}, {"critical", 10}}},
                         {"lasting_s", 0}})["lasting_s"],
              0);
    pass(60);
    EXPECT_EQ(alarms_of("appliance one"), std::vector<std::string>{"spool-filling"});
    said.spool_free_permille = 900;
    pass(60);
    EXPECT_TRUE(alarms_of("appliance one").empty());
    for (int i = 0; i < 15; ++i) {
        site.clock.us += 5'000'000;
        site.vault().tend();
    }
    EXPECT_EQ(alarms_of("appliance one"), std::vector<std::string>{"component-silent"});
    // One that was removed is not missed.
    ASSERT_TRUE(site.vault().local_party(PartyKind::kAppliance, "one"));
    site.call("DELETE", "/v1/agents/one", 204);
    for (int i = 0; i < 8; ++i) {
        site.clock.us += 5'000'000;
        site.vault().tend();
    }
    EXPECT_TRUE(alarms_of("appliance one").empty());
}

// Broken if an appliance could take items, or say things, in another's name.
TEST_F(Appliances, NobodySpeaksInAnothersName) {
    const auto credentials = site.vault().local_party(PartyKind::kAppliance, "one");
    ASSERT_TRUE(credentials);
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    options.credentials = *credentials;
    HttpClient one(options);
    const ItemId web = protect("web");
    for (const char* method : {"acquire-log", "sync-appliance", "report-trouble"}) {
        const Json body{
            {"item", web.to_string()}, {"appliance", "two"}, {"uploads", Json::array()}};
        const auto answer =
            site.request(one, "POST", std::string("/internal/v1/link/") + method, body);
        EXPECT_EQ(answer.status, 403) << method << answer.body;
    }
    EXPECT_EQ(site.request(one, "POST", "/internal/v1/link/sync-appliance",
                           {{"appliance", "one"}, {"uploads", Json::array()}})
                  .status,
              200);
}

}  // namespace
}  // namespace farshore
