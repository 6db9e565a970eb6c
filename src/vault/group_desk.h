// Replication groups in the vault: who is in them, when their shared points are due, and the
// conversation by which one is made (replicate/barrier.h). docs/design/groups.md.
//
// Owned by the vault. Any thread may call; step() is held for up to a second, everything else
// blocks on the database alone. What is under way lives in memory: a vault that ends costs the
// points that it was making, which the next one finds as asked for and gives up.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "meta/groups.h"
#include "replicate/barrier.h"
#include "vault/vault.h"

namespace farshore {

struct AskSharedPoint {
    std::string group;
    bool application = false;
    std::string label;  // of the records; empty: the group's name and the point's id
    bool by_policy = false;
};

class GroupDesk {
  public:
    explicit GroupDesk(Vault& vault);

    Result<GroupRecord> create(const GroupRecord& group);
    Result<GroupRecord> change(const std::string& name, std::optional<uint32_t> crash_interval_s,
                               std::optional<uint32_t> application_interval_s);
    Status remove(const std::string& name);
    // Names or ids of items. What is a member already stays one.
    Result<GroupRecord> join(const std::string& name, const std::vector<std::string>& items);
    Result<GroupRecord> leave(const std::string& name, const std::string& item);

    // It is made soon. kNotFound, kWrongState (no members), kInvalidArgument (label).
    Result<SharedPointRecord> ask(const AskSharedPoint& wanted);
    // Waits until it is stored or void, for at most `timeout_us`.
    Result<SharedPointRecord> point(const std::string& id, int64_t timeout_us);
    // Why the newest point of the policy was not made; none: it was.
    Result<std::optional<ItemError>> trouble(const GroupRecord& group);

    // Whether one of these items is in a group.
    Result<bool> has_member(const std::vector<ItemRecord>& items);

    // For appliances (VaultLink).
    std::vector<BarrierOrder> offered();
    Result<BarrierOrder> step(const BarrierReport& report);

    // A round: what is due is asked for, what is asked for begun, what is over written down, what
    // nothing is left of forgotten.
    void tend();
    // Whoever waits gets what there is now.
    void stop();

  private:
    struct Running {
        Barrier barrier;
        SharedPointRecord record;
        bool finishing = false;  // its end is being written down
    };
    void ask_what_is_due();
    void begin_what_is_asked();
    Result<BarrierOrder> first_order(const SharedPointRecord& record);
    void finish(const SharedPointId& id, const std::shared_ptr<Running>& running);
    Status give_up(SharedPointRecord record, SharedPointState before, const Error& error);
    Status note_what_was_asked();
    void look_what_is_stored();
    void forget_old();
    void forget_members();
    Result<bool> save(const SharedPointRecord& record, SharedPointState before);

    Vault& vault_;
    std::mutex begin_mutex_;  // what is asked for is begun once
    // Asked for before this began: whoever made them is gone. None: not read yet.
    std::optional<std::set<std::string>> from_before_;
    std::mutex mutex_;  // everything below
    std::condition_variable changed_;
    std::map<SharedPointId, std::shared_ptr<Running>> running_;
    size_t held_ = 0;  // calls of step()
    bool stopping_ = false;
    std::set<std::string> told_;               // groups whose points fail, and that was said
    int64_t forgot_us_ = 0;                    // steady; of the tender alone
    std::optional<std::set<ItemId>> grouped_;  // none: not read since it changed
    uint64_t grouped_changes_ = 0;
};

}  // namespace farshore
