#include "appliance/appliance.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "appliance/appliance_scripts.h"
#include "base/version.h"
#include "os/load_meter.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"
#include "os/worker_pool.h"

namespace farshore {
namespace {
// Below the guest's own path: on a small machine compression must not take the tap's time.
constexpr int kWorkerNice = 10;
}  // namespace

struct Appliance::Impl {
    ApplianceOptions options;
    InstanceLock lock;
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    WorkerPool workers{1, kWorkerNice};
    TlsNetwork network{1};
    ThreadExecutor home{"appliance"};
    ThreadExecutor spool{"spool"};
    ThreadExecutor build{"build", kWorkerNice};
    ThreadExecutor upload{"register"};
    std::vector<std::unique_ptr<ThreadExecutor>> puts;
    ThreadExecutor control{"control"};
    ThreadExecutor compare{"compare", kWorkerNice};
    ThreadExecutor limits{"limits"};
    ThreadExecutor scripts_thread{"scripts"};
    ApplianceScripts scripts;
    std::mutex wanted_mutex;
    std::optional<std::vector<ScriptOrder>> wanted_scripts;  // under wanted_mutex, as the next
    bool following_scripts = false;
    std::vector<std::unique_ptr<ThreadExecutor>> groups;
    VaultLink* vault = nullptr;
    std::shared_ptr<TlsContext> tls;
    std::string advertised;
    LoadMeter load;
    std::string bandwidth;        // that counts, as it was read
    std::string wrong_bandwidth;  // that was read last and refused
    std::unique_ptr<ProcessServer> server;
    const TimePoint started = clock.now();
    std::atomic<int64_t> vault_answered_us{0};
    log::Limit refusals;  // anybody can connect
    std::unique_ptr<TlsListener> listener;

    Impl(ApplianceOptions given, InstanceLock held)
        : options(std::move(given)),
          lock(std::move(held)),
          scripts(files, clock, options.directory + "/scripts",
                  options.directory + "/script-runs") {
        for (size_t i = 0; i < kUploadThreads; ++i)
            puts.push_back(std::make_unique<ThreadExecutor>("upload"));
        for (size_t i = 0; i < kMaxSharedPointsAtOnce; ++i)
            groups.push_back(std::make_unique<ThreadExecutor>("group"));
    }
    ~Impl() {
        (void)home.run_sync([this] { listener.reset(); });
        // No task runs any more when the server goes.
        for (ThreadExecutor* executor :
             {&limits, &scripts_thread, &compare, &control, &upload, &build, &spool, &home})
            executor->stop();
        for (auto& put : puts) put->stop();
        for (auto& group : groups) group->stop();
        server.reset();
    }

    Status take_total();
    ApplianceStatus own_status();
    void sync();
    void check_agents();
    void follow_scripts();
};

// On `limits`. What does not end at once must not keep points waiting, and of what is wanted the
// newest counts alone.
void Appliance::Impl::follow_scripts() {
    const std::lock_guard hold(wanted_mutex);
    if (following_scripts) return;
    following_scripts = true;
    scripts_thread.post([this] {
        std::optional<std::vector<ScriptOrder>> wanted;
        {
            const std::lock_guard hold_wanted(wanted_mutex);
            wanted.swap(wanted_scripts);
        }
        if (wanted) scripts.follow(*wanted);
        scripts.keep_limits();
        const std::lock_guard hold_wanted(wanted_mutex);
        following_scripts = false;
    });
}

// The file's word, when there is one, else the option's.
Status Appliance::Impl::take_total() {
    std::string text = options.bandwidth;
    if (auto file = read_whole_file(files, options.directory + "/bandwidth"))
        text = std::string(as_text(*file));
    if (text == bandwidth) return {};
    auto limit = BandwidthLimit::parse(text, options.time_zone);
    if (!limit) {
        if (text != wrong_bandwidth)
            log::warn("appliance", "the bandwidth limit stays as it was: {}",
                      limit.error().to_string());
        wrong_bandwidth = text;
        return tl::unexpected(limit.error());
    }
    FS_TRY(home.run_sync([&] { server->set_bandwidth(std::move(*limit)); }));
    bandwidth = text;
    wrong_bandwidth.clear();
    return {};
}

// On `limits`, each second: who was removed, connections that stand included.
void Appliance::Impl::check_agents() {
    std::vector<std::string> names;
    (void)home.run_sync([&] { names = server->agents(); });
    if (names.empty()) return;
    auto refused = vault->refused_agents(names);
    // While the vault is away nothing is known against anybody. (An older one does not know.)
    if (!refused) return;
    (void)home.run_sync([&] { server->refuse_agents({refused->begin(), refused->end()}); });
}

ApplianceStatus Appliance::Impl::own_status() {
    ApplianceStatus status;
    status.address = advertised;
    status.site = options.site;
    status.version = kFarshoreVersion;
    status.load = load.look();
    status.certificate_until = tls->certificate_until();
    std::vector<IntakeStatus> items;
    (void)home.run_sync([&] { items = server->status(); });
    uint64_t fullest = 0;
    for (const IntakeStatus& one : items) {
        status.spool_used_bytes += one.spool_bytes;
        fullest = std::max(fullest, one.spool_bytes);
        status.uploads.push_back(one.upload);
    }
    if (const auto disk = disk_space(options.directory); disk && options.spool_bytes != 0) {
        const uint64_t left = std::min(options.spool_bytes - std::min(fullest, options.spool_bytes),
                                       disk->free_bytes);
        status.spool_free_permille =
            static_cast<int32_t>(static_cast<double>(left) * 1000 / options.spool_bytes);
    }
    status.scripts = scripts.words();
    status.programs = scripts.programs();
    return status;
}

// On `limits`, each second: how it goes here, and what the vault wants.
void Appliance::Impl::sync() {
    (void)take_total();
    // While the vault is away all stays as it is.
    if (auto orders = vault->sync_appliance(options.name, own_status())) {
        vault_answered_us = clock.now().us;
        std::map<ItemId, BandwidthLimit> allowed;
        for (const UploadPolicy& one : orders->items) {
            auto limit = BandwidthLimit::parse(one.bandwidth, orders->time_zone);
            if (limit)
                allowed[one.item] = std::move(*limit);
            else
                log::warn(
                    "appliance",
                    {.item_id = one.item.to_string(), .code = code_name(limit.error().code())},
                    "item {} has no bandwidth limit: {}", one.item.to_string(),
                    limit.error().to_string());
        }
        (void)home.run_sync([&] {
            server->set_item_bandwidths(std::move(allowed));
            for (const ItemId& item : orders->gone) {
                log::info("appliance", "item {} is another appliance's now", item.to_string());
                server->remove(item);
            }
            server->make_points(orders->points);
        });
        const std::lock_guard hold(wanted_mutex);
        wanted_scripts = std::move(orders->scripts);
    }
    follow_scripts();
    check_agents();
    limits.post_after_us(kUploadsSyncUs, [this] { sync(); });
}

// Where agents find it; empty: it listens on every address, and nobody has said which is known.
static std::string advertised_address(const ApplianceOptions& options, const std::string& listens) {
    if (!options.advertise.empty()) return options.advertise;
    const auto where = parse_host_port(listens);
    if (!where || where->host.empty() || where->host == "0.0.0.0" || where->host == "::") return {};
    return listens;
}

Appliance::Appliance(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Appliance::~Appliance() = default;

Result<std::unique_ptr<Appliance>> Appliance::start(const ApplianceOptions& options,
                                                    std::shared_ptr<TlsContext> tls,
                                                    ObjectStore& store, VaultLink& vault) {
    PosixFileSystem files;
    FS_TRY(files.make_directories(options.directory));
    FS_ASSIGN(InstanceLock lock,
              InstanceLock::acquire(options.directory + "/lock", kInstanceLockPatienceMs));
    auto impl = std::make_unique<Impl>(options, std::move(lock));
    Impl& a = *impl;
    ProcessServerOptions server;
    server.name = options.name;
    server.spool_directory = options.directory + "/spool";
    server.spool_bytes = options.spool_bytes;
    server.window_bytes = options.window_bytes;
    server.build_queue_bytes = options.build_queue_bytes;
    server.parallel_for = [&a](size_t n, const std::function<void(size_t)>& job) {
        a.workers.run(n, job);
    };
    ProcessServerExecutors executors{&a.home,    &a.spool,   &a.build, &a.upload,
                                     &a.control, &a.compare, {},       {}};
    for (const auto& put : a.puts) executors.puts.push_back(put.get());
    for (const auto& group : a.groups) executors.groups.push_back(group.get());
    a.server = std::make_unique<ProcessServer>(a.files, store, vault, a.clock, a.random, executors,
                                               server);
    Status started;
    a.vault = &vault;
    a.tls = tls;
    FS_TRY(a.take_total());
    FS_TRY(a.home.run_sync([&] { started = a.server->start(); }));
    FS_TRY(started);
    TlsOptions tls_options;
    // A new agent has no certificate yet; the process server lets it do nothing but enrol.
    tls_options.require_client_certificate = false;
    tls_options.max_connections = kMaxConnectionsPerAppliance;
    FS_ASSIGN(a.listener, TlsListener::listen(
                              a.network, std::move(tls), a.home, options.listen, tls_options,
                              [&a](std::unique_ptr<Connection> connection) {
                                  a.server->accept(std::move(connection));
                              },
                              [&a](const Error& error) {
                                  a.refusals.warn("appliance", "a peer was refused: {}",
                                                  error.to_string());
                              }));
    a.advertised = advertised_address(a.options, a.listener->address());
    a.limits.post([&a] { a.sync(); });
    return std::unique_ptr<Appliance>(new Appliance(std::move(impl)));
}

const std::string& Appliance::address() const { return impl_->listener->address(); }

std::vector<IntakeStatus> Appliance::status() const {
    std::vector<IntakeStatus> all;
    (void)impl_->home.run_sync([&] { all = impl_->server->status(); });
    return all;
}

ApplianceNumbers Appliance::numbers() const {
    ApplianceNumbers numbers;
    numbers.name = impl_->options.name;
    numbers.started = impl_->started;
    numbers.vault_answered.us = impl_->vault_answered_us;
    numbers.spool_limit_bytes = impl_->options.spool_bytes;
    (void)impl_->home.run_sync([&] {
        numbers.agents = impl_->server->connected_agents();
        numbers.connections = impl_->server->connections();
        numbers.items = impl_->server->status();
    });
    return numbers;
}

void Appliance::remove(const ItemId& item) {
    (void)impl_->home.run_sync([&] { impl_->server->remove(item); });
}

}  // namespace farshore
