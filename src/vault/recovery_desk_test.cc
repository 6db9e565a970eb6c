#include "vault/recovery_desk.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "meta/items.h"
#include "meta/jobs.h"
#include "vault/job_limits.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// A vault with an item, beside which the test has a desk of its own.
struct DeskSite {
    DeskSite() {
        RecoveryDesk::Options options;
        options.tick_interval_us = 0;
        desk = std::make_unique<RecoveryDesk>(site.vault(), site.files, site.clock, site.random,
                                              options);
    }
    // As many jobs as can run at once.
    void fill_up() {
        for (size_t i = 0; i < kMaxRunningJobs; ++i) add("scrub");
    }
    uint64_t add(const std::string& kind) {
        JobRecord job;
        job.kind = kind;
        job.item = item.item;
        const auto added = add_job(site.vault().database(), job);
        EXPECT_TRUE(added) << added.error().to_string();
        return added->id;
    }
    // Its machine has a network card.
    void give_nic() {
        AgentItemStatus status = live(item.item);
        status.machine_description =
            R"({"name":"web","cpus":1,"nics":[{"model":"e1000","mac":"52:54:00:00:00:01"}]})";
        EXPECT_TRUE(item.agent.sync({status}));
    }
    ItemState state() { return site.vault().item("web")->record.state; }

    Site site;
    ProtectedItem item{site};
    std::unique_ptr<RecoveryDesk> desk;
};

// Broken if an item were left failing over because there was no room for the job that does it.
TEST(RecoveryDesk, WithoutRoomForItsJobAnItemStaysAsItIs) {
    DeskSite site;
    site.fill_up();
    const ItemState before = site.state();
    EXPECT_EQ(site.desk->failover("web", "start", "latest").error().code(), Code::kLimitReached);
    EXPECT_EQ(site.state(), before);
    const Json events = site.site.call("GET", "/v1/events", 200);
    EXPECT_EQ(dump_json(events).find("failing-over"), std::string::npos) << "not even for a moment";
}

// Broken if a job whose row was written while its answer was lost stayed open, and in the way of
// others, or was run when nobody expects it any more.
TEST(RecoveryDesk, AJobThatWasNeverBegunIsEnded) {
    DeskSite site;
    site.fill_up();
    const uint64_t of_all = site.add("commit-failback");
    site.site.vault().tend();
    const auto job = get_job(site.site.vault().database(), of_all);
    ASSERT_TRUE(job);
    EXPECT_EQ(job->state, JobState::kFailed);
    ASSERT_TRUE(job->error);
    EXPECT_EQ(job->error->code, Code::kUnavailable);
    EXPECT_TRUE(open_jobs(site.site.vault().database())->empty());
}

// Broken if one that was just added, and whose thread has not said yet that it begins, were taken
// for one that nobody began.
TEST(RecoveryDesk, AJobThatIsAboutToBeginIsLeftAlone) {
    DeskSite site;
    Vault& vault = site.site.vault();
    std::atomic<bool> over = false;
    std::thread tender([&] {
        while (!over) vault.tend();
    });
    for (int i = 0; i < 40; ++i) {
        const auto begun = vault.start_job("copy-removal", {}, false, "",
                                           [](JobRun&) -> Result<std::string> { return "{}"; });
        EXPECT_TRUE(begun) << begun.error().to_string();
        if (!begun) break;
        const auto job = vault.job(begun->id, 60'000'000);
        EXPECT_TRUE(job && job->state == JobState::kSucceeded);
    }
    over = true;
    tender.join();
}

// Broken if what stands between a state and its job, which was never added, kept the item from
// being failed over while this vault runs; or if one that has its job were begun again.
TEST(RecoveryDesk, AStateWithoutItsJobDoesNotStandInTheWay) {
    DeskSite site;
    ASSERT_TRUE(site.site.vault().change_state(site.item.item, ItemState::kFailingOver, {}));
    const uint64_t job = site.add("failover");
    EXPECT_EQ(site.desk->failover("web", "start", "latest").error().code(), Code::kWrongState);
    EXPECT_EQ(site.state(), ItemState::kFailingOver);
    ASSERT_TRUE(end_job(site.site.vault().database(), job, JobState::kFailed, "", {}));
    site.fill_up();
    EXPECT_EQ(site.desk->failover("web", "start", "latest").error().code(), Code::kLimitReached)
        << "its state is no reason any more";
    EXPECT_EQ(site.state(), ItemState::kCatchingUp);
    // A planned one waits: nothing may be lost.
    ASSERT_TRUE(site.site.vault().change_state(site.item.item, ItemState::kFailingOver, {}));
    FailoverChoice choice;
    choice.planned = true;
    const auto planned = site.desk->failover("web", "start", "latest", {}, choice);
    ASSERT_FALSE(planned);
    EXPECT_EQ(planned.error().retry(), Retry::kSoon);
}

// Broken if a test were plugged into what a failover is for, if what was said at the start, or by a
// plan, did not come before what is set for a card, or if a run's own segment came before that.
TEST(RecoveryDesk, EachCardIsPluggedInAsWasSaid) {
    DeskSite site;
    site.give_nic();
    site.site.call("PUT", "/v1/items/web/nics/0", 200,
                   {{"settings", {{"failover", "bridge:br0"}, {"test", "segment:lab"}}}});
    const auto plugged = [&](RecoveryKind kind, const char* said, const char* usual) {
        RecoveryRequest request;
        request.id = "r-1";
        request.item = site.item.item;
        request.kind = kind;
        request.machine.nics = {{"virtio-net-pci", "52:54:00:00:00:01", ""},
                                {"virtio-net-pci", "52:54:00:00:00:02", ""}};
        const auto choice = [](const char* word) -> std::optional<NetworkChoice> {
            if (*word == '\0') return std::nullopt;
            return *network_from_word(word);
        };
        EXPECT_TRUE(site.desk->plug_in(request, choice(said), choice(usual)));
        std::string words;
        for (const NetworkChoice& network : request.networks) words += network_word(network) + " ";
        return words + request.machine.nics[0].mac.substr(15);
    };
    using enum RecoveryKind;
    EXPECT_EQ(plugged(kFailover, "", ""), "bridge:br0 user 01");
    EXPECT_EQ(plugged(kTest, "", ""), "segment:lab isolated 01");
    EXPECT_EQ(plugged(kTest, "", "segment:run-1"), "segment:lab segment:run-1 01");
    EXPECT_EQ(plugged(kTest, "none", "segment:run-1"), "none none 01");
    site.site.call("PUT", "/v1/items/web/nics/0", 200,
                   {{"settings", {{"mac", "52:54:00:00:00:99"}}}});
    EXPECT_EQ(plugged(kFailover, "", ""), "user user 99") << "all of it was replaced";
    site.site.call("PUT", "/v1/items/web/nics/0", 200, {{"settings", {{"mac", "new"}}}});
    EXPECT_NE(plugged(kFailover, "", ""), "user user 01");
    site.site.call("DELETE", "/v1/items/web/nics/0", 204);
    EXPECT_EQ(plugged(kTest, "", ""), "isolated isolated 01");
}

// Broken if what nobody can mean were kept for a card.
TEST(RecoveryDesk, WhatIsSetForACardIsChecked) {
    DeskSite site;
    site.give_nic();
    const std::string target = "/v1/items/web/nics/";
    const auto refused = [&](const std::string& nic, const Json& settings) {
        return site.site.refused("PUT", target + nic, {{"settings", settings}});
    };
    EXPECT_EQ(refused("1", Json::object()), "not-found") << "the machine has one";
    EXPECT_EQ(refused("32", Json::object()), "invalid-argument");
    EXPECT_EQ(refused("x", Json::object()), "invalid-argument");
    EXPECT_EQ(refused("0", {{"test", "lab"}}), "invalid-argument");
    EXPECT_EQ(refused("0", {{"mac", "52"}}), "invalid-argument");
    EXPECT_EQ(refused("0", {{"tests", "none"}}), "malformed");
    const Json nics = site.site.call("GET", "/v1/items/web/nics", 200);
    ASSERT_EQ(nics["nics"].size(), 1u) << dump_json(nics);
    EXPECT_EQ(nics["nics"][0]["mac"], "keep");
    EXPECT_EQ(nics["nics"][0]["source_mac"], "52:54:00:00:00:01");
}

}  // namespace
}  // namespace farshore
