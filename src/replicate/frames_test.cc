#include "replicate/frames.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "record/record.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

ByteView body_of(const Bytes& frame) { return ByteView(frame).subspan(1); }

// Broken if an agent and an appliance of one version did not understand each other.
TEST(Frames, EveryFrameComesBackAsItWas) {
    HelloFrame hello;
    hello.item.raw[3] = 7;
    hello.instance.raw[0] = 9;
    hello.first_unstored = {42};
    auto h = decode_hello(body_of(encode(hello)));
    ASSERT_TRUE(h);
    EXPECT_EQ(h->item, hello.item);
    EXPECT_EQ(h->instance, hello.instance);
    EXPECT_EQ(h->first_unstored.v, 42u);

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

CompareFrame some_question() {
    CompareFrame frame;
    frame.request = 1ull << 63;
    frame.item.raw[15] = 4;
    frame.question.key.fill(0x11);
    frame.question.at_least = {77};
    frame.question.disk = kMaxDisks - 1;
    frame.question.offset_bytes = 5 * kSumBlockBytes;
    frame.question.length_bytes = 2 * kSumBlockBytes + 1;
    frame.question.sum.fill(0x22);
    return frame;
}

// Broken if what is compared, or what was found, changed on its way.
TEST(Frames, ComparisonsComeBackAsTheyWere) {
    const CompareFrame asked = some_question();
    auto c = decode_compare(body_of(encode(asked)));
    ASSERT_TRUE(c);
    EXPECT_EQ(c->request, asked.request);
    EXPECT_EQ(c->item, asked.item);
    EXPECT_EQ(c->question.key, asked.question.key);
    EXPECT_EQ(c->question.at_least.v, 77u);
    EXPECT_EQ(c->question.disk, asked.question.disk);
    EXPECT_EQ(c->question.offset_bytes, asked.question.offset_bytes);
    EXPECT_EQ(c->question.length_bytes, asked.question.length_bytes);
    EXPECT_EQ(c->question.sum, asked.question.sum);

    ComparedFrame answer;
    answer.request = 9;
    for (const CompareVerdict verdict :
         {CompareVerdict::kEqual, CompareVerdict::kNotYet, CompareVerdict::kNothing}) {
        answer.answer.verdict = verdict;
        auto a = decode_compared(body_of(encode(answer)));
        ASSERT_TRUE(a);
        EXPECT_EQ(a->answer.verdict, verdict);
        EXPECT_TRUE(a->answer.sums.empty());
    }
    answer.answer.verdict = CompareVerdict::kSums;
    answer.answer.unreadable = 2;
    for (size_t i = 0; i < kMaxCompareBlocks; ++i)
        answer.answer.sums.push_back(BlockSum{uint8_t(i), uint8_t(i >> 8)});
    auto a = decode_compared(body_of(encode(answer)));
    ASSERT_TRUE(a);
    EXPECT_EQ(a->request, 9u);
    EXPECT_EQ(a->answer.unreadable, 2u);
    EXPECT_EQ(a->answer.sums, answer.answer.sums);
}

// Broken if what a source is to become changed on its way, or a peer could ask or answer out of all
// bounds.
TEST(Frames, ReturnsComeBackAsTheyWere) {
    ReturnFrame asked;
    asked.request = 1ull << 60;
    asked.item.raw[3] = 9;
    asked.question.kind = ReturnKind::kData;
    asked.question.from = {5};
    asked.question.to = {77};
    asked.question.disk = kMaxDisks - 1;
    asked.question.offset_bytes = 1ull << 45;
    asked.question.ranges = {{0, 1}, {5, kMaxReturnBytes - 1}};
    const auto question = decode_return(body_of(encode(asked)));
    ASSERT_TRUE(question) << question.error().to_string();
    EXPECT_EQ(encode(*question), encode(asked));
    EXPECT_EQ(question->question.ranges, asked.question.ranges);
    const auto refused = [&](const std::function<void(ReturnFrame&)>& change) {
        ReturnFrame frame = asked;
        change(frame);
        const auto decoded = decode_return(body_of(encode(frame)));
        return !decoded && decoded.error().code() == Code::kMalformed;
    };
    EXPECT_FALSE(refused([](ReturnFrame&) {}));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges[1].length_bytes += 1; }));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges[1].offset_bytes = 0; }));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges[1].length_bytes = 0; }));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges[1].offset_bytes = UINT64_MAX; }));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges.clear(); }));
    EXPECT_TRUE(refused([](auto& f) { f.question.ranges.resize(kMaxReturnRanges + 1); }));
    EXPECT_TRUE(refused([](auto& f) { f.question.kind = static_cast<ReturnKind>(3); }));
    EXPECT_TRUE(refused([](auto& f) { f.question.kind = ReturnKind::kChanged; }));
    EXPECT_TRUE(refused([](auto& f) {
        f.question.kind = ReturnKind::kChanged;
        f.question.ranges.clear();
        f.question.from = {78};
    }));

    ReturnedFrame answer;
    answer.request = 4;
    answer.answer.ranges = {{1, 2}, {3, 4}};
    answer.answer.next_offset_bytes = 7;
    answer.answer.data = Bytes(kMaxReturnBytes, 0x5a);
    const auto a = decode_returned(body_of(encode(answer)));
    ASSERT_TRUE(a) << a.error().to_string();
    EXPECT_EQ(encode(*a), encode(answer));
    answer.answer.data.push_back(0);
    EXPECT_EQ(decode_returned(body_of(encode(answer))).error().code(), Code::kMalformed);
    answer.answer.data.clear();
    answer.answer.verdict = static_cast<ReturnVerdict>(0);
    EXPECT_EQ(decode_returned(body_of(encode(answer))).error().code(), Code::kMalformed);
}

// Broken if a peer could ask or answer out of all bounds.
TEST(Frames, ComparisonsOutOfRangeAreRefused) {
    const auto code = [](const std::function<void(CompareFrame&)>& change) -> std::optional<Code> {
        CompareFrame frame = some_question();
        change(frame);
        auto decoded = decode_compare(body_of(encode(frame)));
        if (!decoded) return decoded.error().code();
        return std::nullopt;
    };
    EXPECT_EQ(code([](CompareFrame&) {}), std::nullopt);
    EXPECT_EQ(code([](auto& f) { f.question.length_bytes = kMaxCompareBytes; }), std::nullopt);
    EXPECT_EQ(code([](auto& f) { f.question.length_bytes = kMaxCompareBytes + 1; }),
              Code::kMalformed);
    EXPECT_EQ(code([](auto& f) { f.question.length_bytes = 0; }), Code::kMalformed);
    EXPECT_EQ(code([](auto& f) { f.question.offset_bytes += 512; }), Code::kMalformed);
    EXPECT_EQ(code([](auto& f) { f.question.offset_bytes = 1ull << 63; }), Code::kMalformed);
    EXPECT_EQ(code([](auto& f) { f.question.disk = kMaxDisks; }), Code::kMalformed);
    // A disk number that is in range only once it is cut to fewer bits.
    Bytes wide = encode(some_question());
    const size_t disk_at = 1 + 8 + 16 + 32 + 8;
    ASSERT_EQ(wide[disk_at], kMaxDisks - 1);
    wide[disk_at + 3] = 1;
    EXPECT_EQ(decode_compare(body_of(wide)).error().code(), Code::kMalformed);

    const Bytes good = encode(ComparedFrame{1, {CompareVerdict::kEqual, {}, 0}});
    for (const int verdict : {0, 5, 255}) {
        Bytes bad = good;
        bad[9] = static_cast<uint8_t>(verdict);
        EXPECT_EQ(decode_compared(body_of(bad)).error().code(), Code::kMalformed);
    }
    // More sums than there are blocks in any run, and a count without the sums.
    ComparedFrame many;
    many.answer.verdict = CompareVerdict::kSums;
    many.answer.sums.resize(kMaxCompareBlocks + 1);
    EXPECT_EQ(decode_compared(body_of(encode(many))).error().code(), Code::kMalformed);
    Bytes counted = good;
    counted[14] = 200;
    EXPECT_FALSE(decode_compared(body_of(counted)));
    counted[17] = 200;
    EXPECT_EQ(decode_compared(body_of(counted)).error().code(), Code::kMalformed);
}

// Broken if a truncated or lengthened frame were taken for a whole one.
TEST(Frames, EveryOtherLengthIsRefused) {
    for (const Bytes& whole :
         {encode(HelloFrame{}), encode(WelcomeFrame{}), encode(AckFrame{}),
          encode(EnrolFrame{"t", "p"}), encode_sync({1, "doc"}), encode(some_question()),
          encode(ComparedFrame{1, {CompareVerdict::kSums, {kZeroSum}, 0}})}) {
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
                case FrameType::kCompare:
                    return decode_compare(view->body).has_value();
                case FrameType::kCompared:
                    return decode_compared(view->body).has_value();
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
