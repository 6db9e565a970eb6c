#include "system_sim.h"

#include <algorithm>
#include <cstdlib>

#include "system.h"

namespace farshore::system_sim {

namespace {

// How many lines of the trace a failure prints.
size_t report_lines() {
    const char* text = std::getenv("FARSHORE_TRACE");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 80;
}

}  // namespace

void System::draw_shape() {
    Rng& d = draw_;
    const uint64_t machines = d.below(6);
    shape_.machines = machines < 3 ? 1 : machines < 5 ? 2 : 3;
    if (plant_ == Plant::kForeignAck) shape_.machines = std::max<size_t>(shape_.machines, 2);
    shape_.one_host = d.below(4) == 0;
    shape_.two_appliances = d.below(4) == 0;
    const uint64_t vaults = d.below(8);
    shape_.vaults = vaults < 2 ? Vaults::kRebuilt : vaults < 4 ? Vaults::kShared : Vaults::kOne;
    shape_.appliance_errors = d.below(3) == 0;
    shape_.appliance_read_errors = shape_.appliance_errors && d.below(3) == 0;

    ProcessServerOptions& s = shape_.server;
    s.spool_directory = "spool";
    s.spool_bytes = (256u << 10) << d.below(4);
    s.spool_file_bytes = (32u << 10) << d.below(4);
    s.window_bytes = (64u << 10) << d.below(4);
    s.build_queue_bytes = (32u << 10) << d.below(6);
    s.segment_payload_bytes = (32u << 10) << d.below(4);
    s.segment_age_us = d.between(20'000, 250'000);
    s.segment_max_age_us = d.between(100'000, 1'000'000);
    // Of its own stream: what a seed drew before this came it draws still.
    Rng puts = world_.fork("puts");
    shape_.puts = 1 + puts.below(10);
    s.sealed_bytes = (64u << 10) << puts.below(8);
    s.planted.ack_before_sync = plant_ == Plant::kAckBeforeSync;
    s.planted.stored_before_registered = plant_ == Plant::kStoredBeforeRegistered;
    s.planted.swap_segments = plant_ == Plant::kSwapSegments;
    s.planted.stored_out_of_order = plant_ == Plant::kStoredOutOfOrder;
    // It bites only where several are under way.
    if (s.planted.stored_out_of_order) {
        shape_.puts = std::max<size_t>(shape_.puts, 3);
        s.sealed_bytes = 8u << 20;
    }
    s.planted.foreign_ack = plant_ == Plant::kForeignAck;

    shape_.replica.checkpoint_segments = 2 + d.below(12);
    shape_.replica.checkpoint_entries = 20 + d.below(300);
    shape_.replica.max_manifests = 3 + d.below(6);
    shape_.replica.planted.wrong_disk_set = plant_ == Plant::kWrongDiskSet;
    RetentionPolicy& r = shape_.retention;
    r.window_us = d.between(2'000'000, 12'000'000);
    r.grace_us = d.below(4) == 0 ? 21'000'000 : d.between(200'000, 3'000'000);
    r.rewrite_below_percent = static_cast<uint32_t>(d.below(4) * 30);
    r.rewrite_min_bytes = 0;
    r.rewrite_bytes = (64u << 10) << d.below(6);
    r.rewrite_memory_bytes = 500'000;  // several times in one run
    r.small_object_bytes = 64u << 10;
    r.small_objects = 2 + d.below(10);
    // Of every second seed points stay below the window.
    if (world_.seed() % 2 != 0)
        r.grid = RetentionGrid::of({{2'000'000, 20'000'000}, {10'000'000, 120'000'000}});
    r.planted.delete_too_early = plant_ == Plant::kDeleteTooEarly;
}

System::System(uint64_t seed, Plant plant)
    : world_(seed),
      network_(world_),
      store_(world_),
      peek_(store_),
      plant_(plant),
      draw_(world_.fork("system")),
      appliance_hosts_{&world_.add_host("site-0"), &world_.add_host("site-1")},
      vault_hosts_{&world_.add_host("vault-0"), &world_.add_host("vault-1")} {
    draw_shape();
    outcome_.machines = shape_.machines;
    for (size_t i = 0; i < shape_.machines; ++i) {
        if (i == 0 || !shape_.one_host)
            source_hosts_.push_back(&world_.add_host(fmt::format("source-{}", i)));
        machines_.push_back(
            std::make_unique<Machine>(*this, i, shape_.machines, *source_hosts_.back()));
        // Some begin at the other appliance.
        if (shape_.two_appliances) machines_.back()->set_address(i % 2);
        for (auto& database : ledgers_) {
            database.push_back(std::make_unique<MemoryLedger>());
            database.back()->set_hook(
                [this](const char* commit, bool after) { return on_commit(commit, after); });
        }
    }
    for (size_t i = 0; i < 2; ++i) {
        appliances_[i] = &appliance_hosts_[i]->add_process(
            fmt::format("appliance-{}", i),
            [this, i](SimProcess& self) { return boot_appliance(self, i); });
        vaults_[i] = &vault_hosts_[i]->add_process(
            fmt::format("vault-{}", i),
            [this, i](SimProcess& self) { return boot_vault(self, i); });
    }
    world_.on_death([this](SimProcess& process, bool power_loss) {
        ++outcome_.deaths;
        if (over_) return;
        if (lost_appliance_ && &process == appliances_[*lost_appliance_]) return;
        if (power_loss) {
            process.host().power_on_after_us(world_.rng().between(1'000, 2'000'000));
        } else {
            process.restart_after_us(world_.rng().between(1'000, 800'000));
        }
    });
    for (SimHost* host : source_hosts_)
        host->disk().on_operation([this](SimProcess& process, DiskOp op, const std::string& path) {
            for (auto& machine : machines_) machine->on_disk_operation(process, op, path);
        });
    store_.on_remove([this](SimProcess*, const std::string&) {
        ++outcome_.removed;
        for (auto& machine : machines_) machine->removed_something();
    });
}

void System::breach(std::string what) {
    if (broken()) return;
    broken_ = std::move(what);
    if (!broken_.ends_with('\n')) broken_ += '\n';
    broken_states_ = states();
    world_.trace("BROKEN", 0, 0, broken_.substr(0, 60));
}

Machine* System::machine_of(const ItemId& item) {
    for (auto& machine : machines_)
        if (machine->item() == item) return machine.get();
    return nullptr;
}

SimProcess& System::vault_to_ask() {
    // For a while after a vault was replaced, some still ask the old one.
    if (taken_over_ && world_.buggify("system.asks_old_vault")) return *vaults_[1 - active_vault_];
    return *vaults_[active_vault_];
}

void System::check(size_t samples) {
    for (auto& machine : machines_) machine->check_stored();
    if (samples > 1) {
        for (auto& machine : machines_) machine->check(samples);
    } else {
        machines_[draw_.below(machines_.size())]->check(samples);
    }
}

bool System::protected_again() {
    return broken() || std::ranges::all_of(machines_, [](const auto& machine) {
               return machine->protected_again();
           });
}

std::string System::states() {
    std::string out;
    for (auto& machine : machines_) out += machine->states();
    for (SimProcess* process : appliances_) {
        const auto p = process->program<ApplianceProgram>();
        if (p == nullptr || p->server == nullptr) continue;
        for (const IntakeStatus& s : p->server->status())
            out += fmt::format(
                "{}: item {}: connected {}, received {}, stored {}, spool {}, queued {}, {}\n",
                process->name(), machine_of(s.item)->index(), s.connected, s.received.v, s.stored.v,
                s.spool_bytes, s.queued_bytes, s.last_error);
    }
    const char* const vaults[] = {"one vault", "a rebuilt vault", "two nodes"};
    return out + fmt::format(
                     "network: {} dials, {} failed\n{} machine(s) on {} host(s), {} "
                     "appliance(s), {}, vault {} in charge, appliance errors {}\n",
                     network_.counters().dials, network_.counters().dials_failed, machines_.size(),
                     source_hosts_.size(), shape_.two_appliances ? 2 : 1,
                     vaults[static_cast<size_t>(shape_.vaults)], active_vault_,
                     shape_.appliance_errors);
}

// From here on nothing strikes: everything must be protected again.
void System::settle() {
    const int64_t from_us = world_.now_us();
    const bool again = world_.run_until([this] { return protected_again(); }, kProtectedAgainUs);
    outcome_.calm_us = std::max(outcome_.calm_us, world_.now_us() - from_us);
    for (auto& machine : machines_)
        if (!again && !machine->protected_again())
            breach(fmt::format("machine {} is not protected again: {}", machine->index(),
                               machine->why_not()));
    check(3);
    for (auto& machine : machines_) {
        if (broken()) return;
        if (!machine->log_is_source())
            return breach(fmt::format("machine {}: the log does not say what the source is",
                                      machine->index()));
        if (machine->newest_checked() < ledger(machine->index()).state()->stored)
            return breach(
                fmt::format("machine {}: what is stored is not offered", machine->index()));
    }
}

SystemOutcome System::run() {
    const bool quiet_start = draw_.coin();
    vaults_[0]->start();
    if (shape_.vaults == Vaults::kShared) vaults_[1]->start();
    for (size_t i = 0; i < (shape_.two_appliances ? 2 : 1); ++i) appliances_[i]->start();
    for (auto& machine : machines_) {
        machine->set_guest_ops(machine->shape().guest_ops);
        machine->start();
    }
    if (quiet_start) world_.run_until([this] { return protected_again(); }, 4'000'000);
    faults_ = true;
    world_.faults().enable(draw_.below(5) != 0);
    for (SimHost* host : appliance_hosts_) host->disk().allow_errors(shape_.appliance_errors);
    if (!shape_.appliance_read_errors) world_.faults().force("disk.read_error", 0);
    // They bite only what finds no room while it is compared, and what the dirty map lets go of.
    if (plant_ == Plant::kStaleCompare) world_.faults().force("capture.no_room", 50'000);
    if (plant_ == Plant::kUnmarkTooEarly) world_.faults().force("tap.forced_flush", 300'000);
    store_.allow_errors(draw_.coin());
    // A put that takes effect after its time-out must do so within the grace of deletion, which is
    // ten minutes in production: otherwise a manifest may appear whose shards are gone.
    if (shape_.retention.grace_us < 20'000'000) world_.faults().force("store.late_effect", 0);
    if (shape_.vaults != Vaults::kRebuilt) store_.allow_damaged_reads(draw_.below(4) == 0);

    for (uint64_t strikes = 2 + draw_.below(6); strikes > 0 && !broken(); --strikes) {
        world_.run_for_us(draw_.between(50'000, 2'500'000));
        check(1);
        strike();
    }
    world_.run_for_us(draw_.between(50'000, 1'500'000));
    check(2);
    become_calm();
    settle();
    // Everything is stored; a crash of a source now, or in the middle of what it writes next, must
    // lose nothing either.
    if (!broken() && draw_.below(3) == 0) {
        SimHost& host = *source_hosts_[draw_.below(source_hosts_.size())];
        for (auto& machine : machines_) machine->set_guest_ops(3 + draw_.below(10));
        world_.run_for_us(draw_.between(0, 150'000));
        if (host.up()) host.lose_power();
        world_.run_until(
            [&] {
                return std::ranges::all_of(machines_, [](const auto& machine) {
                    return machine->host().up() && machine->tap().alive();
                });
            },
            10'000'000);
        settle();
    }
    for (const std::string& name : store_.names())
        if (!name.starts_with("vault/") &&
            std::ranges::none_of(machines_, [&](const auto& machine) {
                return name.starts_with(item_prefix(machine->item()));
            }))
            breach(fmt::format("object {} belongs to nobody\n", name));
    outcome_.gaps = 0;
    for (auto& machine : machines_) outcome_.gaps += machine->gaps();
    over_ = true;
    if (broken()) outcome_.broken = broken_ + broken_states_ + world_.report(report_lines());
    outcome_.hash = world_.trace_hash();
    outcome_.faults = world_.faults();
    return outcome_;
}

std::string plant_name(Plant plant) {
    switch (plant) {
        case Plant::kNone:
            return "none";
        case Plant::kAckBeforeSync:
            return "ack_before_sync";
        case Plant::kStoredBeforeRegistered:
            return "stored_before_registered";
        case Plant::kStoredOutOfOrder:
            return "stored_out_of_order";
        case Plant::kSwapSegments:
            return "swap_segments";
        case Plant::kMarkTooLate:
            return "mark_too_late";
        case Plant::kLostGap:
            return "lost_gap";
        case Plant::kWrongOrder:
            return "wrong_order";
        case Plant::kDeleteTooEarly:
            return "delete_too_early";
        case Plant::kSkippedSum:
            return "skipped_sum";
        case Plant::kEarlyEnd:
            return "early_end";
        case Plant::kStaleCompare:
            return "stale_compare";
        case Plant::kUnmarkTooEarly:
            return "unmark_too_early";
        case Plant::kWrongDisk:
            return "wrong_disk";
        case Plant::kWrongDiskSet:
            return "wrong_disk_set";
        case Plant::kForeignAck:
            return "foreign_ack";
    }
    return "?";
}

SystemOutcome run_system(uint64_t seed, Plant plant) { return System(seed, plant).run(); }

}  // namespace farshore::system_sim
