// A vault that only counts, for benchmarks of what is before it: it hands out every log, and knows
// how old the oldest record of each segment was when it was registered. Any thread.
#pragma once

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "base/seams.h"
#include "replicate/vault_link.h"

namespace farshore {

class CountingVault final : public VaultLink {
  public:
    explicit CountingVault(Clock& clock) : clock_(clock) {}
    Result<LogLease> acquire_log(const ItemId&, const std::string&) override {
        LogLease lease;
        lease.epoch = {1};
        lease.next_segment = {1};
        lease.item_key = Secret(Bytes(32, 1));
        return lease;
    }
    Status register_segment(const SegmentRegistration& r) override {
        const std::lock_guard lock(mutex_);
        stored_ = r.last;
        object_bytes_ += r.object_bytes;
        // The oldest record of the segment waited longest.
        lags_us_.push_back(clock_.now().us - r.first_time.us);
        return {};
    }
    Status mark_idle(const ItemId&, Epoch, Sequence, TimePoint) override { return {}; }
    Result<std::string> sync_agent(const std::string&, const std::string&) override { return "{}"; }
    Result<std::string> enrol(const std::string&, const std::string&) override {
        return fail(Code::kUnsupported, "a bench");
    }

    // Of the item that registered last.
    Sequence stored() const {
        const std::lock_guard lock(mutex_);
        return stored_;
    }
    uint64_t object_bytes() const {
        const std::lock_guard lock(mutex_);
        return object_bytes_;
    }
    // From here on only what comes is in segments() and lag_us().
    void forget_lags() {
        const std::lock_guard lock(mutex_);
        lags_us_.clear();
    }
    size_t segments() const {
        const std::lock_guard lock(mutex_);
        return lags_us_.size();
    }
    int64_t lag_us(double quantile) const {
        const std::lock_guard lock(mutex_);
        if (lags_us_.empty()) return 0;
        std::vector<int64_t> sorted = lags_us_;
        std::ranges::sort(sorted);
        return sorted[static_cast<size_t>(quantile * static_cast<double>(sorted.size() - 1))];
    }

  private:
    Clock& clock_;
    mutable std::mutex mutex_;
    Sequence stored_;
    uint64_t object_bytes_ = 0;
    std::vector<int64_t> lags_us_;
};

}  // namespace farshore
