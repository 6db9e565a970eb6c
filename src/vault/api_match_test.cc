// Two callers at once (If-Match), and one who asks twice (Idempotency-Key).
#include <thread>

#include "vault/test_site.h"

namespace farshore {
namespace {

struct Answer {
    int status = 0;
    std::string etag, replayed, code;
    Json json;
};

struct Caller {
    explicit Caller(Site& site_in) : site(site_in) {}
    Answer operator()(const std::string& method, const std::string& target, const Json& body = {},
                      std::vector<std::pair<std::string, std::string>> headers = {},
                      HttpClient* client = nullptr) {
        HttpClientRequest request;
        request.method = method;
        request.url = "https://" + site.server->address() + target;
        if (!body.is_null()) request.body = dump_json(body);
        request.headers = std::move(headers);
        const auto response = (client != nullptr ? *client : *site.http).request(request);
        EXPECT_TRUE(response) << response.error().to_string();
        Answer answer;
        if (!response) return answer;
        answer.status = response->status;
        answer.etag = response->header("etag");
        answer.replayed = response->header("idempotency-replayed");
        answer.json = Json::parse(response->body, nullptr, false);
        if (answer.json.is_object()) answer.code = answer.json.value("code", "");
        return answer;
    }
    Site& site;
};

// Broken if a version changed with live numbers, did not change with what can be changed, or a
// change for an older version were made.
TEST(Match, AnUpdateIsNotLost) {
    Site site;
    ProtectedItem item(site);
    Caller call(site);
    const Answer first = call("GET", "/v1/items/web");
    ASSERT_FALSE(first.etag.empty());
    EXPECT_EQ(first.json["etag"], first.etag);
    site.clock.us += 100'000'000;
    site.vault().tend();
    const Answer later = call("GET", "/v1/items/web");
    EXPECT_NE(later.json["rpo_s"], first.json["rpo_s"]);
    EXPECT_EQ(later.etag, first.etag);
    EXPECT_EQ(call("GET", "/v1/items/web", {}, {{"If-None-Match", first.etag}}).status, 304);
    EXPECT_EQ(call("GET", "/v1/items/web", {}, {{"If-None-Match", "\"other\""}}).status, 200);

    const Json one{{"policy", {{"window_s", 900}}}}, two{{"policy", {{"window_s", 1800}}}};
    const Answer changed = call("PATCH", "/v1/items/web", one, {{"If-Match", first.etag}});
    EXPECT_EQ(changed.status, 200);
    EXPECT_NE(changed.etag, first.etag);
    const Answer lost = call("PATCH", "/v1/items/web", two, {{"If-Match", first.etag}});
    EXPECT_EQ(lost.status, 412);
    EXPECT_EQ(lost.code, "precondition-failed");
    EXPECT_EQ(call("GET", "/v1/items/web").json["policy"]["window_s"], 900);
    for (const auto& [method, target, body] :
         std::vector<std::tuple<std::string, std::string, Json>>{
             {"DELETE", "/v1/items/web", {}},
             {"POST", "/v1/items/web/scrub", {}},
             {"POST", "/v1/items/web/disks", {{"path", "/d"}}}})
        EXPECT_EQ(call(method, target, body, {{"If-Match", first.etag}}).status, 412) << target;
    EXPECT_EQ(call("POST", "/v1/items/web/scrub", {}, {{"If-Match", changed.etag}}).status, 202);
    EXPECT_EQ(call("PATCH", "/v1/items/web", two, {{"If-Match", "nonsense"}}).code, "malformed");
    EXPECT_EQ(call("PATCH", "/v1/items/web", two, {{"If-Match", "*"}}).status, 200);
    EXPECT_EQ(call("PATCH", "/v1/items/web", two).status, 200) << "it is optional";
    EXPECT_EQ(call("POST", "/v1/items", {{"name", "x"}}, {{"If-Match", "*"}}).status, 412);
}

// Broken if a resource that can be changed had no version, or any of them were changed or removed
// for an older one.
TEST(Match, EveryResourceHasAVersion) {
    Site site;
    Caller call(site);
    call("POST", "/v1/users", {{"name", "alice"}, {"password", "a long password"}});
    call("POST", "/v1/policies", {{"name", "gold"}});
    const Json token = call("POST", "/v1/access-tokens", {{"name", "cron"}}).json;
    const Answer user = call("GET", "/v1/users/alice"), policy = call("GET", "/v1/policies/gold");
    EXPECT_EQ(
        call("PATCH", "/v1/users/alice", {{"disabled", true}}, {{"If-Match", user.etag}}).status,
        200);
    EXPECT_EQ(call("DELETE", "/v1/users/alice", {}, {{"If-Match", user.etag}}).status, 412);
    const Json values{{"policy", {{"window_s", 900}}}};
    EXPECT_EQ(call("PUT", "/v1/policies/gold", values, {{"If-Match", policy.etag}}).status, 200);
    EXPECT_EQ(call("PUT", "/v1/policies/gold", values, {{"If-Match", policy.etag}}).status, 412);
    EXPECT_EQ(call("DELETE", "/v1/policies/gold", {}, {{"If-Match", policy.etag}}).status, 412);
    const std::string id = token["id"];
    EXPECT_EQ(call("DELETE", "/v1/access-tokens/" + id, {}, {{"If-Match", "\"x\""}}).status, 412);
    EXPECT_EQ(call("DELETE", "/v1/access-tokens/" + id, {}, {{"If-Match", token["etag"]}}).status,
              204);
    // One that was removed and made again is another.
    const std::string before = call("GET", "/v1/policies/gold").etag;
    call("DELETE", "/v1/policies/gold");
    site.clock.us += 1;
    call("POST", "/v1/policies", {{"name", "gold"}});
    call("PUT", "/v1/policies/gold", values);
    EXPECT_NE(call("GET", "/v1/policies/gold").etag, before);
}

// Broken if of two who change one version at the same time both, or neither, got it.
TEST(Match, OfTwoAtOnceOneWins) {
    Site site;
    Caller call(site);
    call("POST", "/v1/policies", {{"name", "gold"}});
    for (int round = 0; round < 8; ++round) {
        const std::string etag = call("GET", "/v1/policies/gold").etag;
        std::atomic<int> good = 0, refused = 0;
        std::vector<std::thread> operators;
        for (int i = 0; i < 4; ++i)
            operators.emplace_back([&, i] {
                const int status =
                    call("PUT", "/v1/policies/gold",
                         {{"policy", {{"window_s", 1000 + round * 10 + i}}}}, {{"If-Match", etag}})
                        .status;
                good += status == 200;
                refused += status == 412;
            });
        for (std::thread& one : operators) one.join();
        EXPECT_EQ(good, 1);
        EXPECT_EQ(refused, 3);
    }
}

// Broken if a request that is sent again did something again, got another answer, or a key of
// somebody else, or with another body, were taken for it.
TEST(Replays, TheSameKeyDoesItOnce) {
    Site site;
    Caller call(site);
    const Json body{{"name", "web"}, {"disks", {"/a"}}, {"wait_s", 0}};
    const std::vector<std::pair<std::string, std::string>> key{{"Idempotency-Key", "one"}};
    const Answer first = call("POST", "/v1/items", body, key);
    EXPECT_EQ(first.status, 201);
    EXPECT_EQ(first.replayed, "");
    const Answer again = call("POST", "/v1/items", body, key);
    EXPECT_EQ(again.status, 201) << "not already-exists";
    EXPECT_EQ(again.json, first.json);
    EXPECT_EQ(again.etag, first.etag);
    EXPECT_EQ(again.replayed, "true");
    Json other = body;
    other["name"] = "db";
    const Answer reused = call("POST", "/v1/items", other, key);
    EXPECT_EQ(reused.status, 422);
    EXPECT_EQ(reused.code, "idempotency-key-reused");
    EXPECT_EQ(call("POST", "/v1/policies", body, key).code, "idempotency-key-reused");
    EXPECT_EQ(
        call("POST", "/v1/items", body, {{"Idempotency-Key", ""}}).code == "invalid-argument" ||
            call("POST", "/v1/items", body, {{"Idempotency-Key", "a b"}}).code ==
                "invalid-argument",
        true);
    // Of another identity it is another key.
    const Json made = call("POST", "/v1/access-tokens", {{"name", "t"}}, key).json;
    EXPECT_EQ(made.value("code", ""), "idempotency-key-reused");
    const Answer token =
        call("POST", "/v1/access-tokens", {{"name", "t"}}, {{"Idempotency-Key", "two"}});
    const Answer same_token =
        call("POST", "/v1/access-tokens", {{"name", "t"}}, {{"Idempotency-Key", "two"}});
    EXPECT_EQ(same_token.json["token"], token.json["token"]) << "which is shown once, to its maker";
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    options.bearer_token = Secret(as_bytes(token.json["token"].get<std::string>()));
    HttpClient stranger(options);
    EXPECT_EQ(call("POST", "/v1/items", body, key, &stranger).code, "already-exists");
    // What was refused because of how things are now may go well later.
    EXPECT_EQ(call("POST", "/v1/policies", {{"name", "default"}}, {{"Idempotency-Key", "3"}}).code,
              "already-exists");
    EXPECT_EQ(call("POST", "/v1/policies", {{"name", "x"}}, {{"Idempotency-Key", "3"}}).status,
              201);
    // What is wrong stays wrong.
    EXPECT_EQ(call("POST", "/v1/policies", {{"mispelt", 1}}, {{"Idempotency-Key", "4"}}).status,
              400);
    EXPECT_EQ(call("POST", "/v1/policies", {{"mispelt", 1}}, {{"Idempotency-Key", "4"}}).replayed,
              "true");
    // A vault that starts again knows it, and forgets it after a day.
    site.start();
    EXPECT_EQ(call("POST", "/v1/items", body, key).json, first.json);
    site.clock.us += 25ll * 3600 * 1'000'000;
    EXPECT_EQ(call("POST", "/v1/items", body, key).code, "already-exists");
}

// Broken if two that come at the same time were both done; or secrets lay in the database.
TEST(Replays, AtTheSameTimeOneIsDone) {
    Site site;
    Caller call(site);
    std::atomic<int> made = 0, told_to_wait = 0;
    std::vector<std::thread> callers;
    for (int i = 0; i < 6; ++i)
        callers.emplace_back([&] {
            const Answer answer =
                call("POST", "/v1/access-tokens", {{"name", "once"}}, {{"Idempotency-Key", "k"}});
            made += answer.status == 201;
            told_to_wait += answer.code == "in-progress";
        });
    for (std::thread& one : callers) one.join();
    EXPECT_EQ(made + told_to_wait, 6);
    EXPECT_GE(made, 1);
    EXPECT_EQ(call("GET", "/v1/access-tokens").json["access_tokens"].size(), 1u);
    const std::string secret =
        call("POST", "/v1/access-tokens", {{"name", "once"}}, {{"Idempotency-Key", "k"}})
            .json["token"];
    if (!test_postgres().empty()) return;
    const auto bytes = read_whole_file(site.files, site.directory + "/vault/farshore.db", 64 << 20);
    const auto log =
        read_whole_file(site.files, site.directory + "/vault/farshore.db-wal", 64 << 20);
    for (const auto& file : {bytes, log})
        if (file)
            EXPECT_EQ(as_text(*file).find(secret.substr(secret.size() - 40)), std::string::npos);
}

}  // namespace
}  // namespace farshore
