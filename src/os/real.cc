#include "os/real.h"

#include <openssl/rand.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace farshore {
namespace {

int64_t read_clock_us(clockid_t id) {
    timespec time{};
    FS_CHECK(clock_gettime(id, &time) == 0);
    return static_cast<int64_t>(time.tv_sec) * 1'000'000 + time.tv_nsec / 1'000;
}

}  // namespace

TimePoint RealClock::now() const { return {read_clock_us(CLOCK_REALTIME)}; }
int64_t RealClock::steady_us() const { return read_clock_us(CLOCK_MONOTONIC); }

void RealRandom::fill(MutableByteView out) {
    constexpr size_t kMostAtOnce = 1u << 30;  // RAND_bytes takes an int
    while (!out.empty()) {
        const size_t n = std::min(out.size(), kMostAtOnce);
        FS_CHECK(RAND_bytes(out.data(), static_cast<int>(n)) == 1);
        out = out.subspan(n);
    }
}

struct ThreadExecutor::Impl {
    using Steady = std::chrono::steady_clock;

    std::mutex mutex;
    std::condition_variable wake;
    std::deque<Task> tasks;
    // Ordered by time, then by id, so timers of one instant run in the order they were set.
    std::map<std::pair<Steady::time_point, TimerId>, Task> timers;
    std::unordered_map<TimerId, Steady::time_point> timer_times;
    TimerId next_timer = 1;
    bool stopping = false;
    std::mutex stop_mutex;  // two stops at once: both return after the end
    std::thread thread;
    std::thread::id thread_id;

    void run() {
        std::unique_lock lock(mutex);
        while (!stopping) {
            // A due timer is queued behind the tasks posted before it fell due.
            const auto now = timers.empty() ? Steady::time_point{} : Steady::now();
            if (!timers.empty() && timers.begin()->first.first <= now) {
                // Taken one at a time: its task may cancel the next one, which must then not run.
                if (tasks.empty() || timer_turn) {
                    timer_turn = false;
                    auto node = timers.extract(timers.begin());
                    timer_times.erase(node.key().second);
                    run_unlocked(lock, std::move(node.mapped()));
                    continue;
                }
                timer_turn = true;  // alternate: neither starves the other
            }
            if (!tasks.empty()) {
                Task task = std::move(tasks.front());
                tasks.pop_front();
                run_unlocked(lock, std::move(task));
            } else if (timers.empty()) {
                wake.wait(lock);
            } else {
                wake.wait_until(lock, timers.begin()->first.first);
            }
        }
    }

    // The task is destroyed before the lock is taken again: its captures may post from destructors.
    static void run_unlocked(std::unique_lock<std::mutex>& lock, Task task) {
        lock.unlock();
        task();
        task = nullptr;
        lock.lock();
    }

    bool timer_turn = false;
};

ThreadExecutor::ThreadExecutor(const std::string& name, int nice)
    : impl_(std::make_unique<Impl>()) {
    impl_->thread = std::thread([impl = impl_.get(), name = name.substr(0, 15), nice] {
        pthread_setname_np(pthread_self(), name.c_str());
        // On Linux the nice value belongs to the thread.
        if (nice != 0) (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice);
        impl->run();
    });
    impl_->thread_id = impl_->thread.get_id();
}

ThreadExecutor::~ThreadExecutor() { stop(); }

void ThreadExecutor::stop() {
    FS_CHECK(!on_own_thread());
    std::lock_guard stop_lock(impl_->stop_mutex);
    std::deque<Task> tasks;
    decltype(impl_->timers) timers;
    {
        std::lock_guard lock(impl_->mutex);
        impl_->stopping = true;
        tasks.swap(impl_->tasks);
        timers.swap(impl_->timers);
        impl_->timer_times.clear();
    }
    impl_->wake.notify_all();
    if (impl_->thread.joinable()) impl_->thread.join();
    // `tasks` and `timers` are destroyed here, without the lock and with nothing else running.
}

bool ThreadExecutor::on_own_thread() const {
    return std::this_thread::get_id() == impl_->thread_id;
}

void ThreadExecutor::post(Task task) {
    {
        std::lock_guard lock(impl_->mutex);
        if (impl_->stopping) return;  // `task` dies with the caller's frame, after the lock
        impl_->tasks.push_back(std::move(task));
    }
    impl_->wake.notify_one();
}

Executor::TimerId ThreadExecutor::post_after_us(int64_t delay_us, Task task) {
    constexpr int64_t kLongestUs =
        int64_t{100} * 365 * 86'400 * 1'000'000;  // keeps the sum in range
    const auto due = Impl::Steady::now() +
                     std::chrono::microseconds(std::clamp<int64_t>(delay_us, 0, kLongestUs));
    TimerId id = 0;
    {
        std::lock_guard lock(impl_->mutex);
        id = impl_->next_timer++;
        if (impl_->stopping) return id;
        impl_->timers.emplace(std::pair(due, id), std::move(task));
        impl_->timer_times.emplace(id, due);
    }
    impl_->wake.notify_one();
    return id;
}

void ThreadExecutor::cancel(TimerId timer) {
    Task doomed;
    {
        std::lock_guard lock(impl_->mutex);
        const auto found = impl_->timer_times.find(timer);
        if (found == impl_->timer_times.end()) return;
        auto node = impl_->timers.extract(std::pair(found->second, timer));
        doomed = std::move(node.mapped());
        impl_->timer_times.erase(found);
    }
}

namespace {

// Shared by run_sync and its task. The waiter is woken when the task has run or was destroyed.
struct SyncCall {
    std::mutex mutex;
    std::condition_variable changed;
    bool ended = false;
    bool ran = false;
};

struct SyncGuard {
    explicit SyncGuard(std::shared_ptr<SyncCall> shared) : call(std::move(shared)) {}
    SyncGuard(const SyncGuard&) = delete;
    SyncGuard& operator=(const SyncGuard&) = delete;
    std::shared_ptr<SyncCall> call;
    bool ran = false;
    ~SyncGuard() {
        std::lock_guard lock(call->mutex);
        call->ended = true;
        call->ran = ran;
        call->changed.notify_all();
    }
};

}  // namespace

Status ThreadExecutor::run_sync(const Task& task) {
    if (on_own_thread()) {
        task();
        return {};
    }
    auto call = std::make_shared<SyncCall>();
    {
        auto guard = std::make_shared<SyncGuard>(call);
        post([guard, &task] {
            task();
            guard->ran = true;
        });
    }
    std::unique_lock lock(call->mutex);
    call->changed.wait(lock, [&] { return call->ended; });
    if (!call->ran) return fail(Code::kCancelled, "the executor has ended");
    return {};
}

}  // namespace farshore
