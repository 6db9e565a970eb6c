#include "store/retrying_store.h"

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
    const auto sleep = [this](int64_t delay_us) { return !cancelled_ && sleep_(delay_us); };
    return repeat_call(clock_, random_, sleep, policy_, call);
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
