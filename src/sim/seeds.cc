#include "sim/seeds.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

namespace farshore {
namespace {

thread_local uint64_t running_seed = 0;

// abort() and faults raise their signal in the thread that caused them: its seed is the one.
extern "C" void print_running_seed(int signal_number) {
    char text[64] = "farshore: this was seed ";
    const size_t prefix = std::strlen(text);
    *std::to_chars(text + prefix, text + sizeof text - 2, running_seed).ptr = '\n';
    if (running_seed != 0) std::fputs(text, stderr);
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
}

std::optional<uint64_t> number_from_environment(const char* name) {
    const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
    if (text == nullptr) return std::nullopt;
    uint64_t value = 0;
    const auto parsed = std::from_chars(text, text + std::strlen(text), value);
    if (parsed.ec != std::errc() || *parsed.ptr != '\0') return std::nullopt;
    return value;
}

std::vector<uint64_t> regression_seeds(const std::string& text, const std::string& scenario) {
    std::vector<uint64_t> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line.substr(0, line.find('#')));
        std::string name;
        uint64_t seed = 0;
        if (words >> name >> seed && name == scenario) out.push_back(seed);
    }
    return out;
}

// Calls `run` for every seed, on `threads` threads, until it says stop. Seeds are handed out in
// order.
void spread(const std::vector<uint64_t>& seeds, unsigned threads,
            const std::function<bool(uint64_t seed)>& run) {
    std::atomic<size_t> next{0};
    std::atomic<bool> stop{false};
    const auto work = [&] {
        while (!stop) {
            const size_t at = next++;
            if (at >= seeds.size()) break;
            running_seed = seeds[at];
            if (!run(seeds[at])) stop = true;
        }
        running_seed = 0;
    };
    if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
    threads = static_cast<unsigned>(std::min<size_t>(threads, seeds.size()));
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
}

}  // namespace

std::string SeedReport::text() const {
    std::string out;
    for (const SeedFailure& failure : failures)
        out += fmt::format("{} seed {} (repeat with FARSHORE_SEED={}): {}\n", scenario,
                           failure.seed, failure.seed, failure.what);
    return out;
}

SeedReport run_seeds(const std::string& scenario, const SeedRange& range,
                     const std::function<std::string(uint64_t seed)>& run) {
    std::vector<uint64_t> seeds;
    if (const auto only = number_from_environment("FARSHORE_SEED")) {
        seeds.push_back(*only);
    } else {
        seeds = regression_seeds(range.regressions, scenario);
        const uint64_t count = number_from_environment("FARSHORE_SEEDS").value_or(range.count);
        const uint64_t first = number_from_environment("FARSHORE_FIRST_SEED").value_or(range.first);
        for (uint64_t i = 0; i < count; ++i) seeds.push_back(first + i);
    }
    std::signal(SIGABRT, print_running_seed);
    std::signal(SIGSEGV, print_running_seed);
    SeedReport report;
    report.scenario = scenario;
    std::mutex mutex;
    spread(seeds, range.threads, [&](uint64_t seed) {
        std::string what = run(seed);
        const std::lock_guard lock(mutex);
        ++report.runs;
        if (!what.empty()) report.failures.push_back({seed, std::move(what)});
        return report.failures.size() < range.stop_after;
    });
    std::ranges::sort(report.failures, {}, &SeedFailure::seed);
    return report;
}

uint64_t first_failing_seed(uint64_t first, uint64_t count,
                            const std::function<std::string(uint64_t seed)>& run) {
    std::vector<uint64_t> seeds;
    for (uint64_t i = 0; i < count; ++i) seeds.push_back(first + i);
    // Handed out in order, and what was handed out is finished: so the least is the first.
    std::atomic<uint64_t> least{0};
    std::mutex mutex;
    spread(seeds, 0, [&](uint64_t seed) {
        if (run(seed).empty()) return true;
        const std::lock_guard lock(mutex);
        if (least == 0 || seed < least) least = seed;
        return false;
    });
    return least;
}

}  // namespace farshore
