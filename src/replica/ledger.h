// The durable, transactional record that a vault keeps of one item's replica: what is registered,
// which points and gaps there are, which manifests exist, who reads, and what is to be deleted.
//
// Owned by whoever owns the item (src/meta over SQLite; MemoryLedger for tests and the simulator).
// Every commit_* is one transaction: after an error or a crash all of it or nothing is there.
// Errors: kIo, kNoSpace, kUnavailable from the database, and what a method names. Any thread may
// call; ItemReplica serialises the commits that depend on each other.
//
// Everything in it but leases and the idle mark can be rebuilt from the object store alone
// (ItemReplica::rebuild); nothing here may become the only place where something is known.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "record/record.h"
#include "replica/change_history.h"

namespace farshore {

// One registered segment of the log. Rows leave when the window's floor passes them; their objects
// live on as long as a manifest refers to them.
struct SegmentRow {
    SegmentNumber number;
    Epoch epoch;
    std::string object_name;
    uint64_t object_bytes = 0;
    Digest header_hash{};
    Sequence first, last;
    TimePoint first_time, last_time;
    uint64_t written_bytes = 0;
    uint32_t entries = 0;  // records in it
};

// A POINT record. Labels need not be unique: the newest wins.
struct PointRow {
    Sequence sequence;
    PointKind kind = PointKind::kCrash;
    TimePoint time;
    std::string label;
};

// Sequences in (last_good, resynced) never were on the source in this form: no points there. Key:
// last_good. `resynced` 0: still open.
struct GapRow {
    Sequence last_good;  // 0: nothing good before it (initial replication)
    Sequence gap;        // the GAP record
    Sequence resynced;
    TimePoint last_good_time, resynced_time;

    bool open() const { return resynced.v == 0; }
    bool covers(Sequence s) const { return s > last_good && (open() || s < resynced); }
};

// A disk's size from `since` on (GEOMETRY records). Key: disk, since.
struct GeometryRow {
    DiskIndex disk = 0;
    Sequence since;
    uint64_t size_bytes = 0;  // 0: the machine has it no more
    bool joining = false;     // its content is not complete: no part of the points
};

// A manifest object that is in force. Key: object_name. Of two at one sequence the one of the
// larger generation is used, and the other is on its way out.
struct ManifestRow {
    std::string object_name;
    Sequence sequence;
    SegmentNumber segment;  // its last segment
    uint64_t generation = 0;
    TimePoint time;
};

// A disk that the machine has, and how large.
struct DiskSize {
    DiskIndex disk = 0;
    uint64_t size_bytes = 0;
    bool joining = false;  // not copied yet: no part of the points
    friend bool operator==(const DiskSize&, const DiskSize&) = default;
};

// A point below the floor that stays: for the policy's grid, or because it is leased. Its manifest
// stands alone (manifest.h). Key: object_name; one a sequence is in force.
struct KeptRow {
    std::string object_name;
    Sequence sequence;
    uint64_t generation = 0;
    TimePoint time;
    // Of the POINT record there; without one `recorded` is false.
    bool recorded = false;
    PointKind kind = PointKind::kCrash;
    std::string label;
    std::vector<DiskSize> disks;
};

// An object that nothing in force refers to. Key: object_name.
struct DeadRow {
    std::string object_name;
    uint64_t object_bytes = 0;
    TimePoint since;
    uint64_t tick = 0;  // set by the ledger
};

// Somebody reads at `sequence`: it stays a point while the lease is valid - when the floor passes
// it, as a kept one - and objects that died after the lease was given are not removed.
struct LeaseRow {
    uint64_t id = 0;    // set by the ledger, never used twice
    uint64_t tick = 0;  // set by the ledger
    Sequence sequence;
    std::string holder;
    TimePoint expires;  // kNeverExpires: a hold
};
inline constexpr TimePoint kNeverExpires{INT64_MAX};

struct LedgerState {
    Epoch epoch;            // the newest log lease handed out; 0: none
    std::string appliance;  // to whom
    // The newest registered segment; number 0: none. Kept when its row has left.
    SegmentNumber last_segment;
    Digest last_header{};
    Epoch last_segment_epoch;
    Sequence stored;
    TimePoint stored_time;
    Sequence idle;  // the source was alive at idle_time and had written nothing after `idle`
    TimePoint idle_time;
    Sequence floor;               // oldest sequence of the window; 0: nothing has left the window
    SegmentNumber floor_segment;  // its segment; log rows are > this
    TimePoint floor_time;
    uint64_t generation = 0;     // the last one reserved
    uint64_t written_bytes = 0;  // ever, by the guest
    uint64_t stored_bytes = 0;   // in the object store now, dead ones included
    bool rebuilding = false;     // begin_rebuild without finish_rebuild: not usable
};

struct RegistrationCommit {
    SegmentRow segment;
    std::vector<PointRow> points;
    std::vector<GapRow> gaps;  // new and changed ones (by last_good)
    std::vector<GeometryRow> geometry;
    std::vector<ChangeRow> changes;  // minutes; they are added to what is known of them
};

struct ManifestCommit {
    std::vector<ManifestRow> added;
    std::vector<std::string> dropped;  // object names; no longer in force
    std::vector<KeptRow> kept;
    std::vector<std::string> kept_dropped;  // object names
    uint64_t added_bytes = 0;               // manifests, shards and base objects that came with it
    // When set: the floor moves up. Rows of segments <= floor_segment, of points < floor, of gaps
    // with resynced <= floor and of geometry that a newer one at or below the floor replaces go.
    std::optional<Sequence> floor;
    SegmentNumber floor_segment;
    TimePoint floor_time;
};

struct PointQuery {
    Sequence from;            // inclusive
    Sequence to{UINT64_MAX};  // inclusive
    std::optional<PointKind> kind;
    std::string label;  // empty: any
    bool newest_first = false;
    size_t limit = 1000;
};

// What a rebuilt ledger starts from: the window's floor, as the manifest there says.
struct RebuildStart {
    LedgerState state;  // its `rebuilding` is not read
    std::vector<PointRow> points;
    std::vector<GeometryRow> geometry;
    std::vector<KeptRow> kept;
};

class ReplicaLedger {
  public:
    virtual ~ReplicaLedger() = default;

    virtual Result<LedgerState> state() = 0;

    // A new log lease. kFenced when `epoch` is not larger than the one there.
    virtual Status commit_epoch(Epoch epoch, const std::string& appliance) = 0;
    // Appends to the log, adds its points, upserts its gaps, adds written and stored bytes, moves
    // `stored`. kFenced when segment.epoch is not state().epoch, kSequenceHole when segment.number
    // is not last_segment + 1. (While rebuilding, segments come with their own, older epochs: only
    // the number is checked.)
    virtual Status commit_registration(const RegistrationCommit& commit) = 0;
    // kFenced when `epoch` is not the current one. Never moves idle_time back.
    virtual Status commit_idle(Epoch epoch, Sequence sequence, TimePoint time) = 0;
    // A number that no object of this item carries yet: generation + 1, durably.
    virtual Result<uint64_t> reserve_generation() = 0;
    // kWrongState when a sequence of a lease that is valid at `now` would be below the floor
    // without being kept.
    virtual Status commit_manifest(const ManifestCommit& commit, TimePoint now) = 0;

    // Lists objects as dead (those listed already are left as they are).
    virtual Status commit_dead(const std::vector<DeadRow>& dead) = 0;
    // Objects listed as dead that were removed, or that turned out to be needed (`revived`: no
    // bytes are subtracted).
    virtual Status commit_removed(const std::vector<std::string>& names, bool revived) = 0;

    // A new lease (id and tick are set). kPointOutsideWindow when sequence < floor and it is not
    // kept.
    virtual Result<LeaseRow> commit_lease(const LeaseRow& lease) = 0;
    // kNotFound when it was released, or expired and was swept.
    virtual Status renew_lease(uint64_t id, TimePoint expires) = 0;
    // Ok also when there is none.
    virtual Status release_lease(uint64_t id) = 0;

    // Rows in key order; `limit` bounds what comes back.
    virtual Result<std::vector<SegmentRow>> list_segments(SegmentNumber after, size_t limit) = 0;
    // The registered segment with the smallest number whose last >= sequence; kNotFound.
    virtual Result<SegmentRow> segment_with(Sequence sequence) = 0;
    // The registered segment with the largest number that starts (first_time or last_time) at or
    // before `time`; kNotFound.
    virtual Result<SegmentRow> segment_before(TimePoint time) = 0;
    // The registered segment with the largest number whose last <= `sequence` and whose last_time
    // <= `time`; kNotFound.
    virtual Result<SegmentRow> segment_ended(Sequence sequence, TimePoint time) = 0;
    virtual Result<std::vector<PointRow>> list_points(const PointQuery& query) = 0;
    virtual Result<std::vector<GapRow>> list_gaps() = 0;
    virtual Result<std::vector<GeometryRow>> list_geometry() = 0;
    virtual Result<std::vector<ManifestRow>> list_manifests() = 0;  // by sequence, generation, name
    virtual Result<std::vector<KeptRow>> list_kept() = 0;           // all, by sequence
    // Those that a query asks for, in its order; `kind` is that of recorded ones only. What an
    // answer reads: there may be a hundred thousand, and list_kept() reads them all.
    virtual Result<std::vector<KeptRow>> find_kept(const PointQuery& query) = 0;
    // Hours and minutes, by grain, start and disk; those that are too old go with a registration.
    virtual Result<std::vector<ChangeRow>> list_changes() = 0;
    virtual Result<std::vector<DeadRow>> list_dead(const std::string& after, size_t limit) = 0;
    virtual Result<std::vector<LeaseRow>> list_leases() = 0;

    // Empties the ledger (leases too), puts `start` into it and marks it as rebuilding; then
    // commit_registration and commit_manifest fill it.
    virtual Status begin_rebuild(const RebuildStart& start) = 0;
    // Replaces the state by `state` (with what the commits could not know) and clears the mark.
    virtual Status finish_rebuild(const LedgerState& state) = 0;
};

}  // namespace farshore
