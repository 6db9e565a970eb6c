#include "compute/nbd_front_wire.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

using Next = GateTalk::Next;
using std::string_literals::operator""s;

constexpr uint32_t kStartTls = 5, kList = 3;

std::string word(uint32_t number) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(number >> shift);
    return text;
}
std::string option(uint32_t number, const std::string& data = {}) {
    return "IHAVEOPT" + word(number) + word(static_cast<uint32_t>(data.size())) + data;
}
std::string reply(uint32_t number, uint32_t type) {
    return "\x00\x03\xe8\x89\x04\x55\x65\xa9"s + word(number) + word(type) + word(0);
}
constexpr uint32_t kAck = 1, kTlsRequired = 0x80000005;

GateTalk::Answer hear(NbdFrontWire& wire, const std::string& text) {
    return wire.hear(as_bytes(text));
}

TEST(NbdFrontWire, GreetsAndStartsTls) {
    NbdFrontWire wire;
    EXPECT_EQ(to_text(wire.greeting()), "NBDMAGICIHAVEOPT\x00\x03"s);
    const auto answer = hear(wire, word(3) + option(kStartTls));
    EXPECT_EQ(answer.next, Next::kStartTls) << answer.why;
    EXPECT_EQ(to_text(answer.send), reply(kStartTls, kAck));
    EXPECT_EQ(wire.client_flags(), 3u);
    EXPECT_EQ(to_text(wire.answer_target(wire.greeting()).value()), word(3));
}

// Broken if what is said depended on how the network cuts it.
TEST(NbdFrontWire, BytesMayComeOneByOne) {
    NbdFrontWire wire;
    std::string said;
    Next next = Next::kMore;
    for (const char byte : word(1) + option(kList, "some data") + option(kStartTls)) {
        EXPECT_EQ(next, Next::kMore) << "TLS began before STARTTLS was there";
        const auto answer = hear(wire, std::string(1, byte));
        said += as_text(answer.send);
        next = answer.next;
    }
    EXPECT_EQ(next, Next::kStartTls);
    EXPECT_EQ(said, reply(kList, kTlsRequired) + reply(kStartTls, kAck));
    EXPECT_EQ(to_text(wire.answer_target(wire.greeting()).value()), word(1))
        << "the server behind would leave out zeroes that this client waits for";
}

// Broken if somebody on the way could put words into a client's mouth: they would count as said
// under TLS.
TEST(NbdFrontWire, NothingMayComeInTheClearBehindStartTls) {
    for (const std::string& more : {option(7, "export"), "x"s}) {
        NbdFrontWire wire;
        const auto answer = hear(wire, word(3) + option(kStartTls) + more);
        EXPECT_EQ(answer.next, Next::kClose);
        EXPECT_TRUE(answer.send.empty()) << "STARTTLS was acknowledged";
    }
    NbdFrontWire wire;
    (void)hear(wire, word(3) + option(kStartTls));
    EXPECT_EQ(hear(wire, "x").next, Next::kClose);
}

TEST(NbdFrontWire, NothingIsServedWithoutTls) {
    NbdFrontWire wire;
    const auto go = hear(wire, word(3) + option(7, "export"));
    EXPECT_EQ(go.next, Next::kMore);
    EXPECT_EQ(to_text(go.send), reply(7, kTlsRequired));
    const auto name = hear(wire, option(1, "export"));
    EXPECT_EQ(name.next, Next::kClose);
    EXPECT_TRUE(name.send.empty());

    NbdFrontWire other;
    const auto abort = hear(other, word(3) + option(2));
    EXPECT_EQ(abort.next, Next::kClose);
    EXPECT_EQ(to_text(abort.send), reply(2, kAck));
}

TEST(NbdFrontWire, RefusesWhatIsNotTheProtocol) {
    const auto next = [](const std::string& text) {
        NbdFrontWire wire;
        return hear(wire, text).next;
    };
    EXPECT_EQ(next(word(0)), Next::kClose) << "not fixed newstyle";
    EXPECT_EQ(next(word(2)), Next::kClose) << "not fixed newstyle";
    EXPECT_EQ(next(word(7)), Next::kClose) << "a flag that nobody knows";
    EXPECT_EQ(next("GET / HTTP/1.1\r\n\r\n"), Next::kClose);
    EXPECT_EQ(next(word(3) + "IHAVEOPX" + word(kStartTls) + word(0)), Next::kClose);
    EXPECT_EQ(next(word(3) + option(kStartTls, "data")), Next::kClose);
}

// Broken if a stranger could keep a connection for ever, or make us count for long.
TEST(NbdFrontWire, OptionsAreBounded) {
    NbdFrontWire wire;
    EXPECT_EQ(hear(wire, word(3)).next, Next::kMore);
    const std::string data(kMaxClearOptionBytes, 'x');
    for (size_t i = 0; i < kMaxClearOptions; ++i)
        EXPECT_EQ(hear(wire, option(kList, data)).next, Next::kMore);
    EXPECT_EQ(hear(wire, option(kList)).next, Next::kClose);
    NbdFrontWire other;
    EXPECT_EQ(hear(other, word(3) + "IHAVEOPT" + word(kList) + word(kMaxClearOptionBytes + 1)).next,
              Next::kClose);
}

// Broken if client and server could be of two minds about what was agreed.
TEST(NbdFrontWire, ServerBehindMustGreetAsTheFrontDid) {
    NbdFrontWire wire;
    (void)hear(wire, word(3) + option(kStartTls));
    const auto code = [&](const std::string& greeting) {
        return wire.answer_target(as_bytes(greeting)).error().code();
    };
    EXPECT_EQ(code("NBDMAGICIHAVEOPT\x00\x01"s), Code::kUnsupported);
    EXPECT_EQ(code("NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x03"s), Code::kUnsupported);
    EXPECT_EQ(code("SSH-2.0-OpenSSH_9.2"), Code::kMalformed);
    EXPECT_EQ(code("NBDMAGIC"), Code::kMalformed);
}

}  // namespace
}  // namespace farshore
