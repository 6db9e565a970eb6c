#include "os/tls_connection.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/connect.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <charconv>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "os/frame.h"
#include "os/log.h"
#include "os/openssl.h"

namespace farshore {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr size_t kTlsRecordBytes = 16u << 10;
// Read from the socket at once: fewer system calls than a record each.
constexpr size_t kReadAheadBytes = 256u << 10;
// What one connection may move before the others of its thread get their turn.
constexpr size_t kTurnBytes = 4u << 20;
// What a small frame costs beside its bytes, so that a queue of them is bounded too.
constexpr size_t kFrameOverheadBytes = 64;

int64_t steady_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

Error from_boost(const error_code& code, std::string what) {
    if (code.category() == boost::system::system_category())
        return Error::from_errno(code.value(), std::move(what));
    return Error(Code::kUnavailable, what + ": " + code.message());
}

// --- OpenSSL on our socket

// The socket under OpenSSL: reads a lot at once, and a peer that is gone raises no SIGPIPE.
struct Wire {
    int fd = -1;
    std::unique_ptr<uint8_t[]> buffer;
    size_t begin = 0, end = 0;
    bool at_end = false;
    int error_number = 0;
};

int wire_read(BIO* bio, char* out, int size) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (wire->begin == wire->end) {
        if (!wire->buffer)
            wire->buffer = std::make_unique_for_overwrite<uint8_t[]>(kReadAheadBytes);
        ssize_t n = 0;
        do {
            n = ::recv(wire->fd, wire->buffer.get(), kReadAheadBytes, 0);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            BIO_set_retry_read(bio);
            return -1;
        }
        if (n <= 0) {
            wire->at_end = n == 0;
            wire->error_number = n < 0 ? errno : 0;
            return n == 0 ? 0 : -1;
        }
        wire->begin = 0;
        wire->end = static_cast<size_t>(n);
    }
    const size_t n = std::min(wire->end - wire->begin, static_cast<size_t>(size));
    std::memcpy(out, wire->buffer.get() + wire->begin, n);
    wire->begin += n;
    return static_cast<int>(n);
}

int wire_write(BIO* bio, const char* data, int size) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    ssize_t n = 0;
    do {
        n = ::send(wire->fd, data, static_cast<size_t>(size), MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return static_cast<int>(n);
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        BIO_set_retry_write(bio);
    else
        wire->error_number = errno;
    return -1;
}

long wire_control(BIO* bio, int command, long, void*) {
    auto* wire = static_cast<Wire*>(BIO_get_data(bio));
    switch (command) {
        case BIO_CTRL_EOF:
            return wire->at_end ? 1 : 0;
        case BIO_CTRL_FLUSH:
            return 1;
        default:
            return 0;
    }
}

BIO_METHOD* wire_method() {
    static BIO_METHOD* method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
        BIO_meth_set_read(made, wire_read);
        BIO_meth_set_write(made, wire_write);
        BIO_meth_set_ctrl(made, wire_control);
        return made;
    }();
    return method;
}

Result<SslCtxPtr> make_ssl_context(const std::string& authority_pem,
                                   const std::optional<Credentials>& credentials) {
    SslCtxPtr context(SSL_CTX_new(TLS_method()));
    SSL_CTX* raw = context.get();
    if (raw == nullptr) return fail(openssl_error(Code::kInternal, "set up TLS"));
    SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(raw, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
    // No resumption: every connection shows its certificates again.
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(raw, 0);
    SSL_CTX_set_options(
        raw, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    FS_ASSIGN(const X509Ptr authority, parse_certificate(authority_pem));
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(raw), authority.get()) != 1 ||
        SSL_CTX_add_client_CA(raw, authority.get()) != 1)
        return fail(openssl_error(Code::kInternal, "trust the authority"));
    SSL_CTX_set_verify_depth(raw, 2);
    if (credentials) {
        FS_TRY(check_credentials(*credentials));
        const BioPtr bio = bio_of(as_bytes(credentials->certificate_pem));
        const X509Ptr own(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
        FS_ASSIGN(const EvpKeyPtr key, parse_private_key(credentials->key_pem.reveal()));
        if (!own || SSL_CTX_use_certificate(raw, own.get()) != 1 ||
            SSL_CTX_use_PrivateKey(raw, key.get()) != 1)
            return fail(openssl_error(Code::kWrongKey, "use our certificate"));
        while (X509* link = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
            if (SSL_CTX_add0_chain_cert(raw, link) != 1) X509_free(link);
        ERR_clear_error();  // the end of the text counts as an error
    }
    return context;
}

}  // namespace

struct TlsContext::Impl {
    std::mutex mutex;
    SslCtxPtr context;
    bool has_certificate = false;

    SslPtr make_ssl() {
        std::lock_guard lock(mutex);
        return SslPtr(SSL_new(context.get()));  // keeps its SSL_CTX alive
    }
};

TlsContext::TlsContext() : impl_(std::make_unique<Impl>()) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::make(
    const std::string& authority_pem, const std::optional<Credentials>& credentials) {
    std::shared_ptr<TlsContext> made(new TlsContext);
    FS_TRY(made->reload(authority_pem, credentials));
    return made;
}

Status TlsContext::reload(const std::string& authority_pem,
                          const std::optional<Credentials>& credentials) {
    FS_ASSIGN(SslCtxPtr context, make_ssl_context(authority_pem, credentials));
    std::lock_guard lock(impl_->mutex);
    impl_->context = std::move(context);
    impl_->has_certificate = credentials.has_value();
    return {};
}

// --- threads

namespace {

class Channel;

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

}  // namespace

struct TlsNetwork::Impl {
    std::vector<std::shared_ptr<Loop>> loops;
    std::atomic<size_t> next{0};
    const std::shared_ptr<Loop>& pick() { return loops[next++ % loops.size()]; }
};

namespace {

// --- one connection

// Counts one of a bounded number for as long as it lives.
class Slot {
  public:
    explicit Slot(std::shared_ptr<std::atomic<size_t>> counter) : counter_(std::move(counter)) {
        ++*counter_;
    }
    ~Slot() { --*counter_; }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

  private:
    std::shared_ptr<std::atomic<size_t>> counter_;
};

// A connection's socket, TLS and queues. Its user (TlsConnection) is on the executor, all else on
// the loop's thread; what both touch is under `mutex_` or atomic.
class Channel : public std::enable_shared_from_this<Channel> {
  public:
    Channel(std::shared_ptr<Loop> loop, tcp::socket socket, const TlsOptions& options)
        : loop_(std::move(loop)),
          socket_(std::move(socket)),
          timer_(loop_->io),
          options_(options) {}
    ~Channel() = default;

    // -- loop's thread

    tcp::socket& socket() { return socket_; }
    const std::string& peer_name() const { return peer_name_; }
    const std::string& peer_address() const { return peer_address_; }
    void keep(std::shared_ptr<Slot> slot) { slot_ = std::move(slot); }

    // Calls back once, on the loop's thread, unless the whole network ends.
    void handshake(TlsContext::Impl& context, bool is_server, int64_t deadline_us,
                   std::function<void(Status)> done);
    void give_up(Error error) { end(std::move(error)); }
    // The network ends.
    void shut();

    // -- user's side, on its executor

    void attach(Executor& executor) {
        std::lock_guard lock(mutex_);
        executor_ = &executor;
    }
    void start(Connection::Handlers handlers);
    void send(Bytes frame);
    size_t queued_bytes() const { return queued_bytes_; }
    void close(bool tell);
    void release() {
        close(false);
        handlers_.reset();
    }

  private:
    enum class State : uint8_t { kNew, kHandshake, kOpen, kFlushing, kDraining, kDead };

    void arm_read();
    void arm_write();
    void arm_timer(int64_t at_us);
    void on_timer();
    void on_ready();
    void drive_handshake();
    Status finish_handshake();
    void pump();
    bool read_some(size_t& budget);
    bool write_some(size_t& budget);
    void begin_linger();
    void end(Error error);
    void abandon_socket();
    Error tls_error(int ssl_error, std::string_view doing);
    // With mutex_ held.
    void wake_user();
    void deliver();
    template <void (Channel::*method)()>
    void post_to_loop() {
        loop_->post([self = shared_from_this()] { (self.get()->*method)(); });
    }

    const std::shared_ptr<Loop> loop_;  // first: outlives what lives on its io_context
    tcp::socket socket_;
    asio::steady_timer timer_;
    const TlsOptions options_;
    std::string peer_name_;
    std::string peer_address_;
    bool is_server_ = false;

    // The loop's thread.
    Wire wire_;
    SslPtr ssl_;
    State state_ = State::kNew;
    bool read_armed_ = false, write_armed_ = false;
    bool reading_ = false;
    bool turn_posted_ = false;
    bool write_blocked_ = false;  // a started record must be finished before anything else
    bool read_wants_write_ = false;
    std::function<void(Status)> handshake_done_;
    int64_t deadline_us_ = 0;  // of handshake or linger
    int64_t last_heard_us_ = 0, last_sent_us_ = 0;
    FrameReader reader_;
    std::deque<Bytes> sending_;
    size_t sent_of_front_ = 0;  // header and body bytes of sending_.front() that are in records
    Bytes staged_;              // small frames and the starts of large ones, up to one record
    size_t staged_done_ = 0;
    std::shared_ptr<Slot> slot_;

    std::atomic<size_t> queued_bytes_{0};

    mutable std::mutex mutex_;
    Executor* executor_ = nullptr;
    std::deque<FrameBuffer> inbox_;
    size_t inbox_bytes_ = 0;
    bool read_paused_ = false;
    bool deliver_posted_ = false;
    bool started_ = false;
    bool drained_ = false;
    std::deque<Bytes> outbox_;
    bool send_posted_ = false;
    bool above_mark_ = false;
    bool user_closed_ = false;
    std::optional<Error> closed_;
    bool closed_told_ = false;
    std::vector<FrameBuffer> spare_;

    // The executor.
    std::shared_ptr<Connection::Handlers> handlers_;
};

void Channel::handshake(TlsContext::Impl& context, bool is_server, int64_t deadline_us,
                        std::function<void(Status)> done) {
    is_server_ = is_server;
    state_ = State::kHandshake;
    handshake_done_ = std::move(done);
    deadline_us_ = deadline_us;
    loop_->channels.insert(this);
    error_code ignored;
    socket_.non_blocking(true, ignored);
    socket_.native_non_blocking(true, ignored);
    socket_.set_option(tcp::no_delay(true), ignored);
    if (const auto peer = socket_.remote_endpoint(ignored); !ignored)
        peer_address_ = fmt::format("{}:{}", peer.address().to_string(), peer.port());
    ssl_ = context.make_ssl();
    BIO* bio = BIO_new(wire_method());
    if (!ssl_ || bio == nullptr) {
        BIO_free(bio);
        return end(openssl_error(Code::kInternal, "set up TLS"));
    }
    wire_.fd = socket_.native_handle();
    BIO_set_data(bio, &wire_);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    int verify = SSL_VERIFY_PEER;
    if (is_server && options_.require_client_certificate) verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_set_verify(ssl_.get(), verify, nullptr);
    if (is_server)
        SSL_set_accept_state(ssl_.get());
    else
        SSL_set_connect_state(ssl_.get());
    arm_timer(deadline_us_);
    drive_handshake();
}

void Channel::drive_handshake() {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result == 1) {
        if (auto finished = finish_handshake(); !finished) return end(finished.error());
        state_ = State::kOpen;
        last_heard_us_ = last_sent_us_ = steady_us();
        timer_.cancel();
        arm_timer(0);
        std::exchange(handshake_done_, nullptr)({});
        return;
    }
    switch (const int ssl_error = SSL_get_error(ssl_.get(), result)) {
        case SSL_ERROR_WANT_READ:
            return arm_read();
        case SSL_ERROR_WANT_WRITE:
            return arm_write();
        default:
            return end(tls_error(ssl_error, "TLS handshake"));
    }
}

Status Channel::finish_handshake() {
    X509* certificate = SSL_get0_peer_certificate(ssl_.get());
    if (certificate == nullptr) {
        // Only a listener that does not insist gets here; the peer stays without a name.
        if (!is_server_ || options_.require_client_certificate)
            return fail(Code::kUnauthenticated, "the peer showed no certificate");
        reader_ = FrameReader(options_.unnamed_frame_bytes);
        return {};
    }
    if (SSL_get_verify_result(ssl_.get()) != X509_V_OK)
        return fail(Code::kUnauthenticated, "the peer's certificate was not verified");
    FS_ASSIGN(peer_name_, common_name_of(X509_get_subject_name(certificate)));
    if (!is_server_ && !options_.expected_peer_name.empty() &&
        peer_name_ != options_.expected_peer_name)
        return fail(Code::kUnauthenticated, fmt::format("{} is '{}', not '{}'", peer_address_,
                                                        peer_name_, options_.expected_peer_name));
    return {};
}

Error Channel::tls_error(int ssl_error, std::string_view doing) {
    const std::string what = fmt::format("{} with {}", doing, peer_address_);
    if (ssl_error == SSL_ERROR_ZERO_RETURN)
        return Error(Code::kConnectionLost, what + ": closed by the peer");
    if (wire_.error_number != 0) {
        ERR_clear_error();
        Error error = Error::from_errno(wire_.error_number, what);
        // Whatever the kernel calls it (ETIMEDOUT, EHOSTUNREACH, EIO): the connection is gone.
        return error.code() == Code::kTimeout ? error : Error(Code::kConnectionLost, error.what());
    }
    if (wire_.at_end) {
        ERR_clear_error();
        return Error(Code::kConnectionLost, what + ": ended by the peer");
    }
    const unsigned long packed = ERR_peek_error();
    const int reason = ERR_GET_LIB(packed) == ERR_LIB_SSL ? ERR_GET_REASON(packed) : 0;
    switch (reason) {
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST:
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_UNKNOWN_PROTOCOL:
        case SSL_R_BAD_RECORD_TYPE:
        case SSL_R_UNEXPECTED_MESSAGE:
            return openssl_error(Code::kMalformed, what + ": it does not speak TLS");
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        case SSL_R_NO_SHARED_CIPHER:
        case SSL_R_VERSION_TOO_LOW:
            return openssl_error(Code::kUnsupported, what + ": it does not speak TLS 1.3");
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
            ERR_clear_error();
            return Error(Code::kUnauthenticated,
                         what + ": its certificate is refused: " +
                             X509_verify_cert_error_string(SSL_get_verify_result(ssl_.get())));
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
            ERR_clear_error();
            return Error(Code::kUnauthenticated, what + ": it showed no certificate");
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
            return openssl_error(Code::kUnauthenticated, what + ": it refuses our certificate");
        default:
            return openssl_error(Code::kMalformed, what);
    }
}

void Channel::arm_read() {
    if (read_armed_ || state_ == State::kDead) return;
    read_armed_ = true;
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const error_code&) {
        self->read_armed_ = false;
        self->on_ready();
    });
}

void Channel::arm_write() {
    if (write_armed_ || state_ == State::kDead) return;
    write_armed_ = true;
    socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const error_code&) {
        self->write_armed_ = false;
        self->on_ready();
    });
}

void Channel::on_ready() {
    if (state_ == State::kHandshake)
        drive_handshake();
    else if (state_ != State::kDead && state_ != State::kNew)
        pump();
}

// 0: the next look at keep-alive and silence.
void Channel::arm_timer(int64_t at_us) {
    const int64_t now_us = steady_us();
    if (at_us == 0)
        at_us = now_us + std::max<int64_t>(
                             std::min(options_.keepalive_us, options_.idle_timeout_us) / 2, 1'000);
    timer_.expires_after(std::chrono::microseconds(std::max<int64_t>(at_us - now_us, 0)));
    timer_.async_wait([self = shared_from_this()](const error_code& code) {
        if (!code) self->on_timer();
    });
}

void Channel::on_timer() {
    const int64_t now_us = steady_us();
    switch (state_) {
        case State::kNew:
        case State::kDead:
            return;
        case State::kHandshake:
            return end(Error(Code::kTimeout,
                             fmt::format("TLS handshake with {} took too long", peer_address_)));
        case State::kFlushing:
        case State::kDraining:
            if (now_us >= deadline_us_) return end(Error(Code::kTimeout, "lingered too long"));
            return arm_timer(deadline_us_);
        case State::kOpen:
            break;
    }
    bool listening = reading_;
    {
        std::lock_guard lock(mutex_);
        listening = listening && !read_paused_;
    }
    if (!listening) {
        last_heard_us_ = now_us;  // what we do not read cannot be held against the peer
    } else if (now_us - last_heard_us_ >= options_.idle_timeout_us) {
        // The timer may come late, with bytes waiting: they count.
        size_t budget = kTurnBytes;
        if (!read_some(budget)) return;
        if (now_us - last_heard_us_ >= options_.idle_timeout_us)
            return end(
                Error(Code::kTimeout, fmt::format("nothing was heard from {} for {} ms",
                                                  peer_address_, options_.idle_timeout_us / 1000)));
    }
    if (now_us - last_sent_us_ >= options_.keepalive_us && sending_.empty() && staged_.empty()) {
        ByteWriter(staged_).u32(kKeepaliveLength);
        size_t budget = kTurnBytes;
        if (!write_some(budget)) return;
    }
    arm_timer(0);
}

void Channel::pump() {
    size_t budget = kTurnBytes;
    if (!read_some(budget)) return;
    budget = kTurnBytes;
    if (!write_some(budget)) return;
}

// False: the channel has ended.
bool Channel::read_some(size_t& budget) {
    if (!reading_) return true;
    read_wants_write_ = false;
    for (;;) {
        if (state_ == State::kOpen) {
            std::lock_guard lock(mutex_);
            if (inbox_bytes_ >= options_.inbox_bytes) {
                read_paused_ = true;
                return true;
            }
        }
        if (budget == 0) {
            if (!turn_posted_) {
                turn_posted_ = true;
                loop_->post([self = shared_from_this()] {
                    self->turn_posted_ = false;
                    self->on_ready();
                });
            }
            return true;
        }
        const MutableByteView space = reader_.space();
        ERR_clear_error();
        size_t n = 0;
        if (SSL_read_ex(ssl_.get(), space.data(), space.size(), &n) != 1) {
            switch (const int ssl_error = SSL_get_error(ssl_.get(), 0)) {
                case SSL_ERROR_WANT_READ:
                    arm_read();
                    return true;
                case SSL_ERROR_WANT_WRITE:
                    read_wants_write_ = true;
                    arm_write();
                    return true;
                default:
                    end(tls_error(ssl_error, "connection"));
                    return false;
            }
        }
        budget -= std::min(budget, n);
        last_heard_us_ = steady_us();
        const auto got = reader_.filled(n);
        if (!got) {
            end(got.error().with_context(fmt::format(
                "connection with {}", peer_name_.empty() ? peer_address_ : peer_name_)));
            return false;
        }
        if (*got != FrameReader::Got::kFrame) continue;
        FrameBuffer frame = reader_.take();
        if (state_ != State::kOpen) {  // nobody wants it any more
            reader_.recycle(std::move(frame));
            continue;
        }
        std::lock_guard lock(mutex_);
        if (user_closed_) continue;
        inbox_bytes_ += frame.size_bytes + kFrameOverheadBytes;
        inbox_.push_back(std::move(frame));
        wake_user();
        if (!spare_.empty()) {
            reader_.recycle(std::move(spare_.back()));
            spare_.pop_back();
        }
    }
}

// False: the channel has ended.
bool Channel::write_some(size_t& budget) {
    if (state_ == State::kDraining) return true;
    for (;;) {
        if (sending_.empty()) {
            std::lock_guard lock(mutex_);
            sending_.swap(outbox_);
        }
        // Fill a record from small frames and the starts of large ones. While a write is blocked
        // the same bytes must be offered again, and more may follow them only in `staged_`.
        const auto front_left = [&] {
            return sending_.front().size() + kFrameHeaderBytes - sent_of_front_;
        };
        const auto front_is_direct = [&] {
            return !sending_.empty() && sent_of_front_ >= kFrameHeaderBytes &&
                   front_left() >= kTlsRecordBytes;
        };
        while (!write_blocked_ && staged_.size() < kTlsRecordBytes && !sending_.empty() &&
               !(staged_.empty() && front_is_direct())) {
            const Bytes& frame = sending_.front();
            ByteWriter writer(staged_);
            if (sent_of_front_ == 0) {
                writer.u32(static_cast<uint32_t>(frame.size()));
                sent_of_front_ = kFrameHeaderBytes;
            }
            const size_t room = kTlsRecordBytes - std::min(staged_.size(), kTlsRecordBytes);
            const size_t n = std::min(room, front_left());
            writer.bytes(ByteView(frame).subspan(sent_of_front_ - kFrameHeaderBytes, n));
            sent_of_front_ += n;
            if (front_left() > 0) break;
            queued_bytes_ -= frame.size();
            sending_.pop_front();
            sent_of_front_ = 0;
        }
        const bool direct = staged_.empty();
        ByteView data;
        if (!direct)
            data = ByteView(staged_).subspan(staged_done_);
        else if (!sending_.empty())
            data = ByteView(sending_.front()).subspan(sent_of_front_ - kFrameHeaderBytes);
        if (data.empty()) break;  // all is sent
        if (budget == 0) {
            if (!turn_posted_) {
                turn_posted_ = true;
                loop_->post([self = shared_from_this()] {
                    self->turn_posted_ = false;
                    self->on_ready();
                });
            }
            break;
        }
        ERR_clear_error();
        size_t n = 0;
        if (SSL_write_ex(ssl_.get(), data.data(), data.size(), &n) != 1) {
            switch (const int ssl_error = SSL_get_error(ssl_.get(), 0)) {
                case SSL_ERROR_WANT_WRITE:
                    write_blocked_ = true;
                    arm_write();
                    break;
                case SSL_ERROR_WANT_READ:
                    write_blocked_ = true;
                    arm_read();
                    break;
                default:
                    end(tls_error(ssl_error, "connection"));
                    return false;
            }
            break;
        }
        write_blocked_ = false;
        budget -= std::min(budget, n);
        last_sent_us_ = steady_us();
        if (!direct) {
            staged_done_ += n;
            if (staged_done_ == staged_.size()) {
                staged_.clear();
                staged_done_ = 0;
            }
        } else {
            sent_of_front_ += n;
            if (front_left() == 0) {
                queued_bytes_ -= sending_.front().size();
                sending_.pop_front();
                sent_of_front_ = 0;
            }
        }
    }
    std::lock_guard lock(mutex_);
    if (above_mark_ && queued_bytes_ < options_.low_mark_bytes) {
        above_mark_ = false;
        drained_ = true;
        wake_user();
    }
    if (state_ == State::kFlushing && sending_.empty() && staged_.empty() && outbox_.empty()) {
        ERR_clear_error();
        SSL_shutdown(ssl_.get());
        ERR_clear_error();
        ::shutdown(socket_.native_handle(), SHUT_WR);
        // Read to the peer's end: closing with unread bytes would reset the connection, and could
        // take our last frames with it.
        state_ = State::kDraining;
        reading_ = true;
        post_to_loop<&Channel::on_ready>();
    }
    return true;
}

void Channel::begin_linger() {
    if (state_ == State::kHandshake || state_ == State::kNew)
        return end(Error(Code::kCancelled, "the connection was closed here"));
    if (state_ != State::kOpen) return;
    state_ = State::kFlushing;
    deadline_us_ = steady_us() + options_.linger_us;
    timer_.cancel();
    arm_timer(deadline_us_);
    reading_ = true;
    pump();
}

void Channel::abandon_socket() {
    state_ = State::kDead;
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
    loop_->channels.erase(this);
    slot_.reset();
}

void Channel::end(Error error) {
    if (state_ == State::kDead) return;
    const auto self = shared_from_this();
    const bool was_handshake = state_ == State::kHandshake;
    // An alert that says why is worth one try; OpenSSL has written it by itself on its own errors.
    if (state_ == State::kOpen && error.code() != Code::kConnectionLost) {
        ERR_clear_error();
        SSL_shutdown(ssl_.get());
    }
    ERR_clear_error();
    abandon_socket();
    sending_.clear();
    staged_.clear();
    {
        std::lock_guard lock(mutex_);
        outbox_.clear();
        queued_bytes_ = 0;
        if (!closed_) closed_ = error;
        wake_user();
    }
    if (was_handshake)
        if (auto done = std::exchange(handshake_done_, nullptr)) done(fail(std::move(error)));
}

void Channel::shut() {
    constexpr int64_t kLastWordsUs = 1'000'000;
    if (state_ == State::kFlushing || state_ == State::kDraining) {
        deadline_us_ = std::min(deadline_us_, steady_us() + kLastWordsUs);
        timer_.cancel();
        arm_timer(deadline_us_);
        return;
    }
    end(Error(Code::kCancelled, "the network is shut down"));
}

void Channel::wake_user() {
    if (executor_ == nullptr || deliver_posted_ || !started_) return;
    deliver_posted_ = true;
    executor_->post([self = shared_from_this()] { self->deliver(); });
}

void Channel::deliver() {
    constexpr size_t kFramesAtOnce = 64;
    for (size_t done = 0;; ++done) {
        const auto handlers = handlers_;  // a callback may destroy the connection
        if (!handlers) return;
        FrameBuffer frame;
        std::optional<Error> closed;
        bool drained = false, resume = false;
        {
            std::lock_guard lock(mutex_);
            if (executor_ == nullptr) return;
            if (std::exchange(drained_, false) && !closed_) {
                drained = true;
            } else if (!inbox_.empty()) {
                if (done >= kFramesAtOnce) {
                    executor_->post([self = shared_from_this()] { self->deliver(); });
                    return;
                }
                frame = std::move(inbox_.front());
                inbox_.pop_front();
                inbox_bytes_ -= frame.size_bytes + kFrameOverheadBytes;
                if (read_paused_ && inbox_bytes_ <= options_.inbox_bytes / 2) {
                    read_paused_ = false;
                    resume = true;
                }
            } else {
                deliver_posted_ = false;
                if (!closed_ || closed_told_) return;
                closed_told_ = true;
                closed = *closed_;
            }
        }
        if (closed) {
            if (handlers->on_closed) handlers->on_closed(std::move(*closed));
            return;
        }
        if (drained) {
            if (handlers->on_drained) handlers->on_drained();
            continue;
        }
        if (resume) post_to_loop<&Channel::on_ready>();
        if (handlers->on_frame) handlers->on_frame(frame.view());
        constexpr size_t kMaxSpare = 4;
        std::lock_guard lock(mutex_);
        if (spare_.size() < kMaxSpare && frame.capacity_bytes > kTlsRecordBytes)
            spare_.push_back(std::move(frame));
    }
}

void Channel::start(Connection::Handlers handlers) {
    FS_CHECK(handlers_ == nullptr);
    handlers_ = std::make_shared<Connection::Handlers>(std::move(handlers));
    {
        std::lock_guard lock(mutex_);
        started_ = true;
        if (closed_) wake_user();
    }
    loop_->post([self = shared_from_this()] {
        if (self->state_ != State::kOpen) return;
        self->reading_ = true;
        self->last_heard_us_ = steady_us();
        self->pump();
    });
}

void Channel::send(Bytes frame) {
    FS_CHECK(frame.size() <= kMaxFrameBytes);
    bool post = false;
    {
        std::lock_guard lock(mutex_);
        if (closed_ || user_closed_) return;
        queued_bytes_ += frame.size();
        if (queued_bytes_ >= options_.low_mark_bytes) above_mark_ = true;
        post = outbox_.empty();  // otherwise the loop has yet to come for the ones before
        outbox_.push_back(std::move(frame));
    }
    if (post) {
        loop_->post([self = shared_from_this()] {
            if (self->state_ != State::kOpen && self->state_ != State::kFlushing) return;
            if (self->write_armed_ && self->write_blocked_) return;
            size_t budget = kTurnBytes;
            (void)self->write_some(budget);
        });
    }
}

void Channel::close(bool tell) {
    {
        std::lock_guard lock(mutex_);
        if (!tell) executor_ = nullptr;
        if (user_closed_) return;
        user_closed_ = true;
        inbox_.clear();
        inbox_bytes_ = 0;
        spare_.clear();
        if (!closed_ || (tell && !closed_told_))
            closed_ = Error(Code::kCancelled, "the connection was closed here");
        if (tell) wake_user();
    }
    post_to_loop<&Channel::begin_linger>();
}

class TlsConnection final : public Connection {
  public:
    TlsConnection(std::shared_ptr<Channel> channel, Executor& executor)
        : channel_(std::move(channel)), peer_name_(channel_->peer_name()) {
        channel_->attach(executor);
    }
    ~TlsConnection() override { channel_->release(); }
    void start(Handlers handlers) override { channel_->start(std::move(handlers)); }
    void send(Bytes frame) override { channel_->send(std::move(frame)); }
    size_t queued_bytes() const override { return channel_->queued_bytes(); }
    void close() override { channel_->close(true); }
    const std::string& peer_name() const override { return peer_name_; }

  private:
    const std::shared_ptr<Channel> channel_;
    const std::string peer_name_;
};

// Posts to executors until it is shut; what was posted and has not run then does not run.
class Gate : public std::enable_shared_from_this<Gate> {
  public:
    void post(Executor& executor, Task task) {
        std::lock_guard lock(mutex_);
        if (!open_) return;
        executor.post([self = shared_from_this(), task = std::move(task)] {
            if (self->is_open()) task();
        });
    }
    void shut() {
        std::lock_guard lock(mutex_);
        open_ = false;
    }
    bool is_open() {
        std::lock_guard lock(mutex_);
        return open_;
    }

  private:
    std::mutex mutex_;
    bool open_ = true;
};

}  // namespace

TlsNetwork::TlsNetwork(unsigned threads) : impl_(std::make_shared<Impl>()) {
    for (unsigned i = 0; i < std::max(threads, 1u); ++i) {
        auto loop = std::make_shared<Loop>();
        loop->thread = std::thread([raw = loop.get(), i] {
            pthread_setname_np(pthread_self(), fmt::format("net-{}", i).c_str());
            raw->io.run();
        });
        impl_->loops.push_back(std::move(loop));
    }
}

TlsNetwork::~TlsNetwork() {
    for (const auto& loop : impl_->loops) {
        loop->post([raw = loop.get()] {
            const std::unordered_set<Channel*> channels = raw->channels;
            for (Channel* channel : channels) channel->shut();
            for (const auto& [of, close] : std::exchange(raw->closers, {})) close();
        });
        std::lock_guard lock(loop->mutex);
        loop->stopped = true;
        loop->work.reset();
    }
    for (const auto& loop : impl_->loops) loop->thread.join();
}

// --- listener

struct TlsListener::Impl : std::enable_shared_from_this<Impl> {
    Impl(std::shared_ptr<TlsNetwork::Impl> net, std::shared_ptr<Loop> own_loop, Executor& on)
        : network(std::move(net)),
          loop(std::move(own_loop)),
          executor(on),
          acceptor(loop->io),
          retry(loop->io) {}

    const std::shared_ptr<TlsNetwork::Impl> network;
    const std::shared_ptr<Loop> loop;
    std::shared_ptr<TlsContext> context;
    Executor& executor;
    TlsOptions options;
    OnAccept on_accept;
    OnRefused on_refused;
    const std::shared_ptr<Gate> gate = std::make_shared<Gate>();
    tcp::acceptor acceptor;
    asio::steady_timer retry;
    std::string address;
    uint16_t port = 0;
    std::shared_ptr<std::atomic<size_t>> connections = std::make_shared<std::atomic<size_t>>(0);
    // The loop's thread.
    size_t handshakes = 0;
    bool accepting = false;
    bool closed = false;

    void refuse(const Error& error) {
        gate->post(executor, [self = shared_from_this(), error] {
            if (self->on_refused)
                self->on_refused(error);
            else
                log::warn("network", "{}: refused: {}", self->address, error.to_string());
        });
    }

    void accept() {
        if (accepting || closed || handshakes >= options.max_handshakes) return;
        accepting = true;
        const std::shared_ptr<Loop> target = network->pick();
        acceptor.async_accept(target->io, [self = shared_from_this(), target](
                                              const error_code& code, tcp::socket socket) {
            self->accepting = false;
            if (self->closed) return;
            if (code) return self->accept_failed(code);
            self->take(target, std::move(socket));
            self->accept();
        });
    }

    void accept_failed(const error_code& code) {
        // Out of descriptors or memory: others may free some. A pause, lest the loop spins.
        constexpr auto kPause = std::chrono::milliseconds(100);
        if (code != asio::error::connection_aborted)
            refuse(Error(Code::kLimitReached, "accept a connection: " + code.message()));
        retry.expires_after(kPause);
        retry.async_wait([self = shared_from_this()](const error_code& cancelled) {
            if (!cancelled) self->accept();
        });
    }

    void take(const std::shared_ptr<Loop>& target, tcp::socket socket) {
        if (*connections >= options.max_connections) {
            refuse(Error(Code::kLimitReached,
                         fmt::format("there are {} connections already", options.max_connections)));
            return;  // the socket closes itself
        }
        ++handshakes;
        auto channel = std::make_shared<Channel>(target, std::move(socket), options);
        channel->keep(std::make_shared<Slot>(connections));
        // On its own thread from here on.
        target->post([self = shared_from_this(), channel] {
            const int64_t deadline_us = steady_us() + self->options.handshake_timeout_us;
            channel->handshake(self->context->impl(), true, deadline_us,
                               [self, channel](Status done) { self->finished(channel, done); });
        });
    }

    void finished(const std::shared_ptr<Channel>& channel, const Status& done) {
        loop->post([self = shared_from_this()] {
            --self->handshakes;
            self->accept();
        });
        if (!done) return refuse(done.error());
        // In a shared pointer because tasks are copied; destroyed, and so closed, if it never runs.
        auto connection = std::make_shared<std::unique_ptr<Connection>>(
            std::make_unique<TlsConnection>(channel, executor));
        gate->post(executor, [self = shared_from_this(), connection] {
            self->on_accept(std::move(*connection));
        });
    }

    void close() {
        const auto self = shared_from_this();
        closed = true;
        loop->closers.erase(this);
        error_code ignored;
        acceptor.close(ignored);
        retry.cancel();
    }
};

Result<HostPort> parse_host_port(const std::string& address) {
    const Error bad(Code::kInvalidArgument, fmt::format("'{}' is not an address", address),
                    "write host:port, or [v6-address]:port");
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos) return fail(bad);
    HostPort parts;
    parts.host = address.substr(0, colon);
    if (parts.host.size() >= 2 && parts.host.front() == '[' && parts.host.back() == ']')
        parts.host = parts.host.substr(1, parts.host.size() - 2);
    else if (parts.host.find(':') != std::string::npos)
        return fail(bad);
    const char* end = address.data() + address.size();
    const auto parsed = std::from_chars(address.data() + colon + 1, end, parts.port);
    if (parsed.ec != std::errc() || parsed.ptr != end || parts.host.empty()) return fail(bad);
    return parts;
}

Result<std::unique_ptr<TlsListener>> TlsListener::listen(TlsNetwork& network,
                                                         std::shared_ptr<TlsContext> context,
                                                         Executor& executor,
                                                         const std::string& address,
                                                         const TlsOptions& options,
                                                         OnAccept on_accept, OnRefused on_refused) {
    if (!context->impl().has_certificate)
        return fail(Code::kInvalidArgument, "a listener needs a certificate");
    FS_ASSIGN(const HostPort parts, parse_host_port(address));
    auto impl = std::make_shared<Impl>(network.impl(), network.impl()->loops[0], executor);
    error_code code;
    tcp::resolver resolver(impl->loop->io);
    const auto found =
        resolver.resolve(parts.host, std::to_string(parts.port), tcp::resolver::passive, code);
    if (code) return fail(from_boost(code, fmt::format("find '{}'", parts.host)));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    const auto listen_at = [&] {
        if (impl->acceptor.open(endpoint.protocol(), code)) return;
        ::fcntl(impl->acceptor.native_handle(), F_SETFD, FD_CLOEXEC);
        impl->acceptor.set_option(asio::socket_base::reuse_address(true), code);
        if (impl->acceptor.bind(endpoint, code)) return;
        impl->acceptor.listen(asio::socket_base::max_listen_connections, code);
    };
    listen_at();
    if (code == asio::error::address_in_use)
        return fail(Code::kAlreadyExists, fmt::format("'{}' is in use by another program", address),
                    "end it, or listen at another port");
    if (code) return fail(from_boost(code, fmt::format("listen at '{}'", address)));
    impl->context = std::move(context);
    impl->options = options;
    impl->on_accept = std::move(on_accept);
    impl->on_refused = std::move(on_refused);
    impl->port = impl->acceptor.local_endpoint(code).port();
    impl->address = fmt::format(
        "{}:{}", parts.host.find(':') == std::string::npos ? parts.host : '[' + parts.host + ']',
        impl->port);
    impl->loop->post([impl] {
        impl->loop->closers.emplace(impl.get(), [impl] { impl->close(); });
        impl->accept();
    });
    std::unique_ptr<TlsListener> listener(new TlsListener);
    listener->impl_ = std::move(impl);
    return listener;
}

TlsListener::~TlsListener() {
    if (!impl_) return;
    impl_->gate->shut();
    impl_->loop->post([impl = impl_] { impl->close(); });
}

uint16_t TlsListener::port() const { return impl_->port; }
const std::string& TlsListener::address() const { return impl_->address; }

// --- dialler

struct TlsDialer::Impl {
    std::shared_ptr<TlsNetwork::Impl> network;
    std::shared_ptr<TlsContext> context;
    TlsOptions options;
    std::shared_ptr<Gate> gate = std::make_shared<Gate>();
};

namespace {

using DialDone = std::function<void(Result<std::unique_ptr<Connection>>)>;

// One attempt, on its loop's thread.
struct Dial : std::enable_shared_from_this<Dial> {
    Dial(std::shared_ptr<TlsDialer::Impl> from, std::shared_ptr<Loop> on, Executor& to)
        : dialer(std::move(from)),
          loop(std::move(on)),
          executor(to),
          resolver(loop->io),
          timer(loop->io) {}

    const std::shared_ptr<TlsDialer::Impl> dialer;
    const std::shared_ptr<Loop> loop;
    Executor& executor;
    tcp::resolver resolver;
    asio::steady_timer timer;
    std::shared_ptr<Channel> channel;
    std::string address;
    HostPort parts;
    DialDone done;
    bool connected = false;
    bool ended = false;

    void begin() {
        const int64_t timeout_us = dialer->options.handshake_timeout_us;
        const int64_t deadline_us = steady_us() + timeout_us;
        channel = std::make_shared<Channel>(loop, tcp::socket(loop->io), dialer->options);
        timer.expires_after(std::chrono::microseconds(timeout_us));
        timer.async_wait([self = shared_from_this()](const error_code& cancelled) {
            if (!cancelled)
                self->stop(
                    Error(Code::kTimeout, fmt::format("'{}' does not answer", self->address)));
        });
        loop->closers.emplace(this, [self = shared_from_this()] {
            self->stop(Error(Code::kCancelled, "the network is shut down"));
        });
        resolver.async_resolve(
            parts.host, std::to_string(parts.port),
            [self = shared_from_this(), deadline_us](const error_code& code,
                                                     const tcp::resolver::results_type& found) {
                if (self->ended) return;
                if (code)
                    return self->end(
                        fail(Code::kUnavailable,
                             fmt::format("find '{}': {}", self->parts.host, code.message())));
                self->connect(found, deadline_us);
            });
    }

    void connect(const tcp::resolver::results_type& found, int64_t deadline_us) {
        asio::async_connect(
            channel->socket(), found,
            [self = shared_from_this(), deadline_us](const error_code& code, const tcp::endpoint&) {
                if (self->ended) return;
                if (code)
                    return self->end(
                        fail(from_boost(code, fmt::format("connect to '{}'", self->address))));
                self->timer.cancel();  // the channel has its own
                self->connected = true;
                ::fcntl(self->channel->socket().native_handle(), F_SETFD, FD_CLOEXEC);
                self->channel->handshake(
                    self->dialer->context->impl(), false, deadline_us, [self](Status shaken) {
                        if (!shaken) return self->end(fail(shaken.error()));
                        self->end(std::make_unique<TlsConnection>(self->channel, self->executor));
                    });
            });
    }

    // Before the channel has taken over.
    void stop(Error error) {
        if (ended || connected) return;
        resolver.cancel();
        error_code ignored;
        channel->socket().close(ignored);
        end(fail(std::move(error)));
    }

    void end(Result<std::unique_ptr<Connection>> result) {
        if (ended) return;
        ended = true;
        const auto self = shared_from_this();
        loop->closers.erase(this);
        timer.cancel();
        auto held = std::make_shared<Result<std::unique_ptr<Connection>>>(std::move(result));
        dialer->gate->post(executor, [call = std::move(done), held] { call(std::move(*held)); });
        channel.reset();
    }
};

}  // namespace

TlsDialer::TlsDialer(TlsNetwork& network, std::shared_ptr<TlsContext> context, TlsOptions options)
    : impl_(std::make_shared<Impl>()) {
    impl_->network = network.impl();
    impl_->context = std::move(context);
    impl_->options = std::move(options);
}

TlsDialer::~TlsDialer() { impl_->gate->shut(); }

void TlsDialer::dial(Executor& executor, const std::string& address,
                     std::function<void(Result<std::unique_ptr<Connection>>)> done) {
    auto parts = parse_host_port(address);
    if (!parts) {
        auto error = std::make_shared<Error>(parts.error());
        impl_->gate->post(executor, [done = std::move(done), error] { done(fail(*error)); });
        return;
    }
    const std::shared_ptr<Loop> loop = impl_->network->pick();
    auto attempt = std::make_shared<Dial>(impl_, loop, executor);
    attempt->address = address;
    attempt->parts = std::move(*parts);
    attempt->done = std::move(done);
    if (!loop->post([attempt] { attempt->begin(); }))
        impl_->gate->post(executor, [call = std::move(attempt->done)] {
            call(fail(Code::kCancelled, "the network is shut down"));
        });
}

}  // namespace farshore
