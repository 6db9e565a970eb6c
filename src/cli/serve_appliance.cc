// farshore appliance serve: the appliance in a process of its own.
#include <fmt/core.h>

#include "appliance/appliance.h"
#include "appliance/appliance_metrics.h"
#include "appliance/http_vault_link.h"
#include "base/error.h"
#include "cli/appliance_check.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "meta/sites.h"
#include "os/certificate_keeper.h"
#include "os/log.h"
#include "os/metrics_server.h"
#include "os/process.h"
#include "os/real.h"
#include "store/open_store.h"
#include "store/store_metrics.h"

namespace farshore {
namespace {

Status enrol(const ApplianceServeOptions& options, FileSystem& files, const std::string& authority,
             const std::string& identity, const std::vector<std::string>& urls,
             const ProxySettings& proxy) {
    FS_ASSIGN(std::string token, read_token(files, options.token_file));
    FS_ASSIGN(KeyAndRequest request, make_key_and_request(party_name(options.name)));
    auto link = make_http_vault_link(
        std::make_shared<VaultClient>(make_vault_client(authority, std::nullopt, proxy)), urls);
    FS_ASSIGN(std::string chain, link->enrol(token, request.request_pem));
    FS_TRY(save_credentials(files, identity, {chain, std::move(request.key_pem)}));
    log::info("appliance", {.appliance = party_name(options.name)}, "enrolled at {}",
              options.vault);
    return {};
}

Status serve(const ApplianceServeOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_server(options.log));
    PosixFileSystem files;
    RealRandom random;
    FS_TRY(files.make_directories(options.data));
    FS_ASSIGN(const auto urls, parse_vault_urls(options.vault));
    FS_ASSIGN(const ProxySettings proxy,
              load_proxy_settings(files, options.proxy, options.proxy_settings));
    const std::string identity = options.data + "/identity";
    FS_ASSIGN(std::string authority, remember_authority(files, options.data, options.ca_file));
    FS_ASSIGN(bool enrolled, files.exists(identity + ".crt"));
    if (!enrolled) FS_TRY(enrol(options, files, authority, identity, urls, proxy));
    FS_ASSIGN(Credentials credentials, load_credentials(files, identity));
    FS_ASSIGN(CertificateInfo info, inspect_certificate(credentials.certificate_pem));
    FS_ASSIGN(auto tls, TlsContext::make(authority, credentials));
    RealClock clock;
    FS_ASSIGN(const StoreSettings settings, appliance_store_settings(files, options, proxy));
    // Waits for at most what one call may take; then the intake tries again.
    const CountingStore* counted = nullptr;
    FS_ASSIGN(auto store, open_retrying_store(files, clock, random, settings, false,
                                              sleep_for_retry, &counted));
    auto client = std::make_shared<VaultClient>(make_vault_client(authority, credentials, proxy));
    auto link = make_http_vault_link(client, urls);
    ApplianceOptions appliance;
    appliance.name = info.common_name;
    appliance.directory = options.data;
    appliance.listen =
        options.replication_listen.empty() ? kDefaultReplicationListen : options.replication_listen;
    if (!options.advertise.empty()) {
        FS_ASSIGN(const HostPort where, parse_host_port(options.advertise));
        if (where.host.empty() || where.port == 0)
            return fail(Code::kInvalidArgument,
                        fmt::format("agents cannot reach this appliance at {}", options.advertise),
                        "--advertise HOST:PORT");
    }
    appliance.advertise = options.advertise;
    if (!options.site.empty()) {
        FS_TRY(check_site_name(options.site));
        appliance.site = options.site;
    }
    appliance.spool_bytes = options.spool_mib << 20;
    appliance.bandwidth = options.bandwidth;
    FS_ASSIGN(appliance.time_zone, find_time_zone(options.time_zone, files));
    FS_ASSIGN(auto running, Appliance::start(appliance, tls, *store, *link));
    log::info("appliance", {.appliance = appliance.name}, "'{}' listens on {}; its vault is {}",
              appliance.name, running->address(), options.vault);
    CertificateKeeper keeper(
        appliance.name, clock, credentials.certificate_pem,
        [&]() -> Result<Credentials> {
            FS_ASSIGN(KeyAndRequest request, make_key_and_request(appliance.name));
            FS_ASSIGN(std::string chain, link->renew(appliance.name, request.request_pem));
            Credentials renewed{std::move(chain), std::move(request.key_pem)};
            FS_TRY(save_credentials(files, identity, renewed));
            return renewed;
        },
        [&](const Credentials& renewed) -> Status {
            client->replace(make_vault_client(authority, renewed, proxy));
            return tls->reload(authority, renewed);
        });
    keeper.start();
    std::unique_ptr<HttpServer> metrics;
    if (!options.metrics_listen.empty()) {
        FS_ASSIGN(metrics, serve_metrics(options.metrics_listen, [&] {
                      MetricsText text({appliance_metric_families(), kStoreMetrics});
                      add_appliance_metrics(text, running->numbers(), keeper.until());
                      add_store_metrics(text, counted->counts());
                      return text.text();
                  }));
    }
    const int signal = signals.wait();
    log::info("appliance", {.appliance = appliance.name},
              "signal {}: what is in the spool is stored at the next start", signal);
    client->cancel();
    store->cancel();
    return {};
}

}  // namespace

Result<StoreSettings> appliance_store_settings(FileSystem& files,
                                               const ApplianceServeOptions& options,
                                               const ProxySettings& proxy) {
    FS_ASSIGN(StoreSettings settings,
              load_store_settings(files, options.store, options.store_settings));
    FS_ASSIGN(const StoreLocation location, parse_store_location(options.store));
    if (location.remote() && settings.proxy.empty()) {
        settings.proxy = proxy.url;
        settings.proxy_user = proxy.user;
        settings.proxy_password = proxy.password;
    }
    return settings;
}

int run_appliance(const ApplianceServeOptions& options) { return exit_code_of(serve(options)); }

}  // namespace farshore
