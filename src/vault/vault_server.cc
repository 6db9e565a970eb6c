#include "vault/vault_server.h"

#include "os/certificate_keeper.h"
#include "os/http.h"
#include "os/tls_connection.h"
#include "vault/api.h"
#include "vault/drill_desk.h"
#include "vault/id_tokens.h"
#include "vault/log_about.h"
#include "vault/notifications.h"
#include "vault/plan_desk.h"
#include "vault/recovery_desk.h"

namespace farshore {

// How soon an event is told of.
static constexpr int64_t kNotifyUs = 2'000'000;
static constexpr int64_t kDrillTickUs = 1'000'000;

// Where others reach the API: the first name that was given for it, or where it listens.
static std::string callback_url(const VaultServerOptions& options, const std::string& address) {
    const size_t colon = address.rfind(':');
    if (options.names.empty() || colon == std::string::npos) return "https://" + address;
    return "https://" + options.names.front() + address.substr(colon);
}

struct VaultServer::Impl {
    // In the order of dependence: destroyed from the last to the first.
    std::unique_ptr<Vault> vault;
    std::unique_ptr<RecoveryDesk> recovery;
    std::unique_ptr<PlanDesk> plans;
    std::unique_ptr<DrillDesk> drills;
    std::unique_ptr<Notifications> notifications;
    std::unique_ptr<IdTokens> id_tokens;
    std::unique_ptr<Api> api;
    std::unique_ptr<HttpServer> http;
    std::unique_ptr<CertificateKeeper> certificate;
};

VaultServer::VaultServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VaultServer::~VaultServer() {
    impl_->certificate.reset();
    // Long polls are told first: the server waits for its handlers.
    impl_->vault->stop_waiting();
    impl_->http->stop();
    impl_->vault->end_jobs();
}

Vault& VaultServer::vault() { return *impl_->vault; }
const std::string& VaultServer::address() const { return impl_->http->address(); }

Result<std::unique_ptr<VaultServer>> VaultServer::start(const VaultServerOptions& options,
                                                        FileSystem& files, Clock& clock,
                                                        Random& random) {
    auto impl = std::make_unique<Impl>();
    if (!options.oidc_settings_file.empty()) {
        FS_ASSIGN(impl->id_tokens, IdTokens::open(options.oidc_settings_file, files, clock));
    }
    FS_ASSIGN(impl->vault, Vault::open(options.vault, files, clock, random));
    if (options.recovery) {
        RecoveryDesk::Options recovery;
        recovery.store_location = options.vault.store_location.empty()
                                      ? options.vault.data_directory + "/store"
                                      : options.vault.store_location;
        recovery.store_settings_file = options.vault.store_settings_file;
        recovery.run_directory = options.run_directory;
        impl->recovery =
            std::make_unique<RecoveryDesk>(*impl->vault, files, clock, random, recovery);
        if (auto resumed = impl->recovery->resume(); !resumed)
            log::error("vault", about(resumed.error()), "recoveries of an earlier run: {}",
                       resumed.error().to_string());
    }
    impl->plans = std::make_unique<PlanDesk>(*impl->vault, impl->recovery.get(), files, random,
                                             options.vault.node);
    if (impl->recovery)
        impl->drills = std::make_unique<DrillDesk>(
            *impl->vault, *impl->recovery, files, random,
            DrillDesk::Options{options.vault.tend_interval_us == 0 ? 0 : kDrillTickUs});
    impl->vault->resume_jobs();
    if (impl->recovery) impl->recovery->mend();
    const auto resume = [](const char* what, const Status& resumed) {
        if (!resumed)
            log::error("vault", about(resumed.error()), "{} of an earlier run: {}", what,
                       resumed.error().to_string());
    };
    impl->notifications = std::make_unique<Notifications>(
        *impl->vault, files, clock, random, options.vault.tend_interval_us == 0 ? 0 : kNotifyUs);
    impl->api = std::make_unique<Api>(*impl->vault, impl->recovery.get(), impl->notifications.get(),
                                      impl->id_tokens.get(), impl->plans.get(), impl->drills.get());
    HttpServerOptions http;
    http.address = options.listen;
    std::vector<std::string> names = options.names;
    FS_ASSIGN(const HostPort where, parse_host_port(options.listen));
    if (!where.host.empty() && where.host != "0.0.0.0" && where.host != "::")
        names.push_back(where.host);
    FS_ASSIGN(http.credentials, impl->vault->server_credentials(names));
    http.client_authority_pem = impl->vault->authority_pem();
    http.workers = 32;
    http.max_body_bytes = kMaxRequestBytes;
    FS_ASSIGN(impl->http,
              HttpServer::start(http, [api = impl->api.get()](const HttpRequest& request) {
                  return api->handle(request);
              }));
    impl->certificate = std::make_unique<CertificateKeeper>(
        "farshore-vault", clock, http.credentials->certificate_pem,
        [vault = impl->vault.get(), names] { return vault->server_credentials(names); },
        [vault = impl->vault.get(), server = impl->http.get()](const Credentials& credentials) {
            return server->reload(credentials, vault->authority_pem());
        });
    if (options.vault.tend_interval_us != 0) impl->certificate->start();
    // Once it is known where webhooks call back.
    impl->plans->set_address(callback_url(options, impl->http->address()));
    resume("runs of recovery plans", impl->plans->resume());
    if (impl->drills) resume("drills", impl->drills->resume());
    log::info("vault", "serves at https://{}", impl->http->address());
    return std::unique_ptr<VaultServer>(new VaultServer(std::move(impl)));
}

}  // namespace farshore
