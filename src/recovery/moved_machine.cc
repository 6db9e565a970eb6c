// A failed-over machine that goes on at another compute host, because its own is lost.
//
// Its disks go to a recovery with another id: under the old one's nothing leads to them any more,
// whatever the machine at the host that cannot be reached still knows. docs/design/recovery.md has
// the steps, and what a crash between them leaves.
#include <fmt/core.h>

#include <algorithm>

#include "os/remove_directory.h"
#include "recovery/recovery_entry.h"

namespace farshore {
namespace {

bool can_be_moved(const RecoveryState& state) {
    switch (state.stage) {
        case RecoveryStage::kRunning:
        case RecoveryStage::kStopped:
        case RecoveryStage::kFailed:
            return true;
        case RecoveryStage::kStartingMachine:
            // Its host went down, and is not there again.
            return !state.compute.empty();
        default:
            return false;
    }
}

}  // namespace

// With the entry's mutex held: from here on the disks are on their way. Nothing has changed after
// an error.
Status Recoveries::begin_move(Entry& entry, const MoveRequest& request) {
    RecoveryState& state = entry.state;
    if (entry.forgotten)
        return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", state.id));
    if (state.kind != RecoveryKind::kFailover || state.captured || !can_be_moved(state))
        return fail(Code::kWrongState,
                    fmt::format("the {} is {}{}: a failover can be moved when it is running, "
                                "stopped or failed, and not captured",
                                recovery_kind_name(state.kind), recovery_stage_name(state.stage),
                                state.captured ? " and captured" : ""));
    // Copies that are not in use end with their machine.
    if (std::ranges::any_of(
            state.own, [](const auto& disk) { return disk.second.stage != OwnStage::kCopying; }))
        return fail(
            Code::kWrongState,
            fmt::format("the machine's disks are files in {} at its host", state.own_directory),
            "start it there, or fail over again from a point");
    if (!valid_id(request.new_id))
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not an id of a recovery", request.new_id.substr(0, 64)));
    FS_ASSIGN(const auto compute, compute_named(request.compute));
    if (request.compute == state.compute ||
        (!state.compute_where.empty() && compute->where() == state.compute_where))
        return fail(Code::kInvalidArgument, "the machine is at that host already",
                    "name another one; `farshore compute list` shows them");

    RecoveryState next = state;
    next.id = request.new_id;
    next.stage = RecoveryStage::kArriving;
    next.moved_from = state.id;
    next.compute = request.compute;
    next.compute_where = compute->where();
    next.tried = false;
    next.own.clear();
    next.network = request.network;
    next.networks = request.networks;
    next.addresses = request.addresses;
    next.address_stage = AddressStage::kNone;
    next.address_words.clear();
    next.timings = {};
    next.timings.requested = options_.clock->now();
    next.disk_server_restarts = 0;
    next.boot.clear();
    next.error.reset();
    FS_ASSIGN(const EntryPtr there, add(std::move(next)));
    const std::lock_guard lock(there->mutex);
    const RecoveryStage before = state.stage;
    const auto note = [&]() -> Status {
        FS_TRY(options_.files->make_directories(state_directory(there->state.id)));
        FS_TRY(options_.files->sync_directory(options_.state_root));
        FS_TRY(save(*there));
        state.moved_to = there->state.id;
        state.stage = RecoveryStage::kMoving;
        return save(entry);
    };
    Status noted = note();
    if (noted) return noted;
    // Whatever of this fails as well: carry_over() knows what to make of it.
    state.moved_to.clear();
    state.stage = before;
    (void)save(entry);
    (void)drop_arrival(*there);
    return noted;
}

// With the mutex of the one that was to be moved held: the other one is gone. Either nothing had
// come to it, or all had, and somebody has given it up since.
Status Recoveries::end_move(Entry& entry) {
    FS_ASSIGN(const auto names, options_.files->list(state_directory(entry.state.id)));
    const bool has_disks = std::ranges::any_of(
        names, [](const std::string& name) { return name.starts_with("disk-"); });
    if (!has_disks) return remove_everything(entry);
    entry.state.moved_to.clear();
    entry.state.stage = RecoveryStage::kRunning;
    entry.unadopted = true;
    return save(entry);
}

// With the entry's mutex held. Nothing has come to it.
Status Recoveries::drop_arrival(Entry& entry) {
    // It is the other one's.
    entry.state.lease = entry.state.old_lease = 0;
    return remove_everything(entry);
}

// With the mutex of the one that is moved held: its disks go to the other one, which is `preparing`
// then. After an error: call again.
Status Recoveries::carry_over(Entry& entry) {
    RecoveryState& state = entry.state;
    const auto there = find(state.moved_to);
    if (!there) {
        FS_ASSIGN(const bool unreadable, options_.files->exists(state_directory(state.moved_to)));
        if (unreadable)
            return fail(Code::kCorrupt,
                        fmt::format("the state of '{}', which gets the disks, cannot be read",
                                    state.moved_to),
                        "the log of the vault's start says why");
        return end_move(entry);
    }
    {
        const std::lock_guard lock((*there)->mutex);
        RecoveryState& next = (*there)->state;
        if ((*there)->forgotten || next.stage == RecoveryStage::kCleaning) return end_move(entry);
        if (next.stage == RecoveryStage::kArriving) {
            // Of a machine at a host that cannot be reached it matters that nobody serves its
            // disks. The server is not asked to end: it would wait for that machine to let go.
            if (entry.disks) FS_TRY(entry.disks->kill());
            if (Status ended = end_processes(entry); !ended && state.compute.empty()) return ended;
            FS_TRY(NbdServer::clean_up(run_directory(state.id), nbd_socket(state)));
            const std::string from = state_directory(state.id), to = state_directory(next.id);
            FS_ASSIGN(const auto names, options_.files->list(from));
            for (const std::string& name : names)
                if (name.starts_with("disk-"))
                    FS_TRY(options_.files->rename(from + "/" + name, to + "/" + name));
            FS_TRY(options_.files->sync_directory(to));
            FS_TRY(options_.files->sync_directory(from));
            next.lease = state.lease;
            next.old_lease = state.old_lease;
            next.hydrated = state.hydrated;
            next.stage = RecoveryStage::kPreparing;
            (*there)->lease_renewed_us = entry.lease_renewed_us;
            if (Status saved = save(**there); !saved) {
                next.stage = RecoveryStage::kArriving;
                return saved;
            }
        }
    }
    state.lease = state.old_lease = 0;
    state.stage = RecoveryStage::kCleaning;
    FS_TRY(save(entry));
    if (const Status removed = remove_everything(entry); !removed) {
        state.error = describe(removed.error());
        tell(entry);
    }
    return {};
}

Result<RecoveryState> Recoveries::move(const MoveRequest& request) {
    const int64_t requested_us = options_.clock->steady_us();
    if (const auto entry = find(request.id)) {
        const std::lock_guard lock((*entry)->mutex);
        if (!find(request.new_id)) FS_TRY(begin_move(**entry, request));
        const RecoveryState& state = (*entry)->state;
        if (state.stage == RecoveryStage::kMoving && state.moved_to == request.new_id)
            FS_TRY(carry_over(**entry));
    }
    FS_ASSIGN(const EntryPtr there, find(request.new_id));
    const std::lock_guard lock(there->mutex);
    if (there->forgotten)
        return fail(Code::kNotFound, fmt::format("recovery '{}' is gone", request.new_id));
    if (there->state.stage == RecoveryStage::kPreparing) {
        const auto run = [&]() -> Status {
            FS_TRY(choose_accelerator(*there));
            return bring_up(*there, requested_us);
        };
        // What its machine has written is kept: it can be moved again.
        if (const Status done = run(); !done) FS_TRY(fail_entry(*there, done.error()));
    }
    return there->state;
}

}  // namespace farshore
