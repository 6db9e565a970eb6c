// Scrubbing: every kind of object damaged in every way is named, with exactly the points that it
// costs; where a scrub is survives whoever runs it.
#include <gtest/gtest.h>

#include <set>

#include "codec/envelope.h"
#include "replica/hurt_points.h"
#include "replica/item_object.h"
#include "replica/replica_test_check.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kMinute = 60'000'000;

// An item whose store has everything: checkpoints, base objects, kept points, a gap, a log.
struct Stored {
    explicit Stored(uint64_t seed) : machine(seed), random(seed + 100) {
        replica = *ItemReplica::open(memory, ledger, clock, random, test_item(), test_key());
        Appliance appliance(memory, random, test_item(), test_key());
        EXPECT_TRUE(appliance.acquire(*replica));
        Bytes records;
        machine.begin(records, clock.now_us, true);
        machine.resync(records, clock.now_us);
        EXPECT_TRUE(appliance.send(*replica, records));
        RetentionPolicy policy;
        policy.window_us = 6 * kMinute;
        policy.grid = *RetentionGrid::parse("2m:20m, 5m:1h");
        policy.small_objects = 3;
        policy.rewrite_min_bytes = 0;
        policy.grace_us = 0;
        for (int round = 0; round < 20; ++round) {
            clock.now_us += kMinute;
            records.clear();
            if (round == 16) {
                machine.lose(5, records, clock.now_us);
                machine.resync(records, clock.now_us);
            }
            machine.run(8, records, clock.now_us);
            EXPECT_TRUE(appliance.send(*replica, records));
            if (round % 5 == 3) {
                EXPECT_TRUE(replica->checkpoint());
            }
            for (int i = 0; (round == 11 || round == 13) && i < 3; ++i) {
                EXPECT_TRUE(replica->run_retention(policy));
            }
        }
        ItemObject object;
        object.item = test_item();
        object.name = "web";
        object.key_id = "0011223344556677";
        object.wrapped_key = Bytes(kWrappedKeyBytes, 1);
        const auto description = encode_item_object(object);
        EXPECT_TRUE(description);
        EXPECT_TRUE(memory.put(item_object_name(test_item()), *description));
        PointQuery none;
        none.limit = 0;
        offered = *replica->points(none);
        offered.kept = *replica->kept();
        EXPECT_FALSE(offered.kept.empty());
        EXPECT_GE(offered.ranges.size(), 2u);
    }
    // By really opening all of it.
    bool reads(Sequence sequence) {
        const auto& model = machine.history().at(sequence.v);
        auto reader = ReplicaReader::open(memory, test_item(), test_key(), sequence);
        if (!reader) return false;
        for (DiskIndex d = 0; d < model.size(); ++d) {
            auto disk = (*reader)->disk(d);
            if (!disk && disk.error().code() == Code::kNotFound && all_zero(model[d].bytes))
                continue;
            if (!disk) return false;
            // All shards of it, those that hold nothing too.
            if (!(*disk)->extents(0, model[d].size)) return false;
            Bytes bytes(model[d].bytes.size());
            if (!(*disk)->read(model[d].region, bytes)) return false;
            EXPECT_TRUE(bytes == model[d].bytes) << "wrong data at " << sequence.v;
        }
        return true;
    }
    std::set<uint64_t> all_points() {
        std::set<uint64_t> out;
        for (const KeptRow& row : offered.kept) out.insert(row.sequence.v);
        for (const OfferedRange& range : offered.ranges)
            for (uint64_t s = range.first.v; s <= range.last.v; ++s)
                if (machine.history().contains(s)) out.insert(s);
        return out;
    }
    std::set<uint64_t> unreadable() {
        std::set<uint64_t> out;
        for (const uint64_t s : all_points())
            if (!reads({s})) out.insert(s);
        return out;
    }
    std::vector<ObjectDamage> scrub() {
        std::vector<ObjectDamage> found;
        ItemScrub scrub(memory, test_item(), key);
        while (true) {
            auto step = scrub.step();
            EXPECT_TRUE(step) << step.error().to_string();
            if (!step || step->done) break;
            if (step->damage) found.push_back(*step->damage);
        }
        auto missing = find_missing(memory, ledger, test_item(), key);
        EXPECT_TRUE(missing) << missing.error().to_string();
        for (ObjectDamage& damage : *missing) {
            // One that was cut is found both ways.
            if (std::ranges::find(found, damage.object_name, &ObjectDamage::object_name) ==
                found.end())
                found.push_back(std::move(damage));
        }
        return found;
    }
    std::set<uint64_t> named(const std::vector<ObjectDamage>& found, bool& newest) {
        const auto hurt = hurt_points(memory, test_item(), key, offered, found);
        EXPECT_TRUE(hurt) << hurt.error().to_string();
        std::set<uint64_t> out;
        if (!hurt) return out;
        EXPECT_EQ(hurt->size(), found.size());
        for (const HurtPoints& of : *hurt) {
            newest = newest || of.newest;
            for (const KeptRow& row : of.kept) out.insert(row.sequence.v);
            for (const OfferedRange& range : of.ranges) {
                EXPECT_LE(range.first_time, range.last_time);
                for (uint64_t s = range.first.v; s <= range.last.v; ++s)
                    if (machine.history().contains(s)) out.insert(s);
            }
        }
        return out;
    }
    void check(const std::string& what) {
        SCOPED_TRACE(what);
        const auto found = scrub();
        const auto truth = unreadable();
        bool newest = false;
        EXPECT_EQ(named(found, newest), truth);
        EXPECT_EQ(newest, truth.contains(offered.ranges.back().last.v));
        hurt_sets.insert(truth);
    }

    TestClock clock;
    Machine machine;
    TestRandom random;
    MemoryStore memory;
    MemoryLedger ledger;
    Secret key = test_key();
    std::unique_ptr<ItemReplica> replica;
    PointList offered;
    std::set<std::set<uint64_t>> hurt_sets;
};

// Broken if damage anywhere in the store is not found, or the points that it costs are not exactly
// those that cannot be opened and read any more.
TEST(Scrub, NamesEveryDamagedObjectAndExactlyThePointsThatItCosts) {
    Stored s(1);
    ASSERT_TRUE(s.scrub().empty());
    ASSERT_TRUE(s.unreadable().empty());
    Rng rng(7);
    std::map<std::string, int> kinds;
    size_t missed = 0;
    const auto objects = *list_all(s.memory, item_prefix(test_item()));
    for (const ObjectInfo& info : objects) {
        const std::string rest = info.name.substr(item_prefix(test_item()).size());
        ++kinds[rest.substr(0, rest.find('/'))];
        const Bytes good = *s.memory.get(info.name);
        for (int damage = 0; damage < 4; ++damage) {
            Bytes bad = good;
            if (damage == 0) {
                bad.resize(rng.below(bad.size()));
            } else if (damage == 1) {
                bad[rng.below(std::min<size_t>(bad.size(), 200))] ^= 1 << rng.below(8);
            } else {
                // Mostly payload.
                bad[bad.size() - 1 - rng.below(bad.size() * 3 / 4)] ^= 1 << rng.below(8);
            }
            if (damage == 3)
                ASSERT_TRUE(s.memory.remove(info.name));
            else
                s.memory.replace(info.name, bad);
            const auto found = s.scrub();
            // Of what is removed only what something in force names is missed.
            if (damage != 3) EXPECT_EQ(found.size(), 1u) << info.name << " damage " << damage;
            if (damage == 3) missed += found.size();
            if (!found.empty()) {
                EXPECT_EQ(found[0].object_name, info.name);
                EXPECT_FALSE(found[0].what.empty());
            }
            s.check(info.name + " damage " + std::to_string(damage));
            if (damage == 3)
                ASSERT_TRUE(s.memory.put(info.name, good));
            else
                s.memory.replace(info.name, good);
            if (testing::Test::HasFailure()) return;
        }
    }
    for (const char* kind : {"base", "item", "kept", "log", "manifest", "shard"})
        EXPECT_GT(kinds[kind], 0) << "there was no " << kind;
    EXPECT_GT(missed, objects.size() / 2);
    EXPECT_GT(s.hurt_sets.size(), 15u) << "all damage cost the same points: nothing was shown";
}

// Broken if two damages together cost points that neither is said to cost.
TEST(Scrub, OfSeveralDamagedObjectsAllPointsAreNamed) {
    Stored s(2);
    Rng rng(9);
    const auto objects = *list_all(s.memory, item_prefix(test_item()));
    for (int round = 0; round < 30; ++round) {
        std::map<std::string, Bytes> saved;
        for (uint64_t i = 0; i < 2 + rng.below(3); ++i) {
            const ObjectInfo& info = objects[rng.below(objects.size())];
            if (saved.contains(info.name)) continue;
            saved[info.name] = *s.memory.get(info.name);
            Bytes bad = saved[info.name];
            bad[bad.size() - 1 - rng.below(bad.size())] ^= 1;
            if (rng.below(3) == 0)
                ASSERT_TRUE(s.memory.remove(info.name));
            else
                s.memory.replace(info.name, bad);
        }
        s.check("round " + std::to_string(round));
        for (const auto& [name, bytes] : saved) {
            (void)s.memory.remove(name);
            ASSERT_TRUE(s.memory.put(name, bytes));
        }
        if (testing::Test::HasFailure()) return;
    }
}

// Broken if a scrub that was killed begins anew, leaves objects out, or counts them twice.
TEST(Scrub, GoesOnWhereItWas) {
    Stored s(3);
    Fate fate;
    FatefulStore store(s.memory, fate);
    std::vector<std::string> seen;
    ScrubProgress kept;
    uint64_t deaths = 0;
    for (bool done = false; !done;) {
        ItemScrub scrub(store, test_item(), s.key, kept);
        fate = {};
        fate.at = 4;
        fate.kind = deaths % 2 == 0 ? Fate::Kind::kDieBefore : Fate::Kind::kFailBefore;
        try {
            while (true) {
                auto step = scrub.step();
                if (!step) {
                    EXPECT_EQ(step.error().code(), Code::kUnavailable);
                    const auto again = scrub.step();
                    ASSERT_TRUE(again);
                    if (again->done) break;
                    seen.push_back(again->object_name);
                    kept = scrub.progress();
                    fate = {};
                    fate.at = 3;
                    continue;
                }
                if ((done = step->done)) break;
                seen.push_back(step->object_name);
                kept = scrub.progress();
            }
        } catch (const Died&) {
            ++deaths;
        }
    }
    const auto objects = *list_all(s.memory, item_prefix(test_item()));
    std::vector<std::string> names;
    uint64_t bytes = 0;
    for (const ObjectInfo& info : objects) {
        names.push_back(info.name);
        bytes += info.size_bytes;
    }
    EXPECT_EQ(seen, names);
    EXPECT_EQ(kept.objects, names.size());
    EXPECT_EQ(kept.bytes, bytes);
    EXPECT_GT(deaths, 3u);
}

// Broken if the wrong key, or a store that is away, is taken for damage.
TEST(Scrub, WhatIsNotDamageIsAnError) {
    Stored s(4);
    const Secret other(Bytes(32, 9));
    ItemScrub scrub(s.memory, test_item(), other);
    std::optional<Error> error;
    while (!error) {
        const auto step = scrub.step();
        if (!step) error = step.error();
        ASSERT_TRUE(!step || !step->done);
        ASSERT_TRUE(!step || !step->damage);
    }
    EXPECT_EQ(error->code(), Code::kWrongKey);
}

// Broken if a damaged manifest, or a shard of its own, keeps costing points, checkpoints or
// retention though the log is there; or if one that nothing replaces is let go of.
TEST(Scrub, ManifestsThatOthersServeForAreMadeAgain) {
    Stored s(5);
    const auto rows = *s.ledger.list_manifests();
    const Sequence floor = s.ledger.state()->floor;
    size_t mended = 0;
    for (const ManifestRow& row : rows) {
        SCOPED_TRACE(row.object_name);
        Stored damaged(5);
        Bytes bad = *damaged.memory.get(row.object_name);
        bad[bad.size() / 2] ^= 4;
        damaged.memory.replace(row.object_name, bad);
        const auto dropped = damaged.replica->drop_damaged({row.object_name});
        ASSERT_TRUE(dropped) << dropped.error().to_string();
        EXPECT_EQ(*dropped, row.sequence > floor ? 1u : 0u);
        damaged.check("afterwards");
        if (*dropped == 0) continue;
        ++mended;
        EXPECT_TRUE(damaged.unreadable().empty());
        EXPECT_TRUE(damaged.scrub().empty());
        EXPECT_TRUE(damaged.replica->checkpoint());
        RetentionPolicy policy;
        policy.grid = *RetentionGrid::parse("2m:20m, 5m:1h");
        EXPECT_TRUE(damaged.replica->run_retention(policy)) << "a sweep that misses a manifest";
        EXPECT_TRUE(damaged.unreadable().empty());
    }
    EXPECT_GT(mended, 0u);
    // Shards that the floor's manifest has not.
    size_t own = 0;
    const auto shards = *list_all(s.memory, shard_prefix(test_item()));
    for (const ObjectInfo& info : shards) {
        Stored damaged(5);
        Bytes bad = *damaged.memory.get(info.name);
        bad[bad.size() / 2] ^= 4;
        damaged.memory.replace(info.name, bad);
        const bool hurt = !damaged.unreadable().empty();
        const auto dropped = damaged.replica->drop_damaged({info.name});
        ASSERT_TRUE(dropped) << dropped.error().to_string();
        damaged.check(info.name);
        if (*dropped == 0 || !hurt) continue;
        ++own;
        for (const OfferedRange& range : damaged.offered.ranges)
            EXPECT_TRUE(damaged.reads(range.last)) << info.name;
    }
    EXPECT_GT(own, 0u);
}

}  // namespace
}  // namespace farshore
