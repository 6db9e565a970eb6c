// An appliance's part in shared points (docs/design/groups.md): passes the vault's orders on to the
// agents whose connections it has, and their answers back, all of one step in one call. Decides
// nothing but how long it waits.
//
// On one executor, with all callbacks; the vault is asked on executors of its own, each of which
// serves one point at a time. Everything borrowed outlives it; nothing of a point survives it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "replicate/shared_point.h"
#include "replicate/vault_link.h"

namespace farshore {

class GroupRelay {
  public:
    // `callers` may block. None of them: shared points are none of this appliance's business.
    GroupRelay(Executor& home, Clock& clock, VaultLink& vault, std::string appliance,
               std::vector<Executor*> callers);
    ~GroupRelay();

    // A connection of an agent's that orders go to. The newest one of an agent counts.
    void attach(uint64_t session, const std::string& agent, std::function<void(Bytes)> send);
    void detach(uint64_t session);
    // kMalformed. What nobody waits for is not heard.
    Status on_report(uint64_t session, ByteView body);
    // Points that are to be made, as the vault says each second. More than there are callers for:
    // those come up again.
    void take(const std::vector<BarrierOrder>& points);

    size_t under_way() const { return talks_.size(); }

  private:
    struct Session {
        std::string agent;
        std::function<void(Bytes)> send;
    };
    // The conversation about one point.
    struct Talk {
        BarrierOrder order;                  // its step: what our members are doing
        std::map<ItemId, uint64_t> members;  // ours, with the session that they were reached by
        std::map<ItemId, MemberOutcome> outcomes;
        Executor* caller = nullptr;
        bool calling = false;
        unsigned lost_calls = 0;
        int64_t give_up_us = 0;
        std::optional<Executor::TimerId> timer;
    };
    using Talks = std::map<SharedPointId, Talk>;

    void find_members(Talk& talk);
    void call(Talk& talk);
    void answered(const SharedPointId& point, const Result<BarrierOrder>& next);
    void begin_step(Talk& talk, BarrierStep step);
    // Ours are done, one cannot, or time is over: the vault is told.
    void look(Talk& talk, bool long_since = false);
    void look_later(Talk& talk, int64_t delay_us);
    void end(Talks::iterator talk, bool abandon);
    void send(const Talk& talk, BarrierStep step);

    Executor& home_;
    Clock& clock_;
    VaultLink& vault_;
    const std::string appliance_;
    std::vector<Executor*> callers_;  // those that are free
    std::map<uint64_t, Session> sessions_;
    Talks talks_;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace farshore
