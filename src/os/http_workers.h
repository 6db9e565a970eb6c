// The threads of a server's handlers. Private to src/os.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace farshore {

// A bounded number of threads for handlers, with a bounded queue.
class HttpWorkers {
  public:
    HttpWorkers(unsigned count, size_t max_waiting) : max_waiting_(max_waiting) {
        for (unsigned i = 0; i < std::max(count, 1u); ++i)
            threads_.emplace_back([this] {
                pthread_setname_np(pthread_self(), "http-worker");
                run();
            });
    }
    ~HttpWorkers() { stop(); }
    // False: as many wait as may.
    bool post(std::function<void()> task) {
        {
            std::lock_guard lock(mutex_);
            if (stopping_) return true;
            if (tasks_.size() >= max_waiting_) return false;
            tasks_.push_back(std::move(task));
        }
        wake_.notify_one();
        return true;
    }
    // Waits for the tasks that run; the others are dropped.
    void stop() {
        std::deque<std::function<void()>> dropped;
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
            dropped.swap(tasks_);
        }
        wake_.notify_all();
        for (std::thread& thread : threads_)
            if (thread.joinable()) thread.join();
    }

  private:
    void run() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
            if (stopping_) return;
            std::function<void()> task = std::move(tasks_.front());
            tasks_.pop_front();
            lock.unlock();
            task();
            task = nullptr;
            lock.lock();
        }
    }
    const size_t max_waiting_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> tasks_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace farshore
