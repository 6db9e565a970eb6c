// The one way in which calls to a store are tried again: see retrying_store.h for what and why.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

struct RetryPolicy {
    int max_attempts = 8;
    int64_t first_delay_us = 50'000;
    int64_t max_delay_us = 5'000'000;
    // No new attempt is begun when this much time has passed since the call.
    int64_t budget_us = 60'000'000;
};

// Waits; false when the program is ending: the call then fails with its last error.
using RetrySleep = std::function<bool(int64_t delay_us)>;

// Calls `call` (a Status or Result) until it succeeds, fails for good, or the policy is used up.
template <typename Call>
auto repeat_call(Clock& clock, Random& random, const RetrySleep& sleep, const RetryPolicy& policy,
                 Call call) -> decltype(call()) {
    const int64_t start_us = clock.steady_us();
    int64_t longest_us = policy.first_delay_us;
    for (int attempt = 1;; ++attempt) {
        auto result = call();
        if (result) return result;
        const Error& error = result.error();
        if (error.retry() != Retry::kSoon && error.code() != Code::kThrottled) return result;
        const auto give_up = [&] {
            return fail(error.with_context(fmt::format("after {} attempts", attempt)));
        };
        if (attempt >= policy.max_attempts) return give_up();
        const auto delay_us = static_cast<int64_t>(random.below(
                                  static_cast<uint64_t>(std::max<int64_t>(longest_us, 1)))) +
                              1;
        longest_us = std::min(longest_us * 2, policy.max_delay_us);
        if (clock.steady_us() - start_us + delay_us > policy.budget_us) return give_up();
        if (!sleep(delay_us)) return give_up();
    }
}

}  // namespace farshore
