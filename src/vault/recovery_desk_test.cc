#include "vault/recovery_desk.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace farshore
