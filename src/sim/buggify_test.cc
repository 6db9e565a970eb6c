#include "sim/buggify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sim/world.h"

namespace farshore {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Broken: fault sites that are never on or always on, that depend on each other, or are not
// counted.
TEST(FaultSites, AreDrawnPerSeedAndCounted) {
    int on = 0;
    FaultSiteTable table;
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        FaultSites sites(seed);
        (void)sites.fire("a");  // disabled: counted only
        sites.enable(true);
        uint64_t fired = 0;
        for (int i = 0; i < 2000; ++i) fired += sites.fire("a");
        on += fired != 0;
        FaultSites again(seed);
        again.enable(true);
        (void)again.fire("b");  // another site does not move this one
        (void)again.fire("a");
        uint64_t fired_again = 0;
        for (int i = 0; i < 1999; ++i) fired_again += again.fire("a");
        EXPECT_LE(fired > fired_again ? fired - fired_again : fired_again - fired, 1u)
            << "seed " << seed;
        sites.force("never", 0);
        EXPECT_FALSE(sites.fire("never"));
        table.add(sites);
    }
    EXPECT_GT(on, 40);
    EXPECT_LT(on, 120);
    table.expect("unreached");
    EXPECT_THAT(table.never_fired(), ElementsAre("never", "unreached"));
    EXPECT_THAT(table.to_text(), HasSubstr("200 worlds; never fired: never unreached"));
}

// Broken: product code takes its rare paths in production, or the world does not count and trace
// those that it takes in the simulation.
TEST(Buggify, IsSilentInProductionAndTracedInTheWorld) {
    EXPECT_FALSE(buggify(nullptr, "part.rare"));
    SimWorld world(1);
    world.faults().enable(true);
    world.faults().force("part.rare", 1'000'000);
    const uint64_t before = world.trace_hash();
    EXPECT_TRUE(buggify(&world, "part.rare"));
    EXPECT_NE(world.trace_hash(), before);
    EXPECT_EQ(world.faults().counts().front().fired, 1u);
}

}  // namespace
}  // namespace farshore
