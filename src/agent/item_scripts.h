// Scripts of a machine's owner around its application-consistent points: `pre` before file systems
// are frozen, `post` when they are thawed. docs/operations/consistency.md.
//
// They lie in a directory of the agent's: DIR/ITEM/pre and post for one item, DIR/pre and post for
// those that have no directory of their own. Run as the agent's user, as programs (no shell sees a
// name), in a process group that is killed when their time is over. Blocking; one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/rest_limits.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

inline constexpr size_t kMaxScriptOutputBytes = 64u << 10;

struct ItemScripts {
    // Paths; empty: there is none.
    std::string pre, post;
    bool any() const { return !pre.empty() || !post.empty(); }
};

// What there is for the item. kForbidden: a directory or script that others than root and the
// agent's user could have written, a link, or one that cannot be run; with what to do about it.
Result<ItemScripts> find_scripts(const std::string& directory, const std::string& item_name);

struct ScriptCall {
    std::string path;
    ItemId item;
    std::string item_name;
    std::string label;    // of the point
    std::string outcome;  // post: "made", "failed", or "unknown" (the agent was started anew)
    int64_t timeout_us = RestLimits().script_us;
};
// kTimeout, kTooLarge (killed), kUnavailable (its exit status, with the end of what it said).
Status run_script(const ScriptCall& call);

}  // namespace farshore
