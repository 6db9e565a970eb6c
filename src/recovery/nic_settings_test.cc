#include "recovery/nic_settings.h"

#include <gtest/gtest.h>

#include "meta/json_fields.h"

namespace farshore {
namespace {

// Broken if what was set for a card were lost on its way through the API or the database.
TEST(NicSettings, ComeBackAsTheyWereGiven) {
    for (const char* text :
         {R"({"mac":"keep"})", R"({"failover":"bridge:br0","mac":"new","test":"segment:lab"})",
          R"({"mac":"52:54:00:12:34:56","test":"none"})",
          R"({"address":"10.1.2.3/24","dns":["10.1.2.1"],"gateway":"10.1.2.1","mac":"keep"})",
          R"({"address":"2001:db8::3/64","by":"cloud-init","failover":"bridge:br0","mac":"keep"})",
          R"({"address":"10.1.2.3/24","by":"dhcp","failover":"network:lan","mac":"keep"})"}) {
        const auto settings = nic_settings_from_json(Json::parse(text));
        ASSERT_TRUE(settings) << settings.error().to_string();
        EXPECT_EQ(dump_json(nic_settings_json(*settings)), text);
    }
    EXPECT_EQ(*nic_settings_from_json(Json::object()), NicSettings{});
    EXPECT_EQ(dump_json(nic_settings_json(*nic_settings_from_json(
                  Json::parse(R"({"address":"10.1.2.3/24","by":"agent"})")))),
              R"({"address":"10.1.2.3/24","mac":"keep"})");
    for (const char* text :
         {R"({"mac":"52:54"})", R"({"mac":7})", R"({"test":"lab"})", R"({"failover":"segment:"})",
          R"({"gateway":"10.1.2.1"})", R"({"address":"10.1.2.3"})",
          R"({"address":"10.1.2.3/8","dns":[1]})", R"({"by":"dhcp"})",
          R"({"address":"10.1.2.3/24","by":"luck"})", R"({"address":"10.1.2.3/24","by":7})", "[]"})
        EXPECT_FALSE(nic_settings_from_json(Json::parse(text))) << text;
}

// Broken if an address that DHCP gives nowhere were taken, and only the start said so.
TEST(NicSettings, ByDhcpIsRefusedWhereNobodyGivesIt) {
    const auto code = [](const char* text) {
        const auto settings = nic_settings_from_json(Json::parse(text));
        EXPECT_TRUE(settings || !settings.error().remedy().empty()) << text;
        return settings ? std::nullopt : std::optional(settings.error().code());
    };
    EXPECT_EQ(code(R"({"address":"10.1.2.3/24","by":"dhcp"})"), std::nullopt);
    EXPECT_EQ(code(R"({"address":"10.1.2.3/24","by":"dhcp","test":"user"})"), std::nullopt);
    for (const char* text : {R"({"address":"10.1.2.3/24","by":"dhcp","test":"segment:lab"})",
                             R"({"address":"10.1.2.3/24","by":"dhcp","failover":"bridge:br0"})",
                             R"({"address":"10.1.2.3/24","by":"dhcp","failover":"none"})",
                             R"({"address":"2001:db8::3/64","by":"dhcp"})",
                             R"({"address":"10.1.2.3/24","gateway":"10.1.9.1","by":"dhcp"})"})
        EXPECT_EQ(code(text), Code::kInvalidArgument) << text;
}

// Broken if a guest that knows its card by its address lost it, or if two tests with cards of their
// own were given the same one.
TEST(NicSettings, TheAddressOfACardFollowsItsRule) {
    NicSettings settings;
    EXPECT_EQ(recovery_mac(settings, "52:54:00:00:00:01", "test-1", 0), "52:54:00:00:00:01");
    settings.mac_rule = MacRule::kNew;
    const std::string first = recovery_mac(settings, "52:54:00:00:00:01", "test-1", 0);
    EXPECT_EQ(recovery_mac(settings, "", "test-1", 0), first) << "a job that begins again";
    EXPECT_NE(recovery_mac(settings, "", "test-2", 0), first);
    EXPECT_NE(recovery_mac(settings, "", "test-1", 1), first);
    EXPECT_EQ(*check_mac(first), first);
    settings.mac_rule = MacRule::kGiven;
    settings.mac = "52:54:00:00:00:02";
    EXPECT_EQ(recovery_mac(settings, "52:54:00:00:00:01", "test-1", 0), "52:54:00:00:00:02");
}

}  // namespace
}  // namespace farshore
