// What the parts of ItemReplica share: item_replica.cc (log, points, leases), item_upkeep.cc
// (checkpoints, retention), item_rebuild.cc. Not for others.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "replica/item_replica.h"
#include "replica/vault_fence.h"

namespace farshore::item_internal {

// Whether an object is damaged or gone, so that another may serve in its place.
inline bool is_damage(Code code) {
    return code == Code::kCorrupt || code == Code::kTruncated || code == Code::kMalformed ||
           code == Code::kNotFound;
}

// The gap that covers a sequence, or null.
inline const GapRow* gap_over(const std::vector<GapRow>& gaps, Sequence sequence) {
    for (const GapRow& gap : gaps) {
        if (gap.covers(sequence)) return &gap;
    }
    return nullptr;
}

inline std::optional<GapRow> open_gap(const std::vector<GapRow>& gaps) {
    if (gaps.empty() || !gaps.back().open()) return std::nullopt;
    return gaps.back();
}

inline Result<Manifest> load_manifest(ObjectStore& store, const ItemId& item, const Secret& key,
                                      const std::string& name) {
    FS_ASSIGN(const Bytes object, store.get(name));
    return decode_manifest(item, name, object, key);
}

// What the ledger keeps of a kept point's manifest.
inline KeptRow kept_row(const ItemId& item, const Manifest& manifest) {
    KeptRow row;
    row.object_name = kept_name(item, manifest.sequence, manifest.generation);
    row.sequence = manifest.sequence;
    row.generation = manifest.generation.number;
    row.time = manifest.time;
    if (!manifest.points.empty()) {
        row.recorded = true;
        row.kind = manifest.points.back().kind;
        row.label = manifest.points.back().label;
    }
    row.disks = manifest.disks;
    return row;
}

// Rows and names that are handled at once.
inline constexpr size_t kRowsAPage = 1000;

// The newest of `rows` (by sequence, generation) at or below `limit` that can be read; an empty
// manifest when there is none and the log is whole from its start.
Result<Manifest> newest_manifest(ObjectStore& store, const ItemId& item, const Secret& key,
                                 const std::vector<ManifestRow>& rows, Sequence limit,
                                 const LedgerState& state);

// Registered segments in (after, last].
Result<std::vector<SegmentRow>> segments_between(ReplicaLedger& ledger, SegmentNumber after,
                                                 SegmentNumber last);

// For the next log lease. The vault's epoch is in the upper half: after the ledger was rebuilt,
// leases that were handed out before but never used are fenced, too.
inline Epoch next_log_epoch(Epoch last, const ItemReplicaOptions& options) {
    const Epoch vault = options.fence != nullptr ? options.fence->epoch() : Epoch{1};
    return {std::max(last.v + 1, vault.v << 32 | 1)};
}

// What the records of a segment mean for the ledger. `state` moves on.
Result<RegistrationCommit> registration_of(const SegmentReader& segment, LogState& state);

}  // namespace farshore::item_internal
