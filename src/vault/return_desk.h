// The way home as the vault offers it: reprotection, failback, and back out of both, as jobs around
// Vault's states (vault_return.cc), the machine at the recovery site (recovery/failover.h) and the
// vault's own agent (recovery_site.h). docs/design/return.md.
//
// Owned by the server, borrows what it is given. Any thread may call.
#pragma once

#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>

#include "recovery/failover.h"
#include "vault/recovery_site.h"
#include "vault/vault.h"

namespace farshore {

inline constexpr uint32_t kShutDownPatienceS = 120;  // unless somebody says otherwise
inline constexpr uint32_t kMaxShutDownPatienceS = 3600;

struct FailbackRequest {
    uint32_t timeout_s = kShutDownPatienceS;  // for the machine to shut down
    bool power_off = false;                   // then it is ended
};

class JsonFields;
// As requests and jobs have them. kMalformed.
Result<ReturnRequest> read_return_request(const JsonFields& fields);
Result<FailbackRequest> read_failback(const JsonFields& fields);

// Before a failed-over machine is captured: copies of its disks into files at its host that nobody
// waits for any more are given up. kWrongState when somebody does, or disks are such files.
Status give_up_files(Database& database, Recoveries& recoveries, const std::string& recovery);

class ReturnDesk {
  public:
    ReturnDesk(Vault& vault, Recoveries& recoveries);

    // Takes up what an earlier vault left: behind Recoveries::resume(), before
    // Vault::resume_jobs().
    Status resume();
    // What a vault that died between a state and its job has left. Behind Vault::resume_jobs().
    void mend();
    // Ends when the home has one state of the machine, and follows. With `accept` of one that is
    // under way: it goes on although something else is on the home's disks.
    Result<JobRecord> reprotect(const std::string& item, const ReturnRequest& request);
    Result<JobRecord> cancel_reprotect(const std::string& item);
    // Shuts the machine down, and ends when the home has all that it wrote.
    Result<JobRecord> failback(const std::string& item, const FailbackRequest& request);
    // The machine runs at the recovery site again, as it was when it was shut down.
    Result<JobRecord> cancel_failback(const std::string& item);
    // What is left of it at the recovery site goes.
    Result<JobRecord> commit(const std::string& item);

  private:
    struct Input;  // of a job
    static std::string encode(const Input& input);
    static Result<Input> decode(const std::string& text);
    Result<Input> input_for(const ItemId& item);
    // One that another node goes on with is not of the machine that is here.
    enum class Whose { kAnyNodes, kThisNodes };
    using JobKinds = std::initializer_list<std::string_view>;
    Result<JobRecord> open_job(const ItemId& item, JobKinds kinds, Whose whose = Whose::kAnyNodes);
    Status check_may_begin(const ItemId& item);
    bool is_left_reprotecting(const ItemRecord& item);
    bool is_left_captured(const ItemRecord& item);
    Result<JobRecord> start_for(const std::string& kind, const ItemRecord& item, bool cancellable);
    Status give_failback_up(const ItemRecord& item, const std::string& recovery,
                            const std::string& why);
    Result<JobRecord> start(const std::string& kind, const ItemRecord& item, bool cancellable,
                            const std::string& input);
    JobWork work_of(const std::string& kind, const std::string& input);
    Status wait_for_home(JobRun& run, const ItemId& item, double from, double to,
                         const std::function<Result<bool>(const ItemReport&)>& done);
    Status wait_let_go(JobRun& run, const ItemId& item);
    Result<std::string> run_reprotect(JobRun& run, const std::string& input);
    Result<std::string> run_cancel_reprotect(JobRun& run, const std::string& input);
    Result<std::string> run_failback(JobRun& run, const std::string& input);
    Result<std::string> run_cancel_failback(JobRun& run, const std::string& input);
    Result<std::string> run_commit(JobRun& run, const std::string& input);
    Result<std::string> result_of(const ItemId& item);

    Vault& vault_;
    Recoveries& recoveries_;
    std::mutex start_mutex_;  // from a look at an item's state until what begins has its job
    RecoverySite site_;
};

}  // namespace farshore
