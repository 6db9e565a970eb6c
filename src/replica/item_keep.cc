// ItemReplica: points that stay when they leave the window, and payload that moves so that what no
// point needs goes. docs/design/replica.md §5.
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "replica/item_internal.h"
#include "replica/item_rewriting.h"

namespace farshore {

using namespace item_internal;

namespace {

int rank_of(PointKind kind) {
    switch (kind) {
        case PointKind::kApplication:
            return 2;
        case PointKind::kBookmark:
            return 1;
        case PointKind::kCrash:
            break;
    }
    return 0;
}

}  // namespace

Result<ItemReplica::KeepPlan> ItemReplica::plan_kept(const RetentionPolicy& policy,
                                                     const LedgerState& state,
                                                     const SegmentRow* floor) {
    KeepPlan plan;
    FS_ASSIGN(const auto kept, ledger_.list_kept());
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    const TimePoint now = clock_.now();
    const Sequence new_floor = floor != nullptr ? floor->last : state.floor;
    std::set<Sequence> leased;
    for (const LeaseRow& lease : leases) {
        if (lease.expires > now && lease.sequence < new_floor) leased.insert(lease.sequence);
    }

    // By sequence: what is kept, and what leaves the window now.
    std::map<Sequence, RetentionGrid::Point> points;
    for (const KeptRow& row : kept)
        points[row.sequence] = {row.time, row.recorded ? rank_of(row.kind) : 0};
    if (floor != nullptr && !policy.grid.empty()) {
        FS_ASSIGN(const auto gaps, ledger_.list_gaps());
        const auto leaves = [&](Sequence sequence, TimePoint time, int rank) {
            if (gap_over(gaps, sequence) == nullptr)
                points.insert_or_assign(sequence, RetentionGrid::Point{time, rank});
        };
        if (state.floor.v > 0) leaves(state.floor, state.floor_time, 0);
        FS_ASSIGN(const auto rows, segments_between(ledger_, state.floor_segment, floor->number));
        for (const SegmentRow& row : rows) {
            if (row.last < new_floor) leaves(row.last, row.last_time, 0);
        }
        PointQuery query;
        query.from = state.floor;
        query.to = {new_floor.v - 1};
        query.limit = kRowsAPage;
        while (true) {
            FS_ASSIGN(const auto page, ledger_.list_points(query));
            for (const PointRow& point : page)
                leaves(point.sequence, point.time, rank_of(point.kind));
            if (page.size() < kRowsAPage) break;
            query.from = page.back().sequence.next();
        }
    }
    // The floor is a point as well: of its slot none that is no better need stay beside it.
    if (new_floor.v > 0)
        points.insert_or_assign(
            new_floor,
            RetentionGrid::Point{floor != nullptr ? floor->last_time : state.floor_time, 0});

    std::vector<RetentionGrid::Point> candidates;
    for (const auto& [sequence, point] : points) candidates.push_back(point);
    const std::vector<bool> stays = policy.grid.choose(candidates, now);
    std::set<Sequence> wanted = leased;
    size_t i = 0;
    for (const auto& [sequence, point] : points) {
        if (stays[i++] && sequence < new_floor) wanted.insert(sequence);
    }
    for (const KeptRow& row : kept) {
        // Of two at one sequence (two vaults) one is enough.
        const bool first = wanted.erase(row.sequence) != 0;
        (first ? plan.stay : plan.drop).push_back(row);
    }
    // What is below the floor already and is not kept is gone.
    for (const Sequence sequence : wanted) {
        if (sequence >= state.floor && sequence.v > 0) plan.make.push_back(sequence);
    }
    return plan;
}

Result<RetentionPreview> ItemReplica::preview_retention(const RetentionPolicy& policy) {
    RetentionPreview preview;
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto row, choose_floor(policy, state));
    FS_ASSIGN(const KeepPlan plan, plan_kept(policy, state, row ? &*row : nullptr));
    const Sequence floor = row ? row->last : state.floor;
    preview.window_from = row ? row->last_time : state.floor_time;
    preview.made = plan.make.size();
    preview.dropped = plan.drop.size();
    const std::set<Sequence> made(plan.make.begin(), plan.make.end());
    if (floor > state.floor) {
        // The floor itself is a point before and after.
        if (state.floor.v > 0 && !made.contains(state.floor)) ++preview.dropped;
        PointQuery query;
        query.from = state.floor.next();
        query.to = {floor.v - 1};
        query.limit = kRowsAPage;
        while (query.from <= query.to) {
            FS_ASSIGN(const auto page, ledger_.list_points(query));
            for (const PointRow& point : page) preview.dropped += !made.contains(point.sequence);
            if (page.size() < kRowsAPage) break;
            query.from = page.back().sequence.next();
        }
    }
    const auto stays = [&](Sequence sequence, TimePoint time) {
        if (preview.oldest.v != 0 && preview.oldest <= sequence) return;
        preview.oldest = sequence;
        preview.oldest_time = time;
    };
    for (const KeptRow& kept : plan.stay) stays(kept.sequence, kept.time);
    if (!plan.make.empty()) {
        FS_ASSIGN(const TimePoint time, time_of(plan.make.front(), state));
        stays(plan.make.front(), time);
    }
    if (preview.oldest.v != 0) return preview;
    if (floor.v != 0) {
        stays(floor, preview.window_from);
        return preview;
    }
    // Nothing has left the window yet.
    FS_ASSIGN(const ReplicaStatus now, status());
    if (now.oldest) stays(*now.oldest, now.oldest_time);
    preview.window_from = now.oldest_time;
    return preview;
}

Result<KeptRow> ItemReplica::make_kept(ManifestBuilder& builder, const LedgerState& state,
                                       const std::vector<ManifestRow>& manifests,
                                       Sequence sequence) {
    FS_ASSIGN(const Manifest from,
              newest_manifest(store_, item_, key_, manifests, sequence, state));
    FS_ASSIGN(const uint64_t number, ledger_.reserve_generation());
    const Generation generation{vault_epoch(), number};
    std::vector<SegmentRow> segments;
    if (from.sequence < sequence) {
        FS_ASSIGN(const SegmentRow holds, ledger_.segment_with(sequence));
        FS_ASSIGN(segments, segments_between(ledger_, from.segment, holds.number));
    }
    FS_ASSIGN(Manifest made, builder.extend(from, segments, generation, sequence));
    if (made.sequence != sequence)
        return fail(Code::kCorrupt, fmt::format("the log has no record {}", sequence.v));
    made.floor = made.sequence;
    made.floor_segment = made.segment;
    made.floor_time = made.time;
    std::erase_if(made.points, [&](const PointRow& point) { return point.sequence != sequence; });
    made.gaps.clear();
    FS_TRY(builder.put_kept(made));
    return kept_row(item_, made);
}

// What is mostly dead - of what the floor and all kept points need together - most dead first, and
// what is small when there is a lot of it.
Status ItemReplica::choose_rewriting(const RetentionPolicy& policy, const Manifest& at_floor,
                                     const std::vector<KeptRow>& kept, ManifestBuilder& builder,
                                     Rewriting& out) {
    if (policy.rewrite_below_percent == 0) return {};
    // With kept points a look is dear, and changes nothing until one of them does.
    std::vector<std::string> names;
    for (const KeptRow& row : kept) names.push_back(row.object_name);
    const bool any = buggify(options_.buggify, "replica.rewrite_all");
    if (!names.empty() && !any && nothing_to_rewrite_ &&
        *nothing_to_rewrite_ == std::pair(at_floor.sequence, names))
        return {};

    struct Use {
        LiveObject most;           // what one manifest needs of it at least
        std::vector<size_t> kept;  // which
    };
    std::map<ObjectRef, Use> uses;
    const auto use = [&](const LiveObject& object) -> Use& {
        Use& of = uses[object.object];
        of.most.object = object.object;
        of.most.payload_bytes = object.payload_bytes;
        of.most.live_bytes = std::max(of.most.live_bytes, object.live_bytes);
        return of;
    };
    for (const LiveObject& object : at_floor.objects) use(object);
    std::vector<uint64_t> shard_bytes;  // to put again, at most
    std::set<std::string> seen, now_seen;
    for (size_t i = 0; i < kept.size(); ++i) {
        FS_ASSIGN(const Manifest manifest, load_manifest(store_, item_, key_, kept[i].object_name));
        for (const LiveObject& object : manifest.objects) {
            // Objects that are full of what is needed are not moved: only the others' users count.
            Use& of = use(object);
            if (of.most.live_bytes * 100 < of.most.payload_bytes * policy.rewrite_below_percent ||
                any || of.most.payload_bytes < policy.small_object_bytes)
                of.kept.push_back(i);
        }
        uint64_t bytes = 0;
        now_seen.clear();
        for (const ShardRef& ref : manifest.shards) {
            std::string name = shard_name(item_, ref);
            if (!seen.contains(name)) bytes += ref.object_bytes;
            now_seen.insert(std::move(name));
        }
        std::swap(seen, now_seen);
        shard_bytes.push_back(bytes);
    }

    const auto mostly_dead = [&](const LiveObject& object) {
        return any || object.live_bytes * 100 < object.payload_bytes * policy.rewrite_below_percent;
    };
    uint64_t payload = 0, dead = 0;
    for (const auto& [ref, of] : uses) {
        payload += of.most.payload_bytes;
        if (mostly_dead(of.most)) dead += of.most.payload_bytes - of.most.live_bytes;
    }
    const bool worth_it =
        policy.rewrite_min_bytes == 0 || dead >= std::max(policy.rewrite_min_bytes, payload / 64);
    std::vector<LiveObject> moving, small;
    for (const auto& [ref, of] : uses) {
        if (worth_it && mostly_dead(of.most))
            moving.push_back(of.most);
        else if (of.most.payload_bytes < policy.small_object_bytes)
            small.push_back(of.most);
    }
    std::ranges::sort(moving, [](const LiveObject& a, const LiveObject& b) {
        return std::pair(a.live_bytes * b.payload_bytes, a.object) <
               std::pair(b.live_bytes * a.payload_bytes, b.object);
    });
    if (small.size() >= std::max<size_t>(policy.small_objects, 2))
        moving.insert(moving.end(), small.begin(), small.end());
    uint64_t bytes = 0;
    size_t count = 0;
    while (count < moving.size() && (bytes += moving[count].live_bytes) <= policy.rewrite_bytes)
        ++count;
    moving.resize(count);
    const auto nothing = [&]() -> Status {
        nothing_to_rewrite_.emplace(at_floor.sequence, std::move(names));
        return {};
    };
    if (moving.empty()) return nothing();

    out.needed.emplace(moving);
    FS_TRY(out.needed->add(builder, at_floor, true));
    std::set<size_t> users;
    for (const LiveObject& object : moving) {
        const Use& of = uses[object.object];
        users.insert(of.kept.begin(), of.kept.end());
    }
    uint64_t put_again = 0;
    for (const size_t user : users) {
        FS_ASSIGN(const Manifest manifest,
                  load_manifest(store_, item_, key_, kept[user].object_name));
        FS_TRY(out.needed->add(builder, manifest, false));
        out.kept.push_back(kept[user]);
        put_again += shard_bytes[user];
    }
    // Together the points may need more of an object than each of them, so that little comes free.
    uint64_t freed = 0, moved = 0, most = policy.rewrite_bytes;
    for (const LiveObject& object : moving) {
        const uint64_t live = out.needed->live_bytes(object.object);
        const bool is_small = object.payload_bytes < policy.small_object_bytes;
        const bool stays =
            live > most || (!any && !is_small &&
                            live * 100 >= object.payload_bytes * policy.rewrite_below_percent);
        if (stays) {
            out.needed->leave_out(object.object);
            continue;
        }
        most -= live;
        moved += live;
        freed += object.payload_bytes - live;
    }
    // What is put for it must not be more than what goes.
    const bool pays = any || out.kept.empty() || freed >= moved + put_again ||
                      out.needed->objects() >= policy.small_objects;
    if (out.needed->empty() || !pays) {
        out.needed.reset();
        out.kept.clear();
        return nothing();
    }
    out.objects = out.needed->objects();
    nothing_to_rewrite_.reset();
    return {};
}

Status ItemReplica::relocate_kept(ManifestBuilder& builder, const Rewriting& rewriting,
                                  const PayloadMoves& moves, ManifestCommit& commit) {
    for (const KeptRow& row : rewriting.kept) {
        FS_ASSIGN(const Manifest manifest, load_manifest(store_, item_, key_, row.object_name));
        if (!refers_to(manifest, moves)) continue;
        FS_ASSIGN(const uint64_t number, ledger_.reserve_generation());
        FS_ASSIGN(const Manifest moved, builder.relocate(manifest, moves, {vault_epoch(), number}));
        FS_TRY(builder.put_kept(moved));
        // One that was made in this run is not in the ledger yet.
        std::erase_if(commit.kept,
                      [&](const KeptRow& made) { return made.object_name == row.object_name; });
        commit.kept_dropped.push_back(row.object_name);
        commit.kept.push_back(kept_row(item_, moved));
        builder.forget_shards_but(manifest);
    }
    return {};
}

}  // namespace farshore
