// States of a replicated item, as one table: which state may follow which, and what may be asked
// for in which. Health stands beside the state (meta/items.h), not in it.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

enum class ItemState : uint8_t {
    kEnabling,            // created; the agent sets capture up
    kInitialReplication,  // capture is on, the first copy runs; no point yet
    kProtected,           // points are made, the newest is young
    kCatchingUp,          // points are made, but the newest is old: the log is behind
    kResynchronising,     // order was lost: no new points until the difference was sent again
    kFailingOver,
    kFailedOver,        // runs at the recovery site; the point may still be changed
    kCommitted,         // the point is final
    kReprotecting,      // captured at the recovery site; its home is being written
    kReverseProtected,  // the home follows
    kFailingBack,       // the machine is shut down at the recovery site, the home gets the rest
    kFailedBack,        // runs at home again; the machine at the recovery site is kept
    kCommittedHome,     // and is gone
    kDisabling,         // being removed
};
inline constexpr int kItemStates = 14;

// "enabling", "initial-replication", ...: stable names, in the API and the database.
std::string_view item_state_name(ItemState state);
Result<ItemState> item_state_from_name(std::string_view name);

// kWrongState when `to` may not follow `from`. A state may always follow itself.
Status check_transition(ItemState from, ItemState to);

enum class ItemAction : uint8_t {
    kReplicate,  // hand out the log, register segments, take status
    kBookmark,
    kRead,  // export, list points, test failover
    kTestFailover,
    kFailover,
    kChangePoint,
    kCommit,
    kResynchronise,
    kChangeDisks,
    kUnprotect,
    kCancelFailover,  // the machine of a failover is given up, its source counts again
    kReprotect,
    kCancelReprotect,  // the machine stays at the recovery site, its home is left alone
    kFailback,
    kCommitHome,
    kCancelFailback,  // the machine runs at the recovery site again
    kHydrate,         // its disks at the recovery site become its own
    kMove,            // the machine goes on at another compute host
};
inline constexpr int kItemActions = 18;

std::string_view item_action_name(ItemAction action);
// kWrongState, with the state's name and what would be possible, when `action` is not for `state`.
Status check_action(ItemState state, ItemAction action);

// What may follow `state`, and what may be asked for in it: for people.
std::vector<ItemState> next_states(ItemState state);
std::vector<ItemAction> possible_actions(ItemState state);

// Whether the machine runs, or ran last, at the recovery site, and is captured there.
bool is_returning(ItemState state);

// Whether the source is supposed to be captured: RPO is measured only then.
bool is_replicating(ItemState state);

}  // namespace farshore
