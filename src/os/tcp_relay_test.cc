#include "os/tcp_relay.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <thread>

#include "os/tls_connection.h"

namespace farshore {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct Client {
    explicit Client(const std::string& address) {
        const auto where = *parse_host_port(address);
        socket.connect({asio::ip::make_address(where.host), where.port});
    }
    // What comes until the other end closes.
    std::string rest() {
        std::string text;
        error_code ignored;
        asio::read(socket, asio::dynamic_buffer(text), ignored);
        return text;
    }
    asio::io_context loop;
    tcp::socket socket{loop};
};

// Broken if a byte were lost, added or moved on the way, or one side's end ended the other's words.
TEST(TcpRelay, HandsEverythingOnInBothDirections) {
    asio::io_context loop;
    tcp::acceptor server(loop, {asio::ip::make_address("127.0.0.1"), 0});
    auto relay = TcpRelay::start("127.0.0.1:0", [&] {
        return "127.0.0.1:" + std::to_string(server.local_endpoint().port());
    });
    ASSERT_TRUE(relay) << relay.error().to_string();
    std::string sent(3'000'000, 'x');
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 + i / 257);
    std::string received;
    std::thread answer([&] {
        tcp::socket peer = server.accept();
        error_code ended;
        asio::read(peer, asio::dynamic_buffer(received), ended);  // until the client's end
        asio::write(peer, asio::buffer(received.substr(0, 1'000'000)));
    });
    Client client((*relay)->address());
    asio::write(client.socket, asio::buffer(sent));
    client.socket.shutdown(tcp::socket::shutdown_send);
    const std::string back = client.rest();
    answer.join();
    EXPECT_EQ(received, sent);
    EXPECT_EQ(back, sent.substr(0, 1'000'000));
}

// Broken if the end of the relay waited for ever when somebody connects just then.
TEST(TcpRelay, EndsWhileSomebodyConnects) {
    for (int round = 0; round < 50; ++round) {
        std::atomic<bool> asked = false, ends = false;
        auto relay = TcpRelay::start("127.0.0.1:0", [&] {
            asked = true;
            while (!ends) std::this_thread::yield();
            return std::string();
        });
        ASSERT_TRUE(relay);
        const Client first((*relay)->address());
        while (!asked) std::this_thread::yield();
        // Waits to be accepted, which is behind the end of the relay then.
        const Client second((*relay)->address());
        ends = true;
        relay->reset();
    }
}

// Broken if a connection that nobody can be found for hung, or the end of the relay waited for its
// connections.
TEST(TcpRelay, ClosesWhatItCannotHandOn) {
    std::string to;
    auto relay = TcpRelay::start("127.0.0.1:0", [&] { return to; });
    ASSERT_TRUE(relay);
    EXPECT_EQ(Client((*relay)->address()).rest(), "");
    asio::io_context loop;
    tcp::acceptor server(loop, {asio::ip::make_address("127.0.0.1"), 0});
    to = "127.0.0.1:" + std::to_string(server.local_endpoint().port());
    Client client((*relay)->address());
    tcp::socket peer = server.accept();
    relay->reset();
    EXPECT_EQ(client.rest(), "");
    error_code error;
    char byte = 0;
    asio::read(peer, asio::buffer(&byte, 1), error);
    EXPECT_TRUE(error);
    EXPECT_EQ(TcpRelay::start("nonsense", [] { return std::string(); }).error().code(),
              Code::kInvalidArgument);
}

}  // namespace
}  // namespace farshore
