// Points that machines share, simulated: the vault's decision (Barrier), appliances (GroupRelay),
// agents (GroupClient, PointMaker) and the taps' gates (WriteGate) are the real ones; processes
// that die, lines that stall, break and lie silent, and taps that are slow are drawn from a seed.
//
// Applications write to the machines in turn, each write once the one before it was acknowledged.
// The promise (docs/design/groups.md): a shared point that was made has of each application's
// writes everything before the last one that it has; and no write waits longer than kMaxHoldUs for
// one. FARSHORE_SEED=N repeats one, FARSHORE_SEEDS=N runs that many.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>

#include "agent/group_client.h"
#include "agent/point_maker.h"
#include "capture/write_gate.h"
#include "replicate/barrier.h"
#include "replicate/frames.h"
#include "replicate/group_relay.h"
#include "sim/network.h"
#include "sim/seeds.h"
#include "sim/world.h"

namespace farshore {
namespace {

enum class Plant {
    kNone,
    kDoesNotWait,      // the vault has members marked when the first one holds its writes
    kMarksAfterwards,  // a tap whose hold is over makes the point all the same
    kNoGate,           // writes do not wait
};

constexpr size_t kChains = 4;
constexpr int64_t kRunUs = 12'000'000;

struct Outcome {
    std::string broken;
    uint64_t made = 0, given_up = 0, writes = 0, held_writes = 0, hash = 0;
};

// A machine's tap: its log is memory that outlives it, its gate is not.
struct Machine {
    struct Record {
        bool point = false;
        size_t chain = 0;
        uint64_t number = 0;
    };
    struct Command {
        TapCommand command;
        std::optional<TapCommandResult> result;
        bool taken = false;
    };
    ItemId item;
    std::string agent;
    SimHost* host = nullptr;
    std::vector<Record> log;
    std::vector<Command> commands;
    std::unique_ptr<WriteGate> gate;
    uint64_t tap_life = 0;
};

class Simulation {
  public:
    Simulation(uint64_t seed, Plant plant)
        : world_(seed), network_(world_), plant_(plant), draw_(world_.fork("barrier")) {
        LinkProfile profile;
        profile.latency_max_us = draw_.between(300, 20'000);
        profile.notice_max_us = 8'000'000;
        profile.call_timeout_us = 2'000'000;
        network_.set_profile(profile);
        vault_ = &world_.add_host("vault").add_process(
            "vault", [this](SimProcess& self) { return boot_vault(self); });
        for (size_t i = 0; i < 2; ++i)
            appliances_[i] = &world_.add_host(fmt::format("site-{}", i))
                                  .add_process("appliance", [this, i](SimProcess& self) {
                                      return boot_appliance(self, i);
                                  });
        const size_t count = 2 + draw_.below(4);
        for (size_t i = 0; i < count; ++i) add_machine(i);
        for (SimProcess* process : processes()) process->start();
    }

    Outcome run() {
        for (size_t chain = 0; chain < kChains; ++chain) next_write(chain, 0);
        next_fault();
        world_.run_until([this] { return !outcome_.broken.empty(); }, kRunUs);
        faults_ = false;
        network_.heal_all();
        // Nothing that was given up keeps the next ones from being made.
        const uint64_t before = outcome_.made;
        if (outcome_.broken.empty() &&
            !world_.run_until([&] { return outcome_.made > before || !outcome_.broken.empty(); },
                              60'000'000))
            breach("no point was made any more");
        outcome_.hash = world_.trace_hash();
        return outcome_;
    }
    std::string report() const { return world_.report(60); }

  private:
    struct Vault {
        std::unique_ptr<Barrier> barrier;
        std::optional<SharedPointId> making;
    };
    // As the vault is to an appliance; nothing is held: the same step again means ask again.
    class Link final : public VaultLink {
      public:
        Link(Simulation& simulation, SimProcess& self) : simulation_(simulation), self_(self) {}
        Result<BarrierOrder> shared_point_step(const std::string&,
                                               const BarrierReport& report) override {
            std::optional<Result<BarrierOrder>> result;
            const Status called = simulation_.network_.call(self_, *simulation_.vault_, [&] {
                const auto vault = simulation_.vault_->program<Vault>();
                if (vault == nullptr || !vault->barrier || vault->making != report.point) {
                    result.emplace(fail(Code::kNotFound, "nobody makes it"));
                    return;
                }
                const int64_t now_us = simulation_.vault_->clock().steady_us();
                vault->barrier->report(report, now_us);
                BarrierOrder order = vault->barrier->order();
                order.step = vault->barrier->next(report.step).value_or(report.step);
                simulation_.look(*vault);
                result.emplace(std::move(order));
            });
            if (!called) return fail(called.error());
            return std::move(*result);
        }
        std::vector<BarrierOrder> offered() {
            std::vector<BarrierOrder> orders;
            (void)simulation_.network_.call(self_, *simulation_.vault_, [&] {
                orders.clear();
                const auto vault = simulation_.vault_->program<Vault>();
                if (vault && vault->barrier) orders.push_back(vault->barrier->order());
            });
            return orders;
        }
        Result<LogLease> acquire_log(const ItemId&, const std::string&) override { return no(); }
        Status register_segment(const SegmentRegistration&) override { return no(); }
        Status mark_idle(const ItemId&, Epoch, Sequence, TimePoint) override { return no(); }
        Result<std::string> sync_agent(const std::string&, const std::string&) override {
            return no();
        }
        Result<std::string> enrol(const std::string&, const std::string&) override { return no(); }

      private:
        static tl::unexpected<Error> no() { return fail(Code::kUnsupported, "not here"); }
        Simulation& simulation_;
        SimProcess& self_;
    };
    // The part of a process server that is about shared points.
    struct Appliance {
        std::unique_ptr<Link> link;
        std::unique_ptr<GroupRelay> relay;
        std::unique_ptr<SimListener> listener;
        std::map<uint64_t, std::shared_ptr<Connection>> sessions;
        uint64_t next_session = 1;
    };
    struct Agent {
        std::unique_ptr<Dialer> dialer;
        std::unique_ptr<PointMaker> points;
        std::unique_ptr<GroupClient> client;
    };

    std::vector<SimProcess*> processes() {
        std::vector<SimProcess*> all{vault_, appliances_[0], appliances_[1]};
        all.insert(all.end(), agents_.begin(), agents_.end());
        return all;
    }

    void breach(const std::string& what) {
        if (outcome_.broken.empty()) outcome_.broken = what;
    }

    // ---- the vault: one point after the other

    std::shared_ptr<void> boot_vault(SimProcess& self) {
        auto vault = std::make_shared<Vault>();
        self.executor().post_after_us(50'000, [this, &self, v = vault.get()] { tick(self, *v); });
        return vault;
    }
    void tick(SimProcess& self, Vault& vault) {
        if (vault.barrier) {
            vault.barrier->tick(self.clock().steady_us());
            look(vault);
        } else if (draw_.below(4) == 0) {
            BarrierOrder order;
            SharedPointId id;
            draw_.fill(id.raw);
            order.point = id;
            order.kind = draw_.below(4) == 0 ? PointKind::kApplication : PointKind::kBookmark;
            order.label = "shared";
            for (const auto& machine : machines_)
                order.members.push_back({machine->item, machine->agent});
            BarrierLimits limits;
            limits.ready_us = 1'000'000;
            limits.quiesce_us = 2'000'000;
            limits.mark_us = 3'000'000;
            limits.planted_does_not_wait = plant_ == Plant::kDoesNotWait;
            vault.making = id;
            vault.barrier =
                std::make_unique<Barrier>(std::move(order), self.clock().steady_us(), limits);
        }
        self.executor().post_after_us(50'000, [this, &self, &vault] { tick(self, vault); });
    }
    void look(Vault& vault) {
        const Barrier& barrier = *vault.barrier;
        if (barrier.state() == Barrier::State::kRunning) return;
        if (barrier.state() == Barrier::State::kMade) {
            ++outcome_.made;
            check(barrier);
        } else {
            ++outcome_.given_up;
            world_.trace("void", 0, 0, barrier.error() ? barrier.error()->what() : "");
        }
        vault.barrier.reset();
    }

    // The promise.
    void check(const Barrier& barrier) {
        std::map<std::pair<size_t, uint64_t>, bool> has;
        std::array<uint64_t, kChains> last{};
        for (size_t i = 0; i < machines_.size(); ++i) {
            const uint64_t cut = barrier.outcomes()[i].sequence.v;
            const auto& log = machines_[i]->log;
            if (cut == 0 || cut > log.size() || !log[cut - 1].point)
                return breach("a member's point is none of its records");
            for (uint64_t at = 0; at < cut; ++at) {
                if (log[at].point) continue;
                has[{log[at].chain, log[at].number}] = true;
                last[log[at].chain] = std::max(last[log[at].chain], log[at].number);
            }
        }
        for (size_t chain = 0; chain < kChains; ++chain)
            for (uint64_t number = 1; number < last[chain]; ++number)
                if (!has.contains({chain, number}))
                    return breach(
                        fmt::format("a shared point has write {} of application {} and "
                                    "not write {}, which was acknowledged before",
                                    last[chain], chain, number));
    }

    // ---- appliances

    std::shared_ptr<void> boot_appliance(SimProcess& self, size_t index) {
        auto appliance = std::make_shared<Appliance>();
        Appliance* const a = appliance.get();
        a->link = std::make_unique<Link>(*this, self);
        a->relay =
            std::make_unique<GroupRelay>(self.executor(), self.clock(), *a->link, self.name(),
                                         std::vector<Executor*>{&self.new_executor()});
        auto listening = network_.listen(self, self.executor(), address(index), "appliance",
                                         [this, a, &self](std::unique_ptr<Connection> made) {
                                             accept(self, *a, std::move(made));
                                         });
        FS_CHECK(listening.has_value());
        a->listener = std::move(*listening);
        SimExecutor& asking = self.new_executor();
        ask(self, asking, *a);
        return appliance;
    }
    void ask(SimProcess& self, SimExecutor& asking, Appliance& a) {
        asking.post_after_us(100'000, [this, &self, &asking, &a] {
            auto orders = a.link->offered();
            self.executor().post([&a, orders = std::move(orders)] { a.relay->take(orders); });
            ask(self, asking, a);
        });
    }
    static std::string address(size_t index) { return fmt::format("site-{}:9443", index); }
    static void accept(SimProcess& self, Appliance& a, std::unique_ptr<Connection> made) {
        const uint64_t id = a.next_session++;
        auto connection = std::shared_ptr<Connection>(std::move(made));
        a.sessions[id] = connection;
        a.relay->attach(id, connection->peer_name(), [&a, id](Bytes frame) {
            const auto at = a.sessions.find(id);
            if (at != a.sessions.end()) at->second->send(std::move(frame));
        });
        Connection::Handlers handlers;
        handlers.on_frame = [&a, id](ByteView frame) {
            const auto view = decode_frame(frame);
            if (view && view->type == FrameType::kBarrierReport)
                (void)a.relay->on_report(id, view->body);
        };
        handlers.on_closed = [&a, &self, id](const Error&) {
            a.relay->detach(id);
            const auto at = a.sessions.find(id);
            if (at == a.sessions.end()) return;
            self.executor().post([gone = at->second] {});
            a.sessions.erase(at);
        };
        handlers.on_drained = [] {};
        connection->start(std::move(handlers));
    }

    // ---- agents and taps

    void add_machine(size_t index) {
        auto machine = std::make_unique<Machine>();
        draw_.fill(machine->item.raw);
        machine->agent = fmt::format("agent-{}", index);
        machine->host = &world_.add_host(fmt::format("host-{}", index));
        start_tap(*machine);
        agents_.push_back(&machine->host->add_process(
            machine->agent,
            [this, m = machine.get()](SimProcess& self) { return boot_agent(self, *m); }));
        machines_.push_back(std::move(machine));
    }
    void start_tap(Machine& machine) {
        ++machine.tap_life;
        machine.gate = std::make_unique<WriteGate>(machine.host->clock());
        // What was posted outlives the tap before.
        for (size_t ticket = 0; ticket < machine.commands.size(); ++ticket)
            if (!machine.commands[ticket].result) serve_later(machine, ticket);
    }
    void serve_later(Machine& machine, size_t ticket) {
        const int64_t late_us =
            draw_.below(40) == 0 ? draw_.between(100'000, 700'000) : draw_.between(50, 3'000);
        world_.after_us(late_us, [this, &machine, ticket, life = machine.tap_life] {
            if (machine.tap_life == life) serve(machine, machine.commands[ticket]);
        });
    }
    void serve(Machine& machine, Machine::Command& slot) {
        if (slot.result) return;
        const TapCommand& command = slot.command;
        TapCommandResult result;
        const auto append = [&]() -> Status {
            machine.log.push_back({true, 0, 0});
            result.sequence = {machine.log.size()};
            return {};
        };
        Status done;
        if (command.kind == TapCommandKind::kHold) {
            done = machine.gate->hold(command.hold, command.not_after_us);
        } else if (command.kind == TapCommandKind::kMark) {
            done = machine.gate->mark(command.hold, append);
            if (!done && plant_ == Plant::kMarksAfterwards) done = append();
        } else if (command.kind == TapCommandKind::kPoint) {
            done = append();
        } else {
            machine.gate->let_go(command.hold);
        }
        result.ok = done.has_value();
        if (!done) result.code = done.error().code();
        slot.result = result;
    }
    std::shared_ptr<void> boot_agent(SimProcess& self, Machine& machine) {
        auto agent = std::make_shared<Agent>();
        PointMaker::Commands commands;
        commands.post = [this, &machine, &self](const TapCommand& command) -> Result<size_t> {
            // What its end would still say, a process that is killed does not.
            if (!self.alive()) return fail(Code::kCancelled, "it is dead");
            machine.commands.push_back({command, {}, false});
            serve_later(machine, machine.commands.size() - 1);
            return machine.commands.size() - 1;
        };
        commands.take = [&machine](size_t ticket) { return machine.commands[ticket].result; };
        PointMaker::Rest rest;
        rest.begin = [this, &self](const std::string&, std::function<void(Status)> begun) {
            Status status;
            if (draw_.below(10) == 0) status = fail(Code::kTimeout, "a script hangs");
            self.executor().post_after_us(draw_.between(1'000, 400'000),
                                          [begun, status] { begun(status); });
        };
        rest.freeze = [this, &self](std::function<void(Result<int64_t>)> frozen) {
            const int64_t took_us = draw_.between(1'000, 400'000);
            Result<int64_t> until = self.clock().steady_us() + took_us + 3'000'000;
            if (draw_.below(20) == 0) until = fail(Code::kTimeout, "a disk is too slow");
            self.executor().post_after_us(took_us, [frozen, until] { frozen(until); });
        };
        rest.end = [this, &self](bool, std::function<void(Status)> thawed) {
            self.executor().post_after_us(draw_.between(100, 20'000), [thawed] { thawed({}); });
        };
        PointMaker::Options options;
        options.in_gap = [this] { return draw_.below(100) == 0; };
        agent->points =
            std::make_unique<PointMaker>(self.executor(), self.clock(), std::move(commands),
                                         std::move(rest), std::move(options));
        agent->dialer = network_.dialer(self, machine.agent);
        GroupClient::Options group;
        // Either appliance will do; which one is drawn anew.
        group.address = [this] { return address(draw_.below(2)); };
        group.serve = [a = agent.get()](const BarrierOrder& order, const ItemId& item,
                                        const std::function<void(MemberOutcome)>& done) {
            a->points->serve(order, [item, done](const Result<TapCommandResult>& point) {
                MemberOutcome outcome{item, {}, {}, {}};
                if (point)
                    outcome.sequence = point->sequence;
                else
                    outcome.error = point.error();
                done(outcome);
            });
        };
        group.abandon = [a = agent.get()] { a->points->abandon_all(); };
        agent->client = std::make_unique<GroupClient>(self.executor(), self.clock(), *agent->dialer,
                                                      std::move(group));
        agent->client->want(true);
        return agent;
    }

    // ---- applications

    void next_write(size_t chain, uint64_t number) {
        world_.after_us(draw_.between(200, 15'000), [this, chain, number] {
            Machine& machine = *machines_[draw_.below(machines_.size())];
            issue(machine, chain, number + 1, machine.host->clock().steady_us(), 0);
        });
    }
    void issue(Machine& machine, size_t chain, uint64_t number, int64_t since_us,
               uint64_t arrival) {
        const int64_t now_us = machine.host->clock().steady_us();
        if (plant_ != Plant::kNoGate && !machine.gate->may_pass(arrival)) {
            // It looks again as soon as the gate may have opened; the time is the gate's to keep.
            if (now_us - since_us > kMaxHoldUs + 2'000)
                breach(fmt::format("a write waited {} us", now_us - since_us));
            world_.after_us(500, [this, &machine, chain, number, since_us, arrival] {
                issue(machine, chain, number, since_us, arrival);
            });
            return;
        }
        if (arrival != 0) ++outcome_.held_writes;
        // Under way: the disk first, then the record, then the answer.
        world_.after_us(
            draw_.between(50, 4'000), [this, &machine, chain, number, life = machine.tap_life] {
                if (machine.tap_life != life)
                    // The tap died meanwhile; the machine asks again.
                    return issue(machine, chain, number, machine.host->clock().steady_us(), 0);
                machine.log.push_back({false, chain, number});
                ++outcome_.writes;
                next_write(chain, number);
            });
    }

    // ---- fate

    void next_fault() {
        world_.after_us(draw_.between(50'000, 900'000), [this] {
            if (!faults_) return;
            strike();
            next_fault();
        });
    }
    void strike() {
        const auto all = processes();
        SimProcess& victim = *all[draw_.below(all.size())];
        SimProcess& other = *all[draw_.below(all.size())];
        switch (draw_.below(7)) {
            case 0:
            case 1:
                if (!victim.alive()) return;
                world_.trace("kill", victim.id());
                victim.kill();
                return victim.restart_after_us(draw_.between(1'000, 2'000'000));
            case 2:
                world_.trace("tap dies");
                return start_tap(*machines_[draw_.below(machines_.size())]);
            case 3:
                if (&victim.host() != &other.host())
                    network_.clog(victim.host(), other.host(), draw_.between(10'000, 600'000));
                return;
            case 4:
                return network_.reset_all();
            case 5:
                if (&victim.host() == &other.host()) return;
                network_.partition(victim.host(), other.host());
                return world_.after_us(draw_.between(50'000, 1'500'000), [this, &victim, &other] {
                    network_.heal(victim.host(), other.host());
                });
            default:
                if (&victim.host() != &other.host())
                    network_.half_open(victim.host(), other.host());
        }
    }

    std::vector<std::unique_ptr<Machine>> machines_;  // agents that end look at them still
    SimWorld world_;
    SimNetwork network_;
    const Plant plant_;
    Rng draw_;
    SimProcess* vault_ = nullptr;
    SimProcess* appliances_[2] = {};
    std::vector<SimProcess*> agents_;
    bool faults_ = true;
    Outcome outcome_;
};

Outcome run_one(uint64_t seed, Plant plant) {
    Simulation simulation(seed, plant);
    Outcome outcome = simulation.run();
    if (!outcome.broken.empty() && plant == Plant::kNone)
        outcome.broken += "\n" + simulation.report();
    return outcome;
}

// Broken if a shared point can have a write and not what was acknowledged before it was issued, a
// write can wait for longer than a hold lasts, or a fault can keep all later points from being
// made.
TEST(BarrierSim, SharedPointsAreConsistentWhateverDies) {
    std::mutex mutex;
    Outcome sum;
    const SeedReport report = run_seeds("barrier", {.count = 400}, [&](uint64_t seed) {
        const Outcome outcome = run_one(seed, Plant::kNone);
        if (seed % 40 == 0 && run_one(seed, Plant::kNone).hash != outcome.hash)
            return std::string("the second run of the seed was another one");
        const std::lock_guard hold(mutex);
        sum.made += outcome.made;
        sum.given_up += outcome.given_up;
        sum.writes += outcome.writes;
        sum.held_writes += outcome.held_writes;
        return outcome.broken;
    });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << report.runs << " seeds: " << sum.made << " points, " << sum.given_up
              << " given up, " << sum.writes << " writes, of which " << sum.held_writes
              << " waited\n";
    // Else nothing was tried.
    EXPECT_GT(sum.made, 2 * report.runs);
    EXPECT_GT(sum.given_up, report.runs / 2);
    EXPECT_GT(sum.held_writes, report.runs);
}

// Broken if the check above could not see what it is there for.
TEST(BarrierSim, PlantedBugsAreFound) {
    for (const Plant plant : {Plant::kDoesNotWait, Plant::kMarksAfterwards, Plant::kNoGate}) {
        const uint64_t seed =
            first_failing_seed(1, 400, [&](uint64_t one) { return run_one(one, plant).broken; });
        EXPECT_NE(seed, 0u) << static_cast<int>(plant);
    }
}

}  // namespace
}  // namespace farshore
