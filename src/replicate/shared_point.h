// What vault, appliances and agents say to each other to make a point that several machines share
// (docs/design/groups.md): orders down, reports up, the same at both hops. Plain values as JSON.
// Decoders name what they refuse: kMalformed, kTooLarge. Any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "record/record.h"

namespace farshore {

using SharedPointId = Id<struct SharedPointTag>;

// Members of one group, and so of one order.
inline constexpr size_t kMaxGroupMembers = 256;
// Shared points that are being made at once, in a vault and in an appliance; others wait.
inline constexpr size_t kMaxSharedPointsAtOnce = 4;
// How long a member's writes may wait for a point, ours and the message's way included.
inline constexpr int64_t kHoldUs = 300'000;

// What a member is to do, in this order; kAbandon instead of any.
enum class BarrierStep : uint8_t {
    kReady = 0,    // nothing yet: whose agent can be reached
    kPrepare = 1,  // for an application-consistent point: scripts
    kFreeze = 2,   // for one: file systems at rest. Only when all scripts are through
    kHold = 3,     // writes that come from now on wait
    kMark = 4,     // the POINT record; then writes and file systems go on
    kAbandon = 5,  // everything goes on, without a point
};
std::string_view barrier_step_name(BarrierStep step);  // "ready", "prepare", ...

struct BarrierMember {
    ItemId item;
    std::string agent;  // that captures it
};

struct BarrierOrder {
    SharedPointId point;
    BarrierStep step = BarrierStep::kReady;
    PointKind kind = PointKind::kBookmark;
    std::string label;  // of the POINT records
    std::vector<BarrierMember> members;
};

struct MemberOutcome {
    ItemId item;
    std::optional<Error> error;  // it could not; `sequence` has no meaning then
    Sequence sequence;           // of its POINT record (kMark)
    TimePoint time;
};

struct BarrierReport {
    SharedPointId point;  // nil from an agent that only says that it is there
    BarrierStep step = BarrierStep::kReady;
    std::vector<MemberOutcome> members;
};

std::string encode_order(const BarrierOrder& order);
Result<BarrierOrder> decode_order(std::string_view json);
std::string encode_report(const BarrierReport& report);
Result<BarrierReport> decode_report(std::string_view json);
// The same as parts of larger documents.
nlohmann::json order_json(const BarrierOrder& order);
Result<BarrierOrder> order_of(const nlohmann::json& json);

}  // namespace farshore
