// Recovery plans as the vault offers them: kept, looked through, run, stopped, resumed, reported.
// docs/design/plans.md.
//
// Owned by the server, borrows the vault. Any thread may call.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "meta/recovery_plans.h"
#include "os/script_runs.h"
#include "recovery/plan_run.h"
#include "vault/vault.h"

namespace farshore {

class RecoveryDesk;

// What a run of a plan would fail at, or might.
struct PlanFinding {
    Severity severity = Severity::kWarning;  // kCritical: it would fail
    std::string step;                        // its id; empty: of the whole
    std::string what, remedy;
};

struct StartPlan {
    PlanMode mode = PlanMode::kTest;
    std::string point = "latest";
    std::string note, by;
    bool unchecked = false;  // though the look beforehand finds what would fail
};

class PlanDesk {
  public:
    // `recovery` null: its runs fail at the first machine.
    PlanDesk(Vault& vault, RecoveryDesk* recovery, FileSystem& files, Random& random,
             std::string node);
    ~PlanDesk();

    // Where webhooks call back: "https://host:port". Until it is known none is told.
    void set_address(const std::string& url);
    // After Vault::resume_jobs() and RecoveryDesk::mend(): runs that were to go on and have no job;
    // and only now those that have one go on.
    Status resume();

    Result<PlanRecord> add(const RecoveryPlan& plan);
    // kWrongState: its name is another one.
    Result<PlanRecord> change(const std::string& name, const RecoveryPlan& plan);
    // What it would fail at now; changes nothing.
    Result<std::vector<PlanFinding>> check(const std::string& name, PlanMode mode,
                                           const std::string& point);

    // kWrongState: another one that is no test is not over; what check() finds.
    Result<PlanRun> start(const std::string& name, const StartPlan& how);
    Result<PlanRun> run(uint64_t id);
    Result<PlanRun> stop(uint64_t id, const std::string& by);
    Result<PlanRun> go_on(uint64_t id, const std::vector<std::string>& skip, const std::string& by);
    Result<PlanRun> cancel(uint64_t id, const std::string& by);
    // Of a person, to a manual step that waits.
    Result<PlanRun> answer(uint64_t id, const std::string& step, bool good, const std::string& note,
                           const std::string& by);
    // Of a webhook. kNotFound: no step waits for it, or the token is not its own; kUnavailable:
    // nobody knows yet.
    Status callback(const std::string& handle, const std::string& token, bool good,
                    const std::string& note);
    // Ends the machines of a test run. A job. kWrongState: it runs, is no test, or its machines are
    // on another vault node.
    Result<JobRecord> clean_up(uint64_t id);

  private:
    Result<PlanRun> launch(const PlanRunRecord& record);
    Status learn_callbacks();
    bool is_elsewhere(const PlanStep& step) const;
    JobWork work(uint64_t id);
    Result<std::string> run_job(JobRun& run, uint64_t id);
    Result<std::string> work_off(JobRun& run, uint64_t id);
    Result<std::string> run_clean_up(JobRun& run, uint64_t id);
    // What all machines of a run want of this one.
    struct Need {
        uint64_t memory_bytes = 0;
        uint32_t largest_cpus = 0;
        std::string largest;  // of which item
        uint64_t machines = 0, disk_bytes = 0;
    };
    // By the name of the compute host; empty: this machine.
    using Needs = std::map<std::string, Need>;
    Status forget_old_scripts();
    // What the step would fail with.
    Status check_step(const PlanRun& run, const PlanStep& step, Needs& needs);
    // What would fail of what they need together there.
    void check_disk(const Needs& needs, std::vector<PlanFinding>& findings);
    void check_room(const PlanRun& run, const std::string& compute, const Need& need,
                    std::vector<PlanFinding>& findings);

    Vault& vault_;
    RecoveryDesk* recovery_;
    FileSystem& files_;
    Random& random_;
    std::string node_;
    std::string scripts_directory_;
    std::mutex mutex_;
    std::string callback_url_;                   // under mutex_, like all below
    bool callbacks_known_ = false;               // of the runs of an earlier vault
    std::set<uint64_t> working_;                 // runs that a job is at
    std::map<std::string, uint64_t> callbacks_;  // handles that webhooks were given, with their run
    ScriptRuns scripts_;
    std::atomic<bool> released_{false};  // what an earlier vault left is mended
    std::atomic<uint64_t> answered_{0}, wished_{0};
};

}  // namespace farshore
