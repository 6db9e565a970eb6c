// Runs a scenario over many seeds, on all cores: one world a thread, nothing shared.
//
//   const SeedReport report = run_seeds("whole-system", {.count = 2000}, [](uint64_t seed) {
//       return scenario(seed);  // what was broken, in words; empty when nothing
//   });
//   EXPECT_TRUE(report.ok()) << report.text();
//
// FARSHORE_SEED=N in the environment runs that one seed alone; FARSHORE_SEEDS=N that many,
// FARSHORE_FIRST_SEED=N from N on. Seeds of the scenario in a regression file (lines "scenario
// seed", '#' begins a comment) run first. A check or signal that ends the program prints the seed
// that ran.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace farshore {

// GCC says it by macros, Clang as features.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif !defined(__has_feature)
inline constexpr bool kSanitized = false;
#elif __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// How many of so many seeds to run when a sanitizer makes each several times slower.
constexpr uint64_t fewer_when_sanitized(uint64_t count) {
    return kSanitized ? (count + 7) / 8 : count;
}

struct SeedRange {
    uint64_t first = 1;
    uint64_t count = 100;
    unsigned threads = 0;     // 0: one a core
    uint64_t stop_after = 5;  // failures
    std::string regressions;  // text of a regression file; may be empty
};

struct SeedFailure {
    uint64_t seed;
    std::string what;
};

struct SeedReport {
    std::string scenario;
    uint64_t runs = 0;
    std::vector<SeedFailure> failures;  // by seed

    bool ok() const { return failures.empty(); }
    // Each failing seed with what was broken, and how to repeat it.
    std::string text() const;
};

// `run` is called from several threads at once; what it shares it must lock.
SeedReport run_seeds(const std::string& scenario, const SeedRange& range,
                     const std::function<std::string(uint64_t seed)>& run);

// The smallest seed of the range for which `run` reports something, or 0: how soon a planted bug is
// found. Ignores the environment.
uint64_t first_failing_seed(uint64_t first, uint64_t count,
                            const std::function<std::string(uint64_t seed)>& run);

}  // namespace farshore
