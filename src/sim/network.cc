#include "sim/network.h"

#include <fmt/core.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace farshore {
namespace {

constexpr int64_t kNoticeRetryUs = 200'000;

// Frames from one host to another.
struct Link {
    SimHost* from = nullptr;
    SimHost* to = nullptr;
    bool partitioned = false;
    int64_t clogged_until_us = 0;
    int64_t free_at_us = 0;  // bandwidth

    bool passes(int64_t now_us) const {
        return !partitioned && clogged_until_us <= now_us && from->up() && to->up();
    }
};

struct End {
    SimExecutor* executor = nullptr;
    std::string peer_name;
    std::shared_ptr<Connection::Handlers>
        handlers;           // shared: a callback may destroy its connection
    bool open = true;       // false: sends nothing, receives nothing, as far as this end knows
    bool released = false;  // its Connection is gone: no callbacks any more
    // What waits to be called back: a frame, or the error that ends it all.
    struct Arrival {
        Bytes frame;
        std::optional<Error> error;
    };
    std::deque<Arrival> inbox;
    // Outgoing.
    std::deque<Bytes> queue;
    size_t queued_bytes = 0;
    bool above_mark = false;
    bool pump_planned = false;
    size_t window_used_bytes = 0;        // departed, not yet taken by the peer
    uint64_t flying = 0;                 // departed, not yet arrived or lost
    uint64_t may_arrive = ~uint64_t{0};  // of the flying and later ones
    int64_t last_arrival_us = 0;
    std::deque<Bytes> stalled;  // arrived at a link that does not pass: in order behind it
    bool stall_planned = false;

    SimProcess& process() const { return executor->process(); }
    SimHost& host() const { return process().host(); }
};

struct Wire {
    uint64_t id = 0;
    End ends[2];
};
using WireRef = std::shared_ptr<Wire>;

SimExecutor& sim_executor(Executor& executor) {
    auto* sim = dynamic_cast<SimExecutor*>(&executor);
    FS_CHECK(sim != nullptr);
    return *sim;
}

}  // namespace

struct SimNetwork::Core : std::enable_shared_from_this<SimNetwork::Core> {
    explicit Core(SimWorld& in) : world(in), rng(in.fork("network")) {}

    struct Listening {
        SimExecutor* executor;
        std::string identity;
        std::function<void(std::unique_ptr<Connection>)> on_accept;
        bool closed = false;
    };

    SimWorld& world;
    Rng rng;
    LinkProfile profile;
    NetworkCounters counters;
    uint64_t next_wire = 1;
    std::map<std::pair<uint32_t, uint32_t>, Link> links;
    std::map<std::string, std::shared_ptr<Listening>> listeners;
    std::vector<WireRef> wires;

    Link& link(SimHost& from, SimHost& to) {
        Link& at = links[{from.id(), to.id()}];
        at.from = &from;
        at.to = &to;
        return at;
    }
    Link& link_from(Wire& wire, int from) {
        return link(wire.ends[from].host(), wire.ends[1 - from].host());
    }
    int64_t latency_us() {
        const int64_t us = rng.between(profile.latency_min_us, profile.latency_max_us);
        return world.buggify("net.slow") ? us * rng.between(10, 200) : us;
    }
    int64_t notice_us() { return rng.between(profile.notice_min_us, profile.notice_max_us); }

    // A world event that keeps the core alive.
    template <typename Body>
    void later(int64_t delay_us, Body body) {
        world.after_us(delay_us,
                       [self = shared_from_this(), body = std::move(body)] { body(*self); });
    }

    void forget_finished();
    void plan_pump(const WireRef& wire, int from, int64_t delay_us);
    void pump(const WireRef& wire, int from, bool force);
    void arrive(const WireRef& wire, int from, Bytes frame);
    void flush_stalled(const WireRef& wire, int from);
    void plan_flush(const WireRef& wire, int from, int64_t delay_us);
    void deliver(const WireRef& wire, int to, Bytes frame);
    void call_back(const WireRef& wire, int to);
    void fail_end(const WireRef& wire, int which, Error error);
    void limit_flying(End& end);
    void plan_notice(const WireRef& wire, int to, int64_t delay_us, int64_t deadline_us,
                     const std::string& why);
    void local_close(const WireRef& wire, int which, bool graceful);
    void release(const WireRef& wire, int which);
    void break_wire(const WireRef& wire);
    void process_died(SimProcess& process, bool power_loss);
    void partition_started(SimHost& a, SimHost& b);
    void passable_again();
    bool between(const Wire& wire, const SimHost& a, const SimHost& b) const {
        const SimHost *x = &wire.ends[0].host(), *y = &wire.ends[1].host();
        return (x == &a && y == &b) || (x == &b && y == &a);
    }
};

class SimConnection final : public Connection {
  public:
    SimConnection(std::shared_ptr<SimNetwork::Core> core, WireRef wire, int which)
        : core_(std::move(core)), wire_(std::move(wire)), which_(which) {}
    ~SimConnection() override {
        check_executor();
        core_->release(wire_, which_);
    }

    void start(Handlers handlers) override {
        check_executor();
        End& end = me();
        FS_CHECK(end.handlers == nullptr);
        end.handlers = std::make_shared<Handlers>(std::move(handlers));
        for (size_t i = 0; i < end.inbox.size(); ++i)
            end.executor->post(
                [core = core_, wire = wire_, which = which_] { core->call_back(wire, which); });
    }
    void send(Bytes frame) override {
        check_executor();
        FS_CHECK(frame.size() <= kMaxFrameBytes);
        End& end = me();
        if (!end.open || !end.executor->alive()) return;
        end.queued_bytes += frame.size();
        FS_CHECK(end.queued_bytes <= kMaxSimQueuedBytes);
        end.queue.push_back(std::move(frame));
        if (end.queued_bytes > core_->profile.low_mark_bytes) end.above_mark = true;
        ++core_->counters.frames_sent;
        core_->plan_pump(wire_, which_, core_->rng.between(0, 30));
    }
    size_t queued_bytes() const override { return me().queued_bytes; }
    void close() override {
        check_executor();
        if (!me().open || !me().executor->alive()) return;
        core_->local_close(wire_, which_, true);
        core_->fail_end(wire_, which_, Error(Code::kCancelled, "the connection was closed here"));
    }
    const std::string& peer_name() const override { return me().peer_name; }

  private:
    End& me() const { return wire_->ends[which_]; }
    void check_executor() const {
        const SimExecutor* running = core_->world.current_executor();
        FS_CHECK(running == nullptr || running == me().executor || !me().executor->alive());
    }
    std::shared_ptr<SimNetwork::Core> core_;
    WireRef wire_;
    int which_;
};

// --- frames

void SimNetwork::Core::forget_finished() {
    std::erase_if(wires,
                  [](const WireRef& wire) { return !wire->ends[0].open && !wire->ends[1].open; });
}

void SimNetwork::Core::plan_pump(const WireRef& wire, int from, int64_t delay_us) {
    End& end = wire->ends[from];
    if (end.pump_planned) return;
    end.pump_planned = true;
    later(delay_us, [wire, from](Core& core) {
        wire->ends[from].pump_planned = false;
        core.pump(wire, from, false);
    });
}

void SimNetwork::Core::pump(const WireRef& wire, int from, bool force) {
    End& end = wire->ends[from];
    if (!force && !end.open) return;
    Link& over = link_from(*wire, from);
    while (!end.queue.empty()) {
        const int64_t now_us = world.now_us();
        if (!over.passes(now_us)) {
            if (over.clogged_until_us > now_us && !force)
                plan_pump(wire, from, over.clogged_until_us - now_us);
            break;
        }
        if (!force && end.window_used_bytes >= profile.window_bytes) break;
        if (world.buggify("net.clog")) {
            over.clogged_until_us = now_us + rng.between(10'000, 3'000'000);
            world.trace("net.clog", over.from->id(), over.to->id());
            continue;
        }
        if (world.buggify("net.reset")) {
            later(rng.between(0, 2 * profile.latency_max_us),
                  [wire](Core& core) { core.break_wire(wire); });
        }
        Bytes frame = std::move(end.queue.front());
        end.queue.pop_front();
        end.queued_bytes -= frame.size();
        end.window_used_bytes += frame.size();
        ++end.flying;
        const auto line_us =
            static_cast<int64_t>(frame.size() * 1'000'000 / profile.bandwidth_bytes_per_s);
        over.free_at_us = std::max(over.free_at_us, now_us) + line_us;
        end.last_arrival_us = std::max(end.last_arrival_us, over.free_at_us + latency_us());
        later(end.last_arrival_us - now_us,
              [wire, from, held = std::make_shared<Bytes>(std::move(frame))](Core& core) {
                  core.arrive(wire, from, std::move(*held));
              });
    }
    if (end.above_mark && end.queued_bytes <= profile.low_mark_bytes) {
        end.above_mark = false;
        end.executor->post([wire, from] {
            const End& at = wire->ends[from];
            const auto handlers = at.handlers;
            if (at.open && !at.released && handlers != nullptr && handlers->on_drained)
                handlers->on_drained();
        });
    }
}

void SimNetwork::Core::arrive(const WireRef& wire, int from, Bytes frame) {
    End& sender = wire->ends[from];
    const Link& over = link_from(*wire, from);
    if (!sender.stalled.empty() || !over.passes(world.now_us())) {
        sender.stalled.push_back(std::move(frame));
        plan_flush(wire, from, std::max<int64_t>(over.clogged_until_us - world.now_us(), 0));
        return;
    }
    deliver(wire, from, std::move(frame));
}

void SimNetwork::Core::plan_flush(const WireRef& wire, int from, int64_t delay_us) {
    // A partition ends by heal(), power by power_on(): passable_again() or the sender's next frame.
    if (wire->ends[from].stall_planned) return;
    wire->ends[from].stall_planned = true;
    later(std::max(delay_us, kNoticeRetryUs), [wire, from](Core& core) {
        wire->ends[from].stall_planned = false;
        core.flush_stalled(wire, from);
    });
}

void SimNetwork::Core::flush_stalled(const WireRef& wire, int from) {
    End& sender = wire->ends[from];
    if (sender.stalled.empty()) return;
    const Link& over = link_from(*wire, from);
    if (!wire->ends[0].open && !wire->ends[1].open) {
        sender.stalled.clear();
        return;
    }
    if (!over.passes(world.now_us())) {
        plan_flush(wire, from, over.clogged_until_us - world.now_us());
        return;
    }
    std::deque<Bytes> frames = std::exchange(sender.stalled, {});
    for (Bytes& frame : frames) deliver(wire, from, std::move(frame));
}

// The frame of end `from` reaches the other end's host.
void SimNetwork::Core::deliver(const WireRef& wire, int from, Bytes frame) {
    End& sender = wire->ends[from];
    End& receiver = wire->ends[1 - from];
    --sender.flying;
    if (sender.may_arrive == 0) {
        ++counters.frames_lost;
        return;
    }
    if (sender.may_arrive != ~uint64_t{0}) --sender.may_arrive;
    if (!receiver.open || !receiver.executor->alive()) {
        ++counters.frames_lost;
        // A host that is up answers a frame for nobody with a reset.
        if (sender.open) plan_notice(wire, from, latency_us(), notice_us(), "reset by peer");
        return;
    }
    world.trace("net.frame", wire->id, frame.size());
    receiver.inbox.push_back({std::move(frame), std::nullopt});
    if (receiver.handlers != nullptr)
        receiver.executor->post(
            [core = shared_from_this(), wire, to = 1 - from] { core->call_back(wire, to); });
}

void SimNetwork::Core::call_back(const WireRef& wire, int to) {
    End& end = wire->ends[to];
    if (end.released || end.inbox.empty()) return;
    const auto handlers = end.handlers;
    if (handlers == nullptr) return;  // moved away at death
    End::Arrival arrival = std::move(end.inbox.front());
    end.inbox.pop_front();
    if (arrival.error) {
        end.inbox.clear();
        if (handlers->on_closed) handlers->on_closed(std::move(*arrival.error));
        return;
    }
    End& sender = wire->ends[1 - to];
    sender.window_used_bytes -= std::min(sender.window_used_bytes, arrival.frame.size());
    if (sender.open && !sender.queue.empty()) plan_pump(wire, 1 - to, 0);
    ++counters.frames_delivered;
    if (handlers->on_frame) handlers->on_frame(arrival.frame);
}

// --- ends

// This end learns that it is over.
void SimNetwork::Core::fail_end(const WireRef& wire, int which, Error error) {
    End& end = wire->ends[which];
    world.trace("net.closed", wire->id, static_cast<uint64_t>(which), code_name(error.code()));
    end.open = false;
    end.queue.clear();
    end.queued_bytes = 0;
    forget_finished();
    if (end.released || !end.executor->alive()) return;
    end.inbox.push_back({{}, std::move(error)});
    if (end.handlers != nullptr)
        end.executor->post(
            [core = shared_from_this(), wire, which] { core->call_back(wire, which); });
}

// Draws how many of the frames under way still arrive.
void SimNetwork::Core::limit_flying(End& end) {
    if (end.may_arrive == ~uint64_t{0})
        end.may_arrive = rng.coin() ? end.flying : rng.below(end.flying + 1);
}

// End `to` will notice that the other one is gone: once the news can pass, at the latest when
// keep-alive gives up.
void SimNetwork::Core::plan_notice(const WireRef& wire, int to, int64_t delay_us,
                                   int64_t deadline_us, const std::string& why) {
    later(std::min(delay_us, deadline_us), [wire, to, deadline_us, delay_us, why](Core& core) {
        if (!wire->ends[to].open) return;
        if (core.link_from(*wire, 1 - to).passes(core.world.now_us())) {
            core.fail_end(wire, to, Error(Code::kConnectionLost, why));
        } else if (delay_us >= deadline_us) {
            core.fail_end(wire, to, Error(Code::kTimeout, "the peer does not answer"));
        } else {
            core.plan_notice(wire, to, kNoticeRetryUs, deadline_us - delay_us, why);
        }
    });
}

// End `which` goes; the other end is told as its kernel would tell it.
void SimNetwork::Core::local_close(const WireRef& wire, int which, bool graceful) {
    End& end = wire->ends[which];
    if (!end.open) return;
    if (graceful && rng.coin() && link_from(*wire, which).passes(world.now_us())) {
        // All that was queued leaves in front of the end mark, or a part of it.
        if (rng.coin()) {
            const size_t keep = rng.below(end.queue.size() + 1);
            while (end.queue.size() > keep) end.queue.pop_back();
        }
        pump(wire, which, true);
        if (end.may_arrive == ~uint64_t{0}) end.may_arrive = end.flying;
    } else {
        limit_flying(end);
    }
    end.open = false;
    end.queue.clear();
    end.queued_bytes = 0;
    world.trace("net.close", wire->id, static_cast<uint64_t>(which));
    const int64_t deadline_us = notice_us();
    int64_t delay_us = std::max<int64_t>(end.last_arrival_us - world.now_us(), 0) + latency_us();
    if (world.buggify("net.late_notice"))
        delay_us = std::max(delay_us, rng.between(0, deadline_us));
    if (wire->ends[1 - which].open)
        plan_notice(wire, 1 - which, delay_us, deadline_us, "closed by peer");
    forget_finished();
}

// The Connection object is destroyed.
void SimNetwork::Core::release(const WireRef& wire, int which) {
    End& end = wire->ends[which];
    if (end.released) return;
    end.released = true;
    if (end.executor->alive()) local_close(wire, which, true);
    end.inbox.clear();
    end.handlers.reset();
}

void SimNetwork::Core::break_wire(const WireRef& wire) {
    if (!wire->ends[0].open && !wire->ends[1].open) return;
    ++counters.resets;
    world.trace("net.reset", wire->id);
    for (int i = 0; i < 2; ++i) {
        End& end = wire->ends[i];
        limit_flying(end);
        if (!end.open) continue;
        int64_t delay_us = rng.between(0, 2 * profile.latency_max_us);
        if (world.buggify("net.late_notice")) delay_us = rng.between(0, notice_us());
        later(delay_us, [wire, i](Core& core) {
            if (wire->ends[i].open)
                core.fail_end(wire, i, Error(Code::kConnectionLost, "connection reset"));
        });
    }
}

void SimNetwork::Core::process_died(SimProcess& process, bool power_loss) {
    const std::vector<WireRef> all = wires;  // local_close() forgets finished ones
    for (const WireRef& wire : all) {
        for (int i = 0; i < 2; ++i) {
            End& end = wire->ends[i];
            if (&end.process() != &process) continue;
            if (end.open) {
                if (power_loss) {
                    limit_flying(end);
                    end.open = false;
                    if (wire->ends[1 - i].open) {
                        const int64_t us = notice_us();
                        plan_notice(wire, 1 - i, us, us, "the peer does not answer");
                    }
                } else {
                    local_close(wire, i, false);
                }
            }
            // What callbacks captured goes with the program, not with the network. A frame of the
            // dead may be running one of them: not now.
            if (end.handlers != nullptr)
                world.after_us(0, [held = std::move(end.handlers)]() mutable { held.reset(); });
            end.handlers.reset();
        }
    }
    for (auto& [address, listening] : listeners) {
        if (&listening->executor->process() != &process || !listening->on_accept) continue;
        listening->closed = true;
        world.after_us(0, [held = std::make_shared<decltype(listening->on_accept)>(
                               std::exchange(listening->on_accept, nullptr))] { *held = nullptr; });
    }
    forget_finished();
}

void SimNetwork::Core::partition_started(SimHost& a, SimHost& b) {
    for (const WireRef& wire : wires) {
        if (!between(*wire, a, b)) continue;
        for (int i = 0; i < 2; ++i) {
            if (!wire->ends[i].open) continue;
            const int64_t us = notice_us();
            later(us, [wire, i](Core& core) {
                // Healed in time: nobody noticed.
                if (!wire->ends[i].open || core.link_from(*wire, i).passes(core.world.now_us()))
                    return;
                core.local_close(wire, i, false);
                core.fail_end(wire, i, Error(Code::kTimeout, "the peer does not answer"));
            });
        }
    }
}

void SimNetwork::Core::passable_again() {
    const std::vector<WireRef> all = wires;
    for (const WireRef& wire : all)
        for (int i = 0; i < 2; ++i) {
            plan_pump(wire, i, latency_us());
            later(latency_us(), [wire, i](Core& core) { core.flush_stalled(wire, i); });
        }
}

// --- dialing

class SimDialer final : public Dialer {
  public:
    SimDialer(std::shared_ptr<SimNetwork::Core> core, SimProcess& process, std::string identity)
        : core_(std::move(core)), process_(process), identity_(std::move(identity)) {}

    void dial(Executor& on, const std::string& address,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override {
        SimExecutor& executor = sim_executor(on);
        FS_CHECK(&executor.process() == &process_);
        if (!executor.alive()) return;
        ++core_->counters.dials;
        // Held by the network, and freed with the program.
        auto held = std::make_shared<Done>(std::move(done));
        core_->later(core_->latency_us(), [executor = &executor, address, held,
                                           identity = identity_](SimNetwork::Core& core) {
            if (executor->alive()) knock(core, *executor, address, held, identity);
        });
    }

  private:
    using Done = std::function<void(Result<std::unique_ptr<Connection>>)>;

    static void answer(SimNetwork::Core& core, SimExecutor& executor, int64_t delay_us,
                       const std::shared_ptr<Done>& done, const Error& error) {
        ++core.counters.dials_failed;
        core.later(delay_us, [executor = &executor, done, error](SimNetwork::Core&) {
            executor->post([done, error] { (*done)(tl::unexpected(error)); });
        });
    }

    static void knock(SimNetwork::Core& core, SimExecutor& executor, const std::string& address,
                      const std::shared_ptr<Done>& done, const std::string& identity) {
        const auto at = core.listeners.find(address);
        const Error refused(Code::kConnectionLost, "connection to " + address + " refused");
        if (at == core.listeners.end())
            return answer(core, executor, core.latency_us(), done, refused);
        const auto listening = at->second;
        SimHost& from = executor.process().host();
        SimHost& to = listening->executor->process().host();
        const int64_t now_us = core.world.now_us();
        if (!core.link(from, to).passes(now_us) || !core.link(to, from).passes(now_us))
            return answer(core, executor, core.profile.dial_timeout_us, done,
                          Error(Code::kTimeout, "no answer from " + address));
        if (listening->closed || !listening->executor->alive() ||
            core.world.buggify("net.dial_fail"))
            return answer(core, executor, core.latency_us(), done, refused);

        auto wire = std::make_shared<Wire>();
        wire->id = core.next_wire++;
        wire->ends[0].executor = &executor;
        wire->ends[0].peer_name = listening->identity;
        wire->ends[1].executor = listening->executor;
        wire->ends[1].peer_name = identity;
        core.wires.push_back(wire);
        ++core.counters.accepted;
        core.world.trace("net.open", wire->id, executor.process().id(), address);
        auto core_ref = core.shared_from_this();
        auto accepted = std::make_shared<std::unique_ptr<Connection>>(
            std::make_unique<SimConnection>(core_ref, wire, 1));
        listening->executor->post([listening, accepted] {
            if (!listening->closed && listening->on_accept)
                listening->on_accept(std::move(*accepted));
        });
        auto dialled = std::make_shared<std::unique_ptr<Connection>>(
            std::make_unique<SimConnection>(core_ref, wire, 0));
        if (core.world.buggify("net.half_dial")) {
            // The acceptor believes in it; the dialer gave up.
            dialled.reset();
            return answer(core, executor, core.latency_us(), done,
                          Error(Code::kTimeout, "no answer from " + address));
        }
        core.later(core.latency_us(), [executor = &executor, done, dialled](SimNetwork::Core&) {
            executor->post([done, dialled] { (*done)(std::move(*dialled)); });
        });
    }

    std::shared_ptr<SimNetwork::Core> core_;
    SimProcess& process_;
    std::string identity_;
};

class SimListenerImpl final : public SimListener {
  public:
    using State = SimNetwork::Core::Listening;
    SimListenerImpl(std::shared_ptr<SimNetwork::Core> core, std::shared_ptr<State> state)
        : core_(std::move(core)), state_(std::move(state)) {}
    ~SimListenerImpl() override {
        // Stays known, so that a dial knows which host refuses it.
        state_->closed = true;
        state_->on_accept = nullptr;
    }

  private:
    std::shared_ptr<SimNetwork::Core> core_;
    std::shared_ptr<State> state_;
};

// --- the network

SimNetwork::SimNetwork(SimWorld& world) : core_(std::make_shared<Core>(world)) {
    world.on_death([core = std::weak_ptr<Core>(core_)](SimProcess& process, bool power_loss) {
        if (const auto at = core.lock()) at->process_died(process, power_loss);
    });
}
SimNetwork::~SimNetwork() = default;

std::unique_ptr<Dialer> SimNetwork::dialer(SimProcess& process, std::string identity) {
    return std::make_unique<SimDialer>(core_, process, std::move(identity));
}

Result<std::unique_ptr<SimListener>> SimNetwork::listen(
    SimProcess& process, Executor& executor, const std::string& address, std::string identity,
    std::function<void(std::unique_ptr<Connection>)> on_accept) {
    SimExecutor& on = sim_executor(executor);
    FS_CHECK(&on.process() == &process);
    auto& at = core_->listeners[address];
    if (at != nullptr && !at->closed && at->executor->alive())
        return fail(Code::kAlreadyExists, "address " + address + " is in use");
    at = std::make_shared<Core::Listening>(
        Core::Listening{&on, std::move(identity), std::move(on_accept), false});
    return std::make_unique<SimListenerImpl>(core_, at);
}

void SimNetwork::set_profile(const LinkProfile& profile) { core_->profile = profile; }

Status SimNetwork::call(SimProcess& from, SimProcess& to, const std::function<void()>& body) {
    Core& core = *core_;
    SimWorld& world = core.world;
    if (!from.alive()) return fail(Code::kInternal, "process " + from.name() + " is dead");
    const auto timeout = [&](std::string what) {
        world.consume_us(core.profile.call_timeout_us);
        return fail(Code::kTimeout, std::move(what));
    };
    world.trace("net.call", from.id(), to.id());
    world.consume_us(core.latency_us());
    if (!core.link(from.host(), to.host()).passes(world.now_us()) ||
        world.buggify("net.request_lost"))
        return timeout("the request was not answered");
    if (!to.alive()) return fail(Code::kUnavailable, "connection to " + to.name() + " refused");
    // Whatever the callee consumes passes for the caller, too.
    if (world.buggify("net.request_twice")) to.run(body);
    if (!to.run(body)) return fail(Code::kConnectionLost, to.name() + " closed the connection");
    if (!core.link(to.host(), from.host()).passes(world.now_us()) ||
        world.buggify("net.answer_lost"))
        return timeout("the answer did not come back");
    world.consume_us(core.latency_us());
    return {};
}

void SimNetwork::partition(SimHost& a, SimHost& b) {
    core_->world.trace("net.partition", a.id(), b.id());
    core_->link(a, b).partitioned = true;
    core_->link(b, a).partitioned = true;
    core_->partition_started(a, b);
}

void SimNetwork::heal(SimHost& a, SimHost& b) {
    core_->world.trace("net.heal", a.id(), b.id());
    core_->link(a, b).partitioned = false;
    core_->link(b, a).partitioned = false;
    core_->passable_again();
}

void SimNetwork::heal_all() {
    core_->world.trace("net.heal_all");
    for (auto& [hosts, link] : core_->links) {
        link.partitioned = false;
        link.clogged_until_us = 0;
    }
    core_->passable_again();
}

bool SimNetwork::partitioned(const SimHost& a, const SimHost& b) const {
    const auto at = core_->links.find({a.id(), b.id()});
    return at != core_->links.end() && at->second.partitioned;
}

void SimNetwork::clog(SimHost& from, SimHost& to, int64_t duration_us) {
    core_->world.trace("net.clog", from.id(), to.id());
    Link& link = core_->link(from, to);
    link.clogged_until_us = std::max(link.clogged_until_us, core_->world.now_us() + duration_us);
}

void SimNetwork::reset(SimHost& a, SimHost& b) {
    const std::vector<WireRef> all = core_->wires;
    for (const WireRef& wire : all)
        if (core_->between(*wire, a, b)) core_->break_wire(wire);
}

void SimNetwork::reset_all() {
    const std::vector<WireRef> all = core_->wires;
    for (const WireRef& wire : all) core_->break_wire(wire);
}

void SimNetwork::half_open(SimHost& goes, SimHost& stays) {
    const std::vector<WireRef> all = core_->wires;
    for (const WireRef& wire : all) {
        if (!core_->between(*wire, goes, stays)) continue;
        const int which = &wire->ends[0].host() == &goes ? 0 : 1;
        if (!wire->ends[which].open) continue;
        core_->limit_flying(wire->ends[which]);
        core_->fail_end(wire, which, Error(Code::kTimeout, "the peer does not answer"));
    }
}

size_t SimNetwork::open_connections() const {
    return static_cast<size_t>(std::ranges::count_if(core_->wires, [](const WireRef& wire) {
        return wire->ends[0].open || wire->ends[1].open;
    }));
}

const NetworkCounters& SimNetwork::counters() const { return core_->counters; }

}  // namespace farshore
