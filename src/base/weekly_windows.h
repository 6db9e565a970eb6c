// Windows of time that come back every week, as people write them:
//   Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin
// A window has days (none: every day), a start and an end on the clock, to the minute. One that
// ends no later than it starts ends on the next day. Behind the last one may stand the time zone,
// by its IANA name. Windows may overlap.
//
// A moment is in a window when the clock on a wall of that zone says so: the hour that a change to
// daylight saving time skips is in none, the hour that is repeated is in one twice.
//
// Pure but for the zone's rules, which come from the system's tzdata when text is parsed. A value;
// any thread. Good for moments up to the year 9999.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/types.h"

namespace farshore {

inline constexpr size_t kMaxWindowsBytes = 1024;
inline constexpr size_t kMaxWindows = 64;

class WeeklyWindows {
  public:
    // `zone` where the text names none. kInvalidArgument: what is wrong and how it is written;
    // a window without length (it would never open) and an unknown zone are refused, too.
    static Result<WeeklyWindows> parse(std::string_view text, std::string_view zone);

    bool contains(TimePoint time) const;
    // The first moment after `time` from which on it is otherwise; none when it is always open.
    std::optional<TimePoint> next_change(TimePoint time) const;
    // `time` itself when it is in a window.
    std::optional<TimePoint> next_opening(TimePoint time) const;
    bool always_open() const;
    const std::string& zone() const { return zone_name_; }

  private:
    int64_t offset_us(TimePoint time) const;
    bool contains_local(int64_t local_us) const;

    std::string zone_name_;
    absl::TimeZone zone_;
    // Minutes of the week from Monday, 00:00; ordered, apart from each other, none empty.
    std::vector<std::pair<uint32_t, uint32_t>> open_;
};

// Whether the system knows that zone. kInvalidArgument.
Status check_time_zone(std::string_view name);

}  // namespace farshore
