// farshore up: vault, appliance and agent in one process; farshore vault serve: the vault alone.
#include <memory>

#include "agent/agent.h"
#include "agent/file_system_freeze.h"
#include "appliance/appliance.h"
#include "base/error.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "cli/server_location.h"
#include "os/certificate_keeper.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"
#include "vault/vault_server.h"

namespace farshore {
namespace {

constexpr const char* kLocalAppliance = "appliance-local";
constexpr const char* kLocalAgent = "agent-local";

struct System {
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
};

Result<std::unique_ptr<VaultServer>> start_vault(const UpOptions& options, System& system) {
    FS_TRY(system.files.make_directories(options.data));
    VaultServerOptions vault;
    vault.vault.data_directory = options.data;
    vault.vault.store_location = options.store;
    vault.vault.store_settings_file = options.store_settings;
    vault.vault.key_file = options.key_file;
    vault.vault.database = options.database;
    vault.vault.key_source = options.key_source;
    vault.vault.take_over = options.take_over;
    if (!options.scrub_bandwidth.empty()) vault.vault.scrub_bandwidth = options.scrub_bandwidth;
    FS_ASSIGN(vault.vault.time_zone, find_time_zone(options.time_zone, system.files));
    vault.listen = options.listen.empty() ? kDefaultListen : options.listen;
    vault.names = options.names;
    FS_ASSIGN(auto server, VaultServer::start(vault, system.files, system.clock, system.random));
    FS_TRY(write_file_durably(system.files, options.data + "/authority.crt",
                              as_bytes(server->vault().authority_pem()), FileAccess::kPublic));
    ServerLocation location;
    location.url = "https://" + server->address();
    location.ca_file = "authority.crt";
    location.token_file = "vault/admin.token";
    FS_TRY(write_file_durably(system.files, options.data + "/" + kServerFile,
                              as_bytes(format_server_file(location)), FileAccess::kPublic));
    return server;
}

// A party in this process, whose certificate is kept good.
struct LocalParty {
    std::shared_ptr<TlsContext> tls;
    std::unique_ptr<CertificateKeeper> keeper;
};

Result<LocalParty> local_party(Vault& vault, PartyKind kind, const char* name) {
    FS_ASSIGN(Credentials credentials, vault.local_party(kind, name));
    LocalParty party;
    FS_ASSIGN(party.tls, TlsContext::make(vault.authority_pem(), credentials));
    party.keeper = std::make_unique<CertificateKeeper>(
        name, vault.clock(), credentials.certificate_pem,
        [&vault, kind, name] { return vault.local_party(kind, name); },
        [&vault, tls = party.tls](const Credentials& renewed) {
            return tls->reload(vault.authority_pem(), renewed);
        });
    party.keeper->start();
    return party;
}

Status serve_up(const UpOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_log(options.log_level));
    System system;
    // First of all, as in serve_agent.cc: the data directory may be on a disk that was left frozen.
    FileSystemFreeze::thaw_all_leftovers(options.capture.shared_directory, system.files);
    FS_ASSIGN(auto server, start_vault(options, system));
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
    agent.appliance = running_appliance->address();
    apply_bounds(options.capture, agent);
    agent.appliance_name = kLocalAppliance;
    FS_ASSIGN(const LocalParty agent_party, local_party(vault, PartyKind::kAgent, kLocalAgent));
    FS_ASSIGN(auto running_agent, Agent::start(agent, agent_party.tls));

    log::info("up", "the API is on https://{}, records are taken on {}", server->address(),
              running_appliance->address());
    const int signal = signals.wait();
    log::info("up", "signal {}: taps and mirrors stay; what is under way goes on at the next start",
              signal);
    // From the source to the store, so that nobody talks to what has ended.
    running_agent.reset();
    running_appliance.reset();
    return {};
}

Status serve_vault(const UpOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_log(options.log_level));
    System system;
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
