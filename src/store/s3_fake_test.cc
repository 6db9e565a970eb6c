// S3Store against a server that lies, fails and cuts (s3_test_server.h).
#include <gtest/gtest.h>

#include <set>

#include "store/retrying_store.h"
#include "store/s3_store.h"
#include "store/s3_test_server.h"
#include "store/store_maker.h"

namespace farshore {
namespace {

using Reply = S3TestServer::Reply;

S3Keys keys() { return {"key", Secret(as_bytes("secret")), {}, "us-east-1"}; }

struct FakeHolder : StoreHolder {
    explicit FakeHolder(int timeout_s = 30, const std::string& location = "s3://bucket") {
        StoreSettings settings;
        settings.location = location;
        settings.endpoint = server.endpoint();
        settings.access_key_id = "key";
        settings.secret_access_key = Secret(as_bytes("secret"));
        settings.timeout_us = timeout_s * 1'000'000ll;
        auto made = S3Store::make(files, clock, settings, parse_store_location(location).value());
        FS_CHECK(made);
        s3 = std::move(*made);
    }
    ObjectStore& store() override { return *s3; }
    PosixFileSystem files;
    RealClock clock;
    S3TestServer server{keys()};
    std::unique_ptr<S3Store> s3;
};

// The contract, too: on a server that obeys conditions, and on one that does not (no versions: the
// race of writers cannot be decided there). Small pages make listings of many answers.
[[maybe_unused]] const bool kAdded = add_remote_store_makers(
    {{"s3_fake", [] { return std::make_unique<FakeHolder>(30, "s3://bucket/some/prefix"); }},
     {"s3_fake_small_pages",
      []() -> std::unique_ptr<StoreHolder> {
          auto holder = std::make_unique<FakeHolder>();
          holder->server.page_size = 2;
          return holder;
      }},
     {"s3_fake_without_conditions",
      []() -> std::unique_ptr<StoreHolder> {
          auto holder = std::make_unique<FakeHolder>();
          holder->server.obeys_conditions = false;
          return holder;
      },
      false}});

using Op = std::function<Code(ObjectStore&)>;
template <typename T>
Code code_of(const T& result) {
    return result ? Code::kInternal : result.error().code();
}
const std::vector<std::pair<const char*, Op>>& operations() {
    static const std::vector<std::pair<const char*, Op>> all = {
        {"put", [](ObjectStore& s) { return code_of(s.put("new", as_bytes("1"))); }},
        {"get", [](ObjectStore& s) { return code_of(s.get("there")); }},
        {"range", [](ObjectStore& s) { return code_of(s.get_range("there", 1, 2)); }},
        {"head", [](ObjectStore& s) { return code_of(s.head("there")); }},
        {"list", [](ObjectStore& s) { return code_of(s.list("", "", 10)); }},
        {"remove", [](ObjectStore& s) { return code_of(s.remove("there")); }}};
    return all;
}

// Broken if what can be cured by waiting were given up, what cannot be were tried for ever, or a
// failure were taken for "there is no such object".
TEST(S3Fake, EveryAnswerHasItsCodeAtEveryCall) {
    struct Case {
        Reply reply;
        Code code;
    };
    const std::vector<Case> cases = {
        {S3TestServer::error(403, "AccessDenied"), Code::kForbidden},
        {S3TestServer::error(403, "InvalidAccessKeyId"), Code::kForbidden},
        {S3TestServer::error(404, "NoSuchBucket"), Code::kForeignStore},
        {Reply{404, "<html>not here</html>", {}, {}, false}, Code::kUnsupported},
        {S3TestServer::error(409, "OperationAborted"), Code::kUnavailable},
        {S3TestServer::error(412, "PreconditionFailed"), Code::kAlreadyExists},
        {S3TestServer::error(429, "TooManyRequests"), Code::kThrottled},
        {S3TestServer::error(500, "InternalError"), Code::kUnavailable},
        {Reply{502, "<html>bad gateway</html>", {}, {}, false}, Code::kUnavailable},
        {S3TestServer::error(503, "SlowDown"), Code::kThrottled},
        {Reply{503, "", {}, {}, false}, Code::kThrottled},
        {S3TestServer::error(400, "RequestTimeout"), Code::kTimeout},
        {S3TestServer::error(301, "PermanentRedirect"), Code::kInvalidArgument}};
    FakeHolder holder;
    holder.server.set_object("there", "abc");
    // So that the conditional put is settled.
    ASSERT_TRUE(holder.store().put("first", as_bytes("1")));
    for (const Case& one : cases) {
        holder.server.set_fault([&](const HttpRequest&, const Reply&) { return one.reply; });
        for (const auto& [name, operation] : operations())
            EXPECT_EQ(code_name(operation(holder.store())), code_name(one.code))
                << name << " " << one.reply.status << " " << one.reply.body;
    }
    EXPECT_EQ(holder.server.objects().count("there"), 1u);
}

// Broken if part of an object, or of a listing, passed for the whole: the log would have holes.
TEST(S3Fake, WhatIsCutIsNeverTaken) {
    FakeHolder holder;
    const std::string data(100'000, 'x');
    holder.server.set_object("there", data);
    for (const size_t cut : {0u, 1u, 50u}) {
        holder.server.set_fault([&](const HttpRequest&, const Reply& right) {
            Reply reply = right;
            reply.cut_at = cut;
            return reply;
        });
        EXPECT_EQ(code_of(holder.store().get("there")), Code::kConnectionLost);
        EXPECT_EQ(code_of(holder.store().get_range("there", 5, 1000)), Code::kConnectionLost);
        EXPECT_EQ(code_of(holder.store().list("", "", 10)), Code::kConnectionLost);
    }
    // Whole to HTTP, not to XML.
    holder.server.set_fault([&](const HttpRequest&, const Reply& right) {
        Reply reply = right;
        reply.body.resize(reply.body.size() / 2);
        return reply;
    });
    EXPECT_EQ(code_of(holder.store().list("", "", 10)), Code::kConnectionLost);
    EXPECT_EQ(code_of(holder.store().get_range("there", 5, 1000)), Code::kConnectionLost)
        << "shorter than Content-Range says";
}

TEST(S3Fake, ServersThatSendTheWholeOrAnotherRange) {
    FakeHolder holder;
    holder.server.set_object("there", "0123456789");
    holder.server.set_fault([](const HttpRequest&, const Reply&) {
        return Reply{200, "0123456789", {}, {}, false};
    });
    EXPECT_EQ(to_text(*holder.store().get_range("there", 3, 4)), "3456");
    EXPECT_EQ(to_text(*holder.store().get_range("there", 8, 4)), "89");
    EXPECT_EQ(to_text(*holder.store().get_range("there", 20, 4)), "");
    holder.server.set_fault([](const HttpRequest&, const Reply& right) {
        Reply reply = right;
        reply.headers = {{"Content-Range", "bytes 0-3/10"}};
        return reply;
    });
    EXPECT_EQ(code_of(holder.store().get_range("there", 3, 4)), Code::kConnectionLost);
}

// Broken if a listing in another order, or one that never ends, were followed.
TEST(S3Fake, ListingsThatLieAreRefused) {
    FakeHolder holder;
    const auto listing = [&](const std::string& inside) {
        holder.server.set_fault([inside](const HttpRequest&, const Reply&) {
            return Reply{200, "<ListBucketResult>" + inside + "</ListBucketResult>", {}, {}, false};
        });
        return code_of(holder.store().list("a", "", 100));
    };
    const auto entry = [](const char* key) {
        return fmt::format("<Contents><Key>{}</Key><Size>1</Size></Contents>", key);
    };
    EXPECT_EQ(listing(entry("a2") + entry("a1")), Code::kUnsupported);
    EXPECT_EQ(listing(entry("a1") + entry("a1")), Code::kUnsupported);
    EXPECT_EQ(listing(entry("b1")), Code::kUnsupported) << "outside of the prefix";
    EXPECT_EQ(listing("<IsTruncated>true</IsTruncated><NextContinuationToken>t"
                      "</NextContinuationToken>"),
              Code::kUnsupported)
        << "it goes in a circle";
    EXPECT_EQ(listing("<IsTruncated>true</IsTruncated>" + entry("a1")), Code::kConnectionLost);
}

// Broken if 200 with an error inside passed for success.
TEST(S3Fake, AnErrorInsideA200IsAnError) {
    FakeHolder holder;
    holder.server.set_fault([](const HttpRequest&, const Reply&) {
        Reply reply = S3TestServer::error(200, "InternalError");
        return reply;
    });
    EXPECT_EQ(code_of(holder.store().list("", "", 10)), Code::kUnavailable);
    EXPECT_EQ(code_of(holder.store().remove("x")), Code::kUnavailable);
    EXPECT_EQ(code_of(holder.store().put("x", as_bytes("1"))), Code::kUnavailable);
}

// Broken if a store behind a bad line lost, doubled or mixed up objects: every call in turn fails,
// before it did what was asked or after.
TEST(S3Fake, WithRetriesAFailureAnywhereChangesNothing) {
    const std::vector<Reply> failures = {
        S3TestServer::error(500, "InternalError"), S3TestServer::error(503, "SlowDown"),
        S3TestServer::error(409, "ConditionalRequestConflict"),
        Reply{200, std::string(10, 'x'), {}, size_t{0}, false}};  // the answer is lost
    for (const bool after : {false, true}) {
        for (const Reply& failure : failures) {
            for (int fail_at = 0;; ++fail_at) {
                FakeHolder holder;
                RealRandom random;
                RetryingStore store(holder.store(), holder.clock, random,
                                    [](int64_t) { return true; });
                holder.server.acts_before_failing = after;
                std::atomic<int> call{0};
                holder.server.set_fault(
                    [&](const HttpRequest& request, const Reply&) -> std::optional<Reply> {
                        if (call++ != fail_at) return std::nullopt;
                        // A HEAD's answer has no body that could be lost.
                        if (request.method == "HEAD") return Reply{500, "", {}, {}, false};
                        return failure;
                    });
                SCOPED_TRACE(testing::Message()
                             << "call " << fail_at << " after " << after << " " << failure.status);
                ASSERT_TRUE(store.put("a", as_bytes("one")));
                ASSERT_TRUE(store.put("b", as_bytes("two")));
                EXPECT_EQ(code_of(store.put("a", as_bytes("other"))), Code::kAlreadyExists);
                ASSERT_EQ(to_text(*store.get("a")), "one");
                ASSERT_EQ(to_text(*store.get_range("b", 1, 2)), "wo");
                ASSERT_EQ(store.head("b")->size_bytes, 3u);
                ASSERT_EQ(store.list("", "", 10)->size(), 2u);
                ASSERT_TRUE(store.remove("a"));
                ASSERT_EQ(code_of(store.get("a")), Code::kNotFound);
                EXPECT_EQ(holder.server.objects(),
                          (std::map<std::string, std::string>{{"b", "two"}}));
                if (call <= fail_at) break;
            }
        }
    }
}

// Broken if a clock that is off stopped everything, or nobody learned of it.
TEST(S3Fake, ASkewedClockIsMeasuredOnce) {
    FakeHolder holder;
    holder.server.clock_ahead_us = -3'600'000'000;
    ASSERT_TRUE(holder.store().put("a", as_bytes("1")));
    EXPECT_LT(std::abs(holder.s3->wire().clock_offset_us() + 3'600'000'000), 60'000'000);
    const int before = holder.server.requests;
    ASSERT_TRUE(holder.store().get("a"));
    EXPECT_EQ(holder.server.requests, before + 1) << "not refused again";
    // A server that is not satisfied with its own time.
    holder.server.set_fault([](const HttpRequest&, const Reply&) {
        return S3TestServer::error(403, "RequestTimeTooSkewed");
    });
    auto got = holder.store().get("a");
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code(), Code::kForbidden);
    EXPECT_NE(got.error().what().find("is off by 3"), std::string::npos) << got.error().what();
    EXPECT_NE(got.error().remedy().find("clock"), std::string::npos);
}

// Broken if a server that says nothing held a call for ever, or the end of a program.
TEST(S3Fake, SilenceEndsWithATimeOutOrACancel) {
    FakeHolder holder(1);
    holder.server.set_object("there", "abc");
    holder.server.set_fault([](const HttpRequest&, const Reply&) {
        Reply reply;
        reply.silent = true;
        return reply;
    });
    EXPECT_EQ(code_of(holder.store().list("", "", 1)), Code::kTimeout);
    FakeHolder other(600);
    other.server.set_fault([&](const HttpRequest&, const Reply&) {
        other.store().cancel();
        Reply reply;
        reply.silent = true;
        return reply;
    });
    EXPECT_EQ(code_of(other.store().get("there")), Code::kCancelled);
    EXPECT_EQ(code_of(other.store().get("there")), Code::kCancelled) << "and every later one";
}

// Broken if an object could be overwritten on a server that does not know conditions, and nobody
// were told.
TEST(S3Fake, WithoutConditionsAPutLooksFirst) {
    FakeHolder holder;
    holder.server.obeys_conditions = false;
    ASSERT_TRUE(holder.store().put("farshore-store", as_bytes("identity")));
    EXPECT_EQ(holder.s3->conditional(), S3Store::Conditional::kIgnored);
    EXPECT_EQ(code_of(holder.store().put("farshore-store", as_bytes("other"))),
              Code::kAlreadyExists);
    ASSERT_TRUE(holder.store().put("a", as_bytes("1")));
    EXPECT_EQ(code_of(holder.store().put("a", as_bytes("2"))), Code::kAlreadyExists);
    EXPECT_EQ(holder.server.objects().at("a"), "1");
    // Found out by a process that starts on a store that is there, without changing it.
    FakeHolder next;
    next.server.obeys_conditions = false;
    next.server.set_object("farshore-store", "identity");
    next.server.set_object("a", "1");
    EXPECT_EQ(code_of(next.store().put("a", as_bytes("2"))), Code::kAlreadyExists);
    EXPECT_EQ(next.server.objects().at("farshore-store"), "identity");
}

}  // namespace
}  // namespace farshore
