// A server for tests of HTTP clients that lies, stops half-way or never answers: bytes out as the
// test says, each request of a connection after the other, plain HTTP on this machine.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace farshore {

struct FakeRequest {
    std::string method;
    std::string target;
    std::map<std::string, std::string> headers;  // lower-case names
    std::string body;

    std::string header(const std::string& name) const {
        const auto found = headers.find(name);
        return found == headers.end() ? "" : found->second;
    }
};

struct FakeAnswer {
    std::string bytes;    // the whole answer, status line and all
    bool hang = false;    // afterwards nothing more until the server ends
    bool close = false;   // afterwards the connection ends
    uint16_t tunnel = 0;  // afterwards it goes on with this port of this machine

    static FakeAnswer of(int status, const std::vector<std::string>& headers,
                         const std::string& body, bool with_length = true) {
        std::string text = "HTTP/1.1 " + std::to_string(status) + " Fake\r\n";
        for (const std::string& header : headers) text += header + "\r\n";
        if (with_length) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
        FakeAnswer answer{text + "\r\n" + body};
        answer.close = !with_length;
        return answer;
    }
};

class FakeHttp {
  public:
    // Called on the connections' threads, one at a time.
    using Handler = std::function<FakeAnswer(const FakeRequest&)>;

    explicit FakeHttp(Handler handler) : handler_(std::move(handler)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        FS_CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        FS_CHECK(::listen(listener_, 64) == 0);
        socklen_t length = sizeof address;
        FS_CHECK(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
        port_ = ntohs(address.sin_port);
        acceptor_ = std::thread([this] { accept_all(); });
    }
    ~FakeHttp() {
        ending_ = true;
        acceptor_.join();
        for (std::thread& thread : threads_) thread.join();
        ::close(listener_);
    }

    uint16_t port() const { return port_; }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    int requests() const { return requests_; }

  private:
    // Whether there is something to read before the server ends.
    bool wait_readable(int fd) {
        while (!ending_) {
            pollfd wait{fd, POLLIN, 0};
            if (::poll(&wait, 1, 20) > 0) return true;
        }
        return false;
    }
    void accept_all() {
        while (wait_readable(listener_)) {
            const int fd = ::accept(listener_, nullptr, nullptr);
            if (fd >= 0) threads_.emplace_back([this, fd] { serve(fd); });
        }
    }
    static void send_all(int fd, std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent <= 0) return;
            bytes.remove_prefix(static_cast<size_t>(sent));
        }
    }
    bool read_more(int fd, std::string& buffer) {
        char part[65536];
        if (!wait_readable(fd)) return false;
        const ssize_t got = ::recv(fd, part, sizeof part, 0);
        if (got <= 0) return false;
        buffer.append(part, static_cast<size_t>(got));
        return true;
    }
    void serve(int fd) {
        std::string buffer;
        for (bool more = true; more;) more = serve_one(fd, buffer);
        ::close(fd);
    }
    bool serve_one(int fd, std::string& buffer) {
        size_t end;
        while ((end = buffer.find("\r\n\r\n")) == std::string::npos)
            if (!read_more(fd, buffer)) return false;
        FakeRequest request;
        const std::string head = buffer.substr(0, end + 2);
        size_t at = head.find("\r\n") + 2;
        request.method = head.substr(0, head.find(' '));
        const size_t target = request.method.size() + 1;
        request.target = head.substr(target, head.find(' ', target) - target);
        while (at < head.size()) {
            const size_t line_end = head.find("\r\n", at), colon = head.find(':', at);
            std::string name = head.substr(at, colon - at);
            for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
            size_t value = colon + 1;
            while (value < line_end && head[value] == ' ') ++value;
            request.headers[name] = head.substr(value, line_end - value);
            at = line_end + 2;
        }
        const std::string length_text = request.header("content-length");
        const size_t length = length_text.empty() ? 0 : std::stoul(length_text);
        while (buffer.size() < end + 4 + length)
            if (!read_more(fd, buffer)) return false;
        request.body = buffer.substr(end + 4, length);
        buffer.erase(0, end + 4 + length);
        FakeAnswer answer;
        {
            std::lock_guard lock(mutex_);
            ++requests_;
            answer = handler_(request);
        }
        send_all(fd, answer.bytes);
        if (answer.tunnel != 0) tunnel(fd, answer.tunnel, buffer);
        if (answer.hang)
            while (wait_readable(fd) && read_more(fd, buffer)) {
            }
        return !answer.close && !answer.hang && answer.tunnel == 0;
    }
    // Bytes both ways until one side ends.
    void tunnel(int fd, uint16_t port, const std::string& begun) {
        const int other = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::connect(other, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
            send_all(other, begun);
            bool open = true;
            while (open && !ending_) {
                pollfd both[2] = {{fd, POLLIN, 0}, {other, POLLIN, 0}};
                if (::poll(both, 2, 20) <= 0) continue;
                for (int i = 0; i < 2 && open; ++i) {
                    if (both[i].revents == 0) continue;
                    char part[65536];
                    const ssize_t got = ::recv(both[i].fd, part, sizeof part, 0);
                    open = got > 0;
                    if (open) send_all(both[1 - i].fd, {part, static_cast<size_t>(got)});
                }
            }
        }
        ::close(other);
    }

    const Handler handler_;
    int listener_ = -1;
    uint16_t port_ = 0;
    std::atomic<bool> ending_{false};
    std::atomic<int> requests_{0};
    std::mutex mutex_;
    std::thread acceptor_;
    std::list<std::thread> threads_;
};

}  // namespace farshore
