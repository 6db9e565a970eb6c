// farshore up: vault, appliance and agent in one process; farshore vault serve: the vault alone.
#include <fmt/core.h>

#include <memory>

#include "agent/agent.h"
#include "agent/agent_metrics.h"
#include "agent/file_system_freeze.h"
#include "appliance/appliance.h"
#include "appliance/appliance_metrics.h"
#include "base/error.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "cli/server_location.h"
#include "os/log.h"
#include "os/metrics_server.h"
#include "os/process.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/tcp_relay.h"
#include "os/tls_connection.h"
#include "vault/drill_leftovers.h"
#include "vault/local_party.h"
#include "vault/node_seat.h"
#include "vault/vault_server.h"

namespace farshore {
namespace {

constexpr const char* kLocalAppliance = "appliance-local";
constexpr const char* kLocalAgent = "agent-local";

// How long a node that could not lead leaves that to others.
constexpr int64_t kStepBackUs = 10'000'000;
constexpr int kNodeLockPatienceMs = 5'000;
constexpr size_t kMaxAuthorityBytes = 64u << 10;

struct System {
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
};

// For clients that are told nothing but the data directory.
Status write_location(const UpOptions& options, System& system, const std::string& address,
                      const std::string& authority_pem) {
    FS_TRY(write_file_durably(system.files, options.data + "/authority.crt",
                              as_bytes(authority_pem), FileAccess::kPublic));
    ServerLocation location;
    location.url = "https://" + address;
    location.ca_file = "authority.crt";
    location.token_file = "vault/admin.token";
    return write_file_durably(system.files, options.data + "/" + kServerFile,
                              as_bytes(format_server_file(location)), FileAccess::kPublic);
}

Result<std::unique_ptr<VaultServer>> start_vault(const UpOptions& options, System& system,
                                                 NodeSeat* seat = nullptr, uint64_t epoch = 0) {
    FS_TRY(system.files.make_directories(options.data));
    VaultServerOptions vault;
    vault.vault.data_directory = options.data;
    vault.vault.store_location = options.store;
    vault.vault.store_settings_file = options.store_settings;
    vault.vault.key_file = options.key_file;
    vault.vault.database = options.database;
    if (seat != nullptr) {
        vault.vault.node = seat->name();
        vault.vault.node_epoch = epoch;
    }
    vault.vault.key_source = options.key_source;
    vault.vault.take_over = options.take_over;
    if (!options.scrub_bandwidth.empty()) vault.vault.scrub_bandwidth = options.scrub_bandwidth;
    FS_ASSIGN(vault.vault.time_zone, find_time_zone(options.time_zone, system.files));
    vault.listen = options.listen.empty() ? kDefaultListen : options.listen;
    vault.names = options.names;
    vault.oidc_settings_file = options.oidc;
    if (!options.run_directory.empty()) {
        FS_TRY(system.files.make_directories(options.run_directory));
        FS_ASSIGN(vault.run_directory, resolve_links(options.run_directory));
    }
    FS_ASSIGN(auto server, VaultServer::start(vault, system.files, system.clock, system.random));
    FS_TRY(write_location(options, system, server->address(), server->vault().authority_pem()));
    return server;
}

// The node's seat, told through `signals` when it begins or ceases to lead.
Result<std::unique_ptr<NodeSeat>> take_seat(const UpOptions& options, System& system,
                                            ShutdownSignals& signals) {
    FS_TRY(system.files.make_directories(options.data + "/vault"));
    const std::string listen = options.listen.empty() ? kDefaultListen : options.listen;
    NodeSeatOptions seat;
    seat.database = options.database;
    FS_ASSIGN(seat.name, node_name(system.files, system.random, options.data + "/vault/node"));
    seat.address = options.node_address.empty() ? listen : options.node_address;
    FS_ASSIGN(const HostPort where, parse_host_port(seat.address));
    if (where.host.empty() || where.host == "0.0.0.0" || where.host == "::" || where.port == 0)
        return fail(Code::kInvalidArgument,
                    fmt::format("other nodes cannot reach this one at {}", seat.address),
                    "name an address of this host: --node-address HOST:PORT");
    seat.recoveries_directory = options.data + "/vault/recoveries";
    return NodeSeat::start(seat, system.files, system.clock, [&signals] { signals.request(); });
}

// What an earlier vault of this node has left, now that another node leads.
void let_drills_go(const UpOptions& options, System& system) {
    const std::string vault = options.data + "/vault";
    const std::string run = options.run_directory.empty() ? vault + "/run" : options.run_directory;
    if (auto ended = end_drill_machines(system.files, vault + "/recoveries", run); !ended)
        log::warn("vault", "machines of drills: {}", ended.error().to_string());
}

// One of several vaults on a database: hands connections on to the one that leads until it leads
// itself.
Status serve_vault_node(const UpOptions& options, System& system, ShutdownSignals& signals) {
    FS_TRY(system.files.make_directories(options.data + "/vault"));
    FS_ASSIGN(const auto lock,
              InstanceLock::acquire(options.data + "/vault/node.lock", kNodeLockPatienceMs));
    FS_ASSIGN(const auto seat, take_seat(options, system, signals));
    const std::string listen = options.listen.empty() ? kDefaultListen : options.listen;
    for (bool led = false;; led = true) {
        if (seat->epoch() == 0) {
            FS_ASSIGN(const auto relay,
                      TcpRelay::start(listen, [&seat] { return seat->leader_address(); }));
            if (auto authority =
                    read_whole_file(system.files, options.data + "/pki/ca.crt", kMaxAuthorityBytes))
                FS_TRY(write_location(options, system, relay->address(),
                                      std::string(as_text(*authority))));
            let_drills_go(options, system);
            log::info("vault", "node '{}' is ready on {} and hands on to the one that leads",
                      seat->name(), relay->address());
            while (seat->epoch() == 0)
                if (const int signal = signals.wait(); signal != 0) {
                    log::info("vault", "signal {}: the vault node ends", signal);
                    return {};
                }
        }
        const uint64_t epoch = seat->epoch();
        if (epoch == 0) continue;
        auto server = start_vault(options, system, seat.get(), epoch);
        if (!server) {
            // Others may be better off: a store that is not mounted here, a key that is not there.
            if (!led) return tl::unexpected(server.error());
            log::error("vault", "node '{}' cannot lead: {}", seat->name(),
                       server.error().to_string());
            seat->step_back(kStepBackUs);
            continue;
        }
        log::info("vault", "the API is on https://{}", (*server)->address());
        // The store may have been claimed by a node that was asleep while it began to lead.
        while (seat->epoch() == epoch && !(*server)->vault().info().fenced)
            if (const int signal = signals.wait(); signal != 0) {
                log::info("vault", "signal {}: the vault node ends", signal);
                return {};
            }
    }
}

Status serve_up(const UpOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_server(options.log));
    System system;
    // First of all, as in serve_agent.cc: the data directory may be on a disk that was left frozen.
    FileSystemFreeze::thaw_all_leftovers(options.capture.shared_directory, system.files);
    std::unique_ptr<NodeSeat> seat;
    if (!options.database.empty()) {
        FS_ASSIGN(seat, take_seat(options, system, signals));
        while (seat->epoch() == 0) {
            if (!seat->leader_address().empty()) {
                let_drills_go(options, system);
                return fail(Code::kWrongState,
                            fmt::format("another vault node leads, at {}", seat->leader_address()),
                            "further nodes are started with `farshore vault serve`");
            }
            if (signals.wait() != 0) return {};
        }
    }
    const uint64_t epoch = seat == nullptr ? 0 : seat->epoch();
    FS_ASSIGN(auto server, start_vault(options, system, seat.get(), epoch));
    Vault& vault = server->vault();

    ApplianceOptions appliance;
    appliance.name = kLocalAppliance;
    appliance.directory = options.data + "/appliance";
    appliance.listen =
        options.replication_listen.empty() ? kDefaultReplicationListen : options.replication_listen;
    appliance.spool_bytes = options.spool_mib << 20;
    appliance.bandwidth = options.bandwidth;
    FS_ASSIGN(appliance.time_zone, find_time_zone(options.time_zone, system.files));
    FS_ASSIGN(const LocalParty appliance_party,
              local_party(vault, PartyKind::kAppliance, kLocalAppliance));
    FS_ASSIGN(auto running_appliance,
              Appliance::start(appliance, appliance_party.tls, vault.store(), vault));

    AgentOptions agent;
    agent.name = kLocalAgent;
    agent.directory = options.data + "/agent";
    agent.appliances = {running_appliance->address()};
    apply_bounds(options.capture, agent);
    agent.appliance_name = kLocalAppliance;
    FS_ASSIGN(const LocalParty agent_party, local_party(vault, PartyKind::kAgent, kLocalAgent));
    FS_ASSIGN(auto running_agent, Agent::start(agent, agent_party.tls));

    std::unique_ptr<HttpServer> metrics;
    if (!options.metrics_listen.empty()) {
        FS_ASSIGN(metrics, serve_metrics(options.metrics_listen, [&] {
                      MetricsText text({appliance_metric_families(), agent_metric_families()});
                      add_appliance_metrics(text, running_appliance->numbers(),
                                            appliance_party.keeper->until());
                      add_agent_metrics(text, running_agent->numbers(),
                                        agent_party.keeper->until());
                      return text.text();
                  }));
    }
    log::info("up", "the API is on https://{}, records are taken on {}", server->address(),
              running_appliance->address());
    int signal = 0;
    while (signal == 0 && (seat == nullptr || seat->epoch() == epoch)) signal = signals.wait();
    log::info("up", "signal {}: taps and mirrors stay; what is under way goes on at the next start",
              signal);
    // From the source to the store, so that nobody talks to what has ended.
    metrics.reset();
    running_agent.reset();
    running_appliance.reset();
    if (signal == 0) return fail(Code::kFenced, "another vault node leads now");
    return {};
}

Status serve_vault(const UpOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_server(options.log));
    System system;
    if (!options.database.empty()) return serve_vault_node(options, system, signals);
    FS_ASSIGN(auto server, start_vault(options, system));
    log::info("vault", "the API is on https://{}", server->address());
    const int signal = signals.wait();
    log::info("vault", "signal {}: the vault ends", signal);
    return {};
}

}  // namespace

int run_up(const UpOptions& options) { return exit_code_of(serve_up(options)); }
int run_vault(const VaultServeOptions& options) {
    return exit_code_of(serve_vault(options.common));
}

}  // namespace farshore
