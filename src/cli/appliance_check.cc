#include "cli/appliance_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <ostream>

#include "appliance/http_vault_link.h"
#include "cli/client_verbs.h"
#include "cli/format.h"
#include "meta/json_fields.h"
#include "os/reach_probe.h"
#include "os/real.h"
#include "store/open_store.h"
#include "store/s3_wire.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

struct Endpoint {
    std::string name, purpose;
    std::vector<ReachStep> steps;
};

class Check {
  public:
    explicit Check(const ApplianceServeOptions& options) : options_(options) {}

    Status run();
    const std::vector<Endpoint>& endpoints() const { return endpoints_; }

  private:
    Status take_identity();
    void check_vault(const std::string& url);
    Status check_store(const StoreSettings& settings);
    void check_directory(const std::string& directory);
    void check_listen();
    // A step of its own, timed.
    template <typename Try>
    void add(Endpoint& endpoint, const std::string& name, Try attempt) {
        const int64_t began = clock_.steady_us();
        const Result<std::string> words = attempt();
        ReachStep step =
            words ? ReachStep::ok(name, *words) : ReachStep::failed(name, words.error());
        step.ms = (clock_.steady_us() - began) / 1000;
        endpoint.steps.push_back(std::move(step));
    }

    const ApplianceServeOptions& options_;
    PosixFileSystem files_;
    RealClock clock_;
    RealRandom random_;
    ProxySettings proxy_;
    std::string authority_;
    std::optional<Credentials> credentials_;
    std::vector<Endpoint> endpoints_;
};

// As remember_authority and load_credentials, but without writing.
Status Check::take_identity() {
    const std::string file =
        options_.ca_file.empty() ? options_.data + "/authority.crt" : options_.ca_file;
    auto pem = read_whole_file(files_, file, 1u << 20);
    if (!pem && options_.ca_file.empty() && pem.error().code() == Code::kNotFound)
        return fail(Code::kInvalidArgument, "the vault's authority is not known here",
                    "name its certificate with --ca");
    if (!pem) return fail(pem.error());
    authority_ = to_text(*pem);
    FS_ASSIGN(const bool enrolled, files_.exists(options_.data + "/identity.crt"));
    if (enrolled) {
        FS_ASSIGN(credentials_, load_credentials(files_, options_.data + "/identity"));
    }
    return {};
}

void Check::check_vault(const std::string& url) {
    HttpClientOptions client;
    client.authority_pem = authority_;
    use_proxy(client, proxy_);
    ReachAnswer answer = probe_reach(url + "/v1/health", client, clock_);
    Endpoint endpoint{url, "vault", std::move(answer.steps)};
    if (answer.response.status / 100 != 2 || !answer.ok()) {
        if (answer.ok())
            endpoint.steps.push_back(ReachStep::failed("request", problem_of(answer.response)));
    } else if (!credentials_) {
        endpoint.steps.push_back(
            ReachStep::ok("request", "the vault answers; this appliance is not enrolled yet"));
    } else {
        add(endpoint, "request", [&]() -> Result<std::string> {
            auto link = make_http_vault_link(
                std::make_shared<VaultClient>(make_vault_client(authority_, credentials_, proxy_)),
                {url});
            FS_TRY(link->refused_agents({}));
            return std::string("the vault knows this appliance's certificate");
        });
    }
    endpoints_.push_back(std::move(endpoint));
}

void Check::check_directory(const std::string& directory) {
    Endpoint endpoint{directory, "store", {}};
    add(endpoint, "request", [&]() -> Result<std::string> {
        FS_ASSIGN(const auto entries, files_.list(directory));
        if (std::ranges::find(entries, kStoreObject) == entries.end())
            return fail(Code::kForeignStore, fmt::format("'{}' holds no Farshore store", directory),
                        "mount the file system that the store is on, or name its directory");
        return std::string("the directory holds a Farshore store");
    });
    endpoints_.push_back(std::move(endpoint));
}

// Where the requests go, with a path that needs no right.
std::string service_url(const StoreSettings& settings, const StoreLocation& location) {
    std::string url = settings.endpoint;
    if (url.empty() && location.kind == StoreKind::kAzure)
        url = fmt::format("https://{}.blob.core.windows.net", location.account);
    if (url.empty())
        url = fmt::format("https://s3.{}.amazonaws.com",
                          settings.region.empty() ? "us-east-1" : settings.region);
    while (url.ends_with('/')) url.pop_back();
    return url;
}

Status Check::check_store(const StoreSettings& given) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(given.location));
    if (!location.remote()) {
        check_directory(location.directory);
        return {};
    }
    StoreSettings settings = given;
    settings.connect_timeout_us = std::min(settings.connect_timeout_us, kReachStepUs);
    settings.timeout_us = std::min(settings.timeout_us, kReachStepUs);
    FS_ASSIGN(const HttpClientOptions client, store_http_options(files_, settings));
    const std::string url = service_url(settings, location);
    ReachAnswer answer = probe_reach(url + "/", client, clock_);
    const bool reached = answer.ok();
    Endpoint endpoint{url, "store", std::move(answer.steps)};
    if (reached)
        add(endpoint, "request", [&]() -> Result<std::string> {
            FS_TRY(open_store(files_, clock_, random_, settings, false));
            return fmt::format("{} holds a Farshore store", settings.location);
        });
    endpoints_.push_back(std::move(endpoint));
    return {};
}

void Check::check_listen() {
    const std::string address = options_.replication_listen.empty() ? kDefaultReplicationListen
                                                                    : options_.replication_listen;
    Endpoint endpoint{address, "agents", {}};
    add(endpoint, "listen", [&]() -> Result<std::string> {
        const Status free = probe_listen(address);
        if (!free && free.error().code() == Code::kAlreadyExists &&
            instance_lock_held(options_.data + "/lock"))
            return std::string("in use; an appliance runs on this data directory");
        FS_TRY(free);
        return std::string("free");
    });
    endpoints_.push_back(std::move(endpoint));
}

Status Check::run() {
    FS_ASSIGN(const auto urls, parse_vault_urls(options_.vault));
    FS_ASSIGN(proxy_, load_proxy_settings(files_, options_.proxy, options_.proxy_settings));
    FS_ASSIGN(const StoreSettings settings, appliance_store_settings(files_, options_, proxy_));
    FS_TRY(take_identity());
    bool proxy_there = true;
    if (!proxy_.url.empty()) {
        ReachAnswer answer = probe_proxy(proxy_.url, clock_);
        proxy_there = answer.ok();
        endpoints_.push_back({proxy_.url, "proxy", std::move(answer.steps)});
    }
    // Without its proxy nothing behind it can be said anything about.
    if (proxy_there)
        for (const std::string& url : urls) check_vault(url);
    if (proxy_there || settings.proxy != proxy_.url) FS_TRY(check_store(settings));
    check_listen();
    return {};
}

std::string_view state_name(ReachState state) {
    switch (state) {
        case ReachState::kOk:
            return "ok";
        case ReachState::kWarning:
            return "warning";
        case ReachState::kFailed:
            break;
    }
    return "FAILED";
}

Json to_json(const Endpoint& endpoint) {
    Json steps = Json::array();
    for (const ReachStep& step : endpoint.steps) {
        Json one{{"name", step.name},
                 {"state", step.state == ReachState::kFailed ? "failed"
                                                             : std::string(state_name(step.state))},
                 {"detail", step.detail},
                 {"ms", step.ms}};
        if (!step.remedy.empty()) one["remedy"] = step.remedy;
        if (step.state == ReachState::kFailed) one["code"] = std::string(code_name(step.code));
        steps.push_back(std::move(one));
    }
    return {{"endpoint", endpoint.name}, {"purpose", endpoint.purpose}, {"steps", steps}};
}

}  // namespace

int run_appliance_check(CliEnvironment& environment, const ApplianceServeOptions& options,
                        bool json) {
    Check check(options);
    if (Status ran = check.run(); !ran) return print_error(environment, ran.error(), json);
    int exit_code = 0;
    Json list = Json::array();
    for (const Endpoint& endpoint : check.endpoints()) {
        for (const ReachStep& step : endpoint.steps) {
            if (step.state == ReachState::kFailed && exit_code == 0)
                exit_code = code_exit_status(step.code);
            if (!json)
                *environment.out << printable(fmt::format(
                                        "{}  {}  {}  {}: {}{}{}", state_name(step.state),
                                        endpoint.name, endpoint.purpose, step.name, step.detail,
                                        step.remedy.empty() ? "" : "; ", step.remedy))
                                 << "\n";
        }
        list.push_back(to_json(endpoint));
    }
    if (json)
        *environment.out << dump_json(Json{{"endpoints", list}, {"ok", exit_code == 0}}) << "\n";
    *environment.out << std::flush;
    return exit_code;
}

}  // namespace farshore
