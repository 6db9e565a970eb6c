// Seeds: the beginning of a replica that is at the recovery site already (seed_import.h), from the
// wish to the moment when what differs may travel.
#include <fmt/core.h>

#include <algorithm>

#include "block/file_device.h"
#include "block/nbd_device.h"
#include "block/replica_device.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "os/real.h"
#include "vault/seed_import.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr std::string_view kItemPrefix = "item:";
constexpr const char* kJobKind = "seed";
constexpr int64_t kPointLeaseUs = 3600ll * 1'000'000;
// More of the samples than this, and somebody is asked whether the seed is the right one.
constexpr uint64_t kLargeDifferencePercent = 30;

// Images that are no raw ones, by how they begin.
struct Magic {
    std::string_view bytes;
    const char* format;
};
constexpr Magic kMagics[] = {{std::string_view("QFI\xfb", 4), "qcow2"},
                             {"vhdxfile", "VHDX"},
                             {"KDMV", "VMDK"},
                             {"conectix", "VHD"}};

Status check_raw(BlockDevice& device, const std::string& source) {
    Bytes head(std::min<uint64_t>(8, device.size_bytes()));
    FS_TRY(device.read(0, head));
    for (const Magic& magic : kMagics)
        if (as_text(head).starts_with(magic.bytes))
            return fail(Code::kUnsupported,
                        fmt::format("'{}' is a {} image, not a raw one", source, magic.format),
                        "serve it (`qemu-nbd --read-only --socket PATH IMAGE`), and give "
                        "nbd+unix:///?socket=PATH as the seed");
    return {};
}

}  // namespace

Status check_seeds(const std::vector<std::string>& seeds, size_t disks) {
    for (const std::string& seed : seeds) {
        const bool item = seed.starts_with(kItemPrefix);
        if (item && seeds.size() > 1)
            return fail(Code::kInvalidArgument,
                        "a point of another item is the seed of all disks: there can be no other");
        if (seed.size() > kMaxPathBytes ||
            (!item && !seed.empty() && seed[0] != '/' && !seed.starts_with("nbd")))
            return fail(Code::kInvalidArgument, fmt::format("'{}' is no seed", seed.substr(0, 200)),
                        "give an absolute path at the vault, an NBD URI, or item:NAME@POINT");
    }
    // A running machine's disks are not known yet.
    if (disks != 0 && seeds.size() > disks)
        return fail(Code::kInvalidArgument,
                    fmt::format("{} seeds for {} disks", seeds.size(), disks));
    return {};
}

// ---- the import
// ----------------------------------------------------------------------------------

Result<std::vector<SeedDisk>> Vault::Impl::open_seed(const ItemRecord& record,
                                                     const SeedRecord& seed, PointLease& lease) {
    std::vector<SeedDisk> disks;
    std::shared_ptr<ReplicaReader> reader;
    if (!seed.sources.empty() && seed.sources.front().starts_with(kItemPrefix)) {
        const std::string text = seed.sources.front().substr(kItemPrefix.size());
        const size_t at = text.find('@');
        FS_ASSIGN(const ItemRecord other, find_item(*database, text.substr(0, at)));
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> runtime_of, runtime(other.id));
        FS_ASSIGN(const ResolvedPoint point,
                  runtime_of->replica->resolve(
                      PointSpec::parse(at == std::string::npos ? "latest" : text.substr(at + 1))));
        FS_ASSIGN(const LeaseRow row, runtime_of->replica->lease(
                                          point.sequence, "seed of " + record.name, kPointLeaseUs));
        lease =
            PointLease(std::shared_ptr<ItemReplica>(runtime_of, runtime_of->replica.get()), row.id);
        FS_ASSIGN(reader, ReplicaReader::open(*store, other.id, runtime_of->key, point.sequence));
    }
    for (size_t i = 0; i < record.disks.size(); ++i) {
        const DesiredDisk& wanted = record.disks[i];
        if (wanted.removed || wanted.joining) continue;
        SeedDisk disk;
        disk.disk = wanted.index;
        disk.size_bytes = wanted.size_bytes;
        if (reader) {
            auto replica_disk = reader->disk(wanted.index);
            if (!replica_disk && replica_disk.error().code() == Code::kNotFound) continue;
            if (!replica_disk) return fail(replica_disk.error());
            disk.device = make_replica_device(std::move(*replica_disk));
        } else {
            if (i >= seed.sources.size() || seed.sources[i].empty()) continue;
            const std::string& source = seed.sources[i];
            if (source[0] == '/') {
                FS_ASSIGN(disk.device, open_file_device(source, {.read_only = true}));
                FS_TRY(check_raw(*disk.device, source));
            } else {
                FS_ASSIGN(disk.device, open_nbd_device({.uri = source}));
            }
        }
        disks.push_back(std::move(disk));
    }
    if (disks.empty())
        return fail(Code::kNotFound, "the seed has none of the machine's disks",
                    "name an image for one of them, or go on without (`farshore seed skip`)");
    return disks;
}

Result<std::string> Vault::Impl::import_seed_of(JobRun& run, const ItemId& id,
                                                const std::string& input) {
    const auto work = [&]() -> Result<uint64_t> {
        FS_ASSIGN(const ItemRecord record, get_item(*database, id));
        FS_ASSIGN(const SeedRecord seed, seed_of(id));
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(id));
        FS_TRY(ensure_item_object(*item, record));
        PointLease lease;
        SeedImport import;
        FS_ASSIGN(import.disks, open_seed(record, seed, lease));
        import.store = store.get();
        import.replica = item->replica.get();
        import.clock = &clock;
        import.random = &random;
        import.item_key = item->key;
        const Json from = Json::parse(input, nullptr, false);
        if (from.is_object() && from.contains("disk") && from["disk"].is_number_unsigned() &&
            from.contains("offset") && from["offset"].is_number_unsigned())
            import.from = {from["disk"].get<size_t>(), from["offset"].get<uint64_t>()};
        import.report = [&](const SeedPosition& at, uint64_t done, uint64_t total)
                            ->Status {
                                FS_TRY(lease.renew(kPointLeaseUs));
        FS_TRY(run.save(
            dump_json({{"item", id.to_string()}, {"disk", at.disk}, {"offset", at.offset_bytes}})));
        return run.report(
            static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(total, 1)),
            "reading the seed");
    };
    auto imported = import_seed(import);
    // The agent begins behind it.
    const std::lock_guard hold(item->mutex);
    item->status_stale = true;
    return imported;
};
const auto imported = work();
if (run.vault_ends()) return fail(Code::kCancelled, "the vault ends");
FS_TRY(change_seed(id, [&](SeedRecord& seed) -> Status {
    seed.state = imported ? SeedState::kComparing : SeedState::kFailed;
    seed.error.reset();
    if (!imported) {
        const Error& error = imported.error();
        seed.error =
            ItemError{error.code(), "the seed was not read: " + error.what(),
                      (error.remedy().empty() ? std::string() : error.remedy() + "; then ") +
                          "`farshore seed retry`, or `farshore seed skip` to go on without it"};
    }
    return {};
}));
notify();
if (!imported) return fail(imported.error());
return fmt::format("{{\"imported_bytes\":{}}}", *imported);
}

JobWork Vault::Impl::seed_work(const JobRecord& job) {
    const Json input = Json::parse(job.input, nullptr, false);
    const std::string text =
        input.is_object() && input.contains("item") && input["item"].is_string()
            ? input["item"].get<std::string>()
            : "";
    const auto id = ItemId::parse(text);
    return [this, id, input = job.input](JobRun& run) -> Result<std::string> {
        if (!id) return fail(id.error());
        return import_seed_of(run, *id, input);
    };
}

// ---- what happens when
// ---------------------------------------------------------------------------

// One step, if it is time for one. What an agent is told of the seed is seed_orders().
Status Vault::Impl::tend_seed(Vault& vault, ItemRuntime& item, const ItemRecord& record) {
    if (record.state != ItemState::kEnabling && record.state != ItemState::kInitialReplication)
        return {};
    FS_ASSIGN(const SeedRecord seed, seed_of(record.id));
    if (seed.state == SeedState::kWaiting) {
        const bool described = !record.machine.empty() && !record.disks.empty() &&
                               std::ranges::all_of(record.disks, [](const DesiredDisk& disk) {
                                   return disk.removed || disk.joining || disk.size_bytes != 0;
                               });
        if (!described) return {};
        FS_TRY(change_seed(record.id, [](SeedRecord& to) -> Status {
            to.state = SeedState::kImporting;
            to.error.reset();
            return {};
        }));
        const std::string input = dump_json({{"item", record.id.to_string()}});
        JobRecord job;
        job.input = input;
        auto started = vault.start_job(kJobKind, record, false, input, seed_work(job));
        if (!started)
            FS_TRY(change_seed(record.id, [](SeedRecord& to) -> Status {
                to.state = SeedState::kWaiting;
                return {};
            }));
        FS_TRY(started);
        return {};
    }
    if (seed.state == SeedState::kImporting) {
        // A vault that died between the two steps above has no job for it.
        FS_ASSIGN(const auto jobs, list_jobs(*database, 0, 20, record.id));
        const bool runs = std::ranges::any_of(
            jobs, [](const JobRecord& job) { return job.kind == kJobKind && !job.over(); });
        if (runs) return {};
        FS_TRY(change_seed(record.id, [](SeedRecord& to) -> Status {
            if (to.state == SeedState::kImporting) to.state = SeedState::kWaiting;
            return {};
        }));
        return {};
    }
    if (seed.state != SeedState::kComparing) return {};
    ResyncStatus resync;
    {
        const std::lock_guard hold(item.mutex);
        // An agent that has not begun says nothing yet.
        if (!item.agent || item.agent->state != AgentItemState::kCopying) return {};
        resync = item.agent->resync;
    }
    const bool compares =
        resync.state == ResyncState::kComparing || resync.state == ResyncState::kVerifying;
    if (compares && resync.sampled == 0) return {};
    const bool large =
        !compares || resync.sample_differing * 100 > resync.sampled * kLargeDifferencePercent;
    FS_TRY(change_seed(record.id, [&](SeedRecord& to) -> Status {
        to.state = large ? SeedState::kHeld : SeedState::kDone;
        to.sampled_bytes = resync.sampled;
        to.differing_bytes = resync.sample_differing;
        to.error.reset();
        return {};
    }));
    const std::string words = compares ? fmt::format("{} of {} bytes that were sampled differ",
                                                     resync.sample_differing, resync.sampled)
                                       : "the seed could not be compared";
    vault.event(large ? Severity::kWarning : Severity::kInformation,
                large ? "seed-differs" : "seed-compared", &record,
                large ? words + ": nothing is copied before somebody agrees"
                      : words + ": what differs is sent",
                large ? "look whether it is the right image; `farshore seed accept` sends what "
                        "differs, `farshore unprotect` ends it"
                      : "");
    notify();
    return {};
}

Result<SeedRecord> Vault::Impl::seed_of(const ItemId& id) {
    // One that was set aside has no runtime.
    const auto item = runtime(id);
    if (!item) return get_seed(*database, id);
    uint64_t changes = 0;
    {
        const std::lock_guard hold((*item)->mutex);
        if ((*item)->seed) return *(*item)->seed;
        changes = (*item)->seed_changes;
    }
    FS_ASSIGN(const SeedRecord seed, get_seed(*database, id));
    const std::lock_guard hold((*item)->mutex);
    if (changes == (*item)->seed_changes) (*item)->seed = seed;
    return seed;
}

Result<SeedRecord> Vault::Impl::change_seed(const ItemId& id,
                                            const std::function<Status(SeedRecord&)>& change) {
    auto changed = farshore::change_seed(*database, id, change);
    // Whatever came of it: a commit may have been done although its answer was lost.
    std::shared_ptr<ItemRuntime> item;
    {
        const std::lock_guard hold(mutex);
        if (const auto at = runtimes.find(id); at != runtimes.end()) item = at->second;
    }
    if (item != nullptr) {
        const std::lock_guard hold(item->mutex);
        item->seed.reset();
        ++item->seed_changes;
    }
    return changed;
}

Status Vault::Impl::seed_orders(const ItemRecord& record, DesiredItem& item) {
    if (record.state != ItemState::kEnabling && record.state != ItemState::kInitialReplication)
        return {};
    FS_ASSIGN(const SeedRecord seed, seed_of(record.id));
    switch (seed.state) {
        case SeedState::kWaiting:
        case SeedState::kImporting:
        case SeedState::kFailed:
            item.await_seed = true;
            break;
        case SeedState::kComparing:
        case SeedState::kHeld:
            item.hold_copy = true;
            break;
        case SeedState::kNone:
        case SeedState::kDone:
            break;
    }
    return {};
}

Result<ItemReport> Vault::decide_seed(const std::string& name_or_id, const std::string& action) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (action != "accept" && action != "retry" && action != "skip")
        return fail(Code::kInvalidArgument,
                    fmt::format("the action '{}' cannot be done with a seed", action.substr(0, 40)),
                    "accept, retry or skip");
    FS_TRY(impl_->change_seed(record.id, [&](SeedRecord& seed) -> Status {
        const bool possible = action == "accept"  ? seed.state == SeedState::kHeld
                              : action == "retry" ? seed.state == SeedState::kFailed
                                                  : seed.state == SeedState::kFailed ||
                                                        seed.state == SeedState::kWaiting;
        if (!possible)
            return fail(Code::kWrongState,
                        fmt::format("the seed of '{}' is {}: it is not to {}", record.name,
                                    seed_state_name(seed.state), action),
                        "accept one that is held, retry or skip one that failed");
        seed.state = action == "retry" ? SeedState::kWaiting : SeedState::kDone;
        seed.error.reset();
        return {};
    }));
    event(Severity::kInformation, "seed-changed", &record, "the seed: " + action);
    impl_->notify();
    return impl_->report(record);
}

}  // namespace farshore
