// One protected machine of the simulated system: its disks, guest, tap and agent, and what the
// oracle knows of it. It lives on a host of its own, or shares one with the others. One thread.
#pragma once

#include <fmt/core.h>

#include <map>
#include <optional>
#include <set>

#include "agent/capture_source.h"
#include "agent/compare_client.h"
#include "capture/tap.h"
#include "replica/memory_ledger.h"
#include "replica/replica_reader.h"
#include "replicate/log_sender.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/world.h"
#include "system_model.h"
#include "system_parts.h"
#include "system_sim.h"

namespace farshore::system_sim {

// What a seed draws once for a machine.
struct MachineShape {
    std::vector<uint64_t> disk_bytes;
    TapMode mode = TapMode::kInPath;
    uint64_t spill_bytes = 0;
    uint64_t rotate_us = 0;
    bool disk_errors = false;
    bool compares = false;  // what may differ is compared before it is copied
    uint64_t guest_ops = 0;
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

class Machine;
class System;

struct TapProgram {
    std::unique_ptr<File> spill;
    std::unique_ptr<Tap> tap;
};

// The source as the sender sees it, with an eye on what the appliance says.
class WatchedSource final : public RecordSource {
  public:
    WatchedSource(Machine& machine, RecordSource& inner) : machine_(machine), inner_(inner) {}
    Sequence first_unstored() override { return inner_.first_unstored(); }
    Status resume(Sequence next, Sequence stored) override;
    Result<ByteView> next(size_t max_bytes) override { return inner_.next(max_bytes); }
    void release(Sequence received) override;
    void set_stored(Sequence stored) override;

  private:
    Machine& machine_;
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

class Machine {
  public:
    // `machines`: so many share the work that a seed has.
    Machine(System& system, size_t index, size_t machines, SimHost& host);

    size_t index() const { return index_; }
    const ItemId& item() const { return item_; }
    const Secret& key() const { return key_; }
    std::string agent_name() const { return fmt::format("agent-{}", index_); }
    const MachineShape& shape() const { return shape_; }
    SimHost& host() { return host_; }
    SimProcess& tap() { return *tap_; }
    SimProcess& agent() { return *agent_; }
    // Of the appliance that its agent is told to use.
    size_t address() const { return address_; }
    void set_address(size_t appliance) { address_ = appliance; }

    void start();
    // ---- guest
    void set_guest_ops(uint64_t ops) { guest_left_ = ops; }
    void at_most_guest_ops(uint64_t ops) { guest_left_ = std::min(guest_left_, ops); }
    void at_least_guest_ops(uint64_t ops) { guest_left_ = std::max(guest_left_, ops); }
    // So many requests in quick succession, and so many more than it would have done.
    void burst(uint64_t quick, uint64_t more);
    // Flushes its disks and rests.
    void flush_then_idle(int64_t until_us);
    // ---- faults
    void fail_disk();
    // The tap dies so many operations after the next write to a disk; nothing: not any more.
    void die_at_write(std::optional<DeathPlan> plan) { death_at_write_ = plan; }
    void on_disk_operation(SimProcess& process, DiskOp op, const std::string& path);

    // ---- oracle
    void check_stored();
    // Compares points that are offered with what was: the newest, leased ones, and `samples`.
    void check(size_t samples);
    void compare(const std::vector<uint64_t>& sequences);
    // The newest point of the last check.
    Sequence newest_checked() const { return newest_checked_; }
    bool protected_again();
    const char* why_not() const { return why_not_; }
    // The disks are what the log says that they are.
    bool log_is_source();
    void removed_something() { removed_since_check_ = true; }
    // Leases that ran out before or after a clock jumped are no longer kept, whatever it says
    // later.
    void void_leases();
    void forget_void_leases() { void_leases_.clear(); }
    uint64_t gaps() const;
    std::string states();

    // ---- for its parts
    void resumed(Sequence next);
    void heard_received(Sequence received);
    void heard_stored(Sequence stored);

  private:
    void breach(const std::string& what);
    void draw_shape(size_t machines);
    void make_disks();
    std::string disk_path(size_t disk) const { return fmt::format("{}/{}", disks_, disk); }
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
    void guest_tick();
    GuestOp draw_op();
    void try_op(const std::shared_ptr<GuestOp>& op);
    Status change_source(const GuestOp& op);
    static Status apply_to(TapDisk& disk, const GuestOp& op);

    System& system_;
    SimWorld& world_;
    SimNetwork& network_;
    SystemOutcome& outcome_;
    const Plant plant_;
    const size_t index_;
    SimHost& host_;
    Rng draw_, guest_draw_;
    ItemId item_;
    const Secret key_;
    const std::string disks_, capture_, dirty_path_, spill_path_;
    MachineShape shape_;
    SystemModel model_;
    SimProcess* guest_ = nullptr;
    SimProcess* tap_ = nullptr;
    SimProcess* agent_ = nullptr;
    size_t address_ = 0;

    // Guest.
    std::vector<std::shared_ptr<GuestOp>> pending_;
    std::map<DiskIndex, std::unique_ptr<FileDisk>> guest_file_;
    uint64_t guest_left_ = 0;
    int64_t guest_idle_until_us_ = 0;
    uint64_t guest_burst_ = 0;
    size_t guest_flushes_ = 0;  // disks to flush before anything else
    std::optional<DeathPlan> death_at_write_;

    // Oracle.
    const char* why_not_ = "";
    Sequence acked_received_, acked_stored_;
    Sequence seen_stored_[2];  // by database
    bool removed_since_check_ = false;
    Sequence newest_checked_;
    std::set<uint64_t> void_leases_;
};

}  // namespace farshore::system_sim
