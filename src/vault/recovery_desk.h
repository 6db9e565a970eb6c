// Test failovers, failovers and exports as the vault offers them: src/recovery's verbs with points
// resolved, leases taken from the item's replica, the item's state moved, and jobs around what
// lasts.
//
// Owned by the server, borrows the vault. Any thread may call.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "recovery/failover.h"
#include "recovery/nic_settings.h"
#include "recovery/plan_run.h"
#include "vault/compute_hosts.h"
#include "vault/return_desk.h"
#include "vault/vault.h"

namespace farshore {

class Database;
class ThreadExecutor;

// Recoveries with such an id are drills': nobody else's clean-up ends them.
inline constexpr const char* kDrillRecoveryPrefix = "drill-";

// An export that nobody renews ends after this.
inline constexpr int64_t kExportKeptUs = 60'000'000;
inline constexpr size_t kMaxExports = 64;

// Of a failover: what becomes of the source before.
struct FailoverChoice {
    // It is shut down, and what it wrote last is sent, as far as it can still be reached.
    bool shut_down = false;
    // And nothing is lost, or it does not happen.
    bool planned = false;
    bool power_off = false;  // a machine that does not shut down in time is ended
    uint32_t timeout_s = kShutDownPatienceS;
    std::string note;  // what it is for; of a test, too
    // What becomes of it when nobody decides for so long.
    Undecided undecided = Undecided::kWaits;
    uint32_t undecided_s = 0;
    // Of every network card; none: what is set for each of the item's, else `usual_network`, else
    // the user network for real and none at all (isolated) for a test.
    std::optional<NetworkChoice> network, usual_network;
    // The compute host that runs it, "local" for the vault's own machine; empty: where the item's
    // machine is to run.
    std::string compute;
    // The id of the test or failover that begins, or of the test to clean up; empty: one that is
    // drawn, all.
    std::string recovery;
};

// What is set for the item's network cards, by place.
Result<std::map<uint32_t, NicSettings>> nic_settings(Database& database, const ItemId& item);
// The item's machine as it is at the source; a plain one when nobody has described it.
Result<MachineDescription> known_machine(const ItemRecord& item);
// The item's network cards as they are at the source; one when nobody has described them.
Result<std::vector<MachineNic>> nics_of(const ItemRecord& item);

// As requests and jobs have it. kMalformed.
Result<FailoverChoice> read_failover_choice(const JsonFields& fields);

struct ExportReport {
    RecoveryState state;
    uint64_t size_bytes = 0;
};

class RecoveryDesk {
  public:
    struct Options {
        std::string store_location;            // store/store_settings.h
        std::string store_settings_file;       // empty: none
        std::string run_directory;             // empty: VAULT/run
        std::string plugin;                    // empty: found beside the program
        std::string accelerator;               // empty: found out
        int64_t tick_interval_us = 1'000'000;  // 0: only by tick()
    };
    RecoveryDesk(Vault& vault, FileSystem& files, Clock& clock, Random& random,
                 const Options& options);
    ~RecoveryDesk();

    // Takes up what an earlier vault left: before Vault::resume_jobs().
    Status resume();
    // What a vault that died between a state and its job has left. Behind Vault::resume_jobs().
    void mend();
    void tick();

    // `action` is test, start, change-point, move, commit, cancel, keep-open or cleanup; a job does
    // it.
    // `copy`: the store whose points are meant, for test and start; empty: the vault's own.
    Result<JobRecord> failover(const std::string& item, const std::string& action,
                               const std::string& point, const std::string& copy = {},
                               const FailoverChoice& choice = {});
    // What a committed failover reads from the replica still is copied into its own disks, behind
    // the machine (recovery/hydration.h); a job, which can be cancelled and goes on with the next.
    // 0 bytes a second: as fast as it goes. With a directory they become files there, at the
    // machine's host (Recoveries::make_own_files).
    struct HydrationChoice {
        uint64_t bytes_per_s = 0;
        std::string directory;
        DiskFormat format = DiskFormat::kQcow2;
    };
    Result<JobRecord> hydrate(const std::string& item, const HydrationChoice& choice);
    // The way home of what runs here.
    ReturnDesk& returns() { return *returns_; }
    // For plans: starts the machine of an item under the id `recovery`, which is used once; or
    // brings it home. A job. Half of `limit_s` is for a machine that is shut down before.
    Result<JobRecord> start_as(const std::string& recovery, const std::string& item,
                               const PlanRun& run, PlanSource source, uint32_t limit_s,
                               const std::string& note);
    // Ends a test failover and forgets what it wrote. Ok when there is none; kWrongState: it is
    // none.
    Status clean_up_test(const std::string& recovery);
    // What src/recovery has; for plans and drills.
    Recoveries& recoveries() { return *recoveries_; }
    // A test of an item at a point, resolved, without an id: what it would need here, and what
    // starts it.
    Result<RecoveryRequest> test_request(const ItemId& item, const std::string& point);
    // Plugs the request's network cards in, by its item and kind, as FailoverChoice says.
    Status plug_in(RecoveryRequest& request, const std::optional<NetworkChoice>& network,
                   const std::optional<NetworkChoice>& usual);
    // Whether the host on which it is to run has what the request's machine needs: errors of
    // RecoveryCompute::check().
    Status check_place(const RecoveryRequest& request);
    // A compute host, as it is set: kNotFound.
    ComputeHosts& compute_hosts() { return hosts_; }
    // kWrongState while a machine runs on that host; `but_for_what_was_left`: one that was given up
    // while the host could not be reached does not count, and is forgotten when the host is.
    Status check_unused(const std::string& host, bool but_for_what_was_left = false);
    Result<std::vector<RecoveryState>> failovers(const std::string& item);
    // Before an item is unprotected. A machine on files of its own goes on, and is not ours any
    // more once the item is gone; another one that was failed over is in the way (kWrongState), or
    // ended by force with all else that runs of the item.
    Status prepare_unprotect(const ItemRecord& item, bool force);

    Result<ExportReport> start_export(const std::string& item, const std::string& point,
                                      DiskIndex disk, const std::string& socket,
                                      const std::string& copy = {});
    // Renews it. kNotFound.
    Result<ExportReport> renew_export(const std::string& id);
    std::vector<ExportReport> exports();
    Status end_export(const std::string& id);

  private:
    struct Export {
        int64_t until_us = 0;  // steady
        uint64_t size_bytes = 0;
        std::string socket;
    };
    void tick_here();
    void decide();
    void tend_addresses();
    void set_addresses(const RecoveryState& state, bool is_last);
    std::string new_id(std::string_view kind);
    JobWork machine_work(const std::string& input);
    JobWork cancel_work(const std::string& input);
    JobWork hydrate_work(const std::string& input);
    Result<std::string> make_files(JobRun& run, const std::string& id,
                                   Recoveries::OwnFilesOrder order);
    void let_orphans_go();
    JobWork move_work(const std::string& input);
    Result<JobRecord> move_machine(const ItemRecord& item, const FailoverChoice& choice);
    Result<MoveRequest> move_request(const RecoveryState& state, const std::string& new_id,
                                     const FailoverChoice& choice);
    // The one that counts, beside what was left at hosts that cannot be reached. kNotFound.
    Result<RecoveryState> failover_of(const ItemRecord& item);
    Result<JobRecord> start_failover(const ItemId& id, const PointSpec& spec,
                                     const std::string& point, const FailoverChoice& choice,
                                     const std::function<Result<JobRecord>()>& job);
    Result<std::string> start_machine(JobRun& run, const std::string& input);
    Result<std::string> place_of(const ItemId& item, const std::string& compute);
    void say_left(const RecoveryState& state);
    Status give_up(const RecoveryState& state, Recoveries::CleanUp how);
    Status claim(const ItemId& item, const std::string& recovery);
    static bool fails_over(const std::vector<JobRecord>& open, const ItemId& item);
    Result<ItemRecord> put_back(const ItemRecord& item);
    // Whether some items are failing over still.
    Result<bool> mend_failovers();
    Status empty_source(JobRun& run, const ItemRecord& item, const FailoverChoice& choice);
    std::string result_of(const RecoveryState& state);
    std::vector<RecoveryState> of_item(const ItemId& item, RecoveryKind kind);
    ExportReport export_report(const RecoveryState& state);

    Vault& vault_;
    FileSystem& files_;
    Clock& clock_;
    Random& random_;
    ComputeHosts hosts_;
    std::unique_ptr<Recoveries> recoveries_;
    std::unique_ptr<ReturnDesk> returns_;
    // Held from a look at an item's state until it is failing over and has its job.
    std::mutex start_mutex_;
    std::atomic<bool> stranded_{false};  // a state could not be put back
    std::mutex mutex_;
    std::map<std::string, Export> exports_;  // guarded by mutex_, like all below
    // Of items that fail over just now, the recovery that does it.
    std::map<ItemId, std::string> starting_;
    // Failovers that are decided about, by id: when, by the steady clock. Of tick() alone.
    std::map<std::string, int64_t> undecided_;
    int64_t orphans_us_ = 0;  // when they are looked for again, by the steady clock; of its thread
    // Of machines whose addresses are to be set, by id: since when, by the steady clock; and
    // whether one of them is worked on. Under mutex_.
    struct Addressing {
        int64_t since_us = 0, again_us = 0;
        bool busy = false;
    };
    std::map<std::string, Addressing> addressing_;
    std::unique_ptr<ThreadExecutor> addresser_;
    std::unique_ptr<ThreadExecutor> ticker_, elsewhere_;
    std::unique_ptr<ThreadExecutor> preparer_;
};

}  // namespace farshore
