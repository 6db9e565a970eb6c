// An S3 server for tests that lies and fails on command, over plain HTTP. Strict: it checks every
// signature and every body's hash. One thread for each connection; one request a connection.
#pragma once

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "codec/hash.h"
#include "os/fd.h"
#include "os/http.h"
#include "os/real.h"
#include "store/s3_signature.h"

namespace farshore {

class S3TestServer {
  public:
    struct Reply {
        int status = 200;
        std::string body;
        std::vector<std::pair<std::string, std::string>> headers;
        std::optional<size_t> cut_at;  // the connection ends after so many bytes of the body
        bool silent = false;           // no answer until the server ends
    };
    // What happens instead of, or to, the right answer; none: nothing.
    using Fault = std::function<std::optional<Reply>(const HttpRequest&, const Reply& right)>;

    explicit S3TestServer(S3Keys keys) : keys_(std::move(keys)) {
        listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* raw = reinterpret_cast<sockaddr*>(&address);
        FS_CHECK(::bind(listener_.get(), raw, size) == 0 && ::listen(listener_.get(), 64) == 0 &&
                 ::getsockname(listener_.get(), raw, &size) == 0);
        host_ = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
        thread_ = std::thread([this] { accept_all(); });
    }
    ~S3TestServer() {
        ending_ = true;
        ::shutdown(listener_.get(), SHUT_RDWR);
        thread_.join();
        {
            const std::lock_guard lock(mutex_);
            for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
        }
        for (std::thread& one : connections_) one.join();
    }

    std::string endpoint() const { return "http://" + host_; }
    void set_fault(Fault fault) {
        const std::lock_guard lock(mutex_);
        fault_ = std::move(fault);
    }
    // Before anything: without it an unwanted overwrite succeeds.
    std::atomic<bool> obeys_conditions{true};
    // Ends a change before (false) or after (true) it was made when a fault answers.
    std::atomic<bool> acts_before_failing{false};
    std::atomic<int64_t> clock_ahead_us{0};
    std::atomic<int> requests{0};
    std::atomic<size_t> page_size{1000};  // entries of a listing's answer
    std::atomic<int> silent{0};           // answers that are withheld

    std::map<std::string, std::string> objects() {
        const std::lock_guard lock(mutex_);
        return objects_;
    }
    void set_object(const std::string& key, std::string data) {
        const std::lock_guard lock(mutex_);
        objects_[key] = std::move(data);
    }
    static Reply error(int status, const char* code) {
        return {status,
                fmt::format("<?xml version=\"1.0\"?><Error><Code>{}</Code><Message>planted"
                            "</Message></Error>",
                            code),
                {},
                {},
                false};
    }

  private:
    void accept_all() {
        while (!ending_) {
            const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) continue;
            const std::lock_guard lock(mutex_);
            open_.push_back(fd);
            connections_.emplace_back([this, fd] { serve(fd); });
        }
    }
    void serve(int fd) {
        std::string in;
        const auto more = [&] {
            char buffer[65'536];
            const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
            if (n > 0) in.append(buffer, static_cast<size_t>(n));
            return n > 0;
        };
        size_t end = 0;
        while ((end = in.find("\r\n\r\n")) == std::string::npos)
            if (!more()) return finish(fd);
        HttpRequest request;
        size_t at = in.find("\r\n");
        const std::string first = in.substr(0, at);
        request.method = first.substr(0, first.find(' '));
        request.target = first.substr(request.method.size() + 1);
        request.target.resize(request.target.find(' '));
        while (at < end) {
            const size_t next = in.find("\r\n", at + 2);
            const std::string line = in.substr(at + 2, next - at - 2);
            const size_t colon = line.find(": ");
            std::string name = line.substr(0, colon);
            for (char& c : name) c = static_cast<char>(std::tolower(c));
            if (colon != std::string::npos) request.headers[name] = line.substr(colon + 2);
            at = next;
        }
        FS_CHECK(split_target(request));
        size_t length = 0;
        if (const std::string& text = request.header("content-length"); !text.empty())
            length = std::stoull(text);
        while (in.size() < end + 4 + length)
            if (!more()) return finish(fd);
        request.body = in.substr(end + 4, length);
        answer(fd, request);
        finish(fd);
    }
    void finish(int fd) {
        const std::lock_guard lock(mutex_);
        std::erase(open_, fd);
        ::close(fd);
    }
    void answer(int fd, const HttpRequest& request) {
        ++requests;
        Fault fault;
        {
            const std::lock_guard lock(mutex_);
            fault = fault_;
        }
        Reply reply;
        if (auto wrong = checked(request)) {
            reply = std::move(*wrong);
        } else {
            const bool changes = request.method == "PUT" || request.method == "DELETE";
            const bool before = changes && !acts_before_failing;
            if (!before) reply = act(request);
            auto instead = fault ? fault(request, reply) : std::nullopt;
            if (instead)
                reply = std::move(*instead);
            else if (before)
                reply = act(request);
        }
        if (reply.silent) {
            ++silent;
            char nothing;
            (void)::recv(fd, &nothing, 1, 0);  // until one of the two gives up
            return;
        }
        std::string out = fmt::format("HTTP/1.1 {} x\r\nConnection: close\r\nDate: {}\r\n",
                                      reply.status, to_http_date({now_us()}));
        for (const auto& [name, value] : reply.headers) out += name + ": " + value + "\r\n";
        if (request.method != "HEAD")
            out += fmt::format("Content-Length: {}\r\n", reply.body.size());
        out += "\r\n";
        if (request.method != "HEAD") out += reply.body.substr(0, reply.cut_at.value_or(SIZE_MAX));
        for (size_t sent = 0; sent < out.size();) {
            const ssize_t n = ::send(fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
            if (n <= 0) return;
            sent += static_cast<size_t>(n);
        }
    }
    int64_t now_us() const { return RealClock().now().us + clock_ahead_us; }
    // What is wrong with it, as S3 would say.
    std::optional<Reply> checked(const HttpRequest& request) {
        S3Request signed_one;
        signed_one.method = request.method;
        signed_one.host = request.header("host");
        signed_one.path = request.target.substr(0, request.target.find('?'));
        signed_one.query = {request.query.begin(), request.query.end()};
        signed_one.payload_sha256 = request.header("x-amz-content-sha256");
        if (signed_one.payload_sha256 != to_hex(sha256(as_bytes(request.body))))
            return error(400, "XAmzContentSHA256Mismatch");
        for (const char* name : {"if-none-match", "range"})
            if (!request.header(name).empty())
                signed_one.headers.emplace_back(name, request.header(name));
        std::string date = request.header("x-amz-date");  // 20130524T000000Z
        if (date.size() != 16 || signed_one.host != host_) return error(403, "AccessDenied");
        const auto time = from_rfc3339(fmt::format(
            "{}-{}-{}T{}:{}:{}Z", date.substr(0, 4), date.substr(4, 2), date.substr(6, 2),
            date.substr(9, 2), date.substr(11, 2), date.substr(13, 2)));
        for (const auto& [name, value] : s3_sign(signed_one, keys_, time.value()))
            if (name == "authorization" && value != request.header("authorization"))
                return error(403, "SignatureDoesNotMatch");
        if (std::abs(time->us - now_us()) > 900'000'000) return error(403, "RequestTimeTooSkewed");
        return std::nullopt;
    }
    Reply act(const HttpRequest& request) {
        const std::lock_guard lock(mutex_);
        const size_t slash = request.path.find('/', 1);
        const std::string key = slash == std::string::npos ? "" : request.path.substr(slash + 1);
        if (key.empty()) return list(request);
        const auto found = objects_.find(key);
        if (request.method == "PUT") {
            if (found != objects_.end() && obeys_conditions &&
                request.header("if-none-match") == "*")
                return error(412, "PreconditionFailed");
            objects_[key] = request.body;
            return {};
        }
        if (request.method == "DELETE") {
            objects_.erase(key);
            return {204, "", {}, {}, false};
        }
        if (found == objects_.end()) return error(404, "NoSuchKey");
        if (request.method == "HEAD")
            return {
                200, "", {{"Content-Length", fmt::format("{}", found->second.size())}}, {}, false};
        const std::string& range = request.header("range");
        if (range.empty()) return {200, found->second, {}, {}, false};
        const size_t from = std::stoull(range.substr(6));
        const size_t to = std::stoull(range.substr(range.find('-') + 1));
        if (from >= found->second.size()) return error(416, "InvalidRange");
        std::string part = found->second.substr(from, to - from + 1);
        const std::string content =
            fmt::format("bytes {}-{}/{}", from, from + part.size() - 1, found->second.size());
        return {206, std::move(part), {{"Content-Range", content}}, {}, false};
    }
    Reply list(const HttpRequest& request) {
        const auto value = [&](const char* name) {
            const auto found = request.query.find(name);
            return found == request.query.end() ? std::string() : found->second;
        };
        const std::string prefix = value("prefix"),
                          after = std::max(value("start-after"), value("continuation-token"));
        const size_t most = std::min<size_t>(std::stoull(value("max-keys")), page_size);
        std::string entries, last;
        size_t n = 0;
        bool more = false;
        for (const auto& [key, data] : objects_) {
            if (!key.starts_with(prefix) || key <= after) continue;
            if (n == most) {
                more = true;
                break;
            }
            entries += fmt::format("<Contents><Key>{}</Key><Size>{}</Size></Contents>",
                                   percent_encode(key), data.size());
            last = key;
            ++n;
        }
        return {200,
                fmt::format("<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{}"
                            "</IsTruncated><NextContinuationToken>{}</NextContinuationToken>{}"
                            "</ListBucketResult>",
                            more, more ? last : "", entries),
                {},
                {},
                false};
    }

    const S3Keys keys_;
    UniqueFd listener_;
    std::string host_;
    std::atomic<bool> ending_{false};
    std::mutex mutex_;  // what follows
    Fault fault_;
    std::map<std::string, std::string> objects_;
    std::vector<int> open_;
    std::vector<std::thread> connections_;
    std::thread thread_;
};

}  // namespace farshore
