// Policies by the API: followed, edited, previewed; and who may.
#include "meta/items.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000, kHourUs = 60 * kMinuteUs;

// Broken if an item that is protected without values followed nothing, one with values followed
// something, or an edit did not reach those that follow.
TEST(Policies, ItemsFollowOneOrHaveTheirOwn) {
    Site site;
    const auto protect = [&](const std::string& name, Json more = Json::object()) {
        more["name"] = name;
        more["disks"] = {"/disks/" + name};
        more["wait_s"] = 0;
        return site.call("POST", "/v1/items", 201, more);
    };
    site.call("POST", "/v1/policies", 201,
              {{"name", "gold"}, {"policy", {{"window_s", 900}, {"rpo_threshold_s", 7}}}});
    EXPECT_EQ(protect("plain")["policy_name"], "default");
    const Json follows = protect("follows", {{"policy_name", "gold"}});
    EXPECT_EQ(follows["policy_name"], "gold");
    EXPECT_EQ(follows["policy"]["window_s"], 900);
    EXPECT_EQ(follows["policy"]["rpo_threshold_s"], 7);
    EXPECT_EQ(protect("own", {{"policy", {{"window_s", 1200}}}})["policy_name"], "custom");
    EXPECT_EQ(site.refused("POST", "/v1/items",
                           {{"name", "both"},
                            {"disks", {"/x"}},
                            {"policy_name", "gold"},
                            {"policy", {{"window_s", 900}}}}),
              "malformed");
    EXPECT_EQ(site.refused("POST", "/v1/items",
                           {{"name", "x"}, {"disks", {"/x"}}, {"policy_name", "none"}}),
              "not-found");
    const Json edited = site.call("PUT", "/v1/policies/gold", 200,
                                  {{"policy", {{"window_s", 1800}, {"keep", "1h:2d"}}}});
    EXPECT_EQ(edited["items"], 1);
    EXPECT_EQ(edited["policy"]["rpo_threshold_s"], 60) << "what is left out is as built in";
    EXPECT_EQ(site.call("GET", "/v1/items/follows", 200)["policy"]["keep"], "1h:2d");
    EXPECT_EQ(site.call("GET", "/v1/items/own", 200)["policy"]["window_s"], 1200);
    // Assigned later, back to one's own, and by PATCH.
    site.call("POST", "/v1/policies/gold/assign", 200, {{"items", {"own", "plain", "own"}}});
    EXPECT_EQ(site.call("GET", "/v1/items/own", 200)["policy"]["window_s"], 1800);
    EXPECT_EQ(
        site.call("PATCH", "/v1/items/own", 200, {{"policy", {{"window_s", 1000}}}})["policy_name"],
        "custom");
    EXPECT_EQ(site.call("PATCH", "/v1/items/own", 200, {{"policy_name", "default"}})["policy_name"],
              "default");
    EXPECT_EQ(site.call("GET", "/v1/policies/gold", 200)["followed_by"],
              Json({"follows", "plain"}));
    EXPECT_EQ(site.refused("DELETE", "/v1/policies/gold"), "wrong-state");
    EXPECT_EQ(site.refused("DELETE", "/v1/policies/default"), "forbidden");
    site.call("PUT", "/v1/policies/default", 200, {{"policy", {{"window_s", 3600}}}});
    EXPECT_EQ(site.call("GET", "/v1/items/own", 200)["policy"]["window_s"], 3600);
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items/follows", 200)["policy_name"], "gold");
}

// Broken if a policy could say what cannot be, or a list did not find who follows which.
TEST(Policies, AreChecked) {
    Site site;
    for (const auto& [values, code] : std::vector<std::pair<Json, std::string>>{
             {{{"window_s", 1}}, "invalid-argument"},
             {{{"keep", "2h:1h"}}, "invalid-argument"},
             {{{"resync_windows", "Mon"}}, "invalid-argument"},
             {{{"bandwidth", "0"}}, "invalid-argument"},
             {{{"mispelt", 1}}, "malformed"},
             {{{"consistent_interval_s", 43'201}}, "malformed"},
             {{{"consistent_interval_s", 299}}, "invalid-argument"},
             // Less than what stays: the window, or the last step behind it.
             {{{"consistent_interval_s", 7200}, {"keep", ""}, {"window_s", 7200}},
              "invalid-argument"}})
        EXPECT_EQ(site.refused("POST", "/v1/policies", {{"name", "x"}, {"policy", values}}), code)
            << dump_json(values);
    site.call(
        "POST", "/v1/policies", 201,
        {{"name", "x"},
         {"policy", {{"consistent_interval_s", 7200}, {"keep", "1h:3h"}, {"window_s", 7200}}}});
    for (const char* name : {"", "X", "custom", "a b"})
        EXPECT_NE(site.refused("POST", "/v1/policies", {{"name", name}}), "none") << name;
    EXPECT_EQ(site.refused("POST", "/v1/policies", {{"name", "x"}}), "already-exists");
    EXPECT_EQ(site.refused("PUT", "/v1/policies/none", {{"policy", Json::object()}}), "not-found");
    EXPECT_EQ(site.refused("PUT", "/v1/policies/x", Json::object()), "malformed");
    const auto made =
        site.call("POST", "/v1/items", 201, {{"name", "web"}, {"disks", {"/a"}}, {"wait_s", 0}});
    site.call("POST", "/v1/items", 201, {{"name", "db"}, {"disks", {"/b"}}, {"wait_s", 0}});
    site.call("PATCH", "/v1/items/db", 200, {{"policy", {{"window_s", 900}}}});
    const auto names = [&](const std::string& query) {
        Json list = Json::array();
        const Json all = site.call("GET", "/v1/items?" + query, 200);
        for (const Json& item : all["items"]) list.push_back(item["name"]);
        return list;
    };
    EXPECT_EQ(names("policy=custom"), Json({"db"}));
    EXPECT_EQ(names("policy=default"), Json({"web"}));
    EXPECT_EQ(names("prefix=w"), Json({"web"}));
    EXPECT_EQ(names("state=enabling"), Json({"db", "web"}));
    EXPECT_EQ(names("state=protected"), Json::array());
    EXPECT_EQ(names("health=normal&limit=1").size(), 1u);
    EXPECT_EQ(names("appliance=none"), Json::array());
    EXPECT_EQ(site.refused("GET", "/v1/items?health=good"), "invalid-argument");
    EXPECT_EQ(site.refused("GET", "/v1/items?state=good"), "malformed");
    EXPECT_EQ(site.refused("GET", "/v1/events?severity=bad"), "invalid-argument");
    EXPECT_EQ(site.refused("GET", "/v1/jobs?state=bad"), "invalid-argument");
    EXPECT_EQ(site.refused("GET", "/v1/alarms?acknowledged=bad"), "invalid-argument");
    const Json events = site.call("GET", "/v1/events?code=item-created", 200);
    EXPECT_EQ(events["events"].size(), 2u);
    EXPECT_TRUE(site.call("GET", "/v1/events?severity=critical", 200)["events"].empty());
}

// Broken if a preview changed something, or said anything else than what then happens.
TEST(Policies, APreviewSaysWhatHappens) {
    Site site;
    site.clock.us = site.clock.us / kHourUs * kHourUs;
    ProtectedItem item(site);
    const auto write = [&] {
        Bytes records;
        item.appliance.add(records, RecordKind::kWrite, std::string(4096, 'y'));
        item.appliance.add(records, RecordKind::kPoint, "",
                           static_cast<uint8_t>(PointKind::kCrash));
        ASSERT_TRUE(item.appliance.send(records));
    };
    for (int i = 0; i < 60; ++i) {
        site.clock.us += kMinuteUs;
        write();
    }
    const auto points = [&] {
        return site.call("GET", "/v1/items/web/points?limit=1000", 200)["points"].size();
    };
    const size_t before = points();
    const Json values{
        {"policy", {{"window_s", 600}, {"keep", ""}, {"rpo_threshold_s", 1}, {"grace_s", 0}}}};
    site.clock.us += 3'000'000;
    const Json preview = site.call("POST", "/v1/policies/default/preview", 200, values);
    ASSERT_EQ(preview["items"].size(), 1u);
    const Json& of_web = preview["items"][0];
    EXPECT_EQ(of_web["item"], "web");
    EXPECT_EQ(of_web["changed"]["window_s"], (Json{{"old", 7200}, {"new", 600}}));
    EXPECT_FALSE(of_web["changed"].contains("bandwidth"));
    EXPECT_EQ(of_web["points"]["dropped_anyway"], 0);
    const size_t dropped = of_web["points"]["dropped"];
    EXPECT_GT(dropped, 40u);
    ASSERT_EQ(of_web["alarms"].size(), 1u) << dump_json(of_web);
    EXPECT_EQ(of_web["alarms"][0]["code"], "rpo-high");
    EXPECT_EQ(site.call("GET", "/v1/policies/default", 200)["version"], 0);
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["policy"]["window_s"], 7200);
    EXPECT_EQ(points(), before);

    site.call("PUT", "/v1/policies/default", 200, values);
    site.vault().tend();
    EXPECT_EQ(points(), before - dropped);
    const Json shown = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(shown["oldest_point"]["sequence"], of_web["points"]["oldest_stays"]["sequence"]);
    EXPECT_TRUE(std::ranges::any_of(
        shown["troubles"], [](const Json& trouble) { return trouble["code"] == "rpo-high"; }));
    // An assignment is previewed the same way, too.
    site.call("POST", "/v1/policies", 201,
              {{"name", "inside"}, {"policy", {{"consistent_interval_s", 3600}}}});
    const Json other = site.call("POST", "/v1/policies/inside/preview", 200, {{"items", {"web"}}});
    EXPECT_EQ(other["items"][0]["changed"]["consistent_interval_s"]["new"], 3600);
    EXPECT_EQ(other["items"][0]["alarms_over"].size(), 1u);
    EXPECT_EQ(site.refused("POST", "/v1/policies/inside/preview", {{"items", {"none"}}}),
              "item-not-found");
}

// Broken if somebody whose role is for some items changed, or saw, others through a policy.
TEST(Policies, KeepToTheScope) {
    Site site;
    for (const char* name : {"web", "db"})
        site.call("POST", "/v1/items", 201,
                  {{"name", name}, {"disks", {std::string("/disks/") + name}}, {"wait_s", 0}});
    const Json made = site.call("POST", "/v1/access-tokens", 201,
                                {{"name", "t"}, {"role", "contributor"}, {"items", {"web"}}});
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    options.bearer_token = Secret(as_bytes(made["token"].get<std::string>()));
    HttpClient client(options);
    const auto status = [&](const char* method, const std::string& target, const Json& body = {}) {
        return site.request(client, method, target, body).status;
    };
    site.call("POST", "/v1/policies", 201, {{"name", "gold"}});
    EXPECT_EQ(status("POST", "/v1/policies/gold/assign", {{"items", {"db"}}}), 404);
    EXPECT_EQ(status("POST", "/v1/policies/gold/assign", {{"items", {"web", "db"}}}), 404);
    EXPECT_EQ(status("POST", "/v1/policies/gold/preview", {{"items", {"db"}}}), 404);
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["policy_name"], "default");
    EXPECT_EQ(status("POST", "/v1/policies/gold/assign", {{"items", {"web"}}}), 200);
    site.call("POST", "/v1/policies/gold/assign", 200, {{"items", {"db"}}});
    const Json seen = Json::parse(site.request(client, "GET", "/v1/policies/gold").body);
    EXPECT_EQ(seen["followed_by"], Json({"web"}));
    const Json preview = Json::parse(
        site.request(client, "POST", "/v1/policies/gold/preview", {{"policy", {{"window_s", 99}}}})
            .body);
    ASSERT_EQ(preview["items"].size(), 1u);
    EXPECT_EQ(preview["items"][0]["item"], "web");
    EXPECT_EQ(status("PUT", "/v1/policies/gold", {{"policy", Json::object()}}), 403);
    EXPECT_EQ(status("DELETE", "/v1/policies/gold"), 403);
    EXPECT_EQ(status("POST", "/v1/policies", {{"name", "x"}}), 403);
}

}  // namespace
}  // namespace farshore
