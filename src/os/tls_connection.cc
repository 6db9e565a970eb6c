#include "os/tls_connection.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <pthread.h>

#include <boost/asio/connect.hpp>
#include <charconv>

#include "os/log.h"
#include "os/tls_channel.h"

namespace farshore {

using namespace tls;

namespace {

class TlsConnection final : public Connection {
  public:
    TlsConnection(std::shared_ptr<Channel> channel, Executor& executor)
        : channel_(std::move(channel)), peer_name_(channel_->peer_name()) {
        channel_->attach(executor);
    }
    ~TlsConnection() override { channel_->release(); }
    void start(Handlers handlers) override { channel_->start(std::move(handlers)); }
    void send(Bytes frame) override { channel_->send(std::move(frame)); }
    size_t queued_bytes() const override { return channel_->queued_bytes(); }
    void close() override { channel_->close(true); }
    const std::string& peer_name() const override { return peer_name_; }

  private:
    const std::shared_ptr<Channel> channel_;
    const std::string peer_name_;
};

// Posts to executors until it is shut; what was posted and has not run then does not run.
class Gate : public std::enable_shared_from_this<Gate> {
  public:
    void post(Executor& executor, Task task) {
        std::lock_guard lock(mutex_);
        if (!open_) return;
        executor.post([self = shared_from_this(), task = std::move(task)] {
            if (self->is_open()) task();
        });
    }
    void shut() {
        std::lock_guard lock(mutex_);
        open_ = false;
    }
    bool is_open() {
        std::lock_guard lock(mutex_);
        return open_;
    }

  private:
    std::mutex mutex_;
    bool open_ = true;
};

}  // namespace

TlsNetwork::TlsNetwork(unsigned threads) : impl_(std::make_shared<Impl>()) {
    for (unsigned i = 0; i < std::max(threads, 1u); ++i) {
        auto loop = std::make_shared<Loop>();
        loop->thread = std::thread([raw = loop.get(), i] {
            pthread_setname_np(pthread_self(), fmt::format("net-{}", i).c_str());
            raw->io.run();
        });
        impl_->loops.push_back(std::move(loop));
    }
}

TlsNetwork::~TlsNetwork() {
    for (const auto& loop : impl_->loops) {
        loop->post([raw = loop.get()] {
            const std::unordered_set<Channel*> channels = raw->channels;
            for (Channel* channel : channels) channel->shut();
            for (const auto& [of, close] : std::exchange(raw->closers, {})) close();
        });
        std::lock_guard lock(loop->mutex);
        loop->stopped = true;
        loop->work.reset();
    }
    for (const auto& loop : impl_->loops) loop->thread.join();
}

// --- listener

struct TlsListener::Impl : std::enable_shared_from_this<Impl> {
    Impl(std::shared_ptr<TlsNetwork::Impl> net, std::shared_ptr<Loop> own_loop, Executor& on)
        : network(std::move(net)),
          loop(std::move(own_loop)),
          executor(on),
          acceptor(loop->io),
          retry(loop->io) {}

    const std::shared_ptr<TlsNetwork::Impl> network;
    const std::shared_ptr<Loop> loop;
    std::shared_ptr<TlsContext> context;
    Executor& executor;
    TlsOptions options;
    OnAccept on_accept;
    OnRefused on_refused;
    const std::shared_ptr<Gate> gate = std::make_shared<Gate>();
    tcp::acceptor acceptor;
    asio::steady_timer retry;
    std::string address;
    uint16_t port = 0;
    std::shared_ptr<std::atomic<size_t>> connections = std::make_shared<std::atomic<size_t>>(0);
    // The loop's thread.
    size_t handshakes = 0;
    bool accepting = false;
    bool closed = false;

    void refuse(const Error& error) {
        gate->post(executor, [self = shared_from_this(), error] {
            if (self->on_refused)
                self->on_refused(error);
            else
                log::warn("network", "{}: refused: {}", self->address, error.to_string());
        });
    }

    void accept() {
        if (accepting || closed || handshakes >= options.max_handshakes) return;
        accepting = true;
        const std::shared_ptr<Loop> target = network->pick();
        acceptor.async_accept(target->io, [self = shared_from_this(), target](
                                              const error_code& code, tcp::socket socket) {
            self->accepting = false;
            if (self->closed) return;
            if (code) return self->accept_failed(code);
            self->take(target, std::move(socket));
            self->accept();
        });
    }

    void accept_failed(const error_code& code) {
        // Out of descriptors or memory: others may free some. A pause, lest the loop spins.
        constexpr auto kPause = std::chrono::milliseconds(100);
        if (code != asio::error::connection_aborted)
            refuse(Error(Code::kLimitReached, "accept a connection: " + code.message()));
        retry.expires_after(kPause);
        retry.async_wait([self = shared_from_this()](const error_code& cancelled) {
            if (!cancelled) self->accept();
        });
    }

    void take(const std::shared_ptr<Loop>& target, tcp::socket socket) {
        if (*connections >= options.max_connections) {
            refuse(Error(Code::kLimitReached,
                         fmt::format("there are {} connections already", options.max_connections)));
            return;  // the socket closes itself
        }
        ++handshakes;
        auto channel = std::make_shared<Channel>(target, std::move(socket), options);
        channel->keep(std::make_shared<Slot>(connections));
        // On its own thread from here on.
        target->post([self = shared_from_this(), channel] {
            const int64_t deadline_us = steady_us() + self->options.handshake_timeout_us;
            channel->handshake(
                self->context->impl(), true, deadline_us,
                [self, channel](const Status& done) { self->finished(channel, done); });
        });
    }

    void finished(const std::shared_ptr<Channel>& channel, const Status& done) {
        loop->post([self = shared_from_this()] {
            --self->handshakes;
            self->accept();
        });
        if (!done) return refuse(done.error());
        // In a shared pointer because tasks are copied; destroyed, and so closed, if it never runs.
        auto connection = std::make_shared<std::unique_ptr<Connection>>(
            std::make_unique<TlsConnection>(channel, executor));
        gate->post(executor, [self = shared_from_this(), connection] {
            self->on_accept(std::move(*connection));
        });
    }

    void close() {
        const auto self = shared_from_this();
        closed = true;
        loop->closers.erase(this);
        error_code ignored;
        acceptor.close(ignored);
        retry.cancel();
    }
};

Result<HostPort> parse_host_port(const std::string& address) {
    const Error bad(Code::kInvalidArgument, fmt::format("'{}' is not an address", address),
                    "write host:port, or [v6-address]:port");
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos) return fail(bad);
    HostPort parts;
    parts.host = address.substr(0, colon);
    if (parts.host.size() >= 2 && parts.host.front() == '[' && parts.host.back() == ']')
        parts.host = parts.host.substr(1, parts.host.size() - 2);
    else if (parts.host.find(':') != std::string::npos)
        return fail(bad);
    const char* end = address.data() + address.size();
    const auto parsed = std::from_chars(address.data() + colon + 1, end, parts.port);
    if (parsed.ec != std::errc() || parsed.ptr != end || parts.host.empty()) return fail(bad);
    return parts;
}

Result<std::unique_ptr<TlsListener>> TlsListener::listen(TlsNetwork& network,
                                                         std::shared_ptr<TlsContext> context,
                                                         Executor& executor,
                                                         const std::string& address,
                                                         const TlsOptions& options,
                                                         OnAccept on_accept, OnRefused on_refused) {
    if (!context->impl().has_certificate)
        return fail(Code::kInvalidArgument, "a listener needs a certificate");
    FS_ASSIGN(const HostPort parts, parse_host_port(address));
    auto impl = std::make_shared<Impl>(network.impl(), network.impl()->loops[0], executor);
    error_code code;
    tcp::resolver resolver(impl->loop->io);
    const auto found =
        resolver.resolve(parts.host, std::to_string(parts.port), tcp::resolver::passive, code);
    if (code) return fail(from_boost(code, fmt::format("find '{}'", parts.host)));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    const auto listen_at = [&] {
        if (impl->acceptor.open(endpoint.protocol(), code)) return;
        ::fcntl(impl->acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
        impl->acceptor.set_option(asio::socket_base::reuse_address(true), code);
        if (impl->acceptor.bind(endpoint, code)) return;
        impl->acceptor.listen(asio::socket_base::max_listen_connections, code);
    };
    listen_at();
    if (code == asio::error::address_in_use)
        return fail(Code::kAlreadyExists, fmt::format("'{}' is in use by another program", address),
                    "end it, or listen at another port");
    if (code) return fail(from_boost(code, fmt::format("listen at '{}'", address)));
    impl->context = std::move(context);
    impl->options = options;
    impl->on_accept = std::move(on_accept);
    impl->on_refused = std::move(on_refused);
    impl->port = impl->acceptor.local_endpoint(code).port();
    impl->address = fmt::format(
        "{}:{}", parts.host.find(':') == std::string::npos ? parts.host : '[' + parts.host + ']',
        impl->port);
    impl->loop->post([impl] {
        impl->loop->closers.emplace(impl.get(), [impl] { impl->close(); });
        impl->accept();
    });
    std::unique_ptr<TlsListener> listener(new TlsListener);
    listener->impl_ = std::move(impl);
    return listener;
}

TlsListener::~TlsListener() {
    if (!impl_) return;
    impl_->gate->shut();
    impl_->loop->post([impl = impl_] { impl->close(); });
}

uint16_t TlsListener::port() const { return impl_->port; }
const std::string& TlsListener::address() const { return impl_->address; }

// --- dialler

struct TlsDialer::Impl {
    std::shared_ptr<TlsNetwork::Impl> network;
    std::shared_ptr<TlsContext> context;
    TlsOptions options;
    std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};

namespace {

using DialDone = std::function<void(Result<std::unique_ptr<Connection>>)>;

// One attempt, on its loop's thread.
struct Dial : std::enable_shared_from_this<Dial> {
    Dial(std::shared_ptr<TlsDialer::Impl> from, std::shared_ptr<Loop> on, Executor& to)
        : dialer(std::move(from)),
          loop(std::move(on)),
          executor(to),
          resolver(loop->io),
          timer(loop->io) {}

    const std::shared_ptr<TlsDialer::Impl> dialer;
    const std::shared_ptr<Loop> loop;
    Executor& executor;
    tcp::resolver resolver;
    asio::steady_timer timer;
    std::shared_ptr<Channel> channel;
    std::string address;
    HostPort parts;
    DialDone done;
    bool connected = false;
    bool ended = false;

    void begin() {
        const int64_t timeout_us = dialer->options.handshake_timeout_us;
        const int64_t deadline_us = steady_us() + timeout_us;
        channel = std::make_shared<Channel>(loop, tcp::socket(loop->io), dialer->options);
        timer.expires_after(std::chrono::microseconds(timeout_us));
        timer.async_wait([self = shared_from_this()](const error_code& cancelled) {
            if (!cancelled)
                self->stop(
                    Error(Code::kTimeout, fmt::format("'{}' does not answer", self->address)));
        });
        loop->closers.emplace(this, [self = shared_from_this()] {
            self->stop(Error(Code::kCancelled, "the network is shut down"));
        });
        resolver.async_resolve(
            parts.host, std::to_string(parts.port),
            [self = shared_from_this(), deadline_us](const error_code& code,
                                                     const tcp::resolver::results_type& found) {
                if (self->ended) return;
                if (code)
                    return self->end(
                        fail(Code::kUnavailable,
                             fmt::format("find '{}': {}", self->parts.host, code.message())));
                self->connect(found, deadline_us);
            });
    }

    void connect(const tcp::resolver::results_type& found, int64_t deadline_us) {
        asio::async_connect(
            channel->socket(), found,
            [self = shared_from_this(), deadline_us](const error_code& code, const tcp::endpoint&) {
                if (self->ended) return;
                if (code)
                    return self->end(
                        fail(from_boost(code, fmt::format("connect to '{}'", self->address))));
                self->timer.cancel();  // the channel has its own
                self->connected = true;
                ::fcntl(self->channel->socket().native_handle(), F_SETFD, FD_CLOEXEC);
                self->channel->handshake(
                    self->dialer->context->impl(), false, deadline_us, [self](Status shaken) {
                        if (!shaken) return self->end(fail(shaken.error()));
                        self->end(std::make_unique<TlsConnection>(self->channel, self->executor));
                    });
            });
    }

    // Before the channel has taken over.
    void stop(Error error) {
        if (ended || connected) return;
        resolver.cancel();
        error_code ignored;
        channel->socket().close(ignored);
        end(fail(std::move(error)));
    }

    void end(Result<std::unique_ptr<Connection>> result) {
        if (ended) return;
        ended = true;
        const auto self = shared_from_this();
        loop->closers.erase(this);
        timer.cancel();
        auto held = std::make_shared<Result<std::unique_ptr<Connection>>>(std::move(result));
        dialer->gate->post(executor, [call = std::move(done), held] { call(std::move(*held)); });
        channel.reset();
    }
};

}  // namespace

TlsDialer::TlsDialer(TlsNetwork& network, std::shared_ptr<TlsContext> context, TlsOptions options)
    : impl_(std::make_shared<Impl>()) {
    impl_->network = network.impl();
    impl_->context = std::move(context);
    impl_->options = std::move(options);
}

TlsDialer::~TlsDialer() { impl_->gate->shut(); }

void TlsDialer::dial(Executor& executor, const std::string& address,
                     std::function<void(Result<std::unique_ptr<Connection>>)> done) {
    auto parts = parse_host_port(address);
    if (!parts) {
        auto error = std::make_shared<Error>(parts.error());
        impl_->gate->post(executor, [done = std::move(done), error] { done(fail(*error)); });
        return;
    }
    const std::shared_ptr<Loop> loop = impl_->network->pick();
    auto attempt = std::make_shared<Dial>(impl_, loop, executor);
    attempt->address = address;
    attempt->parts = std::move(*parts);
    attempt->done = std::move(done);
    if (!loop->post([attempt] { attempt->begin(); }))
        impl_->gate->post(executor, [call = std::move(attempt->done)] {
            call(fail(Code::kCancelled, "the network is shut down"));
        });
}

}  // namespace farshore
