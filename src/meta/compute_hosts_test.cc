#include "meta/compute_hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meta/items.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

ItemRecord item_called(const std::string& name, uint8_t id) {
    ItemRecord item;
    item.id.raw[0] = id;
    item.name = name;
    return item;
}

// Broken if a host were lost, two were mixed up, or a change were not seen as one.
TEST(ComputeHosts, AreKeptAndChanged) {
    TestDatabase test;
    Database& database = *test.database;
    const auto made = add_compute_host(database, "rack-2", "b");
    ASSERT_TRUE(made) << made.error().to_string();
    EXPECT_EQ(made->version, 1u);
    EXPECT_EQ(made->created, test.clock.time);
    ASSERT_TRUE(add_compute_host(database, "rack-1", "a"));
    EXPECT_EQ(add_compute_host(database, "rack-1", "c").error().code(), Code::kAlreadyExists);
    test.clock.time.us += 5;
    const auto changed = change_compute_host(database, "rack-2", "d");
    ASSERT_TRUE(changed);
    EXPECT_EQ(changed->version, 2u);
    EXPECT_EQ(changed->updated, test.clock.time);
    EXPECT_EQ(changed->created.us, test.clock.time.us - 5);
    test.reopen();
    const auto all = list_compute_hosts(*test.database);
    ASSERT_TRUE(all);
    ASSERT_EQ(all->size(), 2u);
    EXPECT_EQ(all->at(0).document, "a");
    EXPECT_EQ(all->at(1).document, "d");
    EXPECT_EQ(get_compute_host(*test.database, "rack-1")->name, "rack-1");
    ASSERT_TRUE(remove_compute_host(*test.database, "rack-1"));
    for (const Code code : {get_compute_host(*test.database, "rack-1").error().code(),
                            change_compute_host(*test.database, "rack-1", "x").error().code(),
                            remove_compute_host(*test.database, "rack-1").error().code()})
        EXPECT_EQ(code, Code::kNotFound);
}

// Broken if the vault's own machine could be hidden behind a host of that name.
TEST(ComputeHosts, NamesAreThoseOfStores) {
    TestDatabase test;
    for (const char* name : {"", "local", "Rack", "a b", "7", "a/b", "compute:a",
                             "a23456789012345678901234567890123"}) {
        EXPECT_EQ(check_compute_host_name(name).error().code(), Code::kInvalidArgument) << name;
        EXPECT_EQ(add_compute_host(*test.database, name, "").error().code(),
                  Code::kInvalidArgument);
    }
    EXPECT_TRUE(check_compute_host_name("rack-7"));
}

TEST(ComputeHosts, ThereAreNotAnyNumber) {
    TestDatabase test;
    for (size_t i = 0; i < kMaxComputeHosts; ++i)
        ASSERT_TRUE(add_compute_host(*test.database, "h" + std::to_string(i), ""));
    EXPECT_EQ(add_compute_host(*test.database, "more", "").error().code(), Code::kLimitReached);
}

// Broken if an item's machine were to run on a host that there is not, or its choice outlived it
// and stood in the way of the host's end.
TEST(ComputeHosts, ItemsAreToRunOnThem) {
    TestDatabase test;
    Database& database = *test.database;
    const ItemRecord web = item_called("web", 1), db = item_called("db", 2);
    ASSERT_TRUE(add_compute_host(database, "rack", "a"));
    ASSERT_TRUE(add_compute_host(database, "spare", "b"));
    EXPECT_EQ(set_item_compute(database, web.id, "rack").error().code(), Code::kItemNotFound);
    ASSERT_TRUE(create_item(database, web));
    ASSERT_TRUE(create_item(database, db));
    EXPECT_EQ(set_item_compute(database, web.id, "nothing").error().code(), Code::kNotFound);
    EXPECT_EQ(*item_compute(database, web.id), std::nullopt);
    ASSERT_TRUE(set_item_compute(database, web.id, "spare"));
    ASSERT_TRUE(set_item_compute(database, web.id, "rack"));
    ASSERT_TRUE(set_item_compute(database, db.id, "rack"));
    EXPECT_EQ(*item_compute(database, web.id), "rack");
    ASSERT_TRUE(remove_compute_host(database, "spare"));
    const Status used = remove_compute_host(database, "rack");
    ASSERT_FALSE(used);
    EXPECT_EQ(used.error().code(), Code::kWrongState);
    EXPECT_THAT(used.error().what(), ::testing::HasSubstr("'db'"));
    ASSERT_TRUE(clear_item_compute(database, db.id));
    ASSERT_TRUE(clear_item_compute(database, db.id));
    EXPECT_FALSE(remove_compute_host(database, "rack"));
    ASSERT_TRUE(delete_item(database, web.id));
    EXPECT_EQ(*item_compute(database, web.id), std::nullopt);
    EXPECT_TRUE(remove_compute_host(database, "rack"));
}

}  // namespace
}  // namespace farshore
