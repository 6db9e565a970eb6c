// What binds an item's log together: who may append to it, and how a finished segment is made
// known. Shared by the appliance, which builds segments, and the vault, which keeps them.
#pragma once

#include <string>

#include "base/secret.h"
#include "base/types.h"

namespace farshore {

// Segments of an item that may be in the store without being registered: an appliance puts number n
// only when n - kMaxSegmentsAhead is registered. So a segment that is missing in the store was
// registered at most when a larger number than those is there (docs/design/replica.md §7). Eight:
// what one connection takes 300 ms for (a segment over TLS into a distant store) keeps 300 MB/s
// under way side by side; and what a crash leaves unregistered stays small.
inline constexpr uint64_t kMaxSegmentsAhead = 8;

// The right to append to an item's log, until a newer epoch is handed out.
struct LogLease {
    Epoch epoch;
    SegmentNumber next_segment;  // number for the first segment of this lease
    Digest previous_header{};    // header hash of segment next_segment-1; zeroes when it is 1
    Sequence stored;             // highest sequence that is stored and registered
    Secret item_key;             // 32 bytes: wraps the segments' data keys
    std::string agent;           // who alone may send the item's records; empty: any agent
    // What may be sent to the store in a second (base/bandwidth_limit.h), and the zone of its
    // windows.
    std::string bandwidth, time_zone;
};

struct SegmentRegistration {
    ItemId item;
    Epoch epoch;
    SegmentNumber number;
    std::string object_name;
    uint64_t object_bytes = 0;
    Digest header_hash{};
    Digest previous_header{};
    Sequence first, last;
    TimePoint first_time, last_time;
    uint64_t written_bytes = 0;  // payload and zeroed bytes that the guest wrote
};

}  // namespace farshore
