// Tries again what can succeed later: a decorator for stores that a network or a quota lies before.
//
// Repeated: calls that failed with Retry::kSoon or kThrottled, after a back-off that doubles, with
// jitter over its whole length, so that clients that failed together do not come back together. Not
// repeated: everything else, a full disk included - its cure is not time. Any thread may call; a
// call lasts up to the budget. The last error is returned, with the number of attempts.
//
// A put that failed may have happened: when a later attempt finds the name taken by equal bytes,
// that is success; kAlreadyExists at the first attempt is passed on.
#pragma once

#include <atomic>
#include <memory>

#include "base/seams.h"
#include "store/object_store.h"
#include "store/retry.h"

namespace farshore {

class RetryingStore final : public ObjectStore {
  public:
    using Sleep = RetrySleep;
    // `inner`, `clock` and `random` outlive the store.
    RetryingStore(ObjectStore& inner, Clock& clock, Random& random, Sleep sleep,
                  RetryPolicy policy = {});
    // The same, and owns `inner`.
    RetryingStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random, Sleep sleep,
                  RetryPolicy policy = {});

    Status put(const std::string& name, ByteView data) override;
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    Status remove(const std::string& name) override;
    int64_t lock_us() const override { return inner_.lock_us(); }
    Status extend_lock(const std::string& name, TimePoint until) override;
    std::vector<StoreFinding> inspect() override { return inner_.inspect(); }
    void cancel() override;

  private:
    template <typename Call>
    auto repeat(Call call) -> decltype(call());
    const std::unique_ptr<ObjectStore> owned_;
    ObjectStore& inner_;
    Clock& clock_;
    Random& random_;
    const Sleep sleep_;
    const RetryPolicy policy_;
    std::atomic<bool> cancelled_{false};
};

}  // namespace farshore
