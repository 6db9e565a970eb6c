// Failed-over machines that go on at another compute host: the recovery desk's job.
#include <fmt/core.h>

#include "meta/compute_hosts.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "vault/recovery_desk.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr const char* kMoveKind = "move-failover";
constexpr size_t kMaxMoveInputBytes = 4096;

bool can_be_asked(const RecoveryState& state) {
    const bool away = state.error && state.error->code == Code::kUnavailable;
    return state.stage == RecoveryStage::kRunning && !away;
}

}  // namespace

Result<RecoveryState> RecoveryDesk::failover_of(const ItemRecord& item) {
    for (const RecoveryState& state : of_item(item.id, RecoveryKind::kFailover))
        if (state.stage != RecoveryStage::kCleaning && state.stage != RecoveryStage::kArriving)
            return state;
    return fail(Code::kNotFound, fmt::format("no failover of '{}' is known here", item.name));
}

// Its cards stay as they are plugged in, unless a network is named; their MACs in any case.
Result<MoveRequest> RecoveryDesk::move_request(const RecoveryState& state,
                                               const std::string& new_id,
                                               const FailoverChoice& choice) {
    RecoveryRequest asked;
    asked.id = new_id;
    asked.kind = RecoveryKind::kFailover;
    asked.item = state.item;
    asked.compute = choice.compute == kLocalHost ? std::string() : choice.compute;
    if (asked.compute == state.compute)
        return fail(Code::kInvalidArgument,
                    fmt::format("compute: the machine is at '{}' already", choice.compute),
                    "name another host; `farshore compute list` shows them");
    // Before it is shut down.
    for (const auto& [index, disk] : state.own)
        if (disk.stage != OwnStage::kCopying)
            return fail(
                Code::kWrongState,
                fmt::format("disk {} of the machine is a file at its host: {}", index, disk.path),
                "it stays there; to have it elsewhere, protect it there as a machine of "
                "its own");
    asked.machine = state.machine;
    asked.network = state.network;
    asked.networks = state.networks;
    asked.addresses = state.addresses;
    if (choice.network) {
        FS_TRY(plug_in(asked, choice.network, std::nullopt));
        asked.machine = state.machine;
    }
    FS_TRY(check_place(asked));
    return MoveRequest{state.id,      new_id,         asked.compute,
                       asked.network, asked.networks, asked.addresses};
}

JobWork RecoveryDesk::move_work(const std::string& input) {
    return [this, input](JobRun& run) -> Result<std::string> {
        FS_ASSIGN(const Json json, parse_json(input, "the job's input", kMaxMoveInputBytes));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "input"));
        FS_ASSIGN(const std::string id, fields.required_text("id", 64));
        FS_ASSIGN(const std::string to, fields.required_text("to", 64));
        FS_ASSIGN(const FailoverChoice choice, read_failover_choice(fields));
        MoveRequest request;
        request.id = id;
        request.new_id = to;
        // An earlier vault may have begun it.
        if (!recoveries_->get(to)) {
            FS_ASSIGN(const RecoveryState state, recoveries_->get(id));
            FS_ASSIGN(request, move_request(state, to, choice));
            if (can_be_asked(state)) {
                FS_TRY(run.report(0.1, "shutting the machine down where it is"));
                const Status off = recoveries_->shut_down(
                    id, static_cast<int>(choice.timeout_s) * 1000, choice.power_off);
                if (!off && off.error().code() != Code::kUnavailable) return fail(off.error());
            }
        }
        FS_TRY(run.report(0.4, fmt::format("starting it at {}", choice.compute)));
        FS_ASSIGN(const RecoveryState state, recoveries_->move(request));
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), state.item));
        vault_.event(Severity::kInformation, "machine-moved", &item,
                     fmt::format("the machine of recovery {} goes on at '{}' as {}", id,
                                 choice.compute, to));
        if (const auto left = recoveries_->get(id);
            left && left->stage == RecoveryStage::kCleaning && !left->compute.empty())
            say_left(*left);
        return result_of(state);
    };
}

Result<JobRecord> RecoveryDesk::move_machine(const ItemRecord& item, const FailoverChoice& choice) {
    FS_TRY(check_action(item.state, ItemAction::kMove));
    if (choice.compute.empty())
        return fail(Code::kInvalidArgument, "compute: is missing",
                    "name the host that the machine goes to; `local` is the vault's own");
    FS_ASSIGN(const RecoveryState state, failover_of(item));
    FS_TRY(place_of(item.id, choice.compute));
    const std::string to = new_id(recovery_kind_name(RecoveryKind::kFailover));
    // Told at once, not by a job, and before the machine is shut down.
    FS_TRY(move_request(state, to, choice));
    const std::string input =
        dump_json({{"id", state.id},
                   {"to", to},
                   {"compute", choice.compute},
                   {"network", choice.network ? network_word(*choice.network) : ""},
                   {"power_off", choice.power_off},
                   {"timeout_s", choice.timeout_s}});
    return vault_.start_job(kMoveKind, item, false, input, move_work(input));
}

}  // namespace farshore
