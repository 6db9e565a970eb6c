// Listing the points of one item that has a hundred thousand: half of them POINT records of its
// window, half kept below it. At the API, over HTTPS as a client asks, and what of that the
// server's own work is.
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include "meta/database_ledger.h"
#include "meta/json_fields.h"
#include "vault/bench_vault.h"

namespace farshore {
namespace {

constexpr uint64_t kPoints = 100'000;
constexpr int64_t kStepUs = 60'000'000;

// A vault with one such item. Every thousandth point is a bookmark with a label of its own.
struct Site {
    Site() {
        ProtectRequest request;
        request.name = "web";
        request.disks = {"/disks/a"};
        const ItemReport item = must(bench.vault().protect(request));

        RebuildStart start;
        const int64_t now_us = bench.clock.now().us;
        const auto time_of = [&](uint64_t n) {
            return TimePoint{now_us - static_cast<int64_t>(kPoints - n) * kStepUs};
        };
        start.geometry.push_back({0, {1}, 64ull << 30});
        start.state.floor = {kPoints / 2 * 100};
        start.state.floor_time = time_of(kPoints / 2);
        start.state.stored = {kPoints * 100};
        start.state.stored_time = time_of(kPoints);
        for (uint64_t n = 1; n <= kPoints; ++n) {
            const bool bookmark = n % 1000 == 500;
            const PointKind kind = bookmark ? PointKind::kBookmark : PointKind::kCrash;
            const std::string label = bookmark ? fmt::format("bookmark-{}", n) : "";
            if (n * 100 >= start.state.floor.v) {
                start.points.push_back({{n * 100}, kind, time_of(n), label});
                continue;
            }
            KeptRow row;
            row.object_name =
                fmt::format("items/{}/kept/{:020}-{:020}", item.record.id.to_string(), n * 100, n);
            row.sequence = {n * 100};
            row.generation = n;
            row.time = time_of(n);
            row.recorded = true;
            row.kind = kind;
            row.label = label;
            row.disks = {{0, 64ull << 30}};
            start.kept.push_back(std::move(row));
        }
        DatabaseLedger ledger(bench.vault().database(), item.record.id);
        must(ledger.begin_rebuild(start));
        must(ledger.finish_rebuild(start.state));
    }
    Json get(const std::string& target) {
        Json json = Json::parse(bench.get(target), nullptr, false);
        if (!json.is_object()) must(fail(Code::kMalformed, target));
        return json;
    }

    BenchVault bench;
};
Site& site() {
    // Kept until the program ends.
    static Site made;
    return made;
}

// One answer, and how many points it holds.
void listed(benchmark::State& state, const std::string& target) {
    Site& s = site();
    size_t points = 0;
    for (auto _ : state) points = s.get(target)["points"].size();
    state.counters["points"] = static_cast<double>(points);
}
void BM_Points(benchmark::State& state) { listed(state, "/v1/items/web/points"); }
void BM_PointsThousand(benchmark::State& state) {
    listed(state, "/v1/items/web/points?limit=1000");
}
// Below the window: what is kept.
void BM_PointsKeptThousand(benchmark::State& state) {
    listed(state, fmt::format("/v1/items/web/points?limit=1000&before={}", kPoints / 4 * 100));
}
// One of a thousand has the kind: 100 of them are searched for in all rows.
void BM_PointsOfKind(benchmark::State& state) {
    listed(state, "/v1/items/web/points?kind=bookmark");
}
void BM_PointsOfLabel(benchmark::State& state) {
    listed(state, "/v1/items/web/points?label=bookmark-500");
}
void BM_PointByLabel(benchmark::State& state) {
    for (auto _ : state) (void)site().get("/v1/items/web/points/label:bookmark-500");
}
void BM_PointKept(benchmark::State& state) {
    for (auto _ : state) (void)site().get("/v1/items/web/points/1000");
}
// What every round of background work asks of every item, too.
void BM_Item(benchmark::State& state) {
    for (auto _ : state) (void)site().get("/v1/items/web");
}
// For comparison: the connection, TLS and the request alone.
void BM_Health(benchmark::State& state) {
    Site& s = site();
    for (auto _ : state) (void)s.get("/v1/health");
}
// All of them, a page of a thousand after the other.
void BM_PointsAllPages(benchmark::State& state) {
    Site& s = site();
    for (auto _ : state) {
        uint64_t seen = 0, before = 0;
        do {
            const Json page = s.get("/v1/items/web/points?limit=1000" +
                                    (before != 0 ? fmt::format("&before={}", before) : ""));
            seen += page["points"].size();
            before = page.value("next", uint64_t{0});
        } while (before != 0);
        if (seen != kPoints) return state.SkipWithError(fmt::format("{} points", seen).c_str());
    }
    state.counters["points"] = static_cast<double>(kPoints);
}
BENCHMARK(BM_Health)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Item)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Points)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointsThousand)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointsKeptThousand)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointsOfKind)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointsOfLabel)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointByLabel)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointKept)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PointsAllPages)->UseRealTime()->Unit(benchmark::kMillisecond)->Iterations(1);

}  // namespace
}  // namespace farshore
