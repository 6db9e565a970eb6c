// Drills: points of items that are booted in isolation, by the clock or after each consistent
// point, looked at, judged, and taken away again. docs/operations/drills.md.
//
// Owned by the server, borrows the vault and the recovery desk. Any thread may call.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/weekly_windows.h"
#include "meta/drills.h"
#include "os/script_runs.h"
#include "recovery/drill_policy.h"
#include "vault/vault.h"

namespace farshore {

class RecoveryDesk;
class ThreadExecutor;

inline constexpr size_t kMaxOpenDrills = 16;
inline constexpr size_t kMaxDrillDocumentBytes = 1u << 20;
inline constexpr size_t kMaxScreenBytes = 16u << 20;
inline constexpr size_t kMaxSerialBytes = 256u << 10;  // the end of what was said is kept

// What all drills together may take; a drill waits until there is room.
struct DrillBudget {
    uint32_t cpus = 0;
    uint64_t memory_bytes = 0;
};

class DrillDesk {
  public:
    struct Options {
        int64_t tick_interval_us = 1'000'000;  // 0: only by tick()
    };
    DrillDesk(Vault& vault, RecoveryDesk& recovery, FileSystem& files, Random& random,
              const Options& options);
    ~DrillDesk();

    // After RecoveryDesk::resume() and Vault::resume_jobs(): what an earlier vault left; from then
    // on it begins what is due.
    Status resume();
    // About once a second: begins what is due.
    void tick();

    // None: there is none.
    std::optional<DrillPolicy> policy(const ItemId& item);
    Status set_policy(const ItemRecord& item, const DrillPolicy& policy);
    Status remove_policy(const ItemId& item);
    // A drill now, with the item's policy. A job. kWrongState: it has none; kInProgress,
    // kLimitReached.
    Result<JobRecord> start(const ItemRecord& item, const std::string& point);

    DrillBudget budget();
    // kInvalidArgument: nothing would fit.
    Status set_budget(const DrillBudget& budget);
    // What its last screen showed, as PNG; the end of its serial line. kNotFound: there was none,
    // or it is on the machine of another vault node.
    Result<Bytes> screenshot(uint64_t drill);
    Result<Bytes> serial_log(uint64_t drill);
    std::optional<DrillBadge> badge(const ItemRecord& item);

  private:
    // Of an item, so that a report of it asks no database.
    struct Known {
        std::optional<DrillPolicy> policy;
        TimePoint policy_set;
        std::optional<WeeklyWindows> windows;  // none: at any time
        DrillRecord newest, judged, good;      // `id` 0: there is none
        TimePoint made;                        // the newest consistent point that was judged
        uint64_t undone = 0;                   // could not be done, since then, one after another
        DrillRecord newest_undone;
        std::string said;  // why, as it was told
    };
    // What a drill has seen, for its record.
    struct Evidence;
    Status load();
    void know_policy(const ItemId& item, const DrillPolicy& policy, TimePoint set);
    void learn(const DrillRecord& drill);
    bool is_due(const Known& known, TimePoint made, std::string& point, std::string& why) const;
    // `made`: the consistent point that it is for.
    Result<JobRecord> launch(const ItemRecord& item, const std::string& point,
                             const std::string& why, TimePoint made = {});
    Status check_quiet();
    bool is_news(const ItemId& item, const std::string& why);
    Result<std::string> run_job(JobRun& run, uint64_t id);
    Status wait_in_line(JobRun& run, uint64_t id, const MachineDescription& machine);
    void leave_line(uint64_t id);
    DrillVerdict watch(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                       Evidence& evidence);
    DrillVerdict check(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                       Evidence& evidence);
    // Whether it exited with 0; else `evidence` says why not.
    Result<bool> run_check(JobRun& run, const DrillCheck& check, size_t number,
                           const DrillRecord& drill, Evidence& evidence);
    void keep_evidence(const DrillRecord& drill, Evidence& evidence);
    std::string directory(uint64_t drill) const;

    Vault& vault_;
    RecoveryDesk& recovery_;
    FileSystem& files_;
    Random& random_;
    int64_t tick_interval_us_;
    std::string root_, scripts_directory_;
    int64_t looked_us_ = 0;      // steady: when consistent points were asked for last; the ticker's
    int64_t quiet_from_us_ = 0;  // steady: not before; the ticker's
    ScriptRuns scripts_;
    std::mutex mutex_;
    std::map<ItemId, Known> known_;  // guarded by mutex_, like all below
    struct Place {
        uint32_t cpus = 0;
        uint64_t memory_bytes = 0;
        bool runs = false;
    };
    std::map<uint64_t, Place> line_;  // by drill
    DrillBudget budget_;
    std::unique_ptr<ThreadExecutor> ticker_;
};

}  // namespace farshore
