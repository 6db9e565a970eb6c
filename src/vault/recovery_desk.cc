#include "vault/recovery_desk.h"

#include <fmt/core.h>

#include <algorithm>

#include "meta/compute_hosts.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "meta/nodes.h"
#include "os/real.h"
#include "vault/job_limits.h"
#include "vault/log_about.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr size_t kMaxJobInputBytes = 64u << 10;
// How long `latest` waits for what the appliance has received to be stored: a segment is cut after
// a second at the latest. More would only delay the machine when the appliance is lost as well.
constexpr int64_t kDrainPatienceUs = 1'500'000;

constexpr const char* kNotBegun = "the failover did not begin";

// The machine as the agent described it, with the disks that the point has.
Result<MachineDescription> machine_of(const ItemRecord& item, std::vector<DiskSize> point_disks) {
    std::erase_if(point_disks, [](const DiskSize& disk) { return disk.joining; });
    if (point_disks.empty())
        return fail(Code::kPointNotFound, "nothing is known of this machine's disks yet");
    std::vector<PlainDisk> plain;
    for (const DiskSize& disk : point_disks) plain.push_back({"", disk.size_bytes, disk.disk});
    MachineDescription machine = describe_plain_machine(item.name, plain);
    if (item.machine.empty()) return machine;
    FS_ASSIGN(MachineDescription described, decode_machine(item.machine));
    described.name = item.name;
    // One that was removed since has no more than its size; all else is as the machine is now.
    for (MachineDisk& disk : machine.disks)
        for (const MachineDisk& known : described.disks)
            if (known.index == disk.index) {
                const uint64_t size_bytes = disk.size_bytes;
                disk = known;
                disk.size_bytes = size_bytes;
            }
    described.disks = std::move(machine.disks);
    return described;
}

}  // namespace

Result<FailoverChoice> read_failover_choice(const JsonFields& fields) {
    FailoverChoice choice;
    FS_ASSIGN(choice.shut_down, fields.boolean("shut_down"));
    FS_ASSIGN(choice.planned, fields.boolean("planned"));
    FS_ASSIGN(const FailbackRequest shutting_down, read_failback(fields));
    choice.power_off = shutting_down.power_off;
    choice.timeout_s = shutting_down.timeout_s;
    FS_ASSIGN(const std::string then, fields.text("then", 16));
    const auto undecided = undecided_from_name(then);
    if (!undecided) return fields.wrong("then", "must be commit or roll-back");
    choice.undecided = *undecided;
    FS_ASSIGN(const uint64_t after_s, fields.u64("after_s", 0, kMaxUndecidedS));
    choice.undecided_s = static_cast<uint32_t>(after_s);
    const auto network = [&](const char* key, std::optional<NetworkChoice>& to) -> Status {
        FS_ASSIGN(const std::string word, fields.text(key, kMaxNetworkWordBytes));
        if (word.empty()) return {};
        auto known = network_from_word(word);
        if (!known) return fail(known.error().with_context(key));
        to = std::move(*known);
        return {};
    };
    FS_TRY(network("network", choice.network));
    FS_TRY(network("usual_network", choice.usual_network));
    FS_ASSIGN(choice.compute, fields.text("compute", kMaxStoreNameBytes));
    if ((choice.undecided == Undecided::kWaits) != (after_s == 0))
        return fields.wrong("after_s", "goes with 'then', and that with it");
    if (after_s != 0 && after_s < kMinUndecidedS)
        return fields.wrong("after_s", fmt::format("must be at least {}", kMinUndecidedS));
    return choice;
}

RecoveryDesk::RecoveryDesk(Vault& vault, FileSystem& files, Clock& clock, Random& random,
                           const Options& options)
    : vault_(vault),
      files_(files),
      clock_(clock),
      random_(random),
      hosts_(vault, vault.info().vault_id + " " + vault.directory() + "/recoveries",
             options.run_directory.empty() ? vault.directory() + "/run" : options.run_directory) {
    RecoveryOptions recovery;
    recovery.files = &files;
    recovery.clock = &clock;
    recovery.state_root = vault.directory() + "/recoveries";
    recovery.run_root =
        options.run_directory.empty() ? vault.directory() + "/run" : options.run_directory;
    recovery.store_location = options.store_location;
    recovery.store_settings_file = options.store_settings_file;
    recovery.plugin = options.plugin;
    recovery.accelerator = options.accelerator;
    recovery.segment_scope = vault.info().vault_id + " " + recovery.state_root;
    recovery.copy_place = [this](const std::string& copy) -> Result<StorePlace> {
        FS_ASSIGN(const StorePlaceReport place, vault_.store_place(copy));
        return StorePlace{place.location, place.settings_file};
    };
    recovery.leases.take = [this](const ItemId& item, const std::string& copy, Sequence sequence,
                                  const std::string& holder,
                                  int64_t duration_us) -> Result<uint64_t> {
        FS_ASSIGN(const auto replica, vault_.replica(item, copy));
        FS_ASSIGN(const LeaseRow lease, replica->lease(sequence, holder, duration_us));
        return lease.id;
    };
    recovery.leases.renew = [this](const ItemId& item, const std::string& copy, uint64_t lease,
                                   int64_t duration_us) -> Status {
        FS_ASSIGN(const auto replica, vault_.replica(item, copy));
        return replica->renew(lease, duration_us);
    };
    recovery.leases.release = [this](const ItemId& item, const std::string& copy,
                                     uint64_t lease) -> Status {
        if (vault_.why_set_aside(item)) return {};  // its leases are gone
        auto replica = vault_.replica(item, copy);
        // An item or a copy that is gone holds no leases.
        if (!replica) {
            const Code code = replica.error().code();
            const bool gone =
                code == Code::kItemNotFound || (!copy.empty() && code == Code::kNotFound);
            return gone ? Status() : tl::unexpected(replica.error());
        }
        return (*replica)->release(lease);
    };
    recovery.compute = [this](const std::string& name) -> Result<std::shared_ptr<RecoveryCompute>> {
        FS_ASSIGN(std::shared_ptr<RecoveryCompute> host, hosts_.named(name));
        return host;
    };
    recovery.item_key = [this](const ItemId& item) { return vault_.item_key(item); };
    recovery.on_change = [this](const RecoveryState& state) {
        if (state.stage == RecoveryStage::kFailed && state.error)
            vault_.event(Severity::kCritical, std::string(code_name(state.error->code)), nullptr,
                         fmt::format("{} of '{}': {}", recovery_kind_name(state.kind),
                                     state.item_name, state.error->what),
                         state.error->remedy);
    };
    recoveries_ = std::make_unique<Recoveries>(std::move(recovery));
    returns_ = std::make_unique<ReturnDesk>(vault_, *recoveries_);
    vault_.set_resumer("cancel-failover",
                       [this](const JobRecord& job) { return cancel_work(job.input); });
    vault_.set_resumer("failover",
                       [this](const JobRecord& job) { return machine_work(job.input); });
    vault_.set_resumer("test-failover",
                       [this](const JobRecord& job) { return machine_work(job.input); });
    vault_.set_resumer("hydrate", [this](const JobRecord& job) { return hydrate_work(job.input); });
    vault_.set_resumer("move-failover",
                       [this](const JobRecord& job) { return move_work(job.input); });
    preparer_ = std::make_unique<ThreadExecutor>("fs-prepare");
    preparer_->post([this] { recoveries_->prepare(); });
    addresser_ = std::make_unique<ThreadExecutor>("fs-addresses");
    if (options.tick_interval_us > 0) {
        const auto every = [interval = options.tick_interval_us](
                               const char* name, const std::function<void()>& work) {
            auto executor = std::make_unique<ThreadExecutor>(name);
            ThreadExecutor* const own = executor.get();
            auto round = std::make_shared<std::function<void()>>();
            *round = [own, work, weak = std::weak_ptr(round), interval] {
                work();
                if (auto again = weak.lock()) own->post_after_us(interval, [again] { (*again)(); });
            };
            own->post_after_us(interval, [round] { (*round)(); });
            return executor;
        };
        ticker_ = every("fs-recovery", [this] { tick_here(); });
        elsewhere_ = every("fs-elsewhere", [this] {
            recoveries_->tick_elsewhere();
            let_orphans_go();
        });
    }
}

RecoveryDesk::~RecoveryDesk() {
    if (ticker_) ticker_->stop();
    if (elsewhere_) elsewhere_->stop();
    addresser_->stop();
    preparer_->stop();
    // Exports belong to whoever asked this process for them; machines go on without it.
    for (const ExportReport& report : exports())
        if (auto ended = end_export(report.state.id); !ended)
            log::warn("vault", about(ended.error()), "export {}: {}", report.state.id,
                      ended.error().to_string());
}

bool RecoveryDesk::fails_over(const std::vector<JobRecord>& open, const ItemId& item) {
    return std::ranges::any_of(
        open, [&](const JobRecord& job) { return job.item == item && job.kind == "failover"; });
}

// Of one that is failing over though no job does that: it runs here, or it was never begun.
Result<ItemRecord> RecoveryDesk::put_back(const ItemRecord& item) {
    for (const RecoveryState& state : of_item(item.id, RecoveryKind::kFailover))
        if (state.stage == RecoveryStage::kRunning || state.stage == RecoveryStage::kStopped)
            return vault_.change_state(item.id, ItemState::kFailedOver,
                                       fmt::format("recovery {} is there", state.id));
    return vault_.change_state(item.id, ItemState::kCatchingUp, kNotBegun);
}

std::string RecoveryDesk::new_id(std::string_view kind) {
    uint8_t raw[6];
    random_.fill(raw);
    return fmt::format("{}-{}", kind, to_hex(raw));
}

std::vector<RecoveryState> RecoveryDesk::of_item(const ItemId& item, RecoveryKind kind) {
    std::vector<RecoveryState> states = recoveries_->list();
    std::erase_if(states, [&](const RecoveryState& state) {
        return state.item != item || state.kind != kind;
    });
    return states;
}

std::string RecoveryDesk::result_of(const RecoveryState& state) {
    Json json = failover_view(state);
    if (auto access = recoveries_->access(state.id)) {
        if (!access->nbd_socket.empty()) json["nbd_socket"] = access->nbd_socket;
        const MachineDoors& doors = access->doors;
        for (const auto& [name, door] : {std::pair{"serial_log", &doors.serial_log},
                                         {"serial_socket", &doors.serial_socket},
                                         {"vnc_socket", &doors.vnc_socket},
                                         {"agent_socket", &doors.agent_socket},
                                         {"domain", &doors.domain}})
            if (!door->empty()) json[name] = *door;
    }
    return dump_json(json);
}

// ---- machines
// --------------------------------------------------------------------------------------

JobWork RecoveryDesk::machine_work(const std::string& input) {
    return [this, input](JobRun& run) { return start_machine(run, input); };
}

// The whole of a test failover or failover; may have been begun by a vault that crashed since.
Result<std::string> RecoveryDesk::start_machine(JobRun& run, const std::string& input) {
    FS_ASSIGN(const Json json, parse_json(input, "the job's input", kMaxJobInputBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "input"));
    RecoveryRequest request;
    FS_ASSIGN(request.id, fields.required_text("id", 64));
    FS_ASSIGN(const std::string item_text, fields.required_text("item", 32));
    FS_ASSIGN(request.item, ItemId::parse(item_text));
    FS_ASSIGN(const std::string kind, fields.required_text("kind", 16));
    FS_ASSIGN(request.kind, recovery_kind_from_name(kind));
    FS_ASSIGN(const std::string point, fields.required_text("point", 4096));
    FS_ASSIGN(request.copy, fields.text("copy", kMaxStoreNameBytes));
    FS_ASSIGN(const FailoverChoice choice, read_failover_choice(fields));
    FS_ASSIGN(request.compute, place_of(request.item, choice.compute));
    FS_ASSIGN(request.note, fields.text("note", kMaxRecoveryNoteBytes));
    request.undecided = choice.undecided;
    request.undecided_s = choice.undecided_s;
    const bool real = request.kind == RecoveryKind::kFailover;
    // Not a failure of the item's failover, which is another one's: its state stays.
    struct Unclaim {
        RecoveryDesk& desk;
        const RecoveryRequest& request;
        ~Unclaim() {
            const std::lock_guard hold(desk.mutex_);
            if (const auto at = desk.starting_.find(request.item);
                at != desk.starting_.end() && at->second == request.id)
                desk.starting_.erase(at);
        }
    };
    const Unclaim unclaim{*this, request};
    if (real) FS_TRY(claim(request.item, request.id));

    const auto work = [&]() -> Result<std::string> {
        // An earlier vault may have got it running already.
        if (auto known = recoveries_->get(request.id)) {
            if (known->stage == RecoveryStage::kRunning) return result_of(*known);
            FS_TRY(recoveries_->clean_up(request.id));
        }
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), request.item));
        FS_ASSIGN(const auto replica, vault_.replica(request.item, request.copy));
        if (choice.shut_down) {
            vault_.set_draining(request.item, true);
            const Status emptied = empty_source(run, item, choice);
            // Before the fence: behind it nobody takes the log any more.
            vault_.set_draining(request.item, false);
            FS_TRY(emptied);
        }
        if (real && request.copy.empty() &&
            PointSpec::parse(point).kind == PointSpec::Kind::kLatest) {
            // What is safe at the appliance already belongs to "latest"; latest-processed does not
            // wait. An idle source's last records are never stored, only marked.
            FS_TRY(run.report(0.05, "waiting for what was received to be stored"));
            Sequence received;
            TimePoint last_time;
            FS_ASSIGN(const ItemReport before, vault_.item(item.name));
            if (before.agent) {
                received = before.agent->received;
                last_time = before.agent->last_time;
            }
            FS_TRY(vault_.wait_for_item(request.item, kDrainPatienceUs, [&](const ItemReport& now) {
                return !now.replica || now.replica->stored >= received ||
                       now.replica->current_until >= last_time;
            }));
        }
        if (real) {
            // From here on nobody else appends to the log: the point that is chosen is the last
            // one.
            FS_TRY(run.report(0.1, "fencing the log"));
            FS_ASSIGN(const auto own, vault_.replica(request.item));
            FS_TRY(own->acquire_log("failover"));
        }
        FS_TRY(run.report(0.2, "finding the point"));
        FS_ASSIGN(const ResolvedPoint resolved, replica->resolve(PointSpec::parse(point)));
        FS_ASSIGN(auto disks, replica->disks_of(resolved.sequence));
        request.item_name = item.name;
        request.sequence = resolved.sequence;
        request.point_time = resolved.time;
        FS_ASSIGN(request.machine, machine_of(item, std::move(disks)));
        FS_TRY(plug_in(request, choice.network, choice.usual_network));
        FS_TRY(
            run.report(0.4, fmt::format("starting the machine at {}", to_rfc3339(resolved.time))));
        FS_ASSIGN(const RecoveryState state, recoveries_->start(request));
        vault_.event(
            Severity::kInformation, real ? "failed-over" : "test-failover-started", &item,
            fmt::format("runs at sequence {}, {}", state.sequence.v, to_rfc3339(state.point_time)));
        return result_of(state);
    };
    auto result = work();
    if (!real || run.vault_ends()) return result;
    if (result) {
        const auto there = vault_.change_state(request.item, ItemState::kFailedOver, {});
        if (!there) stranded_ = true;
        FS_TRY(there);
        return result;
    }
    if (const auto left = recoveries_->get(request.id);
        left && left->stage == RecoveryStage::kCleaning && !left->compute.empty())
        say_left(*left);
    // Its source goes on as if nothing had been.
    vault_.set_stand_by(request.item, std::nullopt);
    if (auto back =
            vault_.change_state(request.item, ItemState::kCatchingUp, "the failover failed");
        !back) {
        stranded_ = true;
        log::error("vault", about(back.error()), "{}", back.error().to_string());
    }
    return result;
}

// One real machine of an item: a job of which nobody knew that it was added may be beside another.
Status RecoveryDesk::claim(const ItemId& item, const std::string& recovery) {
    const auto refused = [](const std::string& other) {
        return fail(Code::kWrongState,
                    fmt::format("recovery {} of the item is there: a machine runs once", other),
                    "`farshore failover list` shows it");
    };
    {
        const std::lock_guard hold(mutex_);
        const auto [at, is_new] = starting_.emplace(item, recovery);
        if (!is_new && at->second != recovery) return refused(at->second);
    }
    for (const RecoveryState& state : of_item(item, RecoveryKind::kFailover)) {
        if (state.id == recovery || state.stage == RecoveryStage::kFailed) continue;
        const bool runs =
            state.stage == RecoveryStage::kRunning || state.stage == RecoveryStage::kStopped;
        if (runs) {
            FS_ASSIGN(const ItemRecord now, get_item(vault_.database(), item));
            if (now.state == ItemState::kFailingOver) FS_TRY(put_back(now));
            return refused(state.id);
        }
        // What is left of one that did not start.
        FS_TRY(give_up(state, Recoveries::CleanUp::kOrdinary));
    }
    return {};
}

// The source is shut down, and what it wrote is stored; or, unless that is needed, what can be had
// of it within the time.
Status RecoveryDesk::empty_source(JobRun& run, const ItemRecord& item,
                                  const FailoverChoice& choice) {
    const int64_t begun_us = vault_.clock().steady_us();
    const int64_t patience_us = int64_t{choice.timeout_s} * 1'000'000;
    bool forced = false;
    vault_.set_stand_by(item.id, false);
    while (true) {
        FS_ASSIGN(const ItemReport now, vault_.item(item.id.to_string()));
        std::string words = "waiting for the agent at the source";
        bool stands = false, drained = false;
        if (now.agent) {
            stands = now.agent->state == AgentItemState::kStandingBy;
            if (now.agent->error) words = now.agent->error->what;
            if (stands)
                words = fmt::format("the source is off; {} of {} records are stored",
                                    now.agent->stored.v, now.agent->last.v);
            drained = now.replica && has_all(*now.replica, *now.agent);
        }
        if (drained) return {};
        const int64_t waited_us = vault_.clock().steady_us() - begun_us;
        if (choice.power_off && !stands && waited_us > patience_us / 2 && !forced) {
            forced = true;
            vault_.set_stand_by(item.id, true);
        }
        if (waited_us > patience_us) {
            if (choice.planned)
                return fail(Code::kTimeout,
                            fmt::format("the source did not come to rest within {} s: {}",
                                        choice.timeout_s, words),
                            "wait until it is protected and its machine can be shut down, or fail "
                            "over without --planned");
            vault_.event(
                Severity::kWarning, "source-not-emptied", &item,
                fmt::format("the failover goes on without the source's last word: {}", words),
                "see that the machine does not run there as well");
            return {};
        }
        FS_TRY(run.report(0.03, words));
        FS_TRY(run.pause(100'000));
    }
}

JobWork RecoveryDesk::cancel_work(const std::string& input) {
    return [this, input](JobRun& run) -> Result<std::string> {
        FS_ASSIGN(const ItemId item, ItemId::parse(input));
        FS_TRY(run.report(0.2, "ending the machine"));
        for (const RecoveryState& state : of_item(item, RecoveryKind::kFailover))
            FS_TRY(give_up(state, Recoveries::CleanUp::kOrdinary));
        // One that was being moved just then has another id since.
        for (const RecoveryState& state : of_item(item, RecoveryKind::kFailover))
            if (state.stage != RecoveryStage::kCleaning)
                FS_TRY(give_up(state, Recoveries::CleanUp::kOrdinary));
        vault_.set_stand_by(item, std::nullopt);
        FS_ASSIGN(const ItemRecord now, get_item(vault_.database(), item));
        if (now.state == ItemState::kFailedOver)
            FS_TRY(vault_.change_state(item, ItemState::kCatchingUp, "the failover was cancelled"));
        return "{}";
    };
}

Result<JobRecord> RecoveryDesk::start_failover(const ItemId& id, const PointSpec& spec,
                                               const std::string& point,
                                               const FailoverChoice& choice,
                                               const std::function<Result<JobRecord>()>& job) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(ItemRecord item, get_item(vault_.database(), id));
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    if (item.state == ItemState::kFailingOver && !fails_over(jobs, id)) {
        // Whoever began that has not come to its job, nor to putting the state back.
        FS_ASSIGN(item, put_back(item));
        if (choice.planned && item.state == ItemState::kCatchingUp)
            return fail(
                Code::kUnavailable,
                fmt::format("'{}' is catching up: a planned failover loses nothing", item.name),
                "wait until it is protected");
    }
    FS_TRY(check_action(item.state, ItemAction::kFailover));
    if (choice.planned && item.state != ItemState::kProtected)
        return fail(Code::kWrongState,
                    fmt::format("a planned failover loses nothing: '{}' is {}", item.name,
                                item_state_name(item.state)),
                    "wait until it is protected");
    if (choice.planned && spec.kind != PointSpec::Kind::kLatest)
        return fail(Code::kInvalidArgument, "a planned failover goes to the latest point",
                    "leave the point out, or --planned");
    // Before the state: the way back from it needs room as well.
    FS_TRY(check_room(jobs, node_of(vault_.database())));
    FS_TRY(vault_.change_state(id, ItemState::kFailingOver, "to point " + point));
    auto begun = job();
    if (begun) return begun;
    if (auto back = vault_.change_state(id, ItemState::kCatchingUp, kNotBegun); !back) {
        stranded_ = true;
        log::error("vault", about(item, back.error()), "the state of '{}': {}", item.name,
                   back.error().to_string());
    }
    return begun;
}

Result<JobRecord> RecoveryDesk::failover(const std::string& name, const std::string& action,
                                         const std::string& point_text,
                                         const std::string& copy_name,
                                         const FailoverChoice& choice) {
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    const std::string point = point_text.empty() ? "latest" : point_text;
    const PointSpec spec = PointSpec::parse(point);
    std::string copy = copy_name;
    // Another point of a failover is one of where it reads.
    if (action == "change-point")
        for (const RecoveryState& state : of_item(item.id, RecoveryKind::kFailover))
            copy = state.copy;
    FS_ASSIGN(const auto replica, vault_.replica(item.id, copy));
    std::string place;
    if (action == "test" || action == "start") {
        // Told at once, not by a job, and before the source is fenced.
        RecoveryRequest asked;
        asked.item = item.id;
        asked.kind = action == "test" ? RecoveryKind::kTest : RecoveryKind::kFailover;
        FS_ASSIGN(asked.machine, known_machine(item));
        FS_ASSIGN(asked.compute, place_of(item.id, choice.compute));
        place = asked.compute;
        FS_TRY(plug_in(asked, choice.network, choice.usual_network));
        FS_TRY(check_place(asked));
    }
    const auto machine_job = [&](RecoveryKind kind, const char* job_kind) -> Result<JobRecord> {
        const Json input{
            {"id", choice.recovery.empty() ? new_id(recovery_kind_name(kind)) : choice.recovery},
            {"item", item.id.to_string()},
            {"kind", std::string(recovery_kind_name(kind))},
            {"point", point},
            {"copy", copy},
            {"shut_down", choice.shut_down || choice.planned},
            {"planned", choice.planned},
            {"power_off", choice.power_off},
            {"timeout_s", choice.timeout_s},
            {"note", choice.note},
            {"network", choice.network ? network_word(*choice.network) : ""},
            {"compute", place.empty() ? std::string(kLocalHost) : place},
            {"usual_network", choice.usual_network ? network_word(*choice.usual_network) : ""},
            {"then", undecided_name(choice.undecided)},
            {"after_s", choice.undecided_s}};
        return vault_.start_job(job_kind, item, false, dump_json(input),
                                machine_work(dump_json(input)));
    };
    if (action == "test") {
        FS_TRY(check_action(item.state, ItemAction::kTestFailover));
        FS_TRY(replica->resolve(spec));  // a bad point is told at once, not by a job
        return machine_job(RecoveryKind::kTest, "test-failover");
    }
    if (action == "start") {
        // What is not a matter of the state, first.
        if (item.state != ItemState::kFailingOver)
            FS_TRY(check_action(item.state, ItemAction::kFailover));
        FS_TRY(replica->resolve(spec));
        return start_failover(item.id, spec, point, choice,
                              [&] { return machine_job(RecoveryKind::kFailover, "failover"); });
    }
    if (action == "cancel") {
        FS_TRY(check_action(item.state, ItemAction::kCancelFailover));
        return vault_.start_job("cancel-failover", item, false, item.id.to_string(),
                                cancel_work(item.id.to_string()));
    }
    if (action == "move") return move_machine(item, choice);
    if (action == "cleanup") {
        auto tests = of_item(item.id, RecoveryKind::kTest);
        std::erase_if(tests, [](const RecoveryState& test) {
            return test.id.starts_with(kDrillRecoveryPrefix);
        });
        const std::string& recovery = choice.recovery;
        if (!recovery.empty())
            std::erase_if(tests, [&](const RecoveryState& test) { return test.id != recovery; });
        if (tests.empty())
            return fail(
                Code::kNotFound,
                recovery.empty()
                    ? fmt::format("no test failover of '{}' is there to be cleaned up", item.name)
                    : fmt::format("'{}' has no test failover {}", item.name,
                                  recovery.substr(0, 64)),
                "`farshore failover list` shows them");
        return vault_.start_job(
            "cleanup", item, false, "", [this, tests](JobRun& run) -> Result<std::string> {
                size_t done = 0;
                for (const RecoveryState& test : tests) {
                    FS_TRY(run.report(static_cast<double>(done) / static_cast<double>(tests.size()),
                                      "ending " + test.id));
                    FS_TRY(recoveries_->clean_up(test.id));
                    ++done;
                }
                return fmt::format("{{\"cleaned_up\":{}}}", done);
            });
    }
    if (action != "change-point" && action != "commit" && action != "keep-open")
        return fail(Code::kInvalidArgument,
                    fmt::format("the action '{}' is not a way to fail over", action.substr(0, 64)),
                    "use test, start, change-point, move, commit, cancel, keep-open or cleanup");
    FS_TRY(check_action(item.state,
                        action == "change-point" ? ItemAction::kChangePoint : ItemAction::kCommit));
    FS_ASSIGN(const RecoveryState running, failover_of(item));
    const std::string id = running.id;
    if (action == "commit")
        return vault_.start_job("commit", item, false, "",
                                [this, id, item_id = item.id](JobRun&) -> Result<std::string> {
                                    FS_TRY(recoveries_->commit(id));
                                    FS_TRY(vault_.change_state(item_id, ItemState::kCommitted, {}));
                                    FS_ASSIGN(const RecoveryState state, recoveries_->get(id));
                                    return result_of(state);
                                });
    if (action == "keep-open")
        return vault_.start_job("keep-open", item, false, "",
                                [this, id](JobRun&) -> Result<std::string> {
                                    FS_TRY(recoveries_->keep_open(id));
                                    FS_ASSIGN(const RecoveryState state, recoveries_->get(id));
                                    return result_of(state);
                                });
    FS_ASSIGN(const ResolvedPoint resolved, replica->resolve(spec));
    FS_ASSIGN(auto point_disks, replica->disks_of(resolved.sequence));
    FS_ASSIGN(const MachineDescription machine, machine_of(item, std::move(point_disks)));
    return vault_.start_job(
        "change-point", item, false, "",
        [this, id, resolved, disks = machine.disks](JobRun& run) -> Result<std::string> {
            FS_TRY(run.report(0.2, "starting the machine at " + to_rfc3339(resolved.time)));
            FS_ASSIGN(const RecoveryState state,
                      recoveries_->change_point(id, resolved.sequence, resolved.time, disks));
            return result_of(state);
        });
}

Result<JobRecord> RecoveryDesk::start_as(const std::string& recovery, const std::string& item,
                                         const PlanRun& run, PlanSource source, uint32_t limit_s,
                                         const std::string& note) {
    const PlanMode mode = run.mode;
    const uint32_t patience_s = std::clamp(limit_s / 2, 1u, kMaxShutDownPatienceS);
    if (mode == PlanMode::kFailback)
        return returns_->failback(item, {.timeout_s = patience_s, .power_off = false});
    FailoverChoice choice;
    choice.timeout_s = patience_s;
    choice.shut_down = mode == PlanMode::kFailover && source == PlanSource::kShutDown;
    choice.planned = mode == PlanMode::kFailover && source == PlanSource::kPlanned;
    choice.note = note;
    choice.recovery = recovery;
    choice.network = run.network;
    choice.usual_network = usual_network_of(run);
    return failover(item, mode == PlanMode::kTest ? "test" : "start", run.point, {}, choice);
}

Status RecoveryDesk::clean_up_test(const std::string& recovery) {
    const auto state = recoveries_->get(recovery);
    if (!state) return {};
    if (state->kind != RecoveryKind::kTest)
        return fail(Code::kWrongState, fmt::format("recovery {} is a {}, no test", state->id,
                                                   recovery_kind_name(state->kind)));
    return give_up(*state, Recoveries::CleanUp::kOrdinary);
}

Result<RecoveryRequest> RecoveryDesk::test_request(const ItemId& id, const std::string& point) {
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), id));
    FS_TRY(check_action(item.state, ItemAction::kTestFailover));
    FS_ASSIGN(const auto replica, vault_.replica(id));
    FS_ASSIGN(const ResolvedPoint resolved, replica->resolve(PointSpec::parse(point)));
    FS_ASSIGN(auto disks, replica->disks_of(resolved.sequence));
    RecoveryRequest request;
    request.item = id;
    request.item_name = item.name;
    request.sequence = resolved.sequence;
    request.point_time = resolved.time;
    FS_ASSIGN(request.machine, machine_of(item, std::move(disks)));
    FS_ASSIGN(request.compute, place_of(id, {}));
    return request;
}

Result<std::vector<RecoveryState>> RecoveryDesk::failovers(const std::string& name) {
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    std::vector<RecoveryState> states = recoveries_->list();
    std::erase_if(states, [&](const RecoveryState& state) {
        return state.item != item.id || state.kind == RecoveryKind::kExport;
    });
    std::sort(states.begin(), states.end(), [](const RecoveryState& a, const RecoveryState& b) {
        return a.timings.requested > b.timings.requested;
    });
    return states;
}

Status RecoveryDesk::prepare_unprotect(const ItemRecord& item, bool force) {
    for (const RecoveryState& state : recoveries_->list()) {
        if (state.item != item.id || stands_alone(state)) continue;
        // Of all else its lease says that it is in the way.
        if (!force && state.committed && state.stage != RecoveryStage::kCleaning)
            return fail(
                Code::kWrongState,
                fmt::format("the machine of '{}' runs here, on disks of the vault's", item.name),
                fmt::format("`farshore failover hydrate {} --into DIRECTORY` gives it "
                            "files of its own, on which it goes on; --force ends it",
                            item.name));
        if (!force) continue;
        for (const auto& [index, disk] : state.own)
            if (is_own(state, index))
                vault_.event(Severity::kWarning, "file-left", &item,
                             fmt::format("disk {} of the machine of '{}', which is ended, was {} "
                                         "at its host: the file is left",
                                         index, item.name, disk.path));
        FS_TRY(give_up(state, Recoveries::CleanUp::kRemoveCommitted));
        const std::lock_guard hold(mutex_);
        exports_.erase(state.id);
    }
    return {};
}

}  // namespace farshore
