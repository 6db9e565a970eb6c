#include "meta/item_memory.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "meta/items.h"
#include "meta/policies.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

using Names = std::vector<std::string>;

ItemId id_of(int n) {
    ItemId id;
    id.raw[0] = static_cast<uint8_t>(n);
    id.raw[1] = static_cast<uint8_t>(n >> 8);
    return id;
}

ItemRecord item_of(int n, const std::string& name, const std::string& agent) {
    ItemRecord item;
    item.id = id_of(n);
    item.name = name;
    item.agent = agent;
    return item;
}

Names names_of(const Result<std::vector<ItemRecord>>& items) {
    EXPECT_TRUE(items) << items.error().to_string();
    Names names;
    if (items)
        for (const ItemRecord& item : *items) names.push_back(item.name);
    return names;
}

// A memory over a map instead of a database.
struct Remembered : testing::Test {
    std::map<ItemId, ItemRecord> there;
    int reads = 0;
    size_t asked = 0;
    std::function<void()> while_reading;
    std::optional<Error> trouble;
    ItemMemory memory{[this](const std::vector<ItemId>* ids) -> Result<std::vector<ItemRecord>> {
        ++reads;
        asked = ids != nullptr ? ids->size() : 0;
        if (trouble) return tl::unexpected(*trouble);
        std::vector<ItemRecord> found;
        for (const auto& [id, item] : there)
            if (ids == nullptr || std::ranges::count(*ids, id) != 0) found.push_back(item);
        if (while_reading) while_reading();
        return found;
    }};
    void set(int n, const std::string& name, const std::string& agent) {
        there[id_of(n)] = item_of(n, name, agent);
    }
};

// Broken if an agent were told of another's item, or not of one that nobody captures yet.
TEST_F(Remembered, AreAnAgentsOwnAndNobodys) {
    set(1, "b", "one");
    set(2, "a", "one");
    set(3, "c", "two");
    set(4, "aa", "");
    EXPECT_EQ(names_of(memory.of_agent("one")), (Names{"a", "aa", "b"}));
    EXPECT_EQ(names_of(memory.of_agent("two")), (Names{"aa", "c"}));
    EXPECT_EQ(names_of(memory.of_agent("three")), Names{"aa"});
    EXPECT_EQ(names_of(memory.of_agent("")), Names{"aa"});
    EXPECT_EQ((*memory.find(id_of(3)))->agent, "two");
    EXPECT_FALSE(*memory.find(id_of(5)));
    EXPECT_EQ(reads, 1);
}

// Broken if an old answer were given after a change, or everything were read for each.
TEST_F(Remembered, WhatChangedIsReadAgain) {
    set(1, "a", "one");
    set(2, "b", "one");
    EXPECT_EQ(names_of(memory.of_agent("one")).size(), 2u);
    set(1, "a", "two");
    there.erase(id_of(2));
    set(3, "b", "one");  // its name is another's now
    memory.changed({id_of(1), id_of(2), id_of(3)});
    EXPECT_EQ(names_of(memory.of_agent("one")), Names{"b"});
    EXPECT_EQ(asked, 3u);
    EXPECT_EQ(names_of(memory.of_agent("two")), Names{"a"});
    EXPECT_FALSE(*memory.find(id_of(2)));
    EXPECT_TRUE(*memory.find(id_of(3)));
    EXPECT_EQ(reads, 2);
}

// Broken if a change that came while items were read were taken for known.
TEST_F(Remembered, AChangeWhileReadingIsNotMissed) {
    set(1, "a", "one");
    while_reading = [&] {
        set(1, "a", "two");
        memory.changed({id_of(1)});
    };
    EXPECT_EQ(names_of(memory.of_agent("one")), Names{"a"});  // it asked before
    while_reading = {};
    EXPECT_EQ(names_of(memory.of_agent("one")), Names{});
    EXPECT_EQ(names_of(memory.of_agent("two")), Names{"a"});
}

// Broken if a database that is away left an old answer, or a hole, behind.
TEST_F(Remembered, AReadThatFailedIsDoneAgain) {
    set(1, "a", "one");
    EXPECT_EQ(names_of(memory.of_agent("one")), Names{"a"});
    set(1, "a", "two");
    memory.changed({id_of(1)});
    trouble = Error(Code::kUnavailable, "away");
    EXPECT_EQ(memory.of_agent("one").error().code(), Code::kUnavailable);
    EXPECT_EQ(memory.find(id_of(1)).error().code(), Code::kUnavailable);
    trouble.reset();
    EXPECT_EQ(names_of(memory.of_agent("one")), Names{});
    EXPECT_EQ(names_of(memory.of_agent("two")), Names{"a"});
}

// Broken if many changes were read one by one, or one that ended in between stayed in memory.
TEST_F(Remembered, ManyChangesAreReadAtOnce) {
    for (int n = 0; n < 200; ++n) set(n, fmt::format("item-{:03}", n), "one");
    EXPECT_EQ(names_of(memory.of_agent("one")).size(), 200u);
    std::vector<ItemId> ids;
    for (int n = 0; n < 100; ++n) {
        there.erase(id_of(n));
        ids.push_back(id_of(n));
    }
    memory.changed(ids);
    EXPECT_EQ(names_of(memory.of_agent("one")).size(), 100u);
    EXPECT_EQ(reads, 2);
    EXPECT_EQ(asked, 0u);  // all
    EXPECT_FALSE(*memory.find(id_of(50)));
}

// ---- over the database

// All that a record holds.
std::string whole(const ItemRecord& item) {
    std::string text = fmt::format(
        "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", item.id.to_string(), item.name,
        item_state_name(item.state), item.state_since.us, capture_mode_name(item.mode), item.agent,
        item.qmp_socket, item.nbd_socket, item.machine, to_hex(item.wrapped_key), item.policy_name,
        item.resync_request, item.created.us, item.updated.us, item.policy.rpo_threshold_s);
    if (item.error) text += fmt::format(" {} {}", code_name(item.error->code), item.error->what);
    for (const DesiredDisk& disk : item.disks)
        text += fmt::format(" {} {} {} {} {}", disk.index, disk.path, disk.size_bytes, disk.removed,
                            disk.joining);
    return text;
}

// What the database says itself, of items as the memory offers them.
void expect_same(Database& database, const Names& agents) {
    const auto all = list_items(database, "", 10'000);
    ASSERT_TRUE(all) << all.error().to_string();
    for (const std::string& agent : agents) {
        const auto remembered = remembered_items_of_agent(database, agent);
        ASSERT_TRUE(remembered) << remembered.error().to_string();
        std::vector<ItemRecord> wanted;
        for (const ItemRecord& item : *all)
            if (item.agent == agent || item.agent.empty()) wanted.push_back(item);
        ASSERT_EQ(remembered->size(), wanted.size());
        for (size_t i = 0; i < wanted.size(); ++i)
            EXPECT_EQ(whole(remembered->at(i)), whole(wanted[i]));
    }
    const auto listed = [&](const ItemQuery& query, auto&& is_wanted) {
        std::vector<ItemRecord> wanted;
        std::ranges::copy_if(*all, std::back_inserter(wanted), is_wanted);
        const auto remembered = remembered_items(database, query, "", 10'000);
        ASSERT_TRUE(remembered) << remembered.error().to_string();
        ASSERT_EQ(remembered->size(), wanted.size());
        for (size_t i = 0; i < wanted.size(); ++i)
            EXPECT_EQ(whole(remembered->at(i)), whole(wanted[i]));
        if (wanted.size() < 2) return;
        const auto second = remembered_items(database, query, wanted.front().name, 1);
        ASSERT_TRUE(second && second->size() == 1);
        EXPECT_EQ(second->front().name, wanted[1].name);
    };
    listed({}, [](const ItemRecord&) { return true; });
    listed({.prefix = "item-1"},
           [](const ItemRecord& item) { return item.name.starts_with("item-1"); });
    listed({.policy = "gold"}, [](const ItemRecord& item) { return item.policy_name == "gold"; });
    listed({.state = "enabling"},
           [](const ItemRecord& item) { return item.state == ItemState::kEnabling; });
    listed({.state = "initial-replication", .agent = "one"}, [](const ItemRecord& item) {
        return item.state == ItemState::kInitialReplication && item.agent == "one";
    });
    listed({.state = "nonsense"}, [](const ItemRecord&) { return false; });
}

// Broken if one of the ways in which items change did not tell the memory.
TEST(RememberedItems, AreWhatTheDatabaseHas) {
    TestDatabase test;
    Database& database = *test.database;
    const Names agents = {"one", "two", ""};
    std::mt19937 chance(7);
    const auto any = [&](int n) { return static_cast<int>(chance() % static_cast<unsigned>(n)); };
    ASSERT_TRUE(create_policy(database, {.name = "gold"}));
    int made = 0;
    std::vector<ItemId> ids;
    const auto add = [&] {
        ItemRecord item = item_of(++made, fmt::format("item-{}", made), agents.at(any(3)));
        item.mode = CaptureMode::kInPath;
        item.disks = {{0, fmt::format("/disks/{}", made), 512}};
        if (any(3) == 0) item.policy_name = "gold";
        ids.push_back(item.id);
        ASSERT_TRUE(create_item(database, item));
    };
    for (int round = 0; round < 150; ++round) {
        if (ids.size() < 3 || any(4) == 0) add();
        const ItemId id = ids.at(any(static_cast<int>(ids.size())));
        switch (any(6)) {
            case 0:
                ASSERT_TRUE(change_item(database, id, [&](ItemRecord& item) -> Status {
                    item.agent = agents.at(any(3));
                    item.machine = fmt::format("machine {}", round);
                    item.nbd_socket = fmt::format("/run/{}", round);
                    item.disks.at(0).joining = any(2) == 0;
                    item.disks.at(0).size_bytes += 512;
                    if (any(2) == 0)
                        item.error = ItemError{Code::kIo, fmt::format("round {}", round), ""};
                    if (any(2) == 0) item.state = ItemState::kInitialReplication;
                    return {};
                }));
                break;
            case 1:
                ASSERT_TRUE(delete_item(database, id));
                std::erase(ids, id);
                break;
            case 2:
                ASSERT_TRUE(
                    change_resync_plan(database, id, [&](ItemRecord& item, ResyncPlan&) -> Status {
                        item.resync_request = fmt::format("r{}", round);
                        return {};
                    }));
                break;
            case 3:
                ASSERT_TRUE(assign_policy(
                    database, "gold", {id},
                    [](const ItemRecord&, const ItemPolicy&) -> Status { return {}; }));
                break;
            case 4:
                ASSERT_TRUE(change_policy(
                    database, "gold",
                    [&](PolicyRecord& policy) -> Status {
                        policy.values.rpo_threshold_s = static_cast<uint32_t>(60 + round);
                        return {};
                    },
                    [](const ItemRecord&, const ItemPolicy&) -> Status { return {}; }));
                break;
            default:
                // One that is refused changes nothing.
                EXPECT_FALSE(change_item(database, id, [&](ItemRecord& item) -> Status {
                    item.agent = "nobody";
                    return fail(Code::kWrongState, "no");
                }));
        }
        expect_same(database, agents);
    }
}

// Broken if one that asks beside a change were given what was before it, once the change was done.
TEST(RememberedItems, AreNeverOlderThanWhatWasSaid) {
    TestDatabase test;
    Database& database = *test.database;
    ItemRecord item = item_of(1, "item", "one");
    item.mode = CaptureMode::kMirror;
    ASSERT_TRUE(create_item(database, item));
    std::atomic<int> done = 0;
    std::jthread writer([&] {
        for (int n = 1; n <= 200; ++n) {
            EXPECT_TRUE(change_item(database, item.id, [&](ItemRecord& to) -> Status {
                to.machine = std::to_string(n);
                return {};
            }));
            done = n;
        }
    });
    std::vector<std::jthread> readers;
    for (int i = 0; i < 3; ++i)
        readers.emplace_back([&] {
            for (int known = 0; known < 200;) {
                known = done;
                const auto items = remembered_items_of_agent(database, "one");
                ASSERT_TRUE(items);
                ASSERT_EQ(items->size(), 1u);
                const std::string& machine = items->front().machine;
                ASSERT_GE(machine.empty() ? 0 : std::stoi(machine), known);
            }
        });
}

}  // namespace
}  // namespace farshore
