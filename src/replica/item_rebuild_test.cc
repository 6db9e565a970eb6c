// What a ledger is rebuilt to when segments were put side by side: some landed and were never
// registered, some behind holes, some long after everybody forgot them.
#include <gtest/gtest.h>

#include "replica/log_walk.h"
#include "replica/replica_test_check.h"
#include "replica/vault_fence.h"

namespace farshore {
namespace {

using namespace replica_test;

struct World {
    World() : random(2), appliance(memory, random, test_item(), test_key()) { take_over(); }

    // Another vault, with nothing but the store.
    Status take_over() {
        auto claimed = VaultFence::claim(memory, clock, random, "vault");
        FS_CHECK(claimed);
        fence.emplace(std::move(*claimed));
        options.fence = &*fence;
        ledger.emplace();
        FS_TRY(ItemReplica::rebuild(memory, *ledger, test_item(), test_key(), options));
        auto opened =
            ItemReplica::open(memory, *ledger, clock, random, test_item(), test_key(), options);
        FS_CHECK(opened);
        replica = std::move(*opened);
        return {};
    }
    void acquire() { FS_CHECK(appliance.acquire(*replica)); }
    Bytes some() {
        Bytes records;
        if (machine.last() == 0) machine.begin(records, clock.now_us, false);
        machine.run(6, records, clock.now_us);
        clock.now_us += 100'000;
        return records;
    }
    void store_next(int count) {
        for (int i = 0; i < count; ++i) FS_CHECK(appliance.send(*replica, some()));
    }
    // Puts `count` more that are not registered. The machine's history is as if they were.
    std::vector<SegmentRegistration> put_ahead(int count) {
        std::vector<SegmentRegistration> out;
        for (int i = 0; i < count; ++i) {
            const auto built = appliance.build(some());
            FS_CHECK(built);
            appliance.registered(*built);
            out.push_back(*built);
        }
        return out;
    }
    // It has not landed yet.
    Bytes hold_back(const SegmentRegistration& segment) {
        Bytes bytes = *memory.get(segment.object_name);
        FS_CHECK(memory.remove(segment.object_name));
        return bytes;
    }
    uint64_t segments() { return ledger->state()->last_segment.v; }
    uint64_t stored() { return ledger->state()->stored.v; }
    void expect_equal_at(uint64_t sequence) {
        SCOPED_TRACE("sequence " + std::to_string(sequence));
        auto reader = ReplicaReader::open(memory, test_item(), test_key(), {sequence}, {});
        ASSERT_TRUE(reader) << reader.error().to_string();
        expect_equal(**reader, machine.history().at(sequence));
    }
    void expect_all_equal() {
        for (const auto& [sequence, disks] : machine.history())
            if (sequence <= stored()) expect_equal_at(sequence);
    }
    uint64_t newest_by_store() {
        auto reader = ReplicaReader::open(memory, test_item(), test_key(), kLatestSequence, {});
        return reader ? (*reader)->sequence().v : 0;
    }

    TestClock clock;
    Machine machine{7};
    TestRandom random;
    MemoryStore memory;
    std::optional<VaultFence> fence;
    ItemReplicaOptions options;
    std::optional<MemoryLedger> ledger;
    Appliance appliance;
    std::unique_ptr<ItemReplica> replica;
};

// Would break: an appliance that died in the middle of its puts leaves an item that no vault takes
// over; or what lies behind the hole is taken for the log; or the missing one lands afterwards, and
// with it all that lies behind it.
TEST(ItemRebuild, WhatLiesBehindAHoleIsNoLoss) {
    World w;
    w.acquire();
    w.store_next(3);
    const uint64_t end = w.stored();
    // 4 is under way when the appliance dies, 5 … 11 have landed.
    const auto ahead = w.put_ahead(kMaxSegmentsAhead);
    Bytes late = w.hold_back(ahead.front());
    EXPECT_EQ(ahead.back().number.v, 3 + kMaxSegmentsAhead);
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.segments(), 3u);
    EXPECT_EQ(w.stored(), end);
    EXPECT_EQ(w.newest_by_store(), end);
    w.expect_all_equal();

    // Now it lands: of the log that was handed on it is no part.
    ASSERT_TRUE(w.memory.put(ahead.front().object_name, late));
    EXPECT_EQ(w.newest_by_store(), end);
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.segments(), 3u);
    // The source opens a gap, since what it had sent is gone. It is the new lease's segments that
    // count, numbers that the old one had used included.
    w.acquire();
    Bytes gap;
    w.machine.lose(3, gap, w.clock.now_us);
    w.machine.resync(gap, w.clock.now_us);
    ASSERT_TRUE(w.appliance.send(*w.replica, gap));
    w.store_next(2);
    EXPECT_EQ(w.segments(), 6u);
    EXPECT_EQ(w.newest_by_store(), w.stored());
    w.expect_equal_at(w.stored());
    w.expect_equal_at(end);
    const uint64_t stored = w.stored();
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.stored(), stored);
    EXPECT_EQ(w.segments(), 6u);
    w.expect_equal_at(w.stored());
}

// Would break: what was acknowledged and is lost is written over.
TEST(ItemRebuild, MoreBehindAHoleThanAnApplianceRunsAheadIsALoss) {
    World w;
    w.acquire();
    w.store_next(3);
    w.store_next(1);
    ASSERT_TRUE(w.memory.remove(w.ledger->list_segments({3}, 1)->front().object_name));
    (void)w.put_ahead(kMaxSegmentsAhead - 1);  // 5 … 11: 4 may have been registered or not
    EXPECT_TRUE(w.take_over());
    World other;
    other.acquire();
    other.store_next(4);
    const std::string fourth = other.ledger->list_segments({3}, 1)->front().object_name;
    (void)other.put_ahead(kMaxSegmentsAhead);  // 5 … 12: 4 was registered when 12 was put
    ASSERT_TRUE(other.memory.remove(fourth));
    const Status refused = other.take_over();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kCorrupt);
    EXPECT_NE(refused.error().what().find("segment 4"), std::string::npos)
        << refused.error().what();
}

// Would break: the loss of a segment in front of a lease's first, which nobody could have written
// unless it was registered, is taken for a hole.
TEST(ItemRebuild, ALeaseThatBeganBehindAHoleShowsTheLoss) {
    World w;
    w.acquire();
    w.store_next(3);
    const std::string last = w.ledger->list_segments({2}, 1)->front().object_name;
    w.acquire();  // begins with 4; nothing of it is put
    ASSERT_TRUE(w.memory.remove(last));
    const Status refused = w.take_over();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kCorrupt);
}

// Would break: what a lost lease left is taken for the log, in front of what the next one wrote,
// behind it, or instead of it.
TEST(ItemRebuild, LeftoversOfALostLeaseBesideTheNextOnes) {
    World w;
    w.acquire();
    w.store_next(2);
    const uint64_t before = w.stored();
    const auto machine = w.machine;
    const auto old = w.put_ahead(6);  // 3 … 8
    // The source sends the same again, which is sealed otherwise.
    w.machine = machine;
    w.acquire();
    EXPECT_EQ(w.appliance.lease().next_segment.v, 3u);
    EXPECT_EQ(w.newest_by_store(), before) << "the lease alone says that they are no log";
    w.store_next(2);  // 3 and 4
    const uint64_t end = w.stored();
    EXPECT_EQ(w.newest_by_store(), end) << "5 … 8 are of the lost lease";
    // Of the new lease's next ones the second has landed and the first has not.
    const auto ahead = w.put_ahead(2);
    (void)w.hold_back(ahead.front());
    EXPECT_EQ(w.newest_by_store(), end) << "5 of the lost lease does not fill the hole";
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.segments(), 4u);
    EXPECT_EQ(w.stored(), end);
    w.expect_all_equal();
}

// Would break: a lease that was handed out and had nothing in the store when the vault was replaced
// writes afterwards, and readers or the next rebuild follow it instead of what was acknowledged
// since.
TEST(ItemRebuild, WhatLandsAfterwardsChangesNothing) {
    World w;
    w.acquire();
    w.store_next(2);
    const uint64_t first_end = w.stored();
    Appliance first = w.appliance;
    const auto machine = w.machine;
    const auto old = w.put_ahead(3);  // 3, 4, 5 of the first lease, never registered
    // The second lease has its first segment under way.
    w.machine = machine;
    w.acquire();
    const auto second = w.put_ahead(2);
    std::vector<Bytes> late;
    for (const auto& segment : second) late.push_back(w.hold_back(segment));
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.stored(), first_end) << "a lease began with 3: the first one's were no log";
    ASSERT_TRUE(w.memory.put(second[0].object_name, late[0]));
    w.machine = machine;
    w.acquire();
    Appliance third = w.appliance;
    w.store_next(1);
    const uint64_t end = w.stored();
    ASSERT_TRUE(w.memory.put(second[1].object_name, late[1]));
    EXPECT_EQ(w.newest_by_store(), end);
    w.expect_all_equal();
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.stored(), end);
    EXPECT_EQ(w.segments(), 3u);
}

// Would break: segments that a rebuild took over - nobody knows whether they were registered - are
// given up for those of a lease that a fenced vault hands out, or handed out, too late.
TEST(ItemRebuild, WhatARebuildTookOverStays) {
    World w;
    w.acquire();
    w.store_next(2);
    (void)w.put_ahead(3);  // 3, 4, 5
    const uint64_t end = w.machine.last();
    const Epoch old_vault = w.fence->epoch();
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.segments(), 5u);
    EXPECT_EQ(w.stored(), end);
    // The old vault was in the middle of handing out a lease; its appliance puts a segment at once.
    const LogLeaseMark mark{{old_vault.v << 32 | 9}, {3}, {old_vault.v << 32 | 1}};
    ASSERT_TRUE(put_log_lease(w.memory, test_item(), mark));
    ObjectRef stray{SegmentKind::kLog, {3}, mark.epoch};
    ASSERT_TRUE(w.memory.put(object_name(test_item(), stray), Bytes(400, 1)));
    EXPECT_EQ(w.newest_by_store(), end);
    w.expect_all_equal();
    ASSERT_TRUE(w.take_over());
    EXPECT_EQ(w.stored(), end);
    w.acquire();
    w.store_next(1);
    EXPECT_EQ(w.newest_by_store(), w.stored());
    w.expect_all_equal();
}

// Would break: what no log refers to stays for ever, or the marks of leases do.
TEST(ItemRebuild, LeftoversAreSweptInTheEnd) {
    World w;
    for (int round = 0; round < 6; ++round) {
        w.acquire();
        w.store_next(2);
        const auto machine = w.machine;
        auto ahead = w.put_ahead(4);
        (void)w.hold_back(ahead[round % 2]);
        w.machine = machine;
    }
    w.acquire();
    w.store_next(12);  // past all of their numbers
    RetentionPolicy policy;
    policy.window_us = 500'000;
    policy.grace_us = 1'000'000;
    for (int i = 0; i < 3; ++i) {
        w.clock.now_us += 2'000'000;
        ASSERT_TRUE(w.replica->maybe_checkpoint());
        ASSERT_TRUE(w.replica->run_retention(policy));
    }
    expect_nothing_left_over(w.memory, *w.ledger);
    EXPECT_LE(list_all(w.memory, log_lease_prefix(test_item()))->size(), 2u);
    EXPECT_EQ(w.newest_by_store(), w.stored());
    ASSERT_TRUE(w.take_over());
    w.expect_equal_at(w.stored());
}

}  // namespace
}  // namespace farshore
