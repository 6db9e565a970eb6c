// Copies of items in other stores: adding, moving, looking after, reading, removing.
// docs/design/copies.md.
#include <fmt/core.h>

#include <algorithm>

#include "replica/item_key.h"
#include "replica/scrub.h"
#include "vault/log_about.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kOpenAgainUs = 10'000'000;
constexpr int64_t kDescriptionUs = 600'000'000;
constexpr int kStepsARound = 16;
// A copy that is so far behind is said to be.
constexpr int64_t kBehindUs = 900'000'000;
constexpr size_t kNamedDamage = 5;
constexpr int64_t kMendLeaseUs = 3600ll * 1'000'000;

}  // namespace

// ---- runtimes
// --------------------------------------------------------------------------------------

std::shared_ptr<CopyRuntime> Vault::Impl::copy_runtime(const std::shared_ptr<SecondStore>& second,
                                                       const CopyRecord& record,
                                                       const std::shared_ptr<ItemRuntime>& item) {
    const std::lock_guard hold(second->mutex);
    auto& at = second->copies[record.item];
    if (at && at->source == item) return at;
    at = std::make_shared<CopyRuntime>();
    at->store = second;
    at->source = item;
    at->ledger = std::make_unique<DatabaseLedger>(*database, record.item, second->name);
    return at;
}

// Those that are no copies any more.
void Vault::Impl::forget_copies(SecondStore& second, const std::vector<CopyRecord>& records) {
    const std::lock_guard hold(second.mutex);
    std::erase_if(second.copies, [&](const auto& entry) {
        return std::ranges::find(records, entry.first, &CopyRecord::item) == records.end();
    });
}

std::vector<std::shared_ptr<CopyRuntime>> Vault::Impl::copies_of(const ItemId& item) {
    std::vector<std::shared_ptr<CopyRuntime>> out;
    for (const auto& second : all_second_stores()) {
        const std::lock_guard hold(second->mutex);
        const auto at = second->copies.find(item);
        if (at != second->copies.end()) out.push_back(at->second);
    }
    return out;
}

Status Vault::Impl::open_copy(CopyRuntime& copy) {
    if (copy.copy) return {};
    SecondStore& second = *copy.store;
    ItemCopyParts parts;
    parts.name = second.name;
    parts.source = copy.source->replica.get();
    parts.source_store = store.get();
    parts.source_ledger = copy.source->ledger.get();
    parts.store = second.store.get();
    parts.ledger = copy.ledger.get();
    parts.clock = &clock;
    parts.random = &random;
    parts.item = copy.source->id;
    parts.item_key = copy.source->key;
    parts.replica.fence = &*second.fence;
    parts.replica.shared_points = [this, id = copy.source->id] {
        return shared_points_of_item(id);
    };
    parts.parallel = [&second](size_t n, const std::function<void(size_t)>& job) {
        second.pool.run(n, job);
    };
    FS_ASSIGN(auto opened, ItemCopy::open(std::move(parts)));
    const std::lock_guard hold(copy.mutex);
    copy.copy = std::move(opened);
    return {};
}

// ---- moving and looking after
// -----------------------------------------------------------------------------------------

void Vault::Impl::tell_copy(Vault& vault, const ItemRecord& record, CopyRuntime& copy,
                            const std::optional<Error>& error) {
    std::optional<Error> before;
    {
        const std::lock_guard hold(copy.mutex);
        before = copy.error;
        copy.error = error;
    }
    if (ending) return;
    const std::string& name = copy.store->name;
    if (error && (!before || before->code() != error->code())) {
        vault.event(error->retry() == Retry::kNever ? Severity::kCritical : Severity::kWarning,
                    "copy-failing", &record,
                    fmt::format("the copy in '{}' does not go on: {}", name, error->what()),
                    error->remedy().empty() ? "what is new waits in the vault's own store"
                                            : error->remedy());
        notify();
    }
    if (!error && before) {
        vault.event(Severity::kInformation, "copy-going-on", &record,
                    fmt::format("the copy in '{}' goes on", name));
        notify();
    }
}

bool Vault::Impl::tend_copy(Vault& vault, const std::shared_ptr<SecondStore>& second,
                            const CopyRecord& record) {
    if (why_set_aside(record.item)) return false;
    const auto item = get_item(*database, record.item);
    if (!item || item->state == ItemState::kDisabling) return false;
    const auto source = runtime(record.item);
    if (!source) return false;  // its own reports say why
    const auto copy = copy_runtime(second, record, *source);
    const std::lock_guard work(copy->work);
    if (copy->deleting) return false;
    const int64_t steady_us = clock.steady_us();
    bool failing = false;
    {
        const std::lock_guard hold(copy->mutex);
        failing = copy->error.has_value();
    }
    // What fails is not tried again at once.
    if (failing && steady_us - copy->opened_us < kOpenAgainUs && options.tend_interval_us != 0)
        return false;
    if (failing || !copy->copy) copy->opened_us = steady_us;
    bool more = false, begun = false;
    const auto run = [&]() -> Status {
        FS_TRY(open_copy(*copy));
        if (copy->mirrored_us == 0 || steady_us - copy->mirrored_us >= kDescriptionUs) {
            FS_TRY(copy->copy->mirror_description());
            FS_ASSIGN(const bool described, is_described(record.item));
            // Until it is written, it is looked for in each round.
            copy->mirrored_us = described ? steady_us : 0;
        }
        const bool seeding = copy->copy->replica() == nullptr;
        const size_t damaged = copy->copy->status().damaged.size();
        for (int i = 0; i < kStepsARound && !ending; ++i) {
            FS_ASSIGN(more, copy->copy->step());
            if (!more) break;
        }
        begun = seeding && copy->copy->replica() != nullptr;
        const auto names = copy->copy->status().damaged;
        if (names.size() > damaged)
            vault.event(Severity::kWarning, "copy-damaged", &*item,
                        fmt::format("{} came into the copy in '{}' with damage that it has in the "
                                    "vault's own store",
                                    names.back(), second->name),
                        "`farshore scrub` says what it costs");
        return upkeep_copy(*copy, record);
    };
    const Status done = run();
    if (begun)
        vault.event(Severity::kInformation, "copy-seeded", &*item,
                    fmt::format("the copy in '{}' has what the item had, and follows it now",
                                second->name));
    {
        const std::lock_guard hold(copy->mutex);
        copy->caught_up = done && !more;
    }
    tell_copy(vault, *item, *copy,
              done ? std::optional<Error>() : std::optional<Error>(done.error()));
    if (begun) notify();
    return done && more;
}

Status Vault::Impl::upkeep_copy(CopyRuntime& copy, const CopyRecord& record) {
    const auto replica = copy.copy->replica();
    if (!replica) return {};
    FS_TRY(replica->maybe_checkpoint());
    const int64_t window_us = int64_t{record.window_s} * 1'000'000;
    const int64_t interval_us = std::clamp<int64_t>(window_us / 20, 2'000'000, 60'000'000);
    if (copy.retention_us != 0 && clock.steady_us() - copy.retention_us < interval_us) return {};
    copy.retention_us = clock.steady_us();
    RetentionPolicy policy;
    policy.window_us = window_us;
    FS_ASSIGN(policy.grid, RetentionGrid::parse(record.keep));
    policy.min_advance_us = interval_us / 2;
    policy.grace_us = int64_t{record.grace_s} * 1'000'000;
    FS_TRY(replica->run_retention(policy));
    return {};
}

// Up to where all copies have the item's log; none when there are no copies. By the database: one
// whose store is away counts, too.
Result<std::optional<Sequence>> Vault::Impl::followed(const ItemId& item) {
    FS_ASSIGN(const auto copies, list_copies(*database, item));
    std::optional<Sequence> least;
    for (const CopyRecord& record : copies) {
        if (record.removing) continue;
        DatabaseLedger ledger(*database, item, record.store);
        FS_ASSIGN(const Sequence sequence, ItemCopy::followed(ledger));
        least = least ? std::min(*least, sequence) : sequence;
    }
    return least;
}

// ---- reading
// --------------------------------------------------------------------------------------

std::shared_ptr<ItemReplica> Vault::Impl::replica_of(CopyRuntime& copy) {
    const std::lock_guard hold(copy.mutex);
    return copy.copy ? copy.copy->replica() : nullptr;
}

Result<std::shared_ptr<ItemReplica>> Vault::Impl::replica_in(const std::string& copy,
                                                             const ItemId& id) {
    if (copy.empty()) {
        FS_ASSIGN(std::shared_ptr<ItemRuntime> item, runtime(id));
        ItemReplica* replica = item->replica.get();
        return std::shared_ptr<ItemReplica>(std::move(item), replica);
    }
    FS_ASSIGN(const CopyRecord record, get_copy(*database, id, copy));
    if (record.removing) return fail(Code::kWrongState, "the copy is being removed");
    FS_ASSIGN(const auto second, second_store(copy));
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(id));
    const auto runtime = copy_runtime(second, record, item);
    bool opened = false;
    {
        const std::lock_guard hold(runtime->mutex);
        opened = runtime->copy != nullptr;
    }
    if (!opened) {
        const std::lock_guard work(runtime->work);
        FS_TRY(open_copy(*runtime));
    }
    std::shared_ptr<ItemReplica> replica = replica_of(*runtime);
    if (!replica)
        return fail(Code::kWrongState,
                    fmt::format("the copy in '{}' is being made: it has no points yet", copy),
                    "`farshore copy list` shows how far it is");
    // Whoever holds it holds all that it borrows.
    struct Held {
        std::shared_ptr<CopyRuntime> runtime;
        std::shared_ptr<ItemReplica> replica;
    };
    auto held = std::make_shared<Held>(Held{runtime, replica});
    return std::shared_ptr<ItemReplica>(std::move(held), replica.get());
}

Result<ObjectStore*> Vault::Impl::store_in(const std::string& copy) {
    if (copy.empty()) return static_cast<ObjectStore*>(store.get());
    FS_ASSIGN(const auto second, second_store(copy));
    return static_cast<ObjectStore*>(second->store.get());
}

Result<std::shared_ptr<ItemReplica>> Vault::replica(const ItemId& id, const std::string& copy) {
    return impl_->replica_in(copy, id);
}

// ---- reports
// --------------------------------------------------------------------------------------

Result<CopyReport> Vault::Impl::copy_report(const CopyRecord& record) {
    CopyReport report;
    report.record = record;
    DatabaseLedger ledger(*database, record.item, record.store);
    DatabaseLedger source(*database, record.item);
    FS_ASSIGN(const LedgerState own, ledger.state());
    FS_ASSIGN(const LedgerState from, source.state());
    report.behind_segments =
        from.last_segment.v - std::min(from.last_segment.v, own.last_segment.v);
    if (report.behind_segments != 0)
        report.behind_us = std::max<int64_t>(from.stored_time.us - own.stored_time.us, 0);
    report.stored_bytes = own.stored_bytes;
    for (const auto& copy : copies_of(record.item)) {
        if (copy->store->name != record.store) continue;
        const std::lock_guard hold(copy->mutex);
        report.error = copy->error;
        if (!copy->copy) continue;
        report.status = copy->copy->status();
        if (const auto replica = copy->copy->replica()) {
            FS_ASSIGN(report.replica, replica->status());
            report.stored_bytes = report.replica->stored_bytes;
        }
    }
    const std::lock_guard hold(stores_mutex);
    const auto at = second_stores.find(record.store);
    if (!report.error && at != second_stores.end()) {
        const std::lock_guard one(at->second->mutex);
        if (!at->second->open) report.error = at->second->error;
    }
    return report;
}

Result<std::vector<CopyReport>> Vault::copies(const std::string& name_or_id) {
    FS_ASSIGN(const ItemRecord item, find_item(*impl_->database, name_or_id));
    FS_ASSIGN(const auto records, list_copies(*impl_->database, item.id));
    std::vector<CopyReport> out;
    for (const CopyRecord& record : records) {
        FS_ASSIGN(CopyReport report, impl_->copy_report(record));
        out.push_back(std::move(report));
    }
    return out;
}

void Vault::Impl::report_copies(const ItemRecord& record, ItemReport& report) {
    for (const auto& copy : copies_of(record.id)) {
        std::optional<Error> error;
        bool moving = false;
        {
            const std::lock_guard hold(copy->mutex);
            error = copy->error;
            moving = copy->copy && copy->copy->replica() != nullptr && !copy->caught_up;
        }
        const std::string& name = copy->store->name;
        {
            const std::lock_guard hold(copy->store->mutex);
            if (!error && !copy->store->open) error = copy->store->error;
        }
        if (error) {
            report.troubles.push_back(
                {Severity::kWarning, "copy-failing",
                 fmt::format("the copy in '{}' does not go on: {}", name, error->what()),
                 error->remedy()});
        } else if (moving) {
            const auto own = copy->ledger->state();
            const auto source = copy->source->ledger->state();
            if (own && source && source->stored_time.us - own->stored_time.us > kBehindUs)
                report.troubles.push_back(
                    {Severity::kWarning, "copy-behind",
                     fmt::format("the copy in '{}' is {} min behind", name,
                                 (source->stored_time.us - own->stored_time.us) / 60'000'000),
                     "the line to that store is slower than what is written"});
        }
    }
}

// ---- verbs
// --------------------------------------------------------------------------------------

namespace {

Status check_copy_policy(const CopyRecord& record) {
    FS_TRY(RetentionGrid::parse(record.keep));
    if (record.window_s < 60 || record.window_s > 366u * 24 * 3600)
        return fail(Code::kInvalidArgument,
                    "window_s: a copy's window is from 60 s to 31622400 s (366 days)");
    return {};
}

}  // namespace

Result<CopyReport> Vault::add_copy(const std::string& name_or_id, const std::string& store,
                                   const CopyPolicy& policy) {
    FS_ASSIGN(const ItemRecord item, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(item.id)) return fail(*error);
    if (item.state == ItemState::kDisabling)
        return fail(Code::kWrongState, fmt::format("'{}' is being deleted", item.name));
    CopyRecord record;
    record.item = item.id;
    record.store = store;
    record.window_s = policy.window_s.value_or(item.policy.window_s);
    record.keep = policy.keep.value_or(item.policy.keep);
    record.grace_s = item.policy.grace_s;
    FS_TRY(check_copy_policy(record));
    FS_TRY(impl_->second_store(store));
    FS_TRY(farshore::add_copy(*impl_->database, record));
    event(Severity::kInformation, "copy-added", &item,
          fmt::format("a copy in the store '{}' begins", store));
    FS_ASSIGN(const CopyRecord added, get_copy(*impl_->database, item.id, store));
    impl_->notify();
    return impl_->copy_report(added);
}

Result<CopyReport> Vault::change_copy(const std::string& name_or_id, const std::string& store,
                                      const CopyPolicy& policy) {
    FS_ASSIGN(const ItemRecord item, find_item(*impl_->database, name_or_id));
    FS_ASSIGN(const CopyRecord changed,
              farshore::change_copy(*impl_->database, item.id, store, [&](CopyRecord& record) {
                  if (policy.window_s) record.window_s = *policy.window_s;
                  if (policy.keep) record.keep = *policy.keep;
                  return check_copy_policy(record);
              }));
    return impl_->copy_report(changed);
}

// Nobody moves anything of the copy after this.
Status Vault::Impl::stop_copy(const ItemId& item, const std::string& store_name) {
    for (const auto& copy : copies_of(item)) {
        if (copy->store->name != store_name) continue;
        {
            const std::lock_guard work(copy->work);
            copy->deleting = true;
        }
        const std::lock_guard hold(copy->store->mutex);
        copy->store->copies.erase(item);
    }
    // The lease of a seeding.
    DatabaseLedger source(*database, item);
    FS_ASSIGN(const auto leases, source.list_leases());
    for (const LeaseRow& lease : leases)
        if (lease.holder == std::string(kCopyHolderPrefix) + store_name)
            FS_TRY(source.release_lease(lease.id));
    return {};
}

// kWrongState when a point of the copy is read or held.
Status Vault::Impl::check_copy_is_free(const ItemId& item, const std::string& store_name) {
    DatabaseLedger ledger(*database, item, store_name);
    FS_ASSIGN(const auto leases, ledger.list_leases());
    for (const LeaseRow& lease : leases)
        if (lease.expires > clock.now())
            return fail(
                Code::kWrongState,
                fmt::format("'{}' reads a point of the copy in '{}'", lease.holder, store_name),
                "end the export, or clean up the failover, first");
    return {};
}

Result<uint64_t> Vault::Impl::delete_copy_objects(JobRun& run, const ItemId& item,
                                                  const std::string& store_name) {
    FS_TRY(stop_copy(item, store_name));
    FS_ASSIGN(const auto second, second_store(store_name));
    FS_ASSIGN(const uint64_t removed, delete_objects(run, *second->store, *second->fence, item));
    FS_TRY(farshore::remove_copy(*database, item, store_name));
    return removed;
}

JobWork Vault::Impl::copy_removal_work(Vault& vault, const ItemId& item,
                                       const std::string& store_name) {
    return [this, &vault, item, store_name](JobRun& run) -> Result<std::string> {
        const auto there = get_copy(*database, item, store_name);
        if (!there && there.error().code() == Code::kNotFound) return "{}";  // by an earlier run
        FS_ASSIGN(const uint64_t removed, delete_copy_objects(run, item, store_name));
        const auto record = get_item(*database, item);
        vault.event(Severity::kInformation, "copy-removed", record ? &*record : nullptr,
                    fmt::format("the copy in '{}' and its points were deleted", store_name));
        return fmt::format("{{\"deleted_objects\":{}}}", removed);
    };
}

Result<std::optional<JobRecord>> Vault::remove_copy(const std::string& name_or_id,
                                                    const std::string& store, bool delete_points) {
    FS_ASSIGN(const ItemRecord item, find_item(*impl_->database, name_or_id));
    FS_TRY(get_copy(*impl_->database, item.id, store));
    FS_TRY(impl_->check_copy_is_free(item.id, store));
    // First: nobody begins anything in it any more.
    FS_TRY(
        farshore::change_copy(*impl_->database, item.id, store, [](CopyRecord& record) -> Status {
            record.removing = true;
            return {};
        }));
    if (!delete_points) {
        FS_TRY(impl_->stop_copy(item.id, store));
        FS_TRY(farshore::remove_copy(*impl_->database, item.id, store));
        event(Severity::kInformation, "copy-removed", &item,
              fmt::format("the copy in '{}' follows no more; its points stay there, and nothing "
                          "thins them out",
                          store));
        return std::optional<JobRecord>();
    }
    FS_ASSIGN(const JobRecord job, start_job("copy-removal", item, false, store,
                                             impl_->copy_removal_work(*this, item.id, store)));
    return std::optional<JobRecord>(job);
}

// ---- keys

// All copies' stores open, ours, and with what `each` does to each copy.
Status Vault::Impl::each_copy(const ItemId& item,
                              const std::function<Status(SecondStore&, const CopyRecord&)>& each) {
    FS_ASSIGN(const auto records, list_copies(*database, item));
    for (const CopyRecord& record : records) {
        if (record.removing) continue;
        FS_ASSIGN(const auto second, second_store(record.store));
        FS_TRY(second->fence->still_mine());
        FS_TRY(each(*second, record));
    }
    return {};
}

Status Vault::Impl::mirror_keys(const ItemId& id) {
    return each_copy(id, [&](SecondStore& second, const CopyRecord& record) -> Status {
        FS_TRY(mirror_key_documents(second));
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(id));
        std::shared_ptr<SecondStore> owner;
        for (const auto& known : all_second_stores())
            if (known.get() == &second) owner = known;
        if (!owner) return {};
        const auto copy = copy_runtime(owner, record, item);
        const std::lock_guard work(copy->work);
        if (copy->deleting) return {};
        FS_TRY(open_copy(*copy));
        return copy->copy->mirror_description();
    });
}

Status Vault::Impl::destroy_copied_keys(const ItemId& item, TimePoint now) {
    return each_copy(item, [&](SecondStore& second, const CopyRecord&) -> Status {
        return destroy_item_key(*second.store, item, now,
                                [&] { return second.fence->still_mine(); });
    });
}

// ---- damage

// What is damaged in the vault's own store is put again from copies that have it whole: segments as
// they are, all else by what it says. The item's damage_mutex is held.
Result<size_t> Vault::Impl::mend_from_copies(Vault& vault, ItemRuntime& item,
                                             const ItemRecord& record) {
    size_t mended = 0;
    const auto copies = copies_of(item.id);
    if (copies.empty()) return mended;
    FS_ASSIGN(const auto rows, list_damage(*database, item.id));
    for (const DamageRecord& row : rows) {
        for (const auto& copy : copies) {
            {
                const std::lock_guard hold(copy->store->mutex);
                if (!copy->store->open) continue;
            }
            const auto restored =
                restore_segment(*store, *copy->store->store, item.id, item.key, row.object_name,
                                [this] { return check_not_fenced(fence->still_mine()); });
            if (!restored) {
                log::warn("vault", about(record, restored.error()),
                          "'{}': {} cannot be restored from '{}': {}", record.name, row.object_name,
                          copy->store->name, restored.error().to_string());
                continue;
            }
            if (!*restored) continue;
            ++mended;
            FS_TRY(remove_damage(*database, item.id, row.object_name));
            vault.event(Severity::kInformation, "object-restored", &record,
                        fmt::format("{} was damaged, and was put again from the copy in '{}'",
                                    row.object_name, copy->store->name));
            break;
        }
    }
    // What is no segment is put again by what it was, out of the copy at each point.
    FS_ASSIGN(const auto left, list_damage(*database, item.id));
    std::vector<std::string> names;
    for (const DamageRecord& row : left) names.push_back(row.object_name);
    for (const auto& copy : copies) {
        const auto replica = replica_of(*copy);
        if (!replica || names.empty()) continue;
        const auto restated = item.replica->restate_damaged(
            names, [&](Sequence sequence) -> Result<std::shared_ptr<ReplicaReader>> {
                // It stays while it is read.
                FS_TRY(replica->lease(sequence, "mending", kMendLeaseUs));
                ReplicaReaderOptions reading;
                reading.allow_gap = true;
                return ReplicaReader::open(*copy->store->store, item.id, item.key, sequence,
                                           std::move(reading));
            });
        if (!restated) {
            log::warn("vault", about(record, restated.error()),
                      "'{}': damage cannot be mended from '{}': {}", record.name, copy->store->name,
                      restated.error().to_string());
            continue;
        }
        if (*restated == 0) continue;
        mended += *restated;
        vault.event(Severity::kInformation, "points-restated", &record,
                    fmt::format("what {} points lost by damage was put again from the copy in "
                                "'{}'",
                                *restated, copy->store->name));
    }
    if (mended != 0) forget_damage_rows(item);
    return mended;
}

// Reads all of the item's copies; what is damaged there is put again from the vault's own store
// where that has it.
Status Vault::Impl::scrub_copies(Vault& vault, JobRun& run, const ItemRecord& record) {
    for (const auto& copy : copies_of(record.id)) {
        const auto replica = replica_of(*copy);
        if (!replica) continue;
        SecondStore& second = *copy->store;
        const ItemRuntime& source = *copy->source;
        std::vector<std::string> damaged, text;
        size_t restored = 0;
        const auto found = [&](const ObjectDamage& damage) -> Status {
            FS_ASSIGN(const bool whole, restore_segment(*second.store, *store, record.id,
                                                        source.key, damage.object_name, [&] {
                                                            return second.fence->still_mine();
                                                        }));
            if (whole) {
                ++restored;
                return {};
            }
            damaged.push_back(damage.object_name);
            if (text.size() < kNamedDamage)
                text.push_back(fmt::format("{} ({})", damage.object_name, damage.what));
            return {};
        };
        const auto walk = [&]() -> Status {
            ItemScrub scrub(*second.store, record.id, source.key);
            while (true) {
                FS_TRY(run.report(0.95, fmt::format("the copy in '{}': {} objects read",
                                                    second.name, scrub.progress().objects)));
                FS_ASSIGN(const ItemScrub::Step step, scrub.step());
                if (step.done) break;
                if (step.damage) FS_TRY(found(*step.damage));
                FS_TRY(pace_scrub(run, step.bytes));
            }
            FS_ASSIGN(const auto missing,
                      find_missing(*second.store, *copy->ledger, record.id, source.key));
            for (const ObjectDamage& damage : missing) FS_TRY(found(damage));
            if (!damaged.empty()) FS_TRY(replica->drop_damaged(damaged));
            return {};
        };
        if (const Status walked = walk(); !walked) {
            if (walked.error().code() == Code::kCancelled) return walked;
            // The item's own scrub is done all the same.
            log::warn("vault", about(record, walked.error()),
                      "the copy of '{}' in '{}' could not be read wholly: {}", record.name,
                      second.name, walked.error().to_string());
            continue;
        }
        std::string what;
        for (const std::string& one : text) what += (what.empty() ? "" : "; ") + one;
        bool fresh = false;
        const auto kept = farshore::change_copy(*database, record.id, second.name,
                                                [&](CopyRecord& row) -> Status {
                                                    fresh = damaged.size() != row.damaged;
                                                    row.scrubbed = clock.now();
                                                    row.damaged = damaged.size();
                                                    row.damage = what;
                                                    return {};
                                                });
        if (!kept) continue;  // removed meanwhile
        if (restored != 0)
            vault.event(Severity::kInformation, "object-restored", &record,
                        fmt::format("{} damaged segments of the copy in '{}' were put again",
                                    restored, second.name));
        if (fresh && !damaged.empty())
            vault.event(Severity::kWarning, "copy-damaged", &record,
                        fmt::format("{} objects of the copy in '{}' are damaged: {}",
                                    damaged.size(), second.name, what),
                        "its newer points are made anew by themselves; to have older ones back, "
                        "restore the objects in that store");
    }
    return {};
}

}  // namespace farshore
