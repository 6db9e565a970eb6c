// HTTP/1.1: a server for the management API (Beast) and a client (libcurl), both over TLS or over a
// unix socket. Requests and responses are whole, in memory, bounded; but for an answer that is a
// stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/secret.h"
#include "base/types.h"
#include "os/pki.h"

namespace farshore {

struct HttpRequest {
    std::string method;                          // upper case
    std::string target;                          // as sent: path and query
    std::string path;                            // percent-decoded
    std::map<std::string, std::string> query;    // percent-decoded; of equal names the last
    std::map<std::string, std::string> headers;  // lower-case names; equal names joined by ", "
    std::string body;
    // The common name of the client's certificate, verified against our authority; empty: none.
    std::string peer_certificate_name;
    std::string peer_address;  // "host:port"; "unix" for a unix socket
    int64_t received_us = 0;   // steady: when the server had all of it; 0: none did

    // Empty when there is none. `name` in lower case.
    const std::string& header(const std::string& name) const;
    // Since the server had all of it; none: none did.
    std::optional<int64_t> age_us() const;
    // What stands behind "Bearer " in the authorization header; empty: nothing.
    std::string bearer_token() const;
};

// The body of an answer that goes on until somebody ends it. Any thread may call; nothing blocks.
class HttpStream {
  public:
    virtual ~HttpStream() = default;
    // Sends them soon. False: the stream has ended: its reader is gone, or more than
    // HttpServerOptions::max_stream_bytes would wait for it.
    virtual bool send(std::string bytes) = 0;
    virtual size_t waiting_bytes() const = 0;
    // After what waits.
    virtual void end() = 0;
};

struct HttpResponse {
    int status = 200;
    // Names as they go out; from the client in lower case.
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    // Called once the header is on its way, on the server's thread: it must not block. Then the
    // body is what is sent through it, and `body` is not; no handler's thread is held meanwhile.
    // Not for HEAD. Of the server only.
    std::function<void(std::shared_ptr<HttpStream>)> stream;

    std::string header(std::string_view name) const;
    static HttpResponse json(std::string body, int status = 200);
    static HttpResponse text(std::string body, int status = 200);
};

struct HttpServerOptions {
    // "host:port" (port 0: any) or "unix:/path" (made with mode 0600, without TLS).
    std::string address = "127.0.0.1:0";
    // TLS 1.3; required for TCP, unless:
    std::optional<Credentials> credentials;
    bool plain_on_loopback = false;  // without TLS; kInvalidArgument at any other address
    // Client certificates of this authority are accepted, and never required. Empty: none are asked
    // for.
    std::string client_authority_pem;
    unsigned workers = 16;  // handlers at one time; long polls hold one each
    // Requests that wait for a worker; what is more is answered 503.
    size_t max_waiting = 256;
    // When there are as many, the one that has been idle for longest makes room; without one, the
    // new one is closed.
    size_t max_connections = 512;
    // From one address (not of a unix socket); what is more is closed.
    size_t max_connections_per_address = 256;
    size_t max_header_bytes = 32u << 10;
    size_t max_body_bytes = 16u << 20;
    size_t max_stream_bytes = 256u << 10;  // that wait for the reader of a stream
    int64_t handshake_timeout_us = 10'000'000;
    int64_t header_timeout_us = 10'000'000;   // from its first byte to its end
    int64_t request_timeout_us = 30'000'000;  // of the body; the same to take an answer
    int64_t idle_timeout_us = 75'000'000;     // between requests
};

// Listens from start() to stop(). Handlers run on the worker threads, several at a time, and may
// block. A handler that throws answers 500.
class HttpServer {
  public:
    using Handler = std::function<HttpResponse(const HttpRequest&)>;

    // kAlreadyExists when the address is in use; kInvalidArgument; errors of the certificates.
    static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options,
                                                     Handler handler);
    ~HttpServer();  // stop()

    // No new connections and requests; waits for the handlers that run, and at most `grace_us` for
    // their answers to be sent. Handlers that wait for something must be told by their owner.
    void stop(int64_t grace_us = 2'000'000);
    // For connections made from now on.
    Status reload(const Credentials& credentials, const std::string& client_authority_pem);

    uint16_t port() const;
    // "host:port" with the real port, or the path of the unix socket.
    const std::string& address() const;

    struct Impl;

  private:
    HttpServer() = default;
    std::shared_ptr<Impl> impl_;
};

struct HttpClientOptions {
    // Trusted authorities, PEM. Empty: those of the system.
    std::string authority_pem;
    std::optional<Credentials> credentials;
    Secret bearer_token;           // sent when not empty
    std::string unix_socket_path;  // connect there whatever the URL's host is
    std::string proxy;             // http://host:port; empty: none, whatever the environment says
    std::string proxy_user;        // who we are to it (basic authentication); empty: nobody
    Secret proxy_password;
    bool verify_host_name = true;
    int64_t connect_timeout_us = 10'000'000;
    int64_t timeout_us = 60'000'000;
    // So long under 1000 bytes a second, in either direction, is a kTimeout; 0: never.
    int64_t stall_timeout_us = 0;
    size_t max_body_bytes = 64u << 20;
};

struct HttpClientRequest {
    std::string method = "GET";
    std::string url;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    // Sent instead of `body` when not empty, without a copy; lives until request() returns.
    ByteView borrowed_body;
    int64_t timeout_us = 0;  // 0: the client's
    // Is sent once at most. Otherwise a request on a kept connection that turns out to have ended
    // is sent again on a new one, though the server may have seen it.
    bool once = false;
    // Gets the body of a 2xx answer as it comes, instead of HttpResponse::body; false ends the
    // request with kCancelled. Then max_body_bytes does not count, and timeout_us only when it is
    // given.
    std::function<bool(std::string_view)> on_data;
};

// Any thread, several at a time; connections are kept and used again.
class HttpClient {
  public:
    explicit HttpClient(HttpClientOptions options);
    ~HttpClient();

    // Any status is a response. An answer that is shorter than it says it is (Content-Length) is
    // kConnectionLost. kUnavailable (nobody there), kConnectionLost, kTimeout, kUnauthenticated
    // (certificates, the proxy's password), kForbidden (the proxy lets nobody there), kTooLarge,
    // kCancelled, kInvalidArgument (URL). After kConnectionLost and kTimeout the server may have
    // done what was asked. Errors name the URL without its query, which may hold a secret.
    Result<HttpResponse> request(const HttpClientRequest& request);
    // Requests under way end with kCancelled within a second, and so does every later one.
    void cancel();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// "%41+b" to "A+b"; kMalformed. In queries '+' is a space.
Result<std::string> percent_decode(std::string_view text, bool plus_is_space = false);
// All but letters, digits and "-._~".
std::string percent_encode(std::string_view text);
// "Tue, 15 Nov 1994 08:12:31 GMT" (RFC 9110 section 5.6.7, the one form that is sent today).
std::string to_http_date(TimePoint time);
// kMalformed.
Result<TimePoint> from_http_date(std::string_view text);
// Fills path and query from target. kMalformed.
Status split_target(HttpRequest& request);

}  // namespace farshore
