#include "appliance/appliance.h"

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
    ThreadExecutor upload{"upload"};
    ThreadExecutor control{"control"};
    ThreadExecutor compare{"compare", kWorkerNice};
    std::unique_ptr<ProcessServer> server;
    log::Limit refusals;  // anybody can connect
    std::unique_ptr<TlsListener> listener;

    Impl(ApplianceOptions given, InstanceLock held)
        : options(std::move(given)), lock(std::move(held)) {}
    ~Impl() {
        (void)home.run_sync([this] { listener.reset(); });
        // No task runs any more when the server goes.
        for (ThreadExecutor* executor : {&compare, &control, &upload, &build, &spool, &home})
            executor->stop();
        server.reset();
    }
};

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
    ProcessServerExecutors executors{&a.home,   &a.spool,   &a.build,
                                     &a.upload, &a.control, &a.compare};
    a.server = std::make_unique<ProcessServer>(a.files, store, vault, a.clock, a.random, executors,
                                               server);
    Status started;
    FS_TRY(a.home.run_sync([&] { started = a.server->start(); }));
    FS_TRY(started);
    TlsOptions tls_options;
    // A new agent has no certificate yet; the process server lets it do nothing but enrol.
    tls_options.require_client_certificate = false;
    FS_ASSIGN(a.listener, TlsListener::listen(
                              a.network, std::move(tls), a.home, options.listen, tls_options,
                              [&a](std::unique_ptr<Connection> connection) {
                                  a.server->accept(std::move(connection));
                              },
                              [&a](const Error& error) {
                                  a.refusals.warn("appliance", "a peer was refused: {}",
                                                  error.to_string());
                              }));
    return std::unique_ptr<Appliance>(new Appliance(std::move(impl)));
}

const std::string& Appliance::address() const { return impl_->listener->address(); }

std::vector<IntakeStatus> Appliance::status() const {
    std::vector<IntakeStatus> all;
    (void)impl_->home.run_sync([&] { all = impl_->server->status(); });
    return all;
}

void Appliance::remove(const ItemId& item) {
    (void)impl_->home.run_sync([&] { impl_->server->remove(item); });
}

}  // namespace farshore
