// A vault with ten thousand items: its pages over HTTPS, a round of the tender over all of them,
// and what the heartbeat of one of ten thousand agents costs. FARSHORE_SCALE_ITEMS and
// FARSHORE_SCALE_POINTS (of each item) change the size, FARSHORE_SCALE_DATABASE names a PostgreSQL.
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <cstdlib>

#include "meta/database_ledger.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "vault/bench_vault.h"

namespace farshore {
namespace {

constexpr int64_t kStepUs = 60'000'000;

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr || *text == 0 ? otherwise : std::strtoull(text, nullptr, 10);
}

std::string database_setting() {
    const char* text = std::getenv("FARSHORE_SCALE_DATABASE");
    return text == nullptr ? "" : text;
}

struct Site {
    Site() {
        Vault& vault = bench.vault();
        const int64_t now_us = clock.now().us;
        for (uint64_t i = 0; i < items; ++i) {
            const std::string agent = agent_name(i);
            PartyRecord party;
            party.name = agent;
            must(enrol_party(vault.database(), party));
            ProtectRequest request;
            request.name = fmt::format("machine-{:05}", i);
            request.disks = {fmt::format("/disks/{}", i)};
            request.agent = agent;
            const ItemReport made = must(vault.protect(request));
            ids.push_back(made.record.id);
            RebuildStart start;
            start.geometry.push_back({0, {1}, 64ull << 30});
            start.state.floor = {100};
            start.state.floor_time = {now_us - static_cast<int64_t>(points) * kStepUs};
            start.state.stored = {points * 100};
            start.state.stored_time = {now_us};
            for (uint64_t n = 1; n <= points; ++n)
                start.points.push_back({{n * 100},
                                        PointKind::kCrash,
                                        {now_us - static_cast<int64_t>(points - n) * kStepUs},
                                        ""});
            DatabaseLedger ledger(vault.database(), made.record.id);
            must(ledger.begin_rebuild(start));
            must(ledger.finish_rebuild(start.state));
            must(heartbeat(i));
        }
        for (int i = 0; i < 3; ++i) vault.tend();
    }
    static std::string agent_name(uint64_t i) { return fmt::format("host-{:05}", i); }
    Status heartbeat(uint64_t i) {
        AgentStatus status{agent_name(i), "one", "0.1", clock.now(), {}, {}, {}};
        AgentItemStatus item;
        item.item = ids[i];
        item.state = AgentItemState::kLive;
        item.nbd_socket = "/run/tap.sock";
        item.disks = {{0, 64ull << 30, fmt::format("/disks/{}", i)}};
        item.machine_description = R"({"name":"web","cpus":1})";
        status.items.push_back(std::move(item));
        FS_ASSIGN(const std::string down,
                  bench.vault().sync_agent(status.agent, encode_status(status)));
        benchmark::DoNotOptimize(down);
        return {};
    }
    const uint64_t items = setting("FARSHORE_SCALE_ITEMS", 10'000);
    const uint64_t points = setting("FARSHORE_SCALE_POINTS", 100);
    BenchVault bench{database_setting()};
    const Clock& clock = bench.clock;
    std::vector<ItemId> ids;
};
Site& site() {
    // Kept until the program ends.
    static Site made;
    return made;
}

void page(benchmark::State& state, const std::string& target) {
    Site& s = site();
    size_t bytes = 0;
    for (auto step : state) bytes = s.bench.get(target).size();
    state.counters["bytes"] = static_cast<double>(bytes);
}

void BM_FirstPageOfItems(benchmark::State& state) { page(state, "/v1/items?limit=100"); }
void BM_PageInTheMiddle(benchmark::State& state) {
    page(state, fmt::format("/v1/items?limit=100&after=machine-{:05}", site().items / 2));
}
void BM_ItemPage(benchmark::State& state) {
    page(state, fmt::format("/v1/items/machine-{:05}", site().items / 2));
}
void BM_PointsOfAnItem(benchmark::State& state) {
    page(state, fmt::format("/v1/items/machine-{:05}/points?limit=100", site().items / 2));
}
void BM_Events(benchmark::State& state) { page(state, "/v1/events?limit=100"); }
void BM_Alarms(benchmark::State& state) { page(state, "/v1/alarms?limit=100"); }
void BM_TenderRound(benchmark::State& state) {
    Vault& vault = site().bench.vault();
    // Whose agents are silent by now is told once.
    for (int i = 0; i < 2; ++i) vault.tend();
    for (auto step : state) vault.tend();
}
void BM_Heartbeat(benchmark::State& state) {
    Site& s = site();
    uint64_t at = 0;
    for (auto step : state) must(s.heartbeat(at++ % s.items));
}

BENCHMARK(BM_FirstPageOfItems)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_PageInTheMiddle)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_ItemPage)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_PointsOfAnItem)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_Events)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_Alarms)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_Heartbeat)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(BM_TenderRound)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(3);

}  // namespace
}  // namespace farshore
