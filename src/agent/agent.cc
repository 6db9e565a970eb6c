#include "agent/agent.h"

#include <fmt/core.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

#include "agent/appliance_routes.h"
#include "agent/clock_compare.h"
#include "agent/control_client.h"
#include "agent/file_system_freeze.h"
#include "agent/group_client.h"
#include "os/load_meter.h"
#include "os/log.h"
#include "os/process.h"
#include "replicate/frames.h"

namespace farshore {
namespace {
constexpr std::string_view kVersion = "0.1.0";
constexpr int64_t kLoadUs = 5'000'000;

}  // namespace

struct Agent::Impl {
    AgentOptions options;
    InstanceLock lock;
    std::shared_ptr<TlsContext> tls;
    PosixFileSystem files;
    RealClock clock;
    const TimePoint started = clock.now();
    RealRandom random;
    PartyId instance;
    TlsNetwork network{1};
    ApplianceRoutes routes;
    ThreadExecutor home{"agent"};
    std::unique_ptr<ControlClient> control;
    std::unique_ptr<GroupClient> group;
    std::string early_document;                               // as it was written last
    std::map<ItemId, std::unique_ptr<ItemSupervisor>> items;  // on home

    Impl(AgentOptions given, InstanceLock held, std::shared_ptr<TlsContext> context)
        : options(std::move(given)),
          lock(std::move(held)),
          tls(std::move(context)),
          routes(options.appliances, options.appliance_name, [this](const std::string& name) {
              TlsOptions peer;
              peer.expected_peer_name = name;
              return std::make_unique<TlsDialer>(network, tls, peer);
          }) {
        random.fill(instance.raw);
    }
    ~Impl() {
        std::map<ItemId, std::unique_ptr<ItemSupervisor>> ending;
        (void)home.run_sync([&] {
            control.reset();
            group.reset();
            std::swap(ending, items);
        });
        ending.clear();
        home.stop();
    }

    // Only when it changes: whoever watches it makes a new initramfs then.
    void tell_early() {
        if (options.early_path.empty()) return;
        const std::string directory = options.early_path.substr(0, options.early_path.rfind('/'));
        if (!files.exists(directory).value_or(false)) return;
        std::vector<EarlyItem> early;
        for (const auto& [id, item] : items)
            if (auto one = item->early()) early.push_back(std::move(*one));
        // At the start nothing is known yet, which is no reason to forget what was.
        if (early.empty() && !items.empty() && early_document.empty()) return;
        const std::string document = encode_early(early);
        if (document == early_document) return;
        auto there = read_whole_file(files, options.early_path);
        if (there ? as_text(*there) == document : early.empty()) {
            early_document = document;
            return;
        }
        if (auto written = write_file_durably(files, options.early_path, as_bytes(document));
            !written) {
            log::warn("agent", "{}", written.error().to_string());
            return;
        }
        early_document = document;
    }

    ClockCompare clocks;
    std::string appliances_id;  // of the list that the vault told last
    LoadMeter load_meter;
    MachineLoad load;
    std::optional<int64_t> load_us;  // steady, when it was looked at

    std::string status() {
        tell_early();
        AgentStatus status;
        status.agent = options.name;
        status.instance = instance.to_string();
        status.version = kVersion;
        status.time = clock.now();
        status.clock_ahead_us = clocks.ahead_us(status.time, clock.steady_us());
        clocks.sent(clock.steady_us());
        if (!load_us || clock.steady_us() - *load_us >= kLoadUs) {
            load = load_meter.look();
            load_us = clock.steady_us();
        }
        status.load = load;
        status.appliances_id = appliances_id;
        for (const auto& [id, item] : items) status.items.push_back(item->status());
        return encode_status(status);
    }

    // Its destructor waits for home: not from home.
    void reap(std::unique_ptr<ItemSupervisor> item) {
        auto gone = std::shared_ptr<ItemSupervisor>(std::move(item));
        reaper.post([gone]() mutable { gone.reset(); });
    }

    void take(const DesiredItem& desired) {
        auto found = items.find(desired.item);
        // It comes back before the vault has seen that it was gone.
        if (found != items.end() && found->second->removed() &&
            desired.desired != Desired::kRemove) {
            reap(std::move(found->second));
            items.erase(found);
            found = items.end();
        }
        if (found != items.end()) {
            // One that was torn down keeps saying so until the vault stops asking.
            found->second->desire(desired);
            return;
        }
        SupervisorOptions supervisor;
        supervisor.directory = options.directory;
        supervisor.shared_directory = options.shared_directory;
        supervisor.ring_bytes = options.ring_bytes;
        supervisor.spill_bytes = options.spill_bytes;
        supervisor.trace_ring_bytes = options.trace_ring_bytes;
        supervisor.rest_limits = options.rest_limits;
        supervisor.recovery_disks = options.recovery_disks;
        items.emplace(desired.item, std::make_unique<ItemSupervisor>(supervisor, desired, instance,
                                                                     home, routes, files, clock));
    }

    void instructions(const std::string& document) {
        auto decoded = decode_instructions(document);
        if (!decoded) {
            log::error("agent", {.agent = options.name, .code = code_name(decoded.error().code())},
                       "instructions refused: {}", decoded.error().to_string());
            return;
        }
        if (decoded->vault_time.us != 0) clocks.answered(clock.steady_us(), decoded->vault_time);
        for (const DesiredItem& desired : decoded->items) take(desired);
        if (decoded->appliances_id.empty() || decoded->appliances_id != appliances_id)
            learn(decoded->appliances, decoded->appliances_id);
        if (group) group->want(decoded->grouped);
        if (decoded->sync_interval_us != 0 && control)
            control->set_interval_us(std::max(decoded->sync_interval_us, options.sync_interval_us));
        // Removed, reported and no longer asked for.
        for (auto item = items.begin(); item != items.end();) {
            const bool asked = std::ranges::any_of(decoded->items, [&](const DesiredItem& desired) {
                return desired.item == item->first;
            });
            if (!asked && item->second->removed()) {
                reap(std::move(item->second));
                item = items.erase(item);
            } else {
                ++item;
            }
        }
    }

    void serve_shared_point(const BarrierOrder& order, const ItemId& item,
                            const std::function<void(MemberOutcome)>& done) {
        const auto found = items.find(item);
        if (found == items.end())
            return done(
                {item, Error(Code::kItemNotFound, "this agent does not capture it"), {}, {}});
        found->second->serve_shared_point(order,
                                          [item, done](const Result<TapCommandResult>& point) {
                                              MemberOutcome outcome;
                                              outcome.item = item;
                                              if (point) {
                                                  outcome.sequence = point->sequence;
                                                  outcome.time = point->time;
                                              } else {
                                                  outcome.error = point.error();
                                              }
                                              done(std::move(outcome));
                                          });
    }

    std::string appliances_path() const { return options.directory + "/appliances.json"; }

    // Kept, so that an agent that starts while its own appliance is away finds another.
    void learn(const std::vector<ApplianceAddress>& appliances, const std::string& id) {
        appliances_id = id;
        if (!routes.learn(appliances)) return;
        AgentInstructions known;
        known.appliances = appliances;
        known.appliances_id = id;
        if (auto kept =
                write_file_durably(files, appliances_path(), as_bytes(encode_instructions(known)));
            !kept)
            log::warn("agent", "{}", kept.error().to_string());
    }

    // What was protected before, so that it goes on while the vault is away.
    Status recall() {
        if (auto kept = read_whole_file(files, appliances_path()))
            if (auto known = decode_instructions(as_text(*kept))) {
                (void)routes.learn(known->appliances);
                appliances_id = known->appliances_id;
            }
        const std::string directory = options.directory + "/items";
        FS_TRY(files.make_directories(directory));
        FS_ASSIGN(std::vector<std::string> names, files.list(directory));
        for (std::string& name : names) {
            if (name.ends_with('/')) name.pop_back();
            auto document = read_whole_file(files, directory + "/" + name + "/desired.json");
            if (!document) continue;
            auto decoded = decode_instructions(as_text(*document));
            if (!decoded) {
                log::error("agent",
                           {.agent = options.name, .code = code_name(decoded.error().code())},
                           "item {}: {}", name, decoded.error().to_string());
                continue;
            }
            for (const DesiredItem& desired : decoded->items) take(desired);
        }
        return {};
    }

    ThreadExecutor reaper{"agent-reaper"};
};

Agent::Agent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Agent::~Agent() = default;
std::string Agent::appliance() const { return impl_->routes.control_address(); }

AgentNumbers Agent::numbers() const {
    AgentNumbers numbers;
    numbers.name = impl_->options.name;
    numbers.started = impl_->started;
    (void)impl_->home.run_sync([&] {
        Impl& agent = *impl_;
        if (agent.control) {
            numbers.connected = agent.control->connected();
            numbers.connections = agent.control->connections();
        }
        numbers.clock_ahead_us = agent.clocks.ahead_us(agent.clock.now(), agent.clock.steady_us());
        for (const auto& [id, item] : agent.items) numbers.items.push_back(item->numbers());
    });
    return numbers;
}

Result<std::unique_ptr<Agent>> Agent::start(const AgentOptions& options,
                                            std::shared_ptr<TlsContext> tls) {
    PosixFileSystem files;
    FileSystemFreeze::thaw_all_leftovers(options.shared_directory, files);
    FS_TRY(files.make_directories(options.directory));
    FS_ASSIGN(InstanceLock lock,
              InstanceLock::acquire(options.directory + "/lock", kInstanceLockPatienceMs));
    auto impl = std::make_unique<Impl>(options, std::move(lock), std::move(tls));
    Impl& agent = *impl;
    Status started;
    FS_TRY(agent.home.run_sync([&] {
        started = agent.recall();
        if (!started) return;
        ControlClient::Options control;
        control.address = [&agent] { return agent.routes.control_address(); };
        control.failed = [&agent] { agent.routes.control_failed(); };
        control.interval_us = agent.options.sync_interval_us;
        control.status = [&agent] { return agent.status(); };
        control.instructions = [&agent](const std::string& json) { agent.instructions(json); };
        agent.control =
            std::make_unique<ControlClient>(agent.home, agent.routes.control(), std::move(control));
        agent.control->start();
        GroupClient::Options group;
        group.address = [&agent] { return agent.routes.control_address(); };
        group.serve = [&agent](const BarrierOrder& order, const ItemId& item,
                               const std::function<void(MemberOutcome)>& done) {
            agent.serve_shared_point(order, item, done);
        };
        group.abandon = [&agent] {
            for (const auto& [id, item] : agent.items) item->abandon_shared_point();
        };
        agent.group = std::make_unique<GroupClient>(agent.home, agent.clock, agent.routes.control(),
                                                    std::move(group));
    }));
    FS_TRY(started);
    return std::unique_ptr<Agent>(new Agent(std::move(impl)));
}

// A new key, and the certificate that the appliance has for it; kept. `token` empty: for who shows
// a good certificate.
static Result<Credentials> ask_certificate(const std::string& appliance, const std::string& token,
                                           const std::string& name,
                                           const std::shared_ptr<TlsContext>& tls,
                                           FileSystem& files, const std::string& credentials_path) {
    FS_ASSIGN(KeyAndRequest request, make_key_and_request(name));
    TlsNetwork network(1);
    TlsDialer dialer(network, tls);
    ThreadExecutor executor("enrol");
    struct Outcome {
        std::mutex mutex;
        std::condition_variable changed;
        std::optional<Result<std::string>> chain;
        std::unique_ptr<Connection> connection;
        void finish(Result<std::string> result) {
            std::lock_guard lock(mutex);
            if (!chain) chain = std::move(result);
            changed.notify_all();
        }
    } outcome;
    dialer.dial(executor, appliance, [&](Result<std::unique_ptr<Connection>> made) {
        if (!made) {
            outcome.finish(fail(made.error()));
            return;
        }
        outcome.connection = std::move(*made);
        Connection::Handlers handlers;
        handlers.on_frame = [&outcome](ByteView frame) {
            auto view = decode_frame(frame);
            if (!view) return outcome.finish(fail(view.error()));
            if (view->type == FrameType::kError)
                return outcome.finish(fail(decode_error(view->body)));
            auto enrolled = decode_enrolled(view->body);
            if (!enrolled) return outcome.finish(fail(enrolled.error()));
            outcome.finish(enrolled->chain_pem);
        };
        handlers.on_closed = [&outcome](const Error& error) { outcome.finish(fail(error)); };
        handlers.on_drained = [] {};
        outcome.connection->start(std::move(handlers));
        outcome.connection->send(encode(EnrolFrame{token, request.request_pem}));
    });
    std::string chain;
    {
        std::unique_lock lock(outcome.mutex);
        outcome.changed.wait(lock, [&] { return outcome.chain.has_value(); });
        if (!*outcome.chain) {
            const Error error = outcome.chain->error();
            lock.unlock();
            (void)executor.run_sync([&] { outcome.connection.reset(); });
            return fail(error.with_context(token.empty() ? "renewal" : "enrolment"));
        }
        chain = **outcome.chain;
    }
    FS_TRY(executor.run_sync([&] { outcome.connection.reset(); }));
    Credentials credentials{chain, std::move(request.key_pem)};
    FS_TRY(save_credentials(files, credentials_path, credentials));
    return credentials;
}

Status Agent::enrol(const std::string& appliance, const std::string& token, const std::string& name,
                    const std::string& authority_pem, FileSystem& files,
                    const std::string& credentials_path) {
    FS_ASSIGN(auto tls, TlsContext::make(authority_pem, std::nullopt));
    FS_TRY(ask_certificate(appliance, token, name, tls, files, credentials_path));
    return {};
}

Result<Credentials> Agent::renew(const std::string& appliance, const std::string& name,
                                 const std::shared_ptr<TlsContext>& tls, FileSystem& files,
                                 const std::string& credentials_path) {
    return ask_certificate(appliance, {}, name, tls, files, credentials_path);
}

}  // namespace farshore
