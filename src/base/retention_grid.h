// Which points stay when they are older than the window in which every write is one: the grid that
// a policy names, as "1h:1d, 2h:7d, 4h:15d" - one an hour up to the age of a day, then one every
// two hours up to a week, and so on; older ones go.
//
// Slots are counted from 1970-01-01T00:00Z by the points' own time, so that what is kept of a slot
// does not depend on when that is decided. Values; any thread may call.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

inline constexpr size_t kMaxGridSteps = 16;
inline constexpr size_t kMaxGridBytes = 256;
inline constexpr int64_t kMinGridSlotUs = 60'000'000;
inline constexpr int64_t kMaxGridAgeUs = 100ll * 366 * 86'400 * 1'000'000;

struct GridStep {
    int64_t every_us = 0;  // one point in so long ...
    int64_t until_us = 0;  // ... up to this age
    friend bool operator==(const GridStep&, const GridStep&) = default;
};

class RetentionGrid {
  public:
    RetentionGrid() = default;  // nothing stays
    // Steps parted by ',' as EVERY:AGE, each a number and s, m, h, d, w or y (365 days); both grow
    // from step to step. Empty: nothing stays. kInvalidArgument.
    static Result<RetentionGrid> parse(std::string_view text);
    std::string text() const;
    // Steps as they are, however short: for simulations, whose hours are seconds.
    static RetentionGrid of(std::vector<GridStep> steps);

    const std::vector<GridStep>& steps() const { return steps_; }
    bool empty() const { return steps_.empty(); }

    // The slots between the ages `from_us` and `to_us`: as many points as stay of a machine that
    // always writes.
    uint64_t slots(int64_t from_us, int64_t to_us) const;

    struct Point {
        TimePoint time;
        // The larger one of a slot stays; of equal ones above 0 the first, of those with 0 the
        // last.
        int rank = 0;
    };
    // For each of `points` (in order of sequence) whether it stays at `now`.
    std::vector<bool> choose(std::span<const Point> points, TimePoint now) const;

  private:
    std::vector<GridStep> steps_;
};

}  // namespace farshore
