// Frames of 1 MiB and of 4 KiB over loopback TLS: bytes a second, with one thread at each end.
#include <benchmark/benchmark.h>

#include <condition_variable>
#include <mutex>

#include "os/real.h"
#include "os/tls_connection.h"

namespace farshore {
namespace {

void tls_loopback(benchmark::State& state) {
    const auto frame_bytes = static_cast<size_t>(state.range(0));
    const TimePoint now = RealClock().now();
    auto authority = CertificateAuthority::create("bench-ca", now).value();
    IssueOptions options;
    options.now = now;
    options.common_name = "server";
    auto server_context =
        TlsContext::make(authority.certificate_pem(), authority.issue_with_key(options).value())
            .value();
    options.common_name = "client";
    auto client_context =
        TlsContext::make(authority.certificate_pem(), authority.issue_with_key(options).value())
            .value();

    TlsNetwork server_network, client_network;
    ThreadExecutor server("server"), client("client");
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t received_bytes = 0, wanted_bytes = 0, notify_at = ~uint64_t{0};
    std::unique_ptr<Connection> server_end, client_end;

    auto listener = TlsListener::listen(server_network, server_context, server, "127.0.0.1:0", {},
                                        [&](std::unique_ptr<Connection> accepted) {
                                            server_end = std::move(accepted);
                                            Connection::Handlers handlers;
                                            handlers.on_frame = [&](ByteView frame) {
                                                std::lock_guard lock(mutex);
                                                received_bytes += frame.size();
                                                if (received_bytes >= notify_at)
                                                    changed.notify_all();
                                            };
                                            server_end->start(std::move(handlers));
                                        })
                        .value();
    TlsDialer dialer(client_network, client_context);
    uint64_t sent_bytes = 0;
    const std::function<void()> fill = [&] {
        while (sent_bytes < wanted_bytes && client_end->queued_bytes() < (4u << 20)) {
            client_end->send(Bytes(frame_bytes, 0x5a));
            sent_bytes += frame_bytes;
        }
    };
    bool connected = false;
    dialer.dial(client, listener->address(), [&](Result<std::unique_ptr<Connection>> result) {
        client_end = std::move(result).value();
        Connection::Handlers handlers;
        handlers.on_drained = fill;
        client_end->start(std::move(handlers));
        std::lock_guard lock(mutex);
        connected = true;
        changed.notify_all();
    });
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return connected; });
    }
    const uint64_t round_bytes = 256u << 20;
    for (auto _ : state) {
        uint64_t target = 0;
        (void)client.run_sync([&] {
            wanted_bytes += round_bytes;
            target = wanted_bytes;
            {
                std::lock_guard lock(mutex);
                notify_at = target;
            }
            fill();
        });
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return received_bytes >= target; });
    }
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * round_bytes));
    (void)client.run_sync([&] { client_end.reset(); });
    (void)server.run_sync([&] {
        server_end.reset();
        listener.reset();
    });
}
BENCHMARK(tls_loopback)->Arg(1 << 20)->Arg(64 << 10)->Arg(4 << 10)->UseRealTime();

}  // namespace
}  // namespace farshore
