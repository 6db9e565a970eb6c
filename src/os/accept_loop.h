// Accepts connections one after the other on an io_context, over a shortage of descriptors too,
// until it is told to stop. For what has a loop and a thread of its own; everything but the
// constructor on that thread, or before it runs.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <utility>

namespace farshore {

class AcceptLoop {
  public:
    using tcp = boost::asio::ip::tcp;

    explicit AcceptLoop(boost::asio::io_context& loop) : acceptor(loop), pause_(loop) {}

    void start(std::function<void(tcp::socket)> taken) {
        taken_ = std::move(taken);
        accept();
    }
    // Nothing is accepted any more, and the loop has nothing to wait for.
    void stop() {
        stopped_ = true;
        boost::system::error_code ignored;
        acceptor.close(ignored);
        pause_.cancel();
    }

    tcp::acceptor acceptor;  // listens before start()

  private:
    void accept() {
        acceptor.async_accept([this](boost::system::error_code error, tcp::socket client) {
            // One that was accepted just before the stop is told of behind it, without an error.
            if (stopped_) return;
            if (!error) {
                taken_(std::move(client));
                return accept();
            }
            // Out of descriptors: others end meanwhile.
            pause_.expires_after(std::chrono::milliseconds(100));
            pause_.async_wait([this](boost::system::error_code) {
                if (!stopped_) accept();
            });
        });
    }

    boost::asio::steady_timer pause_;
    std::function<void(tcp::socket)> taken_;
    bool stopped_ = false;
};

}  // namespace farshore
