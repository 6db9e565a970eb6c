// Scrubs: when they are due, their work as a job, what damage costs, and asking the source to send
// again what was lost. docs/design/scrub.md.
#include <fmt/core.h>

#include <set>

#include "meta/json_fields.h"
#include "replica/hurt_points.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr int64_t kKeepProgressUs = 5'000'000;
// How often what damage costs is worked out again: in a scrub, while the newest point is hurt, and
// whether damaged objects were restored or went.
constexpr int64_t kWeighUs = 10'000'000;
constexpr int64_t kRecheckUs = 600'000'000;
// After an error; and before the source is asked once more.
constexpr int64_t kScrubAgainUs = 3'600'000'000;
constexpr int64_t kAskAgainUs = 3'600'000'000;
constexpr int64_t kPausedUs = 10'000'000, kPausePieceUs = 500'000;
constexpr size_t kEventsAtOnce = 10;
constexpr const char* kKind = "scrub";

ObjectDamage damage_of(const DamageRecord& row) {
    return {row.object_name, row.code, row.what, row.chunks, false};
}

// "3 ranges of points between A and B, and 2 kept ones", for a person.
std::string cost_text(const HurtPoints& hurt) {
    if (hurt.none()) return "no point needs what was lost";
    std::string text;
    if (!hurt.ranges.empty())
        text = fmt::format(
            "the points {} to {} ({} to {}){}", hurt.ranges.front().first.v,
            hurt.ranges.back().last.v, to_rfc3339(hurt.ranges.front().first_time),
            to_rfc3339(hurt.ranges.back().last_time),
            hurt.ranges.size() > 1 ? fmt::format(" in {} pieces", hurt.ranges.size()) : "");
    if (!hurt.kept.empty())
        text += fmt::format("{}{} kept point{} from {} on", text.empty() ? "" : " and ",
                            hurt.kept.size(), hurt.kept.size() == 1 ? "" : "s",
                            to_rfc3339(hurt.kept.front().time));
    return text + " cannot be read wholly";
}

std::string hurt_json(const HurtPoints& hurt) {
    Json ranges = Json::array(), kept = Json::array();
    for (const OfferedRange& range : hurt.ranges)
        ranges.push_back({{"oldest", point_view(range.first, range.first_time)},
                          {"newest", point_view(range.last, range.last_time)}});
    for (const KeptRow& row : hurt.kept) kept.push_back(kept_view(row));
    return dump_json({{"ranges", std::move(ranges)}, {"kept", std::move(kept)}});
}

}  // namespace

// ---- what damage costs

Result<std::vector<DamageRecord>> Vault::Impl::damage(ItemRuntime& item) {
    {
        const std::lock_guard hold(item.mutex);
        if (item.damage) return *item.damage;
    }
    FS_ASSIGN(auto rows, list_damage(*database, item.id));
    const std::lock_guard hold(item.mutex);
    if (!item.damage) item.damage = rows;
    return rows;
}

void Vault::Impl::forget_damage_rows(ItemRuntime& item) {
    const std::lock_guard hold(item.mutex);
    item.damage.reset();
}

// Objects that were restored, or that nothing needs any more, are damaged no longer.
Status Vault::Impl::recheck_damage(Vault& vault, ItemRuntime& item, const ItemRecord& record) {
    FS_ASSIGN(const auto rows, list_damage(*database, item.id));
    std::optional<std::set<std::string>> missing;
    for (const DamageRecord& row : rows) {
        FS_ASSIGN(const ObjectCheck check,
                  verify_object(*store, item.id, item.key, row.object_name));
        if (check.damage) continue;
        if (check.gone) {
            if (!missing) {
                missing.emplace();
                FS_ASSIGN(const auto found, find_missing(*store, *item.ledger, item.id, item.key));
                for (const ObjectDamage& one : found) missing->insert(one.object_name);
            }
            if (missing->contains(row.object_name)) continue;
        }
        FS_TRY(remove_damage(*database, item.id, row.object_name));
        if (check.gone)
            log::info("vault", about(record), "'{}': nothing needs the damaged {} any more",
                      record.name, row.object_name);
        else
            vault.event(Severity::kInformation, "object-restored", &record,
                        row.object_name + " was damaged, and is whole again");
    }
    forget_damage_rows(item);
    return {};
}

// `fresh`: objects whose damage was found just now, and that an event has to name.
Status Vault::Impl::weigh_damage(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                                 const std::set<std::string>& fresh) {
    const std::lock_guard one_at_a_time(item.damage_mutex);
    FS_TRY(mend_from_copies(vault, item, record));
    FS_ASSIGN(auto rows, list_damage(*database, item.id));
    const bool was = std::ranges::any_of(rows, &DamageRecord::newest);
    if (rows.empty()) {
        forget_damage_rows(item);
        return {};
    }
    std::vector<ObjectDamage> damaged;
    for (const DamageRecord& row : rows) damaged.push_back(damage_of(row));
    // Manifests that another serves for are let go of: they are made again.
    std::vector<std::string> names;
    for (const DamageRecord& row : rows) names.push_back(row.object_name);
    FS_ASSIGN(const uint64_t dropped, item.replica->drop_damaged(names));
    if (dropped != 0)
        log::info("vault", about(record), "'{}': {} manifests that were damaged are made again",
                  record.name, dropped);
    PointQuery none;
    none.limit = 0;
    FS_ASSIGN(PointList offered, item.replica->points(none));
    FS_ASSIGN(offered.kept, item.replica->kept());
    FS_ASSIGN(const auto hurts, hurt_points(*store, item.id, item.key, offered, damaged));
    bool newest = false, ask = false;
    const TimePoint now = clock.now();
    for (size_t i = 0; i < rows.size(); ++i) {
        rows[i].newest = hurts[i].newest;
        rows[i].points = hurt_json(hurts[i]);
        FS_TRY(put_damage(*database, item.id, rows[i]));
        newest = newest || rows[i].newest;
        ask = ask || (rows[i].newest && now.us - rows[i].asked.us >= kAskAgainUs);
    }
    std::optional<Error> refused;
    if (ask) {
        // What it has read before may be from before the damage.
        forget_compare_reader(item);
        auto asked = vault.resynchronise(item.id.to_string(), false);
        if (asked)
            FS_TRY(damage_asked(*database, item.id, now));
        else
            refused = asked.error();
    }
    size_t told = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        if (!fresh.contains(rows[i].object_name)) continue;
        if (++told > kEventsAtOnce) continue;
        std::string remedy =
            "to have older points back, restore the object from a copy of the "
            "store; `farshore scrub` lists what is damaged";
        if (rows[i].newest)
            remedy = (refused ? "the source could not be asked to send it again (" +
                                    refused->what() + "); "
                              : std::string("the source compares, and sends what was lost again: "
                                            "points after that are whole; ")) +
                     remedy;
        vault.event(rows[i].newest ? Severity::kCritical : Severity::kWarning, "replica-damaged",
                    &record,
                    fmt::format("{} is {}: {}; {}", rows[i].object_name,
                                rows[i].code == Code::kNotFound ? "missing" : "damaged",
                                rows[i].what, cost_text(hurts[i])),
                    remedy);
    }
    if (told > kEventsAtOnce)
        vault.event(Severity::kCritical, "replica-damaged", &record,
                    fmt::format("{} further objects are damaged", told - kEventsAtOnce),
                    "`farshore scrub` lists them; look at the store's disks");
    if (was && !newest)
        vault.event(Severity::kInformation, "replica-repaired", &record,
                    "the newest point needs nothing of damaged objects any more");
    forget_damage_rows(item);
    notify();
    return {};
}

// ---- the work

// Waits so long that all scrubs together stay below the limit.
Status Vault::Impl::pace_scrub(JobRun& run, uint64_t bytes) {
    const BytesPerS rate = scrub_limit.at(clock.now());
    if (rate == kUnlimited || bytes == 0) return {};
    int64_t until_us = 0;
    {
        const std::lock_guard hold(scrub_mutex);
        const double us =
            static_cast<double>(bytes) * 1e6 / static_cast<double>(std::max<BytesPerS>(rate, 1));
        scrub_next_us = std::max(scrub_next_us, clock.steady_us()) +
                        (rate == 0 ? kPausedUs : static_cast<int64_t>(us));
        until_us = scrub_next_us;
    }
    // In pieces: it can be cancelled meanwhile.
    while (true) {
        const int64_t left_us = until_us - clock.steady_us();
        if (left_us <= 0) return {};
        FS_TRY(run.pause(std::min(left_us, kPausePieceUs)));
    }
}

Result<std::string> Vault::Impl::scrub_item(Vault& vault, JobRun& run, const ItemId& id) {
    FS_ASSIGN(const ItemRecord record, get_item(*database, id));
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(id));
    FS_ASSIGN(ScrubRecord scrub, get_scrub(*database, id));
    // One that did not come to its end goes on where it was.
    if (scrub.started.us == 0 || scrub.finished >= scrub.started) {
        const TimePoint finished = scrub.finished;
        scrub = {};
        scrub.finished = finished;
        scrub.started = {std::max(clock.now().us, finished.us + 1)};
    }
    scrub.ended = {};
    scrub.error.reset();
    FS_TRY(put_scrub(*database, id, scrub));
    auto work = [&]() -> Status {
        FS_TRY(recheck_damage(vault, *item, record));
        FS_ASSIGN(const ReplicaStatus status, replica_status(*item));
        ItemScrub walk(*store, id, item->key, {scrub.after, scrub.objects, scrub.bytes});
        std::set<std::string> fresh;
        int64_t kept_us = clock.steady_us(), weighed_us = kept_us - kWeighUs;
        const auto keep = [&]() -> Status {
            scrub.after = walk.progress().after;
            scrub.objects = walk.progress().objects;
            scrub.bytes = walk.progress().bytes;
            kept_us = clock.steady_us();
            return put_scrub(*database, id, scrub);
        };
        const auto found = [&](const ObjectDamage& damage) -> Status {
            ++scrub.damaged;
            DamageRecord row;
            row.object_name = damage.object_name;
            row.code = damage.code;
            row.what = damage.what;
            row.chunks = damage.chunks;
            row.found = clock.now();
            FS_ASSIGN(const auto known, list_damage(*database, id));
            const auto at =
                std::ranges::find(known, damage.object_name, &DamageRecord::object_name);
            if (at == known.end()) {
                fresh.insert(damage.object_name);
            } else {
                row.newest = at->newest;
                row.points = at->points;
            }
            const Status put = put_damage(*database, id, row);
            return !put && put.error().code() == Code::kLimitReached ? Status() : put;
        };
        const auto weigh = [&]() -> Status {
            FS_TRY(weigh_damage(vault, *item, record, fresh));
            fresh.clear();
            weighed_us = clock.steady_us();
            return {};
        };
        const auto going = [&]() -> Status {
            const std::lock_guard upkeep(item->upkeep_mutex);
            if (item->deleting || fenced)
                return fail(Code::kCancelled,
                            "the item is being deleted, or the store is no "
                            "longer this vault's");
            return {};
        };
        while (true) {
            const uint64_t total = std::max(status.stored_bytes, walk.progress().bytes + 1);
            FS_TRY(
                run.report(static_cast<double>(walk.progress().bytes) / static_cast<double>(total),
                           fmt::format("{} objects read", walk.progress().objects)));
            FS_ASSIGN(const ItemScrub::Step step, walk.step());
            if (step.done) break;
            if (step.damage) {
                FS_TRY(going());
                FS_TRY(found(*step.damage));
                FS_TRY(keep());
            } else if (clock.steady_us() - kept_us >= kKeepProgressUs) {
                FS_TRY(going());
                FS_TRY(keep());
            }
            if (!fresh.empty() && clock.steady_us() - weighed_us >= kWeighUs) FS_TRY(weigh());
            FS_TRY(pace_scrub(run, step.bytes));
        }
        FS_TRY(keep());
        FS_TRY(going());
        FS_ASSIGN(const auto missing, find_missing(*store, *item->ledger, id, item->key));
        for (const ObjectDamage& damage : missing) FS_TRY(found(damage));
        FS_TRY(weigh());
        return scrub_copies(vault, run, record);
    };
    const Status done = work();
    if (ending && !done) return fail(done.error());
    scrub.ended = clock.now();
    if (done)
        scrub.finished = std::max(scrub.ended, scrub.started);
    else
        scrub.error = ItemError{done.error().code(), done.error().what(), done.error().remedy()};
    // An item that was deleted meanwhile has none.
    if (const Status kept = put_scrub(*database, id, scrub); done && !kept)
        return fail(kept.error());
    notify();
    if (!done) return fail(done.error());
    return dump_json(
        {{"objects", scrub.objects}, {"bytes", scrub.bytes}, {"damaged", scrub.damaged}});
}

JobWork Vault::Impl::scrub_work(Vault& vault, const ItemId& id) {
    return [this, &vault, id](JobRun& run) { return scrub_item(vault, run, id); };
}

Result<std::optional<JobRecord>> Vault::Impl::open_scrub(const ItemId& id) {
    FS_ASSIGN(const auto jobs, open_jobs(*database));
    for (const JobRecord& job : jobs)
        if (job.kind == kKind && job.item == id) return std::optional<JobRecord>(job);
    return std::optional<JobRecord>();
}

Result<JobRecord> Vault::scrub(const std::string& name_or_id) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    if (record.state == ItemState::kDisabling)
        return fail(Code::kWrongState, fmt::format("'{}' is being deleted", record.name));
    FS_TRY(impl_->runtime(record.id));
    const std::lock_guard hold(impl_->scrub_start_mutex);
    FS_ASSIGN(const auto open, impl_->open_scrub(record.id));
    if (open) return *open;
    return start_job(kKind, record, true, "", impl_->scrub_work(*this, record.id));
}

Result<ScrubReport> Vault::scrub_report(const std::string& name_or_id) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    ScrubReport report;
    report.interval_s = record.policy.scrub_interval_s;
    report.created = record.created;
    FS_ASSIGN(report.scrub, get_scrub(*impl_->database, record.id));
    FS_ASSIGN(report.damage, list_damage(*impl_->database, record.id));
    FS_ASSIGN(report.job, impl_->open_scrub(record.id));
    return report;
}

// ---- when

void Vault::Impl::tend_scrub(Vault& vault, ItemRuntime& item, const ItemRecord& record) {
    if (fenced || record.state == ItemState::kDisabling) return;
    const auto tend = [&]() -> Status {
        const int64_t steady_us = clock.steady_us();
        FS_ASSIGN(const auto rows, damage(item));
        if (!rows.empty()) {
            const bool newest = std::ranges::any_of(rows, &DamageRecord::newest);
            const bool recheck = steady_us - item.damage_recheck_us >= kRecheckUs;
            if (recheck || (newest && steady_us - item.damage_weigh_us >= kWeighUs)) {
                item.damage_weigh_us = steady_us;
                if (recheck) item.damage_recheck_us = steady_us;
                weigh_soon(vault, record, recheck);
            }
        }
        // Looked at once a minute: the row is read then.
        if (record.policy.scrub_interval_s == 0 || steady_us < item.scrub_look_us) return {};
        item.scrub_look_us = steady_us + 60'000'000;
        FS_ASSIGN(const ScrubRecord scrub, get_scrub(*database, record.id));
        const int64_t interval_us = int64_t{record.policy.scrub_interval_s} * 1'000'000;
        const bool failed = scrub.error && scrub.error->code != Code::kCancelled;
        const int64_t since_us =
            clock.now().us - std::max({scrub.finished, scrub.ended, record.created}).us;
        if (since_us < (failed ? std::min(interval_us, kScrubAgainUs) : interval_us)) return {};
        // By the policy one runs at a time: whose last one is oldest comes first by being due
        // first.
        FS_ASSIGN(const auto jobs, open_jobs(*database));
        for (const JobRecord& job : jobs)
            if (job.kind == kKind) return {};
        FS_TRY(vault.scrub(record.id.to_string()));
        return {};
    };
    if (const Status tended = tend(); !tended)
        log::warn("vault", about(record, tended.error()), "the scrub of '{}': {}", record.name,
                  tended.error().to_string());
}

// On a thread of its own: it reads the log's indexes.
void Vault::Impl::weigh_soon(Vault& vault, const ItemRecord& record, bool recheck) {
    const std::lock_guard hold(scrub_mutex);
    if (ending || weighing.contains(record.id)) return;
    weighing.insert(record.id);
    if (!weigher) weigher = std::make_unique<ThreadExecutor>("fs-vault-weigh");
    weigher->post([this, &vault, record, recheck] {
        const auto work = [&]() -> Status {
            FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(record.id));
            if (recheck) FS_TRY(recheck_damage(vault, *item, record));
            return weigh_damage(vault, *item, record, {});
        };
        if (const Status done = work(); !done && !ending)
            log::warn("vault", about(record, done.error()), "the damage of '{}': {}", record.name,
                      done.error().to_string());
        const std::lock_guard again(scrub_mutex);
        weighing.erase(record.id);
    });
}

}  // namespace farshore
