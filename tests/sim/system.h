// The simulated system of system_sim.h from the inside: the parts that run in it, and the class
// that starts them, plays guest and fate, and compares. One thread; what time it is says the
// SimWorld.
#pragma once

#include <fmt/core.h>

#include <map>
#include <optional>
#include <set>

#include "agent/capture_source.h"
#include "agent/compare_client.h"
#include "capture/tap.h"
#include "replica/item_replica.h"
#include "replica/memory_ledger.h"
#include "replica/replica_reader.h"
#include "replicate/log_sender.h"
#include "replicate/process_server.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/object_store.h"
#include "sim/world.h"
#include "system_model.h"
#include "system_parts.h"
#include "system_sim.h"

namespace farshore::system_sim {

inline constexpr char kDirtyPath[] = "capture/dirty";
inline constexpr char kSpillPath[] = "capture/spill";
inline const std::string kAddresses[] = {"appliance-0:7000", "appliance-1:7000"};

// What a seed draws once.
struct Shape {
    std::vector<uint64_t> disk_bytes;
    TapMode mode = TapMode::kInPath;
    uint64_t spill_bytes = 0;
    uint64_t rotate_us = 0;
    bool two_appliances = false;
    bool two_vaults = false;
    bool appliance_errors = false;
    bool appliance_read_errors = false;
    bool source_errors = false;
    bool compares = false;  // what may differ is compared before it is copied
    uint64_t guest_ops = 0;
    ProcessServerOptions server;
    ItemReplicaOptions replica;
    RetentionPolicy retention;
};

struct GuestOp {
    enum class Kind : uint8_t { kWrite, kWriteThrough, kZero, kUnmap, kDiscard, kFlush };
    Kind kind = Kind::kWrite;
    DiskIndex disk = 0;
    uint64_t offset = 0, length = 0;
    Bytes data;
    uint64_t change = 0;  // in the model; 0: changes nothing
    bool overlaps(const GuestOp& other) const {
        return disk == other.disk && offset < other.offset + other.length &&
               other.offset < offset + length;
    }
};

class System;

struct TapProgram {
    std::unique_ptr<File> spill;
    std::unique_ptr<Tap> tap;
};

// The source as the sender sees it, with an eye on what the appliance says.
class WatchedSource final : public RecordSource {
  public:
    WatchedSource(System& system, RecordSource& inner) : system_(system), inner_(inner) {}
    Sequence first_available() override { return inner_.first_available(); }
    Status resume(Sequence next, Sequence stored) override;
    Result<ByteView> next(size_t max_bytes) override { return inner_.next(max_bytes); }
    void release(Sequence received) override;
    void set_stored(Sequence stored) override;

  private:
    System& system_;
    RecordSource& inner_;
};

struct AgentProgram {
    std::unique_ptr<File> spill;
    std::unique_ptr<CaptureConsumer> consumer;
    std::unique_ptr<TapCommands> commands;
    std::unique_ptr<CaptureSource> source;
    std::unique_ptr<WatchedSource> watched;
    std::unique_ptr<Dialer> dialer;
    std::unique_ptr<LogSender> sender;
    std::unique_ptr<CompareClient> compare;
    std::optional<size_t> resync;  // a command that was posted
    PartyId instance;
    size_t appliance = 0;
};

struct VaultProgram {
    std::unique_ptr<ObjectStore> store;
    std::optional<VaultFence> fence;
    std::unique_ptr<ItemReplica> replica;
    std::vector<uint64_t> leases;
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
    T call(const std::function<T(ItemReplica&)>& body);
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
    System(uint64_t seed, Plant plant)
        : world_(seed),
          network_(world_),
          store_(world_),
          peek_(store_),
          plant_(plant),
          draw_(world_.fork("system")),
          guest_draw_(world_.fork("guest")),
          source_host_(world_.add_host("source")),
          appliance_hosts_{&world_.add_host("site-0"), &world_.add_host("site-1")},
          vault_hosts_{&world_.add_host("vault-0"), &world_.add_host("vault-1")} {
        item_.raw.fill(0x5a);
        draw_shape();
        setup_source();
        guest_ = &source_host_.add_process("guest", [this](SimProcess& self) {
            pending_.clear();
            guest_file_.clear();
            self.executor().post_after_us(1'000, [this] { guest_tick(); });
            return std::make_shared<int>(0);
        });
        tap_ =
            &source_host_.add_process("tap", [this](SimProcess& self) { return boot_tap(self); });
        agent_ = &source_host_.add_process("agent",
                                           [this](SimProcess& self) { return boot_agent(self); });
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
            if (power_loss) {
                process.host().power_on_after_us(world_.rng().between(1'000, 2'000'000));
            } else {
                process.restart_after_us(world_.rng().between(1'000, 800'000));
            }
        });
        source_host_.disk().on_operation(
            [this](SimProcess& process, DiskOp op, const std::string& path) {
                if (!death_at_write_ || &process != tap_ || op != DiskOp::kWrite ||
                    !path.starts_with("disks/"))
                    return;
                DeathPlan plan = *std::exchange(death_at_write_, std::nullopt);
                plan.at_operation += process.operations();
                process.plan_death(plan);
            });
        store_.on_remove([this](SimProcess*, const std::string&) {
            ++outcome_.removed;
            removed_since_check_ = true;
        });
    }
    ~System() { over_ = true; }

    SystemOutcome run();

    void breach(std::string what) {
        if (broken_.empty()) {
            broken_ = std::move(what);
            if (!broken_.ends_with('\n')) broken_ += '\n';
            broken_states_ = states();
            world_.trace("BROKEN", 0, 0, broken_.substr(0, 60));
        }
    }

    // ---- for the parts
    SimNetwork& network() { return network_; }
    SimProcess& vault_to_ask() {
        // For a while after a vault was replaced, some still ask the old one.
        if (active_vault_ == 1 && world_.buggify("system.asks_old_vault")) return *vaults_[0];
        return *vaults_[active_vault_];
    }
    const ItemId& item() const { return item_; }
    const Secret& key() const { return key_; }
    void resumed(Sequence next) {
        if (next > acked_received_ || shape_.two_appliances || shape_.appliance_read_errors) return;
        breach(fmt::format("{} was acknowledged as received, and now the appliance asks for {}\n",
                           acked_received_.v, next.v));
    }
    void answered() { ++outcome_.answers; }
    void heard_received(Sequence received) {
        acked_received_ = std::max(acked_received_, received);
    }
    void heard_stored(Sequence stored) {
        acked_stored_ = std::max(acked_stored_, stored);
        check_stored();
    }

  private:
    void draw_shape();
    void setup_source();
    Result<LogHeader> open_log(SimProcess& self);
    LogGeometry geometry() const;
    SystemModel::Disks source_content();
    std::shared_ptr<void> boot_tap(SimProcess& self);
    void tap_tick(TapProgram& program);
    void tap_copy(TapProgram& program);
    std::shared_ptr<void> boot_agent(SimProcess& self);
    void agent_tick(AgentProgram& program);
    void dial(AgentProgram& program);
    void ask_for_resync(AgentProgram& program);
    std::shared_ptr<void> boot_appliance(SimProcess& self, size_t index);
    std::shared_ptr<void> boot_vault(SimProcess& self, size_t index);
    Status open_vault(SimProcess& self, size_t index, VaultProgram& program);
    void vault_tick(SimProcess& self, size_t index, VaultProgram& program);
    void use_leases(SimProcess& self, VaultProgram& program);

    void guest_tick();
    GuestOp draw_op();
    void try_op(const std::shared_ptr<GuestOp>& op);
    Status change_source(const GuestOp& op);
    static Status apply_to(TapDisk& disk, const GuestOp& op);

    void strike();
    void fail_source_disk();
    void jump_clock(SimHost& host);
    void void_leases();
    SimProcess& any_process();
    void become_calm();
    bool protected_again();
    std::string states();

    bool vault_is_open(size_t index) {
        const auto program = vaults_[index]->program<VaultProgram>();
        return program != nullptr && program->replica != nullptr;
    }
    bool oracle_ready() const { return active_vault_ == 0 || ledger_ready_[1]; }
    void check_stored();
    void check(size_t samples);
    void compare(const std::vector<uint64_t>& sequences);

    SimWorld world_;
    SimNetwork network_;
    SimObjectStore store_;
    PeekStore peek_;
    MemoryLedger ledgers_[2];
    bool ledger_ready_[2] = {true, false};
    size_t active_vault_ = 0;
    const Plant plant_;
    Rng draw_, guest_draw_;
    Shape shape_;
    ItemId item_;
    Secret key_{Bytes(32, 0x17)};
    SystemModel model_;
    SystemOutcome outcome_;
    std::string broken_, broken_states_;
    const char* why_not_ = "";
    bool over_ = false;
    bool faults_ = false;

    SimHost& source_host_;
    SimHost* appliance_hosts_[2];
    SimHost* vault_hosts_[2];
    SimProcess* guest_ = nullptr;
    SimProcess* tap_ = nullptr;
    SimProcess* agent_ = nullptr;
    SimProcess* appliances_[2] = {};
    SimProcess* vaults_[2] = {};
    size_t address_ = 0;  // of the appliance that the agent is told to use

    // Guest.
    std::vector<std::shared_ptr<GuestOp>> pending_;
    std::map<DiskIndex, std::unique_ptr<FileDisk>> guest_file_;
    uint64_t guest_left_ = 0;
    int64_t guest_idle_until_us_ = 0;
    uint64_t guest_burst_ = 0;
    size_t guest_flushes_ = 0;                 // disks to flush before anything else
    std::optional<DeathPlan> death_at_write_;  // operations after the next write to the source

    // Oracle.
    Sequence acked_received_, acked_stored_;
    Sequence seen_stored_[2];
    bool removed_since_check_ = false;
    std::set<uint64_t> void_leases_;  // of the active vault
};

}  // namespace farshore::system_sim
