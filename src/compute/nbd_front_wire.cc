#include "compute/nbd_front_wire.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

namespace farshore {
namespace {

constexpr std::string_view kGreetingMagics = "NBDMAGICIHAVEOPT";
constexpr std::string_view kServerMagic = kGreetingMagics.substr(0, 8);
constexpr std::string_view kOptionMagic = kGreetingMagics.substr(8);
constexpr uint64_t kReplyMagic = 0x3e889045565a9;
constexpr uint16_t kFixedNewstyle = 1, kNoZeroes = 2;
constexpr uint16_t kOurFlags = kFixedNewstyle | kNoZeroes;
constexpr uint32_t kOptExportName = 1, kOptAbort = 2, kOptStartTls = 5;
constexpr uint32_t kRepAck = 1, kRepErrTlsRequired = (1u << 31) + 5;
constexpr size_t kClientFlagsBytes = 4;
static_assert(kGreetingMagics.size() + sizeof kOurFlags == kNbdGreetingBytes);

// The protocol's numbers are big-endian.
template <typename Number>
void put(Bytes& out, Number number) {
    for (size_t i = sizeof number; i-- > 0;) out.push_back(static_cast<uint8_t>(number >> (8 * i)));
}
uint32_t number_at(const uint8_t* from) {
    return uint32_t{from[0]} << 24 | uint32_t{from[1]} << 16 | uint32_t{from[2]} << 8 | from[3];
}

void put_reply(Bytes& out, uint32_t option, uint32_t reply) {
    put(out, kReplyMagic);
    put(out, option);
    put(out, reply);
    put(out, uint32_t{0});
}

}  // namespace

Bytes NbdFrontWire::greeting() {
    Bytes out = to_bytes(as_bytes(kGreetingMagics));
    put(out, kOurFlags);
    return out;
}

GateTalk::Answer NbdFrontWire::end(std::string why, Bytes send) {
    state_ = State::kDone;
    return {Next::kClose, std::move(send), std::move(why)};
}

bool NbdFrontWire::take_header(Answer& answer) {
    if (as_text(head_).substr(0, kOptionMagic.size()) != kOptionMagic) {
        answer = end("it does not speak NBD");
        return false;
    }
    option_ = number_at(&head_[8]);
    data_left_ = number_at(&head_[12]);
    if (option_ == kOptExportName)
        answer = end("it wants an export without TLS");
    else if (++options_ > kMaxClearOptions)
        answer = end(fmt::format("it sent {} options without TLS", options_));
    else if (data_left_ > kMaxClearOptionBytes)
        answer = end(fmt::format("option {} has {} bytes", option_, data_left_));
    else if (option_ == kOptStartTls && data_left_ != 0)
        answer = end("its STARTTLS has data");
    else
        return true;
    return false;
}

GateTalk::Answer NbdFrontWire::hear(ByteView bytes) {
    Answer answer;
    if (state_ == State::kDone) return end("it goes on after the end");
    for (;;) {
        if (state_ == State::kFlags || state_ == State::kHeader) {
            const size_t wanted = state_ == State::kFlags ? kClientFlagsBytes : head_.size();
            const size_t n = std::min(bytes.size(), wanted - head_bytes_);
            std::copy_n(bytes.begin(), n, head_.begin() + static_cast<ptrdiff_t>(head_bytes_));
            bytes = bytes.subspan(n);
            head_bytes_ += n;
            if (head_bytes_ < wanted) return answer;
            head_bytes_ = 0;
        }
        if (state_ == State::kFlags) {
            client_flags_ = number_at(head_.data());
            if ((client_flags_ & ~uint32_t{kOurFlags}) != 0 ||
                (client_flags_ & kFixedNewstyle) == 0)
                return end("it does not speak fixed newstyle NBD");
            state_ = State::kHeader;
            continue;
        }
        if (state_ == State::kHeader) {
            if (!take_header(answer)) return answer;
            state_ = State::kData;
        }
        const size_t skipped = std::min<size_t>(bytes.size(), data_left_);
        bytes = bytes.subspan(skipped);
        data_left_ -= static_cast<uint32_t>(skipped);
        if (data_left_ > 0) return answer;
        if (option_ == kOptStartTls) {
            if (!bytes.empty()) return end("bytes in the clear came behind its STARTTLS");
            state_ = State::kDone;
            put_reply(answer.send, option_, kRepAck);
            answer.next = Next::kStartTls;
            return answer;
        }
        if (option_ == kOptAbort) {
            put_reply(answer.send, option_, kRepAck);
            return end("it gave up before TLS", std::move(answer.send));
        }
        put_reply(answer.send, option_, kRepErrTlsRequired);
        state_ = State::kHeader;
    }
}

Result<Bytes> NbdFrontWire::answer_target(ByteView greeting) {
    if (greeting.size() != kNbdGreetingBytes ||
        as_text(greeting).substr(0, kServerMagic.size()) != kServerMagic)
        return fail(Code::kMalformed, "the server behind the front does not speak NBD");
    if (to_bytes(greeting) != NbdFrontWire::greeting())
        return fail(Code::kUnsupported,
                    "the server behind the front does not have the handshake flags that its "
                    "client was told");
    Bytes out;
    put(out, client_flags_);
    return out;
}

}  // namespace farshore
