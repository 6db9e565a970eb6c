#include "meta/groups.h"

#include <gtest/gtest.h>

#include "meta/items.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

ItemId id_of(uint8_t number) {
    ItemId id;
    id.raw[15] = number;
    return id;
}

void add_item(Database& database, uint8_t number) {
    ItemRecord item;
    item.id = id_of(number);
    item.name = "item-" + std::to_string(number);
    item.disks.push_back({0, "/disks/" + item.name, 0});
    item.wrapped_key = Bytes(40, 1);
    const auto made = create_item(database, item);
    ASSERT_TRUE(made) << made.error().to_string();
}

SharedPointRecord wanted(const std::string& id, PointKind kind = PointKind::kBookmark) {
    SharedPointRecord point;
    point.id = id;
    point.group = "shop";
    point.kind = kind;
    point.label = "shop/" + id;
    return point;
}

// Broken if an item could be in two groups, half of a list joined, or a group outlived what it
// says.
TEST(Groups, MembersComeAndGo) {
    TestDatabase test;
    for (uint8_t i = 1; i <= 3; ++i) add_item(*test.database, i);
    for (const char* name : {"", "Shop", "a b", "7", "shop/1"})
        EXPECT_EQ(create_group(*test.database, {.name = name}).error().code(),
                  Code::kInvalidArgument)
            << name;
    auto group = create_group(*test.database, {.name = "shop", .crash_interval_s = 60});
    ASSERT_TRUE(group) << group.error().to_string();
    EXPECT_EQ(create_group(*test.database, {.name = "shop"}).error().code(), Code::kAlreadyExists);
    ASSERT_TRUE(create_group(*test.database, {.name = "other"}));
    ASSERT_TRUE(join_group(*test.database, "other", {id_of(3)}));
    EXPECT_EQ(join_group(*test.database, "shop", {id_of(1), id_of(3)}).error().code(),
              Code::kAlreadyExists);
    EXPECT_EQ(join_group(*test.database, "shop", {id_of(1), id_of(9)}).error().code(),
              Code::kItemNotFound);
    EXPECT_TRUE(get_group(*test.database, "shop")->members.empty()) << "all or none";
    group = join_group(*test.database, "shop", {id_of(2), id_of(1), id_of(2)});
    ASSERT_TRUE(group);
    test.reopen();
    group = get_group(*test.database, "shop");
    ASSERT_EQ(group->members.size(), 2u);
    EXPECT_EQ(group->members[0].item_name, "item-1");
    EXPECT_EQ(group->crash_interval_s, 60u);
    const uint64_t version = group->version;
    ASSERT_TRUE(change_group(*test.database, "shop", [](GroupRecord& to) -> Status {
        to.application_interval_s = 600;
        return {};
    }));
    EXPECT_GT(get_group(*test.database, "shop")->version, version);
    EXPECT_EQ(get_group(*test.database, "shop")->application_interval_s, 600u);
    ASSERT_TRUE(leave_group(*test.database, "shop", id_of(2)));
    EXPECT_EQ(leave_group(*test.database, "shop", id_of(2)).error().code(), Code::kNotFound);
    ASSERT_TRUE(delete_item(*test.database, id_of(1)));
    EXPECT_TRUE(get_group(*test.database, "shop")->members.empty()) << "an item that is gone";
    EXPECT_EQ(list_groups(*test.database, "", 10)->size(), 2u);
    EXPECT_EQ(list_groups(*test.database, "other", 10)->front().name, "shop");
    ASSERT_TRUE(remove_group(*test.database, "shop"));
    EXPECT_EQ(remove_group(*test.database, "shop").error().code(), Code::kNotFound);
}

// Broken if a point that is not stored everywhere were offered, one were listed for another item,
// or what failed stayed for ever.
TEST(Groups, SharedPointsGoTheirWay) {
    TestDatabase test;
    for (uint8_t i = 1; i <= 2; ++i) add_item(*test.database, i);
    ASSERT_TRUE(create_group(*test.database, {.name = "shop"}));
    EXPECT_EQ(add_shared_point(*test.database, wanted("a")).error().code(), Code::kWrongState);
    ASSERT_TRUE(join_group(*test.database, "shop", {id_of(1), id_of(2)}));
    auto first = add_shared_point(*test.database, wanted("a"));
    ASSERT_TRUE(first) << first.error().to_string();
    ASSERT_EQ(first->members.size(), 2u);
    EXPECT_EQ(first->state, SharedPointState::kAsked);
    auto second = add_shared_point(*test.database, wanted("b", PointKind::kApplication));
    ASSERT_TRUE(second);
    EXPECT_GT(second->number, first->number);
    EXPECT_EQ(shared_points_in(*test.database, SharedPointState::kAsked, 10)->size(), 2u);
    first->state = SharedPointState::kMade;
    first->members[0].sequence = {100};
    first->members[1].sequence = {200};
    first->barrier_us = 7'000;
    ASSERT_TRUE(
        save_shared_point(*test.database, *first, SharedPointState::kAsked).value_or(false));
    EXPECT_TRUE(stored_points_of(*test.database, id_of(1), 10)->empty());
    first->state = SharedPointState::kStored;
    ASSERT_TRUE(save_shared_point(*test.database, *first, SharedPointState::kMade).value_or(false));
    second->state = SharedPointState::kVoid;
    second->error = ItemError{Code::kTimeout, "an agent did not answer", "look"};
    ASSERT_TRUE(
        save_shared_point(*test.database, *second, SharedPointState::kAsked).value_or(false));
    EXPECT_FALSE(*save_shared_point(*test.database, *second, SharedPointState::kAsked))
        << "it is over";
    test.reopen();
    const auto stored = stored_points_of(*test.database, id_of(2), 10);
    ASSERT_EQ(stored->size(), 1u);
    EXPECT_EQ(stored->front().sequence.v, 200u);
    EXPECT_EQ(stored->front().group, "shop");
    EXPECT_EQ(shared_points_of(*test.database, id_of(1), {1}, {1000})->size(), 1u);
    EXPECT_TRUE(shared_points_of(*test.database, id_of(1), {101}, {1000})->empty());
    const auto list = list_shared_points(*test.database, "shop", 0, 10);
    ASSERT_EQ(list->size(), 2u);
    EXPECT_EQ(list->front().id, "b");
    EXPECT_EQ(list->front().error->code, Code::kTimeout);
    EXPECT_EQ(list->back().barrier_us, 7'000);
    EXPECT_EQ(list_shared_points(*test.database, "shop", list->front().number, 10)->size(), 1u);
    EXPECT_EQ(newest_shared_point(*test.database, "shop", PointKind::kApplication)->value().id,
              "b");
    EXPECT_FALSE(newest_shared_point(*test.database, "shop", PointKind::kCrash)->has_value());
    // Of void ones the newest stay.
    ASSERT_TRUE(forget_void_points(*test.database, "shop", 1));
    EXPECT_EQ(list_shared_points(*test.database, "shop", 0, 10)->size(), 2u);
    SharedPointRecord third = *add_shared_point(*test.database, wanted("c"));
    third.state = SharedPointState::kVoid;
    ASSERT_TRUE(save_shared_point(*test.database, third, SharedPointState::kAsked).value_or(false));
    ASSERT_TRUE(forget_void_points(*test.database, "shop", 1));
    EXPECT_EQ(get_shared_point(*test.database, "b").error().code(), Code::kNotFound);
    EXPECT_TRUE(get_shared_point(*test.database, "c"));
    ASSERT_TRUE(drop_shared_points(*test.database, {"a"}));
    EXPECT_TRUE(stored_points_of(*test.database, id_of(1), 10)->empty());
    ASSERT_TRUE(remove_group(*test.database, "shop"));
    EXPECT_EQ(get_shared_point(*test.database, "c").error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace farshore
