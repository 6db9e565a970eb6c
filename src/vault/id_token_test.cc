#include "vault/id_token.h"

#include <gtest/gtest.h>

#include "codec/test_signer.h"
#include "os/test_directory.h"
#include "vault/id_tokens.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr TimePoint kNow{1'700'000'000'000'000};

OidcSettings settings() {
    const auto parsed = parse_oidc_settings(
        R"({"issuer":"https://id.example.org","client_id":"farshore","keys_file":"/keys",)"
        R"("user_claim":"name","roles":{"dr-admins":"owner","dr":"operator"}})");
    EXPECT_TRUE(parsed) << parsed.error().to_string();
    return *parsed;
}

Json claims(TimePoint now = kNow) {
    const int64_t now_s = now.us / 1'000'000;
    return {{"iss", "https://id.example.org"}, {"aud", "farshore"}, {"name", "alice@example.org"},
            {"roles", {"other", "dr"}},        {"iat", now_s - 5},  {"exp", now_s + 300}};
}

// Broken if somebody got in with a token that is another provider's, for another client, too old,
// or signed by anybody else; or without a role.
TEST(IdToken, EverythingAboutItIsChecked) {
    const TestSigner rsa(true), ec(false), stranger(true);
    const auto keys =
        *parse_key_set(R"({"keys":[)" + rsa.jwk("a") + "," + ec.jwk("b") +
                       R"(,{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-384","x":"","y":""}]})");
    ASSERT_EQ(keys.size(), 2u);
    bool unknown = false;
    const auto check = [&](const std::string& token) {
        return check_id_token(token, keys, settings(), kNow, unknown);
    };
    for (const auto& [signer, id] : {std::pair(&rsa, "a"), std::pair(&ec, "b")}) {
        const auto user = check(signer->token(id, claims().dump()));
        ASSERT_TRUE(user) << user.error().to_string();
        EXPECT_EQ(user->name, "alice@example.org");
        EXPECT_EQ(user->role, Role::kOperator);
        EXPECT_EQ(user->expires.us, kNow.us + 300'000'000);
    }
    const std::string good = rsa.token("a", claims().dump());
    EXPECT_FALSE(check(stranger.token("a", claims().dump())));
    EXPECT_FALSE(unknown);
    EXPECT_FALSE(check(rsa.token("c", claims().dump())));
    EXPECT_TRUE(unknown) << "newer keys may have it";
    EXPECT_FALSE(check(ec.token("a", claims().dump()))) << "a key of another kind";
    for (const char* algorithm : {"none", "HS256", "RS512", ""})
        if (*algorithm != '\0')
            EXPECT_FALSE(check(rsa.token("a", claims().dump(), algorithm))) << algorithm;
    for (size_t at = 0; at < good.size(); at += 7) {
        std::string damaged = good;
        damaged[at] = damaged[at] == 'A' ? 'B' : 'A';
        // The last characters of a part may have bits that mean nothing.
        if (damaged != good && good.find('.', at) - at > 2) EXPECT_FALSE(check(damaged)) << at;
    }
    for (const char* bad : {"", ".", "..", "...", "a.b.c", "e30.e30.", "e30.e30.AAAA"})
        EXPECT_EQ(check(bad).error().code(), Code::kUnauthenticated) << bad;
    EXPECT_FALSE(check(std::string(kMaxIdTokenBytes + 1, 'a')));

    const auto with = [&](const char* name, const Json& value) {
        Json changed = claims();
        if (value.is_null())
            changed.erase(name);
        else
            changed[name] = value;
        const auto user = check(rsa.token("a", changed.dump()));
        return user ? std::string(role_name(user->role))
                    : std::string(code_name(user.error().code()));
    };
    const int64_t now_s = kNow.us / 1'000'000;
    EXPECT_EQ(with("iss", "https://evil.example.org"), "unauthenticated");
    EXPECT_EQ(with("iss", nullptr), "unauthenticated");
    EXPECT_EQ(with("aud", "another"), "unauthenticated");
    EXPECT_EQ(with("aud", Json::array({"farshore"})), "operator");
    EXPECT_EQ(with("aud", Json::array({"farshore", "x"})), "unauthenticated") << "no azp";
    EXPECT_EQ(with("azp", "another"), "unauthenticated");
    EXPECT_EQ(with("exp", now_s - 61), "unauthenticated");
    EXPECT_EQ(with("exp", now_s - 30), "operator") << "clocks differ";
    EXPECT_EQ(with("exp", nullptr), "unauthenticated");
    EXPECT_EQ(with("exp", "soon"), "unauthenticated");
    EXPECT_EQ(with("exp", 1e300), "unauthenticated");
    EXPECT_EQ(with("iat", now_s + 61), "unauthenticated");
    EXPECT_EQ(with("nbf", now_s + 61), "unauthenticated");
    for (const Json& name : {Json("Alice Smith"), Json(""), Json(nullptr), Json(5),
                             Json("administrator"), Json("ALICE")})
        EXPECT_EQ(with("name", name), "unauthenticated") << name.dump();
    EXPECT_EQ(with("roles", "dr-admins"), "owner");
    EXPECT_EQ(with("roles", Json::array({"dr", "dr-admins", 5})), "owner") << "the highest";
    EXPECT_EQ(with("roles", "nothing"), "forbidden");
    EXPECT_EQ(with("roles", nullptr), "forbidden");
}

// Broken if settings that say something else than they seem to were taken.
TEST(IdToken, WrongSettingsAreRefused) {
    for (
        const char* bad :
        {"", "[]", "{}", R"({"issuer":"x","client_id":"y"})",
         R"({"issuer":"x","client_id":"y","keys_file":"/k"})",
         R"({"issuer":"x","client_id":"y","keys_file":"/k","roles":{}})",
         R"({"issuer":"x","client_id":"y","keys_file":"/k","roles":{"a":"king"}})",
         R"({"issuer":"x","client_id":"y","keys_file":"/k","keys_url":"https://k","roles":{"a":"owner"}})",
         R"({"issuer":"x","client_id":"y","keys_url":"http://k","roles":{"a":"owner"}})",
         R"({"issuer":"x","client_id":"y","keys_file":"/k","rolls":1,"roles":{"a":"owner"}})"})
        EXPECT_FALSE(parse_oidc_settings(bad)) << bad;
    for (const char* bad :
         {"", "{}", R"({"keys":[5]})", R"({"keys":[{"kty":"RSA","n":"+","e":""}]})"})
        EXPECT_FALSE(parse_key_set(bad)) << bad;
}

// A vault whose provider is an HTTPS server beside it.
struct ProvidedSite : Site {
    ProvidedSite()
        : authority(*CertificateAuthority::create("id", clock.now())), first(true), second(false) {
        HttpServerOptions options;
        options.credentials =
            *authority.issue_with_key({.common_name = "localhost", .now = clock.now()});
        provider = std::move(*HttpServer::start(options, [this](const HttpRequest&) {
            ++asked;
            return HttpResponse::json(R"({"keys":[)" +
                                      (rotated ? second.jwk("2") : first.jwk("1")) + "]}");
        }));
        std::ignore =
            write_file_durably(files, directory / "ca.crt", as_bytes(authority.certificate_pem()));
        const Json json{{"issuer", "https://id.example.org"},
                        {"client_id", "farshore"},
                        {"keys_url", "https://localhost:" + std::to_string(provider->port())},
                        {"ca_file", directory / "ca.crt"},
                        {"user_claim", "name"},
                        {"roles", {{"dr-admins", "owner"}, {"dr", "operator"}}}};
        std::ignore = write_file_durably(files, directory / "oidc.json", as_bytes(json.dump()));
        start();
    }
    VaultServerOptions options() const override {
        VaultServerOptions options = Site::options();
        options.vault.kdf = {.memory_kib = 64, .passes = 1, .lanes = 1};
        options.oidc_settings_file = directory / "oidc.json";
        return options;
    }
    HttpResponse log_in(const std::string& token) {
        HttpClientOptions options;
        options.authority_pem = vault().authority_pem();
        HttpClient client(options);
        return request(client, "POST", "/v1/login/oidc", {{"id_token", token}});
    }
    struct Directory : TestDirectory {};
    Directory directory;
    CertificateAuthority authority;
    TestSigner first, second;
    std::atomic<bool> rotated = false;
    std::atomic<int> asked = 0;
    std::unique_ptr<HttpServer> provider;
};

// Broken if a provider's user had another role than his token says, or went on when he was
// disabled; or keys were not asked for anew, or with every token.
TEST(IdTokens, AProvidersUserLogsIn) {
    ProvidedSite site;
    EXPECT_EQ(site.call("GET", "/v1/login/oidc", 200)["client_id"], "farshore");
    const std::string good = site.first.token("1", claims(site.clock.now()).dump());
    HttpResponse answer = site.log_in(good);
    ASSERT_EQ(answer.status, 201) << answer.body;
    const Json session = Json::parse(answer.body);
    EXPECT_EQ(session["user"], "alice@example.org");
    EXPECT_EQ(session["role"], "operator");
    EXPECT_EQ(site.log_in(good).status, 201);
    EXPECT_EQ(site.asked, 1);
    EXPECT_EQ(site.log_in(site.first.token("1", "{}")).status, 401);
    EXPECT_EQ(site.log_in("nonsense").status, 401);
    site.rotated = true;
    const std::string newer = site.second.token("2", claims(site.clock.now()).dump());
    EXPECT_EQ(site.log_in(newer).status, 401) << "not again within a minute";
    site.clock.us += 61'000'000;
    EXPECT_EQ(site.log_in(newer).status, 201);
    EXPECT_EQ(site.asked, 2);
    EXPECT_EQ(site.log_in(good).status, 401) << "its key is withdrawn";
    EXPECT_EQ(site.call("GET", "/v1/users", 200)["users"][0]["provided"], true);
    site.call("PATCH", "/v1/users/alice%40example.org", 200, {{"disabled", true}});
    EXPECT_EQ(site.log_in(newer).status, 403);
    // Nor does any password open it, or the provider somebody with one.
    HttpClientOptions nobody;
    nobody.authority_pem = site.vault().authority_pem();
    HttpClient client(nobody);
    EXPECT_EQ(site.request(client, "POST", "/v1/login",
                           {{"user", "alice@example.org"}, {"password", "provided"}})
                  .status,
              401);
    site.call("POST", "/v1/users", 201, {{"name", "bob"}, {"password", "a long password"}});
    Json bob = claims(site.clock.now());
    bob["name"] = "bob";
    EXPECT_EQ(site.log_in(site.second.token("2", bob.dump())).status, 403);
    const std::string audit = site.call("GET", "/v1/audit?limit=1000", 200).dump();
    EXPECT_EQ(audit.find(newer), std::string::npos);
    EXPECT_NE(audit.find("by the provider"), std::string::npos);
}

}  // namespace
}  // namespace farshore
