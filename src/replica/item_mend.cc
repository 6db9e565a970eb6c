// ItemReplica: manifests that are damaged and that another, older one serves for.
// docs/design/scrub.md §5.
#include <set>

#include "replica/item_internal.h"

namespace farshore {

using namespace item_internal;

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

}  // namespace farshore
