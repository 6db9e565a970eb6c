// An agent's certificate, from its first token to its end, through a real appliance.
#include <gtest/gtest.h>

#include "agent/agent.h"
#include "appliance/appliance.h"
#include "os/test_directory.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// Broken if an agent could not get its next certificate by the one that it has, the new one did not
// work, or one that was removed got another.
TEST(Certificates, AnAgentRenewsThroughItsAppliance) {
    Site site;
    TestDirectory directory;
    const std::string authority = site.vault().authority_pem();
    auto appliance_tls = TlsContext::make(
        authority, *site.vault().local_party(PartyKind::kAppliance, "appliance-1"));
    ApplianceOptions options;
    options.name = "appliance-1";
    options.directory = directory / "appliance";
    options.listen = "127.0.0.1:0";
    auto appliance = Appliance::start(options, *appliance_tls, site.vault().store(), site.vault());
    ASSERT_TRUE(appliance) << appliance.error().to_string();
    const std::string address = (*appliance)->address();
    TimePoint expires;
    const auto token = site.vault().create_token(PartyKind::kAgent, "host-1", 60, expires);
    const std::string identity = directory / "identity";
    PosixFileSystem files;
    ASSERT_TRUE(Agent::enrol(address, *token, "host-1", authority, files, identity));
    const auto first = load_credentials(files, identity);
    auto tls = TlsContext::make(authority, *first);
    std::string last = first->certificate_pem;
    for (int i = 0; i < 2; ++i) {
        const auto renewed = Agent::renew(address, "host-1", *tls, files, identity);
        ASSERT_TRUE(renewed) << renewed.error().to_string();
        EXPECT_NE(renewed->certificate_pem, last);
        EXPECT_EQ(inspect_certificate(renewed->certificate_pem)->common_name, "host-1");
        EXPECT_EQ(load_credentials(files, identity)->certificate_pem, renewed->certificate_pem);
        last = renewed->certificate_pem;
        ASSERT_TRUE((*tls)->reload(authority, *renewed)) << "the next one is asked for with it";
    }
    ASSERT_TRUE(site.vault().remove_party("host-1"));
    const auto refused = Agent::renew(address, "host-1", *tls, files, identity);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kUnauthenticated) << refused.error().to_string();
    EXPECT_EQ(load_credentials(files, identity)->certificate_pem, last);
}

}  // namespace
}  // namespace farshore
