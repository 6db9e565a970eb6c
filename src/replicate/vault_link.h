// What an appliance needs of the vault. In `farshore up` it is the vault itself, in the same
// process; between processes it is HTTPS (appliance/http_vault_link.h); in the simulator it is
// lossy.
//
// Calls block; any thread may call. Every call may fail with kUnavailable, kTimeout or
// kConnectionLost and may nevertheless have happened: all of them are safe to repeat.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bandwidth_limit.h"
#include "base/error.h"
#include "base/machine_load.h"
#include "base/types.h"
#include "record/compare.h"
#include "replica/registration.h"
#include "replicate/script_orders.h"
#include "replicate/shared_point.h"

namespace farshore {

// How it goes with the sending of an item's objects, and what its policy allows.
struct UploadStatus {
    ItemId item;
    BytesPerS rate = kUnlimited;  // that counts now
    bool total_counts = false;    // it is the appliance's own limit
    // What was received is held back by it, and older than kBandwidthBehindUs.
    bool limited = false;
    uint64_t waiting_bytes = 0;  // of payload, received and not stored
    int64_t eta_s = -1;          // until that is stored at this rate; -1: not known, or paused
    uint64_t sent_bytes = 0;     // of objects, since the appliance's start
};
struct UploadPolicy {
    ItemId item;
    std::string bandwidth;  // base/bandwidth_limit.h
};
struct ApplianceOrders {
    std::string time_zone;            // of windows that name none
    std::vector<UploadPolicy> items;  // an item that is missing has no limit
    // Those that are another appliance's by now: what is held of them is of no use.
    std::vector<ItemId> gone;
    // Shared points that are to be made, with all their members.
    std::vector<BarrierOrder> points;
    // All that are wanted: what is not named is forgotten, and ended when it runs.
    std::vector<ScriptOrder> scripts;
};

// What an appliance says of itself.
struct ApplianceStatus {
    std::string address;  // host:port at which agents reach it; empty: it does not know
    std::string site;
    std::string version;
    MachineLoad load;
    uint64_t spool_used_bytes = 0;
    // What the item that uses most of its part of the spool has left of it; -1: not known.
    int32_t spool_free_permille = -1;
    TimePoint certificate_until;  // 0: not known
    std::vector<UploadStatus> uploads;
    std::vector<ScriptWord> scripts;  // of all that it knows
    std::vector<std::string>
        programs;  // that are in its scripts directory, kMaxScriptsTold at most
};

// What an appliance needs to write an item's source back.
struct ReturnGrant {
    Secret item_key;    // 32 bytes
    SegmentNumber end;  // the newest segment that is registered
};

class VaultLink {
  public:
    virtual ~VaultLink() = default;
    // Fences every earlier lease of the item. kItemNotFound, kWrongState (item is disabled),
    // kForbidden (it is another appliance's).
    virtual Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) = 0;
    // The object is durable in the store. Ok means: registered, durably. kFenced when the epoch is
    // no longer the item's; kSequenceHole when it does not follow the segment before it.
    virtual Status register_segment(const SegmentRegistration& registration) = 0;
    // The source was alive at `time` and had written nothing after `sequence`, which is stored.
    virtual Status mark_idle(const ItemId& item, Epoch epoch, Sequence sequence,
                             TimePoint time) = 0;
    // One round of an agent's control conversation: its status (JSON) up, its instructions (JSON)
    // down. Returns at once.
    virtual Result<std::string> sync_agent(const std::string& agent, const std::string& status) = 0;
    // What has kept this item's records from being received or stored for a while; nothing: it goes
    // on again. For people; repeated while it lasts, and forgotten when it is not.
    virtual Status report_trouble(const ItemId&, const std::string& /*appliance*/,
                                  const std::optional<Error>&) {
        return {};
    }
    // An appliance's word about itself and its items; what it may do. Each second.
    virtual Result<ApplianceOrders> sync_appliance(const std::string& /*appliance*/,
                                                   const ApplianceStatus&) {
        return ApplianceOrders{};
    }
    // What the item's replica has, for its agent alone. Reads the store; takes its time. kForbidden
    // (another agent's item), kItemNotFound.
    virtual Result<CompareAnswer> compare(const std::string& /*agent*/, const ItemId&,
                                          const CompareQuestion&) {
        return fail(Code::kUnsupported, "this vault compares nothing");
    }
    // What members of a shared point did, whose agents this appliance reaches; what they are to do
    // next. The same step again: nothing new, ask again. Held for up to a second. kNotFound: nobody
    // makes that point (any more).
    virtual Result<BarrierOrder> shared_point_step(const std::string& /*appliance*/,
                                                   const BarrierReport&) {
        return fail(Code::kUnsupported, "this vault makes no shared points");
    }
    // The item returns to that agent's disks through that appliance, and they are to have the state
    // after `to`. kForbidden (it does not, or not that state), kItemNotFound.
    virtual Result<ReturnGrant> open_return(const std::string& /*appliance*/,
                                            const std::string& /*agent*/, const ItemId&,
                                            Sequence /*to*/) {
        return fail(Code::kUnsupported, "this vault writes no source back");
    }
    // Which of these agents, whose connections an appliance has, are not enrolled, or no more. Each
    // second.
    virtual Result<std::vector<std::string>> refused_agents(const std::vector<std::string>&) {
        return std::vector<std::string>{};
    }
    // A new certificate for a party that has a good one: a PEM certificate request in, a chain out.
    // kUnauthenticated: it is not enrolled, or was removed.
    virtual Result<std::string> renew(const std::string& /*party*/,
                                      const std::string& /*request_pem*/) {
        return fail(Code::kUnsupported, "this vault renews no certificates");
    }
    // A one-time token and a PEM certificate request in, a PEM certificate chain out.
    virtual Result<std::string> enrol(const std::string& token, const std::string& request_pem) = 0;
};

}  // namespace farshore
