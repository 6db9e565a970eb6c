#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>

#include "base/party_names.h"
#include "meta/appliances.h"
#include "meta/database_ledger.h"
#include "meta/items.h"
#include "meta/parties.h"
#include "meta/policies.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

using Names = std::vector<std::string>;

// Items of two agents, appliances and sites: db-1, db-2, web-1, web-2.
struct ItemLists : testing::Test {
    ItemLists() {
        for (const char* name : {"web-2", "db-1", "web-1", "db-2"}) {
            ItemRecord item;
            item.id.raw[0] = static_cast<uint8_t>(++made);
            item.name = name;
            item.mode = CaptureMode::kInPath;
            item.agent = item.name.starts_with("db") ? "agent-db" : "agent-web";
            item.disks = {{0, fmt::format("/disks/{}/0", name), 512},
                          {1, fmt::format("/disks/{}/1", name), 1024}};
            EXPECT_TRUE(create_item(*test.database, item));
            ids[name] = item.id;
        }
        EXPECT_TRUE(appliance_seen(*test.database, {"one", "", "berlin", "", {1}}));
        EXPECT_TRUE(appliance_seen(*test.database, {"two", "", "paris", "", {1}}));
        EXPECT_TRUE(take_item(*test.database, ids["db-1"], "one"));
        EXPECT_TRUE(take_item(*test.database, ids["web-1"], "two"));
    }
    Names listed(const ItemQuery& query, const std::string& after = {}, size_t limit = 100) {
        Names names;
        const auto items = remembered_items(*test.database, query, after, limit);
        EXPECT_TRUE(items) << items.error().to_string();
        for (const ItemRecord& item : *items) {
            names.push_back(item.name);
            EXPECT_EQ(item.disks.size(), 2u);
            EXPECT_EQ(item.disks[1].path, fmt::format("/disks/{}/1", item.name));
        }
        return names;
    }
    TestDatabase test;
    std::map<std::string, ItemId> ids;
    int made = 0;
};

// Broken if a list left out what was asked for, or an item got another's disks.
TEST_F(ItemLists, AreOfWhatIsAskedFor) {
    EXPECT_EQ(listed({}), (Names{"db-1", "db-2", "web-1", "web-2"}));
    EXPECT_EQ(listed({}, "db-2", 1), Names{"web-1"});
    EXPECT_EQ(listed({.prefix = "db"}), (Names{"db-1", "db-2"}));
    EXPECT_EQ(listed({.prefix = "web-2"}), Names{"web-2"});
    EXPECT_EQ(listed({.prefix = "\xc3\xa9'"}), Names{});
    EXPECT_EQ(listed({.agent = "agent-web"}, "web-1"), Names{"web-2"});
    EXPECT_EQ(listed({.site = "berlin"}), Names{"db-1"});
    EXPECT_EQ(listed({.prefix = "db", .site = "paris"}), Names{});
    EXPECT_EQ(listed({.policy = "custom"}).size(), 4u);
    EXPECT_EQ(listed({.policy = "gold"}), Names{});
    ASSERT_TRUE(create_policy(*test.database, {.name = "gold"}));
    ASSERT_TRUE(change_item(*test.database, ids["db-2"], [](ItemRecord& item) -> Status {
        item.policy_name = "gold";
        return {};
    }));
    EXPECT_EQ(listed({.policy = "gold"}), Names{"db-2"});
    EXPECT_EQ(listed({.policy = "custom"}).size(), 3u);
    // Whose log it is, not whose it is to be.
    ASSERT_TRUE(DatabaseLedger(*test.database, ids["web-2"]).commit_epoch({5}, "one"));
    EXPECT_EQ(listed({.appliance = "one"}), Names{"web-2"});
    EXPECT_EQ(listed({.appliance = "two"}), Names{});
    ASSERT_TRUE(change_item(*test.database, ids["web-1"], [](ItemRecord& item) -> Status {
        item.state = ItemState::kInitialReplication;
        return {};
    }));
    EXPECT_EQ(listed({.state = "initial-replication"}), Names{"web-1"});
    EXPECT_EQ(listed({.state = "enabling"}, "db-1", 1), Names{"db-2"});
}

// Broken if an item that runs at the recovery site were of that site, and not of its own.
TEST_F(ItemLists, OfASiteHasWhatRunsElsewhere) {
    EXPECT_TRUE(appliance_seen(*test.database, {kRecoveryAppliance, "", "recovery", "", {1}}));
    ASSERT_TRUE(move_item(*test.database, ids["db-1"], kRecoveryAppliance, true));
    EXPECT_EQ(listed({.site = "berlin"}), Names{"db-1"});
    EXPECT_EQ(listed({.site = "recovery"}), Names{});
    ASSERT_TRUE(move_item(*test.database, ids["db-1"], "two", true));
    EXPECT_EQ(listed({.site = "berlin"}), Names{});
    EXPECT_EQ(listed({.site = "paris"}), (Names{"db-1", "web-1"}));
}

// Broken if an item that is about to come were counted where it is not yet, or not at all.
TEST_F(ItemLists, LoadsCountWhatComes) {
    ASSERT_TRUE(move_item(*test.database, ids["web-1"], "one", false));
    const auto loads = appliance_loads(*test.database);
    ASSERT_TRUE(loads) << loads.error().to_string();
    ASSERT_EQ(loads->size(), 2u);
    EXPECT_EQ(loads->at("one").items, 1u);
    EXPECT_EQ(loads->at("one").coming, 1u);
    EXPECT_EQ(loads->at("two").items, 1u);
    EXPECT_EQ(loads->at("two").coming, 0u);
}

// Broken if what is rare were left out of a page, or came in another order than all events do.
TEST(EventLists, AreOfWhatIsAskedFor) {
    TestDatabase test;
    ItemId item;
    item.raw[0] = 7;
    for (int i = 1; i <= 60; ++i) {
        EventRecord event;
        event.code = i % 20 == 0 ? "rare" : "usual";
        event.severity = i % 30 == 0   ? Severity::kCritical
                         : i % 10 == 0 ? Severity::kWarning
                                       : Severity::kInformation;
        if (i % 2 == 0) event.item = item;
        ASSERT_TRUE(add_event(*test.database, event));
    }
    const auto ids = [&](const EventQuery& query, uint64_t before = 0, size_t limit = 100) {
        const auto events = list_events(*test.database, before, limit, query);
        EXPECT_TRUE(events) << events.error().to_string();
        std::vector<uint64_t> found;
        for (const EventRecord& event : *events) found.push_back(event.id);
        return found;
    };
    using Ids = std::vector<uint64_t>;
    EXPECT_EQ(ids({.least = Severity::kCritical}), (Ids{60, 30}));
    EXPECT_EQ(ids({.least = Severity::kWarning}), (Ids{60, 50, 40, 30, 20, 10}));
    EXPECT_EQ(ids({.least = Severity::kWarning}, 50, 2), (Ids{40, 30}));
    EXPECT_EQ(ids({.code = "rare"}), (Ids{60, 40, 20}));
    EXPECT_EQ(ids({.code = "rare", .least = Severity::kCritical}), Ids{60});
    EXPECT_EQ(ids({.item = item, .code = "rare"}, 60, 1), Ids{40});
    EXPECT_EQ(ids({.item = item, .least = Severity::kCritical}), (Ids{60, 30}));
    EXPECT_EQ(ids({.item = item}, 0, 2), (Ids{60, 58}));
    EXPECT_EQ(ids({}, 0, 2), (Ids{60, 59}));
}

}  // namespace
}  // namespace farshore
