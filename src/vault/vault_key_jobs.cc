// Whether every item can still be opened with what the key's source gives now; and the destruction
// of an item by its key.
#include <fmt/core.h>

#include "keys/key_document.h"
#include "meta/json_fields.h"
#include "replica/manifest.h"
#include "replica/segment.h"
#include "vault/log_about.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kTendIntervalUs = 60'000'000;
constexpr int64_t kCheckIntervalUs = 24 * 3600ll * 1'000'000;
constexpr int64_t kCheckAgainUs = 3600ll * 1'000'000;  // when the key's source did not answer
constexpr size_t kMaxListed = 1000;
constexpr size_t kMaxEvents = 20;

// Not an answer about the key: it may be all right.
bool is_away(const Error& error) {
    return error.retry() != Retry::kNever || error.code() == Code::kUnauthenticated;
}

}  // namespace

// ---- checking
// --------------------------------------------------------------------------------------

Result<JobRecord> Vault::verify_keys() {
    FS_ASSIGN(const auto jobs, open_jobs(*impl_->database));
    for (const JobRecord& job : jobs)
        if (job.kind == "key-check") return job;
    return start_job("key-check", {}, true, "",
                     [this](JobRun& run) { return impl_->run_key_check(*this, run); });
}

Result<std::string> Vault::Impl::run_key_check(Vault& vault, JobRun& run) {
    Json result{{"time", to_rfc3339(clock.now())}, {"ok", true}, {"checked", 0}, {"unreadable", 0}};
    std::shared_ptr<KeySource> source;
    std::string id;
    {
        const std::lock_guard hold(keys_mutex);
        source = key_source;
        id = current_key;
    }
    FS_TRY(run.report(0, "asking " + source->spec()));
    Keyring fresh;
    FS_ASSIGN(const Bytes document, key_document(id));
    auto opened = source->open(id, document);
    if (opened) {
        fresh.insert_or_assign(id, *opened);
        // While keys are exchanged, some items are under the former one.
        for (const auto& [other, key] : keks()) fresh.insert_or_assign(other, key);
    } else {
        const Error& error = opened.error();
        result["ok"] = false;
        result["source_error"] = {{"code", code_name(error.code())},
                                  {"detail", error.what()},
                                  {"remedy", error.remedy()},
                                  {"away", is_away(error)}};
        if (is_away(error))
            vault.event(Severity::kWarning, "key-service-away", nullptr,
                        fmt::format("key {} cannot be had from {} now: {}", id, source->spec(),
                                    error.what()),
                        "what runs goes on, but a vault that starts needs it; " + error.remedy());
        else
            vault.event(Severity::kCritical, "key-lost", nullptr,
                        fmt::format("{} does not give key {} any more: {}", source->spec(), id,
                                    error.what()),
                        "as long as this vault runs, `farshore key escrow` and `farshore key "
                        "rotate --to SOURCE` save what is there; " +
                            error.remedy());
    }
    const auto check = [&](const ItemId& item, const std::optional<ItemRecord>& record) -> Status {
        FS_ASSIGN(const bool described, is_described(item));
        if (!described) {
            if (record) FS_TRY(open_for_item(item, record->wrapped_key, fresh));
            return {};
        }
        FS_ASSIGN(const OpenedItemKey key, load_item_key(*store, item, fresh));
        FS_ASSIGN(const auto segments, list_all(*store, log_prefix(item)));
        if (segments.empty()) return {};
        auto segment = SegmentReader::open(*store, segments.back().name, item, key.key);
        // Retention may have taken it since.
        if (!segment && segment.error().code() == Code::kNotFound) return {};
        if (!segment) return fail(segment.error());
        return {};
    };
    Json unreadable = Json::array();
    size_t checked = 0, lost = 0;
    if (opened) {
        FS_ASSIGN(const auto ids, all_item_ids());
        for (const ItemId& item : ids) {
            FS_TRY(run.report(static_cast<double>(checked) / static_cast<double>(ids.size()),
                              fmt::format("{} of {} items", checked, ids.size())));
            std::optional<ItemRecord> record;
            if (auto known = get_item(*database, item)) record = *known;
            FS_ASSIGN(const auto destroyed, key_destroyed(*store, item));
            if (destroyed) continue;
            FS_ASSIGN(const bool described, is_described(item));
            if (!record && !described) continue;  // leftovers of one that was deleted
            ++checked;
            auto good = check(item, record);
            if (good) continue;
            if (good.error().code() == Code::kCancelled || good.error().retry() != Retry::kNever)
                return fail(good.error());
            ++lost;
            const std::string name = record ? record->name : item.to_string();
            if (unreadable.size() < kMaxListed)
                unreadable.push_back({{"item", item.to_string()},
                                      {"name", name},
                                      {"code", code_name(good.error().code())},
                                      {"detail", good.error().what()},
                                      {"remedy", good.error().remedy()}});
            if (lost <= kMaxEvents)
                vault.event(Severity::kCritical, "key-lost", record ? &*record : nullptr,
                            fmt::format("'{}' cannot be read with the key that there is: {}", name,
                                        good.error().what()),
                            "mend it while the vault runs and still has the key in memory "
                            "(`farshore key rotate` writes it anew); " +
                                good.error().remedy());
        }
    }
    if (lost != 0) result["ok"] = false;
    result["checked"] = checked;
    result["unreadable"] = lost;
    FS_TRY(set_setting(*database, "keys_verified", dump_json(result)));
    result["items"] = std::move(unreadable);
    return dump_json(result);
}

void Vault::Impl::tend_keys(Vault& vault) {
    const int64_t steady_us = clock.steady_us();
    if (keys_tended_us != 0 && steady_us - keys_tended_us < kTendIntervalUs) return;
    keys_tended_us = steady_us;
    if (fenced) return;
    const auto look = [&]() -> Status {
        FS_ASSIGN(const std::string due, get_setting(*database, "keys_check_due"));
        const int64_t now_us = clock.now().us;
        int64_t due_us = due.empty() ? 0 : std::strtoll(due.c_str(), nullptr, 10);
        if (due.empty() || due_us - now_us > kCheckIntervalUs)  // a clock that was set back
            return set_setting(*database, "keys_check_due",
                               std::to_string(now_us + kCheckIntervalUs));
        FS_ASSIGN(const std::string last, get_setting(*database, "keys_verified"));
        if (!last.empty()) {
            // One that got no answer is repeated sooner.
            const Json json = Json::parse(last, nullptr, false);
            const auto error = json.is_object() ? json.find("source_error") : json.end();
            if (json.is_object() && error != json.end() && error->is_object() &&
                error->value("away", false))
                due_us -= kCheckIntervalUs - kCheckAgainUs;
        }
        if (now_us < due_us) return {};
        FS_TRY(set_setting(*database, "keys_check_due", std::to_string(now_us + kCheckIntervalUs)));
        FS_TRY(vault.verify_keys());
        return {};
    };
    if (auto looked = look(); !looked)
        log::warn("vault", about(looked.error()), "the check of the keys: {}",
                  looked.error().to_string());
}

// ---- destruction
// -----------------------------------------------------------------------------------

Status Vault::Impl::check_no_lease(ItemRuntime& item) {
    FS_ASSIGN(const auto leases, item.ledger->list_leases());
    const TimePoint now = clock.now();
    for (const LeaseRow& lease : leases) {
        if (lease.expires <= now || lease.holder.starts_with(kCopyHolderPrefix)) continue;
        const bool hold = lease.expires.us == INT64_MAX;
        return fail(
            Code::kWrongState,
            fmt::format("{} '{}' keeps a point of this item", hold ? "the hold" : "", lease.holder),
            hold ? "a hold must be given back first"
                 : "end the export, or clean up the failover, first");
    }
    return {};
}

Result<JobRecord> Vault::destroy_key(const std::string& name_or_id, const std::string& confirm,
                                     bool end_replication) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (confirm != record.name)
        return fail(Code::kInvalidArgument, fmt::format("'{}' was not confirmed", record.name),
                    fmt::format("what is destroyed cannot be had back: --confirm {}", record.name));
    if (record.state == ItemState::kDisabling)
        return fail(Code::kWrongState, fmt::format("'{}' is being deleted", record.name));
    if (record.wrapped_key.empty())
        return fail(Code::kWrongState, fmt::format("'{}' has no key any more", record.name));
    if (!impl_->why_set_aside(record.id)) {
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(record.id));
        FS_TRY(impl_->check_no_lease(*item));
        FS_ASSIGN(const auto copies, list_copies(*impl_->database, record.id));
        for (const CopyRecord& copy : copies)
            FS_TRY(impl_->check_copy_is_free(record.id, copy.store));
        const std::lock_guard hold(item->mutex);
        const bool captured = is_replicating(record.state) && item->agent &&
                              impl_->clock.steady_us() - item->agent_heard_us < kAgentLostUs;
        if (captured && !end_replication)
            return fail(Code::kWrongState,
                        fmt::format("agent '{}' replicates '{}'", record.agent, record.name),
                        "end the agent, or say --end-replication");
    }
    FS_TRY(impl_->check_not_fenced(impl_->fence->still_mine()));
    const ItemId id = record.id;
    return start_job("key-destruction", record, false, "", [this, id](JobRun& run) {
        return impl_->run_key_destruction(*this, run, id);
    });
}

Result<std::string> Vault::Impl::run_key_destruction(Vault& vault, JobRun& run, const ItemId& id) {
    FS_ASSIGN(const ItemRecord record, get_item(*database, id));
    const TimePoint now = clock.now();
    // The copies' come first: with a store away nothing is destroyed, and it can be asked for
    // again.
    FS_TRY(each_copy(id, [](SecondStore&, const CopyRecord&) -> Status { return {}; }));
    FS_TRY(run.report(0.1, "fencing the log"));
    std::shared_ptr<ItemRuntime> item;
    if (!why_set_aside(id) && !record.wrapped_key.empty()) {
        FS_ASSIGN(item, runtime(id));
        // Whoever still sends gets nothing registered any more.
        FS_TRY(item->replica->fence_log("key destruction"));
        const std::lock_guard upkeep(item->upkeep_mutex);
        item->deleting = true;
    }
    {
        const std::lock_guard hold(mutex);
        set_aside.insert_or_assign(id, key_is_destroyed(record.name, now));
        runtimes.erase(id);
    }
    // From here on nobody gets a lease; one that came before is respected.
    if (item) {
        if (auto free = check_no_lease(*item); !free) {
            const std::lock_guard hold(mutex);
            set_aside.erase(id);
            return fail(free.error());
        }
    }
    FS_TRY(run.report(0.5, "removing every copy of the key"));
    {
        FS_ASSIGN(const auto copies, list_copies(*database, id));
        for (const CopyRecord& copy : copies) FS_TRY(stop_copy(id, copy.store));
        const std::lock_guard work(key_work);
        FS_TRY(destroy_copied_keys(id, now));
        FS_TRY(destroy_item_key(*store, id, now,
                                [this] { return check_not_fenced(fence->still_mine()); }));
        FS_TRY(change_item(*database, id, [](ItemRecord& changed) -> Status {
            changed.wrapped_key.clear();
            return {};
        }));
    }
    DatabaseLedger ledger(*database, id);
    FS_TRY(ledger.begin_rebuild({}));  // each start looks at it again, and finds out why
    vault.event(
        Severity::kCritical, "key-destroyed", &record,
        fmt::format("the key of '{}' was destroyed: none of its recovery points can be "
                    "read any more",
                    record.name),
        "end whatever still sends for it; `farshore unprotect --force` deletes what is left");
    notify();
    return dump_json({{"item", id.to_string()}, {"destroyed", to_rfc3339(now)}});
}

}  // namespace farshore
