#include "recovery/compute_choice.h"

#include <gtest/gtest.h>

#include "meta/compute_hosts.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

// Broken if a machine were started on another host than the one that is set for it, or a damaged
// record were taken for the vault's own machine.
TEST(ComputeChoice, IsTheHostThatIsSet) {
    TestDatabase test;
    Database& database = *test.database;
    ItemRecord item;
    item.id.raw[0] = 1;
    item.name = "web";
    ASSERT_TRUE(create_item(database, item));
    auto choice = compute_choice(database, item.id);
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->host, "local");
    EXPECT_FALSE(choice->settings);
    ComputeHostSettings settings;
    settings.uri = "qemu:///system";
    settings.disks_group = "kvm";
    ASSERT_TRUE(add_compute_host(database, "rack", dump_json(compute_host_json(settings))));
    ASSERT_TRUE(set_item_compute(database, item.id, "rack"));
    choice = compute_choice(database, item.id);
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->host, "rack");
    EXPECT_EQ(choice->settings, settings);
    for (const char* damaged : {"", "{}", R"({"uri":"qemu+tcp://x/system"})"}) {
        ASSERT_TRUE(change_compute_host(database, "rack", damaged));
        EXPECT_FALSE(compute_choice(database, item.id)) << damaged;
    }
}

}  // namespace
}  // namespace farshore
