// The vault's inside, shared by vault.cc (opening, identities), vault_rebuild.cc, vault_items.cc,
// vault_disks.cc, vault_seed.cc, vault_materialise.cc, vault_consistent.cc, vault_resync.cc,
// vault_scrub.cc, vault_link.cc, vault_jobs.cc, vault_key*.cc, vault_stores.cc and
// vault_copies.cc, vault_policies.cc. Private to src/vault.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <unordered_map>

#include "base/bandwidth_limit.h"
#include "codec/envelope.h"
#include "codec/key_file.h"
#include "keys/key_source.h"
#include "meta/database.h"
#include "meta/database_ledger.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/parties.h"
#include "meta/seeds.h"
#include "os/load_meter.h"
#include "os/process.h"
#include "os/real.h"
#include "replica/item_key.h"
#include "replica/item_object.h"
#include "replica/replica_reader.h"
#include "store/counting_store.h"
#include "store/directory_store.h"
#include "store/retrying_store.h"
#include "vault/alarm_watch.h"
#include "vault/component_health.h"
#include "vault/resync_plan.h"
#include "vault/seed_import.h"
#include "vault/vault.h"

namespace farshore {

class GroupDesk;
struct DeletedItem;
struct SecondStore;
struct CopyRuntime;

// What the vault holds in memory of one item.
struct ItemRuntime {
    ItemId id;
    int64_t opened_us = 0;  // steady
    Secret key;
    std::unique_ptr<DatabaseLedger> ledger;
    std::shared_ptr<ItemReplica> replica;  // borrows ledger; whoever holds it holds the runtime

    // Held while the log is handed out, from the look at the item's state to the lease's mark in
    // the store; and by whoever deletes all that, behind the state that says so.
    std::mutex handing_mutex;

    // Held while checkpoints and retention work; once `deleting`, they write nothing any more.
    std::mutex upkeep_mutex;
    bool deleting = false;

    // Of a comparison with the source that runs; closed by the tender when nobody asks any more.
    std::mutex compare_mutex;
    std::shared_ptr<ReplicaReader> compare_reader;
    int64_t compare_opened_us = 0;  // steady
    int64_t compare_used_us = 0;
    bool compare_damage_told = false;            // of this reader
    std::shared_ptr<ReplicaReader> home_reader;  // of a return
    int64_t home_used_us = 0;                    // steady

    std::mutex damage_mutex;  // held while it is worked out what damage costs
    // Of the tender alone; steady.
    int64_t damage_weigh_us = 0, damage_recheck_us = 0, scrub_look_us = 0, changes_look_us = 0;
    Sequence changes_seen;
    std::unique_ptr<AlarmWatch> alarms;     // null: not read yet
    int64_t alarms_us = 0;                  // steady
    std::optional<TimePoint> changes_told;  // the newest event; none: not known yet

    std::mutex mutex;                                 // everything below
    std::optional<std::vector<DamageRecord>> damage;  // as the database has it; none: not read yet
    std::optional<AgentItemStatus> agent;
    int64_t agent_heard_us = 0;  // steady
    int64_t clock_ahead_us = 0;  // the source's clock, which stamps records, minus ours
    TimePoint agent_heard;
    bool status_stale = true;
    ReplicaStatus status;
    std::optional<SeedRecord> seed;  // as the database has it; none: not read yet
    uint64_t seed_changes = 0;
    WorstOfHour worst;
    // What its appliance cannot do, as it said last; and what our own upkeep failed with last.
    std::optional<Trouble> intake_trouble;
    int64_t intake_trouble_us = 0;  // steady
    std::optional<Trouble> checkpoint_trouble, retention_trouble;
    std::optional<ItemAppliance> appliance;  // as the database has it; none: not read yet
    // Counts what was asked for; and up to where it is known that none waits for its agent.
    uint64_t bookmarks_asked = 1, bookmarks_made = 0;
    // Steady: since when its agent has had no connection to its appliance; none: it has one.
    std::optional<int64_t> unsent_us;
    std::optional<UploadStatus> upload;  // as its appliance said last
    int64_t upload_us = 0;               // steady
    bool item_object_there = false;
    int64_t retention_us = 0;  // steady, when it ran last
    // Steady: since when it has been fit for consistent points; none: it is not.
    std::optional<int64_t> consistent_ready_us;
    int64_t job_report_us = 0;
    uint64_t copy_job = 0;             // the job that shows the first copy; 0: none
    std::optional<ResyncPlan> resync;  // as the database has it; none: not read yet
    uint64_t resync_changes = 0;
    ResyncWatch resync_watch;
    std::optional<Error> compare_error;  // what the newest comparison here failed with
    std::optional<ItemError> resync_failing;
    // Of its way home (vault_return.cc).
    std::optional<AgentItemStatus> home;
    int64_t home_heard_us = 0;      // steady
    int64_t return_renewed_us = 0;  // steady, when its leases were
    std::optional<bool> stand_by;   // Vault::set_stand_by()
    bool draining = false;          // Vault::set_draining()
    // What the source had written when it was last heard of before it was left, and since then.
    std::optional<uint64_t> left_bytes;
    uint64_t split_bytes = 0;
    std::string cancel_answered;  // the newest request to cancel that has its answer
    std::optional<ItemError> cancel_error;
};

// Keeps a point that is read by a job. Movable; lets go at its end.
class PointLease {
  public:
    PointLease() = default;
    PointLease(std::shared_ptr<ItemReplica> replica, uint64_t id)
        : replica_(std::move(replica)), id_(id) {}
    PointLease(PointLease&&) = default;
    PointLease& operator=(PointLease&& other) noexcept {
        std::swap(replica_, other.replica_);
        std::swap(id_, other.id_);
        return *this;
    }
    ~PointLease() {
        // One that cannot be given back expires.
        if (replica_) (void)replica_->release(id_);
    }
    Status renew(int64_t duration_us) {
        return replica_ ? replica_->renew(id_, duration_us) : Status();
    }
    uint64_t id() const { return id_; }
    // The next vault takes it up by its id.
    void leave() { replica_.reset(); }

  private:
    std::shared_ptr<ItemReplica> replica_;
    uint64_t id_ = 0;
};

// How often its retention runs.
int64_t retention_interval_us(const ItemPolicy& policy);

// What every verb on an item answers whose key was destroyed: kWrongKey.
Error key_is_destroyed(const std::string& name, TimePoint when);

// kInvalidArgument. `disks`: how many the machine has; 0: not known yet.
Status check_seeds(const std::vector<std::string>& seeds, size_t disks);

struct AgentContact {
    std::string instance;
    int64_t heard_us = 0;  // steady
    std::string version;
    std::optional<int64_t> clock_ahead_us;
    MachineLoad load;
};

// Of the tender alone.
struct ComponentRuntime {
    ComponentWatch watch;
    StoreWatch store;
    std::unique_ptr<AlarmWatch> alarms;  // null: not read yet
};

struct ApplianceContact {
    ApplianceRecord record;  // as the database has it
    ApplianceStatus status;
    std::optional<int64_t> heard_us;  // steady; none: not since the vault started
    int64_t saved_us = 0;
};

// A change of the key-encryption key that has begun and not ended; kept in the database.
struct KeyRotation {
    std::string from, to;              // ids; empty: there is none
    std::string source, final_source;  // where `to` is, and where it will be
    bool explicit_source = false;      // somebody named it: it counts from then on
    bool closing = false;              // nothing is under `from` any more
};

struct Vault::Impl {
    // Its own alone; shared, so that its type need not be known here.
    std::shared_ptr<GroupDesk> groups;
    int64_t certificates_looked_us = 0;  // steady, by tend()
    Impl(const VaultOptions& options_in, FileSystem& files_in, Clock& clock_in, Random& random_in)
        : options(options_in), files(files_in), clock(clock_in), random(random_in) {}

    const VaultOptions options;
    FileSystem& files;
    Clock& clock;
    Random& random;
    std::string vault_directory, pki_directory, store_location;

    std::optional<InstanceLock> lock;
    std::unique_ptr<CountingStore> bare_store;  // one attempt a call
    std::unique_ptr<RetryingStore> store;
    std::unique_ptr<Database> database;
    std::optional<VaultFence> fence;

    // Keys (vault_keys.cc, vault_key_*.cc). The ring has one key-encryption key, and while one is
    // exchanged for another, both.
    std::mutex keys_mutex;  // keyring, current_key, key_source
    Keyring keyring;
    std::string current_key;  // what is sealed from now on is sealed under it
    std::shared_ptr<KeySource> key_source;
    // Held while an item's key is wrapped and written down, so that a rotation misses none.
    std::mutex key_work;
    std::mutex key_rotation_start;
    int64_t keys_tended_us = 0;  // steady; of the tender alone
    KeyFile kek();
    Keyring keks();
    Result<Bytes> key_document(const std::string& id);
    Result<std::string> key_wanted_by_store();
    Status open_keys_of_rotation(const KeyRotation& rotation, const std::string& given);
    Result<KeyRotation> key_rotation();
    Result<std::vector<ItemId>> all_item_ids();
    Status rewrap_item(const ItemId& id, const KeyFile& to);
    Result<std::string> run_key_rotation(Vault& vault, JobRun& run);
    Status close_key_rotation(Vault& vault, KeyRotation rotation);
    Result<std::string> run_key_check(Vault& vault, JobRun& run);
    Result<std::string> run_key_destruction(Vault& vault, JobRun& run, const ItemId& id);
    Status check_no_lease(ItemRuntime& item);
    void tend_keys(Vault& vault);
    void tend_alarms(Vault& vault, const ItemRecord& record);
    // `record` null: of that component.
    Status change_alarm(Vault& vault, AlarmWatch& alarms, const ItemRecord* record,
                        const std::string& component, const AlarmChange& change);
    // Of components (vault_components.cc); the tender's, but for component_troubles.
    LoadMeter load;
    int64_t components_us = 0;  // steady
    int64_t started_us = 0;     // steady
    std::map<std::string, ComponentRuntime> components;
    std::map<std::string, std::vector<Trouble>> component_troubles;  // under `mutex`
    std::vector<ComponentReading> read_components();
    void tend_components(Vault& vault);
    void watch_component(Vault& vault, const std::string& name, ComponentRuntime& component,
                         const std::vector<Trouble>& troubles);

    std::optional<CertificateAuthority> authority;
    Secret admin_token;
    VaultInfo info;
    std::shared_mutex drill_mutex;
    std::function<std::optional<DrillBadge>(const ItemRecord&)> drill_badges;  // under drill_mutex
    std::atomic<bool> fenced{false};
    std::atomic<int64_t> certificate_until_us{0};  // of the API's certificate
    std::atomic<bool> ending{false};

    Result<std::string> only_agent();
    std::string free_party_name(PartyKind kind, const std::string& request_pem);

    std::mutex mutex;  // runtimes, set_aside, contacts, appliances, parties, returns,
                       // failed_bookmarks
    std::map<ItemId, std::shared_ptr<ItemRuntime>> runtimes;
    // Of each item as its newest report had it, and when that was (steady). Nothing else is locked
    // under its mutex.
    struct KnownHealth {
        std::string_view name;
        int64_t since_us = 0;
    };
    std::mutex health_mutex;
    std::unordered_map<ItemId, KnownHealth> known_health;
    // Items whose ledger could not be rebuilt because their own objects are damaged, with what
    // every verb on them answers. Their ledgers are marked; the next start tries again.
    std::map<ItemId, Error> set_aside;
    std::map<std::string, AgentContact> contacts;
    std::map<std::string, ApplianceContact> appliances;
    // Parties as the database has them; those that are not here are looked for there.
    std::map<std::string, PartyRecord> parties;
    // Of ways home (vault_return.cc): as the database has them.
    std::map<ItemId, ReturnRecord> returns;
    Status load_returns();
    std::optional<ReturnRecord> way_home(const ItemId& id);
    // Reads it, lets `change` edit it, keeps it. kNotFound.
    Result<ReturnRecord> change_return(const ItemId& id,
                                       const std::function<void(ReturnRecord&)>& change);
    void forget_return(const ItemId& id);
    bool take_home_status(const std::string& agent, const AgentItemStatus& status);
    // `own`: the items that the agent captures, as they were read for this round.
    Result<std::vector<DesiredItem>> orders_beside(const std::string& agent,
                                                   const AgentStatus& status,
                                                   const std::vector<ItemRecord>& own);
    Result<std::optional<DesiredItem>> stand_by_order(const ItemRecord& record,
                                                      const AgentItemStatus& source);
    void tend_return(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                     const ReplicaStatus& status);
    void report_return(ItemRuntime& item, const ItemRecord& record, ItemReport& report);
    void watch_split(Vault& vault, const ItemRecord& record, ItemRuntime& item,
                     const AgentItemStatus& source);
    Result<CompareAnswer> compare_for_home(ItemRuntime& item, const ReturnRecord& way,
                                           const CompareQuestion& question);
    Status move_to(const ItemId& id, const std::string& appliance);
    Status mend_return(ItemRuntime& item, const ItemId& id, const ReturnRecord& way);
    std::mutex return_mutex;  // one change of a way home at a time
    // Of appliances (vault_appliances.cc).
    Status load_appliances();
    Result<ItemAppliance> appliance_of(ItemRuntime& item);
    Status let_take(const ItemRecord& record, const std::string& appliance, Vault& vault);
    ApplianceAddress address_of(const std::string& appliance);
    // What agents are told of appliances; under `mutex`, null: made anew when it is asked for.
    struct ToldAppliances {
        std::vector<ApplianceAddress> appliances;
        std::string id;
    };
    std::shared_ptr<const ToldAppliances> told_appliances;
    std::shared_ptr<const ToldAppliances> appliances_to_tell();
    Status check_can_take(const std::string& appliance);
    Result<ItemAppliance> give_item(Vault& vault, const ItemRecord& record,
                                    const std::string& appliance, bool lost);
    Status tell_scripts(const std::string& appliance, const ApplianceStatus& status,
                        ApplianceOrders& orders);
    void report_appliance(ItemRuntime& item, const ItemRecord& record, ItemReport& report);
    // Bookmarks that an agent could not make, newest last: for whoever waits for them.
    std::deque<std::pair<std::string, Error>> failed_bookmarks;
    std::optional<Error> failed_bookmark(const std::string& id);
    Status take_failed_bookmark(Vault& vault, const ItemRecord& item,
                                const BookmarkRecord& bookmark, const AgentItemError& error);

    // Whoever waits for an item, a bookmark or a job is woken by every change.
    std::mutex change_mutex;
    std::condition_variable change_signal;
    uint64_t change_counter = 0;

    std::map<std::string, std::function<JobWork(const JobRecord&)>> resumers;
    std::mutex starting_mutex;  // from a job's row to its thread
    std::atomic<bool> jobs_resumed{false};
    // Jobs of this node that have a row and no thread: the row's commit had lost its answer.
    void end_lost_jobs();
    std::mutex retry_mutex;  // between looking at the open jobs and adding one
    std::mutex jobs_mutex;
    std::map<uint64_t, std::unique_ptr<ThreadExecutor>> job_threads;
    std::set<uint64_t> finished_jobs;  // threads that can be collected

    std::mutex materialise_mutex;  // between looking at the open jobs and adding one

    std::unique_ptr<ThreadExecutor> tender;
    std::atomic<int64_t> tend_period_us =
        0;  // from the begin of its newest round to the next  // background rounds

    // Stores beside the own one, and the copies in them (vault_stores.cc, vault_copies.cc).
    std::mutex stores_mutex;
    std::map<std::string, std::shared_ptr<SecondStore>> second_stores;
    Status load_second_stores();
    std::shared_ptr<SecondStore> remember_second_store(const StoreRecord& record);
    Status open_place(SecondStore& store, bool create);
    Status open_second(SecondStore& store);
    Result<std::shared_ptr<SecondStore>> second_store(const std::string& name);
    std::vector<std::shared_ptr<SecondStore>> all_second_stores();
    Status mirror_key_documents(SecondStore& second);
    bool tend_store(Vault& vault, const std::shared_ptr<SecondStore>& second);
    void start_worker(Vault& vault, const std::shared_ptr<SecondStore>& second);
    void end_workers();
    std::string new_claim_id();
    std::shared_ptr<CopyRuntime> copy_runtime(const std::shared_ptr<SecondStore>& second,
                                              const CopyRecord& record,
                                              const std::shared_ptr<ItemRuntime>& item);
    void forget_copies(SecondStore& second, const std::vector<CopyRecord>& records);
    std::vector<std::shared_ptr<CopyRuntime>> copies_of(const ItemId& item);
    Status open_copy(CopyRuntime& copy);
    void tell_copy(Vault& vault, const ItemRecord& record, CopyRuntime& copy,
                   const std::optional<Error>& error);
    bool tend_copy(Vault& vault, const std::shared_ptr<SecondStore>& second,
                   const CopyRecord& record);
    Status upkeep_copy(CopyRuntime& copy, const CopyRecord& record);
    Result<std::optional<Sequence>> followed(const ItemId& item);
    std::shared_ptr<ItemReplica> replica_of(CopyRuntime& copy);  // null: being made
    // Of the item itself, or of its copy in the store `copy`.
    Result<std::shared_ptr<ItemReplica>> replica_in(const std::string& copy, const ItemId& id);
    Result<ObjectStore*> store_in(const std::string& copy);
    Result<CopyReport> copy_report(const CopyRecord& record);
    void report_copies(const ItemRecord& record, ItemReport& report);
    Status stop_copy(const ItemId& item, const std::string& store_name);
    Status check_copy_is_free(const ItemId& item, const std::string& store_name);
    Result<uint64_t> delete_copy_objects(JobRun& run, const ItemId& item,
                                         const std::string& store_name);
    JobWork copy_removal_work(Vault& vault, const ItemId& item, const std::string& store_name);
    Status each_copy(const ItemId& item,
                     const std::function<Status(SecondStore&, const CopyRecord&)>& each);
    Status mirror_keys(const ItemId& id);
    Status destroy_copied_keys(const ItemId& item, TimePoint now);
    Result<size_t> mend_from_copies(Vault& vault, ItemRuntime& item, const ItemRecord& record);
    Status scrub_copies(Vault& vault, JobRun& run, const ItemRecord& record);

    BandwidthLimit scrub_limit;
    std::mutex scrub_start_mutex;  // one scrub of an item at a time
    std::mutex scrub_mutex;        // the rest
    int64_t scrub_next_us = 0;     // steady: when what was read is paid for
    std::set<ItemId> weighing;
    std::unique_ptr<ThreadExecutor> weigher;

    Status open();
    Status open_store();
    Status open_key();
    Status check_shared(const std::string& setting, const std::string& file, ByteView content);
    Status open_authority();
    Status open_token();
    Status claim_store();
    Status rebuild_items();
    Result<bool> rebuild_item(const ItemId& id);
    Result<ItemRecord> adopt_item(const ItemId& id, const ItemObject* object);
    Status put_aside(const ItemId& id, const ItemObject* object, const Error& damage);
    std::optional<Error> why_set_aside(const ItemId& id);
    Status forget_lost_items();
    // Whether the store has the item's object, or the description in its place.
    Result<bool> is_described(const ItemId& id);
    void schedule_tending();

    void notify();
    // Waits for a change or `until_us` (steady); false when it is time, or the vault ends.
    bool wait_change(uint64_t seen, int64_t until_us);
    uint64_t change_count();

    Result<std::shared_ptr<ItemRuntime>> runtime(const ItemId& id);
    // The remembered error when the item is set aside.
    Result<std::shared_ptr<ItemRuntime>> open_runtime(const ItemRecord& record);
    // None for an item that was set aside: it can be deleted all the same.
    Result<std::shared_ptr<ItemRuntime>> runtime_to_delete(const ItemRecord& record);
    void forget_runtime(const ItemId& id);
    Result<std::vector<SharedPointOfItem>> shared_points_of_item(const ItemId& id);
    Result<ReplicaStatus> replica_status(ItemRuntime& runtime);
    Result<std::shared_ptr<ReplicaReader>> compare_reader(ItemRuntime& item, Sequence at_least);
    void forget_compare_reader(ItemRuntime& item, int64_t unused_us = 0);
    TimePoint source_now(ItemRuntime& item);
    // Of comparisons (vault_resync.cc).
    Result<WeeklyWindows> resync_windows(const ItemRecord& record);
    Result<ResyncPlan> resync_plan(ItemRuntime& item);
    Result<ResyncPlan> change_resync(ItemRuntime& item,
                                     const std::function<Status(ItemRecord&, ResyncPlan&)>& change);
    ResyncHold hold_of(ItemRuntime& item, const ItemRecord& record);
    void tend_resync(Vault& vault, ItemRuntime& item, const ItemRecord& record, bool healthy);
    void watch_resync(Vault& vault, ItemRuntime& item, const ItemRecord& record);
    Status take_cancel_answer(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                              const AgentItemStatus& status);
    // What its policy allows; none: everything.
    Result<std::optional<UploadPolicy>> take_upload(Vault& vault, const std::string& appliance,
                                                    const ItemRecord& record,
                                                    const UploadStatus& upload);
    void report_upload(ItemRuntime& item, const ItemRecord& record, ItemReport& report);
    void report_resync(ItemRuntime& item, const ItemRecord& record, ItemReport& report);
    Status check_not_fenced(const Status& status);
    Status ensure_item_object(ItemRuntime& runtime, const ItemRecord& record);
    ItemReport report(const ItemRecord& record);
    bool may_have_health(const ItemId& id, const std::string& health);
    Result<std::vector<SeedDisk>> open_seed(const ItemRecord& record, const SeedRecord& seed,
                                            PointLease& lease);
    Result<std::string> import_seed_of(JobRun& run, const ItemId& id, const std::string& input);
    JobWork seed_work(const JobRecord& job);
    Result<std::string> materialise(JobRun& run, const std::string& input);
    JobWork materialise_work(const JobRecord& job);
    Status tend_seed(Vault& vault, ItemRuntime& item, const ItemRecord& record);
    Status seed_orders(const ItemRecord& record, DesiredItem& item);
    Result<SeedRecord> seed_of(const ItemId& id);
    Result<SeedRecord> change_seed(const ItemId& id,
                                   const std::function<Status(SeedRecord&)>& change);
    Status tend_disks(Vault& vault, const ItemRecord& record, const std::vector<DiskSize>& stored);
    // Of scrubs (vault_scrub.cc).
    Result<std::vector<DamageRecord>> damage(ItemRuntime& item);
    void forget_damage_rows(ItemRuntime& item);
    Status recheck_damage(Vault& vault, ItemRuntime& item, const ItemRecord& record);
    Status weigh_damage(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                        const std::set<std::string>& fresh);
    void weigh_soon(Vault& vault, const ItemRecord& record, bool recheck);
    Status pace_scrub(JobRun& run, uint64_t bytes);
    Result<std::string> scrub_item(Vault& vault, JobRun& run, const ItemId& id);
    JobWork scrub_work(Vault& vault, const ItemId& id);
    Result<std::optional<JobRecord>> open_scrub(const ItemId& id);
    void tend_changes(Vault& vault, ItemRuntime& item, const ItemRecord& record, Sequence stored);
    void tend_scrub(Vault& vault, ItemRuntime& item, const ItemRecord& record);
    void tend_item(Vault& vault, const ItemRecord& record);
    void tend_consistent_points(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                                Sequence stored, bool ready);
    Status consistent_point_failed(Vault& vault, const ItemRecord& record, const ItemError& error);
    void run_upkeep(ItemRuntime& runtime, const ItemRecord& record);
    // True when the database was changed by it.
    Result<bool> take_status(Vault& vault, ItemRecord record, const AgentItemStatus& status,
                             int64_t clock_ahead_us);
    Result<std::vector<BookmarkRecord>> bookmarks_to_make(ItemRuntime& item);
    void bookmark_asked(const ItemId& id);  // after it is in the database
    int64_t sync_interval_us();
    void forget_party(const std::string& name);
    int64_t contacts_saved_us = 0;  // steady, of the tender alone
    void tend_contacts();
    Result<uint64_t> remove_objects(ObjectStore& from, const VaultFence& claim, const ItemId& id,
                                    const std::function<bool(const std::string&)>& keep,
                                    const std::function<Status(uint64_t)>& progress);
    void tend_deleted_items();
    Status look_again(DeletedItem& deleted);
    Result<uint64_t> delete_objects(JobRun& run, ObjectStore& from, const VaultFence& claim,
                                    const ItemId& id);
    Result<std::string> delete_everything(Vault& vault, JobRun& run, const ItemId& id, bool force);
    void run_job(uint64_t id, const JobWork& work);
    void launch_job(uint64_t id, JobWork work);
};

}  // namespace farshore
