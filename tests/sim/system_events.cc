// What strikes the simulated system.
#include <algorithm>

#include "system.h"

namespace farshore::system_sim {

SimProcess& System::any_process(Machine& machine) {
    // Half of them where most of the state is.
    switch (draw_.below(8)) {
        case 0:
        case 1:
            return machine.tap();
        case 2:
            return machine.agent();
        case 3:
        case 4:
            return *appliances_[machine.address()];
        case 5:
            return *appliances_[shape_.two_appliances ? draw_.below(2) : 0];
        default:
            return *vaults_[active_vault_];
    }
}

bool System::expired(const LeaseRow& lease) {
    if (lease.expires <= vault_host().clock().now()) return true;
    return shape_.vaults == Vaults::kShared &&
           lease.expires <= vault_hosts_[1 - active_vault_]->clock().now();
}

void System::void_leases() {
    for (auto& machine : machines_) machine->void_leases();
}

void System::jump_clock(SimHost& host) {
    void_leases();
    const int64_t by_us = draw_.coin() ? draw_.between(-20'000'000, 20'000'000)
                                       : draw_.between(-3'600'000'000, 3'600'000'000);
    host.clock().jump_wall_us(by_us);
    void_leases();
}

void System::cut_off(SimHost& a, SimHost& b) {
    network_.partition(a, b);
    world_.after_us(draw_.between(100'000, 9'000'000), [this, &a, &b] { network_.heal(a, b); });
}

void System::die_at_any_operation(SimProcess& victim) {
    if (!victim.alive()) return;
    DeathPlan plan;
    plan.at_operation = victim.operations() + 1 + draw_.below(draw_.coin() ? 12 : 60);
    plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
    plan.power_loss = draw_.below(3) == 0;
    victim.plan_death(plan);
    world_.run_until([&] { return !victim.alive(); }, 1'500'000);
}

void System::lose_power(SimHost& host) {
    if (!host.up()) return;
    ++outcome_.power_losses;
    host.lose_power();
    // Also when nothing lived there that could tell on_death.
    host.power_on_after_us(draw_.between(1'000, 2'000'000));
}

void System::burst_into_a_partition(Machine& machine) {
    machine.burst(20 + draw_.below(30), 15);
    cut_off(machine.host(), *appliance_hosts_[machine.address()]);
    if (draw_.coin()) return;
    // What was written is in the log alone; that is lost as well, when the disks have been flushed
    // and the dirty map has had time for a rotation.
    world_.run_for_us(draw_.between(100'000, 800'000));
    const int64_t rest_us = draw_.between(200'000, 2'500'000);
    machine.flush_then_idle(world_.now_us() + rest_us);
    world_.run_for_us(rest_us);
    lose_power(machine.host());
}

// All is stored and the dirty map is clean; then the first write meets a power loss.
void System::first_write_after_calm(Machine& machine) {
    const int64_t rest_us = draw_.between(4'000'000, 9'000'000);
    machine.flush_then_idle(world_.now_us() + rest_us);
    world_.run_for_us(rest_us);
    machine.at_least_guest_ops(5);
    if (!machine.tap().alive()) return;
    DeathPlan plan;
    // A mark is two writes and a sync.
    plan.at_operation = 1 + draw_.below(draw_.coin() ? 3 : 6);
    plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
    plan.power_loss = draw_.below(4) != 0;
    machine.die_at_write(plan);
    world_.run_until([&] { return !machine.tap().alive(); }, 800'000);
    machine.die_at_write(std::nullopt);
}

// Its machines are given to the other one; what it had received and not stored is gone.
void System::lose_appliance(size_t index) {
    if (lost_appliance_ || !appliance_hosts_[index]->up()) return;
    lost_appliance_ = index;
    ++outcome_.lost_appliances;
    appliance_hosts_[index]->lose_power();
    for (auto& machine : machines_) machine->set_address(1 - index);
}

// Another node claims the store. Over one database the old one is not told: it has only slept.
void System::take_over() {
    if (shape_.vaults == Vaults::kOne || !vault_is_open(active_vault_)) return;
    if (shape_.vaults == Vaults::kRebuilt && taken_over_) return;
    void_leases();
    taken_over_ = true;
    ++outcome_.take_overs;
    active_vault_ = 1 - active_vault_;
    SimProcess& vault = *vaults_[active_vault_];
    // One that was in charge before begins anew.
    if (vault.alive() && vault_is_open(active_vault_))
        vault.kill();
    else if (vault.life() == 0)
        vault.start();
}

// The node in charge falls asleep right before a commit: when it goes on, the other one has claimed
// the store, opened all items and handed out a lease of some.
void System::take_over_within(const char* commit) {
    if (shape_.vaults != Vaults::kShared || taking_over_ || !faults_) return;
    SimProcess& other = *vaults_[1 - active_vault_];
    const auto program = other.program<VaultProgram>();
    if (!other.alive() || program == nullptr || program->open || program->fence ||
        !world_.buggify("system.sleeps_in_commit"))
        return;
    world_.trace("vault.sleeps", 0, 0, commit);
    void_leases();
    taking_over_ = true;
    taken_over_ = true;
    ++outcome_.take_overs;
    active_vault_ = 1 - active_vault_;
    other.run([&] {
        if (!open_vault(other, active_vault_, *program)) return;
        for (VaultProgram::Item& item : program->items)
            if (draw_.coin()) (void)item.replica->acquire_log("nobody");
    });
    taking_over_ = false;
}

void System::change_places(Machine& machine) {
    if (shape_.two_appliances && !lost_appliance_ && draw_.coin()) {
        if (draw_.below(3) == 0) return lose_appliance(machine.address());
        machine.set_address(1 - machine.address());
    } else {
        take_over();
    }
}

void System::strike() {
    Machine& machine = *machines_[draw_.below(machines_.size())];
    SimHost& source = machine.host();
    SimHost& appliance = *appliance_hosts_[machine.address()];
    SimHost* const hosts[] = {&source, &appliance, &vault_host()};
    SimHost& host = *hosts[draw_.below(3)];
    switch (draw_.below(20)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
            return die_at_any_operation(any_process(machine));
        case 6: {
            SimProcess& victim = any_process(machine);
            if (victim.alive()) victim.kill();
            return;
        }
        case 7:
        case 8:
            return lose_power(host);
        case 9:
            return cut_off(source, appliance);
        case 10:
            return cut_off(appliance, vault_host());
        case 11:
            return network_.clog(source, appliance, draw_.between(100'000, 4'000'000));
        case 12:
            if (draw_.coin())
                network_.reset(source, appliance);
            else
                network_.half_open(appliance, source);
            return;
        case 13:
            store_.set_outage(true);
            world_.after_us(draw_.between(200'000, 5'000'000),
                            [this] { store_.set_outage(false); });
            return;
        case 14:
            return burst_into_a_partition(machine);
        case 15:
        case 16:
            return first_write_after_calm(machine);
        case 17:
            return jump_clock(host);
        case 18:
            if (machine.shape().disk_errors) machine.fail_disk();
            return;
        default:
            return change_places(machine);
    }
}

void System::become_calm() {
    world_.trace("calm");
    faults_ = false;
    world_.faults().enable(false);
    store_.allow_errors(false);
    store_.allow_damaged_reads(false);
    store_.set_outage(false);
    for (SimHost* host : appliance_hosts_) host->disk().allow_errors(false);
    for (auto& machine : machines_) {
        machine->tap().plan_death({});
        machine->agent().plan_death({});
        machine->at_most_guest_ops(10);
    }
    for (SimProcess* process : {appliances_[0], appliances_[1], vaults_[0], vaults_[1]})
        process->plan_death({});
    // fail_next() that did not happen yet still may: it is a transient error of a machine's disk.
    network_.heal_all();
}

}  // namespace farshore::system_sim
