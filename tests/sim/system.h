// The simulated system of system_sim.h from the inside: machines, appliances, vaults and the store,
// and the class that starts them and plays fate. One thread; what time it is says the SimWorld.
#pragma once

#include <fmt/core.h>

#include <memory>
#include <optional>
#include <vector>

#include "machine.h"
#include "replica/item_replica.h"
#include "replica/memory_ledger.h"
#include "replicate/process_server.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/object_store.h"
#include "sim/world.h"
#include "system_parts.h"
#include "system_sim.h"

namespace farshore::system_sim {

inline const std::string kAddresses[] = {"appliance-0:7000", "appliance-1:7000"};

enum class Vaults : uint8_t {
    kOne,
    kRebuilt,  // another one takes the place of the first, with nothing but the store
    kShared,   // two nodes over one database: each takes over from the other, which merely slept
};

// What a seed draws once.
struct Shape {
    size_t machines = 1;
    bool one_host = false;  // all machines run on it
    bool two_appliances = false;
    Vaults vaults = Vaults::kOne;
    bool appliance_errors = false;
    bool appliance_read_errors = false;
    size_t puts = 1;  // of an appliance, side by side
    ProcessServerOptions server;
    ItemReplicaOptions replica;
    RetentionPolicy retention;
};

struct VaultProgram {
    std::unique_ptr<ObjectStore> store;
    std::optional<VaultFence> fence;
    struct Item {
        std::unique_ptr<ItemReplica> replica;
        std::vector<uint64_t> leases;
    };
    std::vector<Item> items;  // by machine; the replicas are there once all of them are open
    bool open = false;
};

class LossyLink final : public VaultLink {
  public:
    LossyLink(System& system, SimProcess& self) : system_(system), self_(self) {}
    Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) override;
    Status register_segment(const SegmentRegistration& registration) override;
    Status mark_idle(const ItemId& item, Epoch epoch, Sequence sequence, TimePoint time) override;
    Result<CompareAnswer> compare(const std::string& agent, const ItemId& item,
                                  const CompareQuestion& question) override;
    Result<std::string> sync_agent(const std::string&, const std::string&) override {
        return fail(Code::kUnsupported, "not here");
    }
    Result<std::string> enrol(const std::string&, const std::string&) override {
        return fail(Code::kUnsupported, "not here");
    }

  private:
    template <typename T>
    T call(const ItemId& item, const std::function<T(Machine&, VaultProgram&)>& body);
    System& system_;
    SimProcess& self_;
};

struct ApplianceProgram {
    std::unique_ptr<ObjectStore> store;
    std::unique_ptr<LossyLink> link;
    std::unique_ptr<ProcessServer> server;
    std::unique_ptr<SimListener> listener;
};

class System {
  public:
    System(uint64_t seed, Plant plant);
    ~System() { over_ = true; }

    SystemOutcome run();

    // ---- for the parts
    SimWorld& world() { return world_; }
    SimNetwork& network() { return network_; }
    ObjectStore& peek() { return peek_; }
    Plant plant() const { return plant_; }
    SystemOutcome& outcome() { return outcome_; }
    const Shape& shape() const { return shape_; }
    bool faults_on() const { return faults_; }
    // What was broken first is what counts.
    void breach(std::string what);
    bool broken() const { return !broken_.empty(); }
    Machine* machine_of(const ItemId& item);
    SimProcess& vault_to_ask();
    // The database of the vault that is in charge.
    size_t database() const { return database_of(active_vault_); }
    MemoryLedger& ledger(size_t machine) { return *ledgers_[database()][machine]; }
    bool oracle_ready() const { return ledger_ready_[database()]; }
    SimHost& vault_host() { return *vault_hosts_[active_vault_]; }
    // By the clock of any node that might look.
    bool expired(const LeaseRow& lease);

  private:
    void draw_shape();
    size_t database_of(size_t vault) const { return shape_.vaults == Vaults::kShared ? 0 : vault; }
    std::shared_ptr<void> boot_appliance(SimProcess& self, size_t index);
    std::shared_ptr<void> boot_vault(SimProcess& self, size_t index);
    Status open_vault(SimProcess& self, size_t index, VaultProgram& program);
    void vault_tick(SimProcess& self, size_t index, VaultProgram& program);
    void upkeep(VaultProgram& program, size_t machine);
    void use_leases(VaultProgram::Item& item);
    Status on_commit(const char* commit, bool after);

    void strike();
    void jump_clock(SimHost& host);
    void void_leases();
    SimProcess& any_process(Machine& machine);
    void cut_off(SimHost& a, SimHost& b);
    void die_at_any_operation(SimProcess& victim);
    void lose_power(SimHost& host);
    void burst_into_a_partition(Machine& machine);
    void first_write_after_calm(Machine& machine);
    void change_places(Machine& machine);
    void lose_appliance(size_t index);
    void take_over();
    void take_over_within(const char* commit);
    void become_calm();
    void settle();
    bool protected_again();
    std::string states();
    void check(size_t samples);

    bool vault_is_open(size_t index) {
        const auto program = vaults_[index]->program<VaultProgram>();
        return program != nullptr && program->open;
    }

    SimWorld world_;
    SimNetwork network_;
    SimObjectStore store_;
    PeekStore peek_;
    const Plant plant_;
    Rng draw_;
    Shape shape_;
    std::vector<std::unique_ptr<MemoryLedger>> ledgers_[2];  // by database, by machine
    bool ledger_ready_[2] = {true, false};
    size_t active_vault_ = 0;
    bool taken_over_ = false;
    bool taking_over_ = false;
    SystemOutcome outcome_;
    std::string broken_, broken_states_;
    bool over_ = false;
    bool faults_ = false;

    std::vector<SimHost*> source_hosts_;
    SimHost* appliance_hosts_[2];
    SimHost* vault_hosts_[2];
    std::vector<std::unique_ptr<Machine>> machines_;
    SimProcess* appliances_[2] = {};
    SimProcess* vaults_[2] = {};
    std::optional<size_t> lost_appliance_;
};

}  // namespace farshore::system_sim
