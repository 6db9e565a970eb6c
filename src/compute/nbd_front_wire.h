// What an NBD server says and hears before TLS, and what the server behind it is told afterwards:
// fixed newstyle negotiation with forced TLS (the NBD protocol, "TLS support", FORCEDTLS mode). No
// sockets in here.
//
// A client gets a greeting, sends its flags and then options: STARTTLS is acknowledged, ABORT and
// EXPORT_NAME end the connection, any other is answered with ERR_TLS_REQD. After TLS it goes on
// with options, without a second greeting: so the greeting of the server behind is read here, and
// answered with the client's flags. Bounded: kMaxClearOptions options of kMaxClearOptionBytes.
// Whatever comes right behind STARTTLS was put there in the clear by who knows whom: refused.
#pragma once

#include <array>

#include "os/tls_gate.h"

namespace farshore {

inline constexpr size_t kMaxClearOptions = 16;
inline constexpr uint32_t kMaxClearOptionBytes = 8u << 10;
inline constexpr size_t kNbdGreetingBytes = 18;

class NbdFrontWire final : public GateTalk {
  public:
    Bytes greeting() override;
    Answer hear(ByteView bytes) override;
    size_t target_greeting_bytes() const override { return kNbdGreetingBytes; }
    // kMalformed (no NBD server), kUnsupported (its flags are not those that the client was told).
    Result<Bytes> answer_target(ByteView greeting) override;

    // Known once the answer was kStartTls.
    uint32_t client_flags() const { return client_flags_; }

  private:
    enum class State : uint8_t { kFlags, kHeader, kData, kDone };
    Answer end(std::string why, Bytes send = {});
    // The head of an option is in `head_`.
    bool take_header(Answer& answer);

    State state_ = State::kFlags;
    uint32_t client_flags_ = 0;
    std::array<uint8_t, 16> head_{};
    size_t head_bytes_ = 0;
    uint32_t option_ = 0;
    uint32_t data_left_ = 0;
    size_t options_ = 0;
};

}  // namespace farshore
