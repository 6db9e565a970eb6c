// A server with certificates of its own, and a client that speaks HTTP by hand. Included by tests
// only.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <memory>
#include <string>

#include "os/fd.h"
#include "os/http.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {

inline Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

class HttpTest : public ::testing::Test {
  protected:
    HttpTest() : authority_(CertificateAuthority::create("ca", RealClock().now()).value()) {
        options_.credentials = credentials("server");
        client_options_.authority_pem = authority_.certificate_pem();
    }
    Credentials credentials(const std::string& name) const {
        IssueOptions options;
        options.common_name = name;
        options.alternative_names = {"127.0.0.1"};
        options.now = RealClock().now();
        return authority_.issue_with_key(options).value();
    }
    void start(HttpServer::Handler handler) {
        auto server = HttpServer::start(options_, std::move(handler));
        ASSERT_TRUE(server) << server.error().to_string();
        server_ = std::move(*server);
    }
    std::string url(const std::string& target) const {
        return "https://" + server_->address() + target;
    }
    Result<HttpResponse> get(HttpClient& client, const std::string& target) const {
        HttpClientRequest request;
        request.url = url(target);
        return client.request(request);
    }

    CertificateAuthority authority_;
    HttpServerOptions options_;
    HttpClientOptions client_options_;
    std::unique_ptr<HttpServer> server_;
};

// What a handler sees, as text.
inline HttpResponse echo(const HttpRequest& request) {
    std::string text = request.method + " " + request.path;
    for (const auto& [name, value] : request.query) text += " " + name + "=" + value;
    text += "|" + request.bearer_token() + "|" + request.peer_certificate_name + "|" + request.body;
    HttpResponse response = HttpResponse::text(text, request.path == "/missing" ? 404 : 200);
    response.headers.emplace_back("X-Twice", request.header("x-twice"));
    return response;
}

// Speaks plain HTTP by hand at a unix socket: no TLS between the bytes and the parser.
class RawClient {
  public:
    explicit RawClient(const std::string& path)
        : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un to{};
        to.sun_family = AF_UNIX;
        std::copy(path.begin(), path.end(), to.sun_path);
        EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    }
    void send(std::string_view text) {
        while (!text.empty()) {
            const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
            if (n <= 0) return;
            text.remove_prefix(static_cast<size_t>(n));
        }
    }
    std::string read_to_end() {
        std::string all;
        char buffer[4096];
        for (ssize_t n = 0; (n = ::recv(fd_.get(), buffer, sizeof buffer, 0)) > 0;)
            all.append(buffer, static_cast<size_t>(n));
        return all;
    }

  private:
    UniqueFd fd_;
};

class HttpUnixTest : public HttpTest {
  protected:
    HttpUnixTest() {
        options_.address = "unix:" + (directory_ / "api.sock");
        options_.credentials.reset();
        options_.max_header_bytes = 4096;
        options_.max_body_bytes = 1000;
    }
    TestDirectory directory_;
};

}  // namespace farshore
