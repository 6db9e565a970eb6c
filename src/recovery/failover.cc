#include "recovery/failover.h"

#include <fmt/core.h>

#include <algorithm>

#include "capture/tap_config.h"
#include "compute/cloud_seed.h"
#include "compute/nbd_server.h"
#include "os/real.h"
#include "os/remove_directory.h"
#include "os/waiting.h"
#include "recovery/recovery_entry.h"

namespace farshore {
namespace {

constexpr int kFirstReadPollMs = 5;

bool is_unknown(const Result<std::shared_ptr<RecoveryCompute>>& host) {
    return !host && host.error().code() == Code::kNotFound;
}

}  // namespace

Recoveries::Recoveries(RecoveryOptions options)
    : options_(std::move(options)),
      here_(std::make_shared<QemuCompute>(
          *options_.files, options_.state_root + "/accelerator.json", options_.accelerator)) {
    FS_CHECK(options_.files != nullptr && options_.clock != nullptr);
}
Recoveries::~Recoveries() = default;

std::string Recoveries::state_directory(const std::string& id) const {
    return options_.state_root + "/" + id;
}
std::string Recoveries::run_directory(const std::string& id) const {
    return options_.run_root + "/" + id;
}
std::string Recoveries::nbd_socket(const RecoveryState& state) const {
    return state.kind == RecoveryKind::kExport ? state.export_socket
                                               : run_directory(state.id) + "/nbd.sock";
}

// ---- the table of entries --------------------------------------------------------------------

Result<Recoveries::EntryPtr> Recoveries::find(const std::string& id) {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(id);
    if (at == entries_.end())
        return fail(Code::kNotFound, fmt::format("there is no recovery '{}'", id.substr(0, 64)));
    return at->second;
}

Result<Recoveries::EntryPtr> Recoveries::add(RecoveryState state) {
    const std::lock_guard lock(mutex_);
    if (entries_.contains(state.id))
        return fail(Code::kAlreadyExists,
                    fmt::format("there is a recovery '{}' already", state.id));
    if (entries_.size() >= kMaxRecoveries)
        return fail(Code::kLimitReached, fmt::format("{} recoveries run already", kMaxRecoveries),
                    "clean some of them up");
    auto entry = std::make_shared<Entry>();
    const std::string id = state.id;
    entry->seen = state;
    entry->state = std::move(state);
    entries_.emplace(id, entry);
    return entry;
}

void Recoveries::forget(const std::string& id) {
    const std::lock_guard lock(mutex_);
    entries_.erase(id);
}

Result<RecoveryState> Recoveries::get(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->seen_mutex);
    return entry->seen;
}

std::vector<RecoveryState> Recoveries::list() {
    std::vector<EntryPtr> entries;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, entry] : entries_) entries.push_back(entry);
    }
    std::vector<RecoveryState> states;
    for (const EntryPtr& entry : entries) {
        const std::lock_guard lock(entry->seen_mutex);
        states.push_back(entry->seen);
    }
    return states;
}

Result<RecoveryAccess> Recoveries::access(const std::string& id) {
    FS_ASSIGN(const RecoveryState state, get(id));
    RecoveryAccess access;
    access.nbd_socket = nbd_socket(state);
    if (has_machine(state)) {
        FS_ASSIGN(const auto compute, compute_of(state));
        access.doors = compute->doors(place_of(state));
    }
    return access;
}

// ---- steps -----------------------------------------------------------------------------------

Status Recoveries::save(Entry& entry) {
    const std::string json = encode_recovery_state(entry.state);
    FS_TRY(write_file_durably(*options_.files, state_directory(entry.state.id) + "/recovery.json",
                              as_bytes(json)));
    tell(entry);
    return {};
}

void Recoveries::tell(Entry& entry) {
    {
        const std::lock_guard lock(entry.seen_mutex);
        entry.seen = entry.state;
    }
    if (options_.on_change) options_.on_change(entry.state);
}

// Renews the lease on the state's point, or takes one.
Status Recoveries::take_lease(Entry& entry) {
    RecoveryState& state = entry.state;
    if (state.hydrated) return {};
    if (state.lease != 0) {
        const Status renewed =
            options_.leases.renew(state.item, state.copy, state.lease, options_.lease_us);
        if (renewed) entry.lease_renewed_us = options_.clock->steady_us();
        if (renewed || renewed.error().code() != Code::kNotFound) return renewed;
    }
    const std::string holder = fmt::format("{} {}", recovery_kind_name(state.kind), state.id);
    FS_ASSIGN(state.lease, options_.leases.take(state.item, state.copy, state.sequence, holder,
                                                options_.lease_us));
    entry.lease_renewed_us = options_.clock->steady_us();
    return save(entry);
}

MachinePlace Recoveries::place_of(const RecoveryState& state) const {
    return {state.id, run_directory(state.id), state_directory(state.id)};
}

Result<std::shared_ptr<RecoveryCompute>> Recoveries::compute_named(const std::string& compute) {
    if (compute.empty()) return here_;
    if (!options_.compute)
        return fail(Code::kNotFound, fmt::format("there is no compute host '{}'", compute));
    return options_.compute(compute);
}

Result<std::shared_ptr<RecoveryCompute>> Recoveries::compute_of(const RecoveryState& state) {
    FS_ASSIGN(auto compute, compute_named(state.compute));
    // Asking another place would find that nothing runs.
    if (!state.compute_where.empty() && compute->where() != state.compute_where)
        return fail(Code::kWrongState,
                    fmt::format("compute host '{}' is another one now than that on which {} was "
                                "started ({})",
                                state.compute, state.id, state.compute_where),
                    "set it as it was until nothing runs there any more");
    return compute;
}

Status Recoveries::clean_up_machine(const RecoveryState& state) {
    FS_ASSIGN(const auto compute, compute_of(state));
    return compute->clean_up(place_of(state));
}

Status Recoveries::choose_accelerator(Entry& entry) {
    FS_ASSIGN(const auto compute, compute_of(entry.state));
    FS_ASSIGN(const AcceleratorVerdict verdict, compute->accelerator());
    entry.state.accelerator = verdict.accelerator;
    entry.state.on_trial = verdict.on_trial;
    entry.state.accelerator_words = verdict.words;
    entry.trial = TrialWatch();
    return {};
}

Result<TapConfig> Recoveries::disk_config(const RecoveryState& state) {
    TapConfig config;
    config.mode = ServeMode::kPlain;
    if (state.hydrated) {
        for (const MachineDisk& disk : state.machine.disks) {
            if (is_own(state, disk.index)) continue;
            ServedDisk own;
            own.index = disk.index;
            own.path = overlay_path(state_directory(state.id), disk.index);
            config.disks.push_back(std::move(own));
        }
        return config;
    }
    config.replica.emplace();
    StorePlace place{options_.store_location, options_.store_settings_file};
    if (!state.copy.empty()) {
        if (!options_.copy_place) return fail(Code::kNotFound, "there are no copies here");
        FS_ASSIGN(place, options_.copy_place(state.copy));
    }
    config.replica->store_location = place.location;
    config.replica->store_settings_file = place.settings_file;
    config.replica->item = state.item;
    FS_ASSIGN(config.replica->item_key, options_.item_key(state.item));
    config.replica->sequence = state.sequence;
    config.replica->cache_bytes = options_.replica_cache_bytes;
    const auto serve = [&](DiskIndex index, bool read_only) {
        ServedDisk disk;
        disk.index = disk.replica_disk = index;
        disk.backing = BackingKind::kReplica;
        disk.read_only = read_only;
        if (!read_only) disk.overlay_path = overlay_path(state_directory(state.id), index);
        config.disks.push_back(std::move(disk));
    };
    if (has_machine(state))
        for (const MachineDisk& disk : state.machine.disks) {
            if (!is_own(state, disk.index)) serve(disk.index, false);
        }
    else
        serve(state.export_disk, true);
    return config;
}

// What cloud-init inside reads, beside the machine's own disks.
Result<ServedDisk> Recoveries::make_seed(const RecoveryState& state) {
    FS_ASSIGN(const MachineDisk disk, seed_disk(state.machine));
    ServedDisk served;
    served.index = disk.index;
    served.path = state_directory(state.id) + "/seed.iso";
    served.read_only = true;
    // Its content never changes, and a machine that runs may be reading it.
    FS_ASSIGN(const bool there, options_.files->exists(served.path));
    if (there) return served;
    std::vector<SeedCard> cards;
    for (const auto& [nic, address] : state.addresses)
        if (address.by == AddressBy::kCloudInit && nic < state.machine.nics.size())
            cards.push_back({state.machine.nics[nic].mac, address});
    FS_ASSIGN(const SeedFiles files, seed_files(cards));
    FS_TRY(make_seed_image(files, served.path, run_directory(state.id) + "/seed"));
    return served;
}

Status Recoveries::start_disks(Entry& entry) {
    const RecoveryState& state = entry.state;
    if (!needs_server(state)) return {};
    FS_ASSIGN(TapConfig config, disk_config(state));
    // It may have been on a file system that is empty after a restart of the host.
    FS_TRY(options_.files->make_directories(run_directory(state.id)));
    if (has_seed(state)) {
        FS_ASSIGN(ServedDisk seed, make_seed(state));
        config.disks.push_back(std::move(seed));
    }
    NbdServerOptions options;
    options.run_directory = run_directory(state.id);
    options.socket_path = nbd_socket(state);
    options.read_only = !has_machine(state);
    options.config_json = encode_tap_config(config);
    options.plugin = options_.plugin;
    if (options.plugin.empty()) {
        FS_ASSIGN(options.plugin, find_plugin());
    }
    FS_ASSIGN(entry.disks, NbdServer::start(options));
    return {};
}

Result<MachineOrder> Recoveries::order_of(const RecoveryState& state, bool with_seed) {
    MachineOrder order;
    order.place = place_of(state);
    order.title = state.item_name;
    order.machine = state.machine;
    for (const MachineDisk& disk : state.machine.disks) {
        DiskSource source{.socket_path = nbd_socket(state),
                          .export_name = sole_export_name(disk.index)};
        if (is_own(state, disk.index))
            source.file = DiskFile{state.own.at(disk.index).path, state.own_format};
        order.disks.push_back(std::move(source));
    }
    // A captured machine's disks are its tap's, and it has read its seed long ago.
    if (with_seed && has_seed(state) && !state.captured) {
        FS_ASSIGN(MachineDisk seed, seed_disk(state.machine));
        order.disks.push_back({.socket_path = nbd_socket(state),
                               .export_name = std::to_string(seed.index),
                               .spare = true});
        order.machine.disks.push_back(std::move(seed));
    }
    for (size_t i = 0; i < state.machine.nics.size(); ++i)
        order.networks.push_back(network_of(state, i));
    order.addresses = state.addresses;
    order.segment_scope =
        options_.segment_scope.empty() ? options_.state_root : options_.segment_scope;
    order.accelerator = state.accelerator;
    order.whole_serial = state.kind == RecoveryKind::kTest;  // a real one is in a hurry
    return order;
}

Status Recoveries::start_machine(Entry& entry) {
    drop_unfinished(entry);
    const RecoveryState& state = entry.state;
    FS_ASSIGN(const auto compute, compute_of(state));
    FS_ASSIGN(MachineOrder order, order_of(state));
    entry.machine_started_us = options_.clock->steady_us();
    // The caller saves it.
    entry.state.address_stage =
        has_address_by(state, AddressBy::kAgent) ? AddressStage::kWaiting : AddressStage::kNone;
    entry.state.address_words.clear();
    auto machine = compute->start(order);
    if (!machine && state.accelerator == Accelerator::kKvm && state.on_trial) {
        // KVM that does not even start QEMU: say so, and emulate.
        entry.state.accelerator_words = fmt::format(
            "KVM does not work here ({}); the machine is emulated", machine.error().what());
        entry.state.accelerator = order.accelerator = Accelerator::kTcg;
        entry.state.on_trial = false;
        machine = compute->start(order);
        if (machine)
            (void)remember_accelerator(*options_.files, options_.state_root + "/accelerator.json",
                                       Accelerator::kTcg, entry.state.accelerator_words);
    }
    FS_ASSIGN(entry.machine, std::move(machine));
    return {};
}

void Recoveries::await_first_read(Entry& entry, int64_t requested_us) {
    wait_until(options_.first_read_timeout_ms, kFirstReadPollMs, [&] {
        const auto activity = entry.machine->activity();
        if (!activity) return !entry.machine->alive();
        if (activity->read_operations == 0) return false;
        entry.state.timings.first_read_ms = (options_.clock->steady_us() - requested_us) / 1000;
        return true;
    });
}

// From a held lease to something that runs.
Status Recoveries::bring_up(Entry& entry, int64_t requested_us) {
    RecoveryState& state = entry.state;
    const auto elapsed_ms = [&] { return (options_.clock->steady_us() - requested_us) / 1000; };
    state.boot = this_boot();
    state.error.reset();
    FS_TRY(options_.files->make_directories(run_directory(state.id)));
    state.stage = RecoveryStage::kStartingDisks;
    FS_TRY(save(entry));
    FS_TRY(start_disks(entry));
    state.timings.disks_ready_ms = elapsed_ms();
    if (has_machine(state)) {
        state.stage = RecoveryStage::kStartingMachine;
        state.tried = true;
        FS_TRY(save(entry));
        FS_TRY(start_machine(entry));
        state.timings.machine_started_ms = elapsed_ms();
        await_first_read(entry, requested_us);
    }
    state.stage = RecoveryStage::kRunning;
    return save(entry);
}

// Ends what runs, known or not; overlays stay.
Status Recoveries::end_processes(Entry& entry) {
    const std::string run = run_directory(entry.state.id);
    entry.machine.reset();
    if (entry.state.let_go) {
        entry.disks.reset();
        return NbdServer::clean_up(run, nbd_socket(entry.state));
    }
    // A host on which nothing was tried need not be there; nor one that was forgotten although
    // something was left there.
    const bool left = entry.state.stage == RecoveryStage::kCleaning && !entry.state.compute.empty();
    const bool forgotten = left && is_unknown(compute_named(entry.state.compute));
    const bool nothing = !entry.state.compute.empty() && (!entry.state.tried || forgotten);
    const Status machine = nothing ? Status() : clean_up_machine(entry.state);
    if (machine) drop_unfinished(entry);
    // One at a host that cannot be reached has no disks from now on, whatever it does.
    if (!machine && entry.state.compute.empty()) return machine;
    entry.disks.reset();
    // A tap that serves its disks is its owner's, who ends it once the item is gone.
    if (entry.state.captured && entry.state.stage != RecoveryStage::kCleaning) return machine;
    FS_TRY(NbdServer::clean_up(run, nbd_socket(entry.state)));
    return machine;
}

Status Recoveries::remove_overlays(const Entry& entry) {
    const std::string directory = state_directory(entry.state.id);
    const auto names = options_.files->list(directory);
    if (!names) return fail(names.error());
    for (const std::string& name : *names)
        if (name.starts_with("disk-"))
            FS_TRY(remove_if_there(*options_.files, directory + "/" + name));
    return {};
}

Status Recoveries::remove_everything(Entry& entry) {
    RecoveryState& state = entry.state;
    state.stage = RecoveryStage::kCleaning;
    FS_TRY(save(entry));
    FS_TRY(end_processes(entry));
    FS_TRY(remove_overlays(entry));
    // What is there is the machine's, if that is let go of.
    if (!state.let_go || !state.compute.empty())
        FS_TRY(remove_directory(*options_.files, run_directory(state.id)));
    FS_TRY(release_leases(options_.leases, state));
    // The state goes last: until then a crash is followed by another clean-up.
    FS_TRY(remove_directory(*options_.files, state_directory(state.id)));
    FS_TRY(options_.files->sync_directory(options_.state_root));
    entry.forgotten = true;
    state.stage = RecoveryStage::kGone;
    tell(entry);
    forget(state.id);
    return {};
}

// Leaves the recovery as failed, with nothing running; gives back the error that was.
Status Recoveries::fail_entry(Entry& entry, const Error& error) {
    const Status ended = end_processes(entry);
    entry.state.stage = RecoveryStage::kFailed;
    entry.state.error = describe(ended ? error : ended.error().with_context(error.what()));
    FS_TRY(save(entry));
    return fail(error);
}

// ---- use cases -------------------------------------------------------------------------------

void Recoveries::prepare() {
    (void)options_.files->make_directories(options_.state_root);
    (void)probe_accelerator(*options_.files,
                            {.state_path = options_.state_root + "/accelerator.json",
                             .configured = options_.accelerator});
}

Result<RecoveryState> Recoveries::begin(RecoveryState state) {
    const int64_t requested_us = options_.clock->steady_us();
    state.timings.requested = options_.clock->now();
    if (!valid_id(state.id))
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not an id of a recovery", state.id.substr(0, 64)));
    FS_ASSIGN(const EntryPtr entry, add(std::move(state)));
    const std::lock_guard lock(entry->mutex);
    const auto run = [&]() -> Status {
        FS_TRY(options_.files->make_directories(state_directory(entry->state.id)));
        FS_TRY(save(*entry));
        FS_TRY(take_lease(*entry));
        if (has_machine(entry->state)) FS_TRY(choose_accelerator(*entry));
        return bring_up(*entry, requested_us);
    };
    const Status done = run();
    if (done) return entry->state;
    Error error = done.error();
    if (const Status removed = remove_everything(*entry); !removed) {
        entry->state.error = describe(error);
        return fail(error.with_context(
            "(what it left could not be removed: " + removed.error().what() + ")"));
    }
    return fail(std::move(error));
}

Result<RecoveryState> Recoveries::start(const RecoveryRequest& request) {
    if (request.kind == RecoveryKind::kExport)
        return fail(Code::kInvalidArgument, "an export has no machine to start");
    if (request.machine.disks.empty())
        return fail(Code::kInvalidArgument, "the machine's description has no disks",
                    "wait until the agent has described the machine");
    RecoveryState state;
    state.id = request.id;
    state.kind = request.kind;
    state.item = request.item;
    state.item_name = request.item_name;
    state.compute = request.compute;
    FS_ASSIGN(const auto compute, compute_named(request.compute));
    state.compute_where = compute->where();
    state.copy = request.copy;
    state.note = request.note;
    state.undecided = request.undecided;
    state.decide_at = {options_.clock->now().us + int64_t{request.undecided_s} * 1'000'000};
    state.sequence = request.sequence;
    state.point_time = request.point_time;
    state.machine = request.machine;
    apply_overrides(state.machine, request.overrides);
    state.network = request.network;
    state.networks = request.networks;
    state.addresses = request.addresses;
    // One that the source's hypervisor gave by itself: QEMU would give it to every machine.
    for (size_t i = 0; i < state.machine.nics.size(); ++i)
        if (std::string& mac = state.machine.nics[i].mac; mac.empty())
            mac = mac_from(fmt::format("{} {}", state.item.to_string(), i));
    return begin(std::move(state));
}

Result<RecoveryState> Recoveries::start_export(const ExportRequest& request) {
    if (request.socket_path.empty() || !request.socket_path.starts_with('/'))
        return fail(Code::kInvalidArgument, "the socket of an export needs an absolute path");
    RecoveryState state;
    state.id = request.id;
    state.kind = RecoveryKind::kExport;
    state.item = request.item;
    state.item_name = request.item_name;
    state.copy = request.copy;
    state.sequence = request.sequence;
    state.point_time = request.point_time;
    state.export_disk = request.disk;
    state.export_socket = request.socket_path;
    FS_ASSIGN(const bool there, options_.files->exists(request.socket_path));
    if (there)
        return fail(Code::kAlreadyExists, fmt::format("{} is there already", request.socket_path),
                    "choose another path, or remove it");
    return begin(std::move(state));
}

namespace {

// The machine's disks at another point: as it has them now, with the other point's sizes.
std::vector<MachineDisk> disks_at_point(const std::vector<MachineDisk>& now,
                                        std::vector<MachineDisk> wanted) {
    for (MachineDisk& disk : wanted)
        for (const MachineDisk& known : now)
            if (known.index == disk.index) {
                const uint64_t size_bytes = disk.size_bytes;
                disk = known;
                disk.size_bytes = size_bytes;
            }
    return wanted;
}

}  // namespace

Result<RecoveryState> Recoveries::change_point(const std::string& id, Sequence sequence,
                                               TimePoint point_time,
                                               const std::vector<MachineDisk>& disks) {
    const int64_t requested_us = options_.clock->steady_us();
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (state.kind != RecoveryKind::kFailover)
        return fail(Code::kWrongState,
                    fmt::format("recovery '{}' is a {}: only a failover changes its point", id,
                                recovery_kind_name(state.kind)));
    if (state.committed)
        return fail(Code::kWrongState, "the failover is committed: its point is final");
    if (state.stage != RecoveryStage::kRunning && state.stage != RecoveryStage::kStopped &&
        state.stage != RecoveryStage::kFailed)
        return fail(Code::kWrongState,
                    fmt::format("the failover is {}: its point can be changed when it "
                                "is running, stopped or failed",
                                recovery_stage_name(state.stage)));
    const std::string holder = fmt::format("{} {}", recovery_kind_name(state.kind), id);
    FS_ASSIGN(const uint64_t lease,
              options_.leases.take(state.item, state.copy, sequence, holder, options_.lease_us));
    state.old_lease = state.lease;
    state.lease = lease;
    entry->lease_renewed_us = requested_us;
    state.sequence = sequence;
    state.point_time = point_time;
    if (!disks.empty()) state.machine.disks = disks_at_point(state.machine.disks, disks);
    state.stage = RecoveryStage::kChangingPoint;
    state.timings = {};
    state.timings.requested = options_.clock->now();
    const auto run = [&]() -> Status {
        FS_TRY(save(*entry));
        FS_TRY(end_processes(*entry));
        FS_TRY(remove_overlays(*entry));
        if (state.old_lease != 0)
            FS_TRY(options_.leases.release(state.item, state.copy, state.old_lease));
        state.old_lease = 0;
        FS_TRY(choose_accelerator(*entry));
        return bring_up(*entry, requested_us);
    };
    if (const Status done = run(); !done) {
        FS_TRY(fail_entry(*entry, done.error()));
    }
    return state;
}

Status Recoveries::commit(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (state.kind != RecoveryKind::kFailover)
        return fail(Code::kWrongState,
                    fmt::format("recovery '{}' is a {}: only a failover can be committed", id,
                                recovery_kind_name(state.kind)));
    if (state.committed) return {};
    if (state.stage != RecoveryStage::kRunning && state.stage != RecoveryStage::kStopped)
        return fail(
            Code::kWrongState,
            fmt::format("the failover is {}: it can be committed when it is running or stopped",
                        recovery_stage_name(state.stage)));
    state.committed = true;
    const Status saved = save(*entry);
    if (!saved) state.committed = false;
    return saved;
}

Result<std::vector<Recoveries::FillableDisk>> Recoveries::disks_to_fill(const std::string& id) {
    FS_ASSIGN(const RecoveryState state, get(id));
    const bool there =
        state.stage == RecoveryStage::kRunning || state.stage == RecoveryStage::kStopped;
    if (state.kind != RecoveryKind::kFailover || !state.committed || !there)
        return fail(Code::kWrongState,
                    fmt::format("the {} is {}{}: disks are hydrated of a failover that is "
                                "committed, and running or stopped",
                                recovery_kind_name(state.kind), recovery_stage_name(state.stage),
                                state.committed ? "" : " and not committed"));
    std::vector<FillableDisk> disks;
    if (state.hydrated) return disks;
    for (const MachineDisk& disk : state.machine.disks)
        if (!is_own(state, disk.index))
            disks.push_back({disk.index, disk.size_bytes,
                             fmt::format("nbd+unix:///{}?socket={}", disk.index, nbd_socket(state)),
                             overlay_path(state_directory(id), disk.index)});
    return disks;
}

Status Recoveries::note_hydrated(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (!state.hydrated) {
        state.hydrated = true;
        if (Status saved = save(*entry); !saved) {
            state.hydrated = false;
            return saved;
        }
    }
    // Only now: until then the next vault reads from the replica.
    FS_TRY(release_leases(options_.leases, state));
    return save(*entry);
}

Status Recoveries::keep_open(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (state.kind != RecoveryKind::kFailover || state.committed)
        return fail(Code::kWrongState, fmt::format("recovery '{}' waits for no decision", id));
    const Undecided before = std::exchange(state.undecided, Undecided::kWaits);
    if (before == Undecided::kWaits) return {};
    Status saved = save(*entry);
    if (!saved) state.undecided = before;
    return saved;
}

Status Recoveries::note_addresses(const std::string& id, AddressStage stage,
                                  const std::string& words) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten || state.stage != RecoveryStage::kRunning ||
        state.address_stage != AddressStage::kWaiting)
        return {};
    state.address_stage = stage;
    state.address_words = words;
    return save(*entry);
}

Status Recoveries::clean_up(const std::string& id, CleanUp how) {
    auto entry = find(id);
    if (!entry) return {};
    const std::lock_guard lock((*entry)->mutex);
    if ((*entry)->forgotten) return {};
    if ((*entry)->state.committed && how != CleanUp::kRemoveCommitted)
        return fail(Code::kWrongState, "the failover is committed: the machine lives here now",
                    "to give the machine up, unprotect it");
    return remove_everything(**entry);
}

Status Recoveries::with_machine(const std::string& id,
                                const std::function<Status(RecoveryMachine&)>& use) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (entry->state.stage != RecoveryStage::kRunning || !entry->machine)
        return fail(Code::kWrongState, fmt::format("the machine of recovery '{}' is {}", id,
                                                   recovery_stage_name(entry->state.stage)));
    return use(*entry->machine);
}

Result<GuestAgent> Recoveries::guest_agent(const std::string& id, int timeout_ms) {
    FS_ASSIGN(const RecoveryState state, get(id));
    FS_ASSIGN(const auto compute, compute_of(state));
    return compute->guest_agent(place_of(state), timeout_ms);
}

}  // namespace farshore
