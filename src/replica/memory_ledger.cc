#include "replica/memory_ledger.h"

#include <algorithm>
#include <tuple>

namespace farshore {

namespace {

bool keeps(const std::map<std::string, KeptRow>& kept, Sequence sequence) {
    return std::ranges::any_of(kept, [&](auto& row) { return row.second.sequence == sequence; });
}

}  // namespace

template <typename Work>
Status MemoryLedger::transaction(const char* name, Work work) {
    if (hook_) FS_TRY(hook_(name, false));
    {
        std::lock_guard lock(mutex_);
        FS_TRY(work(tables_));  // checks first, changes after: a failed one changed nothing
    }
    if (hook_) FS_TRY(hook_(name, true));
    return {};
}

Result<LedgerState> MemoryLedger::state() {
    std::lock_guard lock(mutex_);
    return tables_.state;
}

Status MemoryLedger::commit_epoch(Epoch epoch, const std::string& appliance) {
    return transaction("epoch", [&](Tables& t) -> Status {
        if (epoch <= t.state.epoch)
            return fail(Code::kFenced, "a newer log lease was handed out meanwhile");
        t.state.epoch = epoch;
        t.state.appliance = appliance;
        return {};
    });
}

Status MemoryLedger::commit_registration(const RegistrationCommit& commit) {
    return transaction("registration", [&](Tables& t) -> Status {
        const SegmentRow& row = commit.segment;
        if (!t.state.rebuilding && row.epoch != t.state.epoch)
            return fail(Code::kFenced, "the segment's log lease is no longer the item's");
        if (row.number.v != t.state.last_segment.v + 1)
            return fail(Code::kSequenceHole, "the segment does not follow the last one");
        t.segments[row.number] = row;
        for (const PointRow& point : commit.points) t.points[point.sequence] = point;
        for (const GapRow& gap : commit.gaps) t.gaps[gap.last_good] = gap;
        for (const GeometryRow& geometry : commit.geometry)
            t.geometry[{geometry.disk, geometry.since}] = geometry;
        for (const ChangeRow& minute : commit.changes) {
            for (const ChangeRow& row : {minute, hour_of(minute)}) {
                const auto [at, fresh] =
                    t.changes.emplace(std::tuple(row.grain_s, row.start_us, row.disk), row);
                if (!fresh) at->second.add(row);
            }
        }
        std::erase_if(t.changes, [&](const auto& known) {
            return known.second.start_us < oldest_change_us(known.second.grain_s, row.last_time);
        });
        t.state.last_segment = row.number;
        t.state.last_header = row.header_hash;
        t.state.last_segment_epoch = row.epoch;
        t.state.stored = row.last;
        t.state.stored_time = row.last_time;
        t.state.written_bytes += row.written_bytes;
        t.state.stored_bytes += row.object_bytes;
        return {};
    });
}

Status MemoryLedger::commit_idle(Epoch epoch, Sequence sequence, TimePoint time) {
    return transaction("idle", [&](Tables& t) -> Status {
        if (epoch != t.state.epoch)
            return fail(Code::kFenced, "the log lease is no longer the item's");
        if (time < t.state.idle_time) return {};
        t.state.idle = sequence;
        t.state.idle_time = time;
        return {};
    });
}

Result<uint64_t> MemoryLedger::reserve_generation() {
    uint64_t generation = 0;
    FS_TRY(transaction("generation", [&](Tables& t) -> Status {
        generation = ++t.state.generation;
        return {};
    }));
    return generation;
}

Status MemoryLedger::commit_manifest(const ManifestCommit& commit, TimePoint now) {
    return transaction("manifest", [&](Tables& t) -> Status {
        std::map<std::string, KeptRow> kept = t.kept;
        for (const KeptRow& row : commit.kept) kept[row.object_name] = row;
        for (const std::string& name : commit.kept_dropped) kept.erase(name);
        const Sequence lowest = std::max(commit.floor.value_or(Sequence{}), t.state.floor);
        for (const auto& [id, lease] : t.leases) {
            if (lease.expires > now && lease.sequence < lowest && !keeps(kept, lease.sequence))
                return fail(Code::kWrongState, "a leased point would be lost");
        }
        t.kept = std::move(kept);
        for (const ManifestRow& row : commit.added) t.manifests[row.object_name] = row;
        for (const std::string& name : commit.dropped) t.manifests.erase(name);
        t.state.stored_bytes += commit.added_bytes;
        if (!commit.floor || *commit.floor <= t.state.floor) return {};
        const Sequence floor = *commit.floor;
        t.state.floor = floor;
        t.state.floor_segment = commit.floor_segment;
        t.state.floor_time = commit.floor_time;
        std::erase_if(t.segments, [&](auto& row) { return row.first <= commit.floor_segment; });
        std::erase_if(t.points, [&](auto& row) { return row.first < floor; });
        std::erase_if(
            t.gaps, [&](auto& row) { return !row.second.open() && row.second.resynced <= floor; });
        for (auto it = t.geometry.begin(); it != t.geometry.end();) {
            auto next = std::next(it);
            const bool replaced = next != t.geometry.end() &&
                                  next->first.first == it->first.first &&
                                  next->second.since <= floor;
            it = replaced ? t.geometry.erase(it) : next;
        }
        return {};
    });
}

Status MemoryLedger::commit_dead(const std::vector<DeadRow>& dead) {
    return transaction("dead", [&](Tables& t) -> Status {
        ++t.tick;
        for (DeadRow row : dead) {
            row.tick = t.tick;
            t.dead.emplace(row.object_name, row);
        }
        return {};
    });
}

Status MemoryLedger::commit_removed(const std::vector<std::string>& names, bool revived) {
    return transaction("removed", [&](Tables& t) -> Status {
        for (const std::string& name : names) {
            auto it = t.dead.find(name);
            if (it == t.dead.end()) continue;
            if (!revived)
                t.state.stored_bytes -= std::min(t.state.stored_bytes, it->second.object_bytes);
            t.dead.erase(it);
        }
        return {};
    });
}

Result<LeaseRow> MemoryLedger::commit_lease(const LeaseRow& lease) {
    LeaseRow row = lease;
    FS_TRY(transaction("lease", [&](Tables& t) -> Status {
        if (row.sequence < t.state.floor && !keeps(t.kept, row.sequence))
            return fail(Code::kPointOutsideWindow, "the point left the window");
        row.tick = row.id = ++t.tick;
        t.leases[row.id] = row;
        return {};
    }));
    return row;
}

Status MemoryLedger::renew_lease(uint64_t id, TimePoint expires) {
    return transaction("renew", [&](Tables& t) -> Status {
        auto it = t.leases.find(id);
        if (it == t.leases.end()) return fail(Code::kNotFound, "the lease is gone");
        it->second.expires = expires;
        return {};
    });
}

Status MemoryLedger::release_lease(uint64_t id) {
    return transaction("release", [&](Tables& t) -> Status {
        t.leases.erase(id);
        return {};
    });
}

Result<std::vector<SegmentRow>> MemoryLedger::list_segments(SegmentNumber after, size_t limit) {
    std::lock_guard lock(mutex_);
    std::vector<SegmentRow> out;
    for (auto it = tables_.segments.upper_bound(after);
         it != tables_.segments.end() && out.size() < limit; ++it)
        out.push_back(it->second);
    return out;
}

Result<SegmentRow> MemoryLedger::segment_with(Sequence sequence) {
    std::lock_guard lock(mutex_);
    for (const auto& [number, row] : tables_.segments) {
        if (row.last >= sequence) return row;
    }
    return fail(Code::kNotFound, "no registered segment holds that sequence");
}

Result<SegmentRow> MemoryLedger::segment_before(TimePoint time) {
    std::lock_guard lock(mutex_);
    for (auto it = tables_.segments.rbegin(); it != tables_.segments.rend(); ++it) {
        if (std::min(it->second.first_time, it->second.last_time) <= time) return it->second;
    }
    return fail(Code::kNotFound, "no registered segment is that old");
}

Result<SegmentRow> MemoryLedger::segment_ended(Sequence sequence, TimePoint time) {
    std::lock_guard lock(mutex_);
    for (auto it = tables_.segments.rbegin(); it != tables_.segments.rend(); ++it) {
        if (it->second.last <= sequence && it->second.last_time <= time) return it->second;
    }
    return fail(Code::kNotFound, "no registered segment ended before that");
}

Result<std::vector<PointRow>> MemoryLedger::list_points(const PointQuery& query) {
    std::lock_guard lock(mutex_);
    std::vector<PointRow> out;
    const auto wanted = [&](const PointRow& row) {
        return row.sequence >= query.from && row.sequence <= query.to &&
               (!query.kind || row.kind == *query.kind) &&
               (query.label.empty() || row.label == query.label);
    };
    if (query.newest_first) {
        for (auto it = tables_.points.rbegin();
             it != tables_.points.rend() && out.size() < query.limit; ++it)
            if (wanted(it->second)) out.push_back(it->second);
    } else {
        for (const auto& [sequence, row] : tables_.points) {
            if (out.size() >= query.limit) break;
            if (wanted(row)) out.push_back(row);
        }
    }
    return out;
}

template <typename Map>
static auto values(const Map& map) {
    std::vector<typename Map::mapped_type> out;
    out.reserve(map.size());
    for (const auto& [key, value] : map) out.push_back(value);
    return out;
}

Result<std::vector<GapRow>> MemoryLedger::list_gaps() {
    std::lock_guard lock(mutex_);
    return values(tables_.gaps);
}

Result<std::vector<GeometryRow>> MemoryLedger::list_geometry() {
    std::lock_guard lock(mutex_);
    return values(tables_.geometry);
}

Result<std::vector<ManifestRow>> MemoryLedger::list_manifests() {
    std::lock_guard lock(mutex_);
    auto out = values(tables_.manifests);
    std::ranges::sort(out, {}, [](const ManifestRow& r) {
        return std::tie(r.sequence, r.generation, r.object_name);
    });
    return out;
}

Result<std::vector<KeptRow>> MemoryLedger::list_kept() {
    std::lock_guard lock(mutex_);
    auto out = values(tables_.kept);
    std::ranges::sort(out, {}, [](const KeptRow& r) {
        return std::tie(r.sequence, r.generation, r.object_name);
    });
    return out;
}

Result<std::vector<KeptRow>> MemoryLedger::find_kept(const PointQuery& query) {
    FS_ASSIGN(auto out, list_kept());
    std::erase_if(out, [&](const KeptRow& row) {
        return row.sequence < query.from || row.sequence > query.to ||
               (query.kind && (!row.recorded || row.kind != *query.kind)) ||
               (!query.label.empty() && row.label != query.label);
    });
    if (query.newest_first) std::ranges::reverse(out);
    if (out.size() > query.limit) out.resize(query.limit);
    return out;
}

Result<std::vector<ChangeRow>> MemoryLedger::list_changes() {
    std::lock_guard lock(mutex_);
    return values(tables_.changes);
}

Result<std::vector<DeadRow>> MemoryLedger::list_dead(const std::string& after, size_t limit) {
    std::lock_guard lock(mutex_);
    std::vector<DeadRow> out;
    for (auto it = tables_.dead.upper_bound(after); it != tables_.dead.end() && out.size() < limit;
         ++it)
        out.push_back(it->second);
    return out;
}

Result<std::vector<LeaseRow>> MemoryLedger::list_leases() {
    std::lock_guard lock(mutex_);
    return values(tables_.leases);
}

Status MemoryLedger::begin_rebuild(const RebuildStart& start) {
    return transaction("begin_rebuild", [&](Tables& t) -> Status {
        const uint64_t tick = t.tick;
        t = Tables{};
        t.tick = tick;
        t.state = start.state;
        t.state.rebuilding = true;
        for (const PointRow& point : start.points) t.points[point.sequence] = point;
        for (const GeometryRow& row : start.geometry) t.geometry[{row.disk, row.since}] = row;
        for (const KeptRow& row : start.kept) t.kept[row.object_name] = row;
        return {};
    });
}

Status MemoryLedger::finish_rebuild(const LedgerState& state) {
    return transaction("finish_rebuild", [&](Tables& t) -> Status {
        t.state = state;
        t.state.rebuilding = false;
        return {};
    });
}

}  // namespace farshore
