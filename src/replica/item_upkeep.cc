// ItemReplica: checkpoints and retention. docs/design/replica.md.
#include <algorithm>
#include <map>
#include <set>

#include "replica/item_internal.h"
#include "replica/item_key.h"
#include "replica/item_object.h"
#include "replica/item_rewriting.h"
#include "replica/log_lease.h"
#include "replica/manifest_builder.h"
#include "store/store_identity.h"

namespace farshore {

using namespace item_internal;

namespace {

constexpr size_t kRemoveBatch = 64;

}  // namespace

namespace item_internal {

Result<Manifest> newest_manifest(ObjectStore& store, const ItemId& item, const Secret& key,
                                 const std::vector<ManifestRow>& rows, Sequence limit,
                                 const LedgerState& state) {
    std::optional<Error> damage;
    for (auto it = rows.rbegin(); it != rows.rend(); ++it) {
        if (it->sequence > limit) continue;
        auto manifest = load_manifest(store, item, key, it->object_name);
        if (manifest) return manifest;
        if (!is_damage(manifest.error().code())) return fail(manifest.error());
        if (!damage) damage = manifest.error();
    }
    if (state.floor_segment.v == 0) return Manifest{};
    if (damage) return fail(*damage);
    return fail(Code::kCorrupt, "no manifest at the window's floor is known",
                "rebuild the ledger from the store");
}

Result<std::vector<SegmentRow>> segments_between(ReplicaLedger& ledger, SegmentNumber after,
                                                 SegmentNumber last) {
    std::vector<SegmentRow> out;
    while (after < last) {
        FS_ASSIGN(auto page, ledger.list_segments(after, kRowsAPage));
        if (page.empty()) break;
        for (SegmentRow& row : page) {
            if (row.number > last) return out;
            if (row.number != after.next())
                return fail(Code::kCorrupt, "the ledger does not know all segments of the log",
                            "rebuild the ledger from the store");
            after = row.number;
            out.push_back(std::move(row));
        }
    }
    return out;
}

}  // namespace item_internal

// ---- checkpoints

Result<bool> ItemReplica::maybe_checkpoint() {
    if (buggify(options_.buggify, "replica.checkpoint_now")) return checkpoint();
    return write_checkpoint(options_.checkpoint_entries, options_.checkpoint_segments);
}

Result<bool> ItemReplica::checkpoint() { return write_checkpoint(1, 1); }

Result<bool> ItemReplica::write_checkpoint(uint64_t min_entries, uint64_t min_segments) {
    std::lock_guard lock(upkeep_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    // Asked several times a second: the rows are only read when there are new ones.
    if (state.last_segment == not_due_at_ && min_segments > 1) return false;
    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    const SegmentNumber newest = manifests.empty() ? SegmentNumber{} : manifests.back().segment;
    if (newest >= state.last_segment) return false;
    FS_ASSIGN(const auto behind, segments_between(ledger_, newest, state.last_segment));
    uint64_t entries = 0;
    for (const SegmentRow& row : behind) entries += row.entries;
    if (entries < min_entries && behind.size() < min_segments) {
        not_due_at_ = state.last_segment;
        return false;
    }

    FS_TRY(check_fence());
    FS_ASSIGN(const Manifest from,
              newest_manifest(store_, item_, key_, manifests, {UINT64_MAX}, state));
    FS_ASSIGN(const auto segments, segments_between(ledger_, from.segment, state.last_segment));
    FS_ASSIGN(const uint64_t generation, ledger_.reserve_generation());
    ManifestBuilder builder(store_, item_, key_, random_, options_.parallel);
    FS_ASSIGN(Manifest made, builder.extend(from, segments, {vault_epoch(), generation}));
    made.floor = state.floor;
    made.floor_segment = state.floor_segment;
    made.floor_time = state.floor_time;
    if (options_.planted.wrong_disk_set && made.disks.size() > 1) {
        const DiskIndex last = made.disks.back().disk;
        std::erase_if(made.shards, [&](const ShardRef& shard) { return shard.disk == last; });
        made.disks.pop_back();
    }
    std::erase_if(made.points, [&](const PointRow& p) { return p.sequence < state.floor; });
    std::erase_if(made.gaps,
                  [&](const GapRow& g) { return !g.open() && g.resynced <= state.floor; });
    FS_TRY(builder.put(made));

    ManifestCommit commit;
    commit.added.push_back({manifest_name(item_, made.sequence, made.generation), made.sequence,
                            made.segment, generation, made.time});
    commit.added_bytes = builder.put_bytes();
    // Too many between: the one goes whose neighbours are closest to each other. The first is the
    // floor's (or the oldest), the newest is the one just made.
    std::vector<ManifestRow> kept = manifests;
    kept.push_back(commit.added.front());
    const size_t most =
        buggify(options_.buggify, "replica.few_manifests") ? 1 : options_.max_manifests;
    while (kept.size() > most + 1 && kept.size() > 2) {
        size_t least = 1;
        for (size_t i = 1; i + 1 < kept.size(); ++i) {
            if (kept[i + 1].segment.v - kept[i - 1].segment.v <
                kept[least + 1].segment.v - kept[least - 1].segment.v)
                least = i;
        }
        commit.dropped.push_back(kept[least].object_name);
        kept.erase(kept.begin() + static_cast<ptrdiff_t>(least));
    }
    FS_TRY(ledger_.commit_manifest(commit, clock_.now()));
    return true;
}

// ---- retention

Result<std::optional<SegmentRow>> ItemReplica::choose_floor(const RetentionPolicy& policy,
                                                            const LedgerState& state) {
    const std::optional<SegmentRow> stay;
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    const auto gap = open_gap(gaps);
    // Below the newest point: while a gap is open, that is the last one before it.
    const Sequence newest = gap ? gap->last_good : state.stored;
    if (newest.v == 0) return stay;
    Sequence limit{newest.v - 1};
    if (policy.followed) {
        FS_ASSIGN(const auto followed, policy.followed());
        if (followed) limit = std::min(limit, *followed);
    }
    const TimePoint now = clock_.now();
    const TimePoint edge{now.us - policy.window_us};
    while (limit > state.floor) {
        auto row = ledger_.segment_ended(limit, edge);
        if (!row) {
            if (row.error().code() == Code::kNotFound) return stay;
            return fail(row.error());
        }
        if (row->number <= state.floor_segment) return stay;
        if (const GapRow* over = gap_over(gaps, row->last)) {
            limit = over->last_good;
            continue;
        }
        if (state.floor.v > 0 && row->last_time.us - state.floor_time.us < policy.min_advance_us)
            return stay;
        return std::optional<SegmentRow>(std::move(*row));
    }
    return stay;
}

Status ItemReplica::move_floor(const RetentionPolicy& policy, RetentionReport& report) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto row, choose_floor(policy, state));
    const SegmentNumber segment = row ? row->number : state.floor_segment;
    const Sequence floor = row ? row->last : state.floor;
    const TimePoint floor_time = row ? row->last_time : state.floor_time;
    report.floor = floor;
    if (floor.v == 0) return {};

    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    FS_ASSIGN(const KeepPlan plan, plan_kept(policy, state, row ? &*row : nullptr));
    FS_ASSIGN(const Manifest from, newest_manifest(store_, item_, key_, manifests, floor, state));
    ManifestBuilder builder(store_, item_, key_, random_, options_.parallel);
    const auto set_window = [&](Manifest& m) {
        m.floor = floor;
        m.floor_segment = segment;
        m.floor_time = floor_time;
        std::erase_if(m.points, [&](const PointRow& p) { return p.sequence < floor; });
        std::erase_if(m.gaps, [&](const GapRow& g) { return !g.open() && g.resynced <= floor; });
    };
    const auto next_generation = [&]() -> Result<Generation> {
        FS_ASSIGN(const uint64_t number, ledger_.reserve_generation());
        return Generation{vault_epoch(), number};
    };
    Manifest at_floor = from;
    if (from.segment < segment) {
        FS_ASSIGN(const auto segments, segments_between(ledger_, from.segment, segment));
        FS_ASSIGN(const Generation generation, next_generation());
        FS_ASSIGN(at_floor, builder.extend(from, segments, generation));
    }

    // First: whoever sees a manifest with the new floor finds what stays below it.
    ManifestCommit commit;
    std::vector<KeptRow> kept = plan.stay;
    for (const Sequence sequence : plan.make) {
        FS_ASSIGN(KeptRow made, make_kept(builder, state, manifests, sequence));
        commit.kept.push_back(made);
        kept.push_back(std::move(made));
    }
    for (const KeptRow& gone : plan.drop) commit.kept_dropped.push_back(gone.object_name);
    std::ranges::sort(kept, {}, &KeptRow::sequence);

    Rewriting rewriting;
    FS_TRY(choose_rewriting(policy, at_floor, kept, builder, rewriting));
    if (!row && rewriting.objects == 0 && plan.make.empty() && plan.drop.empty()) return {};

    const auto add = [&](Manifest& m) -> Status {
        set_window(m);
        FS_TRY(builder.put(m));
        commit.added.push_back({manifest_name(item_, m.sequence, m.generation), m.sequence,
                                m.segment, m.generation.number, m.time});
        return {};
    };
    ManifestBuilder::Moves moves;
    if (rewriting.objects != 0) {
        FS_ASSIGN(moves, builder.move_payload(*rewriting.needed, policy.rewrite_memory_bytes,
                                              at_floor.time, vault_epoch(),
                                              [&] { return ledger_.reserve_generation(); }));
        FS_TRY(relocate_kept(builder, rewriting, moves, commit));
        FS_ASSIGN(const Generation generation, next_generation());
        FS_ASSIGN(at_floor, builder.relocate(at_floor, moves, generation));
    } else if (row && at_floor.generation == from.generation) {
        // The floor reaches a checkpoint: the same shards under a manifest that says so.
        FS_ASSIGN(at_floor.generation, next_generation());
        at_floor.previous = manifest_name(item_, from.sequence, from.generation);
    }
    if (row || !moves.empty()) {
        // First: whoever sees a later manifest with this floor finds the floor's own.
        FS_TRY(add(at_floor));
        for (const ManifestRow& known : manifests) {
            if (known.sequence <= floor) {
                commit.dropped.push_back(known.object_name);
                continue;
            }
            if (moves.empty()) continue;
            auto manifest = load_manifest(store_, item_, key_, known.object_name);
            if (!manifest) {
                if (!is_damage(manifest.error().code())) return fail(manifest.error());
                // The log behind the floor replaces it.
                commit.dropped.push_back(known.object_name);
                continue;
            }
            if (!refers_to(*manifest, moves)) continue;
            FS_ASSIGN(const Generation generation, next_generation());
            FS_ASSIGN(Manifest moved, builder.relocate(*manifest, moves, generation));
            FS_TRY(add(moved));
            commit.dropped.push_back(known.object_name);
        }
    }
    commit.added_bytes = builder.put_bytes();
    if (row) {
        commit.floor = floor;
        commit.floor_segment = segment;
        commit.floor_time = floor_time;
    }
    const Status committed = ledger_.commit_manifest(commit, clock_.now());
    if (!committed) {
        // A lease came in between: the next run chooses another floor, the sweep takes what was
        // put.
        if (committed.error().code() == Code::kWrongState) return {};
        return committed;
    }
    report.floor_moved = row.has_value();
    report.thinned = plan.drop.size();
    report.rewritten_objects = rewriting.objects;
    report.rewritten_bytes = builder.moved_bytes();
    return {};
}

// In a store with locks: what is needed is locked for half of their time at least, before anything
// is removed. Objects that are about to be registered were locked when they were put.
Status ItemReplica::keep_locked(const std::vector<ObjectInfo>& there,
                                const std::map<std::string, uint64_t>& unneeded) {
    if (store_.lock_us() == 0) return {};
    const TimePoint until{clock_.now().us + store_.lock_us() / 2};
    for (const ObjectInfo& info : there)
        if (!unneeded.contains(info.name)) FS_TRY(store_.extend_lock(info.name, until));
    // What opens them, and what says that they are held.
    for (const std::string& prefix : {item_key_prefix(item_), hold_prefix(item_)}) {
        FS_ASSIGN(const auto infos, list_all(store_, prefix));
        for (const ObjectInfo& info : infos) FS_TRY(store_.extend_lock(info.name, until));
    }
    for (const std::string& name : {item_object_name(item_), item_description_name(item_)}) {
        // There is one or the other.
        const Status locked = store_.extend_lock(name, until);
        if (!locked && locked.error().code() != Code::kNotFound) return locked;
    }
    return store_.extend_lock(kStoreObject, until);
}

Status ItemReplica::sweep(const RetentionPolicy& policy, RetentionReport& report) {
    // The listing comes first: what is put or registered afterwards is not in it.
    const std::string own = item_prefix(item_);
    std::vector<ObjectInfo> there;
    for (const std::string& prefix :
         {base_prefix(item_), kept_prefix(item_), log_lease_prefix(item_), log_prefix(item_),
          manifest_prefix(item_), shard_prefix(item_)}) {
        FS_ASSIGN(auto infos, list_all(store_, prefix));
        there.insert(there.end(), std::make_move_iterator(infos.begin()),
                     std::make_move_iterator(infos.end()));
    }
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    std::set<std::string> needed, in_force;
    for (const ManifestRow& row : manifests) {
        needed.insert(row.object_name);
        in_force.insert(row.object_name);
    }
    // Every manifest that a reader can still find keeps what it refers to.
    size_t found_in_force = 0;
    for (const ObjectInfo& info : there) {
        if (!parse_manifest_name(item_, info.name)) continue;
        found_in_force += in_force.count(info.name);
        auto manifest = load_manifest(store_, item_, key_, info.name);
        if (!manifest) {
            // Of one in force it must be known what it needs; nothing is removed until it is
            // mended.
            if (in_force.contains(info.name) || !is_damage(manifest.error().code()))
                return fail(manifest.error());
            continue;
        }
        for (const ShardRef& shard : manifest->shards) needed.insert(shard_name(item_, shard));
        for (const LiveObject& object : manifest->objects)
            needed.insert(object_name(item_, object.object));
    }
    FS_ASSIGN(const auto kept, ledger_.list_kept());
    report.kept = kept.size();
    for (const KeptRow& row : kept) {
        needed.insert(row.object_name);
        in_force.insert(row.object_name);
    }
    std::vector<std::string> kept_names;
    for (const ObjectInfo& info : there) {
        if (!parse_kept_name(item_, info.name)) continue;
        found_in_force += in_force.count(info.name);
        kept_names.push_back(info.name);
    }
    FS_TRY(kept_needs_.update(store_, item_, key_, kept_names, in_force));
    if (found_in_force != in_force.size())
        return fail(Code::kCorrupt, "a manifest that is in force is missing in the store",
                    "rebuild the ledger from the store");
    FS_ASSIGN(const auto rows, segments_between(ledger_, state.floor_segment, state.last_segment));
    for (const SegmentRow& row : rows) {
        // The planted bug: what a newer manifest covers need not be kept.
        if (policy.planted.delete_too_early && !manifests.empty() &&
            row.last <= manifests.back().sequence)
            continue;
        needed.insert(row.object_name);
    }

    std::vector<LogLeaseMark> marks;
    for (const ObjectInfo& info : there)
        if (const auto mark = parse_log_lease_name(item_, info.name)) marks.push_back(*mark);
    std::set<std::string> past_leases;
    for (const LogLeaseMark& mark : LogOwners(marks).unneeded(state.floor_segment))
        past_leases.insert(log_lease_name(item_, mark));

    const auto dispensable = [&](const ObjectInfo& info) {
        if (past_leases.contains(info.name)) return true;
        if (needed.contains(info.name)) return false;
        if (parse_manifest_name(item_, info.name) || parse_kept_name(item_, info.name)) return true;
        if (const auto shard = parse_shard_name(item_, info.name))
            return shard->generation.vault <= vault_epoch() && !kept_needs_.needs(*shard);
        const auto object = parse_object_name(item_, info.name);
        if (!object) return false;  // not ours
        if (kept_needs_.needs(*object)) return false;
        if (object->kind == SegmentKind::kBase) return object->epoch <= vault_epoch();
        // Beyond the log's end: about to be registered, or a leftover that goes when the log has
        // passed its number.
        return object->number <= state.last_segment;
    };
    const TimePoint now = clock_.now();
    std::map<std::string, uint64_t> unneeded;
    uint64_t there_bytes = 0;
    for (const ObjectInfo& info : there) {
        there_bytes += info.size_bytes;
        if (dispensable(info)) unneeded[info.name] = info.size_bytes;
    }
    FS_TRY(keep_locked(there, unneeded));

    std::vector<DeadRow> listed;
    for (std::string after;;) {
        FS_ASSIGN(auto page, ledger_.list_dead(after, kRowsAPage));
        const bool last = page.size() < kRowsAPage;
        if (!page.empty()) after = page.back().object_name;
        listed.insert(listed.end(), std::make_move_iterator(page.begin()),
                      std::make_move_iterator(page.end()));
        if (last) break;
    }
    std::vector<std::string> revived, gone;
    std::set<std::string> known;
    std::vector<DeadRow> ripe;
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    uint64_t oldest_lease = UINT64_MAX;
    for (const LeaseRow& lease : leases) {
        // Nobody reads for a hold: what its point needs is needed by a manifest in force.
        if (hold_of_holder(lease.holder)) continue;
        if (lease.expires > now)
            oldest_lease = std::min(oldest_lease, lease.tick);
        else
            FS_TRY(ledger_.release_lease(lease.id));
    }
    for (const DeadRow& row : listed) {
        known.insert(row.object_name);
        if (!unneeded.contains(row.object_name)) {
            (needed.contains(row.object_name) ? revived : gone).push_back(row.object_name);
        } else if (now.us - row.since.us >= policy.grace_us && oldest_lease > row.tick) {
            ripe.push_back(row);
        } else {
            ++report.waiting;
        }
    }
    if (!revived.empty()) FS_TRY(ledger_.commit_removed(revived, true));
    if (!gone.empty()) FS_TRY(ledger_.commit_removed(gone, false));
    std::vector<DeadRow> dead;
    for (const auto& [name, bytes] : unneeded) {
        if (!known.contains(name)) dead.push_back({name, bytes, now, 0});
    }
    for (size_t from = 0; from < dead.size(); from += kRowsAPage) {
        const auto end = std::min(dead.size(), from + kRowsAPage);
        FS_TRY(ledger_.commit_dead({dead.begin() + static_cast<ptrdiff_t>(from),
                                    dead.begin() + static_cast<ptrdiff_t>(end)}));
    }
    report.found_dead = dead.size();
    report.waiting += dead.size();

    for (size_t from = 0; from < ripe.size(); from += kRemoveBatch) {
        FS_TRY(check_fence());
        const auto end = std::min(ripe.size(), from + kRemoveBatch);
        std::vector<std::string> names;
        for (size_t i = from; i < end; ++i) {
            FS_TRY(store_.remove(ripe[i].object_name));
            names.push_back(ripe[i].object_name);
            there_bytes -= std::min(there_bytes, unneeded[ripe[i].object_name]);
            report.removed_bytes += unneeded[ripe[i].object_name];
            ++report.removed;
        }
        FS_TRY(ledger_.commit_removed(names, false));
        // The rest is for the next one, as after a crash.
        if (buggify(options_.buggify, "replica.short_sweep")) return {};
    }
    FS_ASSIGN(const LedgerState after, ledger_.state());
    // What was registered since the listing is counted by the ledger alone.
    const uint64_t registered =
        after.last_segment == state.last_segment
            ? 0
            : after.stored_bytes - std::min(after.stored_bytes, state.stored_bytes);
    stored_correction_bytes_ =
        static_cast<int64_t>(there_bytes + registered) - static_cast<int64_t>(after.stored_bytes);
    return {};
}

Result<RetentionReport> ItemReplica::run_retention(const RetentionPolicy& policy) {
    std::lock_guard lock(upkeep_mutex_);
    RetentionReport report;
    FS_TRY(check_fence());
    FS_TRY(mend_holds());
    FS_TRY(move_floor(policy, report));
    FS_TRY(sweep(policy, report));
    return report;
}

}  // namespace farshore
