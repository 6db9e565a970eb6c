// The table of states, pair by pair.
#include "meta/item_state.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

namespace farshore {
namespace {

using S = ItemState;
using A = ItemAction;

const std::set<S> kLive{S::kInitialReplication, S::kProtected, S::kCatchingUp, S::kResynchronising};

std::map<S, std::set<S>> followers() {
    std::map<S, std::set<S>> next;
    for (const S from : kLive) {
        next[from] = kLive;
        next[from].insert(S::kFailingOver);
    }
    next[S::kEnabling] = kLive;
    next[S::kFailingOver] = kLive;
    next[S::kFailingOver].insert(S::kFailedOver);
    next[S::kFailedOver] = kLive;
    next[S::kFailedOver].insert({S::kFailingOver, S::kCommitted});
    next[S::kCommitted] = {S::kReprotecting};
    next[S::kReprotecting] = {S::kCommitted, S::kReverseProtected};
    next[S::kReverseProtected] = {S::kReprotecting, S::kCommitted, S::kFailingBack};
    next[S::kFailingBack] = {S::kReverseProtected, S::kFailedBack};
    next[S::kFailedBack] = {S::kReprotecting, S::kCommittedHome};
    next[S::kCommittedHome] = kLive;
    next[S::kDisabling] = {};
    for (auto& [from, to] : next) {
        if (from != S::kDisabling) to.insert(S::kDisabling);
        to.insert(from);
    }
    return next;
}

// Broken if a state could follow one that it must not, or could not follow one that it must.
TEST(ItemStates, EachPair) {
    const auto next = followers();
    for (int state = 0; state < kItemStates; ++state)
        EXPECT_EQ(item_state_from_name(item_state_name(static_cast<S>(state))),
                  static_cast<S>(state));
    for (int from = 0; from < kItemStates; ++from)
        for (int to = 0; to < kItemStates; ++to) {
            const S a = static_cast<S>(from), b = static_cast<S>(to);
            const Status checked = check_transition(a, b);
            EXPECT_EQ(checked.has_value(), next.at(a).contains(b))
                << item_state_name(a) << " -> " << item_state_name(b);
            if (checked) continue;
            EXPECT_EQ(checked.error().code(), Code::kWrongState);
            for (const S named : {a, b})
                EXPECT_NE(checked.error().what().find(item_state_name(named)), std::string::npos);
        }
}

// Broken if something were possible in a state that does it harm, or refused without saying what
// is possible instead.
TEST(ItemStates, EachActionInEachState) {
    const std::set<A> look{A::kRead, A::kUnprotect};
    std::set<A> captured = look;
    captured.insert({A::kReplicate, A::kBookmark, A::kTestFailover});
    std::set<A> live = captured;
    live.insert({A::kFailover, A::kResynchronise, A::kChangeDisks});
    std::map<S, std::set<A>> possible;
    for (const S state : kLive) possible[state] = live;
    possible[S::kInitialReplication].erase(A::kResynchronise);
    possible[S::kEnabling] = {A::kReplicate, A::kUnprotect};
    possible[S::kFailingOver] = {A::kRead};
    possible[S::kFailedOver] = {A::kRead,   A::kUnprotect,      A::kTestFailover, A::kChangePoint,
                                A::kCommit, A::kCancelFailover, A::kMove};
    possible[S::kCommitted] = {A::kRead,      A::kUnprotect, A::kTestFailover,
                               A::kReprotect, A::kHydrate,   A::kMove};
    possible[S::kReprotecting] = captured;
    possible[S::kReprotecting].insert({A::kCancelReprotect, A::kHydrate});
    possible[S::kReverseProtected] = captured;
    possible[S::kReverseProtected].insert({A::kCancelReprotect, A::kFailback, A::kHydrate});
    possible[S::kFailingBack] = captured;
    possible[S::kFailingBack].insert(A::kCancelFailback);
    possible[S::kFailedBack] = captured;
    possible[S::kFailedBack].insert({A::kCommitHome, A::kCancelFailback});
    possible[S::kCommittedHome] = {A::kRead, A::kUnprotect, A::kReplicate, A::kBookmark,
                                   A::kCommitHome};
    possible[S::kDisabling] = {A::kUnprotect};
    for (int i = 0; i < kItemStates; ++i) {
        const S state = static_cast<S>(i);
        std::set<A> told;
        for (const A action : possible_actions(state)) told.insert(action);
        EXPECT_EQ(told, possible.at(state)) << item_state_name(state);
        for (int j = 0; j < kItemActions; ++j) {
            const A action = static_cast<A>(j);
            const Status checked = check_action(state, action);
            EXPECT_EQ(checked.has_value(), possible.at(state).contains(action))
                << item_state_name(state) << ", " << item_action_name(action);
            if (checked) continue;
            EXPECT_EQ(checked.error().code(), Code::kWrongState);
            EXPECT_NE(checked.error().what().find(item_state_name(state)), std::string::npos);
            for (const A other : possible.at(state))
                if (other != A::kReplicate)
                    EXPECT_NE(checked.error().remedy().find(item_action_name(other)),
                              std::string::npos);
        }
    }
}

}  // namespace
}  // namespace farshore
