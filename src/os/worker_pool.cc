#include "os/worker_pool.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace farshore {
namespace {

// One run(): its jobs are handed out by a counter, so that nobody waits for a slow neighbour.
struct Batch {
    size_t size = 0;
    const std::function<void(size_t)>* job = nullptr;
    std::atomic<size_t> next{0};
    std::atomic<size_t> done{0};
    std::mutex mutex;
    std::condition_variable finished;

    void work() {
        for (size_t i = next.fetch_add(1); i < size; i = next.fetch_add(1)) {
            (*job)(i);
            if (done.fetch_add(1) + 1 == size) {
                std::lock_guard lock(mutex);
                finished.notify_all();
            }
        }
    }
};

}  // namespace

struct WorkerPool::Impl {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::shared_ptr<Batch>> batches;
    bool stopping = false;
    std::vector<std::thread> threads;

    void loop() {
        std::unique_lock lock(mutex);
        for (;;) {
            wake.wait(lock, [this] { return stopping || !batches.empty(); });
            if (stopping) return;
            std::shared_ptr<Batch> batch = batches.front();
            if (batch->next.load() >= batch->size) {
                batches.pop_front();
                continue;
            }
            lock.unlock();
            batch->work();
            lock.lock();
        }
    }
};

WorkerPool::WorkerPool(size_t workers, int nice) : impl_(std::make_unique<Impl>()) {
    for (size_t i = 0; i < workers; ++i) {
        impl_->threads.emplace_back([this, nice] {
            pthread_setname_np(pthread_self(), "worker");
            // On Linux the nice value belongs to the thread. Not being able to lower it is no
            // error.
            if (nice != 0) (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice);
            impl_->loop();
        });
    }
}

WorkerPool::~WorkerPool() {
    {
        std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
    }
    impl_->wake.notify_all();
    for (std::thread& thread : impl_->threads) thread.join();
}

void WorkerPool::run(size_t n, const std::function<void(size_t)>& job) {
    if (n == 0) return;
    if (n == 1 || impl_->threads.empty()) {
        for (size_t i = 0; i < n; ++i) job(i);
        return;
    }
    auto batch = std::make_shared<Batch>();
    batch->size = n;
    batch->job = &job;
    {
        std::lock_guard lock(impl_->mutex);
        impl_->batches.push_back(batch);
    }
    impl_->wake.notify_all();
    batch->work();
    std::unique_lock lock(batch->mutex);
    batch->finished.wait(lock, [&] { return batch->done.load() == batch->size; });
}

}  // namespace farshore
