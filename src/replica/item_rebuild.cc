// ItemReplica: the ledger from the store alone.
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "replica/item_internal.h"
#include "replica/log_lease.h"

namespace farshore {

using namespace item_internal;

Status ItemReplica::rebuild(ObjectStore& store, ReplicaLedger& ledger, const ItemId& item,
                            const Secret& item_key, const ItemReplicaOptions& options) {
    struct Found {
        std::string name;
        ManifestName parsed;
    };
    FS_ASSIGN(const auto infos, list_all(store, manifest_prefix(item)));
    std::vector<Found> found;
    uint64_t generation = 0, total_bytes = 0;
    for (const ObjectInfo& info : infos) {
        total_bytes += info.size_bytes;
        if (const auto parsed = parse_manifest_name(item, info.name)) {
            found.push_back({info.name, *parsed});
            generation = std::max(generation, parsed->generation.number);
        }
    }
    FS_ASSIGN(const auto keeps, list_all(store, kept_prefix(item)));
    std::vector<Found> found_kept;
    for (const ObjectInfo& info : keeps) {
        total_bytes += info.size_bytes;
        if (const auto parsed = parse_kept_name(item, info.name)) {
            found_kept.push_back({info.name, *parsed});
            generation = std::max(generation, parsed->generation.number);
        }
    }
    FS_ASSIGN(const auto shards, list_all(store, shard_prefix(item)));
    for (const ObjectInfo& info : shards) {
        total_bytes += info.size_bytes;
        if (const auto shard = parse_shard_name(item, info.name))
            generation = std::max(generation, shard->generation.number);
    }
    FS_ASSIGN(const auto bases, list_all(store, base_prefix(item)));
    for (const ObjectInfo& info : bases) {
        total_bytes += info.size_bytes;
        if (const auto base = parse_object_name(item, info.name))
            generation = std::max(generation, base->number.v);
    }
    uint64_t epoch = 0;
    FS_ASSIGN(const auto leases, list_all(store, log_lease_prefix(item)));
    for (const ObjectInfo& info : leases) {
        total_bytes += info.size_bytes;
        if (const auto mark = parse_log_lease_name(item, info.name))
            epoch = std::max(epoch, mark->epoch.v);
    }
    FS_ASSIGN(const auto logs, list_all(store, log_prefix(item)));
    for (const ObjectInfo& info : logs) {
        total_bytes += info.size_bytes;
        if (const auto segment = parse_object_name(item, info.name))
            epoch = std::max(epoch, segment->epoch.v);
    }

    // The window is what the newest manifest that can be read says.
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
        return a.parsed.generation > b.parsed.generation;
    });
    std::map<Sequence, Manifest> newest;  // of each sequence, the newest generation
    std::optional<Error> damage;
    Sequence floor;
    bool have_window = false;
    for (const Found& f : found) {
        if (have_window && (f.parsed.sequence < floor || newest.contains(f.parsed.sequence)))
            continue;
        auto manifest = load_manifest(store, item, item_key, f.name);
        if (!manifest) {
            if (!is_damage(manifest.error().code())) return fail(manifest.error());
            if (!damage) damage = manifest.error();
            continue;
        }
        if (!have_window) floor = manifest->floor;
        have_window = true;
        newest.emplace(manifest->sequence, std::move(*manifest));
    }

    RebuildStart start;
    LogPosition at;
    if (floor.v > 0) {
        const auto at_floor = newest.find(floor);
        if (at_floor == newest.end())
            return fail(damage ? *damage
                               : Error(Code::kCorrupt,
                                       "the manifest at the window's floor is "
                                       "missing"));
        const Manifest& m = at_floor->second;
        at = {m.segment, m.segment_epoch, m.segment_header, m.sequence, m.time};
        LedgerState& state = start.state;
        state.last_segment = m.segment;
        state.last_segment_epoch = m.segment_epoch;
        state.last_header = m.segment_header;
        state.stored = state.floor = m.sequence;
        state.stored_time = state.floor_time = m.time;
        state.floor_segment = m.segment;
        state.written_bytes = m.written_bytes;
        for (const PointRow& point : m.points) {
            if (point.sequence >= floor) start.points.push_back(point);
        }
        for (const DiskSize& disk : m.disks)
            start.geometry.push_back({disk.disk, m.sequence, disk.size_bytes, disk.joining});
    }
    // What is kept above the floor was put for a move of it that never happened. Names sort by
    // sequence, then generation: of each the newest that can be read.
    for (auto f = found_kept.rbegin(); f != found_kept.rend(); ++f) {
        if (f->parsed.sequence >= floor) continue;
        if (!start.kept.empty() && start.kept.back().sequence == f->parsed.sequence) continue;
        const auto manifest = load_manifest(store, item, item_key, f->name);
        if (manifest)
            start.kept.push_back(kept_row(item, *manifest));
        else if (!is_damage(manifest.error().code()))
            return fail(manifest.error());
    }
    std::ranges::reverse(start.kept);
    FS_TRY(ledger.begin_rebuild(start));
    FS_ASSIGN(const LogListing log, list_log(store, item, at.number));
    if (log.segments.empty() && floor.v == 0 && damage) return fail(*damage);
    LogState state(at.last, at.last_time, std::nullopt, {});
    FS_TRY(walk_log(store, item, item_key, at, log.segments, options.parallel,
                    [&](const std::shared_ptr<SegmentReader>& segment) -> Result<bool> {
                        LogState one(state.last(), state.last_time(), state.open_gap(), {});
                        auto commit = registration_of(*segment, one);
                        if (!commit) return fail(commit.error());
                        state = std::move(one);
                        auto done = ledger.commit_registration(*commit);
                        if (!done) return fail(done.error());
                        return true;
                    }));
    // A log that ends too early would be continued over what was acknowledged. Appliances put a
    // segment only when all but the last few before it are registered: with more behind the hole,
    // what is missing was registered and lost. So it was when a lease began behind it, or a
    // manifest lies there.
    const auto missing = [&] {
        return fail(Code::kCorrupt,
                    fmt::format("segment {} of the log is missing in the store, and later ones are "
                                "there",
                                at.number.v + 1),
                    "restore it from a copy of the store");
    };
    for (const Found& f : found) {
        if (f.parsed.sequence > at.last) return missing();
    }
    if (log.lost_behind(at.number)) return missing();
    // From here on nothing that lands late in the store changes what the log is up to here: neither
    // a put of a lease that was handed out before, nor what such a lease wrote down of itself.
    if (!options.follows_another && at.number.v > 0) {
        if (options.fence != nullptr) FS_TRY(options.fence->still_mine());
        epoch = item_internal::next_log_epoch({epoch}, options).v;
        const LogLeaseMark mark{{epoch}, at.number.next(), at.epoch};
        FS_TRY(put_log_lease(store, item, mark));
        total_bytes += log_lease_name(item, mark).size();
    }
    // Before the end: a rebuild that stops here is done again.
    FS_ASSIGN(const auto holds, list_all(store, hold_prefix(item)));
    for (const ObjectInfo& info : holds) {
        if (!is_hold_name(item, info.name)) continue;
        FS_ASSIGN(const Bytes object, store.get(info.name));
        FS_ASSIGN(const Hold hold, decode_hold(item, info.name, object, item_key));
        total_bytes += info.size_bytes;
        const auto lease =
            ledger.commit_lease({0, 0, hold.sequence, hold_holder(hold), kNeverExpires});
        // Its point was lost with what was lost.
        if (!lease && lease.error().code() != Code::kPointOutsideWindow) return fail(lease.error());
    }
    ManifestCommit manifests;
    for (const auto& [sequence, m] : newest) {
        manifests.added.push_back({manifest_name(item, m.sequence, m.generation), m.sequence,
                                   m.segment, m.generation.number, m.time});
    }
    FS_TRY(ledger.commit_manifest(manifests, {}));
    FS_ASSIGN(LedgerState end, ledger.state());
    end.generation = generation;
    end.epoch = {std::max(end.epoch.v, epoch)};
    end.stored_bytes = total_bytes;
    return ledger.finish_rebuild(end);
}

}  // namespace farshore
