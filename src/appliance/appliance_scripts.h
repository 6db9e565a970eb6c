// Programs that the vault's recovery plans have run on the appliance's machine: those of one
// directory, which whoever runs the machine fills, and no others. docs/design/plans.md, "Scripts on
// appliances".
//
// follow() and keep_limits() on one thread, where they block (seconds, when they end what does not
// end); words() and programs() on any.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/seams.h"
#include "os/script_runs.h"
#include "replicate/script_orders.h"

namespace farshore {

// Handles that were forgotten and are remembered as such: a vault whose database was put back may
// want one of them once more.
inline constexpr size_t kMaxOverHandles = 1000;

class ApplianceScripts {
  public:
    // `programs`: the directory; need not be there. `state`: our own, made when it is needed.
    ApplianceScripts(FileSystem& files, Clock& clock, std::string programs, std::string state);

    // What is wanted, all of it: begins and ends, and forgets the rest. The first call reads what
    // an earlier appliance on that directory knew; while that cannot be read nothing is done or
    // said.
    void follow(const std::vector<ScriptOrder>& orders);
    // Ends what is over its limit, whether or not anybody gives orders.
    void keep_limits();
    // Of all that there is, as follow() found it last; what is wanted first.
    std::vector<ScriptWord> words() const;
    // Names of what could be run, kMaxScriptsTold at most.
    std::vector<std::string> programs() const;

  private:
    struct Known {
        int64_t limit_us = 0;
        int64_t since_us = 0;  // steady: it was begun then, or found by us
    };
    std::string mark_of(const std::string& handle) const { return marks_ + "/" + handle; }
    Status open();
    // None: nothing is said of it this time.
    std::optional<ScriptWord> follow_one(const ScriptOrder& order);
    ScriptWord look(const std::string& handle);
    Status make_ready(const ScriptOrder& order);
    Status forget(const std::string& handle);

    FileSystem& files_;
    Clock& clock_;
    const std::string programs_, state_, marks_;
    ScriptRuns runs_;
    bool opened_ = false;
    std::map<std::string, Known> known_;  // whose mark is there
    std::deque<std::string> over_;        // oldest first
    mutable std::mutex mutex_;
    std::vector<ScriptWord> words_;  // under mutex_
};

}  // namespace farshore
