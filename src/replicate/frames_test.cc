#include "replicate/frames.h"

#include <gtest/gtest.h>

#include "replicate/limits.h"

namespace farshore {
namespace {

ByteView body_of(const Bytes& frame) { return ByteView(frame).subspan(1); }

// Broken if an agent and an appliance of one version did not understand each other.
TEST(Frames, EveryFrameComesBackAsItWas) {
    HelloFrame hello;
    hello.item.raw[3] = 7;
    hello.instance.raw[0] = 9;
    hello.first_available = {42};
    auto h = decode_hello(body_of(encode(hello)));
    ASSERT_TRUE(h);
    EXPECT_EQ(h->item, hello.item);
    EXPECT_EQ(h->instance, hello.instance);
    EXPECT_EQ(h->first_available.v, 42u);

    auto w = decode_welcome(body_of(encode(WelcomeFrame{{5}, {3}, 100})));
    ASSERT_TRUE(w);
    EXPECT_EQ(w->next.v, 5u);
    EXPECT_EQ(w->stored.v, 3u);
    auto a = decode_ack(body_of(encode(AckFrame{{9}, {8}, 7})));
    ASSERT_TRUE(a);
    EXPECT_EQ(a->received.v, 9u);
    EXPECT_EQ(a->window_bytes, 7u);
    auto s = decode_sync(body_of(encode_sync({3, "{}"})));
    ASSERT_TRUE(s);
    EXPECT_EQ(s->document, "{}");
    auto e = decode_enrol(body_of(encode(EnrolFrame{"token", "pem"})));
    ASSERT_TRUE(e);
    EXPECT_EQ(e->token, "token");
    auto d = decode_enrolled(body_of(encode(EnrolledFrame{"chain"})));
    ASSERT_TRUE(d);
    EXPECT_EQ(d->chain_pem, "chain");
    const Error error = decode_error(body_of(encode_error(Error(Code::kFenced, "what", "remedy"))));
    EXPECT_EQ(error.code(), Code::kFenced);
    EXPECT_EQ(error.remedy(), "remedy");
}

// Broken if a truncated or lengthened frame were taken for a whole one.
TEST(Frames, EveryOtherLengthIsRefused) {
    for (const Bytes& whole : {encode(HelloFrame{}), encode(WelcomeFrame{}), encode(AckFrame{}),
                               encode(EnrolFrame{"t", "p"}), encode_sync({1, "doc"})}) {
        const auto decodes = [&](ByteView frame) {
            auto view = decode_frame(frame);
            if (!view) return false;
            switch (view->type) {
                case FrameType::kHello:
                    return decode_hello(view->body).has_value();
                case FrameType::kWelcome:
                    return decode_welcome(view->body).has_value();
                case FrameType::kAck:
                    return decode_ack(view->body).has_value();
                case FrameType::kEnrol:
                    return decode_enrol(view->body).has_value();
                default:
                    return decode_sync(view->body).has_value();
            }
        };
        EXPECT_TRUE(decodes(whole));
        for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(decodes(ByteView(whole).first(n)));
        Bytes longer = whole;
        longer.push_back(0);
        EXPECT_FALSE(decodes(longer));
    }
}

TEST(Frames, UnknownTypeAndVersionAreNamed) {
    EXPECT_EQ(decode_frame(Bytes{99}).error().code(), Code::kNewerVersion);
    EXPECT_EQ(decode_frame({}).error().code(), Code::kMalformed);
    HelloFrame hello;
    hello.version = 2;
    EXPECT_EQ(decode_hello(body_of(encode(hello))).error().code(), Code::kNewerVersion);
}

}  // namespace
}  // namespace farshore
