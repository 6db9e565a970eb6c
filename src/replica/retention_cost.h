// What a retention policy will need in the store, estimated from what an item was seen to change.
// Pure; any thread may call. docs/design/replica.md §5.
#pragma once

#include <cstdint>
#include <vector>

#include "base/retention_grid.h"

namespace farshore {

struct ChangeSeen {
    uint64_t live_bytes = 0;  // that the newest state consists of
    uint64_t map_bytes = 0;   // of its shards' objects
    uint64_t written_bytes = 0;
    int64_t written_us = 0;  // in how long
    double stored_per_written = 1.0;
    uint64_t objects = 0, object_bytes = 0;  // segments of that time in the store
    // Of what a state consists of, so much was not in the one `span_us` before it.
    struct Fresh {
        int64_t span_us = 0;
        uint64_t bytes = 0;
    };
    std::vector<Fresh> fresh;  // in any order
};

struct RetentionCost {
    uint64_t newest_bytes = 0;  // the newest state and its maps
    uint64_t window_bytes = 0;  // every write of the window, beside it
    struct Step {
        GridStep step;
        uint64_t points = 0;
        uint64_t bytes = 0;
    };
    std::vector<Step> steps;
    uint64_t total_bytes = 0;
    // For how long the item was watched: a long slot is guessed from shorter ones.
    int64_t seen_us = 0;
    double written_per_s = 0;
};

// What of a state was not in the one `span_us` before: as seen, between two that were seen in
// proportion, and beyond the longest by how it grew up to there. Never more than the state.
uint64_t fresh_bytes(const ChangeSeen& seen, int64_t span_us);
RetentionCost retention_cost(const ChangeSeen& seen, int64_t window_us, const RetentionGrid& grid);

}  // namespace farshore
