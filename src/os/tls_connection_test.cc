#include "os/tls_connection.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

#include "os/fd.h"
#include "os/frame.h"
#include "os/log.h"
#include "os/openssl.h"
#include "os/real.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;

// Values that one thread hands to the test.
template <typename T>
class Mailbox {
  public:
    void put(T value) {
        std::lock_guard lock(mutex_);
        values_.push_back(std::move(value));
        changed_.notify_all();
    }
    T take() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !values_.empty(); });
        T value = std::move(values_.front());
        values_.pop_front();
        return value;
    }
    bool empty() {
        std::lock_guard lock(mutex_);
        return values_.empty();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<T> values_;
};

// A connection with mailboxes for what it says.
struct End {
    ThreadExecutor* executor = nullptr;
    std::unique_ptr<Connection> connection;
    std::string peer_name;
    Mailbox<Bytes> frames;
    Mailbox<Error> closed;
    Mailbox<int> drained;

    void start() {
        peer_name = connection->peer_name();
        Connection::Handlers handlers;
        handlers.on_frame = [this](ByteView frame) { frames.put(to_bytes(frame)); };
        handlers.on_closed = [this](Error error) { closed.put(std::move(error)); };
        handlers.on_drained = [this] { drained.put(1); };
        connection->start(std::move(handlers));
    }
    void send(Bytes frame) {
        ASSERT_TRUE(executor->run_sync([&] { connection->send(std::move(frame)); }));
    }
    void close() {
        ASSERT_TRUE(executor->run_sync([&] { connection->close(); }));
    }
    void destroy() {
        ASSERT_TRUE(executor->run_sync([&] { connection.reset(); }));
    }
};

class TlsConnectionTest : public ::testing::Test {
  protected:
    TlsConnectionTest()
        : authority_(CertificateAuthority::create("ca", RealClock().now()).value()) {
        server_context_ = context(authority_, "server");
        client_context_ = context(authority_, "client");
    }
    ~TlsConnectionTest() override {
        (void)server_.run_sync([&] {
            listener_.reset();
            accepted_.clear();
        });
        (void)client_.run_sync([&] {
            dialer_.reset();
            dialled_.clear();
        });
        network_.reset();
    }

    static Credentials credentials(const CertificateAuthority& authority, const std::string& name) {
        IssueOptions options;
        options.common_name = name;
        options.now = RealClock().now();
        return authority.issue_with_key(options).value();
    }
    static std::shared_ptr<TlsContext> context(const CertificateAuthority& authority,
                                               const std::string& name) {
        return TlsContext::make(authority.certificate_pem(), credentials(authority, name)).value();
    }

    void listen(const TlsOptions& options = {}) {
        listener_ = TlsListener::listen(
                        *network_, server_context_, server_, "127.0.0.1:0", options,
                        [this](std::unique_ptr<Connection> connection) {
                            auto end = std::make_unique<End>();
                            end->executor = &server_;
                            end->connection = std::move(connection);
                            if (start_accepted_) end->start();
                            accepted_.push_back(std::move(end));
                            arrivals_.put(accepted_.back().get());
                        },
                        [this](const Error& error) { refused_.put(error); })
                        .value();
    }
    Result<End*> dial(std::shared_ptr<TlsContext> context, const TlsOptions& options = {},
                      std::string address = {}) {
        if (address.empty()) address = listener_->address();
        dialer_ = std::make_unique<TlsDialer>(*network_, std::move(context), options);
        Mailbox<Result<End*>> result;
        dialer_->dial(client_, address, [&](Result<std::unique_ptr<Connection>> connection) {
            if (!connection) return result.put(fail(connection.error()));
            auto end = std::make_unique<End>();
            end->executor = &client_;
            end->connection = std::move(*connection);
            end->start();
            dialled_.push_back(std::move(end));
            result.put(dialled_.back().get());
        });
        return result.take();
    }
    // A dialled and an accepted end.
    std::pair<End*, End*> connect(const TlsOptions& options = {}) {
        listen(options);
        End* dialled = dial(client_context_, options).value();
        return {dialled, arrivals_.take()};
    }
    UniqueFd connect_raw() const {
        UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(listener_->port());
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
        return fd;
    }
    // A client by hand, blocking, that need not follow our protocol.
    SslPtr connect_tls(const UniqueFd& fd, const std::string& name, int version = TLS1_3_VERSION) {
        raw_context_.reset(SSL_CTX_new(TLS_client_method()));
        SSL_CTX_set_max_proto_version(raw_context_.get(), version);
        const Credentials own = credentials(authority_, name);
        X509Ptr certificate = parse_certificate(own.certificate_pem).value();
        EvpKeyPtr key = parse_private_key(own.key_pem.reveal()).value();
        SSL_CTX_use_certificate(raw_context_.get(), certificate.get());
        SSL_CTX_use_PrivateKey(raw_context_.get(), key.get());
        SslPtr ssl(SSL_new(raw_context_.get()));
        SSL_set_fd(ssl.get(), fd.get());
        raw_connected_ = SSL_connect(ssl.get());
        return ssl;
    }

    CertificateAuthority authority_;
    std::shared_ptr<TlsContext> server_context_, client_context_;
    std::unique_ptr<TlsNetwork> network_ = std::make_unique<TlsNetwork>(2);
    bool start_accepted_ = true;
    Mailbox<End*> arrivals_;
    Mailbox<Error> refused_;
    std::vector<std::unique_ptr<End>> accepted_, dialled_;  // each on its executor
    SslCtxPtr raw_context_;
    int raw_connected_ = 0;
    std::unique_ptr<TlsListener> listener_;
    std::unique_ptr<TlsDialer> dialer_;
    ThreadExecutor server_{"server"}, client_{"client"};
};

Bytes pattern(size_t size, uint32_t seed) {
    Bytes bytes(size);
    for (size_t i = 0; i < size; ++i) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = static_cast<uint8_t>(seed >> 24);
    }
    return bytes;
}

TEST_F(TlsConnectionTest, FramesOfEverySizeArriveWholeAndInOrderBothWays) {
    auto [dialled, accepted] = connect();
    EXPECT_EQ(dialled->peer_name, "server");
    EXPECT_EQ(accepted->peer_name, "client");
    const auto seed = std::random_device()();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<size_t> sizes{0, 1, 4, 16379, 16380, 16381, 16384, 32768, 65535, kMaxFrameBytes, 0};
    for (int i = 0; i < 300; ++i) sizes.push_back(random() % (1u << (random() % 19)));
    for (size_t i = 0; i < sizes.size(); ++i) {
        dialled->send(pattern(sizes[i], static_cast<uint32_t>(i)));
        accepted->send(pattern(sizes[i] / 2, static_cast<uint32_t>(i + 7)));
    }
    for (size_t i = 0; i < sizes.size(); ++i) {
        ASSERT_EQ(accepted->frames.take(), pattern(sizes[i], static_cast<uint32_t>(i))) << i;
        ASSERT_EQ(dialled->frames.take(), pattern(sizes[i] / 2, static_cast<uint32_t>(i + 7))) << i;
    }
}

TEST_F(TlsConnectionTest, WhatWasQueuedBeforeCloseStillArrives) {
    auto [dialled, accepted] = connect();
    // The other direction has bytes under way as well, which nobody will read.
    for (int i = 0; i < 10; ++i) accepted->send(Bytes(1 << 20, 1));
    for (int i = 0; i < 10; ++i) dialled->send(pattern(1 << 20, static_cast<uint32_t>(i)));
    dialled->close();
    for (int i = 0; i < 10; ++i)
        ASSERT_EQ(accepted->frames.take(), pattern(1 << 20, static_cast<uint32_t>(i)));
    EXPECT_EQ(accepted->closed.take().code(), Code::kConnectionLost);
    EXPECT_EQ(dialled->closed.take().code(), Code::kCancelled);
    EXPECT_TRUE(accepted->closed.empty()) << "on_closed comes once";
}

TEST_F(TlsConnectionTest, DestroyingAnEndSendsWhatItHasAndCallsNothing) {
    auto [dialled, accepted] = connect();
    dialled->send(pattern(3 << 20, 1));
    dialled->destroy();
    EXPECT_EQ(accepted->frames.take(), pattern(3 << 20, 1));
    EXPECT_EQ(accepted->closed.take().code(), Code::kConnectionLost);
    EXPECT_TRUE(dialled->closed.empty());
}

TEST_F(TlsConnectionTest, AnEndMayBeDestroyedInsideItsOwnCallback) {
    listen();
    Mailbox<int> destroyed;
    std::unique_ptr<Connection> own;
    dialer_ = std::make_unique<TlsDialer>(*network_, client_context_);
    dialer_->dial(client_, listener_->address(), [&](Result<std::unique_ptr<Connection>> result) {
        own = std::move(result).value();
        Connection::Handlers handlers;
        handlers.on_frame = [&](ByteView) {
            own.reset();
            destroyed.put(1);
        };
        own->start(std::move(handlers));
    });
    End* second = arrivals_.take();
    for (int i = 0; i < 3; ++i) second->send(Bytes(10, 1));
    destroyed.take();
    EXPECT_EQ(second->closed.take().code(), Code::kConnectionLost);
    EXPECT_TRUE(destroyed.empty()) << "a frame was delivered to a connection that is destroyed";
}

TEST_F(TlsConnectionTest, AReceiverThatIsBusyHoldsTheSenderUpAndLosesNothing) {
    TlsOptions options;
    options.inbox_bytes = 1 << 20;
    auto [dialled, accepted] = connect(options);
    std::mutex busy;
    std::unique_lock hold(busy);
    Mailbox<int> entered;
    server_.post([&] {
        entered.put(1);
        std::lock_guard wait(busy);
    });
    entered.take();
    constexpr int kFrames = 64;
    for (int i = 0; i < kFrames; ++i) dialled->send(Bytes(1 << 20, static_cast<uint8_t>(i)));
    // More than the sockets and the inbox can take: most of it must still be queued here.
    size_t queued = 0;
    (void)client_.run_sync([&, end = dialled] { queued = end->connection->queued_bytes(); });
    EXPECT_GT(queued, 16u << 20);
    hold.unlock();
    for (int i = 0; i < kFrames; ++i)
        ASSERT_EQ(accepted->frames.take(), Bytes(1 << 20, static_cast<uint8_t>(i)));
    dialled->drained.take();
}

TEST_F(TlsConnectionTest, OnlyPeersOfOurAuthorityGetIn) {
    listen();
    auto foreign = CertificateAuthority::create("ca", RealClock().now()).value();
    // A server that we do not know.
    auto unknown = dial(context(foreign, "client"));
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code(), Code::kUnauthenticated);
    EXPECT_EQ(refused_.take().code(), Code::kUnauthenticated);
    // A client with a certificate that the server does not know, though it knows the server.
    auto pretender =
        TlsContext::make(authority_.certificate_pem(), credentials(foreign, "client")).value();
    if (auto end = dial(pretender)) {  // TLS 1.3: the client learns of it a moment later
        const Code code = (*end)->closed.take().code();
        EXPECT_TRUE(code == Code::kUnauthenticated || code == Code::kConnectionLost);
    }
    EXPECT_EQ(refused_.take().code(), Code::kUnauthenticated);
    // A client without a certificate.
    auto nobody = TlsContext::make(authority_.certificate_pem(), std::nullopt).value();
    if (auto end = dial(nobody)) {
        const Code code = (*end)->closed.take().code();
        EXPECT_TRUE(code == Code::kUnauthenticated || code == Code::kConnectionLost);
    }
    EXPECT_EQ(refused_.take().code(), Code::kUnauthenticated);
    EXPECT_TRUE(dial(client_context_));
    EXPECT_EQ(arrivals_.take()->peer_name, "client");
    EXPECT_TRUE(arrivals_.empty());
}

TEST_F(TlsConnectionTest, AnotherPartyOfTheAuthorityIsNotTheOneExpected) {
    listen();
    TlsOptions options;
    options.expected_peer_name = "vault";
    auto result = dial(client_context_, options);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), Code::kUnauthenticated);
    options.expected_peer_name = "server";
    EXPECT_TRUE(dial(client_context_, options));
}

// Broken if whoever has a certificate that is for clients could play the server.
TEST_F(TlsConnectionTest, AClientsCertificateIsNoServers) {
    const Credentials for_clients =
        authority_
            .issue_with_key(
                {.common_name = "compute:rack", .now = RealClock().now(), .client_only = true})
            .value();
    listen();
    ASSERT_TRUE(dial(TlsContext::make(authority_.certificate_pem(), for_clients).value()));
    EXPECT_EQ(arrivals_.take()->peer_name, "compute:rack");
    ASSERT_TRUE(server_context_->reload(authority_.certificate_pem(), for_clients));
    const auto fooled = dial(client_context_);
    ASSERT_FALSE(fooled);
    EXPECT_EQ(fooled.error().code(), Code::kUnauthenticated);
}

TEST_F(TlsConnectionTest, WithoutTheDemandAPeerWithoutCertificateHasNoNameAndLittleRoom) {
    TlsOptions options;
    options.require_client_certificate = false;
    listen(options);
    auto nobody = TlsContext::make(authority_.certificate_pem(), std::nullopt).value();
    End* dialled = dial(nobody).value();
    End* accepted = arrivals_.take();
    EXPECT_EQ(accepted->peer_name, "");
    EXPECT_EQ(dialled->peer_name, "server");
    dialled->send(pattern(options.unnamed_frame_bytes, 1));
    EXPECT_EQ(accepted->frames.take(), pattern(options.unnamed_frame_bytes, 1));
    dialled->send(Bytes(options.unnamed_frame_bytes + 1));
    EXPECT_EQ(accepted->closed.take().code(), Code::kTooLarge);
    // A foreign certificate is not the same as none.
    auto foreign = CertificateAuthority::create("ca", RealClock().now()).value();
    auto pretender =
        TlsContext::make(authority_.certificate_pem(), credentials(foreign, "client")).value();
    (void)dial(pretender);
    EXPECT_EQ(refused_.take().code(), Code::kUnauthenticated);
    EXPECT_TRUE(dial(client_context_));
    EXPECT_EQ(arrivals_.take()->peer_name, "client");
}

TEST_F(TlsConnectionTest, GarbageOnThePortIsANamedErrorAndNothingElse) {
    listen();
    for (const std::string& garbage :
         {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("NBDMAGICIHAVEOPT"),
          std::string(4096, '\xff'), std::string(4096, '\0')}) {
        UniqueFd fd = connect_raw();
        ASSERT_GT(::send(fd.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
        const Error error = refused_.take();
        EXPECT_EQ(error.code(), Code::kMalformed) << error.to_string();
        EXPECT_THAT(error.what(), HasSubstr("127.0.0.1:"));
    }
    connect_raw();  // comes and goes
    EXPECT_EQ(refused_.take().code(), Code::kConnectionLost);
    UniqueFd old = connect_raw();
    connect_tls(old, "client", TLS1_2_VERSION);
    EXPECT_NE(raw_connected_, 1);
    EXPECT_EQ(refused_.take().code(), Code::kUnsupported);
    EXPECT_TRUE(dial(client_context_));
}

TEST_F(TlsConnectionTest, RefusalsAreLoggedWhenNobodyAsksForThem) {
    Mailbox<std::string> lines;
    log::capture([&](log::Level, std::string_view line) { lines.put(std::string(line)); });
    listener_ = TlsListener::listen(*network_, server_context_, server_, "127.0.0.1:0", {},
                                    [](std::unique_ptr<Connection>) {})
                    .value();
    UniqueFd fd = connect_raw();
    ASSERT_EQ(::send(fd.get(), "hello\r\n", 7, MSG_NOSIGNAL), 7);
    EXPECT_THAT(lines.take(), HasSubstr("does not speak TLS"));
    log::capture({});
}

TEST_F(TlsConnectionTest, AFrameThatIsTooLongOrCutEndsTheConnectionByName) {
    listen();
    UniqueFd fd = connect_raw();
    SslPtr ssl = connect_tls(fd, "raw");
    ASSERT_EQ(raw_connected_, 1);
    End* accepted = arrivals_.take();
    EXPECT_EQ(accepted->peer_name, "raw");
    Bytes header;
    ByteWriter(header).u32(3);
    ByteWriter(header).bytes(as_bytes("abc"));
    ByteWriter(header).u32(kMaxFrameBytes + 1);
    for (uint8_t byte : header) ASSERT_EQ(SSL_write(ssl.get(), &byte, 1), 1);
    EXPECT_EQ(accepted->frames.take(), to_bytes(as_bytes("abc")));
    EXPECT_EQ(accepted->closed.take().code(), Code::kTooLarge);

    UniqueFd second_fd = connect_raw();
    SslPtr second = connect_tls(second_fd, "raw");
    accepted = arrivals_.take();
    const uint8_t cut[] = {100, 0, 0, 0, 1, 2, 3};
    ASSERT_EQ(SSL_write(second.get(), cut, sizeof cut), static_cast<int>(sizeof cut));
    second_fd.reset();
    EXPECT_EQ(accepted->closed.take().code(), Code::kConnectionLost);
    EXPECT_TRUE(accepted->frames.empty()) << "half a frame must not be delivered";
}

TEST_F(TlsConnectionTest, KeepAlivesAreSentAndAreNoFrames) {
    TlsOptions options;
    options.keepalive_us = 1'000;
    listen(options);
    UniqueFd fd = connect_raw();
    SslPtr ssl = connect_tls(fd, "raw");
    End* accepted = arrivals_.take();
    uint8_t bytes[12];
    for (size_t done = 0; done < sizeof bytes;) {
        const int n = SSL_read(ssl.get(), bytes + done, static_cast<int>(sizeof bytes - done));
        ASSERT_GT(n, 0);
        done += static_cast<size_t>(n);
    }
    for (uint8_t byte : bytes) EXPECT_EQ(byte, 0xff);
    ASSERT_EQ(SSL_write(ssl.get(), bytes, 8), 8);
    const uint8_t frame[] = {1, 0, 0, 0, 42};
    ASSERT_EQ(SSL_write(ssl.get(), frame, sizeof frame), static_cast<int>(sizeof frame));
    EXPECT_EQ(accepted->frames.take(), Bytes{42});
}

TEST_F(TlsConnectionTest, ASilentPeerIsNoticed) {
    TlsOptions options;
    options.idle_timeout_us = 20'000;
    listen(options);
    UniqueFd fd = connect_raw();
    SslPtr ssl = connect_tls(fd, "raw");
    EXPECT_EQ(arrivals_.take()->closed.take().code(), Code::kTimeout);
}

TEST_F(TlsConnectionTest, ClientsThatNeverFinishTheirHandshakeDoNotLockOthersOut) {
    TlsOptions options;
    options.handshake_timeout_us = 50'000;
    options.max_handshakes = 2;
    listen(options);
    std::vector<UniqueFd> silent;
    for (int i = 0; i < 6; ++i) silent.push_back(connect_raw());
    EXPECT_TRUE(dial(client_context_));
    EXPECT_EQ(arrivals_.take()->peer_name, "client");
    for (int i = 0; i < 6; ++i) EXPECT_EQ(refused_.take().code(), Code::kTimeout);
}

TEST_F(TlsConnectionTest, TheNumberOfConnectionsIsBounded) {
    TlsOptions options;
    options.max_connections = 1;
    listen(options);
    End* first = dial(client_context_).value();
    arrivals_.take();
    auto second = dial(client_context_);
    EXPECT_FALSE(second);
    EXPECT_EQ(refused_.take().code(), Code::kLimitReached);
    first->close();
    EXPECT_EQ(first->closed.take().code(), Code::kCancelled);
    // The place is free once both ends are through with it: at the latest then.
    for (;;) {
        if (dial(client_context_)) break;
        EXPECT_EQ(refused_.take().code(), Code::kLimitReached);
    }
}

TEST_F(TlsConnectionTest, DiallingTellsWhyItFailed) {
    listen();
    const std::string address = listener_->address();
    (void)server_.run_sync([&] { listener_.reset(); });
    const auto code_of = [&](const std::string& to) {
        TlsOptions options;
        options.handshake_timeout_us = 2'000'000;
        auto result = dial(client_context_, options, to);
        EXPECT_FALSE(result);
        return result ? Code::kInternal : result.error().code();
    };
    // The listener closes on its own thread: until then a dial may still be taken and dropped.
    for (;;) {
        auto result = dial(client_context_, {}, address);
        if (result) continue;
        EXPECT_EQ(result.error().code(), Code::kConnectionLost);
        if (result.error().error_number() == ECONNREFUSED) break;
    }
    EXPECT_EQ(code_of("nonsense"), Code::kInvalidArgument);
    EXPECT_EQ(code_of("host:99999"), Code::kInvalidArgument);
    EXPECT_EQ(code_of("::1:80"), Code::kInvalidArgument);
    EXPECT_EQ(parse_host_port("[::1]:80")->host, "::1");
}

TEST_F(TlsConnectionTest, AServerThatDoesNotAnswerTheHandshakeIsATimeout) {
    UniqueFd mute(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::bind(mute.get(), reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ASSERT_EQ(::listen(mute.get(), 5), 0);
    socklen_t length = sizeof at;
    ASSERT_EQ(::getsockname(mute.get(), reinterpret_cast<sockaddr*>(&at), &length), 0);
    TlsOptions options;
    options.handshake_timeout_us = 20'000;
    auto result = dial(client_context_, options, "127.0.0.1:" + std::to_string(ntohs(at.sin_port)));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), Code::kTimeout);
}

TEST_F(TlsConnectionTest, TwoListenersOnOnePortAreToldApart) {
    listen();
    auto second = TlsListener::listen(*network_, server_context_, server_, listener_->address(), {},
                                      [](std::unique_ptr<Connection>) {});
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), Code::kAlreadyExists);
}

TEST_F(TlsConnectionTest, ReloadedCertificatesCountForNewConnectionsOnly) {
    auto [dialled, accepted] = connect();
    auto next = CertificateAuthority::create("ca2", RealClock().now()).value();
    ASSERT_FALSE(server_context_->reload("garbage", std::nullopt));
    ASSERT_TRUE(server_context_->reload(next.certificate_pem(), credentials(next, "server-2")));
    EXPECT_FALSE(dial(client_context_));
    EXPECT_EQ(dial(context(next, "client-2")).value()->peer_name, "server-2");
    dialled->send(Bytes(5, 5));
    EXPECT_EQ(accepted->frames.take(), Bytes(5, 5));
}

TEST_F(TlsConnectionTest, TheEndOfTheNetworkClosesWhatIsOpen) {
    auto [dialled, accepted] = connect();
    network_.reset();
    // Each end is told by its own thread, or has seen the other one go just before.
    const auto is_end = ::testing::AnyOf(Code::kCancelled, Code::kConnectionLost);
    EXPECT_THAT(dialled->closed.take().code(), is_end);
    EXPECT_THAT(accepted->closed.take().code(), is_end);
    dialled->send(Bytes(10));  // harmless
}

}  // namespace
}  // namespace farshore
