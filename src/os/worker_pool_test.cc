#include "os/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace farshore {
namespace {

// Broken if a chunk of a segment were sealed twice or never.
TEST(WorkerPool, RunsEachJobOnceForEveryCaller) {
    WorkerPool pool(2, 5);
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; ++c)
        callers.emplace_back([&] {
            for (size_t n : {0u, 1u, 2u, 257u}) {
                std::vector<std::atomic<int>> hits(n);
                pool.run(n, [&](size_t i) { ++hits[i]; });
                for (auto& hit : hits) EXPECT_EQ(hit.load(), 1);
            }
        });
    for (std::thread& caller : callers) caller.join();
}

TEST(WorkerPool, WorksWithoutWorkers) {
    WorkerPool pool(0);
    size_t sum = 0;
    pool.run(10, [&](size_t i) { sum += i; });
    EXPECT_EQ(sum, 45u);
}

}  // namespace
}  // namespace farshore
