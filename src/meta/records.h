// The rows of the vault's database as plain values; the use cases over them are in items.h, jobs.h,
// parties.h and events.h. Times are microseconds since 1970 (0: not yet); ids of jobs, events and
// failovers are never used twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "meta/agent_documents.h"
#include "meta/item_state.h"

namespace farshore {

inline constexpr std::string_view kDefaultKeep = "1h:1d, 2h:7d, 4h:15d";

struct ItemPolicy {
    uint32_t crash_point_interval_s = 300;
    uint32_t window_s = 7'200;  // in which every write is a point
    // Which points stay behind the window (base/retention_grid.h); empty: none.
    std::string keep = std::string(kDefaultKeep);
    uint32_t grace_s = 600;  // between "nothing needs it" and its removal
    uint64_t copy_throttle_bytes_per_s = 0;
    uint32_t consistent_interval_s = 0;  // between points with frozen file systems; 0: none
    uint32_t rpo_threshold_s = 60;       // a newest point older than this is a warning
    // When comparisons that can wait may run (base/weekly_windows.h); empty: kDefaultResyncWindows.
    std::string resync_windows;
    // Also those that the item needs to be protected again wait for them.
    bool resync_windows_for_all = false;
    uint32_t verify_interval_s = 0;  // between comparisons that only check; 0: none
    // Of what the appliance sends to the store (base/bandwidth_limit.h); empty: no limit.
    std::string bandwidth;
    // After an outage what waits is not sent in order, but what the disks hold by then.
    bool newest_first = false;
    uint32_t scrub_interval_s = 2'592'000;  // between scrubs of all objects; 0: none

    bool operator==(const ItemPolicy&) const = default;
};

// Outside office hours.
inline constexpr std::string_view kDefaultResyncWindows =
    "Sun-Fri 20:00-06:00, Sat-Sun 00:00-24:00";

struct ItemError {
    Code code = Code::kInternal;
    std::string what;
    std::string remedy;
};

struct ItemRecord {
    ItemId id;
    std::string name;  // unique
    ItemState state = ItemState::kEnabling;
    TimePoint state_since;
    CaptureMode mode = CaptureMode::kInPath;
    std::string agent;       // the party that captures it; empty: the first that asks
    std::string qmp_socket;  // mirror
    std::string nbd_socket;  // in path, once the agent has made it
    std::vector<DesiredDisk> disks;
    std::string machine;  // MachineDescription as JSON; empty: not known yet
    Bytes wrapped_key;
    ItemPolicy policy;
    std::string policy_name;         // that it follows (policies.h); empty: its values are its own
    std::string resync_request;      // empty: none pending
    std::optional<ItemError> error;  // of the source, as the agent reported it
    TimePoint created, updated;
};

struct BookmarkRecord {
    std::string id;
    ItemId item;
    std::string label;
    PointKind kind = PointKind::kBookmark;
    TimePoint requested;
    Sequence sequence;  // 0: the agent has not made it yet
    TimePoint time;
};

// How it goes with the consistent points that an item's policy asks for.
struct ConsistentState {
    std::string request;             // the bookmark that is under way; empty: none
    TimePoint asked;                 // when the newest one was asked for
    TimePoint made;                  // time of the newest one that is stored
    std::optional<ItemError> error;  // why the newest one was not made
    TimePoint failed;                // when that was
};

// A comparison of an item that somebody asked for, or its policy: from the wish to its end. Kept,
// so that a vault that starts again goes on with it.
enum class ResyncStage : uint8_t {
    kNone,
    kWaiting,  // for its window, or until the item is fit for it
    kAsked,    // its agent has been told
    kRunning,
};
std::string_view resync_stage_name(ResyncStage stage);  // "none", "waiting", ...
enum class ResyncKind : uint8_t {
    kNow,       // asked for at once
    kInWindow,  // asked for, in the item's window
    kVerify,    // by the policy
};
std::string_view resync_kind_name(ResyncKind kind);  // "now", "in-window", "verify"

struct ResyncPlan {
    ResyncStage stage = ResyncStage::kNone;
    ResyncKind kind = ResyncKind::kNow;
    std::string request;  // what its agent was told, or will be
    TimePoint asked;
    TimePoint finished;  // when the newest one came to its end
    std::string cancel;  // a request to cancel that its agent has not answered; empty: none
};

enum class JobState : uint8_t { kQueued, kRunning, kSucceeded, kFailed, kCancelled };
std::string_view job_state_name(JobState state);  // "queued", "running", ...

struct JobMessage {
    TimePoint time;
    std::string text;
};

struct JobRecord {
    uint64_t id = 0;
    std::string kind;  // "protect", "test-failover", ...
    std::optional<ItemId> item;
    std::string item_name;  // kept when the item is gone
    std::string node;       // of several vault nodes, the one that began it; empty: there is one
    JobState state = JobState::kQueued;
    bool cancellable = false;
    bool cancel_requested = false;
    uint32_t progress_permille = 0;
    int64_t eta_s = -1;   // -1: not known
    std::string message;  // what it does now
    std::string input;    // JSON, for a resumption
    std::string result;   // JSON
    std::optional<ItemError> error;
    TimePoint created, started, ended;

    bool over() const { return state != JobState::kQueued && state != JobState::kRunning; }
};

enum class PartyKind : uint8_t { kAgent, kAppliance };
std::string_view party_kind_name(PartyKind kind);  // "agent", "appliance"
Result<PartyKind> party_kind_from_name(std::string_view name);

struct PartyRecord {
    std::string name;  // common name of its certificate
    PartyKind kind = PartyKind::kAgent;
    std::string fingerprint;  // SHA-256 of its certificate, hexadecimal
    std::string instance;
    std::string version;
    TimePoint enrolled, last_seen;
    std::string status;  // JSON, the last one
};

enum class Severity : uint8_t { kInformation, kWarning, kCritical };
std::string_view severity_name(Severity severity);  // "information", "warning", "critical"

struct EventRecord {
    uint64_t id = 0;
    TimePoint time;
    Severity severity = Severity::kInformation;
    std::string code;  // stable, e.g. "item-state-changed", or the name of an error code
    std::optional<ItemId> item;
    std::string item_name;
    std::string cause;
    std::string remedy;
};

struct FailoverRecord {
    uint64_t id = 0;
    ItemId item;
    std::string kind;  // "test" or "failover"
    std::string
        state;  // src/recovery's: "starting", "running", "failed", "committed", "cleaned", ...
    Sequence sequence;
    TimePoint point_time;
    uint64_t lease_id = 0;
    uint64_t job_id = 0;
    std::string details;  // JSON, src/recovery's: process ids, sockets, overlay
    TimePoint created, updated;
};

}  // namespace farshore
