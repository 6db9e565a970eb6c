#include "replica/item_copy.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "replica/item_internal.h"
#include "replica/item_key.h"
#include "replica/item_object.h"
#include "replica/scrub.h"
#include "store/memory_store.h"

namespace farshore {

using namespace item_internal;

namespace {

// Objects that are under way at once; less than appliances have (kMaxSegmentsAhead), so that a
// crash leaves no larger holes than theirs.
constexpr size_t kBatch = 4;
constexpr int64_t kLeaseUs = 3600ll * 1'000'000;
constexpr int64_t kRenewUs = 60ll * 1'000'000;

struct ReadObject {
    Bytes bytes;
    std::optional<ObjectDamage> damage;
};

// An object as the store has it, verified to its last byte.
Result<ReadObject> read_object(ObjectStore& store, const ItemId& item, const Secret& key,
                               const std::string& name) {
    ReadObject read;
    FS_ASSIGN(read.bytes, store.get(name));
    MemoryStore one;
    FS_TRY(one.put(name, read.bytes));
    FS_ASSIGN(ObjectCheck check, verify_object(one, item, key, name));
    read.damage = std::move(check.damage);
    return read;
}

Error damage_error(const std::string& name, const ObjectDamage& damage) {
    return Error(damage.code, fmt::format("{}: {}", name, damage.what),
                 "`farshore scrub` says what it costs. A copy cannot pass it: remove the copy, and "
                 "add it again when the window has passed what is damaged");
}

// The same, for a copy. Where only some of its payload cannot be read, it goes all the same: what
// comes after it is worth more, and the copy is as good as the source. But not for one bad read.
Result<ReadObject> read_for_copy(ObjectStore& store, const ItemId& item, const Secret& key,
                                 const std::string& name) {
    FS_ASSIGN(ReadObject read, read_object(store, item, key, name));
    if (!read.damage) return read;
    FS_ASSIGN(ReadObject again, read_object(store, item, key, name));
    if (again.damage && (again.bytes != read.bytes || again.damage->chunks.empty()))
        return fail(damage_error(name, *again.damage));
    return again;
}

std::string holder_of(const ItemCopyParts& parts) {
    return std::string(kCopyHolderPrefix) + parts.name;
}

}  // namespace

Result<Sequence> ItemCopy::followed(ReplicaLedger& ledger) {
    FS_ASSIGN(const LedgerState state, ledger.state());
    return state.rebuilding ? Sequence{} : state.stored;
}

Result<std::unique_ptr<ItemCopy>> ItemCopy::open(ItemCopyParts parts) {
    parts.replica.follows_another = true;
    std::unique_ptr<ItemCopy> copy(new ItemCopy(std::move(parts)));
    const ItemCopyParts& p = copy->parts_;
    FS_ASSIGN(const LedgerState state, p.ledger->state());
    if (state.rebuilding || state.last_segment.v == 0) {
        // The floor's manifest is put last by a seeding, and nothing of a copy's own before the
        // log: with a manifest the store is whole, without one there is nothing to be kept.
        FS_ASSIGN(const auto manifests, p.store->list(manifest_prefix(p.item), "", 1));
        if (!manifests.empty()) {
            FS_TRY(ItemReplica::rebuild(*p.store, *p.ledger, p.item, p.item_key, p.replica));
        } else if (state.rebuilding) {
            FS_TRY(p.ledger->begin_rebuild({}));
            FS_TRY(p.ledger->finish_rebuild({}));
        }
    }
    // Of a seeding that died.
    FS_ASSIGN(const auto leases, p.source_ledger->list_leases());
    for (const LeaseRow& lease : leases)
        if (lease.holder == holder_of(p)) FS_TRY(p.source->release(lease.id));
    FS_TRY(copy->adopt());
    return copy;
}

// Opens the replica once its log has begun, or can begin with the source's first segment.
Status ItemCopy::adopt() {
    FS_ASSIGN(const LedgerState own, parts_.ledger->state());
    FS_ASSIGN(const LedgerState source, parts_.source_ledger->state());
    if (own.last_segment.v == 0 && source.floor_segment.v != 0) return {};
    FS_ASSIGN(std::shared_ptr<ItemReplica> replica,
              ItemReplica::open(*parts_.store, *parts_.ledger, *parts_.clock, *parts_.random,
                                parts_.item, parts_.item_key, parts_.replica));
    const std::lock_guard hold(mutex_);
    replica_ = std::move(replica);
    status_.seeding = false;
    return {};
}

std::shared_ptr<ItemReplica> ItemCopy::replica() const {
    const std::lock_guard hold(mutex_);
    return replica_;
}

ItemCopyStatus ItemCopy::status() const {
    const std::lock_guard hold(mutex_);
    return status_;
}

Result<bool> ItemCopy::step() {
    if (!replica()) {
        if (!seed_) FS_TRY(begin_seeding());
        FS_TRY(seed_some());
        return true;
    }
    return follow_some();
}

// ---- seeding

Status ItemCopy::begin_seeding() {
    Seed seed;
    // What the manifests below name stays for the lease, whatever is rewritten meanwhile; that the
    // log behind the floor stays is followed()'s doing.
    FS_ASSIGN(const LeaseRow lease, parts_.source->lease_floor(holder_of(parts_), kLeaseUs));
    seed.lease = lease.id;
    seed.renewed_us = parts_.clock->steady_us();
    FS_ASSIGN(const auto manifests, parts_.source_ledger->list_manifests());
    for (const ManifestRow& row : manifests)
        if (row.sequence == lease.sequence) seed.floor_manifest = row.object_name;
    if (seed.floor_manifest.empty())
        return fail(Code::kCorrupt, "the source's ledger has no manifest at its floor");
    FS_ASSIGN(const auto kept, parts_.source_ledger->list_kept());

    std::set<std::string> payload;
    std::vector<std::string> last;
    const auto take = [&](const std::string& name) -> Status {
        FS_ASSIGN(const Manifest manifest,
                  load_manifest(*parts_.source_store, parts_.item, parts_.item_key, name));
        for (const ShardRef& shard : manifest.shards)
            payload.insert(shard_name(parts_.item, shard));
        for (const LiveObject& object : manifest.objects)
            payload.insert(object_name(parts_.item, object.object));
        last.push_back(name);
        return {};
    };
    std::vector<std::string> damaged;
    for (const KeptRow& row : kept) {
        if (row.sequence >= lease.sequence) continue;
        const Status taken = take(row.object_name);
        if (!taken && !is_damage(taken.error().code())) return taken;
        // A point that is lost here must not cost the copy all others.
        if (!taken) damaged.push_back(row.object_name);
    }
    FS_TRY(take(seed.floor_manifest));
    seed.names.assign(payload.begin(), payload.end());
    seed.names.insert(seed.names.end(), last.begin(), last.end() - 1);
    const uint64_t total = seed.names.size() + 1;

    // What an earlier run put.
    std::set<std::string> there;
    for (const std::string& prefix : {base_prefix(parts_.item), kept_prefix(parts_.item),
                                      log_prefix(parts_.item), shard_prefix(parts_.item)}) {
        FS_ASSIGN(const auto infos, list_all(*parts_.store, prefix));
        for (const ObjectInfo& info : infos) there.insert(info.name);
    }
    std::erase_if(seed.names, [&](const std::string& name) { return there.contains(name); });
    FS_TRY(mirror_description());
    const std::lock_guard hold(mutex_);
    status_.seeding = true;
    status_.seed_objects_total = total;
    status_.seed_objects = total - 1 - seed.names.size();
    status_.damaged.insert(status_.damaged.end(), damaged.begin(), damaged.end());
    seed_ = std::move(seed);
    return {};
}

Status ItemCopy::seed_some() {
    Seed& seed = *seed_;
    if (parts_.clock->steady_us() - seed.renewed_us >= kRenewUs) {
        const Status renewed = parts_.source->renew(seed.lease, kLeaseUs);
        if (!renewed) {
            // It slept for longer than a lease lasts: what is missing may be gone.
            if (renewed.error().code() == Code::kNotFound) seed_.reset();
            return renewed;
        }
        seed.renewed_us = parts_.clock->steady_us();
    }
    if (seed.done < seed.names.size()) {
        const size_t n = std::min(kBatch, seed.names.size() - seed.done);
        const std::vector<std::string> batch(
            seed.names.begin() + static_cast<ptrdiff_t>(seed.done),
            seed.names.begin() + static_cast<ptrdiff_t>(seed.done + n));
        FS_TRY(move_objects(batch));
        seed.done += n;
        const std::lock_guard hold(mutex_);
        status_.seed_objects += n;
        return {};
    }
    FS_TRY(move_objects({seed.floor_manifest}));
    FS_TRY(ItemReplica::rebuild(*parts_.store, *parts_.ledger, parts_.item, parts_.item_key,
                                parts_.replica));
    // One that cannot be given back expires.
    (void)parts_.source->release(seed.lease);
    seed_.reset();
    return adopt();
}

Status ItemCopy::move_objects(const std::vector<std::string>& names) {
    std::vector<Status> done(names.size());
    std::vector<uint64_t> bytes(names.size(), 0);
    std::vector<char> damaged(names.size(), 0);
    const auto move = [&](size_t i) {
        done[i] = [&]() -> Status {
            FS_ASSIGN(const ReadObject object,
                      read_for_copy(*parts_.source_store, parts_.item, parts_.item_key, names[i]));
            bytes[i] = object.bytes.size();
            damaged[i] = object.damage.has_value();
            return put_idempotent(*parts_.store, names[i], object.bytes);
        }();
    };
    if (parts_.parallel && names.size() > 1)
        parts_.parallel(names.size(), move);
    else
        for (size_t i = 0; i < names.size(); ++i) move(i);
    for (const Status& one : done) FS_TRY(one);
    const std::lock_guard hold(mutex_);
    status_.copied_objects += names.size();
    for (const uint64_t n : bytes) status_.copied_bytes += n;
    for (size_t i = 0; i < names.size(); ++i)
        if (damaged[i] != 0) status_.damaged.push_back(names[i]);
    return {};
}

// ---- following

Result<bool> ItemCopy::follow_some() {
    FS_ASSIGN(const LedgerState source, parts_.source_ledger->state());
    FS_ASSIGN(const LedgerState own, parts_.ledger->state());
    if (own.last_segment >= source.last_segment) return follow_idle(source);
    FS_ASSIGN(const auto rows, parts_.source_ledger->list_segments(own.last_segment, kBatch));
    if (rows.empty() || rows.front().number != own.last_segment.next())
        return fail(Code::kSequenceHole,
                    fmt::format("the copy ends with segment {}, and the store no longer has the "
                                "next one",
                                own.last_segment.v),
                    "remove the copy with its points, and add it anew");
    std::vector<std::string> names;
    for (const SegmentRow& row : rows) names.push_back(row.object_name);
    FS_TRY(move_objects(names));
    const std::shared_ptr<ItemReplica> replica = this->replica();
    for (const SegmentRow& row : rows) FS_TRY(replica->follow(row));
    return true;
}

Result<bool> ItemCopy::follow_idle(const LedgerState& source) {
    FS_ASSIGN(const LedgerState own, parts_.ledger->state());
    if (own.last_segment > source.last_segment || own.last_header != source.last_header)
        return fail(Code::kSequenceHole,
                    fmt::format("the copy's log (segment {}) is not this item's (segment {})",
                                own.last_segment.v, source.last_segment.v),
                    "the store was set back, or two vaults wrote to it: keep the copy until it is "
                    "known which one is right, then remove the other");
    if (source.idle != source.stored || own.stored != source.stored ||
        own.idle_time >= source.idle_time)
        return false;
    FS_TRY(parts_.ledger->commit_idle(own.epoch, source.idle, source.idle_time));
    return false;
}

// ---- what opens it

Status ItemCopy::mirror_description() {
    // What is new comes first: at no time is there less than what opens the item.
    const auto list_own = [&](ObjectStore& store) -> Result<std::vector<std::string>> {
        std::vector<std::string> names;
        FS_ASSIGN(const auto keys, list_all(store, item_key_prefix(parts_.item)));
        for (const ObjectInfo& info : keys) names.push_back(info.name);
        for (const std::string& name :
             {item_object_name(parts_.item), item_description_name(parts_.item)}) {
            const auto there = store.head(name);
            if (there)
                names.push_back(name);
            else if (there.error().code() != Code::kNotFound)
                return fail(there.error());
        }
        return names;
    };
    FS_ASSIGN(const auto wanted, list_own(*parts_.source_store));
    FS_ASSIGN(const auto there, list_own(*parts_.store));
    for (const std::string& name : wanted) {
        if (std::ranges::find(there, name) != there.end()) continue;
        FS_ASSIGN(const Bytes bytes, parts_.source_store->get(name));
        FS_TRY(put_idempotent(*parts_.store, name, bytes));
    }
    if (wanted.empty()) return {};  // not written yet: nothing to compare with
    for (const std::string& name : there) {
        if (std::ranges::find(wanted, name) != wanted.end()) continue;
        // A listing that lags must not cost a key.
        const auto really = parts_.source_store->head(name);
        if (really) continue;
        if (really.error().code() != Code::kNotFound) return fail(really.error());
        if (parts_.replica.fence != nullptr) FS_TRY(parts_.replica.fence->still_mine());
        FS_TRY(parts_.store->remove(name));
    }
    return {};
}

// ---- mending

Result<bool> restore_segment(ObjectStore& store, ObjectStore& other, const ItemId& item,
                             const Secret& item_key, const std::string& name,
                             const std::function<Status()>& check) {
    const auto ref = parse_object_name(item, name);
    if (!ref || ref->kind != SegmentKind::kLog) return false;
    const auto whole = read_object(other, item, item_key, name);
    if (!whole) {
        if (is_damage(whole.error().code())) return false;
        return fail(whole.error());
    }
    if (whole->damage) return false;
    // Between the two lines it is missing instead of damaged: the next scrub finds that, too.
    FS_TRY(check());
    FS_TRY(store.remove(name));
    const Status put = put_idempotent(store, name, whole->bytes);
    if (!put && put.error().code() == Code::kAlreadyExists)
        return fail(Code::kUnsupported, name + " is locked in the store, so it cannot be replaced",
                    "");
    FS_TRY(put);
    return true;
}

}  // namespace farshore
