// What may be sent in a second, by time windows, as people write it:
//   20MB/s Mon-Fri 08:00-18:00 Europe/Berlin; paused Sun 02:00-04:00; 200MB/s
// Parts stand between semicolons; the first one whose windows (base/weekly_windows.h) are open
// counts, and one without windows, which can only be the last, always. Where none counts there is
// no limit; no text at all is no limit. A rate is a number with B, kB, MB, GB (powers of 1000),
// KiB, MiB, GiB, kbit, Mbit or Gbit, and "/s" if one likes; or `unlimited`; or `paused`: nothing is
// sent.
//
// A value; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/weekly_windows.h"

namespace farshore {

inline constexpr size_t kMaxBandwidthBytes = 1024;
inline constexpr size_t kMaxBandwidthParts = 16;
// Less would take longer for one object than a connection lives.
inline constexpr uint64_t kMinBandwidthBytesPerS = 10'000;

// 0: paused.
using BytesPerS = uint64_t;
inline constexpr BytesPerS kUnlimited = UINT64_MAX;

class BandwidthLimit {
  public:
    // No limit.
    BandwidthLimit() = default;
    // `zone` for windows that name none. kInvalidArgument: what is wrong and how it is written;
    // also a rate of 0 (say `paused`) and what is paused at every time (it would never send).
    static Result<BandwidthLimit> parse(std::string_view text, std::string_view zone);

    BytesPerS at(TimePoint time) const;
    // The first moment after `time` from which on it is another; none: never (16 days are looked
    // at: windows come back every week).
    std::optional<TimePoint> next_change(TimePoint time) const;

  private:
    struct Part {
        BytesPerS rate = kUnlimited;
        std::optional<WeeklyWindows> windows;
    };
    std::vector<Part> parts_;
};

// "20 MB/s", "paused", "unlimited".
std::string rate_text(BytesPerS rate);

}  // namespace farshore
