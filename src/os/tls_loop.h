// The threads of a TlsNetwork, each an event loop. A part of tls_channel.h.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "os/tls_connection.h"

namespace farshore {
namespace tls {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class Channel;

inline int64_t steady_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

inline Error from_boost(const error_code& code, std::string what) {
    if (code.category() == boost::system::system_category())
        return Error::from_errno(code.value(), std::move(what));
    return Error(Code::kUnavailable, what + ": " + code.message());
}

// One thread and what lives on it.
struct Loop {
    asio::io_context io{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
    std::thread thread;
    std::mutex mutex;
    bool stopped = false;
    // On the loop's thread: what must be ended for run() to return.
    std::unordered_set<Channel*> channels;
    std::unordered_map<const void*, std::function<void()>> closers;

    // False, and the task is dropped, after the end: nothing would ever run it.
    template <typename Function>
    bool post(Function function) {
        std::lock_guard lock(mutex);
        if (stopped) return false;
        asio::post(io, std::move(function));
        return true;
    }
};

}  // namespace tls

struct TlsNetwork::Impl {
    std::vector<std::shared_ptr<tls::Loop>> loops;
    std::atomic<size_t> next{0};
    const std::shared_ptr<tls::Loop>& pick() { return loops[next++ % loops.size()]; }
};

}  // namespace farshore
