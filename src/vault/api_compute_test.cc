#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/party_names.h"
#include "codec/hash.h"
#include "meta/items.h"
#include "meta/kept_answers.h"
#include "meta/parties.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const Json kRemote{{"name", "rack"},
                   {"uri", "qemu+tls://kvm1.example.org/system"},
                   {"disks_address", "vault.example.org"}};

ItemRecord made_item(Site& site, const std::string& name) {
    ItemRecord item;
    item.id.raw[0] = 7;
    item.name = name;
    EXPECT_TRUE(create_item(site.vault().database(), item));
    return item;
}

HttpResponse with_header(Site& site, const std::string& method, const std::string& target,
                         const Json& body, const std::string& name, const std::string& value) {
    HttpClientRequest request;
    request.method = method;
    request.url = "https://" + site.server->address() + target;
    request.headers.emplace_back(name, value);
    request.body = dump_json(body);
    return site.http->request(request).value_or(HttpResponse{});
}

// Broken if a host were kept as something else than what was said, or two who change it at once
// did not notice each other.
TEST(ApiCompute, HostsAreAddedChangedAndRemoved) {
    Site site;
    const Json made = site.call("POST", "/v1/compute-hosts", 201, kRemote);
    EXPECT_EQ(made["disks"], "tls");
    EXPECT_EQ(made["disks_ports"], "10810-11809");
    EXPECT_EQ(made["accelerator"], "auto");
    EXPECT_EQ(site.refused("POST", "/v1/compute-hosts", kRemote), "already-exists");
    EXPECT_EQ(
        site.refused("POST", "/v1/compute-hosts", {{"name", "local"}, {"uri", "qemu:///system"}}),
        "invalid-argument");
    EXPECT_EQ(
        site.refused("POST", "/v1/compute-hosts", {{"name", "x"}, {"uri", "qemu+tcp://h/system"}}),
        "invalid-argument");
    const Json local{{"uri", "qemu:///system"}, {"accelerator", "kvm"}};
    const HttpResponse stale =
        with_header(site, "PUT", "/v1/compute-hosts/rack", local, "If-Match", "\"other\"");
    EXPECT_EQ(stale.status, 412);
    const HttpResponse changed = with_header(site, "PUT", "/v1/compute-hosts/rack", local,
                                             "If-Match", made["etag"].get<std::string>());
    ASSERT_EQ(changed.status, 200) << changed.body;
    const Json now = site.call("GET", "/v1/compute-hosts/rack", 200);
    EXPECT_EQ(now["disks"], "unix") << "nothing of before is left";
    EXPECT_FALSE(now.contains("disks_address"));
    EXPECT_NE(now["etag"], made["etag"]);
    EXPECT_EQ(changed.header("etag"), now["etag"]);
    EXPECT_EQ(site.call("GET", "/v1/compute-hosts", 200)["compute_hosts"][0], now);
    site.call("DELETE", "/v1/compute-hosts/rack", 204);
    EXPECT_EQ(site.refused("DELETE", "/v1/compute-hosts/rack"), "not-found");
    EXPECT_EQ(site.refused("PUT", "/v1/compute-hosts/rack", local), "not-found");
    EXPECT_EQ(site.refused("GET", "/v1/compute-hosts/local"), "not-found");
}

// Broken if an item's machine went somewhere else than where it was set, or its host could vanish.
TEST(ApiCompute, AnItemIsToRunOnOne) {
    Site site;
    made_item(site, "web");
    const std::string target = "/v1/items/web/compute";
    EXPECT_EQ(site.call("GET", target, 200), (Json{{"item", "web"}, {"host", "local"}}));
    EXPECT_EQ(site.refused("PUT", target, {{"host", "rack"}}), "not-found");
    site.call("POST", "/v1/compute-hosts", 201, kRemote);
    site.call("PUT", target, 200, {{"host", "rack"}});
    EXPECT_EQ(site.call("GET", target, 200)["host"], "rack");
    EXPECT_EQ(site.refused("DELETE", "/v1/compute-hosts/rack"), "wrong-state");
    site.call("PUT", target, 200, {{"host", "local"}});
    EXPECT_EQ(site.call("GET", target, 200)["host"], "local");
    site.call("PUT", target, 200, {{"host", "rack"}});
    site.call("DELETE", target, 204);
    site.call("DELETE", "/v1/compute-hosts/rack", 204);
    EXPECT_EQ(site.refused("GET", "/v1/items/db/compute"), "item-not-found");
}

// Broken if a private key were kept anywhere, or it could not be found out who got one.
TEST(ApiCompute, CredentialsAreIssuedAndNotKept) {
    Site site;
    site.call("POST", "/v1/compute-hosts", 201, kRemote);
    site.call("POST", "/v1/compute-hosts", 201, {{"name", "here"}, {"uri", "qemu:///system"}});
    EXPECT_EQ(site.refused("POST", "/v1/compute-hosts/here/credentials"), "wrong-state");
    EXPECT_EQ(site.refused("POST", "/v1/compute-hosts/nobody/credentials"), "not-found");
    const HttpResponse answer = with_header(site, "POST", "/v1/compute-hosts/rack/credentials",
                                            Json::object(), "Idempotency-Key", "one");
    ASSERT_EQ(answer.status, 201) << answer.body;
    EXPECT_EQ(answer.header("cache-control"), "no-store");
    const Json made = Json::parse(answer.body);
    const std::string key = made["key"];
    const Credentials credentials{made["certificate"], Secret(as_bytes(key))};
    EXPECT_TRUE(check_credentials(credentials));
    const auto info = inspect_certificate(credentials.certificate_pem);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->common_name, "compute:rack");
    EXPECT_TRUE(info->alternative_names.empty());
    EXPECT_EQ(made["expires_at"], to_rfc3339(info->not_after));
    EXPECT_EQ(made["authority"], site.vault().authority_pem());
    const HttpResponse again = with_header(site, "POST", "/v1/compute-hosts/rack/credentials",
                                           Json::object(), "Idempotency-Key", "one");
    EXPECT_EQ(again.status, 201);
    EXPECT_EQ(again.header("idempotency-replayed"), "");
    EXPECT_NE(Json::parse(again.body)["key"], made["key"]);
    const std::string audit = dump_json(site.call("GET", "/v1/audit?limit=100", 200));
    EXPECT_THAT(audit, HasSubstr(info->fingerprint_hex()));
    EXPECT_THAT(audit, Not(HasSubstr("PRIVATE")));
    const std::string some = key.substr(key.size() / 2, 32);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(site.directory)) {
        if (!entry.is_regular_file()) continue;
        const auto bytes = read_whole_file(site.files, entry.path(), 64u << 20);
        ASSERT_TRUE(bytes);
        EXPECT_EQ(as_text(*bytes).find(some), std::string_view::npos) << entry.path();
    }
}

// Broken if the certificate of a compute host's QEMU opened anything of the vault: the link of
// appliances, what agents do, the API; or if a party could be called as one, and so open disks.
TEST(ApiCompute, ItsCertificateIsNobodys) {
    Site site;
    site.call("POST", "/v1/compute-hosts", 201, kRemote);
    const auto made = site.vault().issue_compute_credentials("rack");
    ASSERT_TRUE(made);
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    options.credentials = made->credentials;
    HttpClient client(options);
    const std::string request = make_key_and_request("compute:rack")->request_pem;
    for (const char* method : {"acquire-log", "sync-appliance", "refused-agents", "sync-agent",
                               "renew", "compare", "open-return", "unknown"})
        EXPECT_EQ(site.request(client, "POST", std::string("/internal/v1/link/") + method,
                               {{"appliance", "compute:rack"},
                                {"party", "compute:rack"},
                                {"request_pem", request}})
                      .status,
                  401)
            << method;
    for (const char* target : {"/v1/items", "/v1/compute-hosts", "/metrics", "/v1/server"})
        EXPECT_EQ(site.request(client, "GET", target).status, 401) << target;
    EXPECT_EQ(site.request(client, "POST", "/v1/compute-hosts/rack/credentials").status, 401);
    EXPECT_EQ(site.vault().renew("compute:rack", request).error().code(), Code::kUnauthenticated);

    // As a name of a party.
    TimePoint expires;
    EXPECT_EQ(site.vault()
                  .create_token(PartyKind::kAppliance, "compute:rack", 60, expires)
                  .error()
                  .code(),
              Code::kInvalidArgument);
    const auto any = site.vault().create_token(PartyKind::kAppliance, "", 60, expires);
    const auto chain = site.vault().enrol(*any, request);
    ASSERT_TRUE(chain);
    EXPECT_FALSE(is_compute_name(inspect_certificate(*chain)->common_name));
    // What an older version let in.
    PartyRecord old;
    old.name = "compute:rack";
    old.kind = PartyKind::kAppliance;
    ASSERT_TRUE(enrol_party(site.vault().database(), old));
    EXPECT_EQ(site.vault().check_party("compute:rack").error().code(), Code::kUnauthenticated);
    EXPECT_EQ(*site.vault().refused_agents({"compute:rack"}),
              std::vector<std::string>{"compute:rack"});
    const std::string text = "an old token";
    EnrolmentToken token;
    token.hash = sha256(as_bytes(text));
    token.name = "compute:rack";
    token.expires = {site.clock.us + 1'000'000};
    ASSERT_TRUE(add_token(site.vault().database(), token));
    EXPECT_EQ(site.vault().enrol(text, request).error().code(), Code::kUnauthenticated);
}

}  // namespace
}  // namespace farshore
