#include "meta/item_nics.h"

#include <gtest/gtest.h>

#include "meta/items.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

// Broken if the cards of one machine, or of two, were mixed up, or outlived their item.
TEST(ItemNics, AreKeptByItemAndCard) {
    TestDatabase test;
    Database& database = *test.database;
    ItemRecord web, db;
    web.id.raw[0] = 1;
    web.name = "web";
    db.id.raw[0] = 2;
    db.name = "db";
    EXPECT_EQ(set_item_nic(database, web.id, 0, "{}").error().code(), Code::kItemNotFound);
    ASSERT_TRUE(create_item(database, web));
    ASSERT_TRUE(create_item(database, db));
    ASSERT_TRUE(set_item_nic(database, web.id, 0, "a"));
    ASSERT_TRUE(set_item_nic(database, web.id, 1, "b"));
    ASSERT_TRUE(set_item_nic(database, db.id, 0, "c"));
    ASSERT_TRUE(set_item_nic(database, web.id, 0, "d"));
    using Nics = std::map<uint32_t, std::string>;
    EXPECT_EQ(*item_nics(database, web.id), (Nics{{0, "d"}, {1, "b"}}));
    ASSERT_TRUE(clear_item_nic(database, web.id, 0));
    ASSERT_TRUE(clear_item_nic(database, web.id, 7));
    EXPECT_EQ(*item_nics(database, web.id), (Nics{{1, "b"}}));
    EXPECT_EQ(*item_nics(database, db.id), (Nics{{0, "c"}}));
    ASSERT_TRUE(delete_item(database, web.id));
    EXPECT_TRUE(item_nics(database, web.id)->empty());
}

}  // namespace
}  // namespace farshore
