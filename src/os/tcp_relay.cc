#include "os/tcp_relay.h"

#include <fmt/core.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <set>
#include <thread>

#include "os/accept_loop.h"
#include "os/tls_connection.h"

namespace farshore {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kConnectPatience = std::chrono::seconds(5);

// One connection and its other half. Everything on the relay's own thread.
class Pair : public std::enable_shared_from_this<Pair> {
  public:
    Pair(tcp::socket client, std::function<void(Pair*)> ended)
        : client_(std::move(client)),
          server_(client_.get_executor()),
          timer_(client_.get_executor()),
          resolver_(client_.get_executor()),
          ended_(std::move(ended)) {}

    void start(const HostPort& to) {
        timer_.expires_after(kConnectPatience);
        timer_.async_wait([self = shared_from_this()](error_code error) {
            if (!error) self->close();
        });
        resolver_.async_resolve(to.host, std::to_string(to.port),
                                [self = shared_from_this()](
                                    error_code error, const tcp::resolver::results_type& found) {
                                    if (error) return self->close();
                                    asio::async_connect(
                                        self->server_, found,
                                        [self](error_code failed, const tcp::endpoint&) {
                                            if (failed) return self->close();
                                            self->timer_.cancel();
                                            self->connected();
                                        });
                                });
    }

    void close() {
        if (closed_) return;
        closed_ = true;
        error_code ignored;
        client_.close(ignored);
        server_.close(ignored);
        timer_.cancel();
        resolver_.cancel();
        ended_(this);
    }

  private:
    void connected() {
        error_code ignored;
        client_.set_option(tcp::no_delay(true), ignored);
        server_.set_option(tcp::no_delay(true), ignored);
        pump(client_, server_, up_);
        pump(server_, client_, down_);
    }

    // The end of one direction is handed on; the other goes on until its own.
    void pump(tcp::socket& from, tcp::socket& to, std::array<char, kRelayBufferBytes>& buffer) {
        if (closed_) return;
        from.async_read_some(asio::buffer(buffer), [self = shared_from_this(), &from, &to, &buffer](
                                                       error_code error, size_t bytes) {
            if (error == asio::error::eof) {
                error_code ignored;
                to.shutdown(tcp::socket::shutdown_send, ignored);
                if (++self->ends_ == 2) self->close();
                return;
            }
            if (error) return self->close();
            asio::async_write(to, asio::buffer(buffer, bytes),
                              [self, &from, &to, &buffer](error_code failed, size_t) {
                                  if (failed) return self->close();
                                  self->pump(from, to, buffer);
                              });
        });
    }

    tcp::socket client_, server_;
    asio::steady_timer timer_;
    tcp::resolver resolver_;
    std::function<void(Pair*)> ended_;
    std::array<char, kRelayBufferBytes> up_, down_;
    int ends_ = 0;
    bool closed_ = false;
};

}  // namespace

struct TcpRelay::Impl {
    explicit Impl(std::function<std::string()> target_in) : target(std::move(target_in)) {}

    void relay(tcp::socket client) {
        const std::string to = target();
        auto place = parse_host_port(to);
        if (to.empty() || !place || pairs.size() >= kMaxRelayed) return;
        auto pair =
            std::make_shared<Pair>(std::move(client), [this](Pair* gone) { pairs.erase(gone); });
        pairs.insert(pair.get());
        pair->start(*place);
    }

    std::function<std::string()> target;
    asio::io_context loop{1};
    AcceptLoop accepting{loop};
    std::set<Pair*> pairs;
    std::string address;
    std::thread thread;
};

TcpRelay::TcpRelay(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

TcpRelay::~TcpRelay() {
    asio::post(impl_->loop, [impl = impl_.get()] {
        impl->accepting.stop();
        while (!impl->pairs.empty()) (*impl->pairs.begin())->close();
    });
    impl_->thread.join();
}

const std::string& TcpRelay::address() const { return impl_->address; }

Result<std::unique_ptr<TcpRelay>> TcpRelay::start(const std::string& address,
                                                  std::function<std::string()> target) {
    FS_ASSIGN(const HostPort where, parse_host_port(address));
    auto impl = std::make_shared<Impl>(std::move(target));
    error_code error;
    tcp::resolver resolver(impl->loop);
    const auto found = resolver.resolve(where.host.empty() ? "0.0.0.0" : where.host,
                                        std::to_string(where.port), error);
    const auto failed = [&](const char* what) {
        return fail(Code::kUnavailable, fmt::format("{} {}: {}", what, address, error.message()),
                    "look whether another program has the address");
    };
    if (error || found.empty()) return failed("resolve");
    const tcp::endpoint endpoint = found.begin()->endpoint();
    tcp::acceptor& acceptor = impl->accepting.acceptor;
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(tcp::acceptor::max_listen_connections, error);
    if (error) return failed("listen on");
    impl->address = fmt::format("{}:{}", where.host, acceptor.local_endpoint().port());
    impl->accepting.start(
        [raw = impl.get()](tcp::socket client) { raw->relay(std::move(client)); });
    impl->thread = std::thread([impl = impl.get()] { impl->loop.run(); });
    return std::unique_ptr<TcpRelay>(new TcpRelay(std::move(impl)));
}

}  // namespace farshore
