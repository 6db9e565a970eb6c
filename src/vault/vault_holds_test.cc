// Points that stay behind the window, holds and costs, as a person sees them over the API.
#include "vault/vault_holds.h"

#include <gtest/gtest.h>

#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kMinute = 60'000'000;

Json kept_of(Site& site) {
    const Json list = site.call("GET", "/v1/items/web/points?limit=1000", 200);
    Json kept = Json::array();
    for (const Json& point : list["points"])
        if (point.value("kept", false)) kept.push_back(point);
    return kept;
}

// Broken if pages of points left one out, showed one twice, or went on without an end.
Json all_by_pages(Site& site, size_t limit) {
    Json all = Json::array();
    std::string before;
    for (int page = 0; page < 100; ++page) {
        const Json list =
            site.call("GET", "/v1/items/web/points?limit=" + std::to_string(limit) + before, 200);
        EXPECT_LE(list["points"].size(), limit);
        for (const Json& point : list["points"]) all.push_back(point);
        if (!list.contains("next")) return all;
        before = "&before=" + list["next"].dump();
    }
    ADD_FAILURE() << "pages without an end";
    return all;
}

// So many hours of a machine that writes each half hour, with the vault's rounds.
void go_on(Site& site, ProtectedItem& item, int hours) {
    for (int half = 0; half < hours * 2; ++half) {
        site.clock.us += 30 * kMinute;
        Bytes records;
        item.appliance.add(records, RecordKind::kWrite, std::string(4096, char('a' + half % 26)));
        ASSERT_TRUE(item.appliance.send(records));
        site.vault().tend();
    }
}

// Broken if the default policy kept nothing behind its window, a changed one did not count at once,
// or a held point went, held the item's other points, or let the item be deleted.
TEST(VaultHolds, PointsStayByPolicyAndByHold) {
    Site site;
    ProtectedItem item(site);
    go_on(site, item, 30);
    if (testing::Test::HasFatalFailure()) return;
    Json kept = kept_of(site);
    ASSERT_GT(kept.size(), 20u) << "one an hour of a day, then one in two";
    EXPECT_LT(kept.size(), 28u);
    const uint64_t oldest = kept.back()["sequence"];
    // Points of the window come first, also where a page has both.
    Bytes records;
    for (int i = 0; i < 3; ++i)
        item.appliance.add(records, RecordKind::kPoint, "",
                           static_cast<uint8_t>(PointKind::kCrash));
    ASSERT_TRUE(item.appliance.send(records));
    const Json all = site.call("GET", "/v1/items/web/points?limit=1000", 200)["points"];
    ASSERT_GT(all.size(), kept.size());
    for (const size_t limit : {size_t{1}, size_t{3}, all.size() - kept.size(), all.size()})
        EXPECT_EQ(all_by_pages(site, limit), all) << limit << " a page";
    EXPECT_TRUE(site.call("GET", "/v1/items/web/points?kind=application", 200)["points"].empty());
    const Json seen = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(seen["oldest_point"]["sequence"], oldest);
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/" + std::to_string(oldest), 200)["kept"],
              true);

    EXPECT_EQ(site.refused("POST", "/v1/items/web/holds", {{"point", "latest"}}), "malformed")
        << "without a reason";
    EXPECT_EQ(site.refused("POST", "/v1/items/web/holds",
                           {{"point", std::to_string(oldest + 1)}, {"reason", "x"}}),
              "point-outside-window");
    const Json hold = site.call("POST", "/v1/items/web/holds", 201,
                                {{"point", std::to_string(oldest)}, {"reason", "case 7"}});
    EXPECT_EQ(hold["point"]["sequence"], oldest);
    EXPECT_EQ(site.call("GET", "/v1/items/web/holds", 200)["holds"], Json::array({hold}));

    EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"keep", "1h"}}}}),
              "invalid-argument");
    site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"keep", ""}, {"grace_s", 0}}}});
    go_on(site, item, 2);
    kept = kept_of(site);
    ASSERT_EQ(kept.size(), 1u);
    EXPECT_EQ(kept[0]["sequence"], oldest);
    EXPECT_EQ(site.refused("DELETE", "/v1/items/web?force=true"), "wrong-state");

    // A vault that lost its database finds the hold in the store.
    site.server.reset();
    site.remove_database();
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items/web/holds", 200)["holds"], Json::array({hold}));

    EXPECT_EQ(site.refused("DELETE", "/v1/items/web/holds/0123456789abcdef"), "not-found");
    site.call("DELETE", "/v1/items/web/holds/" + hold["id"].get<std::string>(), 204);
    EXPECT_TRUE(site.call("GET", "/v1/items/web/holds", 200)["holds"].empty());
}

// Broken if what a policy costs were not told before it is set, or setting one were needed for it.
TEST(VaultHolds, TellsWhatAPolicyCosts) {
    Site site;
    ProtectedItem item(site);
    go_on(site, item, 6);
    if (testing::Test::HasFatalFailure()) return;
    const Json own = site.call("GET", "/v1/items/web/cost", 200);
    EXPECT_EQ(own["window_s"], 7200);
    EXPECT_EQ(own["steps"].size(), 3u);
    EXPECT_GT(own["written_per_s"], 0);
    const Json year = site.call("GET", "/v1/items/web/cost?window_s=86400&keep=1d:1y", 200);
    EXPECT_EQ(year["steps"][0]["points"], 364);
    EXPECT_GT(year["window_bytes"], own["window_bytes"]);
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["policy"]["window_s"], 7200);
    EXPECT_EQ(site.refused("GET", "/v1/items/web/cost?keep=nonsense"), "invalid-argument");
}

}  // namespace
}  // namespace farshore
