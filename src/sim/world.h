// The simulated world: one seed, one thread, one queue of events in virtual time.
//
//   SimWorld      virtual time, events, random streams, fault sites, trace
//   SimHost       a machine: disk, clock, shared memory; loses power as a whole
//   SimProcess    a program on a host: executors, file system view; killed and started again
//   SimExecutor   Executor on the world; belongs to one life of one process
//
// The world owns hosts, hosts own processes; everything lives until the world ends, so pointers to
// them may be kept. Nothing here is thread-safe. docs/design/simulation.md says why it is so.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/buggify.h"
#include "base/seams.h"
#include "sim/buggify.h"
#include "sim/rng.h"

namespace farshore {

class SimDisk;
class SimExecutor;
class SimHost;
class SimProcess;
class SimWorld;

// Thrown out of a file or store operation of a process that dies inside it, and caught where the
// world (or SimProcess::run) entered the process. Product code never names it. It is no
// std::exception, so that a catch of those lets it pass.
struct ProcessKilled {};

// At which operation of a process (files and object store, counted from 1 within a life; 0: never)
// it dies.
struct DeathPlan {
    enum class Moment : uint8_t {
        kBefore,  // nothing of the operation happens
        kDuring,  // a write or truncate happens in part; what is atomic happens or not, as drawn
        kAfter,   // it happens, and the caller never learns
    };
    uint64_t at_operation = 0;
    Moment moment = Moment::kBefore;
    bool power_loss = false;  // the whole host, not only the process
};

// Clock of a host. The wall clock may be skewed and jump; the steady one starts anew at each boot
// and never goes back.
class SimClock final : public Clock {
  public:
    explicit SimClock(SimWorld& world) : world_(world) {}
    TimePoint now() const override;
    int64_t steady_us() const override;

    void set_wall_skew_us(int64_t skew_us) { skew_us_ = skew_us; }
    void jump_wall_us(int64_t by_us) { skew_us_ += by_us; }
    // For SimHost: a new boot.
    void restart(int64_t steady_start_us);

  private:
    friend class SimExecutor;
    SimWorld& world_;
    int64_t skew_us_ = 0;
    int64_t base_us_ = 0;
    mutable int64_t last_us_ = 0;  // of the world's time line, so that no executor sees it go back
};

class SimRandom final : public Random {
  public:
    explicit SimRandom(Rng rng) : rng_(rng) {}
    void fill(MutableByteView out) override { rng_.fill(out); }

  private:
    Rng rng_;
};

// Posts and timers of a life that ended are dropped, and never run. Tasks run in the order posted;
// between executors the order is drawn. A task that consumes time (SimWorld::consume_us) delays the
// tasks behind it on its own executor only.
class SimExecutor final : public Executor {
  public:
    SimExecutor(SimProcess& process, uint64_t life, uint32_t id);
    void post(Task task) override;
    TimerId post_after_us(int64_t delay_us, Task task) override;
    void cancel(TimerId timer) override;

    SimProcess& process() const { return process_; }
    bool alive() const;

  private:
    friend class SimWorld;
    SimProcess& process_;
    uint64_t life_;
    uint32_t id_;
    Rng rng_;
    int64_t last_post_us_ = 0;   // posts keep their order
    int64_t busy_until_us_ = 0;  // of the task that ran last
};

class SimProcess {
  public:
    // Builds the program and returns what keeps it alive. Runs as the first task of a life, on
    // executor(); may die inside like any other task. What it returned is destroyed after a death,
    // when no frame of it is on the stack, with all its operations dead: a destructor can do no
    // harm, but it does run, which a kill -9 would not let it.
    using Boot = std::function<std::shared_ptr<void>(SimProcess&)>;

    SimProcess(SimHost& host, std::string name, uint32_t id, Boot boot);
    ~SimProcess();
    SimProcess(const SimProcess&) = delete;
    SimProcess& operator=(const SimProcess&) = delete;

    const std::string& name() const { return name_; }
    SimHost& host() const { return host_; }
    SimWorld& world() const;
    uint32_t id() const { return id_; }

    bool alive() const { return alive_; }
    // Counts starts; 0 before the first.
    uint64_t life() const { return life_; }
    // Begins a life. The host must be up and the process dead.
    void start();
    // kill -9: memory is gone at once, executors stop, connections close as the kernel closes them;
    // what was written to files stays. From inside its own task it takes effect without unwinding:
    // the task runs on, but nothing that it does has any effect.
    void kill();
    // start() after a delay, unless it was started or the host is down by then.
    void restart_after_us(int64_t delay_us);
    // Replaces any earlier plan; forgotten at death.
    void plan_death(const DeathPlan& plan) { plan_ = plan; }
    uint64_t operations() const { return operations_; }
    uint64_t deaths() const { return deaths_; }

    // Of the current life; the objects last until the world ends but are dead after their life.
    Executor& executor();
    SimExecutor& new_executor();
    // Of all lives.
    SimClock& clock() const;
    Random& random() { return random_; }
    FileSystem& file_system() { return *file_system_; }

    // Runs `body` now as code of this process (a call from another process, or from the test).
    // False when the process is or ends up dead. When the caller's own process died meanwhile
    // (power loss of a common host), it does not return.
    bool run(const std::function<void()>& body);

    // What boot returned; null before boot ended and after death.
    template <typename Program>
    std::shared_ptr<Program> program() const {
        return std::static_pointer_cast<Program>(program_);
    }

  private:
    friend class SimHost;
    friend class SimOperation;
    friend class SimWorld;
    void die(bool power_loss);
    void reap();

    SimHost& host_;
    std::string name_;
    uint32_t id_;
    Boot boot_;
    SimRandom random_;
    Rng operation_rng_;
    std::unique_ptr<FileSystem> file_system_;
    std::vector<std::unique_ptr<SimExecutor>> executors_;  // of all lives, see new_executor()
    SimExecutor* main_ = nullptr;
    std::shared_ptr<void> program_;
    bool alive_ = false;
    bool unreaped_ = false;
    std::unique_ptr<std::map<std::string, Bytes>> memory_at_death_;
    uint64_t life_ = 0;
    uint64_t deaths_ = 0;
    uint64_t operations_ = 0;
    uint64_t operations_when_dead_ = 0;
    DeathPlan plan_;
};

// What every operation of a simulated file or store stands in: counts it, lets the process die
// before, during or after it, and makes the operations of dead processes have no effect.
//
//   SimOperation op(process, life, "file.write", offset, length);
//   if (op.dead()) return op.error();
//   if (op.torn()) { ...apply a part...; op.die(); return op.error(); }
//   ...apply...
//   op.finish(); if (op.dead()) return op.error();
//
// The constructor, die() and finish() may throw ProcessKilled. They do not while another exception
// unwinds the stack (then the operation just turns dead).
class SimOperation {
  public:
    SimOperation(SimProcess& process, uint64_t life, std::string_view what, uint64_t a = 0,
                 uint64_t b = 0, std::string_view detail = {});
    bool dead() const { return dead_; }
    bool torn() const { return torn_; }
    // For an operation that dies in the middle: uniform in [0, bound).
    uint64_t draw(uint64_t bound);
    void die();
    void finish();
    tl::unexpected<Error> error() const;

  private:
    SimProcess& process_;
    bool dead_ = false;
    bool torn_ = false;
    bool die_after_ = false;
};

class SimHost {
  public:
    SimHost(SimWorld& world, std::string name, uint32_t id);
    ~SimHost();
    SimHost(const SimHost&) = delete;
    SimHost& operator=(const SimHost&) = delete;

    const std::string& name() const { return name_; }
    uint32_t id() const { return id_; }
    SimWorld& world() const { return world_; }
    SimDisk& disk() { return *disk_; }
    SimClock& clock() { return clock_; }
    bool up() const { return up_; }
    // Counts boots, from 1.
    uint64_t boot_number() const { return boot_number_; }

    // Made dead: start() it.
    SimProcess& add_process(std::string name, SimProcess::Boot boot = {});
    const std::vector<std::unique_ptr<SimProcess>>& processes() const { return processes_; }

    // Power loss: all processes die, unsynced data is lost or torn (SimDisk::lose_power), shared
    // memory is gone.
    void lose_power();
    // Power is back: starts all processes that ever lived, unless told not to.
    void power_on(bool start_processes = true);
    void power_on_after_us(int64_t delay_us);

    // Zeroed memory that survives processes but not power loss (a file in tmpfs, mapped). What a
    // process writes into it after its death, while it unwinds, is undone.
    MutableByteView shared_memory(const std::string& name, size_t size_bytes);
    void remove_shared_memory(const std::string& name) { shared_memory_.erase(name); }

  private:
    friend class SimProcess;
    using SharedMemory = std::map<std::string, Bytes>;

    SimWorld& world_;
    std::string name_;
    uint32_t id_;
    bool up_ = true;
    uint64_t boot_number_ = 1;
    SimClock clock_;
    std::unique_ptr<SimDisk> disk_;
    SharedMemory shared_memory_;
    std::vector<std::unique_ptr<SimProcess>> processes_;
};

// It is the Buggify that is handed to product code as well.
class SimWorld final : public Buggify {
  public:
    struct Options {
        size_t trace_lines = 4096;         // kept for trace_text()
        int64_t post_jitter_us = 40;       // a posted task starts after at most this
        uint64_t max_events = 50'000'000;  // more is a live-lock: the run fails loudly
    };

    explicit SimWorld(uint64_t seed) : SimWorld(seed, Options()) {}
    SimWorld(uint64_t seed, const Options& options);
    // Kills every process first. Networks and stores may be destroyed before or after.
    ~SimWorld() override;
    SimWorld(const SimWorld&) = delete;
    SimWorld& operator=(const SimWorld&) = delete;

    uint64_t seed() const { return seed_; }
    // Virtual time from 0: of the running event, plus what its task has consumed.
    int64_t now_us() const { return now_us_ + consumed_us_; }
    // For the test's own draws. Components fork their own streams.
    Rng& rng() { return rng_; }
    Rng fork(std::string_view name) const { return root_.fork(name); }

    SimHost& add_host(std::string name);

    // An event that belongs to no process and always happens.
    void after_us(int64_t delay_us, Task task);
    // The running task takes this much longer.
    void consume_us(int64_t us);

    // Runs the next event. False when there is none.
    bool step();
    // Steps until the predicate (asked before the first and after each event) holds. False when
    // `limit_us` of virtual time passed, or nothing is left to happen, without it.
    bool run_until(const std::function<bool()>& predicate, int64_t limit_us);
    // Lets this much virtual time pass.
    void run_for_us(int64_t duration_us);
    // Called after every event, for invariants.
    void on_step(std::function<void()> check) { on_step_.push_back(std::move(check)); }
    // Called when a process dies, before anything of it is destroyed.
    void on_death(std::function<void(SimProcess&, bool power_loss)> hook) {
        on_death_.push_back(std::move(hook));
    }
    uint64_t events() const { return events_; }

    FaultSites& faults() { return faults_; }
    bool buggify(std::string_view site);
    bool fire(std::string_view site) override { return buggify(site); }

    // One line of the trace; all of it goes into the hash, the last ones can be printed.
    void trace(std::string_view what, uint64_t a = 0, uint64_t b = 0, std::string_view detail = {});
    // Two runs of one seed that differ here were not the same run.
    uint64_t trace_hash() const { return trace_hash_; }
    std::string trace_text(size_t last = 200) const;
    // "seed N, hash H, T events, virtual time" and the last lines: what a failing test prints.
    std::string report(size_t last = 200) const;

    // The executor or process whose code runs now; null for world events and the test itself.
    SimExecutor* current_executor() const {
        return frames_.empty() ? nullptr : frames_.back().executor;
    }
    SimProcess* current_process() const {
        return frames_.empty() ? nullptr : frames_.back().process;
    }

  private:
    friend class SimExecutor;
    friend class SimHost;
    friend class SimOperation;
    friend class SimProcess;

    struct Event {
        int64_t at_us;
        uint64_t order;
        uint32_t slot;
        // For a max-heap that yields the earliest.
        bool operator<(const Event& other) const {
            return at_us != other.at_us ? at_us > other.at_us : order > other.order;
        }
    };
    struct Slot {
        Task task;
        SimExecutor* executor = nullptr;
        uint32_t generation = 1;
        bool used = false;
    };
    struct Frame {
        SimProcess* process;
        SimExecutor* executor;
    };
    struct TraceLine {
        int64_t at_us;
        uint64_t a, b;
        uint32_t process;
        uint8_t what_size, detail_size;
        char what[30];
        char detail[64];
    };

    uint64_t schedule(int64_t at_us, SimExecutor* executor, Task task);
    void cancel(uint64_t id, const SimExecutor* executor);
    void free_slot(uint32_t index);
    void drop_tasks_of(const SimProcess& process);
    void died(SimProcess& process, bool power_loss);
    // Destroys what dead processes left, those of whose code nothing is on the stack.
    void reap();
    bool on_stack(const SimProcess& process) const;
    // Brings the next event that can run to the top of the heap; false when there is none.
    bool find_next();

    Options options_;
    uint64_t seed_;
    Rng root_;
    Rng rng_;
    FaultSites faults_;
    int64_t now_us_ = 0;
    int64_t consumed_us_ = 0;
    uint64_t next_order_ = 0;
    uint64_t events_ = 0;
    uint32_t next_process_ = 1;
    uint32_t next_executor_ = 1;
    std::vector<Event> heap_;
    std::deque<Slot> slots_;  // a deque: tasks add slots while one runs
    std::vector<uint32_t> free_slots_;
    std::vector<Frame> frames_;
    std::vector<SimProcess*> unreaped_;
    std::vector<std::function<void()>> on_step_;
    std::vector<std::function<void(SimProcess&, bool)>> on_death_;
    uint64_t trace_hash_ = 0;
    uint64_t trace_count_ = 0;
    std::vector<TraceLine> trace_;
    std::vector<std::string> process_names_;
    std::vector<std::unique_ptr<SimHost>> hosts_;
};

}  // namespace farshore
