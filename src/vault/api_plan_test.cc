#include <gtest/gtest.h>

#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000;

// An item that writes `bytes` (at most 60 KiB) in each of `minutes` minutes, in one segment each.
struct Writer {
    Writer(Site& site_in, const std::string& name, const std::string& disk)
        : site(site_in), item(site_in, name, disk) {}
    void write(int minutes, size_t bytes) {
        for (int i = 0; i < minutes; ++i) {
            site.clock.us += kMinuteUs;
            Bytes records;
            std::string payload(bytes, 'x');
            for (size_t at = 0; at < bytes; at += 97) payload[at] = static_cast<char>(at);
            item.appliance.add(records, RecordKind::kWrite, payload);
            ASSERT_TRUE(item.appliance.send(records));
        }
    }
    Site& site;
    ProtectedItem item;
};

// Broken if the plan were of other numbers than the vault has of the item, or of fewer minutes.
TEST(ApiPlan, IsOfWhatTheItemWasSeenToWrite) {
    Site site;
    Writer web(site, "web", "/disks/a");
    web.write(30, 60'000);
    site.clock.us += kMinuteUs;
    const Json plan = site.call("GET", "/v1/plan?items=web&rpo_s=30&outage_s=600", 200);
    // The slots that are over: those between the first whole minute and the newest write's.
    EXPECT_EQ(plan["interval_s"], 60.0);
    EXPECT_GE(plan["seen_s"], 28 * 60.0);
    EXPECT_EQ(plan["written_per_s"]["peak"], 1000);
    EXPECT_EQ(plan["written_per_s"]["mean"], 1000);
    EXPECT_EQ(plan["spool"]["peak"], 600'000);
    EXPECT_EQ(plan["rpo_s"], 30.0);
    const double ratio = plan["stored_per_written"];
    EXPECT_GT(ratio, 0.0);
    EXPECT_NEAR(plan["bandwidth"]["peak"].get<double>(), 1000 * ratio, 2);
    ASSERT_EQ(plan["storage"]["items"].size(), 1u);
    EXPECT_EQ(plan["storage"]["items"][0]["item"], "web");
    EXPECT_EQ(plan["storage"]["items"][0]["window_s"], 7200);
    // A segment a minute, as they are in the store.
    EXPECT_NEAR(plan["month"]["put"].get<double>(), 43'200, 3'000);
    EXPECT_EQ(plan["month"]["list"].get<uint64_t>(),
              plan["month"]["put"].get<uint64_t>() + 259'200);
    EXPECT_FALSE(plan.contains("link"));
    EXPECT_GT(plan["explain"].size(), 5u);

    const Json grown = site.call(
        "GET",
        "/v1/plan?items=web&rpo_s=30&growth_percent=100&months=24&window_s=14400&keep=1h%3A1d"
        "&bandwidth=1000000",
        200);
    EXPECT_EQ(grown["factor"], 4.0);
    EXPECT_EQ(grown["written_per_s"]["peak"], 4000);
    EXPECT_EQ(grown["link"]["within_rpo"], 1.0);
    EXPECT_EQ(grown["storage"]["items"][0]["window_s"], 14'400);
    EXPECT_EQ(grown["storage"]["items"][0]["keep"], "1h:1d");
    EXPECT_EQ(grown["storage"]["items"][0]["steps"][0]["points"], 20);
}

// Broken if the worst of two machines were added up though they have it at different times, or one
// were forgotten.
TEST(ApiPlan, OfSeveralItemsTheSlotsAreAddedUp) {
    Site site;
    Writer a(site, "a", "/disks/a"), b(site, "b", "/disks/b");
    a.write(5, 30'000);
    b.write(5, 60'000);
    const Json plan = site.call("GET", "/v1/plan?rpo_s=30", 200);
    EXPECT_EQ(plan["written_per_s"]["peak"], 1000) << "not 1500: never at the same time";
    EXPECT_EQ(plan["storage"]["items"].size(), 2u);
    EXPECT_EQ(site.call("GET", "/v1/plan?items=a,b&rpo_s=30", 200)["written_per_s"],
              plan["written_per_s"]);
}

// Broken if a question without an answer got one.
TEST(ApiPlan, WhatCannotBeAnsweredIsRefused) {
    Site site;
    EXPECT_EQ(site.refused("GET", "/v1/plan"), "invalid-argument") << "there is no item";
    ProtectedItem web(site);
    EXPECT_EQ(site.call("GET", "/v1/plan?items=web", 200)["seen_s"], 1.0) << "as little as it is";
    EXPECT_EQ(site.refused("GET", "/v1/plan?items=none"), "item-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/plan?items=web&keep=often"), "invalid-argument");
    EXPECT_EQ(site.refused("GET", "/v1/plan?months=x"), "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/plan"), "not-found");
}

}  // namespace
}  // namespace farshore
