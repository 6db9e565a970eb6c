#include <fcntl.h>
#include <fmt/core.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "os/http.h"
#include "os/http_stream.h"
#include "os/http_workers.h"
#include "os/log.h"
#include "os/openssl.h"
#include "os/real.h"
#include "os/tls_connection.h"

namespace farshore {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using UnixProtocol = asio::local::stream_protocol;

namespace {

std::shared_ptr<asio::ssl::context> wrap_context(SSL_CTX* context) {
    return std::make_shared<asio::ssl::context>(context);
}

Result<std::shared_ptr<asio::ssl::context>> make_context(const Credentials& credentials,
                                                         const std::string& client_authority_pem) {
    FS_TRY(check_credentials(credentials));
    SslCtxPtr context(SSL_CTX_new(TLS_server_method()));
    SSL_CTX* raw = context.get();
    if (raw == nullptr) return fail(openssl_error(Code::kInternal, "set up TLS"));
    SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
    SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    const BioPtr bio = bio_of(as_bytes(credentials.certificate_pem));
    const X509Ptr own(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    FS_ASSIGN(const EvpKeyPtr key, parse_private_key(credentials.key_pem.reveal()));
    if (!own || SSL_CTX_use_certificate(raw, own.get()) != 1 ||
        SSL_CTX_use_PrivateKey(raw, key.get()) != 1)
        return fail(openssl_error(Code::kWrongKey, "use the server's certificate"));
    while (X509* link = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
        if (SSL_CTX_add0_chain_cert(raw, link) != 1) X509_free(link);
    drain_openssl_errors();
    if (!client_authority_pem.empty()) {
        FS_ASSIGN(const X509Ptr authority, parse_certificate(client_authority_pem));
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(raw), authority.get()) != 1 ||
            SSL_CTX_add_client_CA(raw, authority.get()) != 1)
            return fail(openssl_error(Code::kInternal, "trust the authority"));
        SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
        SSL_CTX_set_verify_depth(raw, 2);
    }
    return wrap_context(context.release());
}

// A connection, as the server sees it. On the server's thread.
class Session {
  public:
    virtual ~Session() = default;
    // Ends at once when idle, after the answer otherwise.
    virtual void finish() = 0;
    virtual void abort() = 0;
    // Since when it waits for a request; 0: it does not.
    virtual uint64_t idle_turn() const = 0;
    virtual const std::string& address() const = 0;  // without the port; empty: not counted
};

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<Impl> {
    explicit Impl(const HttpServerOptions& given)
        : options(given),
          tcp_acceptor(io),
          unix_acceptor(io),
          retry(io),
          workers(given.workers, given.max_waiting) {}

    const HttpServerOptions options;
    Handler handler;
    std::string address;
    uint16_t port = 0;

    asio::io_context io{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
    std::mutex mutex;
    std::shared_ptr<asio::ssl::context> context;
    log::Limit refusals;  // anybody can connect

    // The server's thread.
    tcp::acceptor tcp_acceptor;
    UnixProtocol::acceptor unix_acceptor;
    asio::steady_timer retry;
    std::unordered_set<Session*> sessions;
    std::map<std::string, size_t> by_address;
    uint64_t turns = 0;  // how often a connection has begun to wait
    bool stopping = false;

    // stop() waits here.
    std::mutex end_mutex;
    std::condition_variable ended;
    size_t open_sessions = 0;
    std::mutex stop_mutex;
    bool stopped = false;

    HttpWorkers workers;
    std::thread thread;

    std::shared_ptr<asio::ssl::context> current_context() {
        std::lock_guard lock(mutex);
        return context;
    }
    void add(Session* session) {
        sessions.insert(session);
        if (!session->address().empty()) ++by_address[session->address()];
        std::lock_guard lock(end_mutex);
        ++open_sessions;
    }
    void remove(Session* session) {
        if (sessions.erase(session) == 0) return;
        if (const auto at = by_address.find(session->address());
            at != by_address.end() && --at->second == 0)
            by_address.erase(at);
        std::lock_guard lock(end_mutex);
        if (--open_sessions == 0) ended.notify_all();
    }
    bool has_room(const std::string& host) {
        if (const auto at = by_address.find(host);
            at != by_address.end() && at->second >= options.max_connections_per_address) {
            refusals.warn("http", "{}: there are {} connections of {} already: one is closed",
                          address, at->second, host);
            return false;
        }
        if (sessions.size() < options.max_connections) return true;
        Session* longest = nullptr;
        for (Session* one : sessions)
            if (one->idle_turn() != 0 &&
                (longest == nullptr || one->idle_turn() < longest->idle_turn()))
                longest = one;
        if (longest != nullptr) {
            longest->abort();
            return true;
        }
        refusals.warn("http", "{}: there are {} connections already: one is closed", address,
                      options.max_connections);
        return false;
    }
    template <typename Acceptor>
    void accept(Acceptor& acceptor);
    void begin(tcp::socket socket);
    void begin(UnixProtocol::socket socket);
    HttpResponse call(const HttpRequest& request);
};

namespace {

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
}

template <typename Stream>
struct IsTls : std::false_type {};
template <typename Next>
struct IsTls<beast::ssl_stream<Next>> : std::true_type {};

template <typename Stream>
class SessionOf final : public Session, public std::enable_shared_from_this<SessionOf<Stream>> {
  public:
    static constexpr bool kTls = IsTls<Stream>::value;

    template <typename... Args>
    SessionOf(std::shared_ptr<HttpServer::Impl> server, std::shared_ptr<asio::ssl::context> context,
              std::string peer_address, std::string host, Args&&... args)
        : server_(std::move(server)),
          context_(std::move(context)),
          stream_(std::forward<Args>(args)...),
          peer_address_(std::move(peer_address)),
          host_(std::move(host)) {}

    void begin() {
        server_->add(this);
        if constexpr (kTls) {
            lowest().expires_after(std::chrono::microseconds(options().handshake_timeout_us));
            stream_.async_handshake(
                asio::ssl::stream_base::server, [self = this->shared_from_this()](error_code code) {
                    if (code) {
                        self->server_->refusals.warn("http", "{}: refused {}: TLS handshake: {}",
                                                     self->server_->address, self->peer_address_,
                                                     code.message());
                        return self->end();
                    }
                    if (auto named = self->read_name(); !named) {
                        self->server_->refusals.warn("http", "{}: refused {}: {}",
                                                     self->server_->address, self->peer_address_,
                                                     named.error().to_string());
                        return self->end();
                    }
                    self->wait();
                });
        } else {
            wait();
        }
    }

    void finish() override {
        last_ = true;
        if (streamed_) streamed_->end();
        if (idle_) end();
    }
    void abort() override { end(); }
    uint64_t idle_turn() const override { return idle_ ? turn_ : 0; }
    const std::string& address() const override { return host_; }

  private:
    const HttpServerOptions& options() const { return server_->options; }
    auto& lowest() { return beast::get_lowest_layer(stream_); }

    Status read_name() {
        if constexpr (kTls) {
            SSL* ssl = stream_.native_handle();
            const X509* certificate = SSL_get0_peer_certificate(ssl);
            if (certificate == nullptr) return {};
            if (SSL_get_verify_result(ssl) != X509_V_OK)
                return fail(Code::kUnauthenticated, "the certificate was not verified");
            FS_ASSIGN(peer_name_, common_name_of(X509_get_subject_name(certificate)));
        }
        return {};
    }

    // For the next request: a long time for its first byte, a short one for all the others.
    void wait() {
        if (last_) return goodbye();
        idle_ = true;
        turn_ = ++server_->turns;
        if (buffer_.size() > 0) return read();
        lowest().expires_after(std::chrono::microseconds(options().idle_timeout_us));
        constexpr size_t kFirstBytes = 4096;
        stream_.async_read_some(buffer_.prepare(kFirstBytes),
                                [self = this->shared_from_this()](error_code code, size_t n) {
                                    if (code) return self->end();
                                    self->buffer_.commit(n);
                                    self->read();
                                });
    }

    void read() {
        idle_ = false;
        parser_.emplace();
        parser_->header_limit(static_cast<uint32_t>(options().max_header_bytes));
        parser_->body_limit(options().max_body_bytes);
        lowest().expires_after(std::chrono::microseconds(options().header_timeout_us));
        http::async_read_header(
            stream_, buffer_, *parser_,
            [self = this->shared_from_this()](error_code code, size_t) { self->on_header(code); });
    }

    void on_header(error_code code) {
        if (code) return refuse(code);
        lowest().expires_after(std::chrono::microseconds(options().request_timeout_us));
        if (lower(parser_->get()[http::field::expect]) == "100-continue") {
            static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
            return asio::async_write(stream_, asio::buffer(kContinue),
                                     [self = this->shared_from_this()](error_code failed, size_t) {
                                         if (failed) return self->end();
                                         self->read_body();
                                     });
        }
        read_body();
    }

    void read_body() {
        http::async_read(stream_, buffer_, *parser_,
                         [self = this->shared_from_this()](error_code code, size_t) {
                             if (code) return self->refuse(code);
                             self->handle();
                         });
    }

    void refuse(error_code code) {
        int status = 0;
        if (code == http::error::body_limit)
            status = 413;
        else if (code == http::error::header_limit)
            status = 431;
        else if (code.category() == make_error_code(http::error::bad_method).category() &&
                 code != http::error::end_of_stream && code != http::error::partial_message)
            status = 400;
        if (status == 0) return end();
        server_->refusals.warn("http", "{}: refused {}: {}", server_->address, peer_address_,
                               code.message());
        last_ = true;
        keep_alive_ = false;
        version_ = 11;
        head_ = false;
        answer(HttpResponse::text(code.message() + "\n", status));
    }

    void handle() {
        auto message = parser_->release();
        keep_alive_ = message.keep_alive();
        version_ = message.version();
        head_ = message.method() == http::verb::head;
        auto request = std::make_shared<HttpRequest>();
        request->received_us = RealClock().steady_us();
        request->method = std::string(message.method_string());
        request->target = std::string(message.target());
        for (const auto& field : message) {
            std::string& value = request->headers[lower(field.name_string())];
            if (!value.empty()) value += ", ";
            value += std::string(field.value());
        }
        request->body = std::move(message.body());
        request->peer_certificate_name = peer_name_;
        request->peer_address = peer_address_;
        if (auto split = split_target(*request); !split)
            return answer(HttpResponse::text(split.error().what() + "\n", 400));
        lowest().expires_never();  // the handler takes the time it needs
        const bool taken = server_->workers.post([self = this->shared_from_this(), request] {
            auto response = std::make_shared<HttpResponse>(self->server_->call(*request));
            asio::post(self->server_->io, [self, response] { self->answer(std::move(*response)); });
        });
        if (taken) return;
        server_->refusals.warn("http", "{}: {} requests wait already: one is refused",
                               server_->address, options().max_waiting);
        HttpResponse busy = HttpResponse::text("too many requests wait; try again\n", 503);
        busy.headers.emplace_back("Retry-After", "1");
        answer(std::move(busy));
    }

    void answer(HttpResponse response) {
        if (ended_) return;
        if (response.stream && !head_) return begin_stream(std::move(response));
        response_ = {};
        response_.version(version_ == 10 ? 10 : 11);
        response_.result(static_cast<unsigned>(response.status));
        for (const auto& [name, value] : response.headers)
            if (value.find_first_of("\r\n") == std::string::npos) response_.insert(name, value);
        const bool keep = keep_alive_ && !last_;
        response_.keep_alive(keep);
        const bool no_body = response.status == 204 || response.status == 304;
        if (!no_body) response_.content_length(response.body.size());
        if (!head_ && !no_body) response_.body() = std::move(response.body);
        lowest().expires_after(std::chrono::microseconds(options().request_timeout_us));
        http::async_write(stream_, response_,
                          [self = this->shared_from_this(), keep](error_code code, size_t) {
                              self->response_ = {};
                              if (code) return self->end();
                              if (!keep) return self->goodbye();
                              self->wait();
                          });
    }

    // ---- a streamed answer: its connection ends with it

    void begin_stream(HttpResponse response) {
        head_of_stream_ = {};
        head_of_stream_.version(version_ == 10 ? 10 : 11);
        head_of_stream_.result(static_cast<unsigned>(response.status));
        for (const auto& [name, value] : response.headers)
            if (value.find_first_of("\r\n") == std::string::npos)
                head_of_stream_.insert(name, value);
        head_of_stream_.keep_alive(false);
        if (version_ != 10) head_of_stream_.chunked(true);
        serializer_.emplace(head_of_stream_);
        std::weak_ptr<SessionOf> weak = this->weak_from_this();
        streamed_ = std::make_shared<QueuedStream>(options().max_stream_bytes,
                                                   [weak, impl = std::weak_ptr(server_)] {
                                                       const auto server = impl.lock();
                                                       if (!server) return;
                                                       asio::post(server->io, [weak] {
                                                           if (const auto self = weak.lock())
                                                               self->flush();
                                                       });
                                                   });
        writing_ = true;
        lowest().expires_after(std::chrono::microseconds(options().request_timeout_us));
        http::async_write_header(stream_, *serializer_,
                                 [self = this->shared_from_this(),
                                  begin = std::move(response.stream)](error_code code, size_t) {
                                     self->writing_ = false;
                                     if (code) return self->end();
                                     self->watch_reader();
                                     begin(self->streamed_);
                                     if (self->last_) self->streamed_->end();
                                     self->flush();
                                 });
    }

    // A reader says nothing; what comes is the end of its connection.
    void watch_reader() {
        lowest().expires_never();
        constexpr size_t kAnything = 512;
        stream_.async_read_some(buffer_.prepare(kAnything),
                                [self = this->shared_from_this()](error_code, size_t) {
                                    if (!self->goes_) self->end();
                                });
    }

    void flush() {
        if (ended_ || writing_ || goes_) return;
        if (streamed_->ended()) {
            server_->refusals.warn("http", "{}: the reader of a stream, {}, is too slow: dropped",
                                   server_->address, peer_address_);
            return end();
        }
        bool is_last = false;
        chunk_ = streamed_->take(is_last);
        const size_t bytes = chunk_.size();
        if (bytes == 0 && !is_last) return;
        writing_ = true;
        // One who takes nothing for that long is too slow, too.
        lowest().expires_after(std::chrono::microseconds(options().request_timeout_us));
        const auto then = [self = this->shared_from_this(), bytes](error_code code, size_t) {
            self->writing_ = false;
            self->streamed_->written(bytes);
            if (code) return self->end();
            self->flush();
        };
        if (bytes == 0) {
            goes_ = true;
            static constexpr std::string_view kEnd = "0\r\n\r\n";
            asio::async_write(stream_, asio::buffer(version_ == 10 ? std::string_view() : kEnd),
                              [self = this->shared_from_this()](error_code, size_t) {
                                  self->streamed_->close();
                                  self->end();
                              });
        } else if (version_ == 10) {
            asio::async_write(stream_, asio::buffer(chunk_), then);
        } else {
            asio::async_write(stream_, http::make_chunk(asio::buffer(chunk_)), then);
        }
    }

    void goodbye() {
        if constexpr (kTls) {
            constexpr auto kPatience = std::chrono::seconds(1);
            lowest().expires_after(kPatience);
            stream_.async_shutdown([self = this->shared_from_this()](error_code) { self->end(); });
        } else {
            error_code ignored;
            lowest().socket().shutdown(asio::socket_base::shutdown_send, ignored);
            end();
        }
    }

    void end() {
        if (ended_) return;
        ended_ = true;
        if (streamed_) streamed_->close();
        lowest().close();
        server_->remove(this);
    }

    const std::shared_ptr<HttpServer::Impl> server_;
    const std::shared_ptr<asio::ssl::context> context_;
    Stream stream_;
    beast::flat_buffer buffer_;
    std::optional<http::request_parser<http::string_body>> parser_;
    http::response<http::string_body> response_;
    const std::string peer_address_;
    const std::string host_;
    std::string peer_name_;
    uint64_t turn_ = 0;
    std::shared_ptr<QueuedStream> streamed_;  // once the answer is a stream
    http::response<http::empty_body> head_of_stream_;
    std::optional<http::response_serializer<http::empty_body>> serializer_;
    std::string chunk_;
    bool writing_ = false, goes_ = false;
    unsigned version_ = 11;
    bool keep_alive_ = false, head_ = false;
    bool idle_ = true, last_ = false, ended_ = false;
};

}  // namespace

void HttpServer::Impl::begin(tcp::socket socket) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto peer = socket.remote_endpoint(ignored);
    const std::string host = peer.address().to_string();
    if (!has_room(host)) return;
    const std::string peer_address = fmt::format("{}:{}", host, peer.port());
    if (options.plain_on_loopback) {
        std::make_shared<SessionOf<beast::tcp_stream>>(shared_from_this(), nullptr, peer_address,
                                                       host, std::move(socket))
            ->begin();
        return;
    }
    const auto tls = current_context();
    std::make_shared<SessionOf<beast::ssl_stream<beast::tcp_stream>>>(
        shared_from_this(), tls, peer_address, host, std::move(socket), *tls)
        ->begin();
}

void HttpServer::Impl::begin(UnixProtocol::socket socket) {
    if (!has_room({})) return;
    std::make_shared<SessionOf<beast::basic_stream<UnixProtocol>>>(
        shared_from_this(), nullptr, "unix", std::string(), std::move(socket))
        ->begin();
}

template <typename Acceptor>
void HttpServer::Impl::accept(Acceptor& acceptor) {
    acceptor.async_accept(
        [self = shared_from_this(), &acceptor](const error_code& code, auto socket) {
            if (self->stopping) return;
            if (!code) {
                ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
                self->begin(std::move(socket));
                return self->accept(acceptor);
            }
            // Out of descriptors: a pause, lest the thread spins.
            log::warn("http", "{}: accept: {}", self->address, code.message());
            self->retry.expires_after(std::chrono::milliseconds(100));
            self->retry.async_wait([self, &acceptor](const error_code& cancelled) {
                if (!cancelled && !self->stopping) self->accept(acceptor);
            });
        });
}

HttpResponse HttpServer::Impl::call(const HttpRequest& request) {
    try {
        return handler(request);
    } catch (const std::exception& thrown) {
        log::error("http", "{} {}: {}", request.method, request.path, thrown.what());
        return HttpResponse::text("internal error\n", 500);
    }
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options,
                                                      Handler handler) {
    constexpr std::string_view kUnix = "unix:";
    auto impl = std::make_shared<Impl>(options);
    impl->handler = std::move(handler);
    error_code code;
    const auto listen = [&](auto& acceptor, const auto& endpoint, bool reuse) {
        if (acceptor.open(endpoint.protocol(), code)) return;
        ::fcntl(acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
        if (reuse) acceptor.set_option(asio::socket_base::reuse_address(true), code);
        if (acceptor.bind(endpoint, code)) return;
        if (!reuse) ::chmod(options.address.c_str() + kUnix.size(), 0600);
        acceptor.listen(asio::socket_base::max_listen_connections, code);
    };
    if (options.address.starts_with(kUnix)) {
        impl->address = options.address.substr(kUnix.size());
        constexpr size_t kMaxPath = 107;
        if (impl->address.empty() || impl->address.size() > kMaxPath)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is no path for a socket: 1 to {} bytes", impl->address,
                                    kMaxPath));
        // A socket that nobody listens at is a left-over; one that answers is somebody's.
        UnixProtocol::socket probe(impl->io);
        if (!probe.connect(UnixProtocol::endpoint(impl->address), code))
            return fail(Code::kAlreadyExists,
                        fmt::format("somebody listens at '{}'", impl->address));
        struct stat info {};
        if (::lstat(impl->address.c_str(), &info) == 0 && S_ISSOCK(info.st_mode))
            ::unlink(impl->address.c_str());
        code.clear();
        listen(impl->unix_acceptor, UnixProtocol::endpoint(impl->address), false);
    } else {
        if (!options.credentials && !options.plain_on_loopback)
            return fail(Code::kInvalidArgument, "a server at a TCP port needs a certificate");
        if (options.credentials && !options.plain_on_loopback) {
            FS_ASSIGN(impl->context,
                      make_context(*options.credentials, options.client_authority_pem));
        }
        FS_ASSIGN(const HostPort parts, parse_host_port(options.address));
        tcp::resolver resolver(impl->io);
        const auto found =
            resolver.resolve(parts.host, std::to_string(parts.port), tcp::resolver::passive, code);
        if (code)
            return fail(Code::kUnavailable,
                        fmt::format("find '{}': {}", parts.host, code.message()));
        const auto endpoint = found.begin()->endpoint();
        if (options.plain_on_loopback && !endpoint.address().is_loopback())
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is no loopback address: without TLS everybody on the way "
                                    "could read along",
                                    options.address),
                        "listen on 127.0.0.1 or [::1]; a reader elsewhere comes through a proxy "
                        "with TLS on this machine");
        listen(impl->tcp_acceptor, endpoint, true);
        error_code ignored;
        impl->port = impl->tcp_acceptor.local_endpoint(ignored).port();
        impl->address = fmt::format(
            "{}:{}",
            parts.host.find(':') == std::string::npos ? parts.host : '[' + parts.host + ']',
            impl->port);
    }
    if (code == asio::error::address_in_use)
        return fail(Code::kAlreadyExists,
                    fmt::format("'{}' is in use by another program", options.address),
                    "end it, or listen at another port");
    if (code) return fail_errno(code.value(), fmt::format("listen at '{}'", options.address));
    asio::post(impl->io, [impl] {
        if (impl->unix_acceptor.is_open())
            impl->accept(impl->unix_acceptor);
        else
            impl->accept(impl->tcp_acceptor);
    });
    impl->thread = std::thread([raw = impl.get()] {
        pthread_setname_np(pthread_self(), "http-io");
        raw->io.run();
    });
    std::unique_ptr<HttpServer> server(new HttpServer);
    server->impl_ = std::move(impl);
    return server;
}

HttpServer::~HttpServer() { stop(); }

void HttpServer::stop(int64_t grace_us) {
    std::lock_guard stop_lock(impl_->stop_mutex);
    if (impl_->stopped) return;
    impl_->stopped = true;
    Impl& server = *impl_;
    asio::post(server.io, [impl = impl_] {
        impl->stopping = true;
        error_code ignored;
        impl->tcp_acceptor.close(ignored);
        impl->unix_acceptor.close(ignored);
        impl->retry.cancel();
        const std::unordered_set<Session*> sessions = impl->sessions;
        for (Session* session : sessions) session->finish();
    });
    {
        std::unique_lock lock(server.end_mutex);
        server.ended.wait_for(lock, std::chrono::microseconds(grace_us),
                              [&] { return server.open_sessions == 0; });
    }
    server.workers.stop();
    asio::post(server.io, [impl = impl_] {
        const std::unordered_set<Session*> sessions = impl->sessions;
        for (Session* session : sessions) session->abort();
        impl->work.reset();
    });
    server.thread.join();
    if (server.port == 0) ::unlink(server.address.c_str());
}

Status HttpServer::reload(const Credentials& credentials, const std::string& client_authority_pem) {
    FS_ASSIGN(auto context, make_context(credentials, client_authority_pem));
    std::lock_guard lock(impl_->mutex);
    impl_->context = std::move(context);
    return {};
}

uint16_t HttpServer::port() const { return impl_->port; }
const std::string& HttpServer::address() const { return impl_->address; }

}  // namespace farshore
