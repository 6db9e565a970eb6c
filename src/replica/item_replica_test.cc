#include "replica/item_replica.h"

#include <gtest/gtest.h>

#include "replica/replica_test_check.h"
#include "sim/seeds.h"

namespace farshore {
namespace {

using namespace replica_test;

// A vault's side that can die at any operation and is opened again, with its source.
struct World {
    explicit World(uint64_t seed, ItemReplicaOptions with = {})
        : machine(seed),
          random(seed + 1),
          store(memory, fate),
          options(std::move(with)),
          appliance(memory, random, test_item(), test_key()) {
        ledger.set_hook(
            [this](const char*, bool after) { return after ? fate.after() : fate.before(); });
        open();
    }
    void open() {
        auto opened =
            ItemReplica::open(store, ledger, clock, random, test_item(), test_key(), options);
        ASSERT_TRUE(opened) << opened.error().to_string();
        replica = std::move(*opened);
    }
    Result<std::shared_ptr<ReplicaReader>> read(uint64_t sequence) {
        ReplicaReaderOptions with;
        with.cache = cache;
        return ReplicaReader::open(memory, test_item(), test_key(), {sequence}, with);
    }
    // The replica at every point that is offered, and at none that is not.
    void check_all(uint64_t every = 1) {
        const auto list = replica->points({});
        ASSERT_TRUE(list) << list.error().to_string();
        const auto state = ledger.state();
        if (state->floor.v > 0 && !list->ranges.empty()) {
            ASSERT_LT(state->floor, list->ranges.back().last) << "the newest point stays a choice";
        }
        std::set<uint64_t> offered;
        for (const OfferedRange& range : list->ranges) {
            for (uint64_t s = range.first.v; s <= range.last.v; ++s) offered.insert(s);
        }
        for (const auto& [sequence, disks] : machine.history()) {
            const bool expected =
                sequence >= std::max<uint64_t>(state->floor.v, 1) && sequence <= state->stored.v;
            ASSERT_EQ(offered.contains(sequence), expected) << "sequence " << sequence;
            if (!expected) continue;
            offered.erase(sequence);
            if (sequence % every != 0 && sequence != state->floor.v && sequence != state->stored.v)
                continue;
            SCOPED_TRACE("sequence " + std::to_string(sequence));
            auto reader = read(sequence);
            ASSERT_TRUE(reader) << reader.error().to_string();
            expect_equal(**reader, disks);
            if (testing::Test::HasFatalFailure()) return;
        }
        ASSERT_TRUE(offered.empty()) << *offered.begin() << " is offered and never was";
    }
    void send(const Bytes& records) {
        const Status sent = appliance.send(*replica, records);
        ASSERT_TRUE(sent) << sent.error().to_string();
    }
    uint64_t store_bytes() {
        uint64_t out = 0;
        const auto infos = list_all(memory, "");
        for (const ObjectInfo& info : *infos) out += info.size_bytes;
        return out;
    }

    TestClock clock;
    Machine machine;
    TestRandom random;
    MemoryStore memory;
    Fate fate;
    FatefulStore store;
    MemoryLedger ledger;
    ItemReplicaOptions options;
    Appliance appliance;
    std::unique_ptr<ItemReplica> replica;
    std::shared_ptr<ChunkCache> cache = std::make_shared<ChunkCache>(64u << 20);
};

RetentionPolicy short_window(int64_t window_us = 3'000'000, int64_t grace_us = 1'000'000) {
    RetentionPolicy policy;
    policy.window_us = window_us;
    policy.grace_us = grace_us;
    policy.small_objects = 4;
    policy.rewrite_min_bytes = 0;
    policy.rewrite_memory_bytes = 64 << 10;  // several times in one run
    return policy;
}

// The machine goes on for a while: writes, now and then a gap.
Bytes some_records(World& w, Rng& rng) {
    Bytes records;
    const uint64_t what = rng.below(12);
    if (what == 0 && w.machine.last() > 20) {
        w.machine.lose(static_cast<int>(1 + rng.below(10)), records, w.clock.now_us);
    } else if (w.machine.in_gap() && what < 6) {
        w.machine.resync(records, w.clock.now_us);
    } else {
        w.machine.run(static_cast<int>(1 + rng.below(25)), records, w.clock.now_us);
    }
    return records;
}

// Would break: everything. Order, splitting, checkpoints, folding, rewriting, deletion.
TEST(ItemReplica, EqualsTheSourceAtEverySequenceThroughUpkeep) {
    uint64_t rewritten = 0;
    constexpr uint64_t kSeeds = fewer_when_sanitized(12);
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ItemReplicaOptions options;
        options.checkpoint_entries = 60;
        options.max_manifests = 3;
        World w(seed, options);
        Rng rng(seed * 77);
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        Bytes first;
        w.machine.begin(first, w.clock.now_us, rng.coin());
        w.send(first);
        uint64_t floors = 0, removed = 0, checkpoints = 0;
        for (int round = 0; round < 60; ++round) {
            w.clock.now_us += 100'000 + static_cast<int64_t>(rng.below(200'000));
            w.send(some_records(w, rng));
            if (rng.below(3) == 0) {
                const auto made = w.replica->maybe_checkpoint();
                ASSERT_TRUE(made) << made.error().to_string();
                checkpoints += *made;
            }
            if (rng.below(5) == 0) {
                const auto report = w.replica->run_retention(short_window());
                ASSERT_TRUE(report) << report.error().to_string();
                floors += report->floor_moved;
                rewritten += report->rewritten_objects;
                removed += report->removed;
            }
            if (round % 20 == 19) w.check_all(7);
            if (HasFatalFailure()) return;
        }
        w.check_all();
        if (HasFatalFailure()) return;
        if (!w.machine.in_gap()) {
            EXPECT_GT(floors, 0u);
            EXPECT_GT(removed, 0u);
        }
        EXPECT_GT(checkpoints, 0u);
        // Labels name the points that they did.
        for (const auto& [sequence, label] : w.machine.labels) {
            if (!w.machine.history().contains(sequence)) continue;
            const auto state = w.ledger.state();
            const auto point = w.replica->resolve(PointSpec::parse(label));
            if (sequence < state->floor.v) {
                EXPECT_FALSE(point);
            } else {
                ASSERT_TRUE(point) << point.error().to_string();
                EXPECT_EQ(point->sequence.v, sequence);
            }
        }

        // The ledger is lost: the store alone gives the same.
        const LedgerState before = *w.ledger.state();
        const PointList points_before = *w.replica->points({});
        MemoryLedger fresh;
        const Status rebuilt =
            ItemReplica::rebuild(w.memory, fresh, test_item(), test_key(), w.options);
        ASSERT_TRUE(rebuilt) << rebuilt.error().to_string();
        const LedgerState after = *fresh.state();
        EXPECT_EQ(after.stored, before.stored);
        EXPECT_EQ(after.floor, before.floor);
        EXPECT_EQ(after.last_segment, before.last_segment);
        EXPECT_EQ(after.last_header, before.last_header);
        EXPECT_EQ(after.written_bytes, before.written_bytes);
        EXPECT_GE(after.epoch, before.epoch);
        EXPECT_EQ(after.stored_bytes, w.store_bytes());
        auto reopened = ItemReplica::open(w.memory, fresh, w.clock, w.random, test_item(),
                                          test_key(), w.options);
        ASSERT_TRUE(reopened);
        const PointList points_after = *(*reopened)->points({});
        ASSERT_EQ(points_after.points.size(), points_before.points.size());
        ASSERT_EQ(points_after.ranges.size(), points_before.ranges.size());
        for (size_t i = 0; i < points_after.ranges.size(); ++i) {
            EXPECT_EQ(points_after.ranges[i].first, points_before.ranges[i].first);
            EXPECT_EQ(points_after.ranges[i].last, points_before.ranges[i].last);
            EXPECT_EQ(points_after.ranges[i].last_time, points_before.ranges[i].last_time);
        }
        // And goes on from there.
        w.replica = std::move(*reopened);
        const auto old_lease = w.appliance.lease();
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        EXPECT_GT(w.appliance.lease().epoch, old_lease.epoch);
        Bytes more;
        w.machine.run(10, more, w.clock.now_us);
        w.send(more);
        w.clock.now_us += 5'000'000;
        ASSERT_TRUE(w.replica->run_retention(short_window()));
        ASSERT_TRUE(w.replica->checkpoint());
        w.clock.now_us += 5'000'000;
        const auto swept = w.replica->run_retention(short_window());
        ASSERT_TRUE(swept) << swept.error().to_string();
        const uint64_t floor = fresh.state()->floor.v;
        auto latest = w.read(UINT64_MAX);
        ASSERT_TRUE(latest) << latest.error().to_string();
        expect_equal(**latest, w.machine.history().at((*latest)->sequence().v));
        auto oldest = w.read(std::max<uint64_t>(floor, 1));
        if (w.machine.history().contains(floor)) {
            ASSERT_TRUE(oldest) << oldest.error().to_string();
            expect_equal(**oldest, w.machine.history().at(floor));
        }
        if (HasFatalFailure()) return;
    }
    EXPECT_GT(rewritten, 100 * kSeeds / 12);
}

// Would break: a vault killed or cut off in the middle of anything.
TEST(ItemReplica, GoesOnAfterADeathAtEveryOperation) {
    uint64_t deaths = 0;
    constexpr uint64_t kSeeds = fewer_when_sanitized(80);
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ItemReplicaOptions options;
        options.checkpoint_entries = 40;
        options.max_manifests = 2;
        World w(seed, options);
        Rng rng(seed * 1231);
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        Bytes first;
        w.machine.begin(first, w.clock.now_us, false);
        w.send(first);
        for (int round = 0; round < 25; ++round) {
            w.clock.now_us += 300'000;
            const Bytes records = some_records(w, rng);
            const auto registration = w.appliance.build(records);
            ASSERT_TRUE(registration) << registration.error().to_string();
            bool registered = false;
            w.fate = {};
            w.fate.at = 1 + rng.below(60);
            w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
            // The vault does its rounds until all of them succeeded.
            for (int attempt = 0; attempt < 4; ++attempt) {
                try {
                    if (!registered) registered = bool(w.replica->register_segment(*registration));
                    if (registered && w.replica->maybe_checkpoint() &&
                        w.replica->run_retention(short_window(1'500'000, 500'000)))
                        break;
                } catch (const Died&) {
                    ++deaths;
                    w.open();
                    // What is offered now can be read now, whatever was left half done.
                    if (deaths % 8 == 0) w.check_all(11);
                    if (HasFatalFailure()) return;
                }
                ASSERT_LT(attempt, 3);
            }
            ASSERT_TRUE(registered);
            w.appliance.registered(*registration);
            if (round % 8 == 7) w.check_all(5);
            if (HasFatalFailure()) return;
        }
        w.fate = {};
        w.check_all();
        if (HasFatalFailure()) return;
        // What crashed attempts left is found and removed.
        for (int i = 0; i < 4; ++i) {
            w.clock.now_us += 10'000'000;
            ASSERT_TRUE(w.replica->run_retention(short_window()));
        }
        w.clock.now_us += 10'000'000;
        const auto report = w.replica->run_retention(short_window());
        ASSERT_TRUE(report);
        EXPECT_EQ(w.replica->status()->stored_bytes, w.store_bytes());
        w.check_all(3);
        if (HasFatalFailure()) return;
    }
    EXPECT_GT(deaths, 300 * kSeeds / 80);
}

// Would break: a test failover or export whose point's bytes vanish under it.
TEST(ItemReplica, NothingThatALeasedPointNeedsIsRemoved) {
    for (uint64_t seed = 1; seed <= fewer_when_sanitized(10); ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ItemReplicaOptions options;
        options.checkpoint_entries = 50;
        options.max_manifests = 2;
        World w(seed, options);
        Rng rng(seed * 91);
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        Bytes first;
        w.machine.begin(first, w.clock.now_us, false);
        w.send(first);
        struct Held {
            LeaseRow lease;
            std::shared_ptr<ReplicaReader> reader;
            std::vector<Machine::Disk> disks;
            int until;
        };
        std::vector<Held> held;
        RetentionPolicy policy = short_window(1'000'000, 0);
        for (int round = 0; round < 80; ++round) {
            w.clock.now_us += 200'000;
            Bytes records;
            w.machine.run(static_cast<int>(1 + rng.below(20)), records, w.clock.now_us);
            w.send(records);
            if (rng.below(4) == 0) {
                const uint64_t floor = std::max<uint64_t>(w.ledger.state()->floor.v, 1);
                const uint64_t at = floor + rng.below(w.machine.last() - floor + 1);
                auto lease = w.replica->lease({at}, "test", 3'600'000'000);
                ASSERT_TRUE(lease) << lease.error().to_string();
                auto reader = w.read(at);  // no bytes are read yet
                ASSERT_TRUE(reader) << reader.error().to_string();
                held.push_back({*lease, *reader, w.machine.history().at(at),
                                round + static_cast<int>(rng.below(30))});
            }
            if (rng.below(3) == 0) {
                ASSERT_TRUE(w.replica->maybe_checkpoint());
            }
            const auto report = w.replica->run_retention(policy);
            ASSERT_TRUE(report) << report.error().to_string();
            for (auto it = held.begin(); it != held.end();) {
                if (it->until > round) {
                    ++it;
                    continue;
                }
                // A cache without the bytes: everything comes from the store now.
                SCOPED_TRACE("leased " + std::to_string(it->lease.sequence.v));
                w.cache = std::make_shared<ChunkCache>(1u << 20);
                expect_equal(*it->reader, it->disks);
                auto again = w.read(it->lease.sequence.v);
                ASSERT_TRUE(again) << again.error().to_string();
                expect_equal(**again, it->disks);
                if (HasFatalFailure()) return;
                ASSERT_TRUE(w.replica->release(it->lease.id));
                it = held.erase(it);
            }
        }
    }
}

// Would break: a store that grows for ever under a guest that overwrites the same blocks.
TEST(ItemReplica, SpaceStaysBoundedUnderOverwrites) {
    ItemReplicaOptions options;
    options.checkpoint_entries = 100;
    World w(5, options);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, false);
    w.send(first);
    uint64_t half = 0, most = 0;
    for (int round = 0; round < 200; ++round) {
        w.clock.now_us += 200'000;
        Bytes records;
        w.machine.run(20, records, w.clock.now_us);
        w.machine.forget_before(w.machine.last());
        w.send(records);
        ASSERT_TRUE(w.replica->maybe_checkpoint());
        const auto report = w.replica->run_retention(short_window(2'000'000, 500'000));
        ASSERT_TRUE(report) << report.error().to_string();
        if (round == 100) half = most;
        most = std::max(most, w.store_bytes());
    }
    EXPECT_LT(most, half * 2) << "the second hundred rounds take no more than the first";
    const auto infos = list_all(w.memory, "");
    EXPECT_LT(infos->size(), 150u);
}

// Would break: two appliances, or two vaults, that both believe they own the log.
TEST(ItemReplica, FencesOlderLeasesAndOlderVaults) {
    World w(3);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, false);
    w.send(first);

    Bytes records;
    w.machine.run(5, records, w.clock.now_us);
    const auto stale = w.appliance.build(records);
    ASSERT_TRUE(stale);
    Appliance second(w.memory, w.random, test_item(), test_key());
    ASSERT_TRUE(second.acquire(*w.replica));
    EXPECT_EQ(w.replica->register_segment(*stale).error().code(), Code::kFenced);
    EXPECT_EQ(w.replica->mark_idle(stale->epoch, {1}, w.clock.now()).error().code(), Code::kFenced);
    ASSERT_TRUE(second.send(*w.replica, records));
    // The same registration again is harmless; the fenced one stays fenced.
    EXPECT_EQ(w.replica->register_segment(*stale).error().code(), Code::kFenced);
    // Two segments with one number: readers take the newer epoch.
    auto reader = w.read(w.machine.last());
    ASSERT_TRUE(reader) << reader.error().to_string();
    expect_equal(**reader, w.machine.history().at(w.machine.last()));

    // Vaults.
    auto old_fence = VaultFence::claim(w.memory, w.clock, w.random, "old");
    ASSERT_TRUE(old_fence);
    ItemReplicaOptions with;
    with.fence = &*old_fence;
    auto old_vault =
        ItemReplica::open(w.memory, w.ledger, w.clock, w.random, test_item(), test_key(), with);
    ASSERT_TRUE(old_vault);
    ASSERT_TRUE(second.acquire(**old_vault));
    Bytes more;
    w.machine.run(5, more, w.clock.now_us);
    const auto late = second.build(more);
    ASSERT_TRUE(late);
    auto new_fence = VaultFence::claim(w.memory, w.clock, w.random, "new");
    ASSERT_TRUE(new_fence);
    EXPECT_GT(new_fence->epoch(), old_fence->epoch());
    EXPECT_EQ((*old_vault)->register_segment(*late).error().code(), Code::kFenced);
    EXPECT_EQ((*old_vault)->run_retention(short_window()).error().code(), Code::kFenced);
    EXPECT_EQ((*old_vault)->acquire_log("x").error().code(), Code::kFenced);
    EXPECT_TRUE(new_fence->still_mine());
    // The segment was put before the check failed, so the new vault finds it in the store.
    MemoryLedger fresh;
    ASSERT_TRUE(ItemReplica::rebuild(w.memory, fresh, test_item(), test_key()));
    EXPECT_EQ(fresh.state()->stored.v, w.machine.last());
    with.fence = &*new_fence;
    auto new_vault =
        ItemReplica::open(w.memory, fresh, w.clock, w.random, test_item(), test_key(), with);
    ASSERT_TRUE(new_vault);
    EXPECT_TRUE((*new_vault)->register_segment(*late)) << "it is there already";
    const auto lease = (*new_vault)->acquire_log("x");
    ASSERT_TRUE(lease);
    EXPECT_GT(lease->epoch, late->epoch);
}

// Would break: a claim whose answer was lost counts as somebody else's.
TEST(VaultFence, ClaimsAreDistinctAndRepeatable) {
    TestClock clock;
    TestRandom random(1);
    MemoryStore memory;
    std::set<uint64_t> epochs;
    for (int i = 0; i < 40; ++i) {
        Fate fate;
        fate.at = 2;
        fate.kind = Fate::Kind::kFailAfter;
        FatefulStore store(memory, fate);
        auto lost = VaultFence::claim(store, clock, random, "lost");
        EXPECT_FALSE(lost);
        auto fence = VaultFence::claim(memory, clock, random, "vault");
        ASSERT_TRUE(fence) << fence.error().to_string();
        EXPECT_TRUE(epochs.insert(fence->epoch().v).second);
        EXPECT_EQ(fence->epoch().v, *epochs.rbegin());
        EXPECT_TRUE(fence->still_mine());
    }
    EXPECT_LT(list_all(memory, "vault/")->size(), 30u) << "old claims are cleared away";
}

// Would break: a segment that is uploaded, but whose registration takes long.
TEST(ItemReplica, WhatIsAboutToBeRegisteredIsNotRemoved) {
    World w(6);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first, records;
    w.machine.begin(first, w.clock.now_us, false);
    w.send(first);
    w.machine.run(5, records, w.clock.now_us);
    const auto late = w.appliance.build(records);
    ASSERT_TRUE(late);
    for (int i = 0; i < 3; ++i) {
        w.clock.now_us += 60'000'000;
        ASSERT_TRUE(w.replica->run_retention(short_window(1'000'000, 0)));
    }
    ASSERT_TRUE(w.replica->register_segment(*late));
    w.appliance.registered(*late);
    w.check_all();
    // On a fenced lease it never will be: it goes when the log has passed it.
    records.clear();
    w.machine.run(5, records, w.clock.now_us);
    const auto fenced = w.appliance.build(records);
    ASSERT_TRUE(fenced);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    w.send(records);
    for (int i = 0; i < 3; ++i) {
        w.clock.now_us += 60'000'000;
        ASSERT_TRUE(w.replica->run_retention(short_window(1'000'000, 0)));
    }
    EXPECT_EQ(w.memory.head(fenced->object_name).error().code(), Code::kNotFound);
    w.check_all();
}

// Would break: a rebuild that takes a part of the log for all of it, so that it is written over.
TEST(ItemReplica, RebuildingRefusesALogWithAHole) {
    World w(8);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes records;
    w.machine.begin(records, w.clock.now_us, false);
    w.send(records);
    for (int i = 0; i < 12; ++i) {
        w.clock.now_us += 500'000;
        records.clear();
        w.machine.run(10, records, w.clock.now_us);
        w.send(records);
        if (i == 8) {
            ASSERT_TRUE(w.replica->run_retention(short_window(2'000'000, 0))->floor_moved);
        }
        if (i == 9) {
            ASSERT_TRUE(*w.replica->checkpoint());
        }
    }
    ASSERT_TRUE(w.replica->run_retention(short_window(60'000'000, 0)));
    const auto objects = *list_all(w.memory, item_prefix(test_item()));
    const LedgerState before = *w.ledger.state();
    for (const ObjectInfo& info : objects) {
        const Bytes good = *w.memory.get(info.name);
        for (const bool removed : {true, false}) {
            SCOPED_TRACE(info.name);
            ASSERT_TRUE(w.memory.remove(info.name));
            const auto cut = static_cast<ptrdiff_t>(std::min<size_t>(100, good.size() / 2));
            if (!removed) w.memory.replace(info.name, Bytes(good.begin(), good.begin() + cut));
            MemoryLedger fresh;
            const Status rebuilt =
                ItemReplica::rebuild(w.memory, fresh, test_item(), test_key(), w.options);
            // Either it says so, or what it rebuilt is the whole log (but for its very end, of
            // which nobody can know).
            if (rebuilt) {
                const auto segment = parse_object_name(test_item(), info.name);
                const bool end = segment && segment->kind == SegmentKind::kLog &&
                                 segment->number == before.last_segment;
                EXPECT_TRUE(end || fresh.state()->last_segment == before.last_segment);
                EXPECT_TRUE(end || fresh.state()->floor <= before.floor);
            }
            w.memory.replace(info.name, good);
        }
    }
}

TEST(ItemReplica, RefusesWhatDoesNotFollow) {
    World w(9);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, false);
    const auto one = w.appliance.build(first);
    ASSERT_TRUE(one);
    SegmentRegistration wrong = *one;
    wrong.number = {2};
    wrong.object_name = object_name(test_item(), {SegmentKind::kLog, {2}, one->epoch});
    EXPECT_EQ(w.replica->register_segment(wrong).error().code(), Code::kSequenceHole);
    wrong = *one;
    wrong.header_hash[0] ^= 1;
    EXPECT_EQ(w.replica->register_segment(wrong).error().code(), Code::kInvalidArgument);
    wrong = *one;
    wrong.previous_header[0] ^= 1;
    EXPECT_EQ(w.replica->register_segment(wrong).error().code(), Code::kSequenceHole);
    ASSERT_TRUE(w.replica->register_segment(*one));
    EXPECT_TRUE(w.replica->register_segment(*one)) << "sending it again is harmless";
    w.appliance.registered(*one);

    // A record is missing in front of the segment.
    Bytes lost, records;
    w.machine.run(1, lost, w.clock.now_us);
    w.machine.run(3, records, w.clock.now_us);
    const auto holed = w.appliance.build(records);
    ASSERT_TRUE(holed);
    EXPECT_EQ(w.replica->register_segment(*holed).error().code(), Code::kSequenceHole);

    // An object that is not there, or is cut off.
    const auto full = w.memory.get(holed->object_name);
    ASSERT_TRUE(w.memory.remove(holed->object_name));
    EXPECT_EQ(w.replica->register_segment(*holed).error().code(), Code::kNotFound);
    w.memory.replace(holed->object_name, Bytes(full->begin(), full->end() - 1));
    EXPECT_EQ(w.replica->register_segment(*holed).error().code(), Code::kTruncated);
}

TEST(ItemReplica, NamesPointsAndSaysWhyNot) {
    World w(4);
    EXPECT_EQ(w.replica->resolve({}).error().code(), Code::kPointNotFound);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes records;
    w.machine.begin(records, w.clock.now_us, true);  // the first copy: a gap is open
    w.send(records);
    EXPECT_EQ(w.replica->resolve({}).error().code(), Code::kPointNotFound);
    EXPECT_FALSE(w.replica->status()->newest);
    EXPECT_TRUE(w.replica->status()->gap_open);
    EXPECT_EQ(w.read(UINT64_MAX).error().code(), Code::kPointNotFound);
    EXPECT_EQ(w.read(2).error().code(), Code::kPointInGap);
    EXPECT_EQ(w.replica->resolve(PointSpec::parse("2")).error().code(), Code::kPointInGap);

    w.clock.now_us += 1'000'000;
    records.clear();
    w.machine.resync(records, w.clock.now_us);
    const uint64_t good = w.machine.last();
    w.send(records);
    EXPECT_EQ(w.replica->resolve({})->sequence.v, good);
    EXPECT_EQ(w.replica->status()->oldest->v, good);

    w.clock.now_us += 1'000'000;
    records.clear();
    w.machine.run(30, records, w.clock.now_us);
    const uint64_t before_gap = w.machine.last();
    w.clock.now_us += 1'000'000;
    w.machine.lose(5, records, w.clock.now_us);
    w.send(records);
    const uint64_t inside = w.machine.last() - 2;
    EXPECT_EQ(w.replica->resolve({})->sequence.v, before_gap);
    const auto open_gap_error = w.replica->resolve(PointSpec::parse(std::to_string(inside)));
    ASSERT_FALSE(open_gap_error);
    EXPECT_EQ(open_gap_error.error().code(), Code::kPointInGap);
    EXPECT_NE(open_gap_error.error().what().find(std::to_string(before_gap)), std::string::npos);
    records.clear();
    w.clock.now_us += 1'000'000;
    w.machine.resync(records, w.clock.now_us);
    const uint64_t after_gap = w.machine.last();
    w.send(records);
    for (const uint64_t s : {before_gap + 1, inside, after_gap - 1}) {
        for (const Error& error :
             {w.replica->resolve(PointSpec::parse(std::to_string(s))).error(), w.read(s).error()}) {
            EXPECT_EQ(error.code(), Code::kPointInGap);
            EXPECT_NE(error.what().find(std::to_string(before_gap)), std::string::npos)
                << error.what();
            EXPECT_NE(error.what().find(std::to_string(after_gap)), std::string::npos)
                << error.what();
        }
    }
    // By time: the last sequence whose time is not later.
    const auto at = w.replica->resolve(PointSpec::parse(to_rfc3339({w.clock.now_us})));
    ASSERT_TRUE(at) << at.error().to_string();
    EXPECT_EQ(at->sequence.v, after_gap);
    EXPECT_EQ(
        w.replica->resolve(PointSpec::parse(to_rfc3339({w.clock.now_us - 2'000'000})))->sequence.v,
        before_gap);
    EXPECT_EQ(w.replica->resolve(PointSpec::parse(to_rfc3339({w.clock.now_us - 1'000'000})))
                  .error()
                  .code(),
              Code::kPointInGap);
    const auto future = w.replica->resolve(PointSpec::parse(to_rfc3339({w.clock.now_us + 1})));
    ASSERT_FALSE(future);
    EXPECT_EQ(future.error().code(), Code::kPointOutsideWindow);
    EXPECT_NE(future.error().what().find(std::to_string(after_gap)), std::string::npos);
    // An idle mark moves the window's end without a record.
    ASSERT_TRUE(
        w.replica->mark_idle(w.appliance.lease().epoch, {after_gap}, {w.clock.now_us + 500}));
    EXPECT_EQ(w.replica->resolve(PointSpec::parse(to_rfc3339({w.clock.now_us + 400})))->sequence.v,
              after_gap);
    EXPECT_EQ(w.replica->status()->current_until.us, w.clock.now_us + 500);
    EXPECT_EQ(w.replica->resolve(PointSpec::parse("no such label")).error().code(),
              Code::kPointNotFound);
    EXPECT_EQ(w.replica->resolve(PointSpec::parse(std::to_string(after_gap + 1))).error().code(),
              Code::kPointNotFound);

    // A point that left the window.
    w.clock.now_us += 60'000'000;
    records.clear();
    w.machine.run(5, records, w.clock.now_us);
    w.send(records);
    const auto report = w.replica->run_retention(short_window());
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_TRUE(report->floor_moved);
    // What is still there can be read by whoever held a lease; what is gone is named.
    for (int i = 0; i < 2; ++i) {
        ASSERT_TRUE(w.replica->run_retention(short_window(3'000'000, 0)));
    }
    ASSERT_FALSE(w.read(good));
    for (const Error& error : {w.replica->resolve(PointSpec::parse(std::to_string(good))).error(),
                               w.read(good).error(), w.replica->lease({good}, "x", 1).error()}) {
        EXPECT_EQ(error.code(), Code::kPointOutsideWindow) << error.what();
        EXPECT_NE(error.what().find(std::to_string(after_gap)), std::string::npos) << error.what();
    }
}

TEST(PointSpec, ReadsWhatPeopleType) {
    EXPECT_EQ(PointSpec::parse("latest").kind, PointSpec::Kind::kLatest);
    EXPECT_EQ(PointSpec::parse("latest-processed").kind, PointSpec::Kind::kLatestProcessed);
    EXPECT_EQ(PointSpec::parse("latest-app").kind, PointSpec::Kind::kLatestApplication);
    EXPECT_EQ(PointSpec::parse("latest-multi-vm").kind, PointSpec::Kind::kLatestShared);
    EXPECT_EQ(PointSpec::parse("latest-multi-vm-app").kind,
              PointSpec::Kind::kLatestSharedApplication);
    EXPECT_EQ(PointSpec::parse("shared:ab").label, "ab");
    EXPECT_EQ(PointSpec::parse("123").sequence.v, 123u);
    EXPECT_EQ(PointSpec::parse("2026-01-31T08:00:00Z").kind, PointSpec::Kind::kTime);
    EXPECT_EQ(PointSpec::parse("before upgrade").label, "before upgrade");
    EXPECT_EQ(PointSpec::parse("label:123").label, "123");
    EXPECT_EQ(PointSpec::parse("99999999999999999999").kind, PointSpec::Kind::kLabel);
}

}  // namespace
}  // namespace farshore
