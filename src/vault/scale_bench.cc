// A vault with ten thousand items of as many agents behind a thousand appliances: its pages over
// HTTPS, a round of the tender over all of them, what a heartbeat of each costs, and how long a
// hundred people wait for their pages while all of that goes on. FARSHORE_SCALE_ITEMS,
// FARSHORE_SCALE_POINTS (of each item), FARSHORE_SCALE_EVENTS, FARSHORE_SCALE_APPLIANCES and
// FARSHORE_SCALE_SECONDS (of the crowd) change the size, FARSHORE_SCALE_DATABASE names a
// PostgreSQL. For FARSHORE_SCALE_WARM_SECONDS the crowd is there and its waits do not count:
// behind the filling, of which agents said nothing, alarms about all of them are raised and
// cleared.
#include <benchmark/benchmark.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>

#include "meta/database_ledger.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "meta/sql.h"
#include "os/load_meter.h"
#include "os/waiting.h"
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
            DatabaseLedger ledger(vault.database(), made.record.id);
            must(ledger.begin_rebuild(start));
            must(ledger.finish_rebuild(start.state));
            must(heartbeat(i));
            must(vault.acquire_log(ids.back(), appliance_name(i % appliances)));
        }
        for (uint64_t i = 0; i < appliances; ++i) must(appliance_heartbeat(i));
        // As appliances would have registered them. No statement takes long: a database may say
        // how long one may.
        for (const ItemId& id : ids)
            rows(
                "INSERT INTO ledger_points (item_id, sequence, kind, time_us, label) SELECT "
                "ledgers.item_id, i * 100, :k, :t - (:m - CAST(i AS BIGINT)) * 60000000, '' FROM "
                "ledgers, n WHERE ledgers.item_id = :i",
                points, PointKind::kCrash, now_us, points, id);
        constexpr uint64_t kEventsAtOnce = 10'000;
        for (uint64_t done = 0; done < events; done += kEventsAtOnce)
            rows(
                "INSERT INTO events (time_us, severity, code, item_id, item_name, cause, remedy) "
                "SELECT (:d + CAST(i AS BIGINT)) * 1000000, CASE i % 100 WHEN 0 THEN 'critical' "
                "ELSE 'information' END, 'item-state-changed', items.id, items.name, "
                "'catching-up -> protected', '' FROM n JOIN items ON items.name = 'machine-' || "
                "substr(CAST(100000 + i % :m AS TEXT), 2, 5)",
                std::min(kEventsAtOnce, events - done), done, items);
        for (int i = 0; i < 3; ++i) vault.tend();
        // Agents know by now which appliances there are.
        appliances_id =
            must(decode_instructions(must(vault.sync_agent(agent_name(0), words_of(0)))))
                .appliances_id;
        words.assign(items, {});
    }
    // Runs `statement` with n(i), which is 1 to `count`.
    template <typename... Args>
    void rows(const char* statement, uint64_t count, const Args&... args) {
        must(in_transaction(bench.vault().database(), "rows", [&](SqlSession& sql) -> Status {
            execute(sql,
                    std::string("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                                "WHERE i < :n) ") +
                        statement,
                    count, args...);
            return {};
        }));
    }
    // What an appliance says each second: all of its items have sent what they had.
    Status appliance_heartbeat(uint64_t i) {
        ApplianceStatus status;
        status.address = fmt::format("10.0.{}.{}:7443", i / 250, i % 250);
        status.version = "0.1";
        for (uint64_t at = i; at < items; at += appliances) {
            UploadStatus upload;
            upload.item = ids[at];
            status.uploads.push_back(upload);
        }
        FS_ASSIGN(const ApplianceOrders orders,
                  bench.vault().sync_appliance(appliance_name(i), status));
        benchmark::DoNotOptimize(orders.items.size());
        return {};
    }
    static std::string appliance_name(uint64_t i) { return fmt::format("appliance-{:04}", i); }
    static std::string agent_name(uint64_t i) { return fmt::format("host-{:05}", i); }
    // What an agent says; made before it is measured, as it is made elsewhere.
    std::string words_of(uint64_t i) const {
        AgentStatus status{agent_name(i), "one", "0.1", clock.now(), {}, {}, {}};
        AgentItemStatus item;
        item.item = ids[i];
        item.state = AgentItemState::kLive;
        item.nbd_socket = "/run/tap.sock";
        item.disks = {{0, 64ull << 30, fmt::format("/disks/{}", i)}};
        item.machine_description = R"({"name":"web","cpus":1})";
        status.appliances_id = appliances_id;
        status.items.push_back(std::move(item));
        return encode_status(status);
    }
    void make_words(uint64_t i) {
        if (words[i].empty()) words[i] = words_of(i);
    }
    Status heartbeat(uint64_t i) {
        make_words(i);
        FS_ASSIGN(const std::string down, bench.vault().sync_agent(agent_name(i), words[i]));
        benchmark::DoNotOptimize(down);
        return {};
    }
    const uint64_t items = setting("FARSHORE_SCALE_ITEMS", 10'000);
    const uint64_t points = setting("FARSHORE_SCALE_POINTS", 100);
    const uint64_t events = setting("FARSHORE_SCALE_EVENTS", 10'000);
    const uint64_t appliances = std::min(items, setting("FARSHORE_SCALE_APPLIANCES", 1000));
    BenchVault bench{database_setting()};
    const Clock& clock = bench.clock;
    std::vector<ItemId> ids;
    std::string appliances_id;
    std::vector<std::string> words = std::vector<std::string>(items);
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

// The pages that people look at.
std::vector<std::string> pages() {
    const Site& s = site();
    return {"/v1/items?limit=100",
            fmt::format("/v1/items?limit=100&after=machine-{:05}", s.items / 2),
            "/v1/items?limit=100&prefix=machine-09",
            "/v1/items?limit=100&state=protected",
            "/v1/items?limit=100&health=critical",
            "/v1/items?limit=100&appliance=appliance-0007",
            fmt::format("/v1/items/machine-{:05}", s.items / 2),
            fmt::format("/v1/items/machine-{:05}/points?limit=100", s.items / 2),
            "/v1/events?limit=100",
            "/v1/events?limit=100&severity=critical",
            fmt::format("/v1/events?limit=100&item=machine-{:05}", s.items / 2),
            "/v1/appliances?limit=100",
            "/v1/jobs?limit=100",
            "/v1/alarms?limit=100"};
}

void BM_ScalePage(benchmark::State& state) {
    const std::string target = pages()[static_cast<size_t>(state.range(0))];
    state.SetLabel(target);
    page(state, target);
}
void BM_ScaleTenderRound(benchmark::State& state) {
    Vault& vault = site().bench.vault();
    // Whose agents are silent by now is told once.
    for (int i = 0; i < 2; ++i) vault.tend();
    for (auto step : state) vault.tend();
}
void BM_ScaleHeartbeat(benchmark::State& state) {
    Site& s = site();
    for (uint64_t i = 0; i < s.items; ++i) s.make_words(i);
    uint64_t at = 0;
    for (auto step : state) must(s.heartbeat(at++ % s.items));
}
void BM_ScaleApplianceHeartbeat(benchmark::State& state) {
    Site& s = site();
    uint64_t at = 0;
    for (auto step : state) must(s.appliance_heartbeat(at++ % s.appliances));
}

// A part of the waits, each in ms; sorts them.
double wait_of(std::vector<double>& waits, double part) {
    if (waits.empty()) return 0;
    std::ranges::sort(waits);
    return waits[std::min(waits.size() - 1, static_cast<size_t>(part * waits.size()))];
}

// Of this process, clients included.
double resident_mib() { return static_cast<double>(LoadMeter().look().process_bytes) / (1 << 20); }

// Or until `over`. Sleeping: a hundred people who looked at the clock each millisecond took a
// quarter of both cores.
void sleep_until(int64_t due_us, const std::atomic<bool>& over) {
    const RealClock clock;
    while (!over) {
        const int64_t left_us = due_us - clock.steady_us();
        if (left_us <= 0) return;
        pause_ms(static_cast<int>(std::clamp<int64_t>(left_us / 1000, 1, 100)));
    }
}

// Calls `each(n)` `rate` times a second on a thread of its own until `over`.
std::thread steadily(double rate, const std::atomic<bool>& over,
                     const std::function<void(uint64_t)>& each) {
    return std::thread([=, &over] {
        const int64_t begun_us = RealClock().steady_us();
        for (uint64_t n = 0; !over; ++n) {
            const auto due_us =
                begun_us + static_cast<int64_t>(static_cast<double>(n) / rate * 1e6);
            sleep_until(due_us, over);
            each(n);
        }
    });
}

// Answers to pages up to the times of farshore_api_request_seconds, in its order, and all.
std::vector<double> answers_within(BenchVault& bench) {
    std::vector<double> answers;
    const std::string text = bench.get("/metrics");
    constexpr std::string_view kBucket = "farshore_api_request_seconds_bucket{kind=\"read\",le=\"";
    for (size_t at = text.find(kBucket); at != std::string::npos; at = text.find(kBucket, at + 1))
        answers.push_back(std::atof(text.c_str() + text.find("} ", at) + 2));
    return answers;
}

// A hundred people, each of whom asks for a page a second over a connection of his own, while every
// agent speaks each 10 s, every appliance each second, and the tender goes round.
void BM_ScaleCrowd(benchmark::State& state) {
    constexpr uint64_t kPeople = 100;
    Site& s = site();
    const std::vector<std::string> targets = pages();
    const auto seconds = setting("FARSHORE_SCALE_SECONDS", 30);
    const auto warm_seconds = setting("FARSHORE_SCALE_WARM_SECONDS", 0);
    for (auto step : state) {
        const int64_t counts_us =
            s.clock.steady_us() + static_cast<int64_t>(warm_seconds) * 1'000'000;
        state.counters["memory_mib_before"] = resident_mib();
        std::atomic<bool> over = false;
        std::atomic<uint64_t> heartbeats = 0;
        std::atomic<int64_t> longest_round_us = 0;
        std::vector<std::thread> threads;
        threads.push_back(steadily(static_cast<double>(s.items) / 10, over, [&](uint64_t n) {
            must(s.heartbeat(n % s.items));
            heartbeats = n + 1;
        }));
        threads.push_back(steadily(static_cast<double>(s.appliances), over, [&](uint64_t n) {
            must(s.appliance_heartbeat(n % s.appliances));
        }));
        threads.push_back(std::thread([&] {
            // As the vault's own does: four times as long as a round took, ten seconds at most.
            while (!over) {
                const int64_t begun_us = s.clock.steady_us();
                s.bench.vault().tend();
                const int64_t took_us = s.clock.steady_us() - begun_us;
                if (begun_us >= counts_us)
                    longest_round_us = std::max<int64_t>(longest_round_us, took_us);
                const int64_t until_us =
                    begun_us + took_us + std::clamp<int64_t>(4 * took_us, 200'000, 10'000'000);
                sleep_until(until_us, over);
            }
        }));
        std::mutex mutex;
        std::vector<std::vector<double>> waits(targets.size());
        for (uint64_t person = 0; person < kPeople; ++person)
            threads.push_back(std::thread([&, person] {
                const std::unique_ptr<HttpClient> http = s.bench.client();
                int64_t due_us = s.clock.steady_us() + static_cast<int64_t>(person) * 10'000;
                for (uint64_t n = 0; !over; ++n, due_us += 1'000'000) {
                    sleep_until(due_us, over);
                    const size_t which = (person + n) % targets.size();
                    benchmark::DoNotOptimize(s.bench.get(*http, targets[which]).size());
                    // Since it was due: one that is late makes the next wait.
                    const auto wait = static_cast<double>(s.clock.steady_us() - due_us) / 1e3;
                    // The first have all the handshakes in them.
                    const std::lock_guard hold(mutex);
                    if (n >= 2 && due_us >= counts_us) waits[which].push_back(wait);
                }
            }));
        pause_ms(static_cast<int>(warm_seconds * 1000));
        const std::vector<double> before = answers_within(s.bench);
        pause_ms(static_cast<int>(seconds * 1000));
        over = true;
        for (std::thread& thread : threads) thread.join();
        std::vector<double> all;
        for (size_t i = 0; i < targets.size(); ++i) {
            all.insert(all.end(), waits[i].begin(), waits[i].end());
            state.counters[fmt::format("p99_ms_{}", i)] = wait_of(waits[i], 0.99);
        }
        state.counters["p50_ms"] = wait_of(all, 0.5);
        state.counters["p99_ms"] = wait_of(all, 0.99);
        state.counters["most_ms"] = wait_of(all, 1);
        state.counters["heartbeats_per_s"] =
            static_cast<double>(heartbeats) / static_cast<double>(warm_seconds + seconds);
        state.counters["longest_round_ms"] = static_cast<double>(longest_round_us) / 1e3;
        state.counters["answers"] = static_cast<double>(all.size());
        state.counters["memory_mib"] = resident_mib();
        const std::vector<double> within = answers_within(s.bench);
        constexpr std::array kUpToMs = {10, 25, 50, 100, 250};
        constexpr size_t kFirst = 3;  // of the histogram's that is 10 ms
        for (size_t i = 0; i < kUpToMs.size(); ++i)
            state.counters[fmt::format("server_percent_in_{}_ms", kUpToMs[i])] =
                100 * (within.at(kFirst + i) - before.at(kFirst + i)) /
                (within.back() - before.back());
    }
}

BENCHMARK(BM_ScalePage)->DenseRange(0, 13)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_ScaleHeartbeat)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_ScaleApplianceHeartbeat)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_ScaleTenderRound)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(3);
BENCHMARK(BM_ScaleCrowd)->Unit(benchmark::kSecond)->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace farshore
