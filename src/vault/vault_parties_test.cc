#include <gtest/gtest.h>

#include "meta/certificates.h"
#include "meta/parties.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;

size_t events_of(Site& site, const std::string& code) {
    const auto events = list_events(site.vault().database(), 0, 1000);
    return static_cast<size_t>(std::ranges::count_if(
        *events, [&](const EventRecord& event) { return event.code == code; }));
}

Result<CertificateInfo> enrolled(Site& site, const std::string& name) {
    TimePoint expires;
    FS_ASSIGN(const std::string token,
              site.vault().create_token(PartyKind::kAgent, name, 60, expires));
    FS_ASSIGN(const KeyAndRequest made, make_key_and_request(name));
    FS_ASSIGN(const std::string chain, site.vault().enrol(token, made.request_pem));
    return inspect_certificate(chain);
}

// Broken if a party could not renew, another's name came with a renewal, or one that was removed
// got a certificate.
TEST(VaultParties, CertificatesAreRenewedWhileTheirPartyIsEnrolled) {
    Site site;
    const auto first = enrolled(site, "host-1");
    ASSERT_TRUE(first) << first.error().to_string();
    site.clock.us += 250 * kDayUs;
    const auto asked = make_key_and_request("somebody-else");
    const auto chain = site.vault().renew("host-1", asked->request_pem);
    ASSERT_TRUE(chain) << chain.error().to_string();
    const auto second = inspect_certificate(*chain);
    EXPECT_EQ(second->common_name, "host-1") << "whatever the request says";
    EXPECT_GT(second->not_after.us, first->not_after.us + 240 * kDayUs);
    EXPECT_EQ(get_party(site.vault().database(), "host-1")->fingerprint, second->fingerprint_hex());
    EXPECT_EQ(events_of(site, "certificate-renewed"), 1u);
    site.call("DELETE", "/v1/agents/host-1", 204);
    EXPECT_EQ(site.vault().renew("host-1", asked->request_pem).error().code(),
              Code::kUnauthenticated);
    EXPECT_EQ(*site.vault().refused_agents({"host-1", "host-2"}),
              (std::vector<std::string>{"host-1", "host-2"}));
    ASSERT_TRUE(enrolled(site, "host-1"));
    EXPECT_EQ(*site.vault().refused_agents({"host-1", "host-2"}),
              std::vector<std::string>{"host-2"});
}

// Broken if nobody were told of a certificate that ends, or again and again.
TEST(VaultParties, AnEndThatComesIsToldOnce) {
    Site site;
    const auto certificate = enrolled(site, "host-1");
    ASSERT_TRUE(certificate);
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 0u);
    site.clock.us = certificate->not_after.us - 15 * kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 0u);
    site.clock.us += 2 * kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 1u);
    site.clock.us += kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 1u);
    ASSERT_TRUE(site.vault().renew("host-1", make_key_and_request("host-1")->request_pem));
    site.clock.us += kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 1u);
    site.clock.us = certificate_until(site.vault().database(), "host-1")->us - kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 2u) << "of the next one";
    // Of one that was removed nobody wants to know.
    ASSERT_TRUE(enrolled(site, "host-2"));
    ASSERT_TRUE(site.vault().remove_party("host-2"));
    site.clock.us += 400 * kDayUs;
    site.vault().tend();
    EXPECT_EQ(events_of(site, "certificate-ending"), 2u);
}

// Broken if an appliance could have the certificate of another appliance, or an agent's, or one
// that was removed, could go on by a connection that it has.
TEST(VaultParties, AnApplianceRenewsItselfAndItsAgentsOnly) {
    Site site;
    const auto appliance = site.vault().local_party(PartyKind::kAppliance, "appliance-1");
    ASSERT_TRUE(appliance);
    ASSERT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1"));
    TimePoint expires;
    const auto token = site.vault().create_token(PartyKind::kAppliance, "appliance-2", 60, expires);
    ASSERT_TRUE(site.vault().enrol(*token, make_key_and_request("x")->request_pem));
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    options.credentials = *appliance;
    HttpClient client(options);
    const std::string request = make_key_and_request("x")->request_pem;
    const auto renew = [&](const char* party) {
        return site
            .request(client, "POST", "/internal/v1/link/renew",
                     {{"party", party}, {"request_pem", request}})
            .status;
    };
    EXPECT_EQ(renew("appliance-1"), 200);
    EXPECT_EQ(renew("agent-1"), 200);
    EXPECT_EQ(renew("appliance-2"), 403);
    EXPECT_EQ(renew("nobody"), 401);
    site.call("DELETE", "/v1/agents/appliance-1", 204);
    EXPECT_EQ(renew("appliance-1"), 401) << "on the connection that stands";
    EXPECT_EQ(renew("agent-1"), 401);
}

}  // namespace
}  // namespace farshore
