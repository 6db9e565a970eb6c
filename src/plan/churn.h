// How a machine wrote, from the history of change that its ledger keeps (replica/change_history.h).
// Pure; any thread.
#pragma once

#include <map>
#include <vector>

#include "plan/plan.h"
#include "replica/change_history.h"

namespace farshore {

// Sums rows of any items and disks into the two series that are kept: minutes, and hours, each of
// them whole up to `now`.
class ChurnOf {
  public:
    // Payload and zeroes count: zeroes travel as a few bytes, but nobody knows what the next hour
    // writes there. `seen_since`: nothing is known of the item before (it was not there yet).
    void add(const std::vector<ChangeRow>& rows, TimePoint seen_since);
    // Without the slot that `now` is in, which is not over. Shorter ones first; one that has no
    // whole slot is left out. Before the first minute is over: all that was seen as one slot of
    // that length, of a second at least. Empty: nothing was added.
    std::vector<ChurnSeries> series(TimePoint now) const;

  private:
    std::map<int64_t, uint64_t> minutes_, hours_;  // by their start
    int64_t since_us_ = INT64_MAX;
};

}  // namespace farshore
