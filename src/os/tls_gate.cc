#include "os/tls_gate.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <set>
#include <thread>

#include "os/accept_loop.h"
#include "os/tls_context.h"
#include "os/tls_gate_link.h"

namespace farshore {

using gate::error_code;
using gate::tcp;
using gate::asio::io_context;

struct TlsGate::Impl {
    void add(tcp::socket client) {
        if (links.size() >= kMaxGated)
            return owner.refused("a client", fmt::format("{} are connected already", kMaxGated));
        auto link = std::make_shared<gate::Link>(std::move(client), owner, options,
                                                 context->impl().make_ssl(), talk());
        links.insert(link.get());
        link->start();
    }

    TlsGateOptions options;
    std::shared_ptr<TlsContext> context;
    std::function<std::unique_ptr<GateTalk>()> talk;
    gate::Link::Owner owner;
    std::set<gate::Link*> links;
    io_context loop{1};
    AcceptLoop accepting{loop};
    uint16_t port = 0;
    std::thread thread;
};

TlsGate::TlsGate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TlsGate::~TlsGate() {
    if (!impl_->thread.joinable()) return;
    gate::asio::post(impl_->loop, [impl = impl_.get()] {
        impl->accepting.stop();
        while (!impl->links.empty()) (*impl->links.begin())->close();
    });
    impl_->thread.join();
}

uint16_t TlsGate::port() const { return impl_->port; }

void TlsGate::open() {
    FS_CHECK(!impl_->thread.joinable());
    impl_->accepting.start(
        [impl = impl_.get()](tcp::socket client) { impl->add(std::move(client)); });
    impl_->thread = std::thread([impl = impl_.get()] { impl->loop.run(); });
}

Result<std::unique_ptr<TlsGate>> TlsGate::start(
    const TlsGateOptions& options, std::shared_ptr<TlsContext> context,
    std::function<std::unique_ptr<GateTalk>()> talk,
    std::function<void(const std::string& peer, const std::string& why)> refused) {
    if (options.ports.empty() || options.client_name.empty() || options.target_socket.empty())
        return fail(Code::kInvalidArgument, "a gate needs ports, a client's name and a socket");
    auto impl = std::make_unique<Impl>();
    impl->options = options;
    impl->context = std::move(context);
    impl->talk = std::move(talk);
    impl->owner.refused = std::move(refused);
    impl->owner.ended = [raw = impl.get()](gate::Link* link) { raw->links.erase(link); };
    error_code error;
    tcp::resolver resolver(impl->loop);
    const auto found = resolver.resolve(options.host, "0", error);
    if (error || found.empty())
        return fail(Code::kUnavailable, fmt::format("find {}: {}", options.host, error.message()),
                    "name an address of this machine");
    for (const uint16_t port : options.ports) {
        const tcp::endpoint endpoint(found.begin()->endpoint().address(), port);
        tcp::acceptor acceptor(impl->loop);
        acceptor.open(endpoint.protocol(), error);
        if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
        if (!error) acceptor.bind(endpoint, error);
        if (!error) acceptor.listen(tcp::acceptor::max_listen_connections, error);
        if (error == gate::asio::error::address_in_use) continue;
        if (error)
            return fail(
                Code::kUnavailable,
                fmt::format("listen on {} port {}: {}", options.host, port, error.message()),
                "name an address of this machine and ports that it may use");
        impl->port = acceptor.local_endpoint().port();
        impl->accepting.acceptor = std::move(acceptor);
        return std::unique_ptr<TlsGate>(new TlsGate(std::move(impl)));
    }
    return fail(Code::kLimitReached, fmt::format("no port of {} is free on {}",
                                                 fmt::join(options.ports, ", "), options.host));
}

}  // namespace farshore
