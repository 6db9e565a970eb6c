// Who may send an object to the store, and when: limits of bytes a second, of each item and of all
// together, and turns between items. Pure: time comes in, on the steady clock, in microseconds.
//
// An object goes when nothing is owed, and is owed afterwards: in any time t no more than
// rate·t + kBurstUs of the rate + one object + kSmallReserveBytes is sent. Where several items wait
// for what they share, the one that was given least lately is next (start-time fair queueing, Goyal
// et al. 1996). Objects of at most kSmallObjectBytes (marks, points, a quiet machine's writes) do
// not wait for what large ones owe: a tenth of the rate is theirs first.
//
// Lives on one executor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "base/bandwidth_limit.h"
#include "base/types.h"

namespace farshore {

inline constexpr int64_t kBurstUs = 250'000;
inline constexpr uint64_t kSmallObjectBytes = 64u << 10;
inline constexpr uint64_t kSmallReserveBytes = 2 * kSmallObjectBytes;

class RateBucket {
  public:
    void set_rate(BytesPerS rate, int64_t now_us);
    BytesPerS rate() const { return rate_; }
    bool may_send(uint64_t bytes, int64_t now_us) const { return wait_us(bytes, now_us) == 0; }
    void sent(uint64_t bytes, int64_t now_us);
    // Until may_send() is true; none: as long as the rate is what it is, never.
    std::optional<int64_t> wait_us(uint64_t bytes, int64_t now_us) const;

  private:
    struct Level {
        double all = 0, small = 0;
    };
    Level level(int64_t now_us) const;

    BytesPerS rate_ = kUnlimited;
    Level level_;  // at at_us_; below 0: owed
    int64_t at_us_ = 0;
};

class UploadGate {
  public:
    void set_total_rate(BytesPerS rate, int64_t now_us) { total_.set_rate(rate, now_us); }
    void set_rate(const ItemId& item, BytesPerS rate, int64_t now_us);
    void remove(const ItemId& item) { items_.erase(item); }

    // The item has an object of that size to send; one at a time, the last call counts.
    void want(const ItemId& item, uint64_t bytes);
    void withdraw(const ItemId& item);
    // Who may send what it wants now, if anybody: it counts as sent.
    std::optional<ItemId> next(int64_t now_us);
    // Until next() may have an answer; none: nobody waits, or all that do are paused.
    std::optional<int64_t> wait_us(int64_t now_us) const;

    bool waits(const ItemId& item) const;
    // What counts for an item: the smaller of both; and whether that is the total one.
    BytesPerS rate(const ItemId& item) const;
    bool total_counts(const ItemId& item) const;

  private:
    struct Item {
        RateBucket bucket;
        std::optional<uint64_t> wanted;
        double start = 0;  // of what it wants, in what was given fairly
        double finish = 0;
    };
    RateBucket total_;
    std::map<ItemId, Item> items_;
    double given_ = 0;
};

}  // namespace farshore
