#include "tap/sole_client.h"

#include <chrono>

namespace farshore {

namespace {

Error superseded() {
    return Error(Code::kFenced, "a newer connection of the disk's one client has come");
}

}  // namespace

Result<uint64_t> SoleClient::enter(int64_t patience_us) {
    std::unique_lock lock(mutex_);
    const uint64_t number = ++newest_;
    const bool over = ended_.wait_for(lock, std::chrono::microseconds(patience_us),
                                      [&] { return under_way_ == 0 || newest_ != number; });
    if (newest_ != number) return tl::unexpected(superseded());
    if (!over)
        return fail(Code::kTimeout,
                    "changes of an earlier connection of the disk's one client have not ended");
    return number;
}

Status SoleClient::begin(uint64_t number) {
    const std::lock_guard lock(mutex_);
    if (newest_ != number) return tl::unexpected(superseded());
    ++under_way_;
    return {};
}

void SoleClient::end() {
    const std::lock_guard lock(mutex_);
    if (--under_way_ == 0) ended_.notify_all();
}

}  // namespace farshore
