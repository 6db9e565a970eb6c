#include "os/tls_channel.h"

#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

namespace farshore::tls {
namespace {

constexpr size_t kTlsRecordBytes = 16u << 10;
// What one connection may move before the others of its thread get their turn.
constexpr size_t kTurnBytes = 4u << 20;
// What a small frame costs beside its bytes, so that a queue of them is bounded too.
constexpr size_t kFrameOverheadBytes = 64;

}  // namespace

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

}  // namespace farshore::tls
