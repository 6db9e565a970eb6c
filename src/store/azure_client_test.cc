// How requests are let in: clocks, signatures that end, managed identities, proxies, authorities.
#include "store/azure_client.h"

#include <gtest/gtest.h>

#include "codec/hash.h"
#include "os/pki.h"
#include "os/real.h"
#include "store/azure_fake_test.h"

namespace farshore {
namespace {

class AzureClientTest : public testing::Test {
  protected:
    Result<HttpResponse> get(AzureClient& client) {
        return client.call({.blob = "a", .doing = "get a"});
    }
    std::unique_ptr<AzureClient> client(AzureAccess access) {
        auto made = AzureClient::make(std::move(access), clock_);
        FS_CHECK(made);
        return std::move(*made);
    }
    SetClock clock_;
    FakeBlobs fake_;
};

// Broken if a wrong clock stopped everything, was not named, or stayed wrong after it was set.
TEST_F(AzureClientTest, TheServicesTimeIsUsedWhenOursIsRefused) {
    fake_.blobs["a"] = "x";
    int refused = 0;
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        const auto date = from_http_date(request.header("x-ms-date"));
        if (date && std::abs(date->us - fake_.now_us) < 900'000'000) return std::nullopt;
        ++refused;
        return fake_.error(403, "AuthenticationFailed");
    };
    const auto azure = client(fake_.access());
    for (const int64_t ours_us : {int64_t{-7'200'000'000}, int64_t{3'600'000'000}, int64_t{0}}) {
        clock_.at_us = fake_.now_us + ours_us;
        refused = 0;
        ASSERT_TRUE(get(*azure)) << ours_us;
        EXPECT_EQ(refused, 1) << "only the first one: then it is known";
        ASSERT_TRUE(get(*azure));
        EXPECT_EQ(refused, 1);
        EXPECT_EQ(azure->clock_offset_us(), -ours_us);
    }
    // A wrong key is not a wrong clock, and both can be wrong.
    fake_.instead = [&](const FakeRequest&) { return fake_.error(403, "AuthenticationFailed"); };
    Error error = get(*azure).error();
    EXPECT_EQ(error.code(), Code::kUnauthenticated);
    EXPECT_NE(error.remedy().find("account key is not"), std::string::npos);
    clock_.at_us = fake_.now_us - 7'200'000'000;
    error = get(*azure).error();
    EXPECT_NE(error.what().find("7200 s behind"), std::string::npos) << error.what();
    // A proxy's clock is nobody's.
    clock_.at_us = fake_.now_us;
    (void)get(*azure);
    ASSERT_EQ(azure->clock_offset_us(), 0);
    fake_.instead = [&](const FakeRequest&) {
        return FakeAnswer::of(403, {"Date: Sun, 06 Nov 1994 08:49:37 GMT"}, "");
    };
    EXPECT_EQ(get(*azure).error().code(), Code::kMalformed);
    EXPECT_EQ(azure->clock_offset_us(), 0);
}

// Broken if a signature that has ended looked like one that is wrong, or was shown.
TEST_F(AzureClientTest, SignaturesThatEndedAreNamed) {
    AzureAccess access = fake_.access();
    access.account_key = Secret();
    access.sas =
        Secret(as_bytes("?sv=2020-12-06&se=2023-11-14T22%3A00%3A00Z&sp=r&sig=SEKRET%3D\n"));
    std::string target;
    fake_.instead = [&](const FakeRequest& request) {
        target = request.target;
        EXPECT_EQ(request.header("authorization"), "");
        return fake_.error(403, "AuthenticationFailed");
    };
    const auto azure = client(access);
    const Error ended = get(*azure).error();
    EXPECT_EQ(target, "/box/a?sv=2020-12-06&se=2023-11-14T22%3A00%3A00Z&sp=r&sig=SEKRET%3D");
    EXPECT_EQ(ended.code(), Code::kUnauthenticated);
    EXPECT_NE(ended.what().find("expired at 2023-11-14T22:00:00Z"), std::string::npos);
    fake_.now_us -= 86'400'000'000;
    clock_.at_us = fake_.now_us;
    const Error wrong = get(*azure).error();
    EXPECT_EQ(wrong.what().find("expired"), std::string::npos);
    EXPECT_NE(wrong.remedy().find("signature is not"), std::string::npos);
    // Nobody there: the URL is named, without what is behind its '?'.
    access.endpoint = "http://127.0.0.1:1";
    const Error nobody = get(*client(access)).error();
    EXPECT_EQ(nobody.code(), Code::kUnavailable);
    for (const Error* error : {&ended, &wrong, &nobody})
        EXPECT_EQ(error->to_string().find("SEKRET"), std::string::npos);
}

// Broken if a token were asked for at each request, used past its end, or kept after a refusal.
TEST_F(AzureClientTest, TokensOfAManagedIdentityAreKeptUntilShortlyBeforeTheyEnd) {
    int asked = 0, status = 200;
    FakeHttp tokens([&](const FakeRequest& request) {
        ++asked;
        EXPECT_EQ(request.header("metadata"), "true");
        EXPECT_EQ(request.target,
                  "/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F"
                  "&client_id=who");
        return FakeAnswer::of(status, {},
                              fmt::format(R"({{"access_token":"TOKEN{}","expires_on":"{}"}})",
                                          asked, clock_.at_us / 1'000'000 + 3600));
    });
    std::string good = "Bearer TOKEN1";
    fake_.blobs["a"] = "x";
    fake_.instead = [&](const FakeRequest& request) -> std::optional<FakeAnswer> {
        if (request.header("authorization") == good) return std::nullopt;
        return fake_.error(401, "InvalidAuthenticationInfo");
    };
    AzureAccess access = fake_.access();
    access.account_key = Secret();
    access.managed_identity = true;
    access.identity = {tokens.url() + "/token", "who"};
    const auto azure = client(access);
    ASSERT_TRUE(get(*azure));
    clock_.at_us += 3'299'000'000;
    ASSERT_TRUE(get(*azure));
    EXPECT_EQ(asked, 1);
    clock_.at_us += 2'000'000;  // within five minutes of its end
    good = "Bearer TOKEN2";
    ASSERT_TRUE(get(*azure));
    EXPECT_EQ(asked, 2);
    // The service is away for a while: the old one lasts.
    clock_.at_us += 3'400'000'000;
    status = 500;
    ASSERT_TRUE(get(*azure));
    EXPECT_EQ(asked, 3);
    clock_.at_us += 300'000'000;
    EXPECT_EQ(get(*azure).error().code(), Code::kUnavailable);
    // Revoked: asks once more at once.
    status = 200;
    good = fmt::format("Bearer TOKEN{}", asked + 2);
    ASSERT_TRUE(get(*azure));
    good = "none";
    EXPECT_EQ(get(*azure).error().code(), Code::kUnauthenticated);
    for (const auto& [answer, code] :
         {std::pair{400, Code::kUnauthenticated}, std::pair{404, Code::kUnavailable},
          std::pair{410, Code::kUnavailable}, std::pair{429, Code::kThrottled}}) {
        status = answer;
        const Error error = get(*azure).error();
        EXPECT_EQ(error.code(), code) << answer;
        EXPECT_EQ(error.to_string().find("TOKEN"), std::string::npos);
    }
}

class AzureOverTls : public AzureClientTest {
  protected:
    AzureOverTls() : authority_(CertificateAuthority::create("ca", real_.now()).value()) {
        HttpServerOptions options;
        options.credentials =
            authority_
                .issue_with_key(
                    {.common_name = "blob", .alternative_names = {"127.0.0.1"}, .now = real_.now()})
                .value();
        server_ = std::move(*HttpServer::start(options, [](const HttpRequest&) {
            HttpResponse answer = HttpResponse::text("data");
            answer.headers.emplace_back("x-ms-request-id", "1");
            return answer;
        }));
        access_ = fake_.access();
        access_.endpoint = "https://" + server_->address();
        access_.authority_pem = authority_.certificate_pem();
    }
    RealClock real_;
    CertificateAuthority authority_;
    std::unique_ptr<HttpServer> server_;
    AzureAccess access_;
};

// Broken if credentials went to whoever answers.
TEST_F(AzureOverTls, OnlyATrustedAuthorityIsTalkedTo) {
    EXPECT_TRUE(get(*client(access_)));
    access_.authority_pem = CertificateAuthority::create("other", real_.now())->certificate_pem();
    Error error = get(*client(access_)).error();
    EXPECT_EQ(error.code(), Code::kUnauthenticated);
    EXPECT_NE(error.what().find("certificate"), std::string::npos) << error.what();
    access_.authority_pem.clear();
    EXPECT_EQ(get(*client(access_)).error().code(), Code::kUnauthenticated);
}

// Broken if a site whose only way out is a proxy with a password could not use the store, or a
// wrong password looked like a network that is down.
TEST_F(AzureOverTls, AProxyThatAsksForAPassword) {
    int tunnels = 0;
    FakeHttp proxy([&](const FakeRequest& request) {
        EXPECT_EQ(request.method, "CONNECT");
        EXPECT_EQ(request.target, server_->address());
        if (request.header("proxy-authorization") != "Basic " + to_base64(as_bytes("site:SEKRET")))
            return FakeAnswer::of(407, {"Proxy-Authenticate: Basic realm=\"x\""}, "");
        ++tunnels;
        FakeAnswer answer = FakeAnswer::of(200, {}, "", false);
        answer.close = false;
        answer.tunnel = server_->port();
        return answer;
    });
    access_.proxy = proxy.url();
    access_.proxy_user = "site";
    access_.proxy_password = Secret(as_bytes("SEKRET"));
    {
        const auto azure = client(access_);
        ASSERT_TRUE(get(*azure)) << get(*azure).error().to_string();
        ASSERT_TRUE(get(*azure));
        EXPECT_EQ(tunnels, 1) << "the tunnel is used again";
    }
    access_.proxy_password = Secret(as_bytes("SEKRET2"));
    Error error = get(*client(access_)).error();
    EXPECT_EQ(error.code(), Code::kUnauthenticated) << error.to_string();
    EXPECT_NE(error.what().find("407: it takes not this"), std::string::npos) << error.what();
    EXPECT_EQ(error.to_string().find("SEKRET"), std::string::npos);
    access_.proxy_user.clear();
    access_.proxy_password = Secret();
    error = get(*client(access_)).error();
    EXPECT_EQ(error.code(), Code::kUnauthenticated) << error.to_string();
    EXPECT_NE(error.what().find("asks for a user"), std::string::npos) << error.what();
    for (const auto& [status, code] :
         {std::pair{403, Code::kForbidden}, std::pair{502, Code::kUnavailable}}) {
        FakeHttp other(
            [&, answer = status](const FakeRequest&) { return FakeAnswer::of(answer, {}, ""); });
        access_.proxy = other.url();
        EXPECT_EQ(get(*client(access_)).error().code(), code) << status;
    }
    access_.proxy = "http://127.0.0.1:1";
    EXPECT_EQ(get(*client(access_)).error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace farshore
