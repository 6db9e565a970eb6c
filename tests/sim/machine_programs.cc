// The programs on the machine's host: how tap and agent start, and what they do on their ticks.
#include <algorithm>

#include "system.h"

namespace farshore::system_sim {

Machine::Machine(System& system, size_t index, size_t machines, SimHost& host)
    : system_(system),
      world_(system.world()),
      network_(system.network()),
      outcome_(system.outcome()),
      plant_(system.plant()),
      index_(index),
      host_(host),
      draw_(world_.fork(fmt::format("machine-{}", index))),
      guest_draw_(world_.fork(fmt::format("guest-{}", index))),
      key_(Bytes(32, static_cast<uint8_t>(0x17 + index))),
      disks_(fmt::format("disks-{}", index)),
      capture_(fmt::format("capture-{}", index)),
      dirty_path_(capture_ + "/dirty"),
      spill_path_(capture_ + "/spill") {
    item_.raw.fill(static_cast<uint8_t>(0x5a + index));
    draw_shape(machines);
    make_disks();
    guest_ = &host_.add_process(fmt::format("guest-{}", index), [this](SimProcess& self) {
        pending_.clear();
        guest_file_.clear();
        self.executor().post_after_us(1'000, [this] { guest_tick(); });
        return std::make_shared<int>(0);
    });
    tap_ = &host_.add_process(fmt::format("tap-{}", index),
                              [this](SimProcess& self) { return boot_tap(self); });
    agent_ =
        &host_.add_process(agent_name(), [this](SimProcess& self) { return boot_agent(self); });
}

void Machine::start() {
    for (SimProcess* process : {tap_, agent_, guest_}) process->start();
}

void Machine::breach(const std::string& what) {
    system_.breach(fmt::format("machine {}: {}", index_, what));
}

void Machine::on_disk_operation(SimProcess& process, DiskOp op, const std::string& path) {
    if (!death_at_write_ || &process != tap_ || op != DiskOp::kWrite ||
        !path.starts_with(disks_ + "/"))
        return;
    DeathPlan plan = *std::exchange(death_at_write_, std::nullopt);
    plan.at_operation += process.operations();
    process.plan_death(plan);
}

void Machine::resumed(Sequence next) {
    const Shape& shape = system_.shape();
    if (next > acked_received_ || shape.two_appliances || shape.appliance_read_errors) return;
    breach(fmt::format("{} was acknowledged as received, and now the appliance asks for {}\n",
                       acked_received_.v, next.v));
}
void Machine::heard_received(Sequence received) {
    acked_received_ = std::max(acked_received_, received);
}
void Machine::heard_stored(Sequence stored) {
    acked_stored_ = std::max(acked_stored_, stored);
    check_stored();
}

Status WatchedSource::resume(Sequence next, Sequence stored) {
    machine_.resumed(next);
    machine_.heard_stored(stored);
    return inner_.resume(next, stored);
}
void WatchedSource::release(Sequence received) {
    machine_.heard_received(received);
    inner_.release(received);
}
void WatchedSource::set_stored(Sequence stored) {
    machine_.heard_stored(stored);
    inner_.set_stored(stored);
}

LogGeometry Machine::geometry() const {
    LogGeometry geometry;
    geometry.item = item_;
    store_u64(geometry.boot_id.raw.data(), host_.boot_number());
    geometry.ring_bytes = kMinRingBytes;
    geometry.spill_bytes = shape_.spill_bytes;
    geometry.disk_bytes = shape_.disk_bytes;
    return geometry;
}

// As CaptureFiles::open does, over the simulated shared memory.
Result<LogHeader> Machine::open_log(SimProcess& self) {
    const LogGeometry made = geometry();
    LogMemory memory;
    memory.control = host_.shared_memory(fmt::format("log-{}", index_), control_bytes(made));
    memory.ring = host_.shared_memory(fmt::format("ring-{}", index_), made.ring_bytes);
    if (auto header = LogHeader::open(memory)) return header;
    FileSystem& fs = self.file_system();
    FS_ASSIGN(const auto dirty,
              DirtyMap::open_or_create(fs, dirty_path_, item_, shape_.disk_bytes));
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

std::shared_ptr<void> Machine::boot_tap(SimProcess& self) {
    auto program = std::make_shared<TapProgram>();
    const auto build = [&]() -> Status {
        FileSystem& fs = self.file_system();
        TapOptions options;
        options.mode = shape_.mode;
        FS_ASSIGN(options.header, open_log(self));
        for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
            FS_ASSIGN(auto file, fs.open(disk_path(i), OpenMode::kReadWrite));
            options.devices.push_back(
                std::make_unique<FileDisk>(std::move(file), shape_.disk_bytes[i]));
        }
        // As CaptureFiles::open_dirty_map does.
        FS_ASSIGN(options.dirty,
                  DirtyMap::open_or_create(fs, dirty_path_, item_, shape_.disk_bytes));
        if (options.dirty->reserved_until() <= 1)
            FS_TRY(
                options.dirty->reserve(options.header.producer().next_sequence + kSequenceBlock));
        if (shape_.spill_bytes > 0) {
            FS_ASSIGN(program->spill, fs.open(spill_path_, OpenMode::kCreate));
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

void Machine::tap_tick(TapProgram& program) {
    const int64_t again = program.tap->tick();
    // The doorbell rings within milliseconds of a command.
    tap_->executor().post_after_us(std::min<int64_t>(again, 30'000),
                                   [this, &program] { tap_tick(program); });
}

void Machine::tap_copy(TapProgram& program) {
    const Copier::Outcome outcome = program.tap->copier().step();
    int64_t wait_us = outcome == Copier::Outcome::kWorked ? 300 : 15'000;
    if (world_.buggify("system.slow_copier")) wait_us += draw_.between(1'000, 400'000);
    tap_->executor().post_after_us(wait_us, [this, &program] { tap_copy(program); });
}

std::shared_ptr<void> Machine::boot_agent(SimProcess& self) {
    auto program = std::make_shared<AgentProgram>();
    const auto build = [&]() -> Status {
        FS_ASSIGN(const LogHeader header, open_log(self));
        if (shape_.spill_bytes > 0) {
            FS_ASSIGN(program->spill, self.file_system().open(spill_path_, OpenMode::kCreate));
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
        program->source->keep(kMinRingBytes / kKeptPartOfRing);
        program->watched = std::make_unique<WatchedSource>(*this, *program->source);
        program->dialer = network_.dialer(self, agent_name());
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

void Machine::dial(AgentProgram& program) {
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
void Machine::ask_for_resync(AgentProgram& program) {
    if (program.resync && program.commands->take(*program.resync)) program.resync.reset();
    if (program.resync || !shape_.compares || !system_.faults_on() ||
        !world_.buggify("system.resync"))
        return;
    TapCommand command;
    command.kind = draw_.coin() ? TapCommandKind::kCompareAll : TapCommandKind::kResyncAll;
    if (const auto slot = program.commands->post(command)) program.resync = *slot;
}

void Machine::agent_tick(AgentProgram& program) {
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

}  // namespace farshore::system_sim
