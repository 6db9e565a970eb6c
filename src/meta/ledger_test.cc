#include <fmt/core.h>
#include <gtest/gtest.h>

#include <random>

#include "meta/database.h"
#include "meta/database_ledger.h"
#include "meta/test_database.h"
#include "replica/memory_ledger.h"

namespace farshore {
namespace {

std::string describe(const Error& error) { return std::string(code_name(error.code())); }

template <typename T, typename Show>
std::string show(const Result<T>& result, Show show_value) {
    return result ? show_value(*result) : describe(result.error());
}

// By value: a range-for over *f() would walk a vector that has ended.
template <typename T>
T take(Result<T> result) {
    return std::move(*result);
}

// Everything a ledger shows, as text that two ledgers can be compared by.
std::string dump(ReplicaLedger& ledger) {
    std::string out;
    const LedgerState s = *ledger.state();
    out +=
        fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}\n", s.epoch.v, s.appliance,
                    s.last_segment.v, to_hex(s.last_header), s.last_segment_epoch.v, s.stored.v,
                    s.stored_time.us, s.idle.v, s.idle_time.us, s.floor.v, s.floor_segment.v,
                    s.floor_time.us, s.generation, s.written_bytes, s.stored_bytes, s.rebuilding);
    for (const auto& r : take(ledger.list_segments({0}, 1000)))
        out += fmt::format("seg {} {} {} {} {} {} {} {} {} {} {}\n", r.number.v, r.epoch.v,
                           r.object_name, r.object_bytes, to_hex(r.header_hash), r.first.v,
                           r.last.v, r.first_time.us, r.last_time.us, r.written_bytes, r.entries);
    for (bool newest : {false, true}) {
        PointQuery query;
        query.newest_first = newest;
        for (const auto& r : take(ledger.list_points(query)))
            out +=
                fmt::format("point {} {} {} {}\n", r.sequence.v, int(r.kind), r.time.us, r.label);
    }
    for (const auto& r : take(ledger.list_gaps()))
        out += fmt::format("gap {} {} {} {} {}\n", r.last_good.v, r.gap.v, r.resynced.v,
                           r.last_good_time.us, r.resynced_time.us);
    for (const auto& r : take(ledger.list_geometry()))
        out += fmt::format("geo {} {} {}\n", r.disk, r.since.v, r.size_bytes);
    for (const auto& r : take(ledger.list_changes()))
        out += fmt::format("change {} {} {} {} {} {} {} {}\n", r.grain_s, r.start_us, r.disk,
                           r.records, r.written_bytes, r.zeroed_bytes, r.dense_bytes, r.regions);
    for (const auto& r : take(ledger.list_manifests()))
        out += fmt::format("man {} {} {} {} {}\n", r.object_name, r.sequence.v, r.segment.v,
                           r.generation, r.time.us);
    for (const auto& r : take(ledger.list_kept())) {
        out += fmt::format("kept {} {} {} {} {} {} {}", r.object_name, r.sequence.v, r.generation,
                           r.time.us, r.recorded, int(r.kind), r.label);
        for (const DiskSize& disk : r.disks)
            out += fmt::format(" {}:{}:{}", disk.disk, disk.size_bytes, disk.joining);
        out += "\n";
    }
    for (const auto& r : take(ledger.list_dead("", 1000)))
        out += fmt::format("dead {} {} {} {}\n", r.object_name, r.object_bytes, r.since.us, r.tick);
    for (const auto& r : take(ledger.list_leases()))
        out += fmt::format("lease {} {} {} {} {}\n", r.id, r.tick, r.sequence.v, r.holder,
                           r.expires.us);
    return out;
}

std::string outcome(const Status& status) { return status ? "ok" : describe(status.error()); }

// Kept points by a query with some of the conditions.
std::string kept_of(ReplicaLedger& ledger, uint64_t bits) {
    PointQuery query;
    if (bits & 1) query.kind = PointKind(1 + (bits >> 8) % 3);
    if (bits & 2) query.label = "l" + std::to_string((bits >> 16) % 3);
    if (bits & 4) query.from = {(bits >> 24) % 40};
    if (bits & 8) query.to = {(bits >> 32) % 80};
    if (bits & 16) query.limit = 1 + (bits >> 40) % 3;
    query.newest_first = (bits & 32) != 0;
    std::string out;
    for (const KeptRow& row : take(ledger.find_kept(query))) out += " " + row.object_name;
    return out;
}

// One random step; the same bits give the same step, so two ledgers can be led along one path.
std::string step(ReplicaLedger& ledger, uint64_t bits) {
    std::mt19937_64 random(bits);
    const auto below = [&](uint64_t bound) { return random() % bound; };
    const LedgerState state = *ledger.state();
    switch (below(14)) {
        case 0:
            return outcome(
                ledger.commit_epoch({state.epoch.v + below(3)}, "a" + std::to_string(below(3))));
        case 1:
        case 2:
        case 3:
        case 4: {
            RegistrationCommit commit;
            commit.segment.number = {state.last_segment.v + (below(8) == 0 ? 2 : 1)};
            commit.segment.epoch = {below(8) == 0 ? state.epoch.v + 1 : state.epoch.v};
            commit.segment.object_name = "seg" + std::to_string(commit.segment.number.v);
            commit.segment.object_bytes = below(1000);
            commit.segment.header_hash[3] = uint8_t(below(256));
            commit.segment.first = {state.stored.v + 1};
            commit.segment.last = {state.stored.v + 1 + below(20)};
            commit.segment.first_time = {int64_t(state.stored.v * 10)};
            commit.segment.last_time = {int64_t(state.stored.v * 10) + int64_t(below(50))};
            commit.segment.written_bytes = below(100);
            commit.segment.entries = uint32_t(below(100));
            if (below(2))
                commit.points.push_back({commit.segment.first, PointKind(1 + below(3)),
                                         commit.segment.first_time,
                                         "l" + std::to_string(below(3))});
            if (below(3) == 0)
                commit.gaps.push_back({{state.stored.v},
                                       commit.segment.first,
                                       {below(2) ? commit.segment.last.v : 0},
                                       {1},
                                       {2}});
            if (below(3) == 0)
                commit.geometry.push_back({DiskIndex(below(2)), commit.segment.first, below(1000)});
            if (below(2) == 0)
                commit.changes.push_back({kMinuteS, int64_t(below(200)) * 60'000'000,
                                          DiskIndex(below(2)), below(9), below(9), below(9),
                                          below(9), below(9)});
            return outcome(ledger.commit_registration(commit));
        }
        case 5:
            return outcome(ledger.commit_idle({state.epoch.v - (below(8) == 0 ? 1 : 0)},
                                              state.stored, {int64_t(below(100000))}));
        case 6:
            return show(ledger.reserve_generation(), [](uint64_t v) { return std::to_string(v); });
        case 7: {
            ManifestCommit commit;
            commit.added.push_back({"m" + std::to_string(below(20)),
                                    {below(100)},
                                    {below(10)},
                                    below(9),
                                    {int64_t(below(99))}});
            commit.dropped.push_back("m" + std::to_string(below(20)));
            commit.added_bytes = below(50);
            for (uint64_t n = below(3); n > 0; --n)
                commit.kept.push_back({"k" + std::to_string(below(9)),
                                       {below(state.stored.v + 1)},
                                       below(9),
                                       {int64_t(below(99))},
                                       below(2) == 0,
                                       PointKind(1 + below(3)),
                                       "l" + std::to_string(below(3)),
                                       {{0, below(1000), below(2) == 0}, {7, 5, false}}});
            if (below(2)) commit.kept_dropped.push_back("k" + std::to_string(below(9)));
            if (below(2)) {
                commit.floor = Sequence{below(state.stored.v + 1)};
                commit.floor_segment = {below(state.last_segment.v + 1)};
                commit.floor_time = {int64_t(below(1000))};
            }
            return outcome(ledger.commit_manifest(commit, {int64_t(below(100))}));
        }
        case 8:
            return outcome(
                ledger.commit_dead({{"d" + std::to_string(below(9)), below(99), {5}, 0},
                                    {"d" + std::to_string(below(9)), below(99), {6}, 0}}));
        case 9:
            return outcome(ledger.commit_removed({"d" + std::to_string(below(9))}, below(2) == 0));
        case 10:
            return show(ledger.commit_lease({0,
                                             0,
                                             {below(state.stored.v + 1)},
                                             "me",
                                             {below(9) == 0 ? INT64_MAX : int64_t(below(99))}}),
                        [](const LeaseRow& r) { return std::to_string(r.id); });
        case 11: {
            const auto leases = *ledger.list_leases();
            const uint64_t id = leases.empty() ? 77 : leases[below(leases.size())].id;
            return below(2) ? outcome(ledger.release_lease(id))
                            : outcome(ledger.renew_lease(id, {int64_t(below(200))}));
        }
        case 12: {
            const auto number = [](const SegmentRow& r) { return std::to_string(r.number.v); };
            const Sequence sequence{below(state.stored.v + 3)};
            const TimePoint time{int64_t(below(state.stored.v * 10 + 60))};
            PointQuery query;
            query.from = {below(50)};
            query.kind = PointKind(1 + below(3));
            query.label = "l" + std::to_string(below(3));
            query.limit = 1 + below(3);
            return show(ledger.segment_with(sequence), number) + " " +
                   show(ledger.segment_before(time), number) + " " +
                   show(ledger.segment_ended(sequence, time), number) + " " +
                   std::to_string(ledger.list_points(query)->size()) + kept_of(ledger, bits);
        }
        default:
            if (below(20) != 0) return "";
            if (auto begun = ledger.begin_rebuild(
                    {state,
                     {{{3}, PointKind::kCrash, {4}, "x"}},
                     {{1, {2}, 5}},
                     {{"k1", {2}, 3, {4}, true, PointKind::kApplication, "y", {}}}});
                !begun)
                return outcome(begun);
            return below(2) ? outcome(ledger.finish_rebuild(state)) : "begun";
    }
}

// Broken if the database kept something else than the ledger's contract, whose model is the ledger
// in memory. Two items share the database: broken, too, if one showed in the other.
TEST(DatabaseLedger, DoesWhatTheLedgerInMemoryDoes) {
    const uint64_t seed = std::random_device{}();
    std::mt19937_64 random(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    TestDatabase test;
    ItemId items[2] = {*ItemId::parse(std::string(32, '1')), *ItemId::parse(std::string(32, '2'))};
    std::unique_ptr<DatabaseLedger> sqlite[2];
    const auto reopen = [&] {
        test.reopen();
        for (int k = 0; k < 2; ++k)
            sqlite[k] = std::make_unique<DatabaseLedger>(*test.database, items[k]);
    };
    reopen();
    MemoryLedger memory[2];
    for (int i = 0; i < 600; ++i) {
        const int which = int(random() % 2);
        const uint64_t bits = random();
        ASSERT_EQ(step(*sqlite[which], bits), step(memory[which], bits)) << "step " << i;
        if (i % 10 == 0) {
            reopen();
            for (int k = 0; k < 2; ++k)
                ASSERT_EQ(dump(*sqlite[k]), dump(memory[k])) << "after step " << i;
        }
    }
}

// Broken if a full disk left half of a registration behind, or blocked for good.
TEST(DatabaseLedger, FullDiskLeavesNothingHalfDone) {
    SKIP_ON_POSTGRES();
    TestDatabase test;
    const ItemId item = *ItemId::parse(std::string(32, '1'));
    DatabaseLedger ledger(*test.database, item);
    ASSERT_TRUE(ledger.commit_epoch({1}, "a"));
    ASSERT_TRUE(test.database->set_max_pages(1));  // at the present size
    RegistrationCommit commit;
    commit.segment.epoch = {1};
    commit.segment.object_name = "x";
    Status status;
    uint64_t done = 0;
    do {
        commit.segment.number = {done + 1};
        commit.segment.first = commit.segment.last = {done + 1};
        commit.points.clear();
        for (uint64_t i = 0; i < 50; ++i)
            commit.points.push_back(
                {{done * 50 + i}, PointKind::kCrash, {1}, std::string(200, 'l')});
        status = ledger.commit_registration(commit);
        if (status) ++done;
    } while (status && done < 1000);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), Code::kNoSpace) << status.error().to_string();
    EXPECT_EQ(ledger.state()->last_segment.v, done);
    EXPECT_EQ(ledger.list_points({.limit = 1'000'000})->size(), done * 50);
    // What nobody can write, everybody can see: a write of nothing does not hide it.
    ASSERT_TRUE(test.database->trouble());
    EXPECT_EQ(test.database->trouble()->code(), Code::kNoSpace);
    EXPECT_TRUE(ledger.commit_idle({1}, {1}, {-1}));
    EXPECT_TRUE(test.database->trouble());
    ASSERT_TRUE(test.database->set_max_pages(0));
    EXPECT_TRUE(ledger.commit_registration(commit));
    EXPECT_FALSE(test.database->trouble());
    EXPECT_EQ(ledger.state()->last_segment.v, done + 1);
}

}  // namespace
}  // namespace farshore
