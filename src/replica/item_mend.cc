// ItemReplica: what is damaged and that something else serves for: an older manifest, or another
// replica of the item. docs/design/scrub.md §5, docs/design/copies.md §7.
#include <algorithm>
#include <set>

#include "replica/item_internal.h"
#include "replica/manifest_builder.h"

namespace farshore {

using namespace item_internal;

namespace {

bool refers_to_any(const ItemId& item, const Manifest& manifest,
                   const std::set<std::string>& shards, const std::set<ObjectRef>& objects) {
    return std::ranges::any_of(
               manifest.shards,
               [&](const ShardRef& ref) { return shards.contains(shard_name(item, ref)); }) ||
           std::ranges::any_of(manifest.objects, [&](const LiveObject& object) {
               return objects.contains(object.object);
           });
}

// Manifests that are in force no more and still there, as after a crash: a reader would choose them
// before retention takes them.
Status remove_hurt_leftovers(ObjectStore& store, const ItemId& item, const Secret& key,
                             const std::set<std::string>& in_force,
                             const std::set<std::string>& shards,
                             const std::set<ObjectRef>& objects) {
    for (const std::string& prefix : {manifest_prefix(item), kept_prefix(item)}) {
        FS_ASSIGN(const auto infos, list_all(store, prefix));
        for (const ObjectInfo& info : infos) {
            if (in_force.contains(info.name)) continue;
            const auto manifest = load_manifest(store, item, key, info.name);
            if (!manifest && !is_damage(manifest.error().code())) return fail(manifest.error());
            if (manifest && refers_to_any(item, *manifest, shards, objects))
                FS_TRY(store.remove(info.name));
        }
    }
    return {};
}

}  // namespace

Result<uint64_t> ItemReplica::drop_damaged(const std::vector<std::string>& damaged) {
    std::set<std::string> manifests, shards;
    for (const std::string& name : damaged) {
        if (parse_manifest_name(item_, name)) manifests.insert(name);
        if (parse_shard_name(item_, name)) shards.insert(name);
    }
    if (manifests.empty() && shards.empty()) return uint64_t{0};
    std::lock_guard lock(upkeep_mutex_);
    FS_TRY(check_fence());
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto rows, ledger_.list_manifests());
    FS_ASSIGN(const auto kept, ledger_.list_kept());
    std::set<std::string> in_force;
    for (const ManifestRow& row : rows) in_force.insert(row.object_name);
    for (const KeptRow& row : kept) in_force.insert(row.object_name);
    FS_TRY(remove_hurt_leftovers(store_, item_, key_, in_force, shards, {}));
    // The one at the floor is all there is of what left the log; with a whole log none is needed.
    const auto replaceable = [&](const ManifestRow& row) {
        return state.floor_segment.v == 0 || row.sequence > state.floor;
    };
    std::vector<std::pair<ManifestRow, Manifest>> whole;
    ManifestCommit commit;
    for (const ManifestRow& row : rows) {
        if (manifests.contains(row.object_name)) {
            if (replaceable(row)) commit.dropped.push_back(row.object_name);
            continue;
        }
        if (shards.empty()) continue;
        auto manifest = load_manifest(store_, item_, key_, row.object_name);
        if (manifest)
            whole.emplace_back(row, std::move(*manifest));
        else if (!is_damage(manifest.error().code()))
            return fail(manifest.error());
    }
    // A damaged shard that the floor's manifest has, too, comes back with every later one.
    for (const auto& [row, manifest] : whole) {
        if (replaceable(row)) continue;
        for (const ShardRef& ref : manifest.shards) shards.erase(shard_name(item_, ref));
    }
    for (const auto& [row, manifest] : whole) {
        if (replaceable(row) && std::ranges::any_of(manifest.shards, [&](const ShardRef& ref) {
                return shards.contains(shard_name(item_, ref));
            }))
            commit.dropped.push_back(row.object_name);
    }
    if (commit.dropped.empty()) return uint64_t{0};
    FS_TRY(ledger_.commit_manifest(commit, clock_.now()));
    not_due_at_ = {UINT64_MAX};
    // At once: readers would choose them still. Who has one open has it in memory.
    for (const std::string& name : commit.dropped) FS_TRY(store_.remove(name));
    return uint64_t{commit.dropped.size()};
}

Result<uint64_t> ItemReplica::restate_damaged(
    const std::vector<std::string>& damaged,
    const std::function<Result<std::shared_ptr<ReplicaReader>>(Sequence)>& other) {
    std::set<std::string> shards;
    std::set<ObjectRef> objects;
    for (const std::string& name : damaged) {
        if (parse_shard_name(item_, name)) shards.insert(name);
        if (const auto object = parse_object_name(item_, name)) objects.insert(*object);
    }
    if (shards.empty() && objects.empty()) return uint64_t{0};
    std::lock_guard lock(upkeep_mutex_);
    FS_TRY(check_fence());
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    FS_ASSIGN(const auto kept, ledger_.list_kept());
    ManifestBuilder builder(store_, item_, key_, random_, options_.parallel);
    std::set<std::string> in_force;
    for (const ManifestRow& row : manifests) in_force.insert(row.object_name);
    for (const KeptRow& row : kept) in_force.insert(row.object_name);
    FS_TRY(remove_hurt_leftovers(store_, item_, key_, in_force, shards, objects));
    // The manifest with what it lost put again; none: it lost nothing, or the other has it not.
    const auto restate = [&](const std::string& name) -> Result<std::optional<Manifest>> {
        const std::optional<Manifest> nothing;
        auto manifest = load_manifest(store_, item_, key_, name);
        if (!manifest) {
            if (is_damage(manifest.error().code())) return nothing;
            return fail(manifest.error());
        }
        if (!refers_to_any(item_, *manifest, shards, objects)) return nothing;
        ManifestBuilder::ShardSet lost;
        for (const ShardRef& ref : manifest->shards) {
            if (!shards.contains(shard_name(item_, ref))) {
                const auto content = builder.load_shard(ref);
                if (!content && !is_damage(content.error().code())) return fail(content.error());
                if (content && std::ranges::none_of(content->objects, [&](const auto& object) {
                        return objects.contains(object.ref);
                    }))
                    continue;
            }
            lost.insert({ref.disk, ref.shard});
        }
        const auto reader = other(manifest->sequence);
        if (!reader || (*reader)->disks() != manifest->disks) return nothing;
        auto made = builder.restate(*manifest, lost, **reader, vault_epoch(),
                                    [&] { return ledger_.reserve_generation(); });
        if (made) return std::optional<Manifest>(std::move(*made));
        // What the other one lost, too, stays as it is here.
        if (is_damage(made.error().code())) return nothing;
        return fail(made.error());
    };
    ManifestCommit commit;
    uint64_t restated = 0;
    for (const KeptRow& row : kept) {
        FS_ASSIGN(const auto made, restate(row.object_name));
        if (!made) continue;
        FS_TRY(builder.put_kept(*made));
        commit.kept.push_back(kept_row(item_, *made));
        commit.kept_dropped.push_back(row.object_name);
        ++restated;
    }
    const auto at_floor =
        std::ranges::find_if(manifests.rbegin(), manifests.rend(),
                             [&](const ManifestRow& row) { return row.sequence == state.floor; });
    if (state.floor_segment.v != 0 && at_floor != manifests.rend()) {
        FS_ASSIGN(const auto made, restate(at_floor->object_name));
        if (made) {
            FS_TRY(builder.put(*made));
            commit.added.push_back({manifest_name(item_, made->sequence, made->generation),
                                    made->sequence, made->segment, made->generation.number,
                                    made->time});
            ++restated;
            // The log behind it replaces those above. All of them: what they need of old objects
            // has to be a part of what the floor needs (docs/design/replica.md §5).
            for (const ManifestRow& row : manifests) commit.dropped.push_back(row.object_name);
        }
    }
    if (restated == 0) return restated;
    commit.added_bytes = builder.put_bytes();
    FS_TRY(ledger_.commit_manifest(commit, clock_.now()));
    not_due_at_ = {UINT64_MAX};
    nothing_to_rewrite_.reset();
    // At once: readers would choose them still.
    for (const auto* names : {&commit.dropped, &commit.kept_dropped})
        for (const std::string& name : *names) FS_TRY(store_.remove(name));
    return restated;
}

}  // namespace farshore
