// A copy of an item in a second store: seeded, followed, thinned by itself, through deaths.
#include "replica/item_copy.h"

#include <gtest/gtest.h>

#include "replica/item_key.h"
#include "replica/replica_test_check.h"
#include "sim/seeds.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kSecond = 1'000'000, kMinute = 60 * kSecond;

// A source, and a copy whose vault dies.
struct World {
    explicit World(uint64_t seed)
        : machine(seed),
          random(seed + 1),
          from(memory, fate),
          to(copy_memory, fate),
          appliance(memory, random, test_item(), test_key()) {
        options.checkpoint_entries = 60;
        options.max_manifests = 3;
        const auto hook = [this](const char*, bool after) {
            return after ? fate.after() : fate.before();
        };
        ledger.set_hook(hook);
        copy_ledger.set_hook(hook);
        policy.window_us = 3 * kMinute;
        policy.grace_us = kMinute;
        policy.small_objects = 4;
        policy.rewrite_min_bytes = 0;
        policy.grid = *RetentionGrid::parse("2m:10m");
        copy_policy = policy;
        copy_policy.window_us = 10 * kMinute;
        copy_policy.grid = *RetentionGrid::parse("5m:2h");
        policy.followed = [this]() -> Result<std::optional<Sequence>> {
            if (!has_copy) return std::nullopt;
            FS_ASSIGN(const Sequence sequence, ItemCopy::followed(copy_ledger));
            return std::optional(sequence);
        };
        open();
    }
    void open() {
        auto opened =
            ItemReplica::open(from, ledger, clock, random, test_item(), test_key(), options);
        ASSERT_TRUE(opened) << opened.error().to_string();
        replica = std::move(*opened);
        copy.reset();
    }
    Status open_copy() {
        if (copy) return {};
        ItemCopyParts parts;
        parts.name = "second";
        parts.source = replica.get();
        parts.source_store = &from;
        parts.source_ledger = &ledger;
        parts.store = &to;
        parts.ledger = &copy_ledger;
        parts.clock = &clock;
        parts.random = &random;
        parts.item = test_item();
        parts.item_key = test_key();
        parts.replica = options;
        FS_ASSIGN(copy, ItemCopy::open(std::move(parts)));
        return {};
    }
    void write(Rng& rng) {
        Bytes records;
        const uint64_t what = rng.below(14);
        if (what == 0 && machine.last() > 20)
            machine.lose(static_cast<int>(1 + rng.below(10)), records, clock.now_us);
        else if (machine.in_gap() && what < 8)
            machine.resync(records, clock.now_us);
        else
            machine.run(static_cast<int>(1 + rng.below(12)), records, clock.now_us);
        const Status sent = appliance.send(*replica, records);
        ASSERT_TRUE(sent) << sent.error().to_string();
    }
    // Until the copy has what the source has.
    Status catch_up() {
        FS_TRY(open_copy());
        while (true) {
            FS_ASSIGN(const bool more, copy->step());
            if (!more) return {};
        }
    }
    void expect_readable(ObjectStore& store, Sequence sequence) {
        SCOPED_TRACE("sequence " + std::to_string(sequence.v));
        const auto model = machine.history().find(sequence.v);
        ASSERT_NE(model, machine.history().end()) << "it is offered and never was a point";
        auto reader = ReplicaReader::open(store, test_item(), test_key(), sequence, {});
        ASSERT_TRUE(reader) << reader.error().to_string();
        expect_equal(**reader, model->second);
    }
    void check(ItemReplica& which, ObjectStore& store, Rng& rng) {
        const auto list = which.points({});
        ASSERT_TRUE(list) << list.error().to_string();
        for (const KeptRow& row : list->kept) {
            expect_readable(store, row.sequence);
            if (testing::Test::HasFatalFailure()) return;
        }
        for (const OfferedRange& range : list->ranges)
            for (const uint64_t s :
                 {range.first.v, range.first.v + rng.below(range.last.v - range.first.v + 1),
                  range.last.v}) {
                if (!machine.history().contains(s)) continue;  // what a gap consumed
                expect_readable(store, {s});
                if (testing::Test::HasFatalFailure()) return;
            }
    }

    TestClock clock;
    Machine machine;
    TestRandom random;
    MemoryStore memory, copy_memory;
    Fate fate;
    FatefulStore from, to;
    MemoryLedger ledger, copy_ledger;
    ItemReplicaOptions options;
    RetentionPolicy policy, copy_policy;
    Appliance appliance;
    std::unique_ptr<ItemReplica> replica;
    std::unique_ptr<ItemCopy> copy;
    bool has_copy = false;
};

void begin(World& w, bool with_gap) {
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, with_gap);
    ASSERT_TRUE(w.appliance.send(*w.replica, first));
}

// Broken if a copy that is begun at any time, whatever dies when, offered a point that is not what
// the machine was, missed one of the source's newer ones, kept what it needs no more, or could not
// be read without its ledger; or if the source lost something for it.
TEST(ItemCopyTest, EveryPointOfACopyIsTheMachinesThroughDeaths) {
    uint64_t deaths = 0, errors = 0, seeded = 0, kept = 0, older = 0;
    constexpr uint64_t kSeeds = fewer_when_sanitized(16);
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        World w(seed);
        Rng rng(seed * 733);
        begin(w, rng.coin());
        if (testing::Test::HasFatalFailure()) return;
        const int begun_at = seed % 4 == 0 ? 0 : static_cast<int>(20 + rng.below(60));
        for (int round = 0; round < 160; ++round) {
            w.clock.now_us += static_cast<int64_t>(rng.below(60)) * kSecond;
            if (rng.below(10) != 0) w.write(rng);
            if (testing::Test::HasFatalFailure()) return;
            if (round == begun_at) {
                w.has_copy = true;
                if (w.ledger.state()->floor.v > 0) ++seeded;
            }
            w.fate = {};
            if (rng.coin()) {
                w.fate.at = 1 + rng.below(120);
                w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
            }
            const auto told = [&](const auto& result) {
                if (result) return;
                ++errors;
                if (!w.fate.happened) FAIL() << result.error().to_string();
            };
            try {
                if (rng.coin()) told(w.replica->maybe_checkpoint());
                if (rng.below(3) == 0) told(w.replica->run_retention(w.policy));
                if (w.has_copy && rng.below(4) != 0) {
                    const Status opened = w.open_copy();
                    told(opened);
                    for (uint64_t i = rng.below(12); opened && i > 0; --i) {
                        const auto more = w.copy->step();
                        told(more);
                        if (!more || !*more) break;
                    }
                    if (const auto own = w.copy ? w.copy->replica() : nullptr) {
                        told(own->maybe_checkpoint());
                        if (rng.below(3) == 0) told(own->run_retention(w.copy_policy));
                    }
                }
            } catch (const Died&) {
                ++deaths;
                w.fate = {};
                w.open();
            }
            w.fate = {};
            if (testing::Test::HasFatalFailure()) return;
            if (round % 40 != 39) continue;
            w.check(*w.replica, w.memory, rng);
            if (testing::Test::HasFatalFailure()) return;
            if (const auto own = w.copy ? w.copy->replica() : nullptr)
                w.check(*own, w.copy_memory, rng);
            if (testing::Test::HasFatalFailure()) return;
        }
        if (w.machine.in_gap()) {
            Bytes records;
            w.machine.resync(records, w.clock.now_us);
            ASSERT_TRUE(w.appliance.send(*w.replica, records));
        }
        const Status caught = w.catch_up();
        ASSERT_TRUE(caught) << caught.error().to_string();
        const auto own = w.copy->replica();
        EXPECT_EQ(own->status()->newest, w.replica->status()->newest);
        w.copy_policy.grace_us = w.policy.grace_us = 0;
        for (int i = 0; i < 12; ++i) {
            // What ages in one run goes in the next ones.
            if (i < 4) w.clock.now_us += 2 * kMinute;
            ASSERT_TRUE(w.replica->run_retention(w.policy));
            const auto report = own->run_retention(w.copy_policy);
            ASSERT_TRUE(report) << report.error().to_string();
            kept += report->kept;
        }
        EXPECT_LE(own->status()->oldest->v, w.replica->status()->oldest->v)
            << "it keeps longer than the source";
        if (own->status()->oldest->v < w.replica->status()->oldest->v) ++older;
        w.check(*own, w.copy_memory, rng);
        w.check(*w.replica, w.memory, rng);
        if (testing::Test::HasFatalFailure()) return;
        expect_nothing_left_over(w.copy_memory, w.copy_ledger);
        expect_nothing_left_over(w.memory, w.ledger);

        // Its store alone gives the same.
        MemoryLedger fresh;
        const Status rebuilt =
            ItemReplica::rebuild(w.copy_memory, fresh, test_item(), test_key(), w.options);
        ASSERT_TRUE(rebuilt) << rebuilt.error().to_string();
        EXPECT_EQ(fresh.list_kept()->size(), w.copy_ledger.list_kept()->size());
        EXPECT_EQ(fresh.state()->stored, w.copy_ledger.state()->stored);
        EXPECT_EQ(fresh.state()->floor, w.copy_ledger.state()->floor);
    }
    EXPECT_GT(deaths, 100 * kSeeds / 16);
    EXPECT_GT(errors, 50 * kSeeds / 16);
    EXPECT_GT(seeded, 6 * kSeeds / 16);
    EXPECT_GT(kept, 100 * kSeeds / 16);
    EXPECT_GT(older, 10 * kSeeds / 16);
}

// Broken if the source's log went on without a copy that is away: it could never catch up.
TEST(ItemCopyTest, TheSourcesFloorWaitsForACopyThatIsAway) {
    World w(5);
    begin(w, false);
    const auto go_on = [&](int rounds) {
        for (int round = 0; round < rounds; ++round) {
            w.clock.now_us += kMinute;
            Bytes records;
            w.machine.run(5, records, w.clock.now_us);
            ASSERT_TRUE(w.appliance.send(*w.replica, records));
            ASSERT_TRUE(w.replica->run_retention(w.policy));
        }
    };
    go_on(10);
    const Sequence before = w.ledger.state()->floor;
    ASSERT_GT(before.v, 0u);
    w.has_copy = true;
    go_on(10);
    EXPECT_EQ(w.ledger.state()->floor, before) << "nothing of the copy is there yet";
    ASSERT_TRUE(w.catch_up());
    go_on(1);
    EXPECT_GT(w.ledger.state()->floor, before);
    const Sequence followed = *ItemCopy::followed(w.copy_ledger);
    go_on(10);
    EXPECT_LE(w.ledger.state()->floor, followed);
    const Status caught = w.catch_up();
    ASSERT_TRUE(caught) << caught.error().to_string();
    EXPECT_EQ(w.copy_ledger.state()->stored, w.ledger.state()->stored);
    w.has_copy = false;
    go_on(2);
    EXPECT_GT(w.ledger.state()->floor, followed) << "a copy that was given up holds nothing";
}

// Broken if a copy whose ledger was lost began anew, losing its older points, or one that was left
// behind went on with a hole in its log.
TEST(ItemCopyTest, ALostLedgerIsRebuiltAndAHoleIsRefused) {
    World w(6);
    begin(w, false);
    w.has_copy = true;
    const auto go_on = [&](int rounds, bool follow) {
        for (int round = 0; round < rounds; ++round) {
            w.clock.now_us += kMinute;
            Bytes records;
            w.machine.run(30, records, w.clock.now_us);
            ASSERT_TRUE(w.appliance.send(*w.replica, records));
            ASSERT_TRUE(w.replica->run_retention(w.policy));
            if (!follow) continue;
            ASSERT_TRUE(w.catch_up());
            ASSERT_TRUE(w.copy->replica()->checkpoint());
            ASSERT_TRUE(w.copy->replica()->run_retention(w.copy_policy));
        }
    };
    go_on(30, true);
    const auto before = *w.copy->replica()->status();
    ASSERT_FALSE(w.copy_ledger.list_kept()->empty());
    w.copy.reset();
    ASSERT_TRUE(w.copy_ledger.begin_rebuild({}));  // whatever it knew
    const Status opened = w.open_copy();
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_EQ(w.copy->replica()->status()->oldest, before.oldest);
    EXPECT_EQ(w.copy->replica()->status()->newest, before.newest);
    go_on(2, true);

    w.has_copy = false;  // the source goes on without it
    go_on(20, false);
    w.has_copy = true;
    const auto stepped = w.copy->step();
    ASSERT_FALSE(stepped);
    EXPECT_EQ(stepped.error().code(), Code::kSequenceHole);
    EXPECT_EQ(w.copy->replica()->status()->oldest, before.oldest) << "what it has stays";
}

// Broken if an object that cannot be read came into the copy, one that is damaged in places stopped
// it, or a bad read did; or if a whole object of the one store could not mend the other.
TEST(ItemCopyTest, DamagedSegmentsAreNotTakenUnseenAndMendedFromTheOtherStore) {
    World w(7);
    begin(w, false);
    w.has_copy = true;
    ASSERT_TRUE(w.catch_up());
    Bytes records;
    w.machine.run(20, records, w.clock.now_us);
    const auto segment = w.appliance.build(records);
    ASSERT_TRUE(segment);
    ASSERT_TRUE(w.replica->register_segment(*segment));
    const std::string& name = segment->object_name;
    const Bytes whole = *w.memory.get(name);
    Bytes headless = whole, damaged = whole;
    headless[40] ^= 1;
    damaged[damaged.size() - 5] ^= 1;
    w.memory.replace(name, headless);
    const auto stepped = w.copy->step();
    ASSERT_FALSE(stepped);
    EXPECT_NE(stepped.error().what().find(name), std::string::npos);
    EXPECT_FALSE(w.copy_memory.get(name));

    // Once bad, then good: the line, not the store.
    w.from.on_get = [&, times = 0](const std::string& got, Bytes& bytes) mutable {
        if (got == name && times++ == 0) bytes = damaged;
    };
    w.memory.replace(name, whole);
    ASSERT_TRUE(w.catch_up());
    EXPECT_EQ(*w.copy_memory.get(name), whole);
    EXPECT_TRUE(w.copy->status().damaged.empty());
    w.from.on_get = nullptr;

    records.clear();
    w.appliance.registered(*segment);
    w.machine.run(20, records, w.clock.now_us);
    const auto next = w.appliance.build(records);
    ASSERT_TRUE(next);
    ASSERT_TRUE(w.replica->register_segment(*next));
    Bytes hurt_next = *w.memory.get(next->object_name);
    hurt_next[hurt_next.size() - 5] ^= 1;
    w.memory.replace(next->object_name, hurt_next);
    ASSERT_TRUE(w.catch_up()) << "what comes after it is worth more";
    EXPECT_EQ(w.copy->status().damaged, std::vector<std::string>{next->object_name});

    const auto fine = []() -> Status { return {}; };
    for (MemoryStore* hurt : {&w.memory, &w.copy_memory}) {
        MemoryStore& other = hurt == &w.memory ? w.copy_memory : w.memory;
        hurt->replace(name, damaged);
        auto mended = restore_segment(*hurt, other, test_item(), test_key(), name, fine);
        ASSERT_TRUE(mended) << mended.error().to_string();
        EXPECT_TRUE(*mended);
        EXPECT_EQ(*hurt->get(name), whole);
        // One that is gone, too.
        ASSERT_TRUE(hurt->remove(name));
        mended = restore_segment(*hurt, other, test_item(), test_key(), name, fine);
        ASSERT_TRUE(mended);
        EXPECT_TRUE(*mended);
        // A damaged other one mends nothing, and nothing is removed for it.
        other.replace(name, damaged);
        mended = restore_segment(*hurt, other, test_item(), test_key(), name, fine);
        ASSERT_TRUE(mended);
        EXPECT_FALSE(*mended);
        EXPECT_EQ(*hurt->get(name), whole);
        other.replace(name, whole);
        const auto fenced = restore_segment(
            *hurt, other, test_item(), test_key(), name,
            []() -> Status { return fail(Code::kFenced, "another vault has the store"); });
        EXPECT_EQ(fenced.error().code(), Code::kFenced);
        EXPECT_EQ(*hurt->get(name), whole);
    }
}

// Broken if a point below the log that lost shards, base objects or segments stayed lost although
// the copy has it, came back as something else, or a death in the middle cost another one.
TEST(ItemCopyTest, WhatPointsLostIsPutAgainFromTheCopy) {
    uint64_t restated = 0, deaths = 0, not_there = 0;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        World w(seed + 40);
        Rng rng(seed);
        w.copy_policy.window_us = 3600 * kSecond;
        w.policy.grid = *RetentionGrid::parse("2m:1h");
        w.policy.grace_us = 0;
        begin(w, false);
        w.has_copy = true;
        for (int round = 0; round < 50; ++round) {
            w.clock.now_us += 30 * kSecond;
            w.write(rng);
            ASSERT_TRUE(w.catch_up());
            if (round % 3 == 0) ASSERT_TRUE(w.replica->checkpoint());
            ASSERT_TRUE(w.replica->run_retention(w.policy));
            ASSERT_TRUE(w.copy->replica()->maybe_checkpoint());
        }
        ASSERT_GT(w.ledger.list_kept()->size(), 4u);
        const auto other = [&](Sequence sequence) {
            ReplicaReaderOptions reading;
            reading.allow_gap = true;
            return ReplicaReader::open(w.copy_memory, test_item(), test_key(), sequence, reading);
        };
        for (int round = 0; round < 12; ++round) {
            std::vector<std::string> candidates, damaged;
            const LedgerState state = *w.ledger.state();
            const auto infos = *list_all(w.memory, item_prefix(test_item()));
            for (const ObjectInfo& info : infos) {
                const auto object = parse_object_name(test_item(), info.name);
                if (parse_shard_name(test_item(), info.name) ||
                    (object &&
                     (object->kind == SegmentKind::kBase || object->number <= state.floor_segment)))
                    candidates.push_back(info.name);
            }
            for (uint64_t i = 1 + rng.below(3); i > 0; --i) {
                const std::string& name = candidates[rng.below(candidates.size())];
                if (std::ranges::find(damaged, name) != damaged.end()) continue;
                Bytes bytes = *w.memory.get(name);
                bytes[rng.below(bytes.size())] ^= 1;
                if (rng.below(4) == 0)
                    ASSERT_TRUE(w.memory.remove(name));
                else
                    w.memory.replace(name, bytes);
                damaged.push_back(name);
            }
            w.fate = {};
            if (rng.coin()) {
                w.fate.at = 1 + rng.below(60);
                w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
            }
            try {
                (void)w.replica->drop_damaged(damaged);
                (void)w.replica->restate_damaged(damaged, other);
            } catch (const Died&) {
                ++deaths;
            }
            w.fate = {};
            w.open();
            ASSERT_TRUE(w.replica->drop_damaged(damaged));
            const auto done = w.replica->restate_damaged(damaged, other);
            ASSERT_TRUE(done) << done.error().to_string();
            restated += *done;
            if (*done == 0) ++not_there;
            w.check(*w.replica, w.memory, rng);
            if (testing::Test::HasFatalFailure()) return;
            ASSERT_TRUE(w.replica->checkpoint());
        }
        for (int i = 0; i < 5; ++i) {
            const auto swept = w.replica->run_retention(w.policy);
            ASSERT_TRUE(swept) << swept.error().to_string();
        }
        expect_nothing_left_over(w.memory, w.ledger);
        w.check(*w.replica, w.memory, rng);
        if (testing::Test::HasFatalFailure()) return;
        // A point that the copy has not stays as it is, and nothing else changes.
        const auto nothing = w.replica->restate_damaged(
            {base_prefix(test_item())}, [](Sequence) -> Result<std::shared_ptr<ReplicaReader>> {
                return fail(Code::kPointOutsideWindow, "not here");
            });
        ASSERT_TRUE(nothing);
        EXPECT_EQ(*nothing, 0u);
    }
    EXPECT_GT(restated, 25u);
    EXPECT_GT(deaths, 5u);
    EXPECT_LT(not_there, 65u) << "what only later manifests had";
}

// Broken if one kept point that the source has lost kept all others from the copy.
TEST(ItemCopyTest, ALostKeptPointCostsTheCopyOnlyItself) {
    World w(11);
    Rng rng(11);
    w.policy.grid = *RetentionGrid::parse("2m:1h");
    begin(w, false);
    for (int round = 0; round < 40; ++round) {
        w.clock.now_us += 30 * kSecond;
        w.write(rng);
        ASSERT_TRUE(w.replica->run_retention(w.policy));
    }
    const auto kept = *w.ledger.list_kept();
    ASSERT_GT(kept.size(), 3u);
    Bytes bytes = *w.memory.get(kept[1].object_name);
    bytes[bytes.size() / 2] ^= 1;
    w.memory.replace(kept[1].object_name, bytes);
    w.has_copy = true;
    const Status caught = w.catch_up();
    ASSERT_TRUE(caught) << caught.error().to_string();
    EXPECT_EQ(w.copy->status().damaged, std::vector<std::string>{kept[1].object_name});
    const auto copied = *w.copy_ledger.list_kept();
    EXPECT_EQ(copied.size(), kept.size() - 1);
    w.check(*w.copy->replica(), w.copy_memory, rng);
}

// Broken if a key that was exchanged at the source opened the copy for ever, or the copy were
// without a key for a moment.
TEST(ItemCopyTest, WhatOpensTheItemFollows) {
    World w(8);
    begin(w, false);
    w.has_copy = true;
    ASSERT_TRUE(w.catch_up());
    const auto put = [&](MemoryStore& store, const std::string& name) {
        ASSERT_TRUE(store.put(name, as_bytes(name)));
    };
    put(w.memory, item_object_name(test_item()));
    put(w.memory, item_key_name(test_item(), 1, {1}));
    ASSERT_TRUE(w.copy->mirror_description());
    EXPECT_TRUE(w.copy_memory.get(item_object_name(test_item())));
    EXPECT_TRUE(w.copy_memory.get(item_key_name(test_item(), 1, {1})));

    put(w.memory, item_description_name(test_item()));
    put(w.memory, item_key_name(test_item(), 2, {1}));
    ASSERT_TRUE(w.memory.remove(item_key_name(test_item(), 1, {1})));
    ASSERT_TRUE(w.memory.remove(item_object_name(test_item())));
    bool whole = true;
    w.to.on_remove = [&](const std::string&) {
        whole = whole && w.copy_memory.get(item_key_name(test_item(), 2, {1})) &&
                w.copy_memory.get(item_description_name(test_item()));
    };
    ASSERT_TRUE(w.copy->mirror_description());
    EXPECT_TRUE(whole);
    EXPECT_FALSE(w.copy_memory.get(item_key_name(test_item(), 1, {1})));
    EXPECT_FALSE(w.copy_memory.get(item_object_name(test_item())));
    EXPECT_TRUE(w.copy_memory.get(item_key_name(test_item(), 2, {1})));
}

}  // namespace
}  // namespace farshore
