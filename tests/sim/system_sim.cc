#include "system_sim.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include "agent/capture_source.h"
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

namespace farshore::system_sim {
namespace {

constexpr char kDirtyPath[] = "capture/dirty";
constexpr char kSpillPath[] = "capture/spill";
const std::string kAddresses[] = {"appliance-0:7000", "appliance-1:7000"};

// How many lines of the trace a failure prints.
size_t report_lines() {
    const char* text = std::getenv("FARSHORE_TRACE");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 80;
}

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
    void resumed(Sequence next) {
        if (next > acked_received_ || shape_.two_appliances || shape_.appliance_read_errors) return;
        breach(fmt::format("{} was acknowledged as received, and now the appliance asks for {}\n",
                           acked_received_.v, next.v));
    }
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

Status WatchedSource::resume(Sequence next, Sequence stored) {
    system_.resumed(next);
    system_.heard_stored(stored);
    return inner_.resume(next, stored);
}
void WatchedSource::release(Sequence received) {
    system_.heard_received(received);
    inner_.release(received);
}
void WatchedSource::set_stored(Sequence stored) {
    system_.heard_stored(stored);
    inner_.set_stored(stored);
}

template <typename T>
T LossyLink::call(const std::function<T(ItemReplica&)>& body) {
    std::optional<T> result;
    SimProcess& vault = system_.vault_to_ask();
    const Status called = system_.network().call(self_, vault, [&] {
        const auto program = vault.program<VaultProgram>();
        if (program == nullptr || program->replica == nullptr)
            result.emplace(fail(Code::kUnavailable, "the vault is starting"));
        else
            result.emplace(body(*program->replica));
    });
    if (!called) return fail(called.error());
    return std::move(*result);
}
Result<LogLease> LossyLink::acquire_log(const ItemId&, const std::string& appliance) {
    return call<Result<LogLease>>([&](ItemReplica& r) { return r.acquire_log(appliance); });
}
Status LossyLink::register_segment(const SegmentRegistration& registration) {
    return call<Status>([&](ItemReplica& r) { return r.register_segment(registration); });
}
Status LossyLink::mark_idle(const ItemId&, Epoch epoch, Sequence sequence, TimePoint time) {
    return call<Status>([&](ItemReplica& r) { return r.mark_idle(epoch, sequence, time); });
}

// ---- shape
// ---------------------------------------------------------------------------------------

void System::draw_shape() {
    Rng& d = draw_;
    const uint64_t disks = 1 + d.below(3);
    for (uint64_t i = 0; i < disks; ++i) {
        uint64_t size = (i == 0 ? 512u << 10 : 64u << 10) + d.below((i == 0 ? 1200u : 500u) << 10);
        if (d.coin()) size = size / 4096 * 4096;
        if (i == 0 && d.below(6) == 0) size += 2u << 20;
        shape_.disk_bytes.push_back(size);
    }
    shape_.mode = d.below(4) == 0 ? TapMode::kMirror : TapMode::kInPath;
    shape_.spill_bytes = d.below(3) == 0 ? 0 : (128u << 10) << d.below(3);
    shape_.rotate_us = static_cast<uint64_t>(d.between(100'000, 800'000));
    shape_.two_appliances = d.below(4) == 0;
    shape_.two_vaults = d.below(4) == 0;
    shape_.appliance_errors = d.below(3) == 0;
    shape_.appliance_read_errors = shape_.appliance_errors && d.below(3) == 0;
    shape_.source_errors = d.below(4) == 0;
    shape_.guest_ops = 60 + d.below(160);

    ProcessServerOptions& s = shape_.server;
    s.spool_directory = "spool";
    s.spool_bytes = (256u << 10) << d.below(4);
    s.spool_file_bytes = (32u << 10) << d.below(4);
    s.window_bytes = (64u << 10) << d.below(4);
    s.build_queue_bytes = (32u << 10) << d.below(6);
    s.segment_payload_bytes = (32u << 10) << d.below(4);
    s.segment_age_us = d.between(20'000, 250'000);
    s.segment_max_age_us = d.between(100'000, 1'000'000);
    s.planted.ack_before_sync = plant_ == Plant::kAckBeforeSync;
    s.planted.stored_before_registered = plant_ == Plant::kStoredBeforeRegistered;
    s.planted.swap_segments = plant_ == Plant::kSwapSegments;

    shape_.replica.checkpoint_segments = 2 + d.below(12);
    shape_.replica.checkpoint_entries = 20 + d.below(300);
    shape_.replica.max_manifests = 3 + d.below(6);
    RetentionPolicy& r = shape_.retention;
    r.window_us = d.between(2'000'000, 12'000'000);
    r.grace_us = d.below(4) == 0 ? 21'000'000 : d.between(200'000, 3'000'000);
    r.rewrite_below_percent = static_cast<uint32_t>(d.below(4) * 30);
    r.rewrite_min_bytes = 0;
    r.rewrite_bytes = (64u << 10) << d.below(6);
    r.small_object_bytes = 64u << 10;
    r.small_objects = 2 + d.below(10);
    r.planted.delete_too_early = plant_ == Plant::kDeleteTooEarly;
}

void System::setup_source() {
    SimProcess& setup = source_host_.add_process("setup");
    setup.start();
    setup.run([&] {
        FileSystem& fs = setup.file_system();
        FS_CHECK(fs.make_directories("disks").has_value());
        FS_CHECK(fs.make_directories("capture").has_value());
        for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
            auto file = fs.open(fmt::format("disks/{}", i), OpenMode::kCreate);
            FS_CHECK(file.has_value());
            // Not empty when protection begins.
            for (uint64_t at = 0; at < shape_.disk_bytes[i]; at += 100'000) {
                Bytes piece(
                    std::min<uint64_t>(guest_draw_.below(50'000), shape_.disk_bytes[i] - at));
                guest_draw_.fill(piece);
                FS_CHECK((*file)->write_at(at, piece).has_value());
            }
            FS_CHECK((*file)->truncate(shape_.disk_bytes[i]).has_value());
            FS_CHECK((*file)->sync().has_value());
        }
        FS_CHECK(fs.sync_directory("disks").has_value());
        FS_CHECK(fs.sync_directory("").has_value());
    });
    setup.kill();
}

SystemModel::Disks System::source_content() {
    SystemModel::Disks disks;
    for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
        auto content = source_host_.disk().peek(fmt::format("disks/{}", i));
        FS_CHECK(content.has_value());
        content->resize(shape_.disk_bytes[i]);
        disks.push_back(std::move(*content));
    }
    return disks;
}

// ---- capture
// -------------------------------------------------------------------------------------

LogGeometry System::geometry() const {
    LogGeometry geometry;
    geometry.item = item_;
    store_u64(geometry.boot_id.raw.data(), source_host_.boot_number());
    geometry.ring_bytes = kMinRingBytes;
    geometry.spill_bytes = shape_.spill_bytes;
    geometry.disk_bytes = shape_.disk_bytes;
    return geometry;
}

// As CaptureFiles::open does, over the simulated shared memory.
Result<LogHeader> System::open_log(SimProcess& self) {
    const LogGeometry made = geometry();
    LogMemory memory;
    memory.control = source_host_.shared_memory("log", control_bytes(made));
    memory.ring = source_host_.shared_memory("ring", made.ring_bytes);
    if (auto header = LogHeader::open(memory)) return header;
    FileSystem& fs = self.file_system();
    FS_ASSIGN(const auto dirty, DirtyMap::open_or_create(fs, kDirtyPath, item_, shape_.disk_bytes));
    FS_ASSIGN(const Sequence first,
              first_of_new_log(*dirty, acked_stored_.next(), self.clock().now()));
    std::fill(memory.control.begin(), memory.control.end(), uint8_t{0});
    FS_ASSIGN(LogHeader header, LogHeader::format(memory, made, first));
    fill_new_log(header, *dirty, shape_.mode);
    header.word(LogWord::kRotateUs).store(shape_.rotate_us);
    header.word(LogWord::kPointIntervalUs).store(1'000'000);
    model_.begin_log(first.v, source_content());
    acked_received_ = {};
    return header;
}

std::shared_ptr<void> System::boot_tap(SimProcess& self) {
    auto program = std::make_shared<TapProgram>();
    const auto build = [&]() -> Status {
        FileSystem& fs = self.file_system();
        TapOptions options;
        options.mode = shape_.mode;
        FS_ASSIGN(options.header, open_log(self));
        for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
            FS_ASSIGN(auto file, fs.open(fmt::format("disks/{}", i), OpenMode::kReadWrite));
            options.devices.push_back(
                std::make_unique<FileDisk>(std::move(file), shape_.disk_bytes[i]));
        }
        // As CaptureFiles::open_dirty_map does.
        FS_ASSIGN(options.dirty,
                  DirtyMap::open_or_create(fs, kDirtyPath, item_, shape_.disk_bytes));
        if (options.dirty->reserved_until() <= 1)
            FS_TRY(
                options.dirty->reserve(options.header.producer().next_sequence + kSequenceBlock));
        if (shape_.spill_bytes > 0) {
            FS_ASSIGN(program->spill, fs.open(kSpillPath, OpenMode::kCreate));
        }
        options.spill = program->spill.get();
        options.clock = &self.clock();
        options.bugs.mark_too_late = plant_ == Plant::kMarkTooLate;
        options.bugs.lost_gap = plant_ == Plant::kLostGap;
        options.bugs.wrong_order = plant_ == Plant::kWrongOrder;
        options.on_append = [this](const AppendRequest& request, const Appended& result) {
            std::string wrong;
            model_.note(request, result, wrong);
            if (!wrong.empty() && plant_ != Plant::kWrongOrder) breach(wrong);
        };
        FS_ASSIGN(program->tap, Tap::start(std::move(options)));
        return {};
    };
    if (const Status built = build(); !built) {
        world_.trace("tap.boot_failed", 0, 0, built.error().to_string());
        self.kill();
        return program;
    }
    self.executor().post([this, p = program.get()] { tap_tick(*p); });
    self.executor().post([this, p = program.get()] { tap_copy(*p); });
    return program;
}

void System::tap_tick(TapProgram& program) {
    const int64_t again = program.tap->tick();
    // The doorbell rings within milliseconds of a command.
    tap_->executor().post_after_us(std::min<int64_t>(again, 30'000),
                                   [this, &program] { tap_tick(program); });
}

void System::tap_copy(TapProgram& program) {
    const Copier::Outcome outcome = program.tap->copier().step();
    int64_t wait_us = outcome == Copier::Outcome::kWorked ? 300 : 15'000;
    if (world_.buggify("system.slow_copier")) wait_us += draw_.between(1'000, 400'000);
    tap_->executor().post_after_us(wait_us, [this, &program] { tap_copy(program); });
}

std::shared_ptr<void> System::boot_agent(SimProcess& self) {
    auto program = std::make_shared<AgentProgram>();
    const auto build = [&]() -> Status {
        FS_ASSIGN(const LogHeader header, open_log(self));
        if (shape_.spill_bytes > 0) {
            FS_ASSIGN(program->spill, self.file_system().open(kSpillPath, OpenMode::kCreate));
        }
        program->consumer =
            std::make_unique<CaptureConsumer>(header, program->spill.get(), nullptr);
        program->commands = std::make_unique<TapCommands>(header, nullptr);
        TapCommands& commands = *program->commands;
        program->source = std::make_unique<CaptureSource>(
            *program->consumer,
            CaptureSource::Commands{
                [&commands](const TapCommand& command) { return commands.post(command); },
                [&commands](size_t slot) { return commands.take(slot); }},
            shape_.mode == TapMode::kMirror);
        program->watched = std::make_unique<WatchedSource>(*this, *program->source);
        program->dialer = network_.dialer(self, "agent");
        self.random().fill(program->instance.raw);
        return {};
    };
    if (const Status built = build(); !built) {
        self.kill();
        return program;
    }
    dial(*program);
    self.executor().post_after_us(5'000, [this, p = program.get()] { agent_tick(*p); });
    return program;
}

void System::dial(AgentProgram& program) {
    program.appliance = address_;
    program.sender = std::make_unique<LogSender>(agent_->executor(), agent_->clock(),
                                                 *program.dialer, kAddresses[address_], item_,
                                                 program.instance, *program.watched);
    program.sender->start();
}

void System::agent_tick(AgentProgram& program) {
    if (program.appliance != address_) dial(program);
    program.sender->wake();
    const int64_t wait_us =
        world_.buggify("system.agent_stalls") ? draw_.between(100'000, 2'000'000) : 8'000;
    agent_->executor().post_after_us(wait_us, [this, &program] { agent_tick(program); });
}

// ---- appliance and vault
// -------------------------------------------------------------------------

std::shared_ptr<void> System::boot_appliance(SimProcess& self, size_t index) {
    auto program = std::make_shared<ApplianceProgram>();
    program->store = store_.client(self);
    program->link = std::make_unique<LossyLink>(*this, self);
    ProcessServerExecutors executors;
    executors.home = &self.executor();
    executors.spool = &self.new_executor();
    executors.build = &self.new_executor();
    executors.upload = &self.new_executor();
    executors.control = &self.new_executor();
    ProcessServerOptions options = shape_.server;
    options.name = self.name();
    program->server =
        std::make_unique<ProcessServer>(self.file_system(), *program->store, *program->link,
                                        self.clock(), self.random(), executors, options);
    if (!program->server->start()) {
        self.kill();
        return program;
    }
    auto listening =
        network_.listen(self, self.executor(), kAddresses[index], self.name(),
                        [server = program->server.get()](std::unique_ptr<Connection> connection) {
                            server->accept(std::move(connection));
                        });
    FS_CHECK(listening.has_value());
    program->listener = std::move(*listening);
    return program;
}

Status System::open_vault(SimProcess& self, size_t index, VaultProgram& program) {
    if (!program.fence) {
        FS_ASSIGN(program.fence,
                  VaultFence::claim(*program.store, self.clock(), self.random(), self.name()));
    }
    ItemReplicaOptions options = shape_.replica;
    options.fence = &*program.fence;
    if (!ledger_ready_[index]) {
        FS_TRY(ItemReplica::rebuild(*program.store, ledgers_[index], item_, key_, options));
        ledger_ready_[index] = true;
        void_leases_.clear();
    }
    FS_ASSIGN(program.replica, ItemReplica::open(*program.store, ledgers_[index], self.clock(),
                                                 self.random(), item_, key_, options));
    return {};
}

std::shared_ptr<void> System::boot_vault(SimProcess& self, size_t index) {
    auto program = std::make_shared<VaultProgram>();
    // A vault that was replaced is not started again: it would claim the store back.
    if (index != active_vault_) return program;
    program->store = store_.client(self);
    // A transaction of the database: the process may die before or after it, the database may be
    // busy, and a commit may be there although an error was reported.
    ledgers_[index].set_hook(
        [this, &self, life = self.life()](const char* commit, bool after) -> Status {
            SimOperation op(self, life, commit, after ? 1 : 0);
            if (op.dead()) return op.error();
            if (op.torn()) {
                op.die();
                return op.error();
            }
            op.finish();
            if (op.dead()) return op.error();
            if (world_.buggify(after ? "ledger.lost_answer" : "ledger.busy"))
                return fail(Code::kUnavailable, "the database is busy");
            return {};
        });
    self.executor().post([this, &self, index, p = program.get()] { vault_tick(self, index, *p); });
    return program;
}

void System::vault_tick(SimProcess& self, size_t index, VaultProgram& program) {
    int64_t again_us = 100'000;
    if (program.replica == nullptr && index != active_vault_) {
        return;
    } else if (program.replica == nullptr) {
        const Status opened = open_vault(self, index, program);
        if (!opened) world_.trace("vault.open", 0, 0, opened.error().to_string());
    } else {
        again_us = 250'000 + static_cast<int64_t>(draw_.below(500'000));
        const auto wrote = program.replica->maybe_checkpoint();
        if (!wrote) world_.trace("vault.checkpoint", 0, 0, wrote.error().to_string());
        use_leases(self, program);
        const auto report = program.replica->run_retention(shape_.retention);
        if (!report) {
            world_.trace("vault.retention", 0, 0, report.error().to_string());
            if (report.error().code() == Code::kFenced) ++outcome_.fenced_vaults;
        } else if (report->floor_moved) {
            ++outcome_.floors_moved;
        }
    }
    self.executor().post_after_us(
        again_us, [this, &self, index, &program] { vault_tick(self, index, program); });
}

// Somebody reads here and there.
void System::use_leases(SimProcess& self, VaultProgram& program) {
    (void)self;
    if (program.leases.size() < 2 && draw_.below(4) == 0) {
        const auto points = program.replica->points({});
        if (!points || points->ranges.empty()) return;
        const OfferedRange& range = points->ranges[draw_.below(points->ranges.size())];
        const Sequence at{range.first.v + draw_.below(range.last.v - range.first.v + 1)};
        const auto lease =
            program.replica->lease(at, "reader", draw_.between(1'000'000, 12'000'000));
        if (lease) program.leases.push_back(lease->id);
    } else if (!program.leases.empty() && draw_.below(6) == 0) {
        if (draw_.coin()) {
            (void)program.replica->renew(program.leases.back(), 5'000'000);
        } else {
            (void)program.replica->release(program.leases.back());
            program.leases.pop_back();
        }
    }
}

// ---- guest
// ---------------------------------------------------------------------------------------

GuestOp System::draw_op() {
    GuestOp op;
    Rng& d = guest_draw_;
    op.disk = static_cast<DiskIndex>(d.below(shape_.disk_bytes.size()));
    const uint64_t size = shape_.disk_bytes[op.disk];
    const uint64_t most = d.below(12) == 0 ? 200'000 : d.below(3) == 0 ? 40'000 : 6'000;
    op.length = std::min(size, 1 + d.below(most));
    op.offset = d.below(size - op.length + 1);
    if (d.coin()) {
        op.offset = op.offset / 512 * 512;
        op.length = std::min(size - op.offset, (op.length + 511) / 512 * 512);
    }
    switch (d.below(16)) {
        case 0:
            op.kind = GuestOp::Kind::kZero;
            break;
        case 1:
            op.kind = GuestOp::Kind::kUnmap;
            break;
        case 2:
            op.kind = GuestOp::Kind::kDiscard;
            break;
        case 3:
            op.kind = GuestOp::Kind::kFlush;
            break;
        case 4:
            op.kind = GuestOp::Kind::kWriteThrough;
            break;
        default:
            op.kind = GuestOp::Kind::kWrite;
            break;
    }
    if (op.kind == GuestOp::Kind::kFlush) op.length = 0;
    if (op.kind == GuestOp::Kind::kWrite || op.kind == GuestOp::Kind::kWriteThrough) {
        op.data.resize(op.length);
        if (d.below(4) == 0)
            std::fill(op.data.begin(), op.data.end(), static_cast<uint8_t>(1 + d.below(255)));
        else
            d.fill(op.data);
    }
    return op;
}

Status System::apply_to(TapDisk& disk, const GuestOp& op) {
    switch (op.kind) {
        case GuestOp::Kind::kWrite:
            return disk.write(op.offset, op.data);
        case GuestOp::Kind::kWriteThrough:
            return disk.write_through(op.offset, op.data);
        case GuestOp::Kind::kZero:
            return disk.zero(op.offset, op.length, false);
        case GuestOp::Kind::kUnmap:
            return disk.zero(op.offset, op.length, true);
        case GuestOp::Kind::kDiscard:
            return disk.discard(op.offset, op.length);
        case GuestOp::Kind::kFlush:
            return disk.flush();
    }
    return {};
}

// Mirror: QEMU writes the source before the tap hears of it.
Status System::change_source(const GuestOp& op) {
    auto& disk = guest_file_[op.disk];
    if (disk == nullptr) {
        FS_ASSIGN(auto file, guest_->file_system().open(fmt::format("disks/{}", op.disk),
                                                        OpenMode::kReadWrite));
        disk = std::make_unique<FileDisk>(std::move(file), shape_.disk_bytes[op.disk]);
    }
    switch (op.kind) {
        case GuestOp::Kind::kWrite:
        case GuestOp::Kind::kWriteThrough:
            return disk->write(op.offset, op.data);
        case GuestOp::Kind::kFlush:
            return disk->flush();
        default:
            return disk->zero(op.offset, op.length, op.kind != GuestOp::Kind::kZero);
    }
}

void System::guest_tick() {
    const bool mirror = shape_.mode == TapMode::kMirror;
    Rng& d = guest_draw_;
    int64_t wait_us = d.below(8) == 0 ? d.between(50'000, 400'000) : d.between(2'000, 60'000);
    if (guest_burst_ > 0) {
        --guest_burst_;
        wait_us = d.between(100, 2'000);
    }
    guest_->executor().post_after_us(wait_us, [this] { guest_tick(); });
    if (pending_.size() >= (mirror ? 3u : 1u)) return;
    auto op = std::make_shared<GuestOp>();
    if (guest_flushes_ > 0) {
        op->kind = GuestOp::Kind::kFlush;
        op->disk = static_cast<DiskIndex>(--guest_flushes_);
        ++guest_left_;
    } else if (guest_left_ == 0 || world_.now_us() < guest_idle_until_us_) {
        return;
    } else {
        *op = draw_op();
    }
    for (const auto& other : pending_)
        if (op->overlaps(*other)) return;
    --guest_left_;
    ++outcome_.writes;
    if (op->length > 0) op->change = model_.begin_change(op->disk, op->offset, op->length);
    pending_.push_back(op);
    if (mirror) {
        // A write that fails at the source is sent to no mirror, and may be there in part: QEMU
        // then stops the job. Not simulated.
        const Status changed = change_source(*op);
        FS_CHECK(changed.has_value() || !guest_->alive());
        guest_->executor().post_after_us(d.below(3) == 0 ? d.between(0, 30'000) : 0,
                                         [this, op] { try_op(op); });
    } else {
        try_op(op);
    }
}

void System::try_op(const std::shared_ptr<GuestOp>& op) {
    Status status;
    bool answered = false;
    if (tap_->alive()) {
        answered = tap_->run([&] {
            const auto program = tap_->program<TapProgram>();
            if (program == nullptr || program->tap == nullptr) return;
            status = apply_to(program->tap->disk(op->disk), *op);
            answered = true;
        }) && answered;
    }
    if (!answered) {
        // QEMU connects again and repeats what was not answered.
        guest_->executor().post_after_us(20'000, [this, op] { try_op(op); });
        return;
    }
    // After an error the range holds anything; what the copier finds there is right.
    if (op->change != 0 && status) model_.end_change(op->change);
    std::erase(pending_, op);
}

// ---- faults
// --------------------------------------------------------------------------------------

SimProcess& System::any_process() {
    // Half of them where most of the state is.
    switch (draw_.below(8)) {
        case 0:
        case 1:
            return *tap_;
        case 2:
            return *agent_;
        case 3:
        case 4:
            return *appliances_[address_];
        case 5:
            return *appliances_[shape_.two_appliances ? draw_.below(2) : 0];
        default:
            return *vaults_[active_vault_];
    }
}

void System::fail_source_disk() {
    SimDisk& disk = source_host_.disk();
    const uint64_t skip = draw_.below(10), count = 1 + draw_.below(3);
    switch (draw_.below(7)) {
        case 0:
            return disk.fail_next(DiskOp::kWrite, kSpillPath, ENOSPC, count, skip);
        case 1:
            return disk.fail_next(DiskOp::kRead, kSpillPath, EIO, count, skip);
        case 2:
            return disk.fail_next(DiskOp::kWrite, kDirtyPath, EIO, count, skip);
        case 3:
            return disk.fail_next(DiskOp::kSync, kDirtyPath, EIO, count, skip);
        case 4:
            return disk.fail_next(DiskOp::kRead, "disks/", EIO, count, skip);
        case 5:
            return disk.fail_next(DiskOp::kWrite, kSpillPath, EIO, count, skip);
        default:
            // In mirror mode QEMU itself would see it.
            if (shape_.mode == TapMode::kMirror) return;
            return disk.fail_next(DiskOp::kWrite, "disks/", EIO, count, skip);
    }
}

// Leases that ran out before or after a jump are no longer kept, whatever the clock says later.
void System::void_leases() {
    const auto leases = ledgers_[active_vault_].list_leases();
    const TimePoint now = vault_hosts_[active_vault_]->clock().now();
    if (!leases) return;
    for (const LeaseRow& lease : *leases)
        if (lease.expires <= now) void_leases_.insert(lease.id);
}

void System::jump_clock(SimHost& host) {
    void_leases();
    const int64_t by_us = draw_.coin() ? draw_.between(-20'000'000, 20'000'000)
                                       : draw_.between(-3'600'000'000, 3'600'000'000);
    host.clock().jump_wall_us(by_us);
    void_leases();
}

void System::strike() {
    SimHost* hosts[] = {&source_host_, appliance_hosts_[address_], vault_hosts_[active_vault_]};
    SimHost& host = *hosts[draw_.below(3)];
    const auto heal_later = [this](SimHost& a, SimHost& b) {
        network_.partition(a, b);
        world_.after_us(draw_.between(100'000, 9'000'000), [this, &a, &b] { network_.heal(a, b); });
    };
    switch (draw_.below(20)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5: {
            SimProcess& victim = any_process();
            if (!victim.alive()) return;
            DeathPlan plan;
            plan.at_operation = victim.operations() + 1 + draw_.below(draw_.coin() ? 12 : 60);
            plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
            plan.power_loss = draw_.below(3) == 0;
            victim.plan_death(plan);
            world_.run_until([&] { return !victim.alive(); }, 1'500'000);
            return;
        }
        case 6: {
            SimProcess& victim = any_process();
            if (victim.alive()) victim.kill();
            return;
        }
        case 7:
        case 8:
            if (host.up()) {
                ++outcome_.power_losses;
                host.lose_power();
                // Also when nothing lived there that could tell on_death.
                host.power_on_after_us(draw_.between(1'000, 2'000'000));
            }
            return;
        case 9:
            return heal_later(source_host_, *appliance_hosts_[address_]);
        case 10:
            return heal_later(*appliance_hosts_[address_], *vault_hosts_[active_vault_]);
        case 11:
            network_.clog(source_host_, *appliance_hosts_[address_],
                          draw_.between(100'000, 4'000'000));
            return;
        case 12:
            if (draw_.coin())
                network_.reset(source_host_, *appliance_hosts_[address_]);
            else
                network_.half_open(*appliance_hosts_[address_], source_host_);
            return;
        case 13:
            store_.set_outage(true);
            world_.after_us(draw_.between(200'000, 5'000'000),
                            [this] { store_.set_outage(false); });
            return;
        case 14:
            guest_burst_ += 20 + draw_.below(30);
            guest_left_ += 15;
            heal_later(source_host_, *appliance_hosts_[address_]);
            return;
        case 15:
        case 16: {
            // All is stored and the dirty map is clean; then the first write meets a power loss.
            guest_flushes_ = shape_.disk_bytes.size();
            guest_idle_until_us_ = world_.now_us() + draw_.between(4'000'000, 9'000'000);
            world_.run_for_us(guest_idle_until_us_ - world_.now_us());
            guest_left_ = std::max<uint64_t>(guest_left_, 5);
            if (!tap_->alive()) return;
            DeathPlan plan;
            plan.at_operation = 1 + draw_.below(draw_.coin() ? 2 : 5);
            plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
            plan.power_loss = draw_.below(4) != 0;
            death_at_write_ = plan;
            world_.run_until([&] { return !tap_->alive(); }, 800'000);
            death_at_write_.reset();
            return;
        }
        case 17:
            return jump_clock(host);
        case 18:
            if (shape_.source_errors) fail_source_disk();
            return;
        default:
            if (shape_.two_appliances && draw_.coin()) {
                address_ = 1 - address_;
                if (appliances_[address_]->life() == 0) appliances_[address_]->start();
            } else if (shape_.two_vaults && active_vault_ == 0 && vault_is_open(0)) {
                active_vault_ = 1;
                vaults_[1]->start();
            }
            return;
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
    for (SimProcess* process :
         {tap_, agent_, appliances_[0], appliances_[1], vaults_[0], vaults_[1]})
        process->plan_death({});
    // fail_next() that did not happen yet still may: it is a transient error of the source's disk.
    network_.heal_all();
    guest_left_ = std::min<uint64_t>(guest_left_, 10);
}

// ---- oracle
// --------------------------------------------------------------------------------------

void System::check_stored() {
    if (!oracle_ready()) return;
    const auto state = ledgers_[active_vault_].state();
    if (!state) return;
    if (state->rebuilding) return;
    if (state->stored < seen_stored_[active_vault_])
        breach(fmt::format("stored went back from {} to {}\n", seen_stored_[active_vault_].v,
                           state->stored.v));
    seen_stored_[active_vault_] = state->stored;
    if (state->stored < acked_stored_)
        breach(fmt::format("{} was acknowledged as stored, but the vault has {}\n", acked_stored_.v,
                           state->stored.v));
}

void System::compare(const std::vector<uint64_t>& sequences) {
    model_.replay(sequences, [&](uint64_t sequence, const SystemModel::Disks& disks) {
        if (!broken_.empty()) return;
        ++outcome_.points_compared;
        const auto wrong = [&](const std::string& what) {
            breach(fmt::format("point {}: {}\n", sequence, what));
        };
        const auto reader = ReplicaReader::open(peek_, item_, key_, {sequence});
        if (!reader) return wrong("can't be opened: " + reader.error().to_string());
        for (DiskIndex i = 0; i < disks.size(); ++i) {
            const auto disk = (*reader)->disk(i);
            if (!disk) {
                // A disk that no record was about is all zeroes.
                if (!all_zero(disks[i])) wrong(fmt::format("disk {} is missing", i));
                continue;
            }
            Bytes content(disks[i].size());
            const uint64_t there = std::min<uint64_t>(content.size(), (*disk)->size_bytes());
            const Status read = (*disk)->read(0, MutableByteView(content).first(there));
            if (!read) return wrong("can't be read: " + read.error().to_string());
            outcome_.bytes_compared += content.size();
            if (content == disks[i]) continue;
            const auto at = static_cast<size_t>(
                std::mismatch(content.begin(), content.end(), disks[i].begin()).first -
                content.begin());
            size_t differing = 0;
            for (size_t b = 0; b < content.size(); ++b) differing += content[b] != disks[i][b];
            return wrong(
                fmt::format("disk {} differs from byte {}, {} bytes in all", i, at, differing));
        }
    });
}

void System::check(size_t samples) {
    if (!broken_.empty() || !oracle_ready()) return;
    MemoryLedger& ledger = ledgers_[active_vault_];
    const auto state = ledger.state();
    if (!state || state->rebuilding) return;
    ++outcome_.checks;
    check_stored();
    SimRandom random(world_.fork("oracle"));
    SimClock& clock = vault_hosts_[active_vault_]->clock();
    auto replica = ItemReplica::open(peek_, ledger, clock, random, item_, key_, {});
    if (!replica) return breach("the replica can't be opened: " + replica.error().to_string());
    const auto points = (*replica)->points({});
    if (!points) return breach("points: " + points.error().to_string());
    std::set<uint64_t> wanted;
    for (const OfferedRange& range : points->ranges) {
        if (!model_.knows(range.first.v))
            return breach(fmt::format("sequence {} is offered and never was\n", range.first.v));
        if (const uint64_t lost = model_.dropped_within(range.first.v, range.last.v))
            return breach(fmt::format("{} to {} are offered, but the record {} was never sent\n",
                                      range.first.v, range.last.v, lost));
    }
    if (!points->ranges.empty()) {
        wanted.insert(points->ranges.back().last.v);
        if (removed_since_check_ || samples > 2) wanted.insert(points->ranges.front().first.v);
        for (size_t i = 0; i < samples; ++i) {
            const OfferedRange& range = points->ranges[draw_.below(points->ranges.size())];
            const uint64_t length = range.last.v - range.first.v;
            const uint64_t near = std::min<uint64_t>(length, draw_.below(4));
            switch (draw_.below(3)) {
                case 0:
                    wanted.insert(range.first.v + near);
                    break;
                case 1:
                    wanted.insert(range.last.v - near);
                    break;
                default:
                    wanted.insert(range.first.v + draw_.below(length + 1));
                    break;
            }
        }
    }
    removed_since_check_ = false;
    if (const auto leases = ledger.list_leases())
        for (const LeaseRow& lease : *leases)
            if (lease.expires > clock.now() && !void_leases_.contains(lease.id))
                wanted.insert(lease.sequence.v);
    compare({wanted.begin(), wanted.end()});
}

bool System::protected_again() {
    if (!broken_.empty()) return true;
    const auto not_yet = [this](const char* why) {
        why_not_ = why;
        return false;
    };
    if (!source_host_.up() || !tap_->alive()) return not_yet("the tap is not there");
    if (!pending_.empty() || guest_left_ > 0) return not_yet("the guest waits");
    const auto program = tap_->program<TapProgram>();
    if (program == nullptr || program->tap == nullptr) return not_yet("the tap is not there");
    if (!program->tap->producer().settled()) return not_yet("the tap is not settled");
    if (!oracle_ready()) return not_yet("the vault is not there");
    const auto state = ledgers_[active_vault_].state();
    if (!state || state->rebuilding) return not_yet("the ledger is not there");
    if (state->stored.v < model_.last_change()) return not_yet("changes are not stored");
    const auto gaps = ledgers_[active_vault_].list_gaps();
    if (!gaps || std::ranges::any_of(*gaps, [](const GapRow& gap) { return gap.open(); }))
        return not_yet("a gap is open");
    return true;
}

// What the parts say about themselves, for a failure's report.
std::string System::states() {
    std::string out;
    if (const auto p = tap_->program<TapProgram>(); p != nullptr && p->tap != nullptr) {
        const ProducerState s = p->tap->producer().state();
        const LogUsage usage = p->tap->producer().usage();
        out += fmt::format("tap: next {}, gap {} of {}, todo {}, ring {}, spill {}\n",
                           s.next_sequence, static_cast<uint64_t>(s.gap), s.gap_sequence,
                           p->tap->producer().todo_granules(), usage.ring_bytes, usage.spill_bytes);
    }
    if (const auto p = agent_->program<AgentProgram>(); p != nullptr && p->sender != nullptr) {
        const LogSenderStatus s = p->sender->status();
        out += fmt::format(
            "agent: connected {}, sent {}, received {}, stored {}, released {}, waiting "
            "for a gap {}, {}\n",
            s.connected, s.sent.v, s.received.v, s.stored.v, p->consumer->released().v,
            p->source->waiting_for_gap(), s.last_error);
    }
    for (SimProcess* process : appliances_) {
        const auto p = process->program<ApplianceProgram>();
        if (p == nullptr || p->server == nullptr) continue;
        for (const IntakeStatus& s : p->server->status())
            out +=
                fmt::format("{}: connected {}, received {}, stored {}, spool {}, queued {}, {}\n",
                            process->name(), s.connected, s.received.v, s.stored.v, s.spool_bytes,
                            s.queued_bytes, s.last_error);
    }
    out += fmt::format("network: {} dials, {} failed\n", network_.counters().dials,
                       network_.counters().dials_failed);
    if (const auto s = ledgers_[active_vault_].state())
        out += fmt::format(
            "vault {}: stored {}, epoch {} of {}, floor {}; last change {}, heard: "
            "received {}, stored {}\n",
            active_vault_, s->stored.v, s->epoch.v, s->appliance, s->floor.v, model_.last_change(),
            acked_received_.v, acked_stored_.v);
    return out;
}

SystemOutcome System::run() {
    const bool quiet_start = draw_.coin();
    guest_left_ = shape_.guest_ops;
    for (SimProcess* process : {vaults_[0], appliances_[0], tap_, agent_, guest_}) process->start();
    if (quiet_start) world_.run_until([this] { return protected_again(); }, 4'000'000);
    faults_ = true;
    world_.faults().enable(draw_.below(5) != 0);
    for (SimHost* host : appliance_hosts_) host->disk().allow_errors(shape_.appliance_errors);
    if (!shape_.appliance_read_errors) world_.faults().force("disk.read_error", 0);
    store_.allow_errors(draw_.coin());
    // A put that takes effect after its time-out must do so within the grace of deletion, which is
    // ten minutes in production: otherwise a manifest may appear whose shards are gone.
    if (shape_.retention.grace_us < 20'000'000) world_.faults().force("store.late_effect", 0);
    if (!shape_.two_vaults) store_.allow_damaged_reads(draw_.below(4) == 0);

    for (uint64_t strikes = 2 + draw_.below(6); strikes > 0 && broken_.empty(); --strikes) {
        world_.run_for_us(draw_.between(50'000, 2'500'000));
        check(1);
        strike();
    }
    world_.run_for_us(draw_.between(50'000, 1'500'000));
    check(2);
    const auto settle = [&] {
        const int64_t from_us = world_.now_us();
        const bool again =
            world_.run_until([this] { return protected_again(); }, kProtectedAgainUs);
        outcome_.calm_us = std::max(outcome_.calm_us, world_.now_us() - from_us);
        if (!again) breach(std::string("the item is not protected again: ") + why_not_);
        check(4);
        if (!broken_.empty()) return;
        if (model_.latest() != source_content()) {
            breach("the log does not say what the source is\n");
            return;
        }
        compare({ledgers_[active_vault_].state()->stored.v});
    };
    become_calm();
    settle();
    // Everything is stored; a crash of the source now, or in the middle of what it writes next,
    // must lose nothing either.
    if (broken_.empty() && draw_.below(3) == 0) {
        guest_left_ = 3 + draw_.below(10);
        world_.run_for_us(draw_.between(0, 150'000));
        if (source_host_.up()) source_host_.lose_power();
        world_.run_until([this] { return source_host_.up() && tap_->alive(); }, 10'000'000);
        settle();
    }
    outcome_.gaps = 0;
    if (const auto program = tap_->program<TapProgram>();
        program != nullptr && program->tap != nullptr)
        outcome_.gaps = program->tap->producer().state().gaps;
    over_ = true;
    if (!broken_.empty()) {
        outcome_.broken =
            broken_ + broken_states_ +
            fmt::format("{} disks, {}, spill {}, {} appliance(s), {} vault(s), disk errors {}/{}\n",
                        shape_.disk_bytes.size(),
                        shape_.mode == TapMode::kMirror ? "mirror" : "in path", shape_.spill_bytes,
                        shape_.two_appliances ? 2 : 1, shape_.two_vaults ? 2 : 1,
                        shape_.source_errors, shape_.appliance_errors) +
            world_.report(report_lines());
    }
    outcome_.hash = world_.trace_hash();
    outcome_.faults = world_.faults();
    return outcome_;
}

}  // namespace

std::string plant_name(Plant plant) {
    switch (plant) {
        case Plant::kNone:
            return "none";
        case Plant::kAckBeforeSync:
            return "ack_before_sync";
        case Plant::kStoredBeforeRegistered:
            return "stored_before_registered";
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
    }
    return "?";
}

SystemOutcome run_system(uint64_t seed, Plant plant) { return System(seed, plant).run(); }

}  // namespace farshore::system_sim
