// The replica of one item in the vault: keeps the log, gives out points, writes checkpoints, and
// lets go of what left the window (docs/design/replica.md).
//
// One per item and vault process; owned by the vault. Borrows store, ledger, clock, random and
// fence. Any thread may call. Two locks, held across store and ledger calls: one for what appends
// to the log (acquire_log, register_segment, mark_idle), one for upkeep (checkpoint,
// run_retention). Everything else only reads the ledger. No threads of its own.
//
// After an error or a crash anywhere, opening again on the same store and ledger goes on; every
// call may be repeated.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/buggify.h"
#include "base/retention_grid.h"
#include "base/seams.h"
#include "base/secret.h"
#include "replica/hold.h"
#include "replica/kept_needs.h"
#include "replica/ledger.h"
#include "replica/log_walk.h"
#include "replica/manifest.h"
#include "replica/registration.h"
#include "replica/retention_cost.h"
#include "replica/vault_fence.h"
#include "store/object_store.h"

namespace farshore {

class ManifestBuilder;
class ReplicaReader;
struct PayloadMove;

// A point that this item shares with others of its group, all of which have it stored.
struct SharedPointOfItem {
    std::string id;
    PointKind kind = PointKind::kBookmark;
    Sequence sequence;  // of this item
};

struct ItemReplicaOptions {
    // Those that are known, the newest first; asked when a point is named as shared. Null: none
    // are.
    std::function<Result<std::vector<SharedPointOfItem>>()> shared_points;
    // Checked before a registration is acknowledged and before anything is removed. Null: this is
    // the only vault (tests).
    const VaultFence* fence = nullptr;
    // A checkpoint is due after so many records or segments.
    uint64_t checkpoint_entries = 200'000;
    uint64_t checkpoint_segments = 256;
    // Manifests in force beside the floor's; between them readers open segments one by one.
    size_t max_manifests = 48;
    ParallelFor parallel;  // opens segments side by side; null: one after the other
    // The log is that of another store, whose vault hands out its leases (item_copy.h).
    bool follows_another = false;
    // Test-only bugs that the simulation must catch.
    struct PlantedBugs {
        bool wrong_disk_set = false;  // a checkpoint leaves the last disk out
    } planted;
    Buggify* buggify = nullptr;  // borrowed; simulation only
};

struct RetentionPolicy {
    // In which every write is a point.
    int64_t window_us = 24ll * 3600 * 1'000'000;
    // What stays of older ones.
    RetentionGrid grid;
    // The floor moves only when it moves by so much: each move writes a manifest.
    int64_t min_advance_us = 0;
    // How long an object stays after nothing refers to it.
    int64_t grace_us = 600ll * 1'000'000;
    // Objects of which less than this is still needed are rewritten: their live payload goes into
    // base objects. 0: never. A third keeps all that is put below 1.5 times what was written, for
    // a few percent more space than a half (bench/amplification_main.cc).
    uint32_t rewrite_below_percent = 33;
    // But only when this much (and 1/64 of all payload) comes free: rewriting puts the shards of
    // every manifest in force again. 0: always.
    uint64_t rewrite_min_bytes = 16u << 20;
    // At most this much payload is rewritten in one run. With a run a minute, a third of what a
    // machine writes that fills 54 MB/s: less, and a log that is mostly dead would pile up.
    uint64_t rewrite_bytes = 1u << 30;
    // Of which so much is held in memory at a time.
    uint64_t rewrite_memory_bytes = 128u << 20;
    // Objects this small are put together when there are many.
    uint64_t small_object_bytes = 1u << 20;
    size_t small_objects = 256;
    // Asked while the floor is chosen: up to where the copies of this item in other stores need no
    // more of the log. None: there are no copies.
    std::function<Result<std::optional<Sequence>>()> followed;
    // Test-only bugs that the simulation must catch.
    struct PlantedBugs {
        bool delete_too_early = false;  // what the newest manifest does not need goes at once
    } planted;
};

struct RetentionReport {
    bool floor_moved = false;
    Sequence floor;
    uint64_t kept = 0;     // points below the floor, when it ended
    uint64_t thinned = 0;  // that were points before
    uint64_t rewritten_objects = 0;
    uint64_t rewritten_bytes = 0;
    uint64_t found_dead = 0;
    uint64_t removed = 0;
    uint64_t removed_bytes = 0;
    uint64_t waiting = 0;  // dead, in their grace or kept by a lease
};

// What a retention under some policy would do to the points, were it run now.
struct RetentionPreview {
    uint64_t dropped = 0;  // of the points that have a record or are kept: no points any more
    uint64_t made = 0;     // leave the window and stay
    Sequence oldest;       // that stays; 0: there is none
    TimePoint oldest_time;
    TimePoint window_from;  // every write since then is a point
};

struct ReplicaStatus {
    Epoch epoch;  // of the log lease
    std::string appliance;
    SegmentNumber segments;  // the newest one's number
    Sequence stored;
    TimePoint stored_time;
    TimePoint current_until;  // the source had written nothing else up to then (>= stored_time)
    // The oldest (a kept one, when there is one) and newest sequence that is a point; nothing while
    // there is none.
    std::optional<Sequence> oldest, newest;
    TimePoint oldest_time, newest_time;
    bool gap_open = false;
    uint64_t written_bytes = 0;  // ever, by the guest
    uint64_t stored_bytes = 0;   // in the object store now
    std::vector<DiskSize> disks;
};

struct OfferedRange {
    Sequence first, last;  // both are points
    TimePoint first_time, last_time;
};
struct PointList {
    // What a query asks for and in its order, each up to its limit: kept below the window, and
    // POINT records that are valid points.
    std::vector<KeptRow> kept;
    std::vector<PointRow> points;
    std::vector<OfferedRange> ranges;  // every sequence in them is a point; all of them
};

// What a person may name a point by.
struct PointSpec {
    enum class Kind : uint8_t {
        kLatest,
        kLatestProcessed,
        kSequence,
        kTime,
        kLabel,
        kLatestApplication,       // the newest for which its file systems were at rest
        kShared,                  // `label`: a shared point's id
        kLatestShared,            // the newest one
        kLatestSharedApplication  // the newest one for which file systems were at rest
    };
    Kind kind = Kind::kLatest;
    Sequence sequence;
    TimePoint time;
    std::string label;
    // "latest", "latest-processed", "latest-app", "latest-multi-vm", "latest-multi-vm-app",
    // "shared:ID", digits (a sequence), an RFC 3339 time, else a label; "label:..." is a label
    // whatever follows.
    static PointSpec parse(std::string_view text);
};

struct ResolvedPoint {
    Sequence sequence;
    TimePoint time;
};

class ItemReplica {
  public:
    // kWrongState when a rebuild of the ledger has not ended.
    static Result<std::unique_ptr<ItemReplica>> open(ObjectStore& store, ReplicaLedger& ledger,
                                                     Clock& clock, Random& random,
                                                     const ItemId& item, const Secret& item_key,
                                                     ItemReplicaOptions options = {});
    // Fills an empty ledger (or empties it first) from the store alone: the newest manifests, then
    // the log behind the floor. Leases, idle time and the appliance's name are not in the store.
    // The vault claims its epoch first (fence), so that log leases of before are fenced.
    static Status rebuild(ObjectStore& store, ReplicaLedger& ledger, const ItemId& item,
                          const Secret& item_key, const ItemReplicaOptions& options = {});

    // A log lease that fences all earlier ones. It is written down in the store first.
    Result<LogLease> acquire_log(const std::string& appliance);
    // The same for nobody: whoever still appends gets nothing registered any more. The store is not
    // asked for anything but the fence.
    Status fence_log(const std::string& why);
    // Makes a segment part of the log; ok again for one that is already. kFenced, kSequenceHole,
    // kNotFound (no such object), kCorrupt, kTruncated, kWrongKey, kForeignStore,
    // kInvalidArgument (the registration does not say what the object does).
    Status register_segment(const SegmentRegistration& registration);
    Status mark_idle(Epoch epoch, Sequence sequence, TimePoint time);
    // Of a copy (item_copy.h): makes a segment of the source's log, whose object is in this store
    // already, part of this one. The errors of register_segment().
    Status follow(const SegmentRow& segment);

    Result<ReplicaStatus> status();
    Result<PointList> points(const PointQuery& query);
    // All that is kept below the window, by sequence.
    Result<std::vector<KeptRow>> kept();
    // What became of the disks in the window; disks_at() tells which a point has.
    Result<std::vector<GeometryRow>> geometry();
    // How the disks changed: minutes of the last days, hours of the last weeks.
    Result<std::vector<ChangeRow>> changes();
    // Those that the point `sequence` has, joining ones too; also of a kept one.
    Result<std::vector<DiskSize>> disks_of(Sequence sequence);
    // kPointNotFound, kPointOutsideWindow (names the window), kPointInGap (names the neighbours).
    Result<ResolvedPoint> resolve(const PointSpec& spec);
    // Whether `sequence` is a point still: ok, or the errors of resolve(). Reads no object.
    Status is_there(Sequence sequence);

    // Keeps `sequence` readable. kPointOutsideWindow, kPointInGap, kPointNotFound.
    // kNeverExpires as `duration_us` INT64_MAX: a hold.
    Result<LeaseRow> lease(Sequence sequence, const std::string& holder, int64_t duration_us);
    Status renew(uint64_t lease, int64_t duration_us);
    Status release(uint64_t lease);

    // A lease on the window's floor, which the retention that runs now does not pass unseen.
    // kPointNotFound: nothing has left the window.
    Result<LeaseRow> lease_floor(const std::string& holder, int64_t duration_us);

    // Legal holds. A point that is held stays until its hold is released, whatever happens to the
    // ledger. kInvalidArgument (a reason that is empty or longer than kMaxHoldReasonBytes), the
    // errors of lease(); kNotFound: there is no such hold.
    Result<Hold> hold(const ResolvedPoint& point, const std::string& reason);
    Result<std::vector<Hold>> holds();
    Status release_hold(const std::string& id);

    // What `policy` needs in the store, by what this item was seen to change (retention_cost.h).
    Result<RetentionCost> cost(int64_t window_us, const RetentionGrid& grid);
    // What that is worked out from; reads some manifests.
    Result<ChangeSeen> changes_seen();

    // Writes a checkpoint of the newest segment when one is due; whether it did.
    Result<bool> maybe_checkpoint();
    // The same whenever there is anything behind the newest manifest.
    Result<bool> checkpoint();
    // Moves the floor, rewrites what is mostly dead, lists what is dead, removes what was listed
    // long enough. kFenced: another vault owns the store; nothing was removed.
    Result<RetentionReport> run_retention(const RetentionPolicy& policy);
    // What that would do to the points. Only reads the ledger; a retention that runs meanwhile may
    // have done some of it.
    Result<RetentionPreview> preview_retention(const RetentionPolicy& policy);

    // Lets go of manifests that are damaged, or refer to a damaged shard, where an older one and
    // the log behind it serve as well: the next checkpoint makes them again. `damaged` are names of
    // objects; how many went. kFenced.
    Result<uint64_t> drop_damaged(const std::vector<std::string>& damaged);

    // Puts again what the floor and kept points need of damaged shards, base objects and segments
    // behind the log, out of another replica of the item: `other` opens it at a sequence, also
    // inside a gap. Points that it does not have are passed over. How many points. kFenced.
    Result<uint64_t> restate_damaged(
        const std::vector<std::string>& damaged,
        const std::function<Result<std::shared_ptr<ReplicaReader>>(Sequence)>& other);

    const ItemId& item() const { return item_; }

  private:
    ItemReplica(ObjectStore& store, ReplicaLedger& ledger, Clock& clock, Random& random,
                const ItemId& item, const Secret& key, ItemReplicaOptions options);

    Epoch vault_epoch() const;
    Result<Epoch> next_epoch(const std::string& holder);
    Status check_fence() const;
    int64_t expiry(int64_t duration_us) const;
    Status check_point(Sequence sequence, const LedgerState& state);
    std::string window_text(const LedgerState& state, const std::vector<GapRow>& gaps);
    Result<ResolvedPoint> resolve_shared(const PointSpec& spec, const LedgerState& state);
    Result<ResolvedPoint> resolve_time(TimePoint time, const LedgerState& state);
    Result<TimePoint> time_of(Sequence sequence, const LedgerState& state);

    Result<bool> write_checkpoint(uint64_t min_entries, uint64_t min_segments);
    Result<std::optional<SegmentRow>> choose_floor(const RetentionPolicy& policy,
                                                   const LedgerState& state);
    // What becomes of points at or below the floor that moves to `floor` (null: it stays).
    struct KeepPlan {
        std::vector<Sequence> make;  // in order: leave the window and stay
        std::vector<KeptRow> drop;   // were kept
        std::vector<KeptRow> stay;   // are kept already
    };
    Result<KeepPlan> plan_kept(const RetentionPolicy& policy, const LedgerState& state,
                               const SegmentRow* floor);
    Result<KeptRow> make_kept(ManifestBuilder& builder, const LedgerState& state,
                              const std::vector<ManifestRow>& manifests, Sequence sequence);
    struct Rewriting;
    Status choose_rewriting(const RetentionPolicy& policy, const Manifest& at_floor,
                            const std::vector<KeptRow>& kept, ManifestBuilder& builder,
                            Rewriting& out);
    Status relocate_kept(ManifestBuilder& builder, const Rewriting& rewriting,
                         const std::map<ObjectRef, std::vector<PayloadMove>>& moves,
                         ManifestCommit& commit);
    // Puts again what says durably that a point is held, where it is missing.
    Status mend_holds();
    Status move_floor(const RetentionPolicy& policy, RetentionReport& report);
    Status sweep(const RetentionPolicy& policy, RetentionReport& report);
    Status keep_locked(const std::vector<ObjectInfo>& there,
                       const std::map<std::string, uint64_t>& unneeded);

    ObjectStore& store_;
    ReplicaLedger& ledger_;
    Clock& clock_;
    Random& random_;
    const ItemId item_;
    const Secret key_;
    const ItemReplicaOptions options_;
    std::mutex log_mutex_;
    std::mutex upkeep_mutex_;
    SegmentNumber not_due_at_{UINT64_MAX};  // no checkpoint was due at this segment
    KeptNeeds kept_needs_;                  // by upkeep_mutex_
    // After nothing was worth rewriting: the floor and what was kept then.
    std::optional<std::pair<Sequence, std::vector<std::string>>> nothing_to_rewrite_;
    // What the store really holds beyond the ledger's count, measured by the last sweep (objects of
    // crashed attempts).
    std::atomic<int64_t> stored_correction_bytes_{0};
};

}  // namespace farshore
