// A failed-over machine that is captured, on its way home: its disks are a tap's, it is shut down,
// and started again.
#include <fmt/core.h>

#include "os/waiting.h"
#include "recovery/recovery_entry.h"

namespace farshore {

Status Recoveries::hand_over_disks(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (!state.captured) {
        if (!state.committed ||
            (state.stage != RecoveryStage::kRunning && state.stage != RecoveryStage::kStopped))
            return fail(Code::kWrongState,
                        fmt::format("the failover is {}{}: its disks can be captured when it is "
                                    "committed, and running or stopped",
                                    recovery_stage_name(state.stage),
                                    state.committed ? "" : " and not committed"));
        for (size_t place = 0; place < state.machine.disks.size(); ++place)
            FS_TRY(end_own(*entry, place));
        if (!state.own.empty())
            return fail(Code::kWrongState,
                        fmt::format("the machine's disks are, or become, files in {} at its host",
                                    state.own_directory),
                        "protect it there as a machine of its own");
        state.captured = true;
        const Status saved = save(*entry);
        if (!saved) {
            state.captured = false;
            return saved;
        }
    }
    if (!entry->disks) return {};
    // Not asked to end: it would answer what comes then with an error, which is the guest's.
    FS_TRY(entry->disks->kill());
    entry->disks.reset();
    return NbdServer::clean_up(run_directory(id), nbd_socket(state));
}

Result<Recoveries::HandedDisks> Recoveries::handed_disks(const ItemId& item) {
    for (const RecoveryState& known : list()) {
        if (known.item != item || known.kind != RecoveryKind::kFailover || !known.captured)
            continue;
        FS_ASSIGN(const EntryPtr entry, find(known.id));
        const std::unique_lock lock(entry->mutex, std::try_to_lock);
        if (!lock.owns_lock() || entry->forgotten || entry->disks) break;
        HandedDisks handed;
        FS_ASSIGN(handed.config, disk_config(entry->state));
        for (ServedDisk& disk : handed.config.disks)
            for (const MachineDisk& of : entry->state.machine.disks)
                if (of.index == disk.index) disk.size_bytes = of.size_bytes;
        handed.socket_path = nbd_socket(entry->state);
        return handed;
    }
    return fail(Code::kUnavailable, "the machine's disks are not handed over");
}

Status Recoveries::take_disks_back(const std::string& id) {
    FS_ASSIGN(const EntryPtr entry, find(id));
    const std::lock_guard lock(entry->mutex);
    if (entry->forgotten || !entry->state.captured) return {};
    entry->state.captured = false;
    FS_TRY(save(*entry));
    if (entry->state.stage == RecoveryStage::kRunning) tend(*entry);
    return {};
}

Status Recoveries::shut_down(const std::string& id, int timeout_ms, bool by_force,
                             const std::function<Status()>& meanwhile) {
    constexpr int64_t kPressAgainUs = 20'000'000;
    constexpr int kLookMs = 200;
    const int64_t begun_us = options_.clock->steady_us();
    std::optional<int64_t> pressed_us;
    while (true) {
        FS_ASSIGN(const EntryPtr entry, find(id));
        {
            const std::lock_guard lock(entry->mutex);
            RecoveryState& state = entry->state;
            if (entry->forgotten)
                return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
            if (state.stage == RecoveryStage::kMoving || state.stage == RecoveryStage::kArriving ||
                state.stage == RecoveryStage::kCleaning)
                return fail(Code::kWrongState,
                            fmt::format("the machine is {}", recovery_stage_name(state.stage)));
            if (entry->unadopted && entry->resume_again)
                return fail(Code::kUnavailable, "the machine's host cannot be reached just now",
                            "try again when it can");
            const auto now = entry->machine ? entry->machine->state()
                                            : Result<MachineState>(MachineState::kStopped);
            const bool off = now ? *now == MachineState::kStopped || *now == MachineState::kLost
                                 : !entry->machine->alive();
            const int64_t now_us = options_.clock->steady_us();
            const bool late = now_us - begun_us >= int64_t{timeout_ms} * 1000;
            if (off || (late && by_force)) {
                entry->machine.reset();
                FS_TRY(clean_up_machine(state));
                state.stage = RecoveryStage::kStopped;
                return save(*entry);
            }
            if (late && !now)
                return fail(
                    Code::kUnavailable,
                    fmt::format("the machine's host does not answer: {}", now.error().what()),
                    "try again when it does");
            if (late)
                return fail(
                    Code::kTimeout,
                    fmt::format("the machine did not shut down within {} s", timeout_ms / 1000),
                    "shut it down from inside, or do it with --power-off");
            if (!pressed_us || now_us - *pressed_us > kPressAgainUs) {
                pressed_us = now_us;
                // A machine that is about to end answers nothing.
                (void)entry->machine->press_power_button();
            }
        }
        if (meanwhile) FS_TRY(meanwhile());
        pause_ms(kLookMs);
    }
}

// With the entry's mutex held.
Status Recoveries::start_on_tap(Entry& entry) {
    if (!nbd_server_greets(nbd_socket(entry.state), 1000))
        return fail(Code::kUnavailable, "nobody serves the machine's disks yet",
                    "wait: the vault's own agent does it");
    return start_on_disks(entry);
}

// With the entry's mutex held, and its disks served.
Status Recoveries::start_on_disks(Entry& entry) {
    RecoveryState& state = entry.state;
    FS_TRY(clean_up_machine(state));
    state.boot = this_boot();
    FS_TRY(start_machine(entry));
    state.error.reset();
    state.stage = RecoveryStage::kRunning;
    return save(entry);
}

Status Recoveries::start_again(const std::string& id) {
    constexpr int kPatienceMs = 60'000;
    FS_ASSIGN(const EntryPtr entry, find(id));
    // Without the lock: whoever starts the tap asks us what it is to serve.
    FS_ASSIGN(const RecoveryState seen, get(id));
    if (seen.captured && seen.stage != RecoveryStage::kRunning)
        (void)wait_until(kPatienceMs, 50,
                         [&] { return nbd_server_greets(nbd_socket(seen), 1000).has_value(); });
    const std::lock_guard lock(entry->mutex);
    RecoveryState& state = entry->state;
    if (entry->forgotten) return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", id));
    if (state.stage == RecoveryStage::kRunning) return {};
    if (state.stage != RecoveryStage::kStopped && state.stage != RecoveryStage::kFailed)
        return fail(Code::kWrongState, fmt::format("the failover is {}: it can be started again "
                                                   "when it is stopped",
                                                   recovery_stage_name(state.stage)));
    if (has_machine(state)) FS_TRY(choose_accelerator(*entry));
    const auto start = [&]() -> Status {
        if (state.captured) return start_on_tap(*entry);
        if (!entry->disks || !entry->disks->alive()) {
            entry->disks.reset();
            FS_TRY(NbdServer::clean_up(run_directory(id), nbd_socket(state)));
            FS_TRY(start_disks(*entry));
        }
        return start_on_disks(*entry);
    };
    // Noted before: a vault that is killed in between finds a machine that runs.
    const RecoveryStage before = state.stage;
    state.stage = RecoveryStage::kStartingMachine;
    state.tried = true;
    FS_TRY(save(*entry));
    Status started = start();
    if (started) return started;
    state.stage = before;
    FS_TRY(save(*entry));
    return started;
}

}  // namespace farshore
