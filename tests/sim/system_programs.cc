// The programs of the simulated system: how each starts, and what it does on its ticks.
#include <algorithm>

#include "replica/replica_compare.h"
#include "system.h"

namespace farshore::system_sim {

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

// As Vault::compare does, with a reader for each question.
Result<CompareAnswer> LossyLink::compare(const std::string&, const ItemId&,
                                         const CompareQuestion& question) {
    std::optional<Result<CompareAnswer>> result;
    SimProcess& vault = system_.vault_to_ask();
    const auto answer = [&]() -> Result<CompareAnswer> {
        const auto program = vault.program<VaultProgram>();
        if (program == nullptr || program->replica == nullptr)
            return fail(Code::kUnavailable, "the vault is starting");
        FS_ASSIGN(const ReplicaStatus status, program->replica->status());
        if (status.stored < question.at_least) return CompareAnswer{CompareVerdict::kNotYet, {}, 0};
        ReplicaReaderOptions options;
        options.allow_gap = true;
        FS_ASSIGN(const auto reader, ReplicaReader::open(*program->store, system_.item(),
                                                         system_.key(), status.stored, options));
        return compare_replica(*reader, question);
    };
    const Status called = system_.network().call(self_, vault, [&] { result.emplace(answer()); });
    if (!called) return fail(called.error());
    if (!*result && (*result).error().retry() == Retry::kNever)
        return fail(Code::kUnavailable, (*result).error().to_string());
    system_.answered();
    return std::move(*result);
}

// ---- capture

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
    if (first.v > 1)
        header.word(LogWord::kCompareState).store(static_cast<uint64_t>(CompareState::kComparing));
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
        if (shape_.compares) options.random = &self.random();
        options.buggify = &world_;
        options.bugs.skipped_sum = plant_ == Plant::kSkippedSum;
        options.bugs.early_end = plant_ == Plant::kEarlyEnd;
        options.bugs.stale_compare = plant_ == Plant::kStaleCompare;
        options.bugs.wrong_disk = plant_ == Plant::kWrongDisk;
        options.bugs.unmark_too_early = plant_ == Plant::kUnmarkTooEarly;
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
                                                 program.instance, *program.watched, &world_);
    program.sender->start();
    program.compare = std::make_unique<CompareClient>(agent_->executor(), agent_->clock(),
                                                      *program.dialer, kAddresses[address_], item_,
                                                      program.consumer->header(), [] {});
}

// Somebody wants source and replica compared, or made equal in a gap.
void System::ask_for_resync(AgentProgram& program) {
    if (program.resync && program.commands->take(*program.resync)) program.resync.reset();
    if (program.resync || !shape_.compares || !faults_ || !world_.buggify("system.resync")) return;
    TapCommand command;
    command.kind = draw_.coin() ? TapCommandKind::kCompareAll : TapCommandKind::kResyncAll;
    if (const auto slot = program.commands->post(command)) program.resync = *slot;
}

void System::agent_tick(AgentProgram& program) {
    if (program.appliance != address_) dial(program);
    program.sender->wake();
    const LogHeader& log = program.consumer->header();
    if (CompareResponder::any(log)) program.compare->wake();
    outcome_.comparisons = std::max(outcome_.comparisons, log.word(LogWord::kCompareRuns).load());
    ask_for_resync(program);
    const int64_t wait_us =
        world_.buggify("system.agent_stalls") ? draw_.between(100'000, 2'000'000) : 8'000;
    agent_->executor().post_after_us(wait_us, [this, &program] { agent_tick(program); });
}

// ---- appliance and vault

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
    options.buggify = &world_;
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
    options.buggify = &world_;
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

}  // namespace farshore::system_sim
