// A few threads that share the jobs of one call: compression of a segment's chunks, hashing.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace farshore {

// Any thread may call run(); calls of several threads share the workers. Ended by the destructor,
// after every run() returned.
class WorkerPool {
  public:
    // `workers` threads beside the callers; 0 runs everything in the caller. With `nice`, the
    // workers run at a lower priority than the guest's own path.
    explicit WorkerPool(size_t workers, int nice = 0);
    ~WorkerPool();
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    // Calls job(0) … job(n-1), each once, some at the same time, and returns when all are done. The
    // caller's thread works too. `job` must not throw.
    void run(size_t n, const std::function<void(size_t)>& job);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
