#include "replicate/upload_gate.h"

#include <algorithm>
#include <cmath>

namespace farshore {
namespace {

constexpr double kSmallShare = 0.1;

double burst_of(BytesPerS rate) { return static_cast<double>(rate) * kBurstUs / 1e6; }

}  // namespace

RateBucket::Level RateBucket::level(int64_t now_us) const {
    const double gone = static_cast<double>(std::max<int64_t>(now_us - at_us_, 0)) / 1e6 *
                        static_cast<double>(rate_);
    return {std::min(level_.all + gone, burst_of(rate_)),
            std::min(level_.small + gone * kSmallShare, static_cast<double>(kSmallReserveBytes))};
}

void RateBucket::set_rate(BytesPerS rate, int64_t now_us) {
    if (rate == rate_) return;
    // From no limit: nothing is owed, nothing is saved up.
    level_ =
        rate_ == kUnlimited ? Level{0, static_cast<double>(kSmallReserveBytes)} : level(now_us);
    rate_ = rate;
    if (rate_ != kUnlimited) level_.all = std::min(level_.all, burst_of(rate_));
    at_us_ = now_us;
}

void RateBucket::sent(uint64_t bytes, int64_t now_us) {
    if (rate_ == kUnlimited) return;
    level_ = level(now_us);
    at_us_ = now_us;
    level_.all -= static_cast<double>(bytes);
    if (bytes <= kSmallObjectBytes)
        level_.small = std::max(level_.small - static_cast<double>(bytes), 0.0);
}

std::optional<int64_t> RateBucket::wait_us(uint64_t bytes, int64_t now_us) const {
    if (rate_ == kUnlimited) return 0;
    if (rate_ == 0) return std::nullopt;
    const Level now = level(now_us);
    double missing = std::max(-now.all, 0.0);
    if (bytes <= kSmallObjectBytes)
        missing =
            std::min(missing, std::max(static_cast<double>(bytes) - now.small, 0.0) / kSmallShare);
    // A remainder of the arithmetic is no debt.
    if (missing < 1e-3) return 0;
    return static_cast<int64_t>(std::ceil(missing / static_cast<double>(rate_) * 1e6));
}

void UploadGate::set_rate(const ItemId& item, BytesPerS rate, int64_t now_us) {
    items_[item].bucket.set_rate(rate, now_us);
}

void UploadGate::want(const ItemId& item, uint64_t bytes) {
    Item& one = items_[item];
    if (!one.wanted) one.start = std::max(given_, one.finish);
    one.wanted = bytes;
}

void UploadGate::withdraw(const ItemId& item) {
    const auto found = items_.find(item);
    if (found != items_.end()) found->second.wanted.reset();
}

std::optional<ItemId> UploadGate::next(int64_t now_us) {
    auto best = items_.end();
    for (auto one = items_.begin(); one != items_.end(); ++one) {
        const auto wanted = one->second.wanted;
        if (!wanted || !one->second.bucket.may_send(*wanted, now_us) ||
            !total_.may_send(*wanted, now_us))
            continue;
        if (best == items_.end() || one->second.start < best->second.start) best = one;
    }
    if (best == items_.end()) return std::nullopt;
    Item& item = best->second;
    const uint64_t bytes = *item.wanted;
    item.wanted.reset();
    given_ = std::max(given_, item.start);
    item.finish = item.start + static_cast<double>(bytes);
    item.bucket.sent(bytes, now_us);
    total_.sent(bytes, now_us);
    return best->first;
}

std::optional<int64_t> UploadGate::wait_us(int64_t now_us) const {
    std::optional<int64_t> soonest;
    for (const auto& [id, item] : items_) {
        if (!item.wanted) continue;
        const auto own = item.bucket.wait_us(*item.wanted, now_us);
        const auto total = total_.wait_us(*item.wanted, now_us);
        if (!own || !total) continue;
        const int64_t both = std::max(*own, *total);
        if (!soonest || both < *soonest) soonest = both;
    }
    return soonest;
}

bool UploadGate::waits(const ItemId& item) const {
    const auto found = items_.find(item);
    return found != items_.end() && found->second.wanted.has_value();
}

BytesPerS UploadGate::rate(const ItemId& item) const {
    const auto found = items_.find(item);
    return std::min(total_.rate(),
                    found == items_.end() ? kUnlimited : found->second.bucket.rate());
}

bool UploadGate::total_counts(const ItemId& item) const {
    return total_.rate() != kUnlimited && total_.rate() == rate(item);
}

}  // namespace farshore
