// The Azure store on a service that lies. On a real one: azure_service_test_main.cc.
#include "store/azure_store.h"

#include <gtest/gtest.h>

#include "store/azure_fake_test.h"
#include "store/retrying_store.h"

namespace farshore {
namespace {

class AzureStoreTest : public testing::Test {
  protected:
    AzureStore& store(const std::string& prefix = "p/") {
        auto made = AzureStore::make({fake_.access(), prefix}, clock_, random_);
        FS_CHECK(made);
        store_ = std::move(*made);
        return *store_;
    }
    static Code code(const Status& status) {
        return status ? Code::kInternal : status.error().code();
    }

    SetClock clock_;
    CountedRandom random_;
    FakeBlobs fake_;
    std::unique_ptr<AzureStore> store_;
};

// Every call of a store, by name, as a Status.
std::vector<std::pair<std::string, std::function<Status(ObjectStore&)>>> calls() {
    const auto status = [](auto result) -> Status {
        if (!result) return fail(result.error());
        return {};
    };
    return {{"put", [](ObjectStore& s) { return s.put("a", as_bytes("x")); }},
            {"get", [=](ObjectStore& s) { return status(s.get("a")); }},
            {"get_range", [=](ObjectStore& s) { return status(s.get_range("a", 0, 1)); }},
            {"head", [=](ObjectStore& s) { return status(s.head("a")); }},
            {"list", [=](ObjectStore& s) { return status(s.list("", "", 10)); }},
            {"remove", [](ObjectStore& s) { return s.remove("a"); }}};
}

// Broken if an answer of the service were taken for another one: something that is there for gone,
// a passing trouble for a lasting one, or a failure for success.
TEST_F(AzureStoreTest, EveryRefusalOfEveryCallIsNamed) {
    struct Refusal {
        int status;
        const char* code;
        Code expected;
    };
    const Refusal refusals[] = {
        {400, "InvalidHeaderValue", Code::kIo},
        {400, "Md5Mismatch", Code::kConnectionLost},
        {401, "NoAuthenticationInformation", Code::kUnauthenticated},
        {403, "AuthenticationFailed", Code::kUnauthenticated},
        {403, "AuthorizationFailure", Code::kForbidden},
        {403, "AuthorizationPermissionMismatch", Code::kForbidden},
        {403, "InsufficientAccountPermissions", Code::kForbidden},
        {403, "KeyBasedAuthenticationNotPermitted", Code::kForbidden},
        {404, "ContainerNotFound", Code::kForeignStore},
        {404, "ResourceNotFound", Code::kForeignStore},
        {409, "ContainerBeingDeleted", Code::kForeignStore},
        {409, "BlobArchived", Code::kWrongState},
        {429, "TooManyRequests", Code::kThrottled},
        {500, "InternalError", Code::kUnavailable},
        {500, "OperationTimedOut", Code::kTimeout},
        {501, "APINotImplemented", Code::kUnsupported},
        {503, "ServerBusy", Code::kThrottled},
        {503, "Whatever", Code::kUnavailable},
        {507, "InsufficientStorage", Code::kNoSpace},
    };
    AzureStore& azure = store();
    for (const Refusal& refusal : refusals)
        for (const auto& [name, call] : calls()) {
            SCOPED_TRACE(fmt::format("{} {} at {}", refusal.status, refusal.code, name));
            fake_.instead = [&](const FakeRequest& request) {
                return fake_.error(refusal.status, refusal.code, request.method != "HEAD");
            };
            const Status status = call(azure);
            ASSERT_FALSE(status);
            EXPECT_EQ(status.error().code(), refusal.expected) << status.error().to_string();
            EXPECT_NE(status.error().what().find("azure://acct/box"), std::string::npos);
        }
}

// Broken if something that stands in the service's place - a proxy, a portal, another server -
// could make an object seem stored, or gone.
TEST_F(AzureStoreTest, WhatIsNoBlobServiceIsNeverBelieved) {
    AzureStore& azure = store();
    for (const int status : {200, 201, 202, 204, 206, 302, 400, 403, 404, 407, 409, 412, 501})
        for (const auto& [name, call] : calls()) {
            SCOPED_TRACE(fmt::format("{} at {}", status, name));
            fake_.instead = [&](const FakeRequest& request) {
                return FakeAnswer::of(
                    status, {"Content-Type: text/html"},
                    request.method == "HEAD" || status == 204 ? "" : "<html>Please log in</html>");
            };
            const Status result = call(azure);
            ASSERT_FALSE(result);
            EXPECT_NE(result.error().code(), Code::kNotFound);
            EXPECT_NE(result.error().code(), Code::kAlreadyExists);
        }
    // Its own troubles may pass.
    for (const int status : {429, 500, 502, 503, 504}) {
        fake_.instead = [&](const FakeRequest&) { return FakeAnswer::of(status, {}, ""); };
        EXPECT_NE(azure.get("a").error().retry(), Retry::kNever) << status;
    }
}

// Broken if a put whose answer was lost were done twice, or given up, or an equal name taken for
// ours that is not.
TEST_F(AzureStoreTest, SuccessThatIsReportedAsFailureIsFound) {
    AzureStore& azure = store();
    RetryingStore retrying(azure, clock_, random_, [](int64_t) { return true; });
    for (const int status : {500, 503}) {
        const std::string name = fmt::format("items/{}", status);
        int puts = 0;
        fake_.afterwards = [&](const FakeRequest& request, FakeAnswer& answer) {
            if (request.method == "PUT" && puts++ == 0)
                answer = fake_.error(status, status == 503 ? "ServerBusy" : "InternalError");
        };
        EXPECT_TRUE(retrying.put(name, as_bytes("ours"))) << status;
        EXPECT_EQ(puts, 2);
        EXPECT_EQ(fake_.blobs["p/" + name], "ours");
    }
    fake_.afterwards = nullptr;
    fake_.blobs["p/taken"] = "theirs";
    EXPECT_EQ(code(retrying.put("taken", as_bytes("ours"))), Code::kAlreadyExists);
    int tries = 0;
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        if (request.method == "PUT" && tries++ == 0) return fake_.error(500, "InternalError");
        return std::nullopt;
    };
    EXPECT_EQ(code(retrying.put("taken", as_bytes("ours"))), Code::kAlreadyExists);
    // A connection that ends with no answer at all.
    tries = 0;
    fake_.instead = nullptr;
    fake_.afterwards = [&](const FakeRequest& request, FakeAnswer& answer) {
        if (request.method == "PUT" && tries++ == 0) answer = {"", false, true};
    };
    EXPECT_TRUE(retrying.put("lost", as_bytes("ours")));
    EXPECT_EQ(fake_.blobs["p/lost"], "ours");
}

// Broken if a service that stored something else, or took the name without a condition, went
// unnoticed where it says so itself.
TEST_F(AzureStoreTest, FailureThatIsReportedAsSuccessIsFound) {
    AzureStore& azure = store();
    fake_.instead = [&](const FakeRequest&) {
        return FakeAnswer::of(201, fake_.headers("Content-MD5: " + content_md5(as_bytes("other"))),
                              "");
    };
    EXPECT_EQ(code(azure.put("a", as_bytes("x"))), Code::kCorrupt);
    fake_.instead = [&](const FakeRequest&) { return FakeAnswer::of(200, fake_.headers(), ""); };
    EXPECT_EQ(code(azure.put("a", as_bytes("x"))), Code::kMalformed);
    // A blob that is under a policy is there.
    for (const auto& [status, name] :
         {std::pair{409, "BlobImmutableDueToPolicy"}, std::pair{409, "BlobAlreadyExists"},
          std::pair{412, "ConditionNotMet"}, std::pair{412, "LeaseIdMissing"}}) {
        fake_.instead = [&](const FakeRequest&) { return fake_.error(status, name); };
        const Status put = azure.put("a", as_bytes("x"));
        if (std::string_view(name) != "LeaseIdMissing")
            EXPECT_EQ(code(put), Code::kAlreadyExists) << name;
        EXPECT_FALSE(put);
    }
    fake_.instead = [&](const FakeRequest&) {
        return fake_.error(409, "BlobImmutableDueToPolicy");
    };
    EXPECT_EQ(code(azure.remove("a")), Code::kForbidden);
}

// Broken if bytes that are missing, or are not what was put, passed for an object.
TEST_F(AzureStoreTest, BodiesThatAreCutAreNotObjects) {
    AzureStore& azure = store();
    std::string data;
    for (int i = 0; i < 300; ++i) data += static_cast<char>(i * 7);
    fake_.blobs["p/a"] = data;
    size_t kept = 0;
    bool say_so = true;
    fake_.afterwards = [&](const FakeRequest& request, FakeAnswer& answer) {
        if (request.method != "GET") return;
        const size_t head = answer.bytes.find("\r\n\r\n") + 4;
        if (!say_so) {
            const size_t line = answer.bytes.find("Content-Length");
            answer.bytes.erase(line, answer.bytes.find("\r\n", line) + 2 - line);
            answer.bytes.resize(answer.bytes.find("\r\n\r\n") + 4 + kept);
        } else {
            answer.bytes.resize(std::min(answer.bytes.size(), head + kept));
        }
        answer.close = true;
    };
    for (const bool with_length : {true, false})
        for (kept = 0; kept < 300; kept += 23) {
            say_so = with_length;
            SCOPED_TRACE(fmt::format("{} bytes, length {}", kept, with_length));
            const auto cut = [](const auto& result) {
                return !result && (result.error().code() == Code::kConnectionLost ||
                                   result.error().code() == Code::kMalformed);
            };
            EXPECT_TRUE(cut(azure.get("a")));
            EXPECT_TRUE(cut(azure.get_range("a", 0, 300)));
            if (kept < 150) EXPECT_TRUE(cut(azure.list("", "", 10))) << "which is longer";
        }
    // As long as it was, with a byte that is another.
    fake_.afterwards = [&](const FakeRequest&, FakeAnswer& answer) { answer.bytes.back() ^= 1; };
    EXPECT_EQ(azure.get("a").error().code(), Code::kCorrupt);
    // Another range than was asked for, or the whole in place of a part.
    fake_.afterwards = [&](const FakeRequest&, FakeAnswer& answer) {
        answer = FakeAnswer::of(206, fake_.headers("Content-Range: bytes 10-19/300"),
                                data.substr(10, 10));
    };
    EXPECT_EQ(azure.get_range("a", 0, 10).error().code(), Code::kMalformed);
    fake_.afterwards = [&](const FakeRequest&, FakeAnswer& answer) {
        answer = FakeAnswer::of(200, fake_.headers(), data);
    };
    EXPECT_EQ(azure.get_range("a", 0, 300).error().code(), Code::kMalformed);
    fake_.afterwards = [&](const FakeRequest&, FakeAnswer& answer) {
        answer =
            FakeAnswer::of(206, fake_.headers("Content-Range: bytes 0-4/300"), data.substr(0, 5));
    };
    EXPECT_EQ(azure.get_range("a", 0, 300).error().code(), Code::kMalformed);
}

// Broken if a service that answers no more held a call for ever.
TEST_F(AzureStoreTest, ServicesThatHangAreLeft) {
    AzureAccess access = fake_.access();
    access.timeout_us = 200'000;
    store_ = std::move(*AzureStore::make({access, ""}, clock_, random_));
    for (const std::string& begun : {std::string(), std::string("HTTP/1.1 200 OK\r\nx-ms-requ"),
                                     std::string("HTTP/1.1 200 OK\r\nx-ms-request-id: 1\r\n"
                                                 "Content-Length: 10\r\n\r\nabc")}) {
        fake_.instead = [&](const FakeRequest&) { return FakeAnswer{begun, true}; };
        for (const auto& [name, call] : calls())
            if (name == "get" || name == "remove") EXPECT_EQ(code(call(*store_)), Code::kTimeout);
    }
}

// Broken if a listing lost, repeated or disordered names at the borders of pages, whatever was
// listed before and whatever came or went since.
TEST_F(AzureStoreTest, ListingsAreWholeWhateverIsRemembered) {
    for (const bool marker_is_next : {true, false}) {
        AzureStore& azure = store();
        fake_.blobs = {{"other", "x"}, {"p", "x"}};
        fake_.marker_is_next = marker_is_next;
        fake_.page = 4;
        std::mt19937_64 engine(marker_is_next ? 1 : 2);
        const auto random_name = [&] { return fmt::format("log/{:03}", engine() % 60); };
        for (int step = 0; step < 1500; ++step) {
            const std::string name = random_name();
            if (engine() % 3 == 0)
                fake_.blobs.erase("p/" + name);
            else if (engine() % 3 == 0)
                fake_.blobs["p/" + name] = "data";
            const std::string after = engine() % 4 == 0 ? "" : random_name();
            const std::string prefix = engine() % 2 == 0 ? "log/" : "log/0";
            const size_t limit = 1 + engine() % 12;
            std::vector<std::string> expected;
            for (const auto& [blob, data] : fake_.blobs)
                if (blob.starts_with("p/" + prefix) && blob.substr(2) > after &&
                    expected.size() < limit)
                    expected.push_back(blob.substr(2));
            const auto listed = azure.list(prefix, after, limit);
            ASSERT_TRUE(listed) << listed.error().to_string();
            std::vector<std::string> found;
            for (const ObjectInfo& info : *listed) found.push_back(info.name);
            ASSERT_EQ(found, expected) << "step " << step << " after '" << after << "'";
        }
    }
}

// Broken if reading a long listing page by page cost a request for all pages before, each time.
TEST_F(AzureStoreTest, ListingOnCostsTwoRequestsAtMost) {
    for (int i = 0; i < 400; ++i) fake_.blobs[fmt::format("p/log/{:04}", i)] = "";
    AzureStore& azure = store();
    fake_.page = 10;
    std::string after;
    size_t found = 0;
    int pages = 0;
    while (true) {
        const auto page = azure.list("log/", after, 10);
        ASSERT_TRUE(page);
        ++pages;
        if (page->empty()) break;
        found += page->size();
        after = page->back().name;
    }
    EXPECT_EQ(found, 400u);
    EXPECT_LE(fake_.listings, 2 * pages);
    // A marker that the service does not know any more costs a listing from the start, no more.
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        if (request.target.find("marker=") == std::string::npos) return std::nullopt;
        fake_.instead = nullptr;
        return fake_.error(400, "OutOfRangeInput");
    };
    const auto again = azure.list("log/", "log/0250", 5);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->front().name, "log/0251");
}

// Broken if an account whose order is another one made the log seem to have holes.
TEST_F(AzureStoreTest, AnotherOrderThanOfBytesIsRefused) {
    AzureStore& azure = store("");
    const auto blob = [](const std::string& name) {
        return "<Blob><Name>" + name +
               "</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>";
    };
    fake_.instead = [&](const FakeRequest&) {
        return FakeAnswer::of(200, fake_.headers(),
                              "<EnumerationResults><Blobs>" + blob("a/x") + blob("a-b") +
                                  "</Blobs><NextMarker/></EnumerationResults>");
    };
    EXPECT_EQ(azure.list("", "", 10).error().code(), Code::kUnsupported);
    fake_.instead = [&](const FakeRequest&) {
        return FakeAnswer::of(200, fake_.headers(),
                              "<EnumerationResults><Blobs>" + blob("b") +
                                  "</Blobs><NextMarker/></EnumerationResults>");
    };
    EXPECT_EQ(azure.list("a", "", 10).error().code(), Code::kMalformed);
    // One that never ends.
    fake_.instead = [&](const FakeRequest&) {
        return FakeAnswer::of(
            200, fake_.headers(),
            "<EnumerationResults><Blobs/><NextMarker>again</NextMarker></EnumerationResults>");
    };
    EXPECT_EQ(azure.list("a", "", 10).error().code(), Code::kMalformed);
}

// Broken if a service that does not keep a policy were said to.
TEST_F(AzureStoreTest, ImmutabilityIsTried) {
    AzureStore& azure = store();
    auto tried = azure.check_immutability();
    ASSERT_TRUE(tried) << tried.error().to_string();
    EXPECT_FALSE(tried->enforced) << "it deletes whatever it is told to";
    EXPECT_TRUE(fake_.blobs.empty());
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        if (request.method != "PUT") return std::nullopt;
        return fake_.error(409, "ContainerDoesNotSupportVersionLevelImmutability");
    };
    tried = azure.check_immutability();
    ASSERT_TRUE(tried) << tried.error().to_string();
    EXPECT_FALSE(tried->enforced);
    std::string until, mode;
    bool policy = true;
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        if (request.method == "PUT") {
            until = request.header("x-ms-immutability-policy-until-date");
            mode = request.header("x-ms-immutability-policy-mode");
        }
        if (request.target.find("comp=immutabilityPolicies") != std::string::npos) {
            policy = false;
            return FakeAnswer::of(200, fake_.headers(), "");
        }
        if (request.method == "DELETE" && policy)
            return fake_.error(409, "BlobImmutableDueToPolicy");
        return std::nullopt;
    };
    tried = azure.check_immutability();
    ASSERT_TRUE(tried) << tried.error().to_string();
    EXPECT_TRUE(tried->enforced);
    EXPECT_EQ(mode, "Unlocked");
    EXPECT_TRUE(fake_.blobs.empty());
    // What is put for good is locked for as many days as were asked for.
    store_ = std::move(*AzureStore::make({fake_.access(), "", 3}, clock_, random_));
    ASSERT_TRUE(store_->put("a", as_bytes("x")));
    EXPECT_EQ(mode, "Locked");
    EXPECT_EQ(until, to_http_date({clock_.at_us + 3 * 86'400'000'000}));
}

// Broken if settings that cannot be right were taken, or shown with their secrets.
TEST_F(AzureStoreTest, WrongOptionsAreRefused) {
    const auto refused = [&](auto change) {
        AzureStoreOptions options{fake_.access(), ""};
        options.access.sas = Secret();
        change(options);
        const auto made = AzureStore::make(std::move(options), clock_, random_);
        EXPECT_FALSE(made);
        if (made) return std::string();
        EXPECT_EQ(made.error().code(), Code::kInvalidArgument);
        EXPECT_EQ(made.error().to_string().find("SEKRET"), std::string::npos);
        return made.error().to_string();
    };
    refused([](AzureStoreOptions& o) { o.access.account = "Acct"; });
    refused([](AzureStoreOptions& o) { o.access.container = "a--b"; });
    refused([](AzureStoreOptions& o) { o.access.endpoint = "ftp://h"; });
    refused([](AzureStoreOptions& o) { o.access.endpoint = "https://u:SEKRET@h"; });
    refused([](AzureStoreOptions& o) { o.access.endpoint = "https://h/?sig=SEKRET"; });
    refused([](AzureStoreOptions& o) { o.access.endpoint = "http://example.org"; });
    refused([](AzureStoreOptions& o) { o.access.account_key = Secret(as_bytes("SEKRET*")); });
    refused([](AzureStoreOptions& o) { o.access.account_key = Secret(); });
    refused([](AzureStoreOptions& o) { o.access.managed_identity = true; });
    refused([](AzureStoreOptions& o) {
        o.access.account_key = Secret();
        o.access.sas = Secret(as_bytes("SEKRET"));
    });
    refused([](AzureStoreOptions& o) { o.prefix = "a"; });
    refused([](AzureStoreOptions& o) { o.prefix = "A/"; });
    refused([](AzureStoreOptions& o) { o.immutable_days = -1; });
}

}  // namespace
}  // namespace farshore
