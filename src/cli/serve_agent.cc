// farshore agent serve: the agent in a process of its own.
#include <algorithm>
#include <cstdio>

#include "agent/agent.h"
#include "agent/agent_metrics.h"
#include "agent/file_system_freeze.h"
#include "base/error.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "os/certificate_keeper.h"
#include "os/log.h"
#include "os/metrics_server.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {
namespace {

// host:port, of several with commas between.
Result<std::vector<std::string>> parse_appliances(const std::string& text) {
    std::vector<std::string> appliances;
    for (size_t from = 0; from <= text.size();) {
        const size_t end = std::min(text.find(',', from), text.size());
        std::string one = text.substr(from, end - from);
        FS_ASSIGN(const HostPort where, parse_host_port(one));
        if (where.host.empty() || where.port == 0)
            return fail(Code::kInvalidArgument, "'" + one + "' is not the address of an appliance",
                        "HOST:PORT, of several with commas between");
        appliances.push_back(std::move(one));
        from = end + 1;
    }
    return appliances;
}

Status serve(const AgentServeOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_server(options.log));
    PosixFileSystem files;
    // First of all: making a directory on a disk that was left frozen would wait for ever.
    FileSystemFreeze::thaw_all_leftovers(options.capture.shared_directory, files);
    FS_TRY(files.make_directories(options.data));
    const std::string identity = options.data + "/identity";
    FS_ASSIGN(std::string authority, remember_authority(files, options.data, options.ca_file));
    FS_ASSIGN(bool enrolled, files.exists(identity + ".crt"));
    FS_ASSIGN(const auto appliances, parse_appliances(options.appliance));
    if (!enrolled) {
        FS_ASSIGN(std::string token, read_token(files, options.token_file));
        // A token that was used up by an answer that got lost is refused by the next one, too.
        Status done;
        for (const std::string& appliance : appliances) {
            done = Agent::enrol(appliance, token, party_name(options.name), authority, files,
                                identity);
            if (!done) continue;
            log::info("agent", {.agent = party_name(options.name)}, "enrolled at {}", appliance);
            break;
        }
        FS_TRY(done);
    }
    FS_ASSIGN(Credentials credentials, load_credentials(files, identity));
    FS_ASSIGN(CertificateInfo info, inspect_certificate(credentials.certificate_pem));
    FS_ASSIGN(auto tls, TlsContext::make(authority, credentials));
    RealClock clock;
    AgentOptions agent;
    agent.name = info.common_name;
    agent.directory = options.data;
    agent.appliances = appliances;
    agent.early_path = "/etc/farshore/early.json";
    apply_bounds(options.capture, agent);
    FS_ASSIGN(auto running, Agent::start(agent, tls));
    log::info("agent", {.agent = agent.name}, "'{}' runs; its appliance is {}", agent.name,
              options.appliance);
    CertificateKeeper keeper(
        agent.name, clock, credentials.certificate_pem,
        [&] { return Agent::renew(running->appliance(), agent.name, tls, files, identity); },
        [&](const Credentials& renewed) { return tls->reload(authority, renewed); });
    keeper.start();
    std::unique_ptr<HttpServer> metrics;
    if (!options.metrics_listen.empty()) {
        FS_ASSIGN(metrics, serve_metrics(options.metrics_listen, [&] {
                      MetricsText text(agent_metric_families());
                      add_agent_metrics(text, running->numbers(), keeper.until());
                      return text.text();
                  }));
    }
    const int signal = signals.wait();
    log::info("agent", {.agent = agent.name}, "signal {}: taps and mirrors stay, the agent ends",
              signal);
    return {};
}

}  // namespace

int run_agent(const AgentServeOptions& options) { return exit_code_of(serve(options)); }

}  // namespace farshore
