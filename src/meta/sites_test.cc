#include "meta/sites.h"

#include <gtest/gtest.h>

#include "base/party_names.h"
#include "meta/appliances.h"
#include "meta/items.h"
#include "meta/people.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

struct Sites : testing::Test {
    Sites() {
        item.id.raw[0] = 1;
        item.name = "web";
        EXPECT_TRUE(create_item(*test.database, item));
        for (const auto& [name, site] : {std::pair("one", "berlin"), std::pair("two", "paris"),
                                         std::pair(kRecoveryAppliance, "recovery")})
            EXPECT_TRUE(appliance_seen(*test.database, {name, "", site, "", {1}}));
    }
    bool is_at(const std::string& site) {
        const auto items = items_of_sites(*test.database, {site});
        EXPECT_TRUE(items) << items.error().to_string();
        return *items == std::vector<ItemId>{item.id} &&
               site_of_item(*test.database, item.id).value() == site;
    }
    void give(const std::string& appliance) {
        ASSERT_TRUE(move_item(*test.database, item.id, appliance, true));
    }
    TestDatabase test;
    ItemRecord item;
};

// Broken if an item were of no site once its machine runs at the recovery site, so that whoever has
// a role for its own cannot bring it home; or if it stayed when it moved.
TEST_F(Sites, AnItemIsOfTheSiteThatItCameFrom) {
    EXPECT_EQ(site_of_item(*test.database, item.id).value(), "") << "no appliance has it yet";
    ASSERT_TRUE(take_item(*test.database, item.id, "one"));
    EXPECT_TRUE(is_at("berlin"));
    give(kRecoveryAppliance);
    EXPECT_TRUE(is_at("berlin"));
    EXPECT_FALSE(is_at("recovery"));
    give("two");
    EXPECT_TRUE(is_at("paris"));
    EXPECT_FALSE(is_at("berlin"));
    // A move that waits changes nothing yet.
    ASSERT_TRUE(move_item(*test.database, item.id, "one", false));
    EXPECT_TRUE(is_at("paris"));
}

// Broken if a site that cannot be named in a role could be described, or its description were lost
// or outlived it.
TEST_F(Sites, AreDescribedByName) {
    for (const char* name : {"", "New York", "-a", ".a", "a/b", "site:a"})
        EXPECT_EQ(put_site(*test.database, name, "x").error().code(), Code::kInvalidArgument)
            << name;
    EXPECT_EQ(get_site(*test.database, "rome").error().code(), Code::kNotFound);
    EXPECT_EQ(get_site(*test.database, "paris")->version, 0u);
    ASSERT_TRUE(put_site(*test.database, "paris", "first"));
    const auto again = put_site(*test.database, "paris", "second");
    ASSERT_TRUE(again);
    EXPECT_EQ(again->version, 2u);
    EXPECT_EQ(get_site(*test.database, "paris")->description, "second");
    EXPECT_EQ(list_sites(*test.database)->size(), 3u) << "described or not, each once";
    EXPECT_EQ(remove_site(*test.database, "paris").error().code(), Code::kWrongState);
    ASSERT_TRUE(forget_appliance(*test.database, "two"));
    ASSERT_TRUE(remove_site(*test.database, "paris"));
    EXPECT_EQ(list_sites(*test.database)->size(), 2u);
    EXPECT_FALSE(scope_of_items({"site:New York"}));
    EXPECT_TRUE(scope_of_items({"site:paris", "web"}));
}

}  // namespace
}  // namespace farshore
