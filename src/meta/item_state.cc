#include "meta/item_state.h"

#include <fmt/core.h>

#include <array>
#include <string>

namespace farshore {
namespace {

using S = ItemState;
using A = ItemAction;

constexpr std::array<std::string_view, kItemStates> kNames{
    "enabling",     "initial-replication", "protected",      "catching-up",  "resynchronising",
    "failing-over", "failed-over",         "committed",      "reprotecting", "reverse-protected",
    "failing-back", "failed-back",         "committed-home", "disabling"};

constexpr std::array<std::string_view, kItemActions> kActions{"replicate",
                                                              "bookmark",
                                                              "read a point",
                                                              "test failover",
                                                              "failover",
                                                              "change the point",
                                                              "commit",
                                                              "resynchronise",
                                                              "change disks",
                                                              "unprotect",
                                                              "cancel the failover",
                                                              "reprotect",
                                                              "cancel the reprotection",
                                                              "failback",
                                                              "commit the failback",
                                                              "cancel the failback",
                                                              "hydrate",
                                                              "move the machine"};

constexpr uint32_t bit(S state) { return 1u << static_cast<int>(state); }
constexpr uint32_t bit(A action) { return 1u << static_cast<int>(action); }

struct Row {
    uint32_t next;     // states that may follow
    uint32_t actions;  // what may be asked for
};

constexpr uint32_t kReplicating = bit(S::kInitialReplication) | bit(S::kProtected) |
                                  bit(S::kCatchingUp) | bit(S::kResynchronising);
constexpr uint32_t kReading = bit(A::kRead) | bit(A::kUnprotect);
constexpr uint32_t kLive = kReading | bit(A::kReplicate) | bit(A::kBookmark) |
                           bit(A::kTestFailover) | bit(A::kFailover) | bit(A::kResynchronise) |
                           bit(A::kChangeDisks);

// The machine at the recovery site is captured: there are new points.
constexpr uint32_t kReturning =
    kReading | bit(A::kReplicate) | bit(A::kBookmark) | bit(A::kTestFailover);

// A site can be lost in any state that has points, so kFailingOver follows all of those. Before the
// first copy has ended there is none; an interrupted resynchronisation still has the points before
// it.
constexpr std::array<Row, kItemStates> kTable{
    Row{/* enabling */ kReplicating | bit(S::kDisabling), bit(A::kReplicate) | bit(A::kUnprotect)},
    Row{/* initial-replication */ kReplicating | bit(S::kFailingOver) | bit(S::kDisabling),
        kLive & ~bit(A::kResynchronise)},
    Row{/* protected */ kReplicating | bit(S::kFailingOver) | bit(S::kDisabling), kLive},
    Row{/* catching-up */ kReplicating | bit(S::kFailingOver) | bit(S::kDisabling), kLive},
    Row{/* resynchronising */ kReplicating | bit(S::kFailingOver) | bit(S::kDisabling), kLive},
    Row{/* failing-over */ kReplicating | bit(S::kFailedOver) | bit(S::kDisabling), bit(A::kRead)},
    Row{/* failed-over */ kReplicating | bit(S::kFailingOver) | bit(S::kCommitted) |
            bit(S::kDisabling),
        kReading | bit(A::kTestFailover) | bit(A::kChangePoint) | bit(A::kCommit) |
            bit(A::kCancelFailover) | bit(A::kMove)},
    Row{/* committed */ bit(S::kReprotecting) | bit(S::kDisabling),
        kReading | bit(A::kTestFailover) | bit(A::kReprotect) | bit(A::kHydrate) | bit(A::kMove)},
    Row{/* reprotecting */ bit(S::kCommitted) | bit(S::kReverseProtected) | bit(S::kDisabling),
        kReturning | bit(A::kCancelReprotect) | bit(A::kHydrate)},
    Row{/* reverse-protected */ bit(S::kReprotecting) | bit(S::kCommitted) | bit(S::kFailingBack) |
            bit(S::kDisabling),
        kReturning | bit(A::kCancelReprotect) | bit(A::kFailback) | bit(A::kHydrate)},
    Row{/* failing-back */ bit(S::kReverseProtected) | bit(S::kFailedBack) | bit(S::kDisabling),
        kReturning | bit(A::kCancelFailback)},
    Row{/* failed-back */ bit(S::kReprotecting) | bit(S::kCommittedHome) | bit(S::kDisabling),
        kReading | bit(A::kReplicate) | bit(A::kBookmark) | bit(A::kTestFailover) |
            bit(A::kCommitHome) | bit(A::kCancelFailback)},
    Row{/* committed-home */ kReplicating | bit(S::kDisabling),
        kReading | bit(A::kReplicate) | bit(A::kBookmark) | bit(A::kCommitHome)},
    Row{/* disabling */ 0, bit(A::kUnprotect)},
};

const Row& row(S state) { return kTable.at(static_cast<size_t>(state)); }

}  // namespace

std::string_view item_state_name(ItemState state) { return kNames.at(static_cast<size_t>(state)); }

Result<ItemState> item_state_from_name(std::string_view name) {
    for (size_t i = 0; i < kNames.size(); ++i)
        if (kNames[i] == name) return static_cast<ItemState>(i);
    return fail(Code::kMalformed,
                fmt::format("'{}' is not a state of an item", name.substr(0, 64)));
}

Status check_transition(ItemState from, ItemState to) {
    if (from == to || (row(from).next & bit(to)) != 0) return {};
    return fail(Code::kWrongState, fmt::format("an item that is {} cannot become {}",
                                               item_state_name(from), item_state_name(to)));
}

std::string_view item_action_name(ItemAction action) {
    return kActions.at(static_cast<size_t>(action));
}

Status check_action(ItemState state, ItemAction action) {
    if ((row(state).actions & bit(action)) != 0) return {};
    std::string possible;
    for (size_t i = 0; i < kActions.size(); ++i) {
        if ((row(state).actions & 1u << i) == 0 || i == static_cast<size_t>(A::kReplicate))
            continue;
        possible += possible.empty() ? "" : ", ";
        possible += kActions[i];
    }
    return fail(Code::kWrongState,
                fmt::format("'{}' is not possible while the item is {}", item_action_name(action),
                            item_state_name(state)),
                fmt::format("possible now: {}", possible));
}

std::vector<ItemState> next_states(ItemState state) {
    std::vector<ItemState> states;
    for (int i = 0; i < kItemStates; ++i)
        if ((row(state).next & 1u << i) != 0 && i != static_cast<int>(state))
            states.push_back(static_cast<ItemState>(i));
    return states;
}

std::vector<ItemAction> possible_actions(ItemState state) {
    std::vector<ItemAction> actions;
    for (int i = 0; i < kItemActions; ++i)
        if ((row(state).actions & 1u << i) != 0) actions.push_back(static_cast<ItemAction>(i));
    return actions;
}

bool is_returning(ItemState state) {
    return state == S::kReprotecting || state == S::kReverseProtected || state == S::kFailingBack;
}

bool is_replicating(ItemState state) { return (kReplicating & bit(state)) != 0; }

}  // namespace farshore
