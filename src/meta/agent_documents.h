// The two documents of an agent's control conversation with the vault (docs/design/core.md §7):
// status goes up, instructions come down, once a round, over VaultLink::sync_agent.
//
// Instructions are the desired state of every item of that agent, never a command: a lost round
// costs nothing, and an item that is missing from a document is left alone. Requests inside (a
// resync, a bookmark) carry an id; the vault repeats them until a status answers, the agent does
// each id once. Both decoders ignore unknown fields, take defaults for missing ones and name the
// path of what they refuse: kMalformed, kTooLarge.
//
// Plain values; any thread. Times are microseconds since 1970, sizes bytes, rates bytes a second.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/machine_load.h"
#include "base/types.h"
#include "record/record.h"

namespace farshore {

inline constexpr size_t kMaxAgentDocumentBytes = 4u << 20;
inline constexpr size_t kMaxAgentItems = 1000;
inline constexpr size_t kMaxPendingBookmarks = 64;  // for each item
inline constexpr size_t kMaxMachineDescriptionBytes = 64u << 10;
inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxItemNameBytes = 128;
inline constexpr size_t kMaxAppliancesTold = 64;

// kDevice: disks of the agent's own machine, captured inside it. kRecovery: those of a machine that
// runs at the recovery site after a failover; the vault's own agent alone has such items.
enum class CaptureMode : uint8_t { kInPath, kMirror, kDevice, kRecovery };
enum class Desired : uint8_t {
    kProtect,
    kRemove,
    kStandBy,  // the machine is shut down, or loses its disks; what it wrote is sent on
    kReturn,   // nobody uses the disks: they are written, as the item's replica has them
};

std::string_view capture_mode_name(CaptureMode mode);  // "in-path", "mirror", "device", ...
Result<CaptureMode> capture_mode_from_name(std::string_view name);
std::string_view point_kind_name(PointKind kind);  // "crash", "application", "bookmark"
Result<PointKind> point_kind_from_name(std::string_view name);

// ---- down: what the vault wants --------------------------------------------------------------

struct DesiredDisk {
    DiskIndex index = 0;
    // File or block device; in mirror mode empty, or QEMU's id of a disk that was added later.
    std::string path;
    uint64_t size_bytes = 0;  // 0: not known yet
    bool removed = false;     // not protected any more; its index is not used again
    bool joining = false;     // added later, and not known to be copied
};

struct BookmarkRequest {
    std::string request_id;
    std::string label;
    PointKind kind = PointKind::kBookmark;
};

// Whether comparisons of source and replica wait. What is known to differ is sent all the same.
enum class ResyncHold : uint8_t {
    kNone,
    kWithoutGap,  // those that only check: the item has all its points meanwhile
    kAlways,
};
std::string_view resync_hold_name(ResyncHold hold);  // "none", "without-gap", "always"

// Where an agent finds an appliance.
struct ApplianceAddress {
    std::string name;     // common name of its certificate; empty: none
    std::string address;  // host:port, as it says of itself; empty: not known

    bool operator==(const ApplianceAddress&) const = default;
};

// Of kReturn (docs/design/return.md).
struct ReturnOrder {
    std::string id;        // of this way home; another one begins anew
    Sequence to;           // the state that the disks are to have; 0: nothing to do yet
    bool original = true;  // the disks that the item had; else one that is missing is made
    bool accept = false;   // also when most of what is on the disks is something else
};

struct DesiredItem {
    ItemId item;
    std::string name;
    CaptureMode mode = CaptureMode::kInPath;
    std::string qmp_socket;  // mirror mode
    std::vector<DesiredDisk> disks;
    Desired desired = Desired::kProtect;
    uint32_t crash_point_interval_s = 300;
    uint64_t copy_throttle_bytes_per_s = 0;  // 0: none
    std::string resync_request_id;           // empty: none; else compare everything, once
    bool await_seed = false;                 // describe the machine, and do nothing else yet
    bool hold_copy = false;                  // compare samples first, and copy nothing
    // A log older than this is dropped, and what the disks hold by then is sent; 0: never.
    uint32_t newest_first_after_s = 0;
    std::string resync_cancel_id;  // empty: none; else end such a comparison, once
    ResyncHold resync_hold = ResyncHold::kNone;
    std::vector<BookmarkRequest> bookmarks;
    Sequence stored;  // highest sequence stored and registered
    // Where its records go; none: where the conversation does. And where they shall go as soon as
    // nothing is missed by that.
    ApplianceAddress appliance, next_appliance;
    ReturnOrder way_home;     // kReturn
    bool power_off = false;   // kStandBy: a machine that does not shut down is ended
    bool all_stored = false;  // kStandBy: `stored` has all that it wrote
};

struct AgentInstructions {
    // Those that are neither protected nor removed are told apart from the others, so that an older
    // agent leaves them alone.
    std::vector<DesiredItem> items;
    TimePoint vault_time;  // when they were written; 0: not told
    // How soon the next round shall be; 0: as the agent is set.
    int64_t sync_interval_us = 0;
    // Those that the agent can speak to beside the ones of its configuration; left out when it has
    // said that it knows the list with that id. An older vault's list has none.
    std::vector<ApplianceAddress> appliances;
    std::string appliances_id;
    // Some of them are in a replication group: the agent keeps a connection for shared points.
    bool grouped = false;
};

std::string encode_instructions(const AgentInstructions& instructions);
Result<AgentInstructions> decode_instructions(std::string_view json);

// ---- up: what the agent sees -----------------------------------------------------------------

enum class AgentItemState : uint8_t {
    kStarting,    // tap and source are being set up
    kCopying,     // capturing, and the initial copy or a resynchronisation runs
    kLive,        // capturing, nothing left to copy
    kGap,         // order was lost; the tap remembers where and will copy
    kError,       // not capturing; `error` says why, the agent tries again by itself
    kRemoved,     // torn down as desired
    kStandingBy,  // nobody writes to the disks through us; what there was is in the log
    kReturning,
};
std::string_view agent_item_state_name(AgentItemState state);  // "starting", "copying", ...

struct AgentItemError {
    Code code = Code::kInternal;
    std::string what;
    std::string remedy;
};

struct AgentDisk {
    DiskIndex index = 0;
    uint64_t size_bytes = 0;
    std::string path;  // what the disk is at the source, for people
};

struct BookmarkDone {
    std::string request_id;
    Sequence sequence;  // of the POINT record
    TimePoint time;
    // It could not be made, and will not be; the rest has no meaning then.
    std::optional<AgentItemError> error;
};

enum class ResyncState : uint8_t {
    kNone,       // there was none, or nothing could be compared
    kComparing,  // and what was found to differ is copied
    kVerifying,
    kDone,
};
std::string_view resync_state_name(ResyncState state);  // "none", "comparing", ...

// The comparison of source and replica that runs or ran last, in bytes.
struct ResyncStatus {
    ResyncState state = ResyncState::kNone;
    uint64_t total = 0;  // what was in question when it began
    uint64_t compared = 0;
    uint64_t differing = 0;
    uint64_t sent = 0;        // with what was written meanwhile
    uint64_t unreadable = 0;  // could not be read at the recovery site, and was sent again
    uint64_t verified = 0;    // looked at a second time
    uint64_t verify_failures = 0;
    uint64_t sampled = 0;  // while the copy is held
    uint64_t sample_differing = 0;
    bool held = false;         // it waits, as told (ResyncHold)
    uint64_t read_errors = 0;  // reads of the source for comparing or copying that failed, ever
};

// How it goes with a return, in bytes of all disks.
struct ReturnStatus {
    std::string id;      // of the order that it is about; empty: there is none
    Sequence have;       // the state that is durably on the disks; 0: none that is known
    bool held = false;   // most of what is on the disks is something else: it waits for `accept`
    uint64_t total = 0;  // to be compared; 0: only what changed is asked for
    uint64_t compared = 0;
    uint64_t differing = 0;
    uint64_t written = 0;  // since the order's begin
};

struct AgentItemStatus {
    ItemId item;
    AgentItemState state = AgentItemState::kStarting;
    std::optional<AgentItemError> error;
    std::string nbd_socket;  // in path: where the machine connects
    std::vector<AgentDisk> disks;
    // A JSON object (compute's MachineDescription), sent at least once; empty: nothing new.
    std::string machine_description;
    uint64_t ring_used_bytes = 0;
    uint64_t spill_used_bytes = 0;
    bool gap_open = false;
    uint64_t copied_bytes = 0;  // of the initial copy or resynchronisation under way
    uint64_t copy_total_bytes = 0;
    uint64_t copy_rate_bytes_per_s = 0;
    uint64_t compared_bytes = 0;  // read from the disks to copy or compare, since the log was made
    Sequence last;                // last record that the tap appended
    TimePoint last_time;          // its time
    Sequence received;            // acknowledged by the appliance
    Sequence stored;
    std::vector<BookmarkDone> bookmarks;
    std::string resync_done_id;         // the resync request that was begun last
    std::string resync_cancel_done_id;  // the request to cancel that was answered last, and
    std::optional<AgentItemError> resync_cancel_error;  // why it goes on
    ResyncStatus resync;
    uint64_t dirty_regions = 0;    // that a crash of the source's host would put in question
    uint64_t dirty_map_syncs = 0;  // for which writes of the machine waited, since the tap started
    uint32_t tap_restarts = 0;
    std::string appliance;     // that has its records now; empty: there is no connection
    bool moving = false;       // to next_appliance: waits until nothing would be missed
    std::string send_trouble;  // why there is no connection; empty: there is one
    // Writes of the machine that the tap has taken, since the log was made.
    uint64_t machine_bytes = 0;
    ReturnStatus way_home;
};

struct AgentStatus {
    std::string agent;     // common name of its certificate
    std::string instance;  // random at each start: tells two agents with one identity apart
    std::string version;
    TimePoint time;
    std::vector<AgentItemStatus> items;
    // Its clock minus the vault's; none: not known yet.
    std::optional<int64_t> clock_ahead_us;
    MachineLoad load;           // of its machine
    std::string appliances_id;  // of the list that it was told last; empty: of none
};

std::string encode_status(const AgentStatus& status);
Result<AgentStatus> decode_status(std::string_view json);

}  // namespace farshore
