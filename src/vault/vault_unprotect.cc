// The end of a protection: the machine is let go, then all of the item is deleted, and what lands
// behind that as well.
#include <fmt/core.h>

#include <iterator>

#include "meta/deleted_items.h"
#include "os/log.h"
#include "replica/item_object.h"
#include "replica/manifest.h"
#include "vault/policy.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// The removal of a point must not wait longer than this for an agent that does not come.
constexpr int64_t kDetachPatienceUs = 60'000'000;
// By force it is asked all the same, but not waited for.
constexpr int64_t kForcedPatienceUs = 3'000'000;
constexpr size_t kDeleteBatch = 1000;

// When a deleted item is looked at again, each from the look before. A put that is under way ends
// within minutes; the last look is for a machine that slept meanwhile.
constexpr int64_t kLooksUs[] = {5'000'000, 60'000'000, 600'000'000, 3'600'000'000, 86'400'000'000};
constexpr int64_t kLookAgainUs = 60'000'000;  // after one that failed
constexpr size_t kLooksAtOnce = 8;

}  // namespace

Result<JobRecord> Vault::unprotect(const std::string& name_or_id, bool force) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    FS_TRY(check_action(record.state, ItemAction::kUnprotect));
    if (record.state == ItemState::kDisabling) {
        FS_ASSIGN(const auto jobs, list_jobs(*impl_->database, 0, 20, record.id));
        for (const JobRecord& job : jobs)
            if (job.kind == "unprotect" && !job.over()) return job;
    }
    if (const auto error = impl_->why_set_aside(record.id); error && !force) return fail(*error);
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime_to_delete(record));
    std::vector<LeaseRow> leases;
    if (item) {
        FS_ASSIGN(leases, item->ledger->list_leases());
    }
    const TimePoint now = impl_->clock.now();
    FS_ASSIGN(const auto copies, list_copies(*impl_->database, record.id));
    for (const CopyRecord& copy : copies) FS_TRY(impl_->check_copy_is_free(record.id, copy.store));
    for (const LeaseRow& lease : leases)
        if (lease.expires > now && !lease.holder.starts_with(kCopyHolderPrefix))
            return fail(Code::kWrongState,
                        fmt::format("'{}' reads a point of this item", lease.holder),
                        "end the export, or clean up the failover, first");
    FS_ASSIGN(const ItemRecord disabled, change_state(record.id, ItemState::kDisabling, {}));
    const ItemId id = record.id;
    return start_job(
        "unprotect", disabled, false, force ? "force" : "",
        [this, id, force](JobRun& run) { return impl_->delete_everything(*this, run, id, force); });
}

// All of an item that a store holds, but for what `keep` says.
Result<uint64_t> Vault::Impl::remove_objects(ObjectStore& from, const VaultFence& claim,
                                             const ItemId& id,
                                             const std::function<bool(const std::string&)>& keep,
                                             const std::function<Status(uint64_t)>& progress) {
    uint64_t removed = 0;
    std::string after;
    while (true) {
        FS_TRY(claim.still_mine());
        FS_ASSIGN(const auto objects, from.list(item_prefix(id), after, kDeleteBatch));
        if (objects.empty()) return removed;
        for (const ObjectInfo& object : objects) {
            if (!keep(object.name)) {
                FS_TRY(from.remove(object.name));
                ++removed;
            }
            after = object.name;
        }
        FS_TRY(progress(removed));
    }
}

// The item object goes last: without it nobody could tell whose the others are.
Result<uint64_t> Vault::Impl::delete_objects(JobRun& run, ObjectStore& from,
                                             const VaultFence& claim, const ItemId& id) {
    const std::string own = item_object_name(id), description = item_description_name(id);
    FS_ASSIGN(const uint64_t removed,
              remove_objects(
                  from, claim, id,
                  [&](const std::string& name) { return name == own || name == description; },
                  [&](uint64_t so_far) {
                      return run.report(0.5, fmt::format("{} objects deleted", so_far));
                  }));
    FS_TRY(from.remove(own));
    FS_TRY(from.remove(description));
    return removed;
}

Result<std::string> Vault::Impl::delete_everything(Vault& vault, JobRun& run, const ItemId& id,
                                                   bool force) {
    auto record = get_item(*database, id);
    if (!record && record.error().code() == Code::kItemNotFound)
        return "{}";  // an earlier run did it
    if (!record) return tl::unexpected(record.error());
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime_to_delete(*record));
    // 1. The source is detached first: a guest must never wait for a tap that is being taken away.
    if (!record->agent.empty()) {
        FS_TRY(run.report(0, "waiting until the agent has detached"));
        const int64_t until_us =
            clock.steady_us() + (force ? kForcedPatienceUs : kDetachPatienceUs);
        while (true) {
            if (item) {
                const std::lock_guard hold(item->mutex);
                if (item->agent && item->agent->state == AgentItemState::kRemoved) break;
            }
            if (clock.steady_us() > until_us && force) break;
            if (clock.steady_us() > until_us)
                return fail(
                    Code::kTimeout,
                    fmt::format("agent '{}' has not detached from the machine", record->agent),
                    "look at the agent, or unprotect with --force");
            FS_TRY(run.pause(100'000));
        }
    }
    // 2. A log lease of our own fences whoever still sends. (One that is set aside gave none out.)
    if (item) {
        {
            const std::lock_guard hold(item->handing_mutex);
            FS_TRY(item->replica->fence_log("unprotect"));
        }
        // A checkpoint under way would leave objects behind that nobody deletes.
        const std::lock_guard upkeep(item->upkeep_mutex);
        item->deleting = true;
    }
    FS_ASSIGN(const auto copies, list_copies(*database, id));
    for (const CopyRecord& copy : copies) {
        const auto deleted = delete_copy_objects(run, id, copy.store);
        if (deleted) continue;
        if (!force)
            return fail(deleted.error().code(),
                        fmt::format("the copy in '{}' cannot be deleted: {}", copy.store,
                                    deleted.error().what()),
                        "when that store can be used again, unprotect it again; --force leaves it "
                        "there");
        vault.event(Severity::kWarning, "copy-left", &*record,
                    fmt::format("the copy in '{}' could not be deleted, and stays there: {}",
                                copy.store, deleted.error().what()));
    }
    // 3. Objects, then what we know of them: a crash between leaves an item that is deleted again.
    // Behind the fence an appliance may still have a segment under way, which lands when it likes.
    FS_TRY(run.report(0.2, "deleting the recovery points"));
    FS_ASSIGN(const uint64_t removed, delete_objects(run, *store, *fence, id));
    FS_TRY(put_deleted_item(*database, {id, TimePoint{clock.now().us + kLooksUs[0]}, 0}));
    FS_TRY(remove_ledger(*database, id));
    FS_TRY(delete_item(*database, id));
    forget_runtime(id);
    notify();
    return fmt::format("{{\"deleted_objects\":{}}}", removed + 1);
}

// What landed behind the deletion of its item.
void Vault::Impl::tend_deleted_items() {
    if (fenced) return;
    auto due = deleted_items_due(*database, clock.now(), kLooksAtOnce);
    if (!due) {
        log::warn("vault", "deleted items cannot be read: {}", due.error().to_string());
        return;
    }
    for (DeletedItem& deleted : *due) {
        if (ending) return;
        if (auto looked = look_again(deleted); !looked) {
            log::warn("vault", "what may be left of a deleted item, {}: {}",
                      deleted.item.to_string(), looked.error().to_string());
            deleted.next_look = TimePoint{clock.now().us + kLookAgainUs};
            if (auto put = put_deleted_item(*database, deleted); !put)
                log::warn("vault", "{}", put.error().to_string());
        }
    }
}

Status Vault::Impl::look_again(DeletedItem& deleted) {
    auto known = get_item(*database, deleted.item);
    if (!known && known.error().code() != Code::kItemNotFound) return tl::unexpected(known.error());
    // There is one of that id: its deletion did not end, or its database was put back.
    if (known) return drop_deleted_item(*database, deleted.item);
    FS_ASSIGN(const uint64_t removed,
              remove_objects(
                  *store, *fence, deleted.item, [](const std::string&) { return false; },
                  [](uint64_t) -> Status { return {}; }));
    if (removed != 0)
        log::info("vault", "{} objects of a deleted item landed behind its deletion: removed",
                  removed);
    if (++deleted.looks >= std::size(kLooksUs)) return drop_deleted_item(*database, deleted.item);
    deleted.next_look = TimePoint{clock.now().us + kLooksUs[deleted.looks]};
    return put_deleted_item(*database, deleted);
}

}  // namespace farshore
