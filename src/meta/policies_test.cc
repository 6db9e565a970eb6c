#include "meta/policies.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "meta/items.h"
#include "meta/kept_answers.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

ItemRecord item_of(uint32_t n, const std::string& policy) {
    ItemRecord item;
    store_u32(item.id.raw.data(), n + 1);
    item.name = fmt::format("item{:05}", n);
    item.mode = CaptureMode::kInPath;
    item.wrapped_key = {1, 2, 3};
    item.disks = {{0, fmt::format("/disks/{}", n), 4096}};
    item.policy_name = policy;
    return item;
}

PolicyRecord policy_of(const std::string& name, uint32_t window_s) {
    PolicyRecord policy;
    policy.name = name;
    policy.values.window_s = window_s;
    policy.values.keep = "1h:2d";
    policy.values.bandwidth = "1MB/s";
    policy.values.newest_first = true;
    policy.values.resync_windows_for_all = true;
    policy.values.resync_windows = "Sat 00:00-24:00";
    policy.values.consistent_interval_s = 3600;
    return policy;
}

const PolicyCheck kAnything = [](const ItemRecord&, const ItemPolicy&) { return Status(); };
Status nothing(PolicyRecord&) { return {}; }

// Broken if a policy were forgotten with a restart, an item that follows one had other values than
// it, or kept the old ones when it is edited.
TEST(Policies, ItemsFollowThem) {
    TestDatabase test;
    Database& database = *test.database;
    const auto made = create_policy(database, policy_of("gold", 900));
    ASSERT_TRUE(made) << made.error().to_string();
    EXPECT_EQ(create_policy(database, policy_of("gold", 1)).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(create_policy(database, policy_of("default", 1)).error().code(),
              Code::kAlreadyExists);
    for (const char* bad : {"", "Gold", "a b", "12", "custom", "ä"})
        EXPECT_FALSE(check_policy_name(bad)) << bad;
    for (uint32_t n = 0; n < 3; ++n)
        ASSERT_TRUE(create_item(database, item_of(n, n == 2 ? "" : "gold")));
    EXPECT_EQ(create_item(database, item_of(9, "none")).error().code(), Code::kNotFound);
    EXPECT_EQ(get_item(database, item_of(0, "").id)->policy, policy_of("gold", 900).values);
    EXPECT_EQ(get_policy(database, "gold")->items, 2u);

    const auto changed = change_policy(
        database, "gold",
        [](PolicyRecord& policy) -> Status {
            policy.values.window_s = 1800;
            return {};
        },
        kAnything);
    ASSERT_TRUE(changed) << changed.error().to_string();
    EXPECT_EQ(changed->version, 2u);
    test.reopen();
    Database& again = *test.database;
    EXPECT_EQ(get_policy(again, "gold")->values, policy_of("gold", 1800).values);
    for (uint32_t n = 0; n < 2; ++n) {
        const auto item = get_item(again, item_of(n, "").id);
        EXPECT_EQ(item->policy, policy_of("gold", 1800).values);
        EXPECT_EQ(item->policy_name, "gold");
    }
    EXPECT_EQ(get_item(again, item_of(2, "").id)->policy, ItemPolicy());

    // One's own values: it follows no more.
    ASSERT_TRUE(change_item(again, item_of(1, "").id, [](ItemRecord& item) -> Status {
        item.policy.window_s = 77;
        item.policy_name.clear();
        return {};
    }));
    ASSERT_TRUE(change_policy(again, "gold", nothing, kAnything));
    EXPECT_EQ(get_item(again, item_of(1, "").id)->policy.window_s, 77u);
    EXPECT_EQ(list_items_of_policy(again, "gold", "", 10)->size(), 1u);
}

// Broken if the built-in policy were missing from a new database, could be removed, or could not be
// changed; or a list would skip or repeat it.
TEST(Policies, TheDefaultIsAlwaysThere) {
    TestDatabase test;
    Database& database = *test.database;
    EXPECT_EQ(get_policy(database, "default")->values, ItemPolicy());
    for (const char* name : {"a", "e", "z"})
        ASSERT_TRUE(create_policy(database, policy_of(name, 900)));
    const auto names = [&](size_t page) {
        std::string all, after;
        while (true) {
            const auto rows = list_policies(database, after, page);
            for (const PolicyRecord& row : *rows) all += row.name + " ";
            if (rows->size() < page) return all;
            after = rows->back().name;
        }
    };
    for (const size_t page : {1u, 2u, 10u}) EXPECT_EQ(names(page), "a default e z ") << page;
    ASSERT_TRUE(create_item(database, item_of(1, "default")));
    ASSERT_TRUE(change_policy(
        database, "default",
        [](PolicyRecord& policy) -> Status {
            policy.values.window_s = 4000;
            return {};
        },
        kAnything));
    for (const size_t page : {1u, 2u, 10u}) EXPECT_EQ(names(page), "a default e z ") << page;
    EXPECT_EQ(get_item(database, item_of(1, "").id)->policy.window_s, 4000u);
    const auto may = [](const PolicyRecord&) { return Status(); };
    EXPECT_EQ(remove_policy(database, "default", may).error().code(), Code::kForbidden);
    EXPECT_EQ(remove_policy(database, "none", may).error().code(), Code::kNotFound);
    EXPECT_TRUE(remove_policy(database, "z", may));
}

// Broken if a refusal for one item changed another, or the policy itself; or a policy in use could
// be removed.
TEST(Policies, AllOrNothing) {
    TestDatabase test;
    Database& database = *test.database;
    ASSERT_TRUE(create_policy(database, policy_of("gold", 900)));
    ASSERT_TRUE(create_policy(database, policy_of("silver", 1000)));
    std::vector<ItemId> ids;
    for (uint32_t n = 0; n < 8; ++n) {
        ASSERT_TRUE(create_item(database, item_of(n, "gold")));
        ids.push_back(item_of(n, "").id);
    }
    const PolicyCheck not_the_fifth = [](const ItemRecord& item, const ItemPolicy&) -> Status {
        if (item.name == "item00005") return fail(Code::kUnsupported, item.name);
        return {};
    };
    const auto edit = [](PolicyRecord& policy) -> Status {
        policy.values.window_s = 5000;
        return {};
    };
    EXPECT_EQ(change_policy(database, "gold", edit, not_the_fifth).error().code(),
              Code::kUnsupported);
    EXPECT_EQ(assign_policy(database, "silver", ids, not_the_fifth).error().code(),
              Code::kUnsupported);
    std::vector<ItemId> with_stranger = ids;
    with_stranger.push_back(item_of(99, "").id);
    EXPECT_EQ(assign_policy(database, "silver", with_stranger, kAnything).error().code(),
              Code::kItemNotFound);
    EXPECT_EQ(get_policy(database, "gold")->version, 1u);
    for (const ItemId& id : ids) {
        EXPECT_EQ(get_item(database, id)->policy.window_s, 900u);
        EXPECT_EQ(get_item(database, id)->policy_name, "gold");
    }
    const auto may = [](const PolicyRecord&) { return Status(); };
    const auto used = remove_policy(database, "gold", may);
    EXPECT_EQ(used.error().code(), Code::kWrongState);
    EXPECT_NE(used.error().what().find("'item00000'"), std::string::npos);
    EXPECT_NE(used.error().what().find("3 more"), std::string::npos) << used.error().what();
    ASSERT_TRUE(assign_policy(database, "silver", ids, kAnything));
    EXPECT_EQ(get_policy(database, "silver")->items, 8u);
    EXPECT_TRUE(remove_policy(database, "gold", may));
    EXPECT_EQ(get_item(database, ids[3])->policy.window_s, 1000u);
}

// Broken if an item whose policy asks for no consistent points any more were asked for one all the
// same.
TEST(Policies, PendingConsistentPointsGoWithTheirPolicy) {
    TestDatabase test;
    Database& database = *test.database;
    ASSERT_TRUE(create_policy(database, policy_of("gold", 900)));
    const ItemRecord item = item_of(1, "gold");
    ASSERT_TRUE(create_item(database, item));
    BookmarkRecord bookmark;
    bookmark.id = "b";
    bookmark.item = item.id;
    bookmark.label = "consistent";
    ASSERT_TRUE(add_bookmark(database, bookmark));
    ASSERT_TRUE(change_consistent_state(database, item.id,
                                        [](ConsistentState& state) { state.request = "b"; }));
    ASSERT_TRUE(change_policy(database, "gold", nothing, kAnything));
    EXPECT_TRUE(get_bookmark(database, "b"));
    ASSERT_TRUE(change_policy(
        database, "gold",
        [](PolicyRecord& policy) -> Status {
            policy.values.consistent_interval_s = 0;
            return {};
        },
        kAnything));
    EXPECT_EQ(get_bookmark(database, "b").error().code(), Code::kNotFound);
    EXPECT_TRUE(get_consistent_state(database, item.id)->request.empty());
}

// Broken if a key were taken for new although it was used, for used although nothing came of it, or
// for ever.
TEST(KeptAnswers, AKeyIsKnownForADay) {
    TestDatabase test;
    KeptAnswer request;
    request.identity = "user:alice";
    request.key = "k1";
    request.method = "POST";
    request.target = "/v1/items";
    request.fingerprint = "f";
    request.run = "r";
    EXPECT_FALSE(begin_answer(*test.database, request)->has_value());
    auto known = begin_answer(*test.database, request);
    ASSERT_TRUE(known->has_value());
    EXPECT_EQ((*known)->status, 0u);
    ASSERT_TRUE(keep_answer(*test.database, "user:alice", "k1", 201, "sealed"));
    test.reopen();
    known = begin_answer(*test.database, request);
    ASSERT_TRUE(known->has_value());
    EXPECT_EQ((*known)->status, 201u);
    EXPECT_EQ((*known)->answer, "sealed");
    EXPECT_EQ((*known)->target, "/v1/items");
    KeptAnswer other = request;
    other.identity = "user:bob";
    EXPECT_FALSE(begin_answer(*test.database, other)->has_value());
    ASSERT_TRUE(forget_answer(*test.database, "user:bob", "k1"));
    EXPECT_FALSE(begin_answer(*test.database, other)->has_value());
    test.clock.time.us += kAnswerKeptUs;
    EXPECT_FALSE(begin_answer(*test.database, request)->has_value());
}

}  // namespace
}  // namespace farshore
