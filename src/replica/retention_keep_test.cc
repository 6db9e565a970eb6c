// Points that stay below the window: by the grid, and because somebody reads them.
#include <gtest/gtest.h>

#include "replica/replica_test_check.h"
#include "sim/seeds.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kSecond = 1'000'000, kMinute = 60 * kSecond;

// A vault that can die at any operation, a source, and a clock that goes in minutes.
struct World {
    explicit World(uint64_t seed)
        : machine(seed),
          random(seed + 1),
          store(memory, fate),
          appliance(memory, random, test_item(), test_key()) {
        options.checkpoint_entries = 60;
        options.max_manifests = 3;
        ledger.set_hook(
            [this](const char*, bool after) { return after ? fate.after() : fate.before(); });
        open();
        policy.window_us = 3 * kMinute;
        policy.grace_us = kMinute;
        policy.small_objects = 4;
        policy.rewrite_min_bytes = 0;
        policy.grid = *RetentionGrid::parse("2m:20m, 10m:2h, 1h:6h");
    }
    void open() {
        auto opened =
            ItemReplica::open(store, ledger, clock, random, test_item(), test_key(), options);
        ASSERT_TRUE(opened) << opened.error().to_string();
        replica = std::move(*opened);
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
        if (machine.history().contains(machine.last())) ends[machine.last()] = clock.now_us;
    }
    void expect_readable(Sequence sequence) {
        SCOPED_TRACE("sequence " + std::to_string(sequence.v));
        const auto model = machine.history().find(sequence.v);
        ASSERT_NE(model, machine.history().end()) << "it is offered and never was a point";
        auto reader = ReplicaReader::open(memory, test_item(), test_key(), sequence, {});
        ASSERT_TRUE(reader) << reader.error().to_string();
        EXPECT_EQ((*reader)->sequence(), sequence);
        expect_equal(**reader, model->second);
    }
    // All kept points, a few of the window.
    void check(Rng& rng) {
        const auto list = replica->points({});
        ASSERT_TRUE(list) << list.error().to_string();
        const LedgerState state = *ledger.state();
        for (const KeptRow& row : list->kept) {
            ASSERT_LT(row.sequence, state.floor);
            expect_readable(row.sequence);
            if (testing::Test::HasFatalFailure()) return;
            const auto found =
                replica->resolve({.kind = PointSpec::Kind::kSequence, .sequence = row.sequence});
            ASSERT_TRUE(found) << found.error().to_string();
            EXPECT_EQ(found->time, row.time);
            const auto label = machine.labels.find(row.sequence.v);
            EXPECT_EQ(row.recorded, label != machine.labels.end());
            if (row.recorded) EXPECT_EQ(row.label, label->second);
        }
        for (const OfferedRange& range : list->ranges) {
            for (const uint64_t s :
                 {range.first.v, range.first.v + rng.below(range.last.v - range.first.v + 1),
                  range.last.v}) {
                if (!machine.history().contains(s)) continue;  // what a gap consumed
                expect_readable({s});
                if (testing::Test::HasFatalFailure()) return;
            }
        }
    }
    // Each slot of the grid that had a segment's end outside of gaps, and is old enough, has one.
    void check_slots() {
        const auto kept = *ledger.list_kept();
        const LedgerState state = *ledger.state();
        int64_t from_us = 0;
        for (const GridStep& step : policy.grid.steps()) {
            std::set<int64_t> there, wanted;
            for (const KeptRow& row : kept) there.insert(row.time.us / step.every_us);
            for (const auto& [sequence, time_us] : ends) {
                if (sequence >= state.floor.v) there.insert(time_us / step.every_us);
                const int64_t slot = time_us / step.every_us;
                // All of the slot is of this step's ages.
                if (clock.now_us - slot * step.every_us <= step.until_us &&
                    clock.now_us - (slot + 1) * step.every_us > from_us &&
                    machine.history().contains(sequence) && sequence < state.floor.v)
                    wanted.insert(slot);
            }
            for (const int64_t slot : wanted)
                EXPECT_TRUE(there.contains(slot))
                    << "nothing is kept of a slot of " << step.every_us / kMinute << " min";
            from_us = step.until_us;
        }
        uint64_t most = policy.grid.steps().size() * 2;
        most += policy.grid.slots(0, policy.grid.steps().back().until_us);
        EXPECT_LE(kept.size(), most + leases);
        if (!kept.empty() && leases == 0) {
            EXPECT_GE(kept.front().time.us,
                      clock.now_us - policy.grid.steps().back().until_us - 10 * kMinute);
        }
    }
    void check_nothing_is_left() {
        expect_nothing_left_over(memory, ledger);
        uint64_t bytes = 0;
        const auto infos = *list_all(memory, "");
        for (const ObjectInfo& info : infos) bytes += info.size_bytes;
        EXPECT_EQ(replica->status()->stored_bytes, bytes);
    }

    TestClock clock;
    Machine machine;
    TestRandom random;
    MemoryStore memory;
    Fate fate;
    FatefulStore store;
    MemoryLedger ledger;
    ItemReplicaOptions options;
    RetentionPolicy policy;
    Appliance appliance;
    std::unique_ptr<ItemReplica> replica;
    std::map<uint64_t, int64_t> ends;  // segment ends that were points, and their times
    uint64_t leases = 0;
};

// Broken if a point of the grid were lost, changed, or offered and wrong - whatever dies when; or
// if what no point needs stayed.
TEST(RetentionKeep, TheGridsPointsStayThroughDeaths) {
    uint64_t deaths = 0, kept = 0, rewritten = 0, thinned = 0;
    constexpr uint64_t kSeeds = fewer_when_sanitized(12);
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        World w(seed);
        Rng rng(seed * 131);
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        Bytes first;
        w.machine.begin(first, w.clock.now_us, rng.coin());
        ASSERT_TRUE(w.appliance.send(*w.replica, first));
        for (int round = 0; round < 160; ++round) {
            w.clock.now_us +=
                static_cast<int64_t>(rng.below(rng.below(20) == 0 ? 1200 : 90)) * kSecond;
            if (rng.below(10) != 0) w.write(rng);
            if (testing::Test::HasFatalFailure()) return;
            w.fate = {};
            if (rng.coin()) {
                w.fate.at = 1 + rng.below(150);
                w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
            }
            try {
                if (w.replica->maybe_checkpoint() && rng.below(3) == 0) {
                    const auto report = w.replica->run_retention(w.policy);
                    if (report) {
                        rewritten += report->rewritten_objects;
                        thinned += report->thinned;
                    } else if (!w.fate.happened) {
                        FAIL() << report.error().to_string();
                    }
                }
            } catch (const Died&) {
                ++deaths;
                w.fate = {};
                w.open();
                if (deaths % 4 == 0) w.check(rng);
            }
            w.fate = {};
            if (round % 40 == 39) {
                w.check(rng);
                w.check_slots();
            }
            if (testing::Test::HasFatalFailure()) return;
        }
        for (int i = 0; i < 5; ++i) {
            w.clock.now_us += 2 * kMinute;
            const auto report = w.replica->run_retention(w.policy);
            ASSERT_TRUE(report) << report.error().to_string();
            kept += report->kept;
        }
        w.policy.grace_us = 0;  // what ages now goes now
        for (int i = 0; i < 6; ++i) ASSERT_TRUE(w.replica->run_retention(w.policy));
        w.check(rng);
        w.check_slots();
        w.check_nothing_is_left();
        if (testing::Test::HasFatalFailure()) return;

        // The ledger is lost: the store alone gives the same.
        MemoryLedger fresh;
        const Status rebuilt =
            ItemReplica::rebuild(w.memory, fresh, test_item(), test_key(), w.options);
        ASSERT_TRUE(rebuilt) << rebuilt.error().to_string();
        const auto before = *w.ledger.list_kept(), after = *fresh.list_kept();
        ASSERT_EQ(after.size(), before.size());
        for (size_t i = 0; i < after.size(); ++i) {
            EXPECT_EQ(after[i].object_name, before[i].object_name);
            EXPECT_EQ(after[i].time, before[i].time);
            EXPECT_EQ(after[i].label, before[i].label);
            EXPECT_EQ(after[i].disks, before[i].disks);
        }
        EXPECT_EQ(fresh.state()->generation, w.ledger.state()->generation);
    }
    EXPECT_GT(deaths, 5 * kSeeds);
    EXPECT_GT(kept, 25 * kSeeds);
    EXPECT_GT(rewritten, 25 * kSeeds);
    EXPECT_GT(thinned, 100 * kSeeds / 12);
}

// Broken if a leased point went with its window, held the window back, or stayed when it was let
// go.
TEST(RetentionKeep, ALeasedPointStaysAndTheWindowMovesOn) {
    World w(3);
    w.policy.grid = {};
    Rng rng(4);
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, false);
    ASSERT_TRUE(w.appliance.send(*w.replica, first));
    std::vector<LeaseRow> leases;
    for (int round = 0; round < 70; ++round) {
        w.clock.now_us += 30 * kSecond;
        Bytes records;
        w.machine.run(8, records, w.clock.now_us);
        ASSERT_TRUE(w.appliance.send(*w.replica, records));
        if (round < 60 && round % 10 == 5) {
            // Any sequence: in the middle of a segment, too.
            const auto lease = w.replica->lease({w.machine.last() - rng.below(8)}, "test",
                                                round < 30 ? INT64_MAX : 3600 * kSecond);
            ASSERT_TRUE(lease);
            leases.push_back(*lease);
        }
        ASSERT_TRUE(w.replica->run_retention(w.policy));
    }
    const LedgerState state = *w.ledger.state();
    EXPECT_GT(state.floor, leases.back().sequence) << "the window moved on";
    ASSERT_EQ(w.ledger.list_kept()->size(), leases.size());
    for (const LeaseRow& lease : leases) w.expect_readable(lease.sequence);
    // A second one on a point that is kept for the first.
    const auto again = w.replica->lease(leases.front().sequence, "again", 10 * kSecond);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(w.replica->lease({leases.front().sequence.v + 1}, "no", kSecond).error().code(),
              Code::kPointOutsideWindow);
    for (const LeaseRow& lease : leases) ASSERT_TRUE(w.replica->release(lease.id));
    ASSERT_TRUE(w.replica->run_retention(w.policy));
    ASSERT_EQ(w.ledger.list_kept()->size(), 1u) << "the second lease's";
    w.expect_readable(leases.front().sequence);
    for (int i = 0; i < 6; ++i) {
        w.clock.now_us += 2 * kMinute;
        ASSERT_TRUE(w.replica->run_retention(w.policy));
    }
    EXPECT_TRUE(w.ledger.list_kept()->empty());
    w.check_nothing_is_left();
}

// Broken if a time, a label or a sequence below the window meant another point than the kept one.
TEST(RetentionKeep, KeptPointsAreFoundByTimeAndLabel) {
    World w(9);
    w.policy.grid = *RetentionGrid::parse("2m:10h");
    ASSERT_TRUE(w.appliance.acquire(*w.replica));
    Bytes first;
    w.machine.begin(first, w.clock.now_us, false);
    ASSERT_TRUE(w.appliance.send(*w.replica, first));
    for (int round = 0; round < 60; ++round) {
        w.clock.now_us += 30 * kSecond;
        Bytes records;
        w.machine.run(8, records, w.clock.now_us);
        ASSERT_TRUE(w.appliance.send(*w.replica, records));
        ASSERT_TRUE(w.replica->run_retention(w.policy));
    }
    const auto kept = *w.ledger.list_kept();
    ASSERT_GT(kept.size(), 8u);
    EXPECT_EQ(w.replica->status()->oldest, kept.front().sequence);
    bool labels = false;
    for (size_t i = 0; i + 1 < kept.size(); ++i) {
        const auto at =
            w.replica->resolve({.kind = PointSpec::Kind::kTime, .time = {kept[i + 1].time.us - 1}});
        ASSERT_TRUE(at) << at.error().to_string();
        EXPECT_EQ(at->sequence, kept[i].sequence);
        if (!kept[i].recorded) continue;
        labels = true;
        const auto named = w.replica->resolve(PointSpec::parse("label:" + kept[i].label));
        ASSERT_TRUE(named) << named.error().to_string();
        EXPECT_EQ(named->sequence, kept[i].sequence);
    }
    EXPECT_TRUE(labels);
    const auto before =
        w.replica->resolve({.kind = PointSpec::Kind::kTime, .time = {kept.front().time.us - 1}});
    EXPECT_EQ(before.error().code(), Code::kPointOutsideWindow);
    EXPECT_NE(before.error().what().find("kept"), std::string::npos);
}

// Broken if a hold ended with its window, with a vault that died anywhere in placing or releasing
// it, or with a lost ledger; or could not be released.
TEST(RetentionKeep, AHoldLastsUntilItIsReleased) {
    uint64_t deaths = 0, survived = 0;
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        World w(seed);
        w.policy.grid = {};
        w.policy.grace_us = 0;
        Rng rng(seed);
        ASSERT_TRUE(w.appliance.acquire(*w.replica));
        Bytes first;
        w.machine.begin(first, w.clock.now_us, false);
        ASSERT_TRUE(w.appliance.send(*w.replica, first));
        const auto go_on = [&](int rounds) {
            for (int round = 0; round < rounds; ++round) {
                w.clock.now_us += kMinute;
                Bytes records;
                w.machine.run(5, records, w.clock.now_us);
                ASSERT_TRUE(w.appliance.send(*w.replica, records));
                ASSERT_TRUE(w.replica->run_retention(w.policy));
            }
        };
        go_on(3);
        const Sequence held{w.machine.last() - 2};
        const auto at = w.replica->resolve({.kind = PointSpec::Kind::kSequence, .sequence = held});
        ASSERT_TRUE(at);
        EXPECT_EQ(w.replica->hold(*at, "").error().code(), Code::kInvalidArgument);
        w.fate.at = 1 + rng.below(8);
        w.fate.operations = 0;
        w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
        bool placed = false;
        try {
            placed = bool(w.replica->hold(*at, "the auditors ask"));
        } catch (const Died&) {
            ++deaths;
        }
        w.fate = {};
        w.open();
        go_on(12);
        const auto holds = *w.replica->holds();
        // Nothing else stays for a hold.
        EXPECT_LT(list_all(w.memory, log_prefix(test_item()))->size(), 14u);
        if (placed) ASSERT_FALSE(holds.empty());
        if (!holds.empty()) {
            ++survived;
            EXPECT_EQ(holds.front().reason, "the auditors ask");
            EXPECT_GT(w.ledger.state()->floor, held);
            w.expect_readable(held);
            MemoryLedger fresh;
            ASSERT_TRUE(ItemReplica::rebuild(w.memory, fresh, test_item(), test_key(), w.options));
            EXPECT_EQ(fresh.list_leases()->size(), holds.size());
            EXPECT_EQ(fresh.list_kept()->size(), 1u);
        }
        for (const Hold& hold : holds) {
            w.fate.at = 1 + rng.below(8);
            w.fate.operations = 0;
            w.fate.kind = static_cast<Fate::Kind>(rng.below(4));
            try {
                (void)w.replica->release_hold(hold.id);
            } catch (const Died&) {
                ++deaths;
            }
            w.fate = {};
            w.open();
            const Status again = w.replica->release_hold(hold.id);
            EXPECT_TRUE(again || again.error().code() == Code::kNotFound);
        }
        go_on(8);
        for (int i = 0; i < 5; ++i) ASSERT_TRUE(w.replica->run_retention(w.policy));
        EXPECT_TRUE(w.ledger.list_kept()->empty());
        w.check_nothing_is_left();
        if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(deaths, 5u);
    EXPECT_GT(survived, 10u);
}

}  // namespace
}  // namespace farshore
