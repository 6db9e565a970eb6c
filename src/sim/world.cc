#include "sim/world.h"

#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "sim/disk.h"

namespace farshore {
namespace {

// 2026-01-01T00:00:00Z: where the wall clocks of hosts without skew begin.
constexpr int64_t kWallStartUs = 1'767'225'600'000'000;
// A killed program that keeps calling is in a loop that only an answer could end.
constexpr uint64_t kMaxOperationsWhenDead = 1'000'000;

}  // namespace

// --- clock

TimePoint SimClock::now() const { return TimePoint{kWallStartUs + world_.now_us() + skew_us_}; }

int64_t SimClock::steady_us() const {
    // Two executors of a process stand at different consumed times; neither may see the other's
    // past.
    last_us_ = std::max(last_us_, world_.now_us());
    return base_us_ + last_us_;
}

void SimClock::restart(int64_t steady_start_us) {
    last_us_ = world_.now_us();
    base_us_ = steady_start_us - last_us_;
}

// --- executor

SimExecutor::SimExecutor(SimProcess& process, uint64_t life, uint32_t id)
    : process_(process), life_(life), id_(id), rng_(process.world().fork("executor").fork(id)) {}

bool SimExecutor::alive() const { return process_.alive() && process_.life() == life_; }

void SimExecutor::post(Task task) {
    if (!alive()) return;
    SimWorld& world = process_.world();
    const int64_t jitter_us = rng_.between(0, world.options_.post_jitter_us);
    last_post_us_ = std::max(last_post_us_, world.now_us() + jitter_us);
    world.schedule(last_post_us_, this, std::move(task));
}

Executor::TimerId SimExecutor::post_after_us(int64_t delay_us, Task task) {
    if (!alive()) return 0;
    SimWorld& world = process_.world();
    const SimClock& clock = process_.clock();
    clock.steady_us();  // the timer counts from what the host's steady clock shows
    return world.schedule(std::max(clock.last_us_, world.now_us()) + std::max<int64_t>(delay_us, 0),
                          this, std::move(task));
}

void SimExecutor::cancel(TimerId timer) {
    if (timer != 0) process_.world().cancel(timer, this);
}

// --- process

SimProcess::SimProcess(SimHost& host, std::string name, uint32_t id, Boot boot)
    : host_(host),
      name_(std::move(name)),
      id_(id),
      boot_(std::move(boot)),
      random_(host.world().fork("random").fork(id)),
      operation_rng_(host.world().fork("operation").fork(id)),
      file_system_(host.disk().view(*this)) {}

SimProcess::~SimProcess() = default;

SimWorld& SimProcess::world() const { return host_.world(); }
SimClock& SimProcess::clock() const { return host_.clock(); }

void SimProcess::start() {
    FS_CHECK(!alive_ && host_.up());
    if (unreaped_) {
        // Died in the event that still runs: the new life begins in the next one.
        restart_after_us(0);
        return;
    }
    alive_ = true;
    ++life_;
    operations_ = 0;
    operations_when_dead_ = 0;
    plan_ = {};
    main_ = &new_executor();
    world().trace("process.start", id_, life_, name_);
    if (!boot_) return;
    main_->post([this, life = life_] {
        auto program = boot_(*this);
        // Killed during boot, without unwinding: the program goes with the task.
        if (alive_ && life_ == life) program_ = std::move(program);
    });
}

void SimProcess::kill() { die(false); }

void SimProcess::die(bool power_loss) {
    if (!alive_) return;
    alive_ = false;
    unreaped_ = true;
    ++deaths_;
    plan_ = {};
    if (!power_loss && !host_.shared_memory_.empty())
        memory_at_death_ = std::make_unique<SimHost::SharedMemory>(host_.shared_memory_);
    world().died(*this, power_loss);
}

void SimProcess::restart_after_us(int64_t delay_us) {
    world().after_us(delay_us, [this, life = life_] {
        if (!alive_ && life_ == life && host_.up()) start();
    });
}

Executor& SimProcess::executor() {
    FS_CHECK(main_ != nullptr);
    return *main_;
}

SimExecutor& SimProcess::new_executor() {
    // Kept until the world ends: a test or a destructor may still hold one of an earlier life.
    executors_.push_back(std::make_unique<SimExecutor>(*this, life_, world().next_executor_++));
    return *executors_.back();
}

bool SimProcess::run(const std::function<void()>& body) {
    if (!alive_) return false;
    SimWorld& in = world();
    const uint64_t life = life_;
    SimExecutor* executor = in.current_process() == this ? in.current_executor() : main_;
    in.frames_.push_back({this, executor});
    try {
        body();
    } catch (const ProcessKilled&) {
    } catch (...) {
        in.frames_.pop_back();
        throw;
    }
    in.frames_.pop_back();
    const bool ok = alive_ && life_ == life;
    if (in.frames_.empty()) in.consumed_us_ = 0;
    in.reap();
    if (!in.frames_.empty()) {
        SimProcess* caller = in.frames_.back().process;
        if (caller != nullptr && caller != this && !caller->alive() &&
            std::uncaught_exceptions() == 0)
            throw ProcessKilled{};
    }
    return ok;
}

void SimProcess::reap() {
    // Tasks first: what they captured may point into the program.
    world().drop_tasks_of(*this);
    unreaped_ = false;
    // Its destructors see a dead process, so nothing that they do is seen by anybody.
    auto program = std::move(program_);
    program.reset();
    if (memory_at_death_ == nullptr) return;
    // In place: others on the host hold views.
    for (auto& [name, bytes] : *memory_at_death_) {
        const auto now = host_.shared_memory_.find(name);
        if (now != host_.shared_memory_.end() && now->second.size() == bytes.size())
            std::ranges::copy(bytes, now->second.begin());
    }
    memory_at_death_.reset();
}

// --- operations

SimOperation::SimOperation(SimProcess& process, uint64_t life, std::string_view what, uint64_t a,
                           uint64_t b, std::string_view detail)
    : process_(process) {
    if (!process.alive() || process.life() != life) {
        dead_ = true;
        if (++process.operations_when_dead_ > kMaxOperationsWhenDead)
            check_failed("killed process goes on forever", process.name());
        return;
    }
    ++process.operations_;
    process.world().trace(what, a, b, detail);
    // "Or later": an operation that fails by itself has no middle to die in.
    if (process.plan_.at_operation == 0 || process.operations_ < process.plan_.at_operation) return;
    switch (process.plan_.moment) {
        case DeathPlan::Moment::kBefore:
            die();
            break;
        case DeathPlan::Moment::kDuring:
            torn_ = true;
            break;
        case DeathPlan::Moment::kAfter:
            die_after_ = true;
            break;
    }
}

uint64_t SimOperation::draw(uint64_t bound) { return process_.operation_rng_.below(bound); }

void SimOperation::die() {
    SimWorld& world = process_.world();
    if (process_.plan_.power_loss) {
        process_.host().lose_power();
    } else {
        process_.kill();
    }
    dead_ = true;
    if (world.current_process() == &process_ && std::uncaught_exceptions() == 0)
        throw ProcessKilled{};
}

void SimOperation::finish() {
    if (die_after_ || torn_) die();
}

tl::unexpected<Error> SimOperation::error() const {
    return fail(Code::kInternal, fmt::format("process {} is dead", process_.name()));
}

// --- host

SimHost::SimHost(SimWorld& world, std::string name, uint32_t id)
    : world_(world), name_(std::move(name)), id_(id), clock_(world) {
    disk_ = std::make_unique<SimDisk>(*this, world.fork("disk").fork(id));
    clock_.restart(world.fork("boot").fork(id).between(1'000'000, 100'000'000));
}

SimHost::~SimHost() = default;

SimProcess& SimHost::add_process(std::string name, SimProcess::Boot boot) {
    const uint32_t id = world_.next_process_++;
    world_.process_names_.push_back(name_ + "/" + name);
    processes_.push_back(std::make_unique<SimProcess>(*this, std::move(name), id, std::move(boot)));
    return *processes_.back();
}

void SimHost::lose_power() {
    if (!up_) return;
    world_.trace("host.lose_power", id_, 0, name_);
    up_ = false;
    for (const auto& process : processes_) process->die(true);
    disk_->lose_power();
    if (world_.frames_.empty()) {
        shared_memory_.clear();
    } else {
        // Frames of the dead still hold views of it.
        world_.after_us(0, [old = std::make_shared<SharedMemory>(
                                std::exchange(shared_memory_, {}))] { old->clear(); });
    }
}

void SimHost::power_on(bool start_processes) {
    if (up_) return;
    up_ = true;
    ++boot_number_;
    clock_.restart(
        world_.fork("boot").fork(id_).fork(boot_number_).between(1'000'000, 100'000'000));
    world_.trace("host.power_on", id_, boot_number_, name_);
    if (!start_processes) return;
    for (const auto& process : processes_)
        if (process->life() != 0) process->start();
}

void SimHost::power_on_after_us(int64_t delay_us) {
    world_.after_us(delay_us, [this] { power_on(); });
}

MutableByteView SimHost::shared_memory(const std::string& name, size_t size_bytes) {
    Bytes& bytes = shared_memory_[name];
    if (bytes.empty()) bytes.resize(size_bytes);
    FS_CHECK(bytes.size() == size_bytes);
    return bytes;
}

// --- world

SimWorld::SimWorld(uint64_t seed, const Options& options)
    : options_(options),
      seed_(seed),
      root_(seed),
      rng_(root_.fork("world")),
      faults_(seed),
      trace_hash_(hash_name("farshore")) {
    process_names_.push_back("-");
    trace_.reserve(std::min<size_t>(options_.trace_lines, 256));
}

SimWorld::~SimWorld() {
    on_step_.clear();
    for (const auto& host : hosts_)
        for (const auto& process : host->processes()) process->kill();
    frames_.clear();
    reap();
    heap_.clear();
    // Moved out first: what tasks captured may still try to schedule.
    const std::deque<Slot> dropped = std::exchange(slots_, {});
    free_slots_.clear();
}

SimHost& SimWorld::add_host(std::string name) {
    hosts_.push_back(std::make_unique<SimHost>(*this, std::move(name),
                                               static_cast<uint32_t>(hosts_.size() + 1)));
    return *hosts_.back();
}

void SimWorld::after_us(int64_t delay_us, Task task) {
    schedule(now_us() + std::max<int64_t>(delay_us, 0), nullptr, std::move(task));
}

void SimWorld::consume_us(int64_t us) {
    if (!frames_.empty()) consumed_us_ += us;
}

uint64_t SimWorld::schedule(int64_t at_us, SimExecutor* executor, Task task) {
    uint32_t index;
    if (free_slots_.empty()) {
        index = static_cast<uint32_t>(slots_.size());
        slots_.emplace_back();
    } else {
        index = free_slots_.back();
        free_slots_.pop_back();
    }
    Slot& slot = slots_[index];
    slot.task = std::move(task);
    slot.executor = executor;
    slot.used = true;
    heap_.push_back({at_us, next_order_++, index});
    std::push_heap(heap_.begin(), heap_.end());
    return (uint64_t{slot.generation} << 32) | index;
}

void SimWorld::cancel(uint64_t id, const SimExecutor* executor) {
    const uint32_t index = static_cast<uint32_t>(id);
    if (index >= slots_.size()) return;
    Slot& slot = slots_[index];
    if (!slot.used || slot.generation != id >> 32 || slot.executor != executor) return;
    // The heap entry stays and finds an empty task; the slot is freed there.
    slot.generation++;
    const Task dropped = std::exchange(slot.task, nullptr);
}

void SimWorld::free_slot(uint32_t index) {
    Slot& slot = slots_[index];
    slot.used = false;
    slot.executor = nullptr;
    slot.generation++;
    free_slots_.push_back(index);
}

void SimWorld::drop_tasks_of(const SimProcess& process) {
    // Destructors of what tasks captured may schedule and cancel; so collect first.
    std::vector<Task> dropped;
    for (Slot& slot : slots_)
        if (slot.used && slot.executor != nullptr && &slot.executor->process() == &process &&
            slot.task)
            dropped.push_back(std::exchange(slot.task, nullptr));
}

void SimWorld::died(SimProcess& process, bool power_loss) {
    trace("process.die", process.id(), process.operations(), power_loss ? "power" : "kill");
    unreaped_.push_back(&process);
    for (const auto& hook : on_death_) hook(process, power_loss);
    reap();
}

bool SimWorld::on_stack(const SimProcess& process) const {
    return std::ranges::any_of(frames_, [&](const Frame& f) { return f.process == &process; });
}

void SimWorld::reap() {
    for (;;) {
        const auto ready =
            std::ranges::find_if(unreaped_, [&](const SimProcess* p) { return !on_stack(*p); });
        if (ready == unreaped_.end()) return;
        SimProcess* const process = *ready;
        unreaped_.erase(ready);
        frames_.push_back({process, nullptr});
        process->reap();
        frames_.pop_back();
    }
}

bool SimWorld::find_next() {
    while (!heap_.empty()) {
        const Event event = heap_.front();
        Slot& slot = slots_[event.slot];
        const SimExecutor* const executor = slot.executor;
        const bool gone = !slot.task || (executor != nullptr && !executor->alive());
        const bool busy = !gone && executor != nullptr && executor->busy_until_us_ > event.at_us;
        if (!gone && !busy) return true;
        std::pop_heap(heap_.begin(), heap_.end());
        if (busy) {
            // Keeps its place among what waits for the same executor.
            heap_.back().at_us = executor->busy_until_us_;
            std::push_heap(heap_.begin(), heap_.end());
        } else {
            heap_.pop_back();
            const Task dropped = std::exchange(slot.task, nullptr);
            free_slot(event.slot);
        }
    }
    return false;
}

bool SimWorld::step() {
    FS_CHECK(frames_.empty());
    if (!find_next()) return false;
    const Event event = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    SimExecutor* const executor = slots_[event.slot].executor;
    now_us_ = std::max(now_us_, event.at_us);
    if (++events_ > options_.max_events) check_failed("too many events", report());
    trace_hash_ = (trace_hash_ ^ static_cast<uint64_t>(now_us_) ^
                   (uint64_t{executor == nullptr ? 0 : executor->id_} << 48)) *
                  0x100000001b3ull;
    {
        Task task = std::exchange(slots_[event.slot].task, nullptr);
        free_slot(event.slot);
        frames_.push_back({executor == nullptr ? nullptr : &executor->process(), executor});
        try {
            task();
        } catch (const ProcessKilled&) {
        } catch (...) {
            frames_.clear();
            consumed_us_ = 0;
            throw;
        }
        task = nullptr;  // what it captured may still call into its process
    }
    if (executor != nullptr) executor->busy_until_us_ = now_us_ + consumed_us_;
    consumed_us_ = 0;
    frames_.pop_back();
    reap();
    for (const auto& check : on_step_) check();
    return true;
}

bool SimWorld::run_until(const std::function<bool()>& predicate, int64_t limit_us) {
    const int64_t end_us = now_us_ + limit_us;
    while (!predicate()) {
        if (!find_next()) return false;
        if (heap_.front().at_us > end_us) {
            now_us_ = end_us;
            return false;
        }
        step();
    }
    return true;
}

void SimWorld::run_for_us(int64_t duration_us) {
    const int64_t end_us = now_us_ + duration_us;
    while (find_next() && heap_.front().at_us <= end_us) step();
    now_us_ = std::max(now_us_, end_us);
}

bool SimWorld::buggify(std::string_view site) {
    if (!faults_.fire(site)) return false;
    trace("buggify", 0, 0, site);
    return true;
}

void SimWorld::trace(std::string_view what, uint64_t a, uint64_t b, std::string_view detail) {
    const SimProcess* process = current_process();
    const uint32_t id = process == nullptr ? 0 : process->id();
    uint64_t h = trace_hash_;
    for (const uint64_t word : {static_cast<uint64_t>(now_us()), hash_name(what), a, b,
                                hash_name(detail), uint64_t{id}}) {
        h ^= word;
        h *= 0x9fb21c651e98df25ull;
        h ^= h >> 32;
    }
    trace_hash_ = h;
    if (options_.trace_lines == 0) return;
    TraceLine* line;
    if (trace_.size() < options_.trace_lines) {
        line = &trace_.emplace_back();
    } else {
        line = &trace_[trace_count_ % options_.trace_lines];
    }
    ++trace_count_;
    line->at_us = now_us();
    line->a = a;
    line->b = b;
    line->process = id;
    line->what_size = static_cast<uint8_t>(std::min(what.size(), sizeof line->what));
    std::copy_n(what.data(), line->what_size, line->what);
    // The end of a long name tells more than its beginning.
    const std::string_view tail = detail.size() > sizeof line->detail
                                      ? detail.substr(detail.size() - sizeof line->detail)
                                      : detail;
    line->detail_size = static_cast<uint8_t>(tail.size());
    std::copy_n(tail.data(), tail.size(), line->detail);
}

std::string SimWorld::trace_text(size_t last) const {
    std::string text;
    const size_t count = std::min(last, trace_.size());
    for (size_t i = 0; i < count; ++i) {
        const size_t index = (trace_count_ - count + i) % trace_.size();
        const TraceLine& line = trace_[index];
        text += fmt::format("{:>14.6f} {:<20} {:<24} {:>8} {:>8} {}\n",
                            static_cast<double>(line.at_us) / 1e6, process_names_.at(line.process),
                            std::string_view(line.what, line.what_size), line.a, line.b,
                            std::string_view(line.detail, line.detail_size));
    }
    return text;
}

std::string SimWorld::report(size_t last) const {
    return fmt::format("seed {}, trace hash {:016x}, {} events, {:.6f} s of virtual time\n{}",
                       seed_, trace_hash_, events_, static_cast<double>(now_us()) / 1e6,
                       trace_text(last));
}

}  // namespace farshore
