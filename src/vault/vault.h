// The vault: control plane and replica engine of one recovery site. Owns the data directory's
// vault/ and pki/, the database, the object store's identity and fence, the keys, and a replica for
// each item.
//
// open() takes the directory's lock and the store's fence; the destructor ends background work and
// lets go. Any thread may call; calls block on database and store. It is the VaultLink of an
// appliance in the same process; for others it stands behind the API (vault/api.h).
//
// Errors: kDuplicateIdentity (another vault runs on the directory), kVaultReplaced (another vault
// has claimed the store since), kForeignStore, kWrongKey, kNewerVersion at open; kFenced once
// another vault has claimed the store; those of meta/ and replica/.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "codec/passphrase.h"
#include "meta/appliances.h"
#include "meta/records.h"
#include "meta/returns.h"
#include "meta/scrubs.h"
#include "meta/seeds.h"
#include "meta/stores.h"
#include "os/pki.h"
#include "replica/item_copy.h"
#include "replica/item_replica.h"
#include "replicate/vault_link.h"
#include "store/counting_store.h"
#include "vault/component_health.h"
#include "vault/item_drive.h"

namespace farshore {

struct ItemQuery;
class Database;
class GroupDesk;
class ObjectStore;

inline constexpr int64_t kCertificateWarnUs = int64_t{14} * 86'400 * 1'000'000;
inline constexpr std::string_view kDefaultScrubBandwidth = "20MB/s";

struct VaultOptions {
    std::string data_directory;       // made when missing
    std::string store_location;       // store/store_settings.h; empty: the directory DATA/store
    std::string store_settings_file;  // empty: none
    std::string key_file;             // empty: DATA/vault/key
    // keys/key_source.h; empty: key_file, or what the newest rotation has named.
    std::string key_source;
    // A libpq connection string: the database of vaults that share it (docs/design/nodes.md);
    // empty: the file DATA/vault/farshore.db.
    std::string database;
    // Of several nodes on that database, who this one is, and the epoch of its lease (node_seat.h).
    std::string node;
    uint64_t node_epoch = 0;
    KdfCost kdf;  // of passwords and passphrases that are used from now on
    // Take the store back from a vault that has claimed it since this one ran.
    bool take_over = false;
    // Of windows that name no time zone; an IANA name.
    std::string time_zone = "UTC";
    // How often replicas are looked after; 0: only by tend() (tests).
    int64_t tend_interval_us = 1'000'000;
    // Of what all scrubs together read from the store (base/bandwidth_limit.h); empty: no limit.
    std::string scrub_bandwidth = std::string(kDefaultScrubBandwidth);
};

struct ProtectRequest {
    std::string name;
    std::string qmp_socket;            // mirror; or
    std::vector<std::string> devices;  // disks of the agent's own machine; or
    std::vector<std::string> disks;    // in path
    std::string agent;                 // empty: the first that asks
    // What the replica begins with (docs/design/resync.md, "Seeds"): for each disk in order a path
    // at the vault, an NBD URI or nothing; or one "item:NAME[@POINT]" for all.
    std::vector<std::string> seeds;
    ItemPolicy policy;
    std::string policy_name;  // to follow (meta/policies.h); empty: `policy` is its own
};

struct MaterialiseRequest {
    std::string item;  // name or id
    std::string point = "latest";
    DiskIndex disk = 0;
    std::string copy;  // the store to read from; empty: the vault's own
    std::string target;
    std::string settings_file;  // of an Azure page blob
    bool replace_existing = false;
    uint64_t throttle_bytes_per_s = 0;  // that are written, and read back; 0: no limit
};

// What the newest drills of an item have shown (drill_desk.h).
struct DrillBadge {
    std::string verdict;             // "good" or "bad" of the newest one that has one; empty: none
    TimePoint last;                  // when that ended
    std::optional<TimePoint> good;   // when the newest good one ended
    int64_t good_age_us = 0;         // since then
    std::optional<uint64_t> drill;   // the newest good one
    std::optional<Trouble> trouble;  // they are overdue
};

// How an item is to return. With neither agent nor disks it goes to those that it had.
struct ReturnRequest {
    std::string agent;
    std::vector<std::string> disks;  // paths there, one for each of the item's, in order
    std::string appliance;           // through which; empty: the item's own, or whichever asks
    bool accept = false;             // also when something else is on most of them
};

struct ReturnReport {
    ReturnRecord record;
    std::optional<AgentItemStatus> home;  // what the agent there said last of this way
    std::optional<int64_t> silent_us;     // since then
};

// Everything that is shown of one item.
struct ItemReport {
    ItemRecord record;
    std::vector<Trouble> troubles;
    std::optional<ReplicaStatus> replica;  // none: not open
    std::optional<AgentItemStatus> agent;  // what its agent said last
    std::optional<TimePoint> agent_seen;
    std::optional<int64_t> rpo_us, rpo_worst_us;
    std::optional<int64_t> clock_ahead_us;  // the source's clock minus ours
    ConsistentState consistent;             // while the policy asks for such points
    ItemAppliance appliance;
    std::string site;                           // of that appliance; empty: not known
    std::optional<UploadStatus> upload;         // what its appliance said last
    std::optional<TimePoint> bandwidth_change;  // when another part of the policy's limit counts
    ResyncPlan resync;
    std::string resync_windows;  // that count, with their zone's name; empty: they cannot be read
    bool resync_window_open = false;
    std::optional<TimePoint> resync_window_change;  // when it closes, or opens; none: never
    std::optional<SeedRecord> seed;
    std::optional<DrillBadge> drill;
    std::optional<ReturnReport> way_home;
};

struct PartyReport {
    PartyRecord record;
    bool connected = false;
    std::optional<int64_t> clock_ahead_us;  // its clock minus ours
    std::optional<MachineLoad> load;        // of its machine
};

struct ComputeCredentials {
    Credentials credentials;
    std::string name;         // compute_name()
    std::string fingerprint;  // of the certificate, hexadecimal
    TimePoint expires;
};

struct ApplianceReport {
    ApplianceRecord record;
    bool connected = false;
    std::optional<ApplianceStatus> status;  // what it said last; none: nothing yet
    uint64_t items = 0;                     // that are its own
    uint64_t coming = 0;                    // that move to it
    std::vector<Trouble> troubles;
};

// Whether a source that stands by has written nothing that is not stored.
bool has_all(const ReplicaStatus& replica, const AgentItemStatus& source);

struct VaultInfo {
    std::string vault_id, store_id, key_id;
    Epoch epoch;
    std::string time_zone;
    TimePoint started;
    TimePoint certificate_until;  // of the API's; 0: it has none yet
    bool fenced = false;
};

struct SuspiciousChange {
    ChangeBreak change;
    std::optional<ResolvedPoint> before;  // none is left
};

struct ScrubReport {
    uint32_t interval_s = 0;  // by the policy; 0: none
    TimePoint created;        // of the item
    ScrubRecord scrub;
    std::vector<DamageRecord> damage;
    std::optional<JobRecord> job;  // that is queued or runs
};

struct AddStoreRequest {
    std::string name, location, settings_file;  // absolute paths, of the vault's machine
    bool take_over = false;                     // although a vault has claimed it: that one is gone
};

struct StoreReport {
    std::string name, location, store_id;
    bool primary = false;  // the vault's own
    bool open = false;
    std::optional<Error> error;  // why it is not
    uint64_t copies = 0;
    StoreCounts counts;  // what this process has asked it for
};

struct StorePlaceReport {
    std::string location, settings_file;
};

// What is not set stays as it is, or for a new copy is as the item's policy.
struct CopyPolicy {
    std::optional<uint32_t> window_s;
    std::optional<std::string> keep;
};

struct CopyReport {
    CopyRecord record;
    ItemCopyStatus status;
    std::optional<ReplicaStatus> replica;  // none: it is being made, or its store was not seen yet
    uint64_t behind_segments = 0;
    int64_t behind_us = 0;
    uint64_t stored_bytes = 0;
    std::optional<Error> error;  // why it does not go on
};

struct BookmarkReport {
    BookmarkRecord record;
    bool stored = false;
};

struct KeysReport {
    std::string id, source;  // of the key-encryption key that is in use
    bool remote = false;     // it never leaves its keeper
    // How many items' keys are wrapped under which; "": their key was destroyed or is not known.
    std::map<std::string, uint64_t> items;
    struct Rotation {
        std::string from, to, source;
        uint64_t job = 0;  // that works on it; 0: none, `farshore key rotate` goes on with it
    };
    std::optional<Rotation> rotation;
    std::string verified_json;  // what the newest check found; empty: there was none yet
};

// What is sealed under: exactly one of the two.
struct EscrowRequest {
    Secret passphrase;
    std::string public_key_pem;
};

// A job's work. It reports progress through the job and returns its result as JSON; an error of
// kCancelled ends it as cancelled.
class JobRun {
  public:
    virtual ~JobRun() = default;
    virtual const JobRecord& job() const = 0;
    // kCancelled when somebody wants it to end.
    virtual Status report(double fraction, const std::string& message, int64_t eta_s = -1) = 0;
    // Keeps where it is, for a resumption by the next vault.
    virtual Status save(const std::string& input) = 0;
    // Waits; kCancelled when the job or the vault is to end.
    virtual Status pause(int64_t us) = 0;
    // The vault ends: leave the job as it is, the next vault takes it up.
    virtual bool vault_ends() const = 0;
};
using JobWork = std::function<Result<std::string>(JobRun&)>;

class Vault final : public VaultLink {
  public:
    static Result<std::unique_ptr<Vault>> open(const VaultOptions& options, FileSystem& files,
                                               Clock& clock, Random& random);
    ~Vault() override;

    VaultInfo info() const;
    Database& database();
    ObjectStore& store();
    // What this process has asked the store for.
    StoreCounts store_counts() const;
    Clock& clock();
    Random& random();
    // Of passwords and passphrases that are used from now on.
    const KdfCost& kdf_cost() const;
    // DATA/vault: for the run files of exports and failovers.
    const std::string& directory() const;

    // ---- identities
    // ------------------------------------------------------------------------------
    const std::string& authority_pem() const;
    // The vault's own certificate for these DNS names and addresses (localhost is always among
    // them); made or renewed when needed, kept in pki/vault.
    Result<Credentials> server_credentials(const std::vector<std::string>& names);
    // Credentials for a party of this very machine (`up`), kept in pki/NAME, and enrolled.
    Result<Credentials> local_party(PartyKind kind, const std::string& name);
    // A certificate and its key for the QEMU of a compute host, with which it opens disks that are
    // served over TLS. Not kept; whoever has it is no party (base/party_names.h).
    Result<ComputeCredentials> issue_compute_credentials(const std::string& host);
    // And one for what serves them, for clients that ask for `server_name`. Not kept; nobody's, as
    // that.
    Result<Credentials> issue_disk_server(const std::string& server_name);
    // The administrator's token; made at first start, kept in vault/admin.token (0600).
    const Secret& admin_token() const;
    // A one-time token's text.
    Result<std::string> create_token(PartyKind kind, const std::string& name, int64_t valid_s,
                                     TimePoint& expires);
    // Whether the holder of a certificate of ours is enrolled (and was not removed):
    // kUnauthenticated.
    Result<PartyRecord> check_party(const std::string& name);
    Status remove_party(const std::string& name);
    // Told once of each: warns of certificates that end within kCertificateWarnUs. Each hour, by
    // tend().
    Status warn_of_certificates();
    Result<std::vector<PartyReport>> parties(const std::string& after, size_t limit);

    // ---- appliances (vault_appliances.cc, docs/design/appliances.md)
    // Those that were heard of or have items, by name, after `after`.
    Result<std::vector<ApplianceReport>> appliances(const std::string& after = {},
                                                    size_t limit = SIZE_MAX);
    // Whether a step of a recovery plan could have it run there. kNotFound (the appliance, the
    // script), kUnavailable.
    Status check_appliance_script(const std::string& appliance, const std::string& program);
    // The item's records go to that appliance as soon as nothing is missed by it; with `lost` at
    // once: what only the present one has is copied again. kNotFound, kItemNotFound, kWrongState
    // (it is away, or nobody knows where it is).
    Result<ItemReport> move_item(const std::string& name_or_id, const std::string& appliance,
                                 bool lost);
    struct ApplianceMove {
        std::string item, from, to;
    };
    // All of its items, to that one or (empty) the others of its site. kLimitReached: there is
    // none.
    Result<std::vector<ApplianceMove>> evacuate_appliance(const std::string& appliance,
                                                          const std::string& to, bool lost);
    // Of that site (empty: of each): no appliance has two items more than another one.
    Result<std::vector<ApplianceMove>> balance_appliances(const std::string& site);

    // ---- components (vault_components.cc)
    Result<HealthLimits> health_limits();
    Status set_health_limits(const HealthLimits& limits);

    // ---- items
    // -----------------------------------------------------------------------------------
    Result<ItemReport> protect(const ProtectRequest& request);
    Result<ItemReport> item(const std::string& name_or_id);
    Result<std::vector<ItemReport>> items(const std::string& after, size_t limit);
    // Fewer than `limit` are all that there are. With a `health` there may be more than `limit`,
    // others among them, and not yet one that got it since the tender's last round.
    Result<std::vector<ItemReport>> items(const ItemQuery& query, const std::string& health,
                                          const std::string& after, size_t limit);
    // The item gets values of its own: what `edit` makes of those that it has, asked inside of the
    // transaction.
    Result<ItemReport> change_policy(
        const std::string& name_or_id,
        const std::function<Result<ItemPolicy>(const ItemRecord&)>& edit);
    // Whoever knows of an item's drills is asked with each report of it; empty: nobody. When it
    // returns, the one before is asked no more.
    void set_drill_badges(std::function<std::optional<DrillBadge>(const ItemRecord&)> badges);
    // What the next retention would do to the item's points under `policy`.
    Result<RetentionPreview> preview_retention(const ItemId& id, const ItemPolicy& policy);
    Result<JobRecord> unprotect(const std::string& name_or_id, bool force);
    // Compares source and replica; `in_window`: when its window is open and the item is healthy.
    Result<ItemReport> resynchronise(const std::string& name_or_id, bool in_window = false);
    // Ends a comparison that only checks, or one that waits; waits for the agent's word for at most
    // `timeout_us`. kWrongState: there is none, or the item needs it to be protected again.
    Result<ItemReport> cancel_resync(const std::string& name_or_id, int64_t timeout_us);
    // Reads every object of the item again; the job that does, which may run already.
    Result<JobRecord> scrub(const std::string& name_or_id);
    Result<ScrubReport> scrub_report(const std::string& name_or_id);
    // "accept" a seed that differs much; "retry" or "skip" one that could not be read. kWrongState.
    Result<ItemReport> decide_seed(const std::string& name_or_id, const std::string& action);
    // A disk that the machine has got: copied while the others go on, and part of the points from
    // then on. `path` as in protect(); of a mirrored QEMU the disk's device id, node name or
    // serial. kWrongState, kAlreadyExists, kLimitReached (64, removed ones included).
    Result<ItemReport> add_disk(const std::string& name_or_id, const std::string& path);
    // Not protected any more; older points keep it. kNotFound; kInvalidArgument: the last one.
    Result<ItemReport> remove_disk(const std::string& name_or_id, DiskIndex disk);
    // Waits until `done` is true of the item, for at most `timeout_us`; the last report.
    Result<ItemReport> wait_for_item(const ItemId& id, int64_t timeout_us,
                                     const std::function<bool(const ItemReport&)>& done);

    // ---- the way home (vault_return.cc, docs/design/return.md)
    // Between the state `before` and reprotecting: from then on the vault's own agent captures the
    // item, and its home's is told to write the disks. `recovery`: the failover whose machine it
    // is. kWrongState, kInvalidArgument, kNotFound (no such agent).
    Result<ItemRecord> begin_return(const ItemId& id, const std::string& recovery,
                                    const ReturnRequest& request);
    // Back to committed: the home is left as it is.
    Result<ItemRecord> end_return(const ItemId& id, const std::string& why);
    // Whatever is on the disks now.
    Status accept_return(const ItemId& id);
    // From now on the disks are to have that state, and none after it.
    Status choose_return(const ItemId& id, Sequence to);
    // They do not stop there.
    Status reopen_return(const ItemId& id);
    // The home has the item: its agent captures it from now on. kWrongState: not the state that was
    // chosen.
    Result<ItemRecord> finish_return(const ItemId& id);
    // There is no way back any more.
    Result<ItemRecord> commit_return(const ItemId& id);
    // Whether the item's source is to give its machine up (`power_off`: by force); none: it is left
    // alone. While the item is not protected; forgotten by a vault that starts again.
    void set_stand_by(const ItemId& id, std::optional<bool> power_off);
    // Whether an appliance may take the log of an item that fails over.
    void set_draining(const ItemId& id, bool draining);

    // ---- points
    // ----------------------------------------------------------------------------------
    Result<std::shared_ptr<ItemReplica>> replica(const ItemId& id);
    // The same of a copy in another store; `copy` empty: the item's own. kNotFound, kWrongState
    // (it is being made or removed), errors of that store.
    Result<std::shared_ptr<ItemReplica>> replica(const ItemId& id, const std::string& copy);
    Result<Secret> item_key(const ItemId& id);
    // Of an item whose objects were damaged when its ledger was to be rebuilt: what every verb on
    // it answers until a later start finds them whole. Its leases are gone.
    std::optional<Error> why_set_aside(const ItemId& id);
    // Where its disks changed unlike before, by time, with the last point before each.
    Result<std::vector<SuspiciousChange>> suspicious(const ItemId& id);
    Result<BookmarkReport> create_bookmark(const std::string& name_or_id, const std::string& label,
                                           PointKind kind = PointKind::kBookmark);
    // Waits until it is stored, for at most `timeout_us`.
    Result<BookmarkReport> bookmark(const std::string& id, int64_t timeout_us);

    // ---- more stores, and copies of items in them (docs/design/copies.md)
    // An empty place becomes a store. kAlreadyExists, kVaultReplaced (another vault uses it),
    // kInvalidArgument; errors of the store.
    Result<StoreReport> add_store(const AddStoreRequest& request);
    Result<std::vector<StoreReport>> stores();  // the vault's own first
    // What is in it stays. kWrongState: there are copies in it.
    Status remove_store(const std::string& name);
    Result<StorePlaceReport> store_place(const std::string& name);
    // Begins a copy; with the points of an earlier one when they are still there. kAlreadyExists.
    Result<CopyReport> add_copy(const std::string& item, const std::string& store,
                                const CopyPolicy& policy);
    Result<CopyReport> change_copy(const std::string& item, const std::string& store,
                                   const CopyPolicy& policy);
    Result<std::vector<CopyReport>> copies(const std::string& item);
    // Ends a copy; its points stay unless they are to be deleted, by a job. kWrongState: one of
    // them is read or held.
    Result<std::optional<JobRecord>> remove_copy(const std::string& item, const std::string& store,
                                                 bool delete_points);
    // One round over all copies, in the caller's thread (tests); whether there is more to do.
    bool tend_copies();

    // ---- keys (vault_keys.cc, docs/design/keys.md)
    Result<KeysReport> keys();
    // Exchanges the key-encryption key for a new one of the source `to` (empty: of the one that is
    // in use) and wraps every item's key anew; goes on with a rotation that has not ended. A job.
    // kWrongState: the source has no other key, or a rotation to another source is under way.
    Result<JobRecord> rotate_key(const std::string& to);
    // Asks the source again and opens every item's key and the newest segment's. A job.
    Result<JobRecord> verify_keys();
    // All that is needed to read the store without this vault, sealed.
    Result<Bytes> escrow_keys(const EscrowRequest& request);
    // Removes every copy of an item's key: nobody can read it any more. `confirm` is its name. A
    // job. kWrongState: a point of it is held or read, or an agent captures it and
    // `end_replication` was not asked for.
    Result<JobRecord> destroy_key(const std::string& name_or_id, const std::string& confirm,
                                  bool end_replication);

    // Writes a disk at a point to an image (vault/disk_image.h: "raw:PATH", ...), sparse, and reads
    // it back; a job that goes on after a crash of the vault. kNotFound (no such disk at the point,
    // no such directory), kAlreadyExists (the image; another job writes it), kTooLarge, errors of
    // resolve(). An image that was not finished is removed.
    Result<JobRecord> materialise(const MaterialiseRequest& request);

    // ---- jobs, events
    // ------------------------------------------------------------------------------ Runs `work` as
    // a job, soon. `kind`s that have a resumer (below) survive a crash of the vault.
    Result<JobRecord> start_job(const std::string& kind, const std::optional<ItemRecord>& item,
                                bool cancellable, const std::string& input, JobWork work);
    // What takes up a job of that kind when the vault starts; without one it fails as interrupted.
    // Set before resume_jobs().
    void set_resumer(const std::string& kind, std::function<JobWork(const JobRecord&)> resumer);
    void resume_jobs();
    // Waits until it is over, for at most `timeout_us`.
    Result<JobRecord> job(uint64_t id, int64_t timeout_us);
    Status cancel_job(uint64_t id);
    // Another one that does what a failed or cancelled one did not. kWrongState: it has not failed,
    // or one like it is under way; kUnsupported: it is begun anew by a verb of its own.
    Result<JobRecord> retry_job(uint64_t id);
    void event(Severity severity, const std::string& code, const ItemRecord* item,
               const std::string& cause, const std::string& remedy = {});

    // ---- replication groups (vault/group_desk.h)
    GroupDesk& groups();

    // ---- VaultLink
    // -------------------------------------------------------------------------------
    Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) override;
    Status register_segment(const SegmentRegistration& registration) override;
    Status mark_idle(const ItemId& item, Epoch epoch, Sequence sequence, TimePoint time) override;
    Result<std::string> sync_agent(const std::string& agent, const std::string& status) override;
    Status report_trouble(const ItemId& item, const std::string& appliance,
                          const std::optional<Error>& trouble) override;
    Result<ApplianceOrders> sync_appliance(const std::string& appliance,
                                           const ApplianceStatus& status) override;
    Result<CompareAnswer> compare(const std::string& agent, const ItemId& item,
                                  const CompareQuestion& question) override;
    Result<BarrierOrder> shared_point_step(const std::string& appliance,
                                           const BarrierReport& report) override;
    Result<ReturnGrant> open_return(const std::string& appliance, const std::string& agent,
                                    const ItemId& item, Sequence to) override;
    Result<std::vector<std::string>> refused_agents(
        const std::vector<std::string>& agents) override;
    Result<std::string> renew(const std::string& party, const std::string& request_pem) override;
    Result<std::string> enrol(const std::string& token, const std::string& request_pem) override;

    // Whoever waits for an item, a bookmark or a job gets what there is now. For the end of a
    // server.
    void stop_waiting();
    // Waits for the jobs that run to notice it; they stay open for the next vault. Before what
    // their work refers to is destroyed.
    void end_jobs();
    // One round of background work: states, RPO, checkpoints, retention.
    void tend();
    // Moves the item along the table (recovery); an event says so.
    Result<ItemRecord> change_state(const ItemId& id, ItemState state, const std::string& why);

    struct Impl;  // vault_impl.h, for this folder

  private:
    explicit Vault(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
