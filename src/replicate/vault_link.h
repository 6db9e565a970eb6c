// What an appliance needs of the vault. In `farshore up` it is the vault itself, in the same process;
// between processes it is HTTPS (appliance/http_vault_link.h); in the simulator it is lossy.
//
// Calls block; any thread may call. Every call may fail with kUnavailable, kTimeout or
// kConnectionLost and may nevertheless have happened: all of them are safe to repeat.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

// The right to append to an item's log, until a newer epoch is handed out.
struct LogLease {
    Epoch epoch;
    SegmentNumber next_segment;  // number for the first segment of this lease
    Digest previous_header{};    // header hash of segment next_segment-1; zeroes when it is 1
    Sequence stored;             // highest sequence that is stored and registered
    Secret item_key;             // 32 bytes: wraps the segments' data keys
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

class VaultLink {
  public:
    virtual ~VaultLink() = default;
    // Fences every earlier lease of the item. kItemNotFound, kWrongState (item is disabled).
    virtual Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) = 0;
    // The object is durable in the store. Ok means: registered, durably. kFenced when the epoch is
    // no longer the item's; kSequenceHole when it does not follow the segment before it.
    virtual Status register_segment(const SegmentRegistration& registration) = 0;
    // The source was alive at `time` and had written nothing after `sequence`, which is stored.
    virtual Status mark_idle(const ItemId& item, Epoch epoch, Sequence sequence, TimePoint time) = 0;
    // One round of an agent's control conversation: its status (JSON) up, its instructions (JSON)
    // down. Returns at once.
    virtual Result<std::string> sync_agent(const std::string& agent, const std::string& status) = 0;
    // A one-time token and a PEM certificate request in, a PEM certificate chain out.
    virtual Result<std::string> enrol(const std::string& token, const std::string& request_pem) = 0;
};

}  // namespace farshore
