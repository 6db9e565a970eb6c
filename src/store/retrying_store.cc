#include "store/retrying_store.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

RetryingStore::RetryingStore(ObjectStore& inner, Clock& clock, Random& random, Sleep sleep,
                             RetryPolicy policy)
    : inner_(inner), clock_(clock), random_(random), sleep_(std::move(sleep)), policy_(policy) {}

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random,
                             Sleep sleep, RetryPolicy policy)
    : owned_(std::move(inner)),
      inner_(*owned_),
      clock_(clock),
      random_(random),
      sleep_(std::move(sleep)),
      policy_(policy) {}

template <typename Call>
auto RetryingStore::repeat(Call call) -> decltype(call()) {
    const int64_t start_us = clock_.steady_us();
    int64_t longest_us = policy_.first_delay_us;
    for (int attempt = 1;; ++attempt) {
        auto result = call();
        if (result) return result;
        const Error& error = result.error();
        if (error.retry() != Retry::kSoon && error.code() != Code::kThrottled) return result;
        const auto give_up = [&] {
            return fail(error.with_context(fmt::format("after {} attempts", attempt)));
        };
        if (attempt >= policy_.max_attempts) return give_up();
        const auto delay_us = static_cast<int64_t>(random_.below(
                                  static_cast<uint64_t>(std::max<int64_t>(longest_us, 1)))) +
                              1;
        longest_us = std::min(longest_us * 2, policy_.max_delay_us);
        if (clock_.steady_us() - start_us + delay_us > policy_.budget_us) return give_up();
        if (cancelled_ || !sleep_(delay_us)) return give_up();
    }
}

Status RetryingStore::put(const std::string& name, ByteView data) {
    bool first = true;
    return repeat([&]() -> Status {
        Status status = first ? inner_.put(name, data) : put_idempotent(inner_, name, data);
        first = false;
        return status;
    });
}

Result<Bytes> RetryingStore::get(const std::string& name) {
    return repeat([&] { return inner_.get(name); });
}

Result<Bytes> RetryingStore::get_range(const std::string& name, uint64_t offset_bytes,
                                       uint64_t length_bytes) {
    return repeat([&] { return inner_.get_range(name, offset_bytes, length_bytes); });
}

Result<ObjectInfo> RetryingStore::head(const std::string& name) {
    return repeat([&] { return inner_.head(name); });
}

Result<std::vector<ObjectInfo>> RetryingStore::list(const std::string& prefix,
                                                    const std::string& after, size_t limit) {
    return repeat([&] { return inner_.list(prefix, after, limit); });
}

Status RetryingStore::remove(const std::string& name) {
    return repeat([&] { return inner_.remove(name); });
}

Status RetryingStore::extend_lock(const std::string& name, TimePoint until) {
    return repeat([&] { return inner_.extend_lock(name, until); });
}

void RetryingStore::cancel() {
    cancelled_ = true;
    inner_.cancel();
}

}  // namespace farshore
