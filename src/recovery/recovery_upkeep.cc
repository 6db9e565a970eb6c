// Recoveries after a restart of the vault, and while they run.
#include <fmt/core.h>

#include "os/real.h"
#include "os/remove_directory.h"
#include "recovery/recovery_entry.h"

namespace farshore {
namespace {

// Its host is away; or has just come back, and a network or a bridge is not there yet.
bool may_come_back(const RecoveryState& state, const Error& error) {
    return !state.compute.empty() &&
           (error.retry() == Retry::kSoon || error.code() == Code::kDependencyMissing);
}

}  // namespace

Status Recoveries::resume() {
    FS_TRY(options_.files->make_directories(options_.state_root));
    FS_TRY(options_.files->make_directories(options_.run_root));
    FS_ASSIGN(const auto names, options_.files->list(options_.state_root));
    // One that cannot be taken up must not keep the others' machines waiting.
    Status first;
    for (const std::string& name : names) {
        if (!name.ends_with('/')) continue;
        const std::string id = name.substr(0, name.size() - 1);
        if (!valid_id(id)) continue;
        if (Status loaded = load_one(id); !loaded && first) first = std::move(loaded);
    }
    // What is on its way first: whoever gets it is taken up like all others then.
    for (const bool moving : {true, false})
        for (const EntryPtr& entry : all_entries()) {
            const std::lock_guard lock(entry->mutex);
            if (!entry->forgotten && (entry->state.stage == RecoveryStage::kMoving) == moving)
                resume_entry(*entry);
        }
    return first;
}

Status Recoveries::load_one(const std::string& id) {
    const auto text = read_whole_file(*options_.files, state_directory(id) + "/recovery.json",
                                      kMaxRecoveryStateBytes);
    if (!text && text.error().code() == Code::kNotFound) {
        // A crash before the first step or after the last: nothing runs, nothing is held.
        FS_TRY(remove_directory(*options_.files, run_directory(id)));
        return remove_directory(*options_.files, state_directory(id));
    }
    FS_TRY(text);
    auto state = decode_recovery_state(as_text(*text));
    // Not ours to throw away: somebody may mend it, or a newer Farshore wrote it.
    if (!state) return fail(state.error().with_context(state_directory(id)));
    if (state->id != id)
        return fail(Code::kMalformed, fmt::format("{} holds the state of '{}'", state_directory(id),
                                                  state->id.substr(0, 64)));
    FS_ASSIGN(const EntryPtr entry, add(std::move(*state)));
    const std::lock_guard lock(entry->mutex);
    entry->unadopted = has_machine(entry->state);
    entry->host_away = !entry->state.compute.empty() && entry->state.error &&
                       entry->state.error->code == Code::kUnavailable;
    return {};
}

void Recoveries::resume_entry(Entry& entry) {
    RecoveryState& state = entry.state;
    const int64_t now_us = options_.clock->steady_us();
    const auto run = [&]() -> Status {
        if (state.stage == RecoveryStage::kCleaning) return remove_everything(entry);
        if (state.stage == RecoveryStage::kMoving) return carry_over(entry);
        if (state.stage == RecoveryStage::kArriving) {
            const auto from = get(state.moved_from);
            if (from && from->stage == RecoveryStage::kMoving) return {};
            return drop_arrival(entry);
        }
        // A guest that is held waits for nothing but this.
        if (state.stage == RecoveryStage::kRunning && !state.own.empty()) {
            FS_TRY(adopt_machine(entry));
            if (entry.machine) finish_switch(entry);
        }
        FS_TRY(take_lease(entry));
        // Its tap's owner starts after us: tend() does the rest.
        if (state.captured) {
            if (state.compute.empty() && state.boot != this_boot() &&
                state.stage == RecoveryStage::kRunning) {
                state.stage = RecoveryStage::kStartingMachine;
                FS_TRY(choose_accelerator(entry));
                return save(entry);
            }
            if (!entry.machine) FS_TRY(adopt_machine(entry));
            // A crash between the note and its end may have left our own server.
            if (auto disks = NbdServer::adopt(run_directory(state.id), nbd_socket(state)))
                FS_TRY(disks->kill());
            tend(entry);
            return {};
        }
        switch (state.stage) {
            case RecoveryStage::kChangingPoint:
                FS_TRY(end_processes(entry));
                FS_TRY(remove_overlays(entry));
                if (state.old_lease != 0)
                    FS_TRY(options_.leases.release(state.item, state.copy, state.old_lease));
                state.old_lease = 0;
                [[fallthrough]];
            case RecoveryStage::kPreparing:
            case RecoveryStage::kStartingDisks:
            case RecoveryStage::kStartingMachine:
                FS_TRY(end_processes(entry));
                if (has_machine(state)) FS_TRY(choose_accelerator(entry));
                return bring_up(entry, now_us);
            case RecoveryStage::kRunning:
            case RecoveryStage::kStopped:
                break;
            default:
                return {};
        }
        const std::string directory = run_directory(state.id);
        if (state.compute.empty() && state.boot != this_boot() &&
            state.stage == RecoveryStage::kRunning) {
            // The host went down under it: the machine starts again on its overlay, as after a
            // power cut. Another host says so itself (MachineState::kLost).
            FS_TRY(end_processes(entry));
            if (has_machine(state)) FS_TRY(choose_accelerator(entry));
            return bring_up(entry, now_us);
        }
        if (auto disks = NbdServer::adopt(directory, nbd_socket(state)))
            entry.disks = std::move(*disks);
        if (has_machine(state) && !entry.machine) FS_TRY(adopt_machine(entry));
        tend(entry);
        return {};
    };
    const Status done = run();
    entry.resume_again =
        !done && may_come_back(state, done.error()) && state.stage != RecoveryStage::kGone;
    if (entry.resume_again) {
        // Its host is away, or nobody knows just now where it is: what runs there is not judged.
        note_host(entry, done);
        return;
    }
    if (!done && state.stage != RecoveryStage::kGone) {
        // What could not be brought up is said in the state; a clean-up is tried again when asked
        // for.
        if (state.stage == RecoveryStage::kCleaning || state.stage == RecoveryStage::kRunning ||
            state.stage == RecoveryStage::kMoving || state.stage == RecoveryStage::kArriving)
            state.error = describe(done.error());
        else
            (void)fail_entry(entry, done.error());
        tell(entry);
    }
}

std::vector<Recoveries::EntryPtr> Recoveries::all_entries() {
    std::vector<EntryPtr> entries;
    const std::lock_guard lock(mutex_);
    for (const auto& [id, entry] : entries_) entries.push_back(entry);
    return entries;
}

void Recoveries::tick() {
    const auto entries = all_entries();
    for (const EntryPtr& entry : entries) {
        // Whoever holds it is at work on it.
        const std::unique_lock lock(entry->mutex, std::try_to_lock);
        if (lock.owns_lock() && !entry->forgotten) renew_lease(*entry);
    }
    for (const EntryPtr& entry : entries) {
        const std::unique_lock lock(entry->mutex, std::try_to_lock);
        if (lock.owns_lock() && !entry->forgotten && entry->state.compute.empty()) tend(*entry);
    }
}

void Recoveries::tick_elsewhere() {
    for (const EntryPtr& entry : all_entries()) {
        const std::unique_lock lock(entry->mutex, std::try_to_lock);
        if (lock.owns_lock() && !entry->forgotten && !entry->state.compute.empty()) tend(*entry);
    }
}

// The point may be lost (an expired lease, a vault that was down for long): the machine reads on as
// long as it can, and the state says what threatens it.
void Recoveries::renew_lease(Entry& entry) {
    RecoveryState& state = entry.state;
    if (state.hydrated || state.stage == RecoveryStage::kCleaning ||
        state.stage == RecoveryStage::kArriving ||
        options_.clock->steady_us() - entry.lease_renewed_us <= options_.lease_us / 3)
        return;
    const Status renewed = take_lease(entry);
    if (!renewed && !state.error) {
        state.error = describe(renewed.error());
        (void)save(entry);
    }
}

Status Recoveries::adopt_machine(Entry& entry) {
    FS_ASSIGN(const auto compute, compute_of(entry.state));
    if (auto machine = compute->adopt(place_of(entry.state))) entry.machine = std::move(*machine);
    entry.unadopted = false;
    entry.machine_started_us = options_.clock->steady_us();
    return {};
}

// That its host cannot be reached is said in the state for as long as it lasts.
void Recoveries::note_host(Entry& entry, const Status& reached) {
    if (entry.state.compute.empty() || reached.has_value() != entry.host_away) return;
    entry.host_away = !reached;
    if (reached)
        entry.state.error.reset();
    else
        entry.state.error = describe(reached.error());
    (void)save(entry);
}

void Recoveries::tend(Entry& entry) {
    constexpr int64_t kResumeAgainUs = 5'000'000;
    RecoveryState& state = entry.state;
    const bool cleans = state.stage == RecoveryStage::kCleaning && !state.compute.empty();
    const bool moves = state.stage == RecoveryStage::kMoving ||
                       (state.stage == RecoveryStage::kPreparing && !state.moved_from.empty());
    if (entry.resume_again || cleans || moves) {
        const int64_t now_us = options_.clock->steady_us();
        if (now_us < entry.resume_us) return;
        entry.resume_us = now_us + kResumeAgainUs;
        resume_entry(entry);
        return;
    }
    renew_lease(entry);
    if (entry.unadopted && state.stage == RecoveryStage::kRunning) {
        const Status adopted = adopt_machine(entry);
        note_host(entry, adopted);
        if (!adopted) return;
    }
    if (state.captured && state.stage == RecoveryStage::kStartingMachine) {
        if (nbd_server_greets(nbd_socket(state), 200)) {
            if (auto started = start_on_tap(entry);
                !started && !may_come_back(state, started.error()))
                (void)fail_entry(entry, started.error());
        }
        return;
    }
    if (state.stage != RecoveryStage::kRunning) return;
    if (state.on_trial) tend_trial(entry);
    bool lost = false;
    Status seen;
    if (has_machine(state)) {
        const auto now =
            entry.machine ? entry.machine->state() : Result<MachineState>(MachineState::kStopped);
        if (!now) seen = tl::unexpected(now.error());
        lost = now && *now == MachineState::kLost;
        if (now && *now == MachineState::kStopped) {
            entry.machine.reset();
            state.stage = RecoveryStage::kStopped;
            (void)save(entry);
            return;
        }
    }
    const bool served = needs_server(state);
    if (state.captured || !served || (entry.disks && entry.disks->alive())) {
        if (lost) return start_lost(entry);
        if (seen && entry.machine) seen = entry.machine->tend(served);
        if (seen && entry.machine) finish_switch(entry);
        note_host(entry, seen);
        return;
    }
    // The guest's requests wait for the server (MachineOrder::reconnect_delay_s); what it
    // acknowledged is in the overlay.
    entry.disks.reset();
    ++state.disk_server_restarts;
    Status started = NbdServer::clean_up(run_directory(state.id), nbd_socket(state));
    if (started) started = start_disks(entry);
    if (started)
        state.error.reset();
    else
        state.error = describe(started.error());
    (void)save(entry);
}

// Its host went down under it and is there again: it starts on its overlay, as after a power cut.
void Recoveries::start_lost(Entry& entry) {
    entry.machine.reset();
    if (entry.state.captured && !nbd_server_greets(nbd_socket(entry.state), 200)) return;
    entry.state.stage = RecoveryStage::kStartingMachine;
    const auto again = [&]() -> Status {
        FS_TRY(save(entry));
        FS_TRY(choose_accelerator(entry));
        return start_on_disks(entry);
    };
    const Status started = again();
    if (started) return;
    entry.resume_again = may_come_back(entry.state, started.error());
    if (entry.resume_again)
        note_host(entry, started);
    else
        (void)fail_entry(entry, started.error());
}

void Recoveries::tend_trial(Entry& entry) {
    RecoveryState& state = entry.state;
    if (!entry.machine) return;
    auto sample = entry.machine->trial_sample();
    if (!sample) return;
    sample->age_ms = (options_.clock->steady_us() - entry.machine_started_us) / 1000;
    const TrialVerdict verdict = entry.trial.feed(*sample);
    if (verdict == TrialVerdict::kUndecided) return;
    const std::string memory = options_.state_root + "/accelerator.json";
    state.on_trial = false;
    if (verdict == TrialVerdict::kAlive) {
        (void)remember_accelerator(*options_.files, memory, Accelerator::kKvm, entry.trial.words());
        (void)save(entry);
        return;
    }
    state.accelerator = Accelerator::kTcg;
    state.accelerator_words =
        fmt::format("started again without KVM, under which {}", entry.trial.words());
    (void)remember_accelerator(*options_.files, memory, Accelerator::kTcg, state.accelerator_words);
    state.stage = RecoveryStage::kStartingMachine;
    const auto again = [&]() -> Status {
        FS_TRY(save(entry));
        FS_TRY(entry.machine->kill());
        entry.machine.reset();
        FS_TRY(clean_up_machine(state));
        FS_TRY(start_machine(entry));
        state.stage = RecoveryStage::kRunning;
        return save(entry);
    };
    if (const Status started = again(); !started) (void)fail_entry(entry, started.error());
}

}  // namespace farshore
