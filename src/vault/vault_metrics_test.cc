#include "vault/vault_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vault/test_site.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kPassword = "correct horse battery";

struct Watched : Site {
    Watched() { start(); }  // with cheap passwords
    VaultServerOptions options() const override {
        VaultServerOptions options = Site::options();
        options.vault.kdf = {.memory_kib = 64, .passes = 1, .lanes = 1};
        return options;
    }
    // A user's who may see the item `item` alone.
    std::unique_ptr<HttpClient> only(const std::string& item) {
        call("POST", "/v1/users", 201,
             {{"name", "u"}, {"password", kPassword}, {"role", "reader"}, {"items", {item}}});
        HttpClientOptions client;
        client.authority_pem = vault().authority_pem();
        HttpClient nobody(client);
        const Json login = Json::parse(
            request(nobody, "POST", "/v1/login", {{"user", "u"}, {"password", kPassword}}).body);
        client.bearer_token = Secret(as_bytes(login["token"].get<std::string>()));
        return std::make_unique<HttpClient>(client);
    }
    std::string metrics(HttpClient& who) { return request(who, "GET", "/metrics").body; }
};

// Broken if the vault's numbers were other than what its API says, or had the wrong unit.
TEST(VaultMetrics, NumbersAreThoseOfTheApi) {
    Watched site;
    ProtectedItem web(site);
    site.refused("GET", "/v1/items/none");
    const HttpResponse response = site.request(*site.http, "GET", "/metrics");
    EXPECT_EQ(response.header("content-type"), std::string(kMetricsContentType));
    const std::string& text = response.body;
    const std::string id = web.item.to_string();
    EXPECT_THAT(text, HasSubstr("farshore_item_info{item=\"web\",item_id=\"" + id +
                                "\",capture=\"in-path\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("farshore_item_state{item=\"web\",state=\"protected\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("farshore_item_rpo_seconds{item=\"web\"} 0\n"));
    EXPECT_THAT(text, HasSubstr("farshore_item_written_bytes_total{item=\"web\"} 4096\n"));
    EXPECT_THAT(text, HasSubstr("farshore_item_stored_sequence{item=\"web\"} 5\n"));
    EXPECT_THAT(text, HasSubstr("farshore_api_requests_total{class=\"4xx\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("farshore_api_request_seconds_count{kind=\"read\"}"));
    EXPECT_THAT(text, Not(HasSubstr("farshore_api_request_seconds_count{kind=\"read\"} 0\n")));
    EXPECT_THAT(text, HasSubstr("farshore_vault_database_trouble 0\n"));
    EXPECT_THAT(text, HasSubstr("farshore_alarms{severity=\"critical\",acknowledged=\"false\"} 0"));
    EXPECT_THAT(text, HasSubstr("farshore_party_connected{party=\"agent-1\",kind=\"agent\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("\nfarshore_vault_certificate_expiry_time_seconds "));
    // Every family is introduced, once.
    for (const MetricFamily& family : vault_metric_families())
        EXPECT_EQ(text.find("# TYPE " + std::string(family.name) + " "),
                  text.rfind("# TYPE " + std::string(family.name) + " "))
            << family.name;
}

// Broken if whoever may see one item learned of others by the numbers.
TEST(VaultMetrics, WhoSeesOneItemSeesItsRowsAlone) {
    Watched site;
    ProtectedItem web(site);
    ProtectedItem second(site, "hidden", "/disks/b");
    const std::string text = site.metrics(*site.only("web"));
    EXPECT_THAT(text, HasSubstr("{item=\"web\"}"));
    EXPECT_THAT(text, Not(HasSubstr("hidden")));
    EXPECT_THAT(text, Not(HasSubstr("farshore_jobs{")));
    EXPECT_THAT(text, Not(HasSubstr("agent-1")));
}

// Broken if an alert on alarms had nothing to look at before the first one, or one that somebody
// has seen counted as new.
TEST(VaultMetrics, AlarmsAreCountedBySeverity) {
    MetricsText text(vault_metric_families());
    AlarmRecord critical, seen;
    critical.severity = seen.severity = Severity::kCritical;
    seen.acknowledged.us = 1;
    add_alarm_metrics(text, {critical, seen, critical});
    EXPECT_THAT(text.text(),
                HasSubstr("farshore_alarms{severity=\"warning\",acknowledged=\"false\"} 0\n"
                          "farshore_alarms{severity=\"warning\",acknowledged=\"true\"} 0\n"
                          "farshore_alarms{severity=\"critical\",acknowledged=\"false\"} 2\n"
                          "farshore_alarms{severity=\"critical\",acknowledged=\"true\"} 1\n"));
}

// Broken if monitoring took a node that is away for one that can lead.
TEST(VaultMetrics, ANodeHasOneRole) {
    MetricsText text(vault_metric_families());
    VaultLease lease;
    lease.node = "a";
    lease.left_us = 1;
    std::vector<VaultNode> nodes(3);
    nodes[0].name = "a";
    nodes[1].name = "b";
    nodes[2].name = "c";
    nodes[2].silent_us = int64_t{60} * 1'000'000;
    add_node_metrics(text, lease, nodes);
    EXPECT_THAT(text.text(), HasSubstr("farshore_vault_node{node=\"a\",role=\"leads\"} 1\n"
                                       "farshore_vault_node{node=\"b\",role=\"ready\"} 1\n"
                                       "farshore_vault_node{node=\"c\",role=\"away\"} 1\n"));
}

}  // namespace
}  // namespace farshore
