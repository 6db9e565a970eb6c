// Lists of items by what the tender knows of them.
#include <gtest/gtest.h>

#include "meta/items.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

struct ListSite : Site {
    ListSite() {
        for (const char* name : {"a", "b", "c"}) {
            EXPECT_TRUE(vault().local_party(PartyKind::kAgent, std::string("agent-") + name));
            ids[name] = id_of(call("POST", "/v1/items", 201,
                                   {{"name", name},
                                    {"devices", {"/dev/vda"}},
                                    {"agent", std::string("agent-") + name},
                                    {"wait_s", 0}}));
            EXPECT_TRUE(speak(name));
        }
    }
    Result<AgentInstructions> speak(const std::string& name,
                                    std::optional<AgentItemError> error = {}) {
        FakeAgent agent{*this, "agent-" + name};
        AgentItemStatus status = live(ids[name]);
        status.error = std::move(error);
        return agent.sync({status});
    }
    std::string names(const std::string& query) {
        std::string all;
        const Json answer = call("GET", "/v1/items?" + query, 200);
        for (const Json& item : answer["items"]) all += item["name"].get<std::string>();
        return all;
    }
    std::map<std::string, ItemId> ids;
};

// Broken if a list by health left out an item that the tender has seen with it, or one that nobody
// has looked at; or showed one that has got well.
TEST(Lists, ByHealthAreOfWhatTheTenderSaw) {
    ListSite site;
    const std::string before = site.names("health=critical");
    EXPECT_EQ(before.find('b'), std::string::npos) << before;
    ASSERT_TRUE(site.speak("b", AgentItemError{Code::kIo, "cannot read", "mend it"}));
    site.clock.us += 10'000'000;
    for (const char* name : {"a", "c"}) ASSERT_TRUE(site.speak(name));
    ASSERT_TRUE(site.speak("b", AgentItemError{Code::kIo, "cannot read", "mend it"}));
    // That is what makes it cheap: nobody has looked since.
    EXPECT_EQ(site.names("health=critical"), "");
    site.vault().tend();
    EXPECT_EQ(site.names("health=critical"), "b");
    EXPECT_EQ(site.names("health=critical&limit=1"), "b");
    EXPECT_EQ(site.names("health=critical&prefix=a"), "");
    // What is listed is looked at anew.
    ASSERT_TRUE(site.speak("b"));
    EXPECT_EQ(site.names("health=critical"), "");
    // Without the tender for long, everything is looked at.
    site.clock.us += 70'000'000;
    for (const char* name : {"a", "b"}) ASSERT_TRUE(site.speak(name));
    ASSERT_TRUE(site.speak("c", AgentItemError{Code::kIo, "cannot read", "mend it"}));
    EXPECT_EQ(site.names("health=critical"), "c");
    // A vault that starts has not looked at any, nor heard of their agents, which they have some
    // seconds for. What one has said is known.
    site.start();
    EXPECT_EQ(site.names("health=critical"), "c");
    site.clock.us += 20'000'000;
    site.vault().tend();
    EXPECT_EQ(site.names("health=critical"), "abc");
}

// Broken if an item were shown with the seed that it had before.
TEST(Lists, SeedsAreThoseOfNow) {
    ListSite site;
    site.call("POST", "/v1/items", 201,
              {{"name", "seeded"},
               {"disks", {"/disks/a"}},
               {"agent", "agent-a"},
               {"seeds", {"/no/such/image"}},
               {"wait_s", 0}});
    EXPECT_EQ(site.call("GET", "/v1/items/seeded", 200)["seed"]["state"], "waiting");
    ASSERT_TRUE(site.vault().decide_seed("seeded", "skip"));
    EXPECT_EQ(site.call("GET", "/v1/items/seeded", 200)["seed"]["state"], "done");
}

}  // namespace
}  // namespace farshore
