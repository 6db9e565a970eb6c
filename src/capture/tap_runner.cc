#include "capture/tap_runner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "os/process.h"
#include "os/shared_memory.h"
#include "os/waiting.h"

namespace farshore {

// A bell that was missed delays a command by so much.
static constexpr int64_t kGateLookUs = 1'000'000;

TapRunner::TapRunner(Tap& tap, std::function<void()> on_quit)
    : tap_(tap), on_quit_(std::move(on_quit)) {
    housekeeping_ = std::thread([this] { keep_house(); });
    copying_ = std::thread([this] { copy(); });
    gate_ = std::thread([this] { serve_gate(); });
}

TapRunner::~TapRunner() {
    {
        const std::lock_guard guard(mutex_);
        stopping_ = true;
    }
    work_.notify_all();
    auto& bell = tap_.producer().header().futex(LogWord::kTapDoorbell);
    bell.fetch_add(1);
    futex_wake(bell);
    housekeeping_.join();
    copying_.join();
    gate_.join();
}

bool TapRunner::stopped() {
    const std::lock_guard guard(mutex_);
    return stopping_;
}

void TapRunner::keep_house() {
    auto& bell = tap_.producer().header().futex(LogWord::kTapDoorbell);
    bool told = false;
    while (!stopped()) {
        const uint32_t seen = bell.load();
        const int64_t delay_us = tap_.tick();
        {
            const std::lock_guard guard(mutex_);
            ++news_;
        }
        work_.notify_all();
        if (tap_.quit_requested() && !told) {
            told = true;
            on_quit_();
        }
        futex_wait(bell, seen, delay_us);
    }
}

void TapRunner::serve_gate() {
    auto& bell = tap_.producer().header().futex(LogWord::kTapDoorbell);
    while (!stopped()) {
        const uint32_t seen = bell.load();
        tap_.serve_gate();
        futex_wait(bell, seen, kGateLookUs);
    }
}

void TapRunner::copy() {
    for (;;) {
        uint64_t seen;
        {
            const std::lock_guard guard(mutex_);
            if (stopping_) return;
            seen = news_;
        }
        const Copier::Outcome outcome = tap_.copier().step();
        if (outcome == Copier::Outcome::kWorked) continue;
        int64_t longest_us = 1'000'000;
        if (outcome == Copier::Outcome::kThrottled)
            longest_us = std::min<int64_t>(tap_.copier().wait_us(), longest_us);
        if (outcome == Copier::Outcome::kNoSpace) {
            // Tell the agent to ring, then look once more: it may have made room in between.
            tap_.producer().header().word(LogWord::kTapWantsSpace).store(1);
            if (tap_.producer().room_for_copy() &&
                tap_.producer().state().gap != GapState::kDropping)
                continue;
        }
        std::unique_lock guard(mutex_);
        // Throttled, or after an error of the source: news do not make it sooner.
        if (outcome == Copier::Outcome::kThrottled || outcome == Copier::Outcome::kFailed)
            work_.wait_for(guard, std::chrono::microseconds(longest_us), [&] { return stopping_; });
        else
            work_.wait_for(guard, std::chrono::microseconds(longest_us),
                           [&] { return stopping_ || news_ != seen; });
    }
}

Result<InstanceLock> lock_tap(const std::string& shared_memory_path) {
    const std::string path = shared_memory_path + ".tap";
    Result<InstanceLock> taken = fail(Code::kInternal, "");
    wait_until(5'000, 50, [&] {
        taken = InstanceLock::acquire(path);
        return taken || taken.error().code() != Code::kDuplicateIdentity;
    });
    if (!taken) return fail(taken.error().with_context("the tap's lock"));
    return taken;
}

}  // namespace farshore
