// The way home as the vault's agents and appliances see it.
#include <gtest/gtest.h>

#include "base/party_names.h"
#include "meta/appliances.h"
#include "meta/items.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// An item whose failover was committed; its machine is nobody's concern here.
struct Away : ProtectedItem {
    explicit Away(Site& of) : ProtectedItem(of) {
        for (const ItemState state :
             {ItemState::kFailingOver, ItemState::kFailedOver, ItemState::kCommitted})
            EXPECT_TRUE(site.vault().change_state(item, state, {}));
    }
    // The recovery site's agent and appliance have sent one whole log.
    void capture_here() {
        EXPECT_TRUE(site.vault().local_party(PartyKind::kAgent, kRecoveryAgent));
        EXPECT_TRUE(site.vault().local_party(PartyKind::kAppliance, kRecoveryAppliance));
        FakeAppliance here{site, site.vault(), item, {}, {}, {}, {1}};
        const auto lease = site.vault().acquire_log(item, kRecoveryAppliance);
        ASSERT_TRUE(lease) << lease.error().to_string();
        here.lease = *lease;
        here.number = lease->next_segment;
        here.previous = lease->previous_header;
        here.next = lease->stored.next();
        ASSERT_TRUE(here.send_first());
    }
    void pass() {
        site.clock.us += 6'000'000;
        site.vault().tend();
    }
    ReturnOrder order() {
        const auto down = agent.sync();
        for (const DesiredItem& told : down->items)
            if (told.item == item && told.desired == Desired::kReturn) return told.way_home;
        return {};
    }
    void home_has(const std::string& way, Sequence have) {
        AgentItemStatus status;
        status.item = item;
        status.state = AgentItemState::kReturning;
        status.way_home.id = way;
        status.way_home.have = have;
        EXPECT_TRUE(agent.sync({status}));
    }
    ItemState state() { return site.vault().item(item.to_string())->record.state; }
};

// Broken if the home were told of a state that is not the recovery site's machine's, or counted as
// there before it is; or if anybody else were lent the item's key.
TEST(WayHome, TheHomeFollowsAndNobodyElse) {
    Site site;
    Away away(site);
    Vault& vault = site.vault();
    EXPECT_EQ(vault.begin_return(away.item, "r", {"agent-9", {"/x"}, "", false}).error().code(),
              Code::kNotFound);
    EXPECT_EQ(vault.begin_return(away.item, "r", {"", {"/x", "/y"}, "", false}).error().code(),
              Code::kInvalidArgument);
    EXPECT_EQ(vault.begin_return(away.item, "r", {"", {"x"}, "", false}).error().code(),
              Code::kInvalidArgument);
    EXPECT_EQ(away.state(), ItemState::kCommitted) << "nothing has begun";
    ASSERT_TRUE(vault.begin_return(away.item, "r", {}));
    EXPECT_EQ(vault.begin_return(away.item, "r", {}).error().code(), Code::kWrongState);
    away.pass();
    const ReturnOrder waits = away.order();
    EXPECT_FALSE(waits.id.empty());
    EXPECT_EQ(waits.to.v, 0u) << "what there is, is from before";
    away.capture_here();
    away.pass();
    const ReturnOrder order = away.order();
    EXPECT_GT(order.to.v, 5u);
    EXPECT_TRUE(vault.open_return("appliance-1", "agent-1", away.item, order.to));
    for (const auto& [appliance, agent, to] : {std::tuple{"appliance-2", "agent-1", order.to},
                                               {"appliance-1", "agent-2", order.to},
                                               {"appliance-1", "agent-1", Sequence{order.to.v - 1}},
                                               {"appliance-1", "agent-1", {}}})
        EXPECT_EQ(vault.open_return(appliance, agent, away.item, to).error().code(),
                  Code::kForbidden);
    away.home_has("another way", order.to);
    away.pass();
    EXPECT_EQ(away.state(), ItemState::kReprotecting);
    away.home_has(order.id, order.to);
    away.pass();
    EXPECT_EQ(away.state(), ItemState::kReverseProtected);
    EXPECT_EQ(vault.finish_return(away.item).error().code(), Code::kWrongState);
    EXPECT_EQ(site.refused("POST", "/v1/items/web/failovers", {{"action", "start"}}),
              "unsupported");
}

// Broken if a vault that died between two steps left an item with an appliance that cannot serve
// it, or a way home that nobody is on.
TEST(WayHome, ACrashBetweenTwoStepsIsMended) {
    Site site;
    Away away(site);
    ASSERT_TRUE(site.vault().begin_return(away.item, "r", {}));
    const auto appliance = [&] {
        return get_item_appliance(site.vault().database(), away.item)->now;
    };
    EXPECT_EQ(appliance(), kRecoveryAppliance);
    ASSERT_TRUE(move_item(site.vault().database(), away.item, "appliance-1", true));
    site.start();
    site.vault().tend();
    EXPECT_EQ(appliance(), kRecoveryAppliance);
    // The other way: given up, and it died before it told the appliance.
    ASSERT_TRUE(change_item(site.vault().database(), away.item, [](ItemRecord& to) -> Status {
        to.state = ItemState::kCommitted;
        to.agent = "agent-1";
        to.mode = CaptureMode::kInPath;
        return {};
    }));
    site.start();
    site.vault().tend();
    EXPECT_EQ(appliance(), "appliance-1");
    EXPECT_FALSE(*get_return(site.vault().database(), away.item));
    EXPECT_TRUE(site.vault().begin_return(away.item, "r", {})) << "and it can begin again";
}

struct SiteWithRecovery : Site {
    SiteWithRecovery() { start(); }
    VaultServerOptions options() const override {
        VaultServerOptions options = Site::options();
        options.recovery = true;
        return options;
    }
};

// Broken if a vault that died between "it fails over" and the job that does it left an item in a
// state that nothing leads out of.
TEST(WayHome, AStateWithoutItsJobIsLeft) {
    SiteWithRecovery site;
    ProtectedItem item(site);
    ASSERT_TRUE(site.vault().change_state(item.item, ItemState::kFailingOver, {}));
    site.start();
    EXPECT_EQ(site.vault().item("web")->record.state, ItemState::kCatchingUp);
}

// Broken if somebody else could call himself as the vault's own agent and appliance do.
TEST(WayHome, TheVaultsOwnNamesAreNobodyElses) {
    Site site;
    for (const char* name : {kRecoveryAgent, kRecoveryAppliance})
        EXPECT_EQ(site.refused("POST", "/v1/enrolment-tokens", {{"kind", "agent"}, {"name", name}}),
                  "invalid-argument");
}

// Broken if an old site that writes on after the failover were not told of, or one that does not
// were.
TEST(WayHome, SplitBrainIsTold) {
    Site site;
    ProtectedItem item(site);
    AgentItemStatus status = live(item.item);
    const auto told = [&](uint64_t bytes) {
        status.machine_bytes = bytes;
        EXPECT_TRUE(item.agent.sync({status}));
        const auto report = site.vault().item("web");
        for (const Trouble& trouble : report->troubles)
            if (trouble.code == "split-brain") return true;
        return false;
    };
    EXPECT_FALSE(told(900));
    EXPECT_FALSE(told(1000)) << "it is protected";
    for (const ItemState state : {ItemState::kFailingOver, ItemState::kFailedOver})
        EXPECT_TRUE(site.vault().change_state(item.item, state, {}));
    EXPECT_FALSE(told(1000));
    EXPECT_TRUE(told(1001));
    EXPECT_TRUE(told(1001)) << "until one of them is shut down";
    EXPECT_TRUE(site.vault().change_state(item.item, ItemState::kCatchingUp, {}));
    EXPECT_FALSE(told(1002)) << "the failover was given up";
}

}  // namespace
}  // namespace farshore
