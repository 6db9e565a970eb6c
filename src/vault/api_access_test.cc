#include <gtest/gtest.h>

#include <algorithm>

#include "meta/item_nics.h"
#include "meta/people.h"
#include "vault/access_desk.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr const char* kPassword = "correct horse battery";

// A vault with a user of each role, and one who may only fail "web" over.
struct People : Site {
    People() {
        start();  // with cheap passwords
        for (const char* role : {"reader", "operator", "contributor", "owner"})
            call("POST", "/v1/users", 201,
                 {{"name", role}, {"password", kPassword}, {"role", role}});
        call("POST", "/v1/users", 201,
             {{"name", "web-only"},
              {"password", kPassword},
              {"role", "operator"},
              {"items", {"web"}}});
    }
    VaultServerOptions options() const override {
        VaultServerOptions options = Site::options();
        options.vault.kdf = {.memory_kib = 64, .passes = 1, .lanes = 1};
        return options;
    }
    std::unique_ptr<HttpClient> with(const std::string& token) {
        HttpClientOptions options;
        options.authority_pem = vault().authority_pem();
        options.bearer_token = Secret(as_bytes(token));
        return std::make_unique<HttpClient>(options);
    }
    HttpResponse log_in(const std::string& user, const std::string& password = kPassword) {
        return request(*with(""), "POST", "/v1/login", {{"user", user}, {"password", password}});
    }
    std::unique_ptr<HttpClient> client(const std::string& user) {
        const HttpResponse response = log_in(user);
        EXPECT_EQ(response.status, 201) << response.body;
        return with(Json::parse(response.body)["token"].get<std::string>());
    }
    std::vector<AuditRecord> audit(const std::string& who = {}) {
        AuditQuery query;
        query.who = who;
        query.limit = 1000;
        return *list_audit(vault().database(), query);
    }
    static std::string code(const HttpResponse& response) {
        const Json json = Json::parse(response.body, nullptr, false);
        return json.is_object() && json.contains("code") ? json["code"].get<std::string>() : "none";
    }
};

// Broken if a login gave more than the user's role, or did not end.
TEST(ApiAccess, ALoginHasItsUsersRoleUntilItEnds) {
    People site;
    auto reader = site.client("reader");
    const Json me = Json::parse(site.request(*reader, "GET", "/v1/me").body);
    EXPECT_EQ(me["name"], "reader");
    EXPECT_EQ(me["kind"], "user");
    EXPECT_EQ(me["role"], "reader");
    EXPECT_FALSE(me.contains("items"));
    EXPECT_EQ(site.request(*reader, "GET", "/v1/items").status, 200);
    EXPECT_EQ(site.request(*reader, "GET", "/v1/audit").status, 403);
    site.call("PATCH", "/v1/users/reader", 200, {{"role", "owner"}});
    EXPECT_EQ(site.request(*reader, "GET", "/v1/audit").status, 200) << "counts at once";
    site.call("PATCH", "/v1/users/reader", 200, {{"disabled", true}});
    EXPECT_EQ(site.request(*reader, "GET", "/v1/items").status, 401);
    EXPECT_EQ(site.log_in("reader").status, 401);
    site.call("PATCH", "/v1/users/reader", 200, {{"disabled", false}});
    EXPECT_EQ(site.request(*reader, "GET", "/v1/items").status, 200);
    site.clock.us += kSessionS * 1'000'000;
    const HttpResponse late = site.request(*reader, "GET", "/v1/items");
    EXPECT_EQ(late.status, 401);
    EXPECT_NE(late.body.find("expired"), std::string::npos) << late.body;
    EXPECT_EQ(late.header("www-authenticate"), "Bearer");
    reader = site.client("reader");
    EXPECT_EQ(site.request(*reader, "POST", "/v1/logout").status, 204);
    EXPECT_EQ(site.request(*reader, "GET", "/v1/me").status, 401);
    EXPECT_EQ(site.refused("POST", "/v1/logout"), "wrong-state") << "the administrator's is none";
}

// Broken if passwords could be guessed without end, or what is answered told which users there are.
TEST(ApiAccess, WrongPasswordsAreAllAlikeAndLock) {
    People site;
    const HttpResponse wrong = site.log_in("reader", "not the password");
    const HttpResponse nobody = site.log_in("no-such-user", "not the password");
    EXPECT_EQ(wrong.status, 401);
    EXPECT_EQ(wrong.body, nobody.body);
    for (const char* user : {"reader", "no-such-user"}) {
        for (uint32_t i = 1; i < kFreeTriesOfUser; ++i)
            EXPECT_EQ(site.log_in(user, "not the password").status, 401);
        const HttpResponse locked = site.log_in(user);
        EXPECT_EQ(locked.status, 429) << user;
        EXPECT_EQ(site.code(locked), "throttled");
        EXPECT_EQ(locked.header("retry-after"), "30");
    }
    site.start();
    EXPECT_EQ(site.log_in("reader").status, 429) << "a restart ends no lock";
    EXPECT_EQ(site.call("GET", "/v1/users/reader", 200)["failed_logins"], kFreeTriesOfUser);
    site.clock.us += kFirstLockUs;
    EXPECT_EQ(site.log_in("reader").status, 201);
    EXPECT_EQ(site.call("GET", "/v1/users/reader", 200)["failed_logins"], 0);
    EXPECT_EQ(site.log_in("operator").status, 201) << "another user, from the same address";
}

// Broken if a token outlived what it was made for, or had more rights than its owner.
TEST(ApiAccess, AccessTokensHaveAtMostTheirOwnersRights) {
    People site;
    auto owner = site.client("operator");
    EXPECT_EQ(
        site.request(*owner, "POST", "/v1/access-tokens", {{"name", "x"}, {"role", "contributor"}})
            .status,
        403);
    const Json made = Json::parse(
        site.request(*owner, "POST", "/v1/access-tokens", {{"name", "cron"}, {"valid_s", 600}})
            .body);
    auto program = site.with(made["token"].get<std::string>());
    const Json me = Json::parse(site.request(*program, "GET", "/v1/me").body);
    EXPECT_EQ(me["kind"], "token");
    EXPECT_EQ(me["name"], "operator");
    EXPECT_EQ(me["role"], "operator");
    EXPECT_EQ(site.request(*program, "POST", "/v1/access-tokens", {{"name", "more"}}).status, 403);
    const std::string list = site.request(*owner, "GET", "/v1/access-tokens").body;
    EXPECT_NE(list.find("cron"), std::string::npos);
    EXPECT_EQ(list.find(made["token"].get<std::string>()), std::string::npos) << "shown once";
    site.call("PATCH", "/v1/users/operator", 200, {{"role", "reader"}});
    EXPECT_EQ(Json::parse(site.request(*program, "GET", "/v1/me").body)["role"], "reader");
    auto other = site.client("reader");
    const std::string target = "/v1/access-tokens/" + made["id"].get<std::string>();
    EXPECT_EQ(site.request(*other, "DELETE", target).status, 404) << "another's";
    EXPECT_EQ(site.request(*other, "GET", "/v1/access-tokens?all=true").status, 403);
    EXPECT_EQ(site.request(*site.client("owner"), "DELETE", target).status, 204);
    const HttpResponse revoked = site.request(*program, "GET", "/v1/me");
    EXPECT_EQ(revoked.status, 401);
    EXPECT_NE(revoked.body.find("revoked"), std::string::npos);
    const Json second = site.call("POST", "/v1/access-tokens", 201,
                                  {{"name", "b"}, {"role", "reader"}, {"valid_s", 60}});
    auto short_lived = site.with(second["token"].get<std::string>());
    EXPECT_EQ(site.request(*short_lived, "GET", "/v1/me").status, 200);
    site.clock.us += 60'000'000;
    EXPECT_EQ(site.request(*short_lived, "GET", "/v1/me").status, 401);
    site.call("DELETE", "/v1/users/operator", 204);
    EXPECT_EQ(site.request(*owner, "GET", "/v1/me").status, 401) << "gone with its user";
}

// Broken if whoever may set up one item could run any script of the vault.
TEST(ApiAccess, AScriptOfTheVaultNeedsARoleForAllItems) {
    struct WithDrills : People {
        WithDrills() { start(); }
        VaultServerOptions options() const override {
            VaultServerOptions options = People::options();
            options.recovery = true;
            return options;
        }
    } site;
    const ProtectedItem web(site);
    site.call("POST", "/v1/users", 201,
              {{"name", "web-contributor"},
               {"password", kPassword},
               {"role", "contributor"},
               {"items", {"web"}}});
    const auto set = [&](const std::string& who, const std::string& kind) {
        return site
            .request(*site.client(who), "PUT", "/v1/items/web/drill-policy",
                     {{"policy", {{"checks", {{{"kind", kind}, {"program", "x"}}}}}}})
            .status;
    };
    EXPECT_EQ(set("web-contributor", "script"), 403);
    EXPECT_EQ(set("web-contributor", "guest-script"), 200);
    EXPECT_EQ(set("contributor", "script"), 200);
}

// Broken if somebody saw or touched an item that is none of his, or could tell that it is there.
TEST(ApiAccess, ItemsOutOfScopeAreNotThere) {
    People site;
    ProtectedItem web(site), db(site, "db", "/disks/b");
    auto someone = site.client("web-only");
    const auto get = [&](const std::string& target) {
        return Json::parse(site.request(*someone, "GET", target).body, nullptr, false);
    };
    EXPECT_EQ(get("/v1/items")["items"].size(), 1u);
    EXPECT_EQ(get("/v1/items")["items"][0]["name"], "web");
    EXPECT_EQ(get("/v1/items?limit=1")["items"].size(), 1u) << "db comes before it";
    EXPECT_EQ(get("/v1/items/web")["name"], "web");
    EXPECT_EQ(get("/v1/server")["items"], 1);
    EXPECT_EQ(get("/v1/events")["events"].size(), get("/v1/events?item=web")["events"].size());
    EXPECT_EQ(site.request(*someone, "GET", "/metrics").body.find("\"db\""), std::string::npos);
    const std::string id = db.document["id"];
    for (const auto& [method, target] :
         {std::pair("GET", "/v1/items/db"), std::pair("GET", "/v1/items/db/points"),
          std::pair("POST", "/v1/items/db/scrub"), std::pair("GET", "/v1/events?item=db"),
          std::pair("GET", "/v1/jobs?item=db")}) {
        const HttpResponse response = site.request(*someone, method, target);
        EXPECT_EQ(response.status, 404) << target;
        std::string none =
            site.request(*someone, method,
                         std::string(target).replace(std::string(target).find("db"), 2, "no"))
                .body;
        EXPECT_EQ(response.body, none.replace(none.find("'no'"), 4, "'db'")) << target;
        EXPECT_EQ(site.audit("web-only").front().outcome == "out-of-scope" ||
                      site.audit("web-only")[1].outcome == "out-of-scope",
                  true)
            << target;
    }
    EXPECT_EQ(site.request(*someone, "GET", "/v1/items/" + id).status, 404);
    const Json job = site.call("POST", "/v1/items/db/scrub", 202);
    const std::string of_db = "/v1/jobs/" + std::to_string(job["id"].get<int>());
    EXPECT_EQ(site.request(*someone, "GET", of_db).status, 404);
    EXPECT_EQ(site.request(*someone, "POST", of_db + "/cancel").status, 404);
    EXPECT_EQ(site.request(*someone, "POST", "/v1/items/web/scrub").status, 202);
    for (const Json& row : get("/v1/jobs")["jobs"]) EXPECT_EQ(row["item"], "web");
    EXPECT_EQ(site.request(*someone, "GET", "/v1/stores").status, 403);
    const Json mark =
        site.call("POST", "/v1/items/db/bookmarks", 201, {{"label", "m"}, {"wait_s", 0}});
    EXPECT_EQ(
        site.request(*someone, "GET", "/v1/bookmarks/" + mark["id"].get<std::string>()).status,
        404);
    // Nor does a seed let him at another's disks, or an item beside his own in.
    site.call("PATCH", "/v1/users/web-only", 200,
              {{"role", "contributor"}, {"items", {"web", "new"}}});
    for (const auto& [name, seed, status] :
         {std::tuple("other", "", 403), std::tuple("new", "item:db", 404),
          std::tuple("new", "/disks/b", 403)}) {
        Json body{{"name", name}, {"disks", {"/disks/c"}}, {"wait_s", 0}};
        if (*seed != '\0') body["seeds"] = {seed};
        EXPECT_EQ(site.request(*someone, "POST", "/v1/items", body).status, status) << seed;
    }
}

// Broken if a role for a site saw another site's items, missed one that has moved there, kept one
// that has moved away, or a token of such a user reached further than he does.
TEST(ApiAccess, ASitesItemsAreThoseOfItsAppliances) {
    People site;
    ProtectedItem web(site), db(site, "db", "/disks/b");
    for (const auto& [name, where] :
         {std::pair("appliance-1", "berlin"), std::pair("appliance-2", "paris")}) {
        ApplianceStatus status;
        status.site = where;
        status.address = std::string(name) + ":1";
        ASSERT_TRUE(site.vault().sync_appliance(name, status));
    }
    ASSERT_TRUE(site.vault().move_item("db", "appliance-2", true));
    ASSERT_TRUE(site.vault().acquire_log(db.item, "appliance-2"));
    site.call("POST", "/v1/users", 201,
              {{"name", "paris-only"},
               {"password", kPassword},
               {"role", "contributor"},
               {"items", {"site:paris"}}});
    auto someone = site.client("paris-only");
    const auto seen = [&](HttpClient& client) {
        std::vector<std::string> names;
        const Json items = Json::parse(site.request(client, "GET", "/v1/items").body)["items"];
        for (const Json& item : items) names.push_back(item["name"]);
        return names;
    };
    using Names = std::vector<std::string>;
    EXPECT_EQ(seen(*someone), Names{"db"});
    EXPECT_EQ(site.request(*someone, "GET", "/v1/items/web").status, 404);
    EXPECT_EQ(site.audit("paris-only").front().outcome, "out-of-scope");
    EXPECT_EQ(site.request(*someone, "POST", "/v1/items/db/scrub").status, 202);
    EXPECT_EQ(site.request(*someone, "GET", "/v1/sites").status, 403);
    EXPECT_EQ(site.request(*someone, "POST", "/v1/items",
                           {{"name", "new"}, {"disks", {"/disks/c"}}, {"wait_s", 0}})
                  .status,
              403);
    // His token has no more than he, whatever its owner's scope becomes.
    const HttpResponse made =
        site.request(*someone, "POST", "/v1/access-tokens", {{"name", "backup"}});
    ASSERT_EQ(made.status, 201) << made.body;
    auto program = site.with(Json::parse(made.body)["token"]);
    EXPECT_EQ(seen(*program), Names{"db"});
    site.call("PATCH", "/v1/users/paris-only", 200, {{"items", {"web"}}});
    EXPECT_EQ(seen(*program), Names{});
    EXPECT_EQ(seen(*someone), Names{"web"});
    site.call("PATCH", "/v1/users/paris-only", 200, {{"items", {"site:paris", "site:berlin"}}});
    EXPECT_EQ(seen(*someone), (Names{"db", "web"}));
    EXPECT_EQ(seen(*program), Names{"db"});
    site.call("PATCH", "/v1/users/paris-only", 200, {{"items", {"site:paris"}}});
    ASSERT_TRUE(site.vault().move_item("db", "appliance-1", true));
    ASSERT_TRUE(site.vault().acquire_log(db.item, "appliance-1"));
    EXPECT_EQ(seen(*someone), Names{});
    EXPECT_EQ(site.refused("PATCH", "/v1/users/paris-only", {{"items", {"site:"}}}),
              "invalid-argument");
}

// Broken if a site that an appliance names were not there, could be forgotten under it, or what
// people say of one were lost, or written over unseen.
TEST(ApiAccess, SitesAreThoseThatAppliancesName) {
    People site;
    ProtectedItem web(site);
    ApplianceStatus status;
    status.site = "berlin";
    ASSERT_TRUE(site.vault().sync_appliance("appliance-1", status));
    const Json known = site.call("GET", "/v1/sites", 200)["sites"];
    ASSERT_EQ(known.size(), 1u);
    EXPECT_EQ(known[0]["name"], "berlin");
    EXPECT_EQ(known[0]["items"], 1);
    EXPECT_EQ(known[0]["connected_appliances"], 1);
    EXPECT_EQ(site.call("GET", "/v1/items?site=berlin", 200)["items"].size(), 1u);
    EXPECT_EQ(site.call("GET", "/v1/items?site=paris", 200)["items"].size(), 0u);
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["site"], "berlin");
    const Json said = site.call("PUT", "/v1/sites/berlin", 200, {{"description", "the old hall"}});
    EXPECT_NE(said["etag"], known[0]["etag"]);
    site.call("PUT", "/v1/sites/paris", 200, {{"description", "to come"}});
    EXPECT_EQ(site.call("GET", "/v1/sites", 200)["sites"].size(), 2u);
    EXPECT_EQ(site.refused("DELETE", "/v1/sites/berlin"), "wrong-state");
    site.call("DELETE", "/v1/sites/paris", 204);
    EXPECT_EQ(site.refused("GET", "/v1/sites/paris"), "not-found");
    EXPECT_EQ(site.refused("PUT", "/v1/sites/a%20b", {{"description", ""}}), "invalid-argument");
    EXPECT_EQ(site.call("GET", "/v1/sites/berlin", 200)["description"], "the old hall");
}

// Broken if what can be chosen for a network card were not to be seen: the closed networks,
// segments that others use, and what a host has.
TEST(ApiAccess, NetworksAreThoseThatCanBeChosen) {
    People site;
    ProtectedItem web(site);
    ASSERT_TRUE(set_item_nic(site.vault().database(), web.item, 0, R"({"test":"segment:lab"})"));
    const Json here = site.call("GET", "/v1/networks", 200);
    EXPECT_EQ(here["host"], "local");
    std::vector<std::string> words;
    for (const Json& one : here["networks"]) words.push_back(one["network"]);
    for (const char* word : {"isolated", "user", "none", "segment:lab"})
        EXPECT_NE(std::ranges::find(words, word), words.end()) << word;
    EXPECT_EQ(site.refused("GET", "/v1/networks?host=nowhere").substr(0, 4), "unsu")
        << "this vault has no recovery";
}

// Broken if the audit missed who did what from where, or kept a secret.
TEST(ApiAccess, TheAuditSaysWhoDidWhatFromWhere) {
    People site;
    ProtectedItem web(site);
    auto someone = site.client("contributor");
    EXPECT_EQ(
        site.request(*someone, "PATCH", "/v1/items/web", {{"policy", {{"window_s", 7777}}}}).status,
        200);
    EXPECT_EQ(site.request(*someone, "GET", "/v1/users").status, 403);
    EXPECT_EQ(site.request(*someone, "GET", "/v1/items").status, 200);
    auto rows = site.audit("contributor");
    ASSERT_EQ(rows.size(), 3u) << "reading is not written";
    EXPECT_EQ(rows[0].operation, "GET /v1/users");
    EXPECT_EQ(rows[0].outcome, "forbidden");
    EXPECT_EQ(rows[1].operation, "PATCH /v1/items/{item}");
    EXPECT_EQ(rows[1].item, "web");
    EXPECT_EQ(rows[1].outcome, "ok");
    EXPECT_EQ(rows[1].source, "127.0.0.1");
    EXPECT_EQ(rows[1].kind, "user");
    EXPECT_NE(rows[1].detail.find("7777"), std::string::npos) << rows[1].detail;
    EXPECT_EQ(rows[2].operation, "POST /v1/login");
    site.request(*site.with("fs_wrong"), "GET", "/v1/items");
    site.request(*site.with(""), "DELETE", "/v1/items/web");
    site.log_in("contributor", "a secret in vain");
    site.log_in("a-password-by-mistake", "a secret in vain");
    rows = site.audit();
    EXPECT_EQ(rows[0].outcome, "unauthenticated");
    EXPECT_EQ(rows[0].detail, "no such user");
    EXPECT_EQ(rows[1].detail, "user contributor");
    EXPECT_EQ(rows[2].operation, "DELETE /v1/items/{item}");
    EXPECT_EQ(rows[3].kind, "nobody");
    const Json page = site.call("GET", "/v1/audit?limit=2", 200);
    EXPECT_EQ(page["audit"].size(), 2u);
    const Json next = site.call(
        "GET", "/v1/audit?limit=2&before=" + std::to_string(page["next"].get<int>()), 200);
    EXPECT_EQ(next["audit"][0]["operation"], "DELETE /v1/items/{item}");
    const std::string all = site.call("GET", "/v1/audit?limit=1000", 200).dump();
    for (const char* secret :
         {kPassword, "a secret in vain", "a-password-by-mistake", "fs_wrong", "argon2id"})
        EXPECT_EQ(all.find(secret), std::string::npos) << secret;
}

// Broken if somebody without any token could fill the database, or push out what others did.
TEST(ApiAccess, AFloodByNobodyIsCounted) {
    People site;
    auto nobody = site.with("");
    for (uint32_t i = 0; i < kAuditOfNobodyPerMinute + 50; ++i)
        site.request(*nobody, "GET", "/v1/items");
    EXPECT_LE(site.audit().size(), kAuditOfNobodyPerMinute + 10);
    site.clock.us += 60'000'000;
    site.request(*nobody, "GET", "/v1/items");
    EXPECT_NE(site.audit()[0].detail.find("more were refused before"), std::string::npos)
        << site.audit()[0].detail;
}

// Broken if one's own password could be changed by whoever finds an open session, or old sessions
// went on.
TEST(ApiAccess, APasswordIsChangedWithTheOldOne) {
    People site;
    auto reader = site.client("reader");
    const auto change = [&](const char* old, const char* now) {
        return site.request(*reader, "POST", "/v1/me/password",
                            {{"old_password", old}, {"password", now}});
    };
    EXPECT_EQ(change("not the password", "another long one").status, 400);
    EXPECT_EQ(change(kPassword, "short").status, 400);
    EXPECT_EQ(change(kPassword, "another long one").status, 204);
    EXPECT_EQ(site.request(*reader, "GET", "/v1/me").status, 401);
    EXPECT_EQ(site.log_in("reader").status, 401);
    EXPECT_EQ(site.log_in("reader", "another long one").status, 201);
    site.call("POST", "/v1/users/reader/password", 204, {{"password", kPassword}});
    EXPECT_EQ(site.log_in("reader").status, 201);
    EXPECT_EQ(site.refused("POST", "/v1/me/password",
                           {{"old_password", kPassword}, {"password", kPassword}}),
              "wrong-state")
        << "the administrator has none";
}

}  // namespace
}  // namespace farshore
