// ItemReplica: legal holds, and what a policy costs.
#include <algorithm>

#include "replica/item_internal.h"

namespace farshore {

using namespace item_internal;

namespace {

// Of the window's manifests, so many are compared with each other.
constexpr size_t kMaxCompared = 12;

}  // namespace

Result<Hold> ItemReplica::hold(const ResolvedPoint& point, const std::string& reason) {
    if (reason.empty() || reason.size() > kMaxHoldReasonBytes)
        return fail(Code::kInvalidArgument,
                    "a hold needs a reason of at most 512 bytes, for those who find it later");
    Hold hold;
    Bytes id(8);
    random_.fill(id);
    hold.id = to_hex(id);
    hold.sequence = point.sequence;
    hold.time = point.time;
    hold.since = clock_.now();
    hold.reason = reason;
    FS_TRY(check_fence());
    // The lease first: from here on the point stays. What is missing after a crash is put by
    // mend_holds().
    FS_TRY(lease(hold.sequence, hold_holder(hold), INT64_MAX));
    FS_ASSIGN(const Bytes object, encode_hold(item_, hold, key_, random_));
    const Status put = put_idempotent(store_, hold_name(item_, hold), object);
    // Whether it is there nobody knows, so the lease stays.
    if (!put)
        return fail(put.error().code(),
                    "the point is held (" + hold.id +
                        "), but not yet against the loss of the "
                        "database: " +
                        put.error().what(),
                    "it is written down as soon as the store takes it; `farshore hold list` shows "
                    "the hold");
    return hold;
}

Result<std::vector<Hold>> ItemReplica::holds() {
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    std::vector<Hold> out;
    for (const LeaseRow& lease : leases) {
        if (auto hold = hold_of_holder(lease.holder)) out.push_back(std::move(*hold));
    }
    std::ranges::sort(out, {}, &Hold::sequence);
    return out;
}

Status ItemReplica::release_hold(const std::string& id) {
    // Not while mend_holds() may put it again.
    std::lock_guard lock(upkeep_mutex_);
    FS_TRY(check_fence());
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    for (const LeaseRow& lease : leases) {
        const auto hold = hold_of_holder(lease.holder);
        if (!hold || hold->id != id) continue;
        FS_TRY(store_.remove(hold_name(item_, *hold)));
        return release(lease.id);
    }
    return fail(Code::kNotFound, "there is no hold '" + id.substr(0, 64) + "'",
                "`farshore hold list` names them");
}

Status ItemReplica::mend_holds() {
    FS_ASSIGN(const auto known, holds());
    if (known.empty()) return {};
    FS_ASSIGN(const auto there, list_all(store_, hold_prefix(item_)));
    for (const Hold& hold : known) {
        const std::string name = hold_name(item_, hold);
        if (std::ranges::any_of(there, [&](const ObjectInfo& o) { return o.name == name; }))
            continue;
        FS_ASSIGN(const Bytes object, encode_hold(item_, hold, key_, random_));
        // Two that do so at once write the same words in different seals.
        const Status put = store_.put(name, object);
        if (!put && put.error().code() != Code::kAlreadyExists) return put;
    }
    return {};
}

Result<RetentionCost> ItemReplica::cost(int64_t window_us, const RetentionGrid& grid) {
    FS_ASSIGN(const ChangeSeen seen, changes_seen());
    return retention_cost(seen, window_us, grid);
}

Result<ChangeSeen> ItemReplica::changes_seen() {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto rows, ledger_.list_manifests());
    FS_ASSIGN(const auto segments,
              segments_between(ledger_, state.floor_segment, state.last_segment));
    ChangeSeen seen;
    uint64_t written = 0, stored = 0;
    for (const SegmentRow& row : segments) {
        written += row.written_bytes;
        stored += row.object_bytes;
    }
    seen.written_bytes = written;
    if (!segments.empty())
        seen.written_us =
            std::max(state.stored_time, state.idle_time).us - segments.front().first_time.us;
    if (written != 0) seen.stored_per_written = double(stored) / double(written);
    seen.objects = segments.size();
    seen.object_bytes = stored;

    // A few of them, evenly: what of each is not in the one before it.
    std::vector<Manifest> manifests;
    const size_t step = (rows.size() + kMaxCompared - 1) / kMaxCompared;
    for (size_t i = 0; i < rows.size(); i += std::max<size_t>(step, 1)) {
        const size_t at = rows.size() - 1 - i;
        auto manifest = load_manifest(store_, item_, key_, rows[at].object_name);
        if (manifest)
            manifests.insert(manifests.begin(), std::move(*manifest));
        else if (!is_damage(manifest.error().code()))
            return fail(manifest.error());
    }
    for (const Manifest& manifest : manifests) {
        uint64_t live = 0, shards = 0;
        for (const LiveObject& object : manifest.objects) live += object.live_bytes;
        for (const ShardRef& shard : manifest.shards) shards += shard.object_bytes;
        seen.live_bytes = live;
        seen.map_bytes = shards;
    }
    for (size_t a = 0; a < manifests.size(); ++a) {
        for (size_t b = a + 1; b < manifests.size(); ++b) {
            uint64_t fresh = 0;
            for (const LiveObject& object : manifests[b].objects)
                if (object.object.kind == SegmentKind::kLog &&
                    object.object.number > manifests[a].segment)
                    fresh += object.live_bytes;
            seen.fresh.push_back({manifests[b].time.us - manifests[a].time.us, fresh});
        }
    }
    return seen;
}

}  // namespace farshore
