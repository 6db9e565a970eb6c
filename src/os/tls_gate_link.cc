#include "os/tls_gate_link.h"

#include <fmt/core.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstring>

namespace farshore::gate {
namespace {

constexpr size_t kClearReadBytes = 4096;
// More than our own writes can make: only a client that asks for new keys over and over gets here.
constexpr size_t kMaxRecordBytes = 4 * kGateBufferBytes;
// A client whose machine is gone is noticed after about a minute.
constexpr int kKeepaliveIdleS = 30, kKeepaliveIntervalS = 10, kKeepaliveProbes = 3;

int records_read(BIO* bio, char* out, int size) {
    auto* records = static_cast<Records*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const size_t n = std::min(records->in_end - records->in_begin, static_cast<size_t>(size));
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    std::memcpy(out, records->in.get() + records->in_begin, n);
    records->in_begin += n;
    return static_cast<int>(n);
}

int records_write(BIO* bio, const char* data, int size) {
    auto* records = static_cast<Records*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (records->out.size() + static_cast<size_t>(size) > kMaxRecordBytes) return -1;
    // As bytes, not as char: copied at once and not one by one, a third of all time otherwise.
    const auto* bytes = reinterpret_cast<const uint8_t*>(data);
    records->out.insert(records->out.end(), bytes, bytes + size);
    return size;
}

long records_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO_METHOD* records_method() {
    static BIO_METHOD* method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "records");
        BIO_meth_set_read(made, records_read);
        BIO_meth_set_write(made, records_write);
        BIO_meth_set_ctrl(made, records_control);
        return made;
    }();
    return method;
}

void set_keepalive(tcp::socket& socket) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::keep_alive(true), ignored);
    const auto set = [&](int option, int value) {
        (void)::setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof value);
    };
    set(TCP_KEEPIDLE, kKeepaliveIdleS);
    set(TCP_KEEPINTVL, kKeepaliveIntervalS);
    set(TCP_KEEPCNT, kKeepaliveProbes);
}

std::string words_of(const error_code& error) {
    return error == asio::error::eof ? "it hung up" : error.message();
}

}  // namespace

Link::Link(tcp::socket client, const Owner& owner, const TlsGateOptions& options, SslPtr ssl,
           std::unique_ptr<GateTalk> talk)
    : client_(std::move(client)),
      target_(client_.get_executor()),
      timer_(client_.get_executor()),
      owner_(owner),
      options_(options),
      talk_(std::move(talk)),
      ssl_(std::move(ssl)) {
    error_code ignored;
    if (const auto peer = client_.remote_endpoint(ignored); !ignored)
        peer_ = fmt::format("{}:{}", peer.address().to_string(), peer.port());
}

Link::~Link() {
    if (state_ != State::kDead) owner_.ended(this);
}

void Link::set_timer(int milliseconds) {
    timer_.expires_after(std::chrono::milliseconds(milliseconds));
    timer_.async_wait([self = shared_from_this()](error_code error) {
        if (error) return;
        if (self->state_ == State::kLastWords || self->state_ == State::kOpen) return self->close();
        self->refuse(fmt::format("it took longer than {} ms", kGatePatienceMs));
    });
}

void Link::close() {
    if (state_ == State::kDead) return;
    state_ = State::kDead;
    error_code ignored;
    client_.close(ignored);
    target_.close(ignored);
    timer_.cancel();
    owner_.ended(this);
}

void Link::refuse(const std::string& why) {
    if (state_ == State::kDead || state_ == State::kLastWords) return;
    owner_.refused(peer_, why);
    close_after_last_words();
}

void Link::close_after_last_words() {
    if (state_ == State::kDead || state_ == State::kLastWords) return;
    const bool says_goodbye = state_ == State::kTarget || state_ == State::kOpen;
    state_ = State::kLastWords;
    error_code ignored;
    target_.close(ignored);
    if (says_goodbye) {
        ERR_clear_error();
        SSL_shutdown(ssl_.get());
        ERR_clear_error();
    }
    set_timer(kGateLastWordsMs);
    send_records();
}

// --- in the clear ------------------------------------------------------------------------------

void Link::start() {
    set_keepalive(client_);
    set_timer(kGatePatienceMs);
    said_ = talk_->greeting();
    asio::async_write(client_, asio::buffer(said_),
                      [self = shared_from_this()](error_code error, size_t) {
                          if (error) return self->close();
                          self->hear();
                      });
}

void Link::hear() {
    if (state_ != State::kTalk) return;
    said_.resize(kClearReadBytes);
    client_.async_read_some(asio::buffer(said_),
                            [self = shared_from_this()](error_code error, size_t bytes) {
                                if (self->state_ != State::kTalk) return;
                                if (error) return self->refuse(words_of(error));
                                self->heard(ByteView(self->said_).first(bytes));
                            });
}

void Link::heard(ByteView bytes) {
    GateTalk::Answer answer = talk_->hear(bytes);
    said_ = std::move(answer.send);
    const auto go_on = [this, next = answer.next, why = std::move(answer.why)] {
        if (state_ != State::kTalk) return;
        if (next == GateTalk::Next::kMore) return hear();
        if (next == GateTalk::Next::kStartTls) return begin_handshake();
        refuse(why);
    };
    if (said_.empty()) return go_on();
    asio::async_write(client_, asio::buffer(said_),
                      [self = shared_from_this(), go_on](error_code error, size_t) {
                          if (error) return self->close();
                          go_on();
                      });
}

// --- TLS ---------------------------------------------------------------------------------------

void Link::begin_handshake() {
    state_ = State::kHandshake;
    BIO* bio = ssl_ ? BIO_new(records_method()) : nullptr;
    if (bio == nullptr) return refuse(openssl_error(Code::kInternal, "set up TLS").what());
    BIO_set_data(bio, &records_);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_verify(ssl_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_set_accept_state(ssl_.get());
    records_.in = std::make_unique_for_overwrite<uint8_t[]>(kGateBufferBytes);
    read_client();
}

void Link::drive_handshake() {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1) {
        if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) {
            send_records();
            return read_client();
        }
        const long verified = SSL_get_verify_result(ssl_.get());
        std::string reasons = drain_openssl_errors();
        if (verified != X509_V_OK)
            reasons += fmt::format(" ({})", X509_verify_cert_error_string(verified));
        return refuse(fmt::format("TLS handshake: {}", reasons));
    }
    X509* certificate = SSL_get0_peer_certificate(ssl_.get());
    if (certificate == nullptr || SSL_get_verify_result(ssl_.get()) != X509_V_OK)
        return refuse("its certificate was not verified");
    const auto name = common_name_of(X509_get_subject_name(certificate));
    if (!name) return refuse(name.error().what());
    if (*name != options_.client_name)
        return refuse(fmt::format("it is '{}', not '{}'", *name, options_.client_name));
    state_ = State::kTarget;
    send_records();
    connect_target();
}

void Link::connect_target() {
    target_.async_connect(
        asio::local::stream_protocol::endpoint(options_.target_socket),
        [self = shared_from_this()](error_code error) {
            if (self->state_ != State::kTarget) return;
            if (error)
                return self->refuse(fmt::format("connect to {}: {}", self->options_.target_socket,
                                                words_of(error)));
            self->greet_target();
        });
}

void Link::greet_target() {
    said_.resize(talk_->target_greeting_bytes());
    asio::async_read(
        target_, asio::buffer(said_), [self = shared_from_this()](error_code error, size_t) {
            if (self->state_ != State::kTarget) return;
            const std::string& socket = self->options_.target_socket;
            if (error)
                return self->refuse(fmt::format("greeting of {}: {}", socket, words_of(error)));
            auto answer = self->talk_->answer_target(self->said_);
            if (!answer) return self->refuse(answer.error().what());
            self->said_ = std::move(*answer);
            asio::async_write(
                self->target_, asio::buffer(self->said_), [self](error_code failed, size_t) {
                    if (self->state_ != State::kTarget) return;
                    if (failed)
                        return self->refuse(fmt::format("answer the server: {}", words_of(failed)));
                    self->begin_moving();
                });
        });
}

// --- moving ------------------------------------------------------------------------------------

void Link::begin_moving() {
    state_ = State::kOpen;
    timer_.cancel();
    talk_.reset();
    said_ = {};
    up_.bytes = std::make_unique_for_overwrite<uint8_t[]>(kGateBufferBytes);
    down_.bytes = std::make_unique_for_overwrite<uint8_t[]>(kGateBufferBytes);
    // What the client has said behind its handshake is in records_ or in OpenSSL.
    decrypt();
    read_target();
}

void Link::read_client() {
    if (client_reading_ || (state_ != State::kHandshake && state_ != State::kOpen)) return;
    client_reading_ = true;
    client_.async_read_some(
        asio::buffer(records_.in.get(), kGateBufferBytes),
        [self = shared_from_this()](error_code error, size_t bytes) {
            self->client_reading_ = false;
            if (self->state_ == State::kLastWords && !self->client_writing_)
                return error ? self->close() : self->drop_what_comes();
            const bool open = self->state_ == State::kOpen;
            if (!open && self->state_ != State::kHandshake) return;
            if (error && open) return self->close();
            if (error) return self->refuse(fmt::format("TLS handshake: {}", words_of(error)));
            self->records_.in_begin = 0;
            self->records_.in_end = bytes;
            return open ? self->decrypt() : self->drive_handshake();
        });
}

void Link::decrypt() {
    if (state_ != State::kOpen) return;
    bool wants_more = false;
    while (!wants_more && up_.end < kGateBufferBytes) {
        ERR_clear_error();
        size_t n = 0;
        if (SSL_read_ex(ssl_.get(), up_.bytes.get() + up_.end, kGateBufferBytes - up_.end, &n) ==
            1) {
            up_.end += n;
            continue;
        }
        if (SSL_get_error(ssl_.get(), 0) != SSL_ERROR_WANT_READ) {
            ERR_clear_error();
            return close();
        }
        wants_more = true;
    }
    send_records();  // an answer to new keys
    write_target();
    if (wants_more) read_client();
}

void Link::write_target() {
    if (target_writing_ || up_.begin == up_.end || state_ != State::kOpen) return;
    target_writing_ = true;
    target_.async_write_some(asio::buffer(up_.bytes.get() + up_.begin, up_.end - up_.begin),
                             [self = shared_from_this()](error_code error, size_t bytes) {
                                 self->target_writing_ = false;
                                 if (self->state_ != State::kOpen) return;
                                 // It has ended, which its last words, still to be read, tell.
                                 if (error) return self->set_timer(kGateLastWordsMs);
                                 Plain& up = self->up_;
                                 up.begin += bytes;
                                 const bool was_full = up.end == kGateBufferBytes;
                                 if (up.begin == up.end) up.reset();
                                 if (was_full && up.end == 0) return self->decrypt();
                                 self->write_target();
                             });
}

void Link::read_target() {
    // One send is under way, one more may wait.
    if (target_reading_ || state_ != State::kOpen || !records_.out.empty()) return;
    target_reading_ = true;
    target_.async_read_some(
        asio::buffer(down_.bytes.get(), kGateBufferBytes),
        [self = shared_from_this()](error_code error, size_t bytes) {
            self->target_reading_ = false;
            if (self->state_ != State::kOpen) return;
            if (error) return self->close_after_last_words();
            for (size_t done = 0, n = 0; done < bytes; done += n) {  // n: a record
                ERR_clear_error();
                if (SSL_write_ex(self->ssl_.get(), self->down_.bytes.get() + done, bytes - done,
                                 &n) != 1) {
                    ERR_clear_error();
                    return self->close();
                }
            }
            self->send_records();
            self->read_target();
        });
}

void Link::send_records() {
    if (client_writing_ || state_ == State::kDead) return;
    if (records_.out.empty()) {
        if (state_ != State::kLastWords) return;
        error_code ignored;
        client_.shutdown(tcp::socket::shutdown_send, ignored);
        return drop_what_comes();
    }
    client_writing_ = true;
    sending_.clear();
    sending_.swap(records_.out);
    asio::async_write(client_, asio::buffer(sending_),
                      [self = shared_from_this()](error_code error, size_t) {
                          self->client_writing_ = false;
                          if (self->state_ == State::kDead) return;
                          if (error) return self->close();
                          self->send_records();
                          self->read_target();
                      });
}

// Closing with bytes unread would reset the connection, which may take our last words with it.
void Link::drop_what_comes() {
    if (client_reading_ || state_ != State::kLastWords) return;
    client_reading_ = true;
    client_.async_read_some(asio::buffer(dropped_),
                            [self = shared_from_this()](error_code error, size_t) {
                                self->client_reading_ = false;
                                return error ? self->close() : self->drop_what_comes();
                            });
}

}  // namespace farshore::gate
