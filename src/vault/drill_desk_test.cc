#include <gmock/gmock.h>

#include "meta/drills.h"
#include "meta/items.h"
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
